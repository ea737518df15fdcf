"""How many orders of a run stand where, kept by the index with every change, so that nobody has to count them.

What an order needs is kept too: ``waits`` says that something which it waits for is not delivered yet, and costs work
in proportion to what was delivered.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Mapping

import msgspec

from shopfloor.domain.board import Run
from shopfloor.domain.holder import held
from shopfloor.domain.order import Deliverable, Record, State
from shopfloor.domain.paths import plain_path
from shopfloor.stores.rows import bounded

NANO = 1e9
"""nano-USD: whole numbers add up to the same in every order"""

COLUMNS = ("accepted", "answer", "ended", "planned", "delivered", "nano", "files", "others", "holder")
"""What :func:`columns` adds to the row of an order; ``waits`` follows from the rows of others."""

_KEY = ("run", "state", "merged", "answer", "accepted", "ended", "waits", "planned")
_ALIKE = ", ".join(_KEY)


def _of(row: str) -> str:
    return ", ".join(f"{row}.merge <> ''" if name == "merged" else f"{row}.{name}" for name in _KEY)


def _add(row: str) -> str:
    return (
        f"INSERT INTO tallies VALUES ({_of(row)}, 1, {row}.nano IS NOT NULL, coalesce({row}.nano, 0)) "  # noqa: S608 - own names
        f"ON CONFLICT({_ALIKE}) DO UPDATE SET number = number + 1, priced = priced + excluded.priced, "
        "nano = nano + excluded.nano"
    )


def _take_away(row: str) -> str:
    return (
        f"UPDATE tallies SET number = number - 1, priced = priced - ({row}.nano IS NOT NULL), "  # noqa: S608 - own names
        f"nano = nano - coalesce({row}.nano, 0) WHERE ({_ALIKE}) = ({_of(row)})"
    )


TABLES = (
    f"CREATE TABLE tallies({_ALIKE}, number, priced, nano, PRIMARY KEY({_ALIKE})) WITHOUT ROWID",
    "CREATE TABLE needs(id TEXT, need TEXT, PRIMARY KEY(id, need)) WITHOUT ROWID",
)
INDEXES = (
    "CREATE INDEX needs_behind ON needs(need, id)",
    "CREATE INDEX orders_holder ON orders(holder) WHERE holder <> ''",
)
_TRIGGERS = (
    f"CREATE TRIGGER orders_new AFTER INSERT ON orders BEGIN {_add('NEW')}; END",
    f"CREATE TRIGGER orders_change AFTER UPDATE ON orders BEGIN {_take_away('OLD')}; {_add('NEW')}; END",
)
# As total() adds up: sum() fails where it gets too large. It is exact up to nine million USD.
_COUNT = (
    f"INSERT INTO tallies SELECT {_of('orders')}, count(*), count(nano), CAST(total(nano) AS INTEGER) "  # noqa: S608
    f"FROM orders GROUP BY {', '.join(str(place + 1) for place in range(len(_KEY)))}"
)


def columns(record: Record, run: Run | None) -> tuple[int | str | None, ...]:
    """The values of ``COLUMNS``."""
    order, attempt, cost, holder = record.order, record.attempt, record.cost_usd, held(record)
    return (
        int(record.accepted),
        int(order.deliverable is Deliverable.ANSWER),
        int(attempt is not None and bool(attempt.outcome)),
        (2 if record.retry_delay_s else int(bool(order.files))) if record.state is State.READY else 0,
        int(delivered(record, run)),
        None if cost is None else bounded(round(cost * NANO)),
        "\n".join(filter(None, map(plain_path, order.files))),
        1 if record.taken or record.collisions else 2 * (record.stopping and record.state is State.READY),
        "" if holder is None else msgspec.json.encode(holder.handle()).decode(),
    )


def delivered(record: Record, run: Run | None) -> bool:
    """True when those who wait for this order may start."""
    if record.state is State.VERIFIED:
        return run is not None and run.land == "off"
    return record.state is State.DONE


def before(db: sqlite3.Connection, orders: Iterable[str]) -> dict[str, int]:
    """Whether the orders that are known were delivered, before they are changed."""
    found = {}
    for order in orders:
        row = db.execute("SELECT delivered FROM orders WHERE id = ?", (order,)).fetchone()
        if row is not None:
            found[order] = row[0]
    return found


def note_needs(db: sqlite3.Connection, records: Mapping[str, Record]) -> None:
    """Keep what these orders wait for."""
    if db.execute("SELECT 1 FROM needs LIMIT 1").fetchone() is None:  # then there is nothing to take away
        needs = ((order, need) for order, record in records.items() for need in {*record.order.depends_on})
        db.executemany("INSERT INTO needs VALUES (?, ?)", needs)
        return
    for order, record in records.items():
        wanted = set(record.order.depends_on)
        known = {need for (need,) in db.execute("SELECT need FROM needs WHERE id = ?", (order,))}
        if wanted != known:  # it is new, or another program had it wait for something else
            db.executemany("DELETE FROM needs WHERE id = ? AND need = ?", [(order, need) for need in known - wanted])
            db.executemany("INSERT INTO needs VALUES (?, ?)", [(order, need) for need in wanted - known])


def count(db: sqlite3.Connection, runs: Iterable[Run]) -> None:
    """Count all orders and see who waits, after much was written without; from now on count with every change."""
    for run in runs:
        db.execute(f"{_DELIVER} {_TURNED}", _land(run))
    db.execute(_TURN)
    db.execute("DELETE FROM tallies")
    db.execute(_COUNT)
    start(db)


def start(db: sqlite3.Connection) -> None:
    """Count with every change, from now on."""
    for statement in _TRIGGERS:
        db.execute(statement)


def recount(
    db: sqlite3.Connection, records: Mapping[str, Record], old: Mapping[str, int], runs: Mapping[str, Run]
) -> None:
    """After the rows of these orders were written, with nobody waiting: who does, and who does not any more."""
    for order, record in records.items():
        if record.order.depends_on and record.state is State.READY:
            db.execute(f"{_TURN} AND id = ?", (order,))
    for order, record in records.items():
        # One that nobody had heard of kept nobody waiting.
        if old.get(order, 1) != int(delivered(record, runs.get(record.order.run))):
            db.execute(_TURN_BEHIND, (order,))


def land_changed(db: sqlite3.Connection, run: Run) -> None:
    """Verified work counts as delivered in a run that does not land, and in no other."""
    turned = db.execute(f"SELECT id FROM orders {_TURNED}", _land(run)).fetchall()  # noqa: S608 - own names
    db.execute(f"{_DELIVER} {_TURNED}", _land(run))
    for order in turned:
        db.execute(_TURN_BEHIND, order)


def _land(run: Run) -> tuple[str, int]:
    return run.id, int(run.land == "off")


_DELIVER = "UPDATE orders SET delivered = NOT delivered"
_TURNED = "WHERE run = ? AND state = 'verified' AND delivered <> ?"

# The plus keeps SQLite from looking through all that is ready instead of the few that are named.
_TURN = """UPDATE orders SET waits = NOT waits WHERE +state = 'ready' AND waits <> EXISTS (
    SELECT 1 FROM needs JOIN orders p ON p.id = needs.need WHERE needs.id = orders.id AND NOT p.delivered)"""
_TURN_BEHIND = f"{_TURN} AND id IN (SELECT id FROM needs WHERE need = ?)"  # noqa: S608 - own names
