"""The store in memory: the same rules as on disk, for embedding and for tests. What it holds ends with the process."""

from __future__ import annotations

import asyncio
import os
import socket
from collections import Counter
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from copy import deepcopy
from types import TracebackType
from typing import Any, Self

import msgspec

from shopfloor.domain.board import Board
from shopfloor.domain.errors import Conflict, Led, Refused
from shopfloor.domain.events import SCHEMA, E, Event, stamp_time
from shopfloor.domain.order import FINISHED, Record, State
from shopfloor.ports import CONTROLLER, Clock, Query
from shopfloor.stores.changes import (
    Change,
    alternatives,
    check_controller,
    check_generation,
    check_session,
    own_event,
    stamp,
    superseded,
)
from shopfloor.stores.codec import decode, encode
from shopfloor.stores.ready import BoardSource, held_rows, holder_rows, ready_rows
from shopfloor.stores.rows import claimed_generation, event_row, order_row, run_of_event, run_row, started_controller


class MemoryLog:
    """What several :class:`MemoryStore` objects may share, as processes share a folder."""

    def __init__(self) -> None:
        self.events: list[Event] = []
        self.board = Board()
        self.claims: dict[str, int] = {}
        self.sequence = 0
        self.controller = 0
        self.leader: MemoryStore | None = None
        self.leader_info: dict[str, Any] = {}
        self.waiting: set[asyncio.Event] = set()

    def take(self, events: Sequence[Event]) -> None:
        """Add one complete change and wake who waits."""
        for event in events:
            self.events.append(event)
            self.controller = max(self.controller, started_controller(event))
            claimed = claimed_generation(event, self.controller)
            if claimed > self.claims.get(event.order_id, 0):
                self.claims[event.order_id] = claimed
            self.board.apply(event)
        for woken in self.waiting:
            woken.set()


class MemoryStore:
    """A :class:`shopfloor.ports.Store` whose positions count events. Stores that share a log see each other's."""

    def __init__(
        self, log: MemoryLog | None = None, *, clock: Clock, random: Callable[[int], bytes] = os.urandom
    ) -> None:
        self.log = log or MemoryLog()
        self._clock = clock
        self._random = random
        self._generation = 0
        self._closed = False

    async def append(
        self, events: Sequence[Event], *, expect: Mapping[str, int] | None = None, at_most: int = 0
    ) -> list[Event]:
        """All of the events, or none; raises as on disk."""
        self._check_open()
        if at_most:
            return await self._first(events, expect or {}, at_most)
        if not events:
            return []
        log = self.log
        if self._generation and log.controller > self._generation:
            raise superseded(self._generation, log.controller)
        if not self._generation:
            check_session(events, expect or {}, alive=lambda: log.leader is not None)
        for order, generation in (expect or {}).items():
            if order == CONTROLLER:
                check_controller(generation, log.controller)
                continue
            check_generation(order, generation, log.claims.get(order, 0))
        opening = []
        if not log.events:
            opening = stamp([self._own(E.LOG_OPENED, {"schema": SCHEMA})], 0, 1)
        stamped = stamp(events, self._generation, log.sequence + len(opening) + 1)
        # Through the codec, so that nobody can change afterwards what was said, and nothing counts that a file refuses.
        kept = [decode(encode(event)[:-1]) for event in stamped]
        log.sequence += len(opening) + 1
        log.take([*opening, *kept])
        return stamped

    async def _first(self, events: Sequence[Event], expect: Mapping[str, int], at_most: int) -> list[Event]:
        written: list[Event] = []
        whole = Change(events, expect, at_most=at_most)
        for part in alternatives(whole, free=lambda order, known: self.log.claims.get(order, 0) == known):
            try:
                written += await self.append(part.events, expect=part.expect)
            except Led:
                raise
            except Conflict:
                continue
            if len(written) == at_most:
                break
        return written

    async def read(self, after: int = 0, *, others: bool = False) -> AsyncIterator[tuple[int, Event]]:
        """Events behind the position ``after``, up to now, each with the position behind it."""
        self._check_open()
        until = len(self.log.events)
        for position in range(max(0, after), until):
            event = self.log.events[position]
            if not (others and self._wrote(event)):
                yield position + 1, event

    def _wrote(self, event: Event) -> bool:
        return event.sf is not None and 0 < event.sf.controller == self._generation

    def _beyond(self, after: int, *, others: bool) -> int:
        """The position behind what this store wrote itself from ``after`` on, where that does not count."""
        events = self.log.events
        while others and after < len(events) and self._wrote(events[after]):
            after += 1
        return after

    async def wait(self, after: int, timeout_s: float, *, others: bool = False) -> bool:
        """True as soon as there is an event behind ``after``; False when the time is over."""
        self._check_open()
        after = self._beyond(after, others=others)
        woken = asyncio.Event()
        self.log.waiting.add(woken)
        try:
            async with asyncio.timeout(max(0.0, timeout_s)):
                while len(self.log.events) <= after:
                    woken.clear()
                    await woken.wait()
                    after = self._beyond(after, others=others)
        except TimeoutError:
            pass
        finally:
            self.log.waiting.discard(woken)
        return len(self.log.events) > after

    async def query(self, query: Query) -> list[dict[str, Any]]:
        """Rows as from the index of a folder."""
        self._check_open()
        log = self.log
        if query.what == "orders":
            return self._orders(query)
        if query.what == "runs":
            return self._runs(query)
        if query.what == "holders":
            return holder_rows(BoardSource(log.board))
        if query.what == "held":
            return held_rows(BoardSource(log.board), order=query.order, controller=log.controller)
        if query.what == "ready":
            return ready_rows(BoardSource(log.board), query, now=self._clock.wall(), controller=log.controller)
        if query.what == "events":
            return self._events(query)
        if query.what == "loose":
            return [self._loose(query)]
        if query.what == "board":
            return [{"position": len(self.log.events), "board": deepcopy(self.log.board)}]
        return [self._meta()]

    async def lead(self, info: Mapping[str, Any]) -> int:
        """Become the controller; raises Conflict when another store leads this log."""
        self._check_open()
        log = self.log
        if self._generation:
            return self._generation
        if log.leader is not None:
            since = log.leader_info.get("since")
            raise Conflict(
                f"a controller is already at work in this log: pid {log.leader_info.get('pid')} since {since}",
                hint="type: shopfloor status, or shopfloor stop",
            )
        who = {"pid": os.getpid(), "host": socket.gethostname(), "since": stamp_time(self._clock.wall()), **info}
        self._generation = log.controller + 1
        try:
            await self.append([self._own(E.CONTROLLER_STARTED, {**who, "generation": self._generation})])
        except Refused:
            self._generation = 0
            raise
        log.leader, log.leader_info = self, who
        return self._generation

    async def close(self) -> None:
        """Stop leading; harmless when repeated."""
        self._closed = True
        if self.log.leader is self:
            self.log.leader = None

    async def __aenter__(self) -> Self:
        """For ``async with``: closed at the end of the block."""
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close it."""
        await self.close()

    def _orders(self, query: Query) -> list[dict[str, Any]]:
        records = self._find(query.order) if query.order else list(self.log.board.records.values())
        if query.run:
            records = [r for r in records if r.order.run == query.run]
        if query.state:
            records = sorted((r for r in records if r.state == query.state), key=lambda r: r.order.priority)
        rows = []
        for record in records[: query.limit or None]:
            row = order_row(record)
            if query.order:
                row["record"] = msgspec.to_builtins(record)
            rows.append(row)
        return rows

    def _loose(self, query: Query) -> dict[str, Any]:
        log, after = self.log, query.after
        changed = {event.order_id: place for place, event in enumerate(log.events[after:], after + 1)}
        all_ = [(age, r) for age, r in enumerate(log.board.records.values(), 1) if not r.order.run]
        ends = {"finished": FINISHED, "unfinished": frozenset(State) - FINISHED}
        wanted = ends.get(query.state, {query.state} if query.state else frozenset(State))
        found = [(age, r) for age, r in all_ if r.order.id in changed and r.state in wanted]
        position = len(log.events)
        if query.urgent:
            found = sorted(found, key=lambda one: one[1].order.priority)[: query.limit or None]
        elif query.limit:
            found = sorted(found, key=lambda one: changed[one[1].order.id])[: query.limit]
            position = changed[found[-1][1].order.id] if len(found) == query.limit else position
        return {
            "position": position, "log": id(log), "records": [msgspec.json.encode(r) for _, r in found],
            "ages": [age for age, _ in found], "newest": len(log.board.records),
            "states": dict(Counter(str(r.state) for _, r in all_)),
        }  # fmt: skip

    def _find(self, name: str) -> list[Record]:
        age = {order: place for place, order in enumerate(self.log.board.records)}
        return sorted(self.log.board.find(name), key=lambda r: age[r.order.id])

    def _runs(self, query: Query) -> list[dict[str, Any]]:
        rows = []
        for run in self.log.board.runs.values():
            if query.run in ("", run.id):
                records = (self.log.board.records[order] for order in run.orders)
                row = run_row(run, Counter(str(record.state) for record in records))
                if query.state in ("", row["state"]):
                    rows.append(row)
        return rows[-query.limit :]

    def _events(self, query: Query) -> list[dict[str, Any]]:
        orders = {record.order.id for record in self._find(query.order)} if query.order else set()
        rows = []
        for position, event in enumerate(self.log.events, 1):
            if query.order and event.order_id not in orders:
                continue
            if query.run in ("", run_of_event(event)):
                rows.append(event_row(position, event))
        return rows[-query.limit :]

    def _meta(self) -> dict[str, Any]:
        log = self.log
        return {
            "schema": SCHEMA if log.events else 0,
            "position": len(log.events),
            "events": len(log.events),
            "sequence": log.sequence,
            "controller": log.controller,
            "alive": dict(log.leader_info) if log.leader is not None else None,
            "orders": dict(Counter(str(record.state) for record in log.board.records.values())),
            "problems": [],
        }

    def _own(self, event_type: E, data: dict[str, Any]) -> Event:
        return own_event(event_type, data, clock=self._clock, random=self._random)

    def _check_open(self) -> None:
        if self._closed:
            raise Refused("the store is closed", hint="open it anew")
