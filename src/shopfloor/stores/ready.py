"""What a session may claim now, and what sessions hold: the same answers from every store."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any, Protocol

import msgspec

from shopfloor.domain.board import Board
from shopfloor.domain.holder import held
from shopfloor.domain.order import AT_WORK, Order, Record, State
from shopfloor.domain.plan import Plan, ageing_key
from shopfloor.domain.policy import remaining
from shopfloor.domain.runs import Run
from shopfloor.ports import Query
from shopfloor.stores.index import Index


class _Wish(msgspec.Struct):
    """The part of a record that says whether its order may be claimed."""

    order: Order
    state: State
    generation: int
    accepted: bool
    stopping: bool
    elsewhere: str
    assignee: str
    retry_at: float | None
    retry_delay_s: float


class _Name(msgspec.Struct):
    id: str


class _Try(msgspec.Struct):
    id: str
    handle: dict[str, Any]
    claimed_at: float
    claimed_seq: int = 0


class _Hold(msgspec.Struct):
    """The part of a record that says who holds its order."""

    order: _Name
    generation: int
    attempts: list[_Try]


Seen = tuple[str, int, str, int, bytes]
"""An order in state ready, as far as it is known without reading its record: id, generation, run, doubtful (its record
has to say whether it may be claimed; otherwise it may), record."""

_hold = msgspec.json.Decoder(_Hold)
_wish = msgspec.json.Decoder(_Wish)
_run = msgspec.json.Decoder(Run)


_UNDER_WAY = (*sorted(AT_WORK), State.VERIFIED)
_READY = (
    "SELECT id, generation, run, planned OR others, blob FROM orders WHERE state = 'ready' AND NOT waits"
    " ORDER BY priority, rowid"
)
# The plus keeps SQLite from looking through all that is ready instead of the few that are named.
_NAMED = (
    "SELECT id, generation, run, planned OR others, blob FROM orders WHERE +state = 'ready' AND NOT waits"
    " AND id IN (SELECT value FROM json_each(?)) ORDER BY priority, rowid"
)
_WITH_FILES = (
    f"SELECT blob FROM orders WHERE state IN ({', '.join('?' * len(_UNDER_WAY))}) AND files <> ''"  # noqa: S608 - values are bound
    " ORDER BY priority, rowid"
)


class Source(Protocol):
    """What knows the records; each is given as JSON."""

    def ready(self, orders: Sequence[str] = ()) -> Iterator[Seen]:
        """Orders in state ready, by priority and age; those that surely wait for another may be left out.

        ``orders``: only these ids, at a cost that does not grow with how many others there are.
        """
        ...

    def held(self, order: str = "") -> Iterator[bytes]:
        """Records of what sessions hold, or only of this order if one does."""
        ...

    def handles(self) -> Iterator[str]:
        """The sessions that hold anything: the handle of each as JSON."""
        ...

    def with_files(self) -> Iterator[bytes]:
        """Records of what is under way and names files, by priority and age."""
        ...

    def record(self, order: str) -> bytes | None:
        """One record, if it is known."""
        ...

    def run(self, run: str) -> Run | None:
        """A run, if it is known."""
        ...


class BoardSource:
    """A board as a source."""

    def __init__(self, board: Board) -> None:
        self._board = board

    def ready(self, orders: Sequence[str] = ()) -> Iterator[Seen]:
        """Orders in state ready, by priority and age."""
        for record in self._in_state([State.READY], orders):
            order = record.order
            yield order.id, record.generation, order.run, 1, msgspec.json.encode(record)

    def held(self, order: str = "") -> Iterator[bytes]:
        """Records of what sessions hold, or only of this order if one does."""
        known = self._board.records
        meant = [known[order]] if order in known else [] if order else known.values()
        return (msgspec.json.encode(record) for record in meant if held(record) is not None)

    def handles(self) -> Iterator[str]:
        """The sessions that hold anything."""
        found = {holder: None for record in self._board.records.values() if (holder := held(record)) is not None}
        return (msgspec.json.encode(holder.handle()).decode() for holder in found)

    def with_files(self) -> Iterator[bytes]:
        """Records of what is under way and names files, by priority and age."""
        return (msgspec.json.encode(record) for record in self._in_state(_UNDER_WAY) if record.order.files)

    def _in_state(self, states: Iterable[State], orders: Sequence[str] = ()) -> list[Record]:
        wanted, known = frozenset(states), self._board.records
        meant = [known[order] for order in dict.fromkeys(orders) if order in known] if orders else known.values()
        found = [record for record in meant if record.state in wanted]
        return sorted(found, key=lambda record: record.order.priority)

    def record(self, order: str) -> bytes | None:
        """One record, if it is known."""
        known = self._board.records.get(order)
        return None if known is None else msgspec.json.encode(known)

    def run(self, run: str) -> Run | None:
        """A run, if it is known."""
        return self._board.runs.get(run)


class IndexSource:
    """An index as a source."""

    def __init__(self, index: Index) -> None:
        self._index = index

    def ready(self, orders: Sequence[str] = ()) -> Iterator[Seen]:
        """Orders in state ready that wait for none, by priority and age."""
        named = [msgspec.json.encode(orders).decode()] if orders else []
        found: Iterator[Any] = self._index.rows(_NAMED if orders else _READY, named)
        return found

    def held(self, order: str = "") -> Iterator[bytes]:
        """Records of what sessions hold, or only of this order if one does."""
        if order:
            return self._blobs("SELECT blob FROM orders WHERE id = ? AND holder <> ''", [order])
        return self._blobs("SELECT blob FROM orders WHERE holder <> ''", [])

    def handles(self) -> Iterator[str]:
        """The sessions that hold anything."""
        return (row[0] for row in self._index.rows("SELECT DISTINCT holder FROM orders WHERE holder <> ''"))

    def with_files(self) -> Iterator[bytes]:
        """Records of what is under way and names files, by priority and age."""
        return self._blobs(_WITH_FILES, [str(state) for state in _UNDER_WAY])

    def record(self, order: str) -> bytes | None:
        """One record, if it is known."""
        return next(self._blobs("SELECT blob FROM orders WHERE id = ?", [order]), None)

    def run(self, run: str) -> Run | None:
        """A run, if it is known."""
        return next(map(_run.decode, self._blobs("SELECT blob FROM runs WHERE id = ?", [run])), None)

    def _blobs(self, sql: str, values: Sequence[str]) -> Iterator[bytes]:
        return (row[0] for row in self._index.rows(sql, values))


def ready_rows(source: Source, query: Query, *, now: float, controller: int) -> list[dict[str, Any]]:
    """The next orders that a session may claim, at most ``query.limit``: id, generation, run, base, record, controller.

    ``record`` is the whole record as JSON. An order is left out while it waits for another, for a file that somebody
    works on, or for its time to be tried again. ``now`` is wall seconds, ``controller`` how many controllers have led.
    """
    may = _May(source, query, now)
    rows: list[dict[str, Any]] = []
    bases: dict[str, str] = {}
    choosy = bool(query.wanted)
    for place, (order, generation, run, doubtful, record) in enumerate(source.ready(query.wanted.orders)):
        if (doubtful or choosy) and not may.claim(record, place):
            continue
        if run not in bases:
            bases[run] = _base_of(source, run)
        rows.append(
            {"id": order, "generation": generation, "run": run, "base": bases[run], "record": record,
             "controller": controller}
        )  # fmt: skip
        if 0 < query.limit <= len(rows):
            break
    return rows


class _May:
    """Says of one order after the other whether it may be claimed; an earlier one has its files before a later one."""

    def __init__(self, source: Source, query: Query, now: float) -> None:
        self._source = source
        self._wanted = query.wanted
        self._now = now
        self._plan: Plan | None = None
        """made when an order names files"""

    def claim(self, record: bytes, place: int) -> bool:
        wish = _wish.decode(record)
        order = wish.order
        taken = wish.elsewhere or wish.assignee  # another program has it
        if taken or wish.stopping or not self._wanted.fits(order) or not _due(wish, self._now):
            return False
        if _missing(self._source, order):
            return False
        if not order.files:
            return True
        if self._plan is None:
            self._plan = _files_at_work(self._source)
        self._plan.add(order.id, _key(order, place), (), order.files)
        return self._plan.pop() is not None  # else somebody works on a file of it, or an earlier row needs it


def held_rows(source: Source, *, order: str = "", controller: int) -> list[dict[str, Any]]:
    """What sessions hold, of one ``order`` or of all.

    Each row has id, generation, attempt, claimed_at, claimed_seq, handle, record (as JSON), controller.
    """
    rows = []
    for blob in source.held(order):
        hold = _hold.decode(blob)
        last = hold.attempts[-1]
        row = {"id": hold.order.id, "generation": hold.generation, "attempt": last.id, "handle": last.handle}
        times = {"claimed_at": last.claimed_at, "claimed_seq": last.claimed_seq}
        rows.append({**row, **times, "record": blob, "controller": controller})
    return rows


def holder_rows(source: Source) -> list[dict[str, Any]]:
    """The sessions that hold anything: handle."""
    return [{"handle": msgspec.json.decode(handle)} for handle in source.handles()]


def _files_at_work(source: Source) -> Plan:
    plan = Plan()
    for place, blob in enumerate(source.with_files()):
        wish = _wish.decode(blob)
        order = wish.order
        if not _rests(source, wish):
            plan.add(order.id, _key(order, place), (), order.files)
            plan.unqueue(order.id)
            plan.hold(order.id)
    return plan


def _key(order: Order, place: int) -> tuple[float, int, int]:
    return ageing_key(order.created_at, order.priority, 0, place)


def _due(wish: _Wish, now: float) -> bool:
    return wish.retry_at is None or remaining(wish.retry_delay_s, wish.retry_at, now) <= 0


def _missing(source: Source, order: Order) -> bool:
    """True while something that it waits for was not delivered; what nobody knows is not waited for."""
    known: Sequence[bytes] = [blob for need in order.depends_on if (blob := source.record(need)) is not None]
    return any(not _delivered(source, _wish.decode(blob)) for blob in known)


def _delivered(source: Source, wish: _Wish) -> bool:
    if wish.state is State.VERIFIED:
        return _land_of(source, wish.order.run) == "off"
    return wish.state is State.DONE


def _land_of(source: Source, run: str) -> str:
    found = source.run(run)
    return "" if found is None else found.land


def _base_of(source: Source, run: str) -> str:
    """The commit that an order of a run starts from; empty when there is no such run."""
    found = source.run(run)
    return "" if found is None else found.tip or found.base


def _rests(source: Source, wish: _Wish) -> bool:
    """It is verified and waits for a person, who may take long: nobody works on its files."""
    waits = wish.state is State.VERIFIED and not wish.accepted
    return waits and _land_of(source, wish.order.run) in ("review", "off")
