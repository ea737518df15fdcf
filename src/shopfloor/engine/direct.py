"""Claims without a controller: the same facts that a controller would write, straight into the log.

The store refuses them in the moment in which a controller has started. What was looked up stays true until then: while
none leads, an order that is ready can only be claimed, and a claim raises its generation. So candidates are looked up
once for many claims, and ``expect`` tells which of them somebody else took first: all are offered to the store at once,
and it takes the first that are still free. Only their claims are made at all.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Sequence
from itertools import islice
from typing import Any

import msgspec

from shopfloor.domain.errors import Conflict, Led, NotFound, Refused
from shopfloor.domain.events import E, Event
from shopfloor.domain.fold import fold
from shopfloor.domain.holder import Holder, Wanted, holder_in
from shopfloor.domain.order import Order, Record
from shopfloor.domain.paths import overlap
from shopfloor.domain.prompt import render
from shopfloor.engine.hands import (
    PREFIX,
    Back,
    Claimed,
    Work,
    claim_data,
    finish_data,
    not_yours,
    refuse_unfit,
    release_data,
)
from shopfloor.engine.journal import Draft, Journal
from shopfloor.ports import CONTROLLER, Query

_record = msgspec.json.Decoder(Record)

AHEAD = 1024
"""Candidates that are looked up at once, where nothing else is said."""

Alive = Callable[[Holder], bool]


class Candidate(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """A row of what may be claimed."""

    id: str
    generation: int
    run: str
    base: str
    record: bytes
    controller: int


class Held(msgspec.Struct, frozen=True, kw_only=True):
    """A row of what sessions hold."""

    id: str
    generation: int
    attempt: str
    claimed_at: float
    claimed_seq: int
    handle: dict[str, Any]
    record: bytes
    controller: int

    @property
    def order(self) -> Order:
        """What is held."""
        return _record.decode(self.record).order

    @property
    def base(self) -> str:
        """The commit that its holder started from."""
        return _record.decode(self.record).attempts[-1].base

    @property
    def branch(self) -> str:
        """Where its work is kept."""
        return _record.decode(self.record).attempts[-1].branch

    @property
    def holder(self) -> Holder:
        """Who holds it."""
        return holder_in({"handle": self.handle}) or Holder(name="", pid=0)


class Direct:
    """One session's claims while nobody leads. Every method raises Led once a controller has started."""

    def __init__(self, journal: Journal, holder: Holder, *, alive: Alive, ahead: int = AHEAD) -> None:
        self._ahead = ahead
        self._journal = journal
        self._store = journal.store
        self._holder = holder
        self._alive = alive
        self._controller = -1
        self._known: deque[Candidate] = deque()
        self._expect: dict[str, int] = {}
        """what is expected of the known ones, and of the controller, when one of them is claimed"""
        self._wanted = Wanted()

    async def claim(self, limit: int, wanted: Wanted) -> list[Claimed]:
        """Up to ``limit`` orders, durably ours; fewer, or none, when no more are ready."""
        claimed: list[Claimed] = []
        if wanted != self._wanted:
            self._forget(len(self._known))
            self._wanted = wanted
        looked = False
        while len(claimed) < limit:
            if not self._known:
                if looked:
                    break
                await self._look(limit)
                looked = True
                continue
            taken = await self._first(limit - len(claimed))
            looked = looked and not taken
            claimed += await self._without_barred(taken)
        return claimed

    async def _first(self, count: int) -> list[Claimed]:
        """The next of the known candidates that nobody took before us: looked for in one step, under one lock."""
        known = self._known
        won = await self._store.append(_Offers(known, self._claim_of), expect=self._expect, at_most=count)
        # What stood before the last one that we got was taken by others; what stood behind it was not even looked at.
        behind = 1 + next(n for n, found in enumerate(known) if found.id == won[-1].order_id) if won else len(known)
        taken = {event.order_id: event.data for event in won}
        records = [_record.decode(found.record) for found in islice(known, behind) if found.id in taken]
        self._forget(behind if len(won) == count else len(known))
        return [Claimed.of(record.order, taken[record.order.id], render(record)) for record in records]

    def _forget(self, count: int) -> None:
        """The next so many candidates are no longer any."""
        for _ in range(count):
            del self._expect[self._known.popleft().id]

    def _claim_of(self, found: Candidate) -> Event:
        order = _record.decode(found.record).order
        return self._event(E.ASSIGNED, claim_data(order, found.generation + 1, found.base, self._holder), found.run)

    async def _look(self, limit: int) -> None:
        query = Query(what="ready", limit=max(self._ahead, 2 * limit), wanted=self._wanted)
        first = self._controller < 0
        if first:
            await self.return_lost()
        rows = await self._store.query(query)
        if not rows and not first and await self.return_lost():
            rows = await self._store.query(query)
        self._known.extend(Candidate(**row) for row in rows)
        if rows:
            self._controller = self._known[0].controller
            self._expect = {CONTROLLER: self._controller, **{found.id: found.generation for found in self._known}}

    async def _without_barred(self, taken: list[Claimed]) -> list[Claimed]:
        """Two sessions may take two orders that need the same file at one moment: the later one gives its own back."""
        if not any(claim.files for claim in taken):
            return taken
        held = [msgspec.convert(row, Held) for row in await self._store.query(Query(what="held"))]
        kept = []
        for claim in taken:
            own = next((h.claimed_seq for h in held if h.attempt == claim.attempt), 0)
            first = [h for h in held if h.claimed_seq < own and _meet(h.order.files, claim.files)]
            if first:
                back = Back(why=f"{first[0].order.name} has its files")
                await self._give(claim.id, claim.generation, self._holder, back)
            else:
                kept.append(claim)
        return kept

    async def release(self, order: str, back: Back, *, force: bool = False) -> Record:
        """Give an order back; ``force``: whoever holds it. Raises NotFound or Refused when it is not ours.

        Returns what it is then.
        """
        found = await self.find(order, anybody=force)
        record = _record.decode(found.record)
        fold(record, await self._give(order, found.generation, found.holder, back))
        return record

    async def finish(self, order: str, work: Work) -> Record:
        """Hand in what was made; whoever leads next verifies it. Raises NotFound or Refused when it is not ours.

        Returns what it is then.
        """
        found = await self.find(order)
        record = _record.decode(found.record)
        refuse_unfit(record.order, work)
        data = finish_data(order, found.generation, self._holder, work)
        fold(record, await self._append(E.AGENT_STOPPED, data, found.generation))
        return record

    async def return_lost(self) -> int:
        """Give back what the dead hold; how many orders that were. Whose machine is another one is not judged."""
        count = 0
        for found in await self._lost():
            back = Back(why=f"{found.holder.name} has ended")
            data = release_data(found.id, found.generation, found.holder, back, lost=True)
            try:
                await self._append(E.RELEASED, data, found.generation, controller=found.controller)
            except Led:
                raise
            except Conflict:
                continue  # somebody else was faster
            count += 1
        return count

    async def find(self, order: str, *, anybody: bool = False) -> Held:
        """The order that this session (or ``anybody``) holds. Raises NotFound, or Refused naming who holds it."""
        found = next(iter(await self._held(order)), None)
        if found is None:
            raise NotFound(f"no session holds {order!r}", hint=f"type: shopfloor show {order}")
        self._controller = found.controller
        if not anybody and found.holder.identity != self._holder.identity:
            raise Refused(not_yours(found.order.name, found.holder), hint=f"type: shopfloor show {order}")
        return found

    async def _lost(self) -> list[Held]:
        """What the dead hold; each of the holders is looked at once."""
        holders = filter(None, map(holder_in, await self._store.query(Query(what="holders"))))
        dead = {holder.identity for holder in holders if not self._alive(holder)}
        return [found for found in await self._held() if found.holder.identity in dead] if dead else []

    async def _held(self, order: str = "") -> list[Held]:
        return [msgspec.convert(row, Held) for row in await self._store.query(Query(what="held", order=order))]

    async def _give(self, order: str, generation: int, holder: Holder, back: Back) -> Event:
        return await self._append(E.RELEASED, release_data(order, generation, holder, back), generation)

    async def _append(
        self, kind: E, data: dict[str, Any], generation: int, *, run: str = "", controller: int | None = None
    ) -> Event:
        since = self._controller if controller is None else controller
        expect = {data["work_order_id"]: generation, CONTROLLER: since}
        (said,) = await self._store.append([self._event(kind, data, run)], expect=expect)
        return said

    def _event(self, kind: E, data: dict[str, Any], run: str) -> Event:
        return self._journal.event(Draft(kind, data, f"{PREFIX}{self._holder.name}"), run or None)


class _Offers(Sequence[Event]):
    """The claims of all candidates, each made when the store asks for it."""

    def __init__(self, known: Sequence[Candidate], claim: Callable[[Candidate], Event]) -> None:
        self._known = known
        self._claim = claim

    def __len__(self) -> int:
        return len(self._known)

    def __getitem__(self, place: Any) -> Any:
        return self._claim(self._known[place])


def _meet(some: Iterable[str], others: Sequence[str]) -> bool:
    return any(overlap(one, other) for one in some for other in others)
