"""The index of a log: what was folded so far, ready to be asked. ``stores/tables.py`` says what is in its tables."""

from __future__ import annotations

import contextlib
import sqlite3
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

import msgspec

from shopfloor._version import __version__
from shopfloor.domain import values
from shopfloor.domain.board import Board, Run
from shopfloor.domain.order import FINAL, Attempt, Order, Record
from shopfloor.ports import Query
from shopfloor.stores import database, loose, stock, tables, tally
from shopfloor.stores.news import Mark, News
from shopfloor.stores.rows import bounded, order_row, run_row
from shopfloor.stores.scan import Problem

CACHE = 2000
"""Records kept decoded between two batches."""
MOST_OPEN, MORE_KEPT = 2_000, 500
"""Changed records kept decoded while much is taken in: those that are open, and so many more; some 5 MiB."""
MOST_NAMED = 20_000
"""Orders that are known to be in the table without asking."""
WRITTEN_AT_ONCE = 500
"""Records that are made rows of at a time."""

_ORDER = [
    *("id", "name", "title", "state", "reason", "message", "priority", "run", "agent", "generation", "attempts"),
    *("cost_usd", "updated_at"),
]
_COLUMNS = ", ".join([*_ORDER, "commit_id", "merge"])
_NAMES = [*_ORDER, "commit", "merge"]

_ALL = (*_COLUMNS.split(", "), "created_seq", "changed", "blob", *tally.COLUMNS, "waits")
# The rowid is the order of creation: told with the first row of an order, and kept when that is updated in place.
_UPSERT = (
    f"INSERT INTO orders(rowid, {', '.join(_ALL)}) VALUES (?{', ?' * len(_ALL)}) ON CONFLICT(id) DO UPDATE SET "  # noqa: S608 - own names
    f"{', '.join(f'{name} = excluded.{name}' for name in _ALL[1:])}"
)

# Another version may fold other fields out of the same log: its index is made anew.
_SHAPE = "|".join([__version__, *(",".join(kind.__struct_fields__) for kind in (Order, Attempt, Record, Run))])

_record_decoder = msgspec.json.Decoder(Record)
_run_decoder = msgspec.json.Decoder(Run)
_encode = msgspec.json.encode


class Index:
    """The index of one log. Every method blocks; one thread uses it. Methods raise sqlite3.Error when it is damaged."""

    def __init__(self, path: Path | None, db: sqlite3.Connection | None = None) -> None:
        """``db``: where it is kept instead, for as long as that is open."""
        self.path = path
        self._db, self._file = database.connect(path) if db is None else (db, None)
        self._board = Board()
        self._at = -1
        """offset that the records in ``_board`` stand for"""
        self._stored: set[str] | None = None
        """orders in the table that are perhaps not in ``_board``; None: nobody knows which"""
        self._lands: dict[str, str] = {}
        self._changed: dict[str, int] = {}
        """order -> position behind the last event about it, of those whose rows are not written yet"""
        self._claims: dict[str, int] = {}
        self._births: dict[str, int] = {}
        """rowids of orders that have no row yet"""
        self._runs: set[str] = set()
        """runs that events spoke of"""
        try:
            if not self._fits():  # only then: another process may be writing for seconds
                with self.transaction():
                    if not self._fits():
                        self.clear()
        except sqlite3.Error:
            self._db.close()
            raise

    def _fits(self) -> bool:
        return (self.get("layout"), self.get("shape")) == (tables.LAYOUT, _SHAPE)

    @contextlib.contextmanager
    def transaction(self) -> Iterator[None]:
        """All or nothing, and no other process writes meanwhile."""
        self._db.execute("BEGIN IMMEDIATE")
        done = False
        try:
            yield
            self._db.execute("COMMIT")
            done = True
        finally:
            if not done:
                self._at = -1  # the records in memory are ahead of what was kept
                if self._db.in_transaction:
                    self._db.execute("ROLLBACK")

    def lost(self) -> bool:
        """True when the file was deleted under us, or another took its place."""
        return self.path is not None and database.which(self.path) != self._file

    def close(self) -> None:
        """Let go of the file."""
        self._db.close()

    def clear(self) -> None:
        """Start again with nothing; part of a transaction."""
        tables.create(self._db)
        self.put(layout=tables.LAYOUT, shape=_SHAPE)
        self._at = -1

    # -- meta -------------------------------------------------------------------------------------------------------

    def get(self, key: str, default: Any = None) -> Any:
        """A value of meta; ``default`` also when there are no tables yet."""
        try:
            row = self._db.execute("SELECT value FROM meta WHERE key = ?", (key,)).fetchone()
        except sqlite3.OperationalError:
            return default
        return default if row is None else row[0]

    def put(self, **values: Any) -> None:
        """Set values of meta."""
        self._db.executemany("INSERT OR REPLACE INTO meta VALUES (?, ?)", values.items())

    def mark(self) -> Mark:
        """How far the index is."""
        rows = dict(self._db.execute("SELECT key, value FROM meta").fetchall())
        return Mark(**{name: rows.get(name, 0) for name in Mark.__struct_fields__})

    def offset(self) -> int:
        """How many bytes of the log it knows."""
        return int(self.get("offset", 0))

    # -- taking in --------------------------------------------------------------------------------------------------

    def advance(self, news: News, to: Mark, identity: str) -> None:
        """Fold in what lies between the index and ``to``; part of a transaction. Older news are skipped."""
        at = self._stand()
        self._gather(news, at)
        self._keep(counted=True)
        self._arrive(to, identity)

    def advance_far(
        self, news: Iterable[News], to: Callable[[], tuple[Mark, str]], going: Callable[[], None] = lambda: None
    ) -> None:
        """The same for many events: they are indexed and counted once, when all of them are there.

        ``to`` is asked when the news have come to their end; none of them is older than the index. ``going`` is called
        every now and then meanwhile.
        """
        at = self._stand()
        room = MORE_KEPT
        tables.drop_indexes(self._db)
        for some in news:
            going()
            self._gather(some, at)
            if len(self._changed) > room:
                room = self._put_away() + MORE_KEPT
        self._keep(counted=False)
        tables.create_indexes(self._db, going)
        tally.count(self._db, self._board.runs.values())
        self._arrive(*to())
        self._forget()  # of so many the next ones are none of these

    def _put_away(self) -> int:
        """Write what has ended, which hardly changes again; what is open would be written twice. How many are kept."""
        known, changed = self._board.records, self._changed
        left = {order: end for order, end in changed.items() if known[order].state not in FINAL}
        if len(left) > MOST_OPEN:
            left = {}
        self._changed = {order: end for order, end in changed.items() if order not in left}
        self._keep(counted=False)
        records = {order: known[order] for order in left}
        self._forget()
        known.update(records)
        self._changed = left
        return len(left)

    def _stand(self) -> int:
        """Have the board that the index stands for, as much of it as is needed; the offset of that."""
        at = self.offset()
        if at != self._at:
            self._board = stock.bare(self._db)
            self._stored = None if self._db.execute("SELECT 1 FROM orders LIMIT 1").fetchone() else set()
        self._lands = {run.id: run.land for run in self._board.runs.values()}
        self._changed, self._claims, self._runs, self._births = {}, {}, set(), {}
        self._age = self._db.execute("SELECT coalesce(max(rowid), 0) FROM orders").fetchone()[0]
        return at

    def _gather(self, news: News, at: int) -> None:
        """Fold news in, without what follows for the rows of orders and runs."""
        rows, known, apply = [], self._board.records, self._board.apply
        for start, end, event in news.found:
            if start < at:
                continue
            order, run = event.order_id, event.correlation_id
            if not run or "run_id" in event.data:
                named = values.text(event.data, "run_id")
                self._runs.add(named)
                run = run or named
            if order and order not in known and (self._stored is None or order in self._stored):
                self._fetch(order)
            unknown = order not in known
            touched = apply(event)
            if touched:
                self._changed[touched] = end
                if unknown:
                    self._age += 1
                    self._births[touched] = self._age
            rows.append((start, end - start, event.event_type, order, run, event.timestamp))
        self._runs.update({row[4] for row in rows})
        self._db.executemany("INSERT OR REPLACE INTO events VALUES (?, ?, ?, ?, ?, ?)", rows)
        new = [problem for problem in news.problems if problem.offset >= at]
        self._db.executemany("INSERT OR REPLACE INTO problems VALUES (?, ?, ?, ?)", new)
        for order, generation in news.claims.items():
            self._claims[order] = max(generation, self._claims.get(order, 0))

    def _arrive(self, to: Mark, identity: str) -> None:
        stock.put_generations(self._db, self._claims)
        self._write_runs(self._runs)
        self.put(floor=stock.floor_of(self._board), identity=identity, **msgspec.structs.asdict(to))
        self._at = to.offset
        if len(self._board.records) > CACHE:
            self._forget()

    def _forget(self) -> None:
        """Keep no records in memory: they are rows now."""
        if self._stored is not None:
            self._stored.update(self._board.records)
            self._stored = self._stored if len(self._stored) <= MOST_NAMED else None
        self._board.records.clear()

    def _fetch(self, order: str) -> None:
        row = self._db.execute("SELECT blob FROM orders WHERE id = ?", (order,)).fetchone()
        if row is not None:
            self._board.records[order] = _record_decoder.decode(row[0])

    def _keep(self, *, counted: bool) -> None:
        """Write the rows of the orders that changed; ``counted``: see to it at once who waits for them."""
        old = tally.before(self._db, self._changed) if counted else {}
        records = {order: self._board.records[order] for order in self._changed}
        left = iter(records.items())
        while some := list(islice(left, WRITTEN_AT_ONCE)):
            self._db.executemany(_UPSERT, [self._row(order, record) for order, record in some])
        tally.note_needs(self._db, records)
        self._changed.clear()
        if counted:
            tally.recount(self._db, records, old, self._board.runs)
            for run in self._board.runs.values():
                if self._lands.get(run.id) != run.land:
                    tally.land_changed(self._db, run)

    def _row(self, order: str, record: Record) -> tuple[Any, ...]:
        values = tally.columns(record, self._board.run_of(record))
        place = (bounded(record.created_seq), self._changed[order])
        return (self._births.pop(order, None), *order_row(record).values(), *place, _encode(record), *values, 0)

    def _write_runs(self, runs: Iterable[str]) -> None:
        known = list(self._board.runs)
        for run_id in runs:
            run = self._board.runs.get(run_id)
            if run is not None:
                run.orders.clear()  # the orders table knows them
                blob = _encode(run)
                self._db.execute(
                    "INSERT INTO runs VALUES (?, ?, ?) ON CONFLICT(id) DO UPDATE SET blob = excluded.blob",
                    (run_id, known.index(run_id), blob),
                )

    # -- asking -----------------------------------------------------------------------------------------------------

    def board(self, query: Query) -> Board:
        """The fold of the log, or as much of it as a query needs."""
        return stock.take(self._db, query, self._resolve(query.order) if query.order else ())

    def generation(self, order: str) -> int:
        """The greatest generation claimed for an order, 0 when there is none."""
        row = self._db.execute("SELECT generation FROM generations WHERE id = ?", (order,)).fetchone()
        return 0 if row is None else int(row[0])

    def generations(self, orders: Iterable[str]) -> dict[str, int]:
        """The same for many; those for which there is none are left out."""
        return dict(stock.of(self._db, "id, generation", orders, table="generations"))

    def kept(self, order: str) -> tuple[bytes | None, int]:
        """A record as JSON, None when it is not known, and the position behind the last event about it."""
        row = self._db.execute("SELECT blob, changed FROM orders WHERE id = ?", (order,)).fetchone()
        return (None, 0) if row is None else (row[0], row[1])

    def kept_of(self, orders: Iterable[str]) -> Iterator[tuple[str, bytes, int]]:
        """The same of those that are known, each behind its id."""
        return stock.of(self._db, "id, blob, changed", orders)

    def loose(self, query: Query) -> dict[str, Any]:
        """The answer about the orders of no run, but for which log it is."""
        return loose.row(self._db, query)

    def changed_after(self, position: int) -> list[str]:
        """Ids of the orders that changed after a position, in the order of their creation."""
        # The plus keeps SQLite from looking through all orders so as not to sort the few.
        rows = self._db.execute("SELECT id FROM orders WHERE changed > ? ORDER BY +rowid", (position,))
        return [row[0] for row in rows]

    def records(self, ids: Sequence[str]) -> Iterator[Record]:
        """The records of these orders, in this order."""
        for first in range(0, len(ids), stock.AT_ONCE):
            some = ids[first : first + stock.AT_ONCE]
            blobs = dict(stock.of(self._db, "id, blob", some))
            yield from (_record_decoder.decode(blobs[order]) for order in some if order in blobs)

    def rows(self, sql: str, values: Sequence[Any] = ()) -> Iterator[tuple[Any, ...]]:
        """The rows that a question has."""
        return self._db.execute(sql, values)

    def orders(self, query: Query) -> list[dict[str, Any]]:
        """Rows of orders: by priority and age where a state is asked for, else by age."""
        where, values = self._conditions(query)
        by = "priority, rowid" if query.state else "rowid"
        columns = _COLUMNS + (", blob" if query.order else "")
        sql = f"SELECT {columns} FROM orders{where} ORDER BY {by}{_limit(query)}"  # noqa: S608 - values are bound
        rows = [dict(zip([*_NAMES, "record"], row, strict=False)) for row in self._db.execute(sql, values)]
        for row in rows:
            if "record" in row:
                row["record"] = msgspec.json.decode(row["record"])
        return rows

    def events(self, query: Query) -> list[tuple[int, int]]:
        """Start and size of events in the log, oldest first; ``limit`` keeps the newest."""
        conditions, values = [], []
        if query.order:
            ids = self._resolve(query.order)
            conditions.append(f"order_id IN ({', '.join('?' * len(ids))})")
            values += ids
        if query.run:
            conditions.append("run = ?")
            values.append(query.run)
        where = f" WHERE {' AND '.join(conditions)}" if conditions else ""
        sql = f"SELECT start, size FROM events{where} ORDER BY start DESC{_limit(query)}"  # noqa: S608 - values are bound
        return self._db.execute(sql, values).fetchall()[::-1]

    def runs(self, query: Query) -> list[dict[str, Any]]:
        """Rows of runs, oldest first; ``limit`` keeps the newest."""
        rows = []
        for (blob,) in self._db.execute("SELECT blob FROM runs ORDER BY seq DESC"):
            run = _run_decoder.decode(blob)
            if query.run in ("", run.id):
                states = self._db.execute("SELECT state, count(*) FROM orders WHERE run = ? GROUP BY state", (run.id,))
                row = run_row(run, dict(states.fetchall()))
                if query.state in ("", row["state"]):
                    rows.append(row)
        return rows[: query.limit or None][::-1]

    def problems(self) -> list[Problem]:
        """Lines that do not count, in the order of the log."""
        return [Problem(*row) for row in self._db.execute("SELECT * FROM problems ORDER BY offset")]

    def count(self) -> dict[str, int]:
        """Orders in each state."""
        return dict(self._db.execute("SELECT state, count(*) FROM orders GROUP BY state").fetchall())

    def _conditions(self, query: Query) -> tuple[str, list[str]]:
        conditions, values = [], []
        if query.order:
            ids = self._resolve(query.order)
            conditions.append(f"id IN ({', '.join('?' * len(ids))})")
            values += ids
        for column, value in (("run", query.run), ("state", query.state)):
            if value:
                conditions.append(f"{column} = ?")
                values.append(value)
        return (f" WHERE {' AND '.join(conditions)}" if conditions else ""), values

    def _resolve(self, name: str) -> list[str]:
        """Ids of the order with this id, else the newest of this name, else of all whose id or name begins so."""
        found = self._db.execute("SELECT id FROM orders WHERE id = ?", (name,)).fetchall()
        if not found:
            newest = "SELECT id FROM orders WHERE name = ? ORDER BY rowid DESC LIMIT 1"
            found = self._db.execute(newest, (name,)).fetchall()
        if not found:
            ends = (name, name + "\U0010ffff") * 2
            begins = "SELECT id FROM orders WHERE id BETWEEN ? AND ? OR name BETWEEN ? AND ? LIMIT 1000"
            found = self._db.execute(begins, ends).fetchall()
        return [row[0] for row in found]


def _limit(query: Query) -> str:
    return f" LIMIT {int(query.limit)}" if query.limit > 0 else ""
