"""What an attempt begins with: its agent, its base, the session and work it goes on from, what it may spend."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any

import msgspec

from shopfloor.domain import names
from shopfloor.domain.errors import Refused
from shopfloor.domain.floor import Floor
from shopfloor.domain.order import Order, Reason, Record, State
from shopfloor.domain.prompt import render
from shopfloor.domain.resume import AFRESH, footing
from shopfloor.domain.runs import LIMIT_OF_RUN, Run
from shopfloor.engine.facts import settlement
from shopfloor.engine.journal import Journal
from shopfloor.engine.landing import LandingLane
from shopfloor.ports import Job, Lander, Limit, Profile, Proposal


class Means(msgspec.Struct, frozen=True, kw_only=True):
    """What may be used of an agent."""

    resume: bool = False
    """an ended session goes on in a new attempt"""
    gateway: bool = False
    """its model calls are to go through the gateway"""


AskMeans = Callable[[Profile, bool], Awaitable[Means]]
"""Of an agent, and whether there is a limit for what it spends."""


class Outset:
    """Makes the jobs of one run."""

    def __init__(
        self, journal: Journal, lane: LandingLane, lander: Lander, *, profiles: Mapping[str, Profile], means: AskMeans
    ) -> None:
        self._journal = journal
        self._floor: Floor = journal.floor
        self._lane = lane
        self._lander = lander
        self._profiles = profiles
        self._means = means

    async def job(self, record: Record, generation: int) -> Job | None:
        """The next attempt of an order; None when there can be none: then the order has been ended with the reason."""
        run, order = self._run, record.order
        profile = self._profiles.get(order.agent or run.agent)
        if profile is None:
            await self._fail(record, Reason.SPAWN, f"there is no agent named {order.agent or run.agent!r}")
            return None
        attempt = names.attempt_id(order.id, generation)
        limits = self._limits(record, attempt)
        means = await self._means(profile, bool(limits))
        stand = footing(record, profile.name) if means.resume else AFRESH
        base = record.attempts[-1].base if stand.onto else await self._base(record)
        if not base:
            return None
        return Job(
            order=order, attempt=attempt, generation=generation, profile=profile, prompt=render(record, stand),
            base=base, onto=stand.onto, branch=names.branch_name(order.name, order.id, generation),
            timeout_s=order.timeout_s if order.timeout_s is not None else run.timeout_s, silence_s=run.silence_s,
            idle_s=self._floor.policy.idle_s, first_s=self._floor.policy.first_report_s, session=stand.session,
            account=run.account_of(profile.name), gateway=means.gateway, limits=limits,
            budget_usd=_left(limits),
        )  # fmt: skip

    def again(self, record: Record, job: Job) -> Job:
        """The job of an attempt whose agent goes on by itself, with who pays for it and what it may still spend."""
        limits = self._limits(record, job.attempt)
        return msgspec.structs.replace(
            job, account=self._run.account_of(job.profile.name), limits=limits, budget_usd=_left(limits)
        )

    def is_call(self, record: Record) -> bool:
        """Whether the next attempt of an order is a call."""
        return bool(self._floor.calls.lane(record.order, self._run))

    def call(self, record: Record, generation: int) -> Job:
        """The next attempt of an order that is a call."""
        run, order = self._run, record.order
        profile = self._profiles[order.agent or run.agent]
        return Job(
            order=order, attempt=names.attempt_id(order.id, generation), generation=generation, profile=profile,
            prompt="", base="", branch="", account=run.account_of(profile.name), call=True,
            timeout_s=order.timeout_s if order.timeout_s is not None else run.timeout_s,
        )  # fmt: skip

    @property
    def _run(self) -> Run:
        run = self._floor.run
        if run is None:
            raise Refused("no run is open")
        return run

    def _limits(self, record: Record, attempt: str) -> tuple[Limit, ...]:
        run, order = self._run, record.order
        found = []
        if run.budget_usd is not None:
            found.append(Limit(key=f"{LIMIT_OF_RUN}{run.id}", usd=run.budget_usd, spent_usd=self._floor.spent_usd))
        if order.budget_usd is not None:
            spent = record.cost_usd or 0.0
            found.append(Limit(key=f"order:{order.id}", usd=order.budget_usd, spent_usd=spent))
        if run.attempt_budget_usd is not None:
            newest = record.attempt
            spent = (newest.cost_usd or 0.0) if newest is not None and newest.id == attempt else 0.0
            found.append(Limit(key=f"attempt:{attempt}", usd=run.attempt_budget_usd, spent_usd=spent))
        return tuple(found)

    async def _base(self, record: Record) -> str:
        """What an attempt starts from: the target as it is now; without landing, the merge of what it waited for."""
        run = self._run
        if run.land != "off":
            try:
                # Where somebody has set it back or deleted it, it is put where we last saw it.
                return await self._lander.tip(self._lane.target(), start=run.tip or run.base)
            except Refused:
                return run.tip
        onto = run.base
        for need in record.order.depends_on:
            delivered = self._floor.board.records.get(need)
            if delivered is None or not delivered.commit:
                continue
            merged: Proposal = await self._lander.propose(
                onto, delivered.commit, message=f"base for {record.order.name}", trailers={}
            )
            if merged.conflicts:
                text = f"what it waits for does not merge: {', '.join(merged.conflicts)}"
                await self._fail(record, Reason.CONFLICT, text)
                return ""
            onto = merged.commit
        return onto

    async def _fail(self, record: Record, reason: Reason, text: str) -> None:
        await self._journal.commit(*settlement(record, State.FAILED, reason, text))


def _left(limits: Sequence[Limit]) -> float | None:
    """What the narrowest of them leaves, USD."""
    return min((max(0.0, limit.usd - limit.spent_usd) for limit in limits), default=None)


def claim_of(job: Job) -> dict[str, Any]:
    """Of the event by which an attempt takes its order."""
    order: Order = job.order
    if job.call:
        return {
            "work_order_id": order.id, "agent": f"shopfloor/workers/{order.name}", "assignment_path": "",
            "generation": job.generation, "attempt": job.attempt, "profile": job.profile.name, "account": job.account,
            "call": True,
        }  # fmt: skip
    found = {
        "work_order_id": order.id, "agent": f"shopfloor/workers/{order.name}", "assignment_path": "",
        "generation": job.generation, "attempt": job.attempt, "base": job.base, "branch": job.branch,
        "profile": job.profile.name, "account": job.account,
    }  # fmt: skip
    return found | {name: value for name, value in (("session", job.session), ("onto", job.onto)) if value}
