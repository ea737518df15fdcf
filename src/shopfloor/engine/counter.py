"""The counter: what other processes ask the controller for by its socket.

Sessions claim orders, hand in work and give orders back; people and programs ask for the same things as by the log.
All of it is decided here, on the one state, and goes into the log through the one journal: requests of the same moment
share a write and a sync. What a session held returns when it is gone.
"""

from __future__ import annotations

import asyncio
from collections import Counter as Tally
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any, TypeVar

import msgspec

from shopfloor.domain import values
from shopfloor.domain.errors import NotFound, Refused, ShopfloorError, UsageError
from shopfloor.domain.events import E
from shopfloor.domain.holder import Holder, Wanted
from shopfloor.domain.judge import Start
from shopfloor.domain.order import Record
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
from shopfloor.engine.requests import Desk
from shopfloor.engine.talk import Spawn, Talk
from shopfloor.ports import Caller, Callers

T = TypeVar("T")

MOST = 1_000
"""Orders in one claim."""

DECIDED_BY_PEOPLE = frozenset({"accept", "reject", "land", "answer", "steer"})
"""What no agent may ask for, also not about the work of others."""

LOOK_EVERY_S = 1.0
"""How often it is looked whether the holders still live."""


class Counter:
    """A :class:`shopfloor.ports.Service` on a run's state."""

    def __init__(self, journal: Journal, desk: Desk, *, callers: Callers, spawn: Spawn) -> None:
        self._journal = journal
        self._floor = journal.floor
        self._desk = desk
        self._callers = callers
        self._own: dict[int, tuple[int, int, str, str]] = {}
        """connection -> the session at its other end, where that process speaks for itself"""
        self._links: Tally[tuple[int, int, str, str]] = Tally()
        self._verbs: dict[str, Callable[[Mapping[str, Any]], Awaitable[Mapping[str, Any]]]] = {
            "claim": self._claim, "release": self._release, "finish": self._finish,
        }  # fmt: skip
        self.talk = Talk(journal, desk, callers=callers, claim=self._claim_for, spawn=spawn)

    async def answer(self, caller: Caller, request: Mapping[str, Any]) -> Mapping[str, Any]:
        """Do what is asked. Raises ShopfloorError for what is refused."""
        verb = request.get("verb")
        if verb == "ask":
            return await self._ask(caller, request)
        if verb == "talk":
            return await self.talk.answer(request)
        act = self._verbs.get(verb) if isinstance(verb, str) else None
        if act is None:
            raise UsageError(f"there is no request {verb!r}", hint=f"there are {', '.join(self._verbs)}, ask, talk")
        if "holder" in request and caller.number not in self._own:
            holder = _holder(request)
            if holder.pid == caller.pid:
                self._own[caller.number] = holder.identity
                self._links[holder.identity] += 1
        return await act(request)

    async def gone(self, caller: Caller) -> None:
        """What a session held returns with the end of its last connection, when it spoke for itself."""
        who = self._own.pop(caller.number, None)
        if who is None:
            return
        self._links[who] -= 1
        if self._links[who] <= 0:
            del self._links[who]
            await self._return(lambda holder: holder.identity == who, "has hung up")

    async def watch(self) -> None:
        """Return what dead sessions hold, until cancelled."""
        while True:
            if self._floor.held:
                await self._return(lambda holder: not self._callers.alive(holder), "has ended")
            await asyncio.sleep(LOOK_EVERY_S)

    async def _return(self, which: Callable[[Holder], bool], why: str) -> None:
        lost = [(order, holder) for order, holder in self._floor.held.items() if which(holder)]
        found = [
            release_data(order, self._record(order).generation, holder, Back(why=f"{holder.name} {why}"), lost=True)
            for order, holder in lost
        ]
        if found:
            await self._journal.commit(*(Draft(E.RELEASED, data) for data in found))

    # -- one function for each verb ---------------------------------------------------------------------------------

    async def _claim(self, request: Mapping[str, Any]) -> Mapping[str, Any]:
        holder, limit = _holder(request), values.count(request, "limit")
        if not 1 <= limit <= MOST:
            raise UsageError(f"a claim is for 1 to {MOST} orders, not for {request.get('limit')!r}")
        orders = await self._claim_for(holder, limit, _wanted(request))
        return {"orders": orders} if orders else {"orders": [], "paused": self._floor.board.paused}

    async def _claim_for(self, holder: Holder, limit: int, wanted: Wanted) -> Sequence[Claimed]:
        starts = self._floor.claim(limit, wanted)
        starts += self._floor.loose.claim(limit - len(starts), wanted, self._journal.now())
        return await self._take(starts, holder) if starts else []

    async def _take(self, starts: Sequence[Start], holder: Holder) -> list[Claimed]:
        run = self._floor.run
        base = (run.tip or run.base) if run else ""
        records = [self._record(start.order) for start in starts]
        prompts = [render(record) for record in records]
        claims = [
            claim_data(r.order, start.generation, base if r.order.run else "", holder)
            for r, start in zip(records, starts, strict=True)
        ]
        try:
            await self._journal.commit(
                *(Draft(E.ASSIGNED, data, f"{PREFIX}{holder.name}") for data in claims),
                expect={record.order.id: record.generation for record in records},
            )
        except ShopfloorError:
            now = self._journal.now()
            self._floor.unclaim(starts, now)
            self._floor.loose.unclaim(starts, now)
            raise
        return [Claimed.of(r.order, d, prompt) for r, d, prompt in zip(records, claims, prompts, strict=True)]

    async def _release(self, request: Mapping[str, Any]) -> Mapping[str, Any]:
        record, holder = self._mine(request, force=request.get("force") is True)
        back = _convert(request.get("back") or {}, Back)
        data = release_data(record.order.id, record.generation, holder, back)
        await self._journal.commit(Draft(E.RELEASED, data), expect={record.order.id: record.generation})
        return {}

    async def _finish(self, request: Mapping[str, Any]) -> Mapping[str, Any]:
        record, holder = self._mine(request)
        work = _convert(request.get("work"), Work)
        refuse_unfit(record.order, work)
        data = finish_data(record.order.id, record.generation, holder, work)
        draft = Draft(E.AGENT_STOPPED, data, f"{PREFIX}{holder.name}")
        await self._journal.commit(draft, expect={record.order.id: record.generation})
        return {}

    async def _ask(self, caller: Caller, request: Mapping[str, Any]) -> Mapping[str, Any]:
        what, order, text, actor = (values.text(request, key) for key in ("what", "order", "text", "actor"))
        if what in DECIDED_BY_PEOPLE and self._is_agent(caller):
            text = f"an agent may not {what}: that is for a person to decide"
            raise Refused(text, hint="a question to a person: shopfloor ask")
        answer = await self._desk.ask(what, order, text, actor or "human")
        return {key: answer.data.get(key, "") for key in ("result", "text", "hint")}

    # -- inside -----------------------------------------------------------------------------------------------------

    def _is_agent(self, caller: Caller) -> bool:
        """Whether it is one of our agents, or was started by one, that asks."""
        records = (self._record(order) for order in self._floor.live - self._floor.held.keys())
        pids = {r.attempt.handle.get("pid") for r in records if r.attempt is not None}
        return self._callers.below(caller.pid, {pid for pid in pids if isinstance(pid, int) and pid > 1})

    def _record(self, order: str) -> Record:
        return self._floor.board.records[order]

    def _mine(self, request: Mapping[str, Any], *, force: bool = False) -> tuple[Record, Holder]:
        """The order that is spoken of, and who holds it. Raises NotFound when that is not who speaks."""
        name, speaker = values.text(request, "order"), _holder(request)
        record = self._floor.board.records.get(name)
        if record is None:
            raise NotFound(f"there is no order {name!r}", hint="type: shopfloor status")
        owner = self._floor.held.get(name)
        if owner is None or not (force or owner.identity == speaker.identity):
            raise NotFound(not_yours(record.order.name, owner), hint=f"type: shopfloor show {record.order.name}")
        return record, owner


def _holder(request: Mapping[str, Any]) -> Holder:
    return _convert(request.get("holder"), Holder)


def _wanted(request: Mapping[str, Any]) -> Wanted:
    return _convert(request.get("wanted") or {}, Wanted)


def _convert(value: object, kind: type[T]) -> T:
    try:
        return msgspec.convert(value, kind)
    except msgspec.ValidationError as problem:
        raise UsageError(f"the {kind.__name__.lower()} of the request is off: {problem}") from None
