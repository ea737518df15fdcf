"""What a session may claim now, and what sessions hold: the same answers from every store."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any, Protocol

import msgspec

from shopfloor.domain.board import Board
from shopfloor.domain.holder import holder_in
from shopfloor.domain.order import AT_WORK, Order, State
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
    outcome: str
    handle: dict[str, Any]
    claimed_at: float
    claimed_seq: int = 0


class _Hold(msgspec.Struct):
    """The part of a record that says who holds its order."""

    order: _Name
    generation: int
    attempts: list[_Try]


_hold = msgspec.json.Decoder(_Hold)
_wish = msgspec.json.Decoder(_Wish)
_run = msgspec.json.Decoder(Run)


class Source(Protocol):
    """What knows the records; each is given as JSON."""

    def in_state(self, states: Iterable[str]) -> Iterator[bytes]:
        """Records in these states, by priority and age."""
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

    def in_state(self, states: Iterable[str]) -> Iterator[bytes]:
        """Records in these states, by priority and age."""
        wanted = frozenset(states)
        found = [record for record in self._board.records.values() if record.state in wanted]
        return map(msgspec.json.encode, sorted(found, key=lambda record: record.order.priority))

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

    def in_state(self, states: Iterable[str]) -> Iterator[bytes]:
        """Records in these states, by priority and age."""
        wanted = [str(state) for state in states]
        places = ", ".join("?" * len(wanted))
        sql = f"SELECT blob FROM orders WHERE state IN ({places}) ORDER BY priority, rowid"  # noqa: S608 - values are bound
        return self._index.select(sql, wanted)

    def record(self, order: str) -> bytes | None:
        """One record, if it is known."""
        return next(self._index.select("SELECT blob FROM orders WHERE id = ?", (order,)), None)

    def run(self, run: str) -> Run | None:
        """A run, if it is known."""
        blobs = self._index.select("SELECT blob FROM runs WHERE id = ?", (run,))
        return next(map(_run.decode, blobs), None)


def ready_rows(source: Source, query: Query, *, now: float, controller: int) -> list[dict[str, Any]]:
    """The next orders that a session may claim, at most ``query.limit``: id, generation, run, base, record, controller.

    ``record`` is the whole record as JSON. An order is left out while it waits for another, for a file that somebody
    works on, or for its time to be tried again. ``now`` is wall seconds, ``controller`` how many controllers have led.
    """
    plan = _files_at_work(source)
    rows: list[dict[str, Any]] = []
    bases: dict[str, str] = {}
    for place, blob in enumerate(source.in_state([State.READY])):
        wish = _wish.decode(blob)
        order = wish.order
        taken = wish.elsewhere or wish.assignee  # another program has it
        if taken or wish.stopping or not query.wanted.fits(order) or not _due(wish, now) or _missing(source, order):
            continue
        if order.files:
            plan.add(order.id, _key(order, place), (), order.files)
            if plan.pop() is None:
                continue  # somebody works on a file of it, or an earlier row needs it
        if order.run not in bases:
            bases[order.run] = _base_of(source, order.run)
        row = {"id": order.id, "generation": wish.generation, "run": order.run, "base": bases[order.run]}
        rows.append({**row, "record": blob, "controller": controller})
        if 0 < query.limit <= len(rows):
            break
    return rows


def held_rows(source: Source, *, controller: int) -> list[dict[str, Any]]:
    """What sessions hold: id, generation, attempt, claimed_at, claimed_seq, handle, record (as JSON), controller."""
    rows = []
    for blob in source.in_state([State.RUNNING]):
        hold = _hold.decode(blob)
        last = hold.attempts[-1] if hold.attempts else _Try("", "done", {}, 0.0)
        if last.outcome or holder_in({"handle": last.handle}) is None:
            continue
        row = {"id": hold.order.id, "generation": hold.generation, "attempt": last.id, "handle": last.handle}
        times = {"claimed_at": last.claimed_at, "claimed_seq": last.claimed_seq}
        rows.append({**row, **times, "record": blob, "controller": controller})
    return rows


def _files_at_work(source: Source) -> Plan:
    plan = Plan()
    for place, blob in enumerate(source.in_state([*AT_WORK, State.VERIFIED])):
        wish = _wish.decode(blob)
        order = wish.order
        if order.files and not _rests(source, wish):
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
