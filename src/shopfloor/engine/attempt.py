"""One attempt from workspace to snapshot: the supervisor of one agent, judging by facts alone.

It ends an agent for five reasons only: it was asked to, the wall-clock limit, the silence limit (where one is set), the
memory limit, and that the agent itself said that no new try mends what has failed, and goes on all the same. All of
them are counted on the awake clock, so a machine that slept ends nobody.
"""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from contextlib import suppress
from typing import Any, TypeVar

import msgspec

from shopfloor.domain.errors import ShopfloorError
from shopfloor.domain.names import one_line
from shopfloor.domain.order import Reason
from shopfloor.engine.control import Control, Emit, Tools
from shopfloor.engine.facts import permission_of, reset_of, said, trailers
from shopfloor.engine.toll import Told, Trip
from shopfloor.ports import (
    Agent,
    Claim,
    Fact,
    Handle,
    Job,
    Kind,
    Outliving,
    Phase,
    Quota,
    Report,
    Snapshot,
    Workspace,
)

T = TypeVar("T")

MEMORY_EVERY_S = 2.0
USAGE_EVERY_S = 1.0
RETRYING_EVERY_S = 10.0
FINAL_S = 10.0
"""An agent that said that no new try helps has so long to end by itself."""
_FINAL = {"quota": Reason.QUOTA, "auth": Reason.AUTH, "budget": Reason.BUDGET}


async def execute(job: Job, control: Control, emit: Emit, tools: Tools) -> None:
    """Run one attempt. Emits its facts in order; exactly one ENDED, as the last, whatever happens."""
    attempt = _Attempt(job, control, emit, tools)
    try:
        workspace = job.workspace or await _acquire(job, control, tools)
    except _TROUBLE as problem:
        text = f"no workspace: {said(problem)}"
        await emit(attempt.fact(outcome=control.reason or Reason.SPAWN, text=text, transient=not control.reason))
        return
    if workspace is None:
        await emit(attempt.fact(outcome=control.reason, text="stopped before its workspace was ready"))
        return
    if job.workspace is None:
        await attempt.tell(Phase.WORKSPACE, workspace=workspace)
    ended = attempt.fact()
    try:
        ended = await attempt.work(workspace)
    finally:
        await emit(await attempt.keep(workspace, ended))


async def _acquire(job: Job, control: Control, tools: Tools) -> Workspace | None:
    """Its workspace; None when it was stopped first: a setup command may take long, and is ended with it."""
    claim = Claim(
        key=job.attempt, commit=job.base, onto=job.onto, branch=job.branch, log=tools.setup_log(job)
    )  # fmt: skip
    return await _unless_asked(tools.workspaces.acquire(claim), control)


async def _unless_asked(doing: Coroutine[Any, Any, T], control: Control) -> T | None:
    """What it returns; None when the attempt was stopped first, and it with it."""
    getting = asyncio.create_task(doing)
    asked = asyncio.create_task(control.asked.wait())
    try:
        await asyncio.wait({getting, asked}, return_when=asyncio.FIRST_COMPLETED)
    finally:
        asked.cancel()
        getting.cancel()
        await asyncio.wait({getting})
    return None if getting.cancelled() else getting.result()


class _Attempt:
    """One attempt under way, and what its agent has reported so far."""

    def __init__(self, job: Job, control: Control, emit: Emit, tools: Tools) -> None:
        self.job, self.control, self.emit, self.tools = job, control, emit, tools
        self.started = self.last_at = tools.clock.awake()
        self.usage_at = self.retrying_at = self.final_at = float("-inf")
        self.idle = self.heard = self.asked = False
        self.trip: Trip | None = None
        self.final: Report | None = None
        """an error that no new try mends"""
        self.waiting: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        """cancelled by what sets a limit, which may come before all that are waited for"""
        self.usage: Report | None = None
        self.telling: asyncio.Task[None] | None = None
        self.session = ""
        self.exited: Report | None = None
        self.failure = ""

    def fact(self, **fields: Any) -> Fact:
        """A fact of this attempt; ENDED unless another phase is given."""
        job, usage = self.job, self.usage
        known: dict[str, Any] = {"phase": Phase.ENDED, "session": self.session}
        if usage is not None:
            known |= {"cost_usd": usage.cost_usd, "tokens_in": usage.tokens_in, "tokens_out": usage.tokens_out}
            known["steps"] = usage.steps
        if self.trip is not None:
            known |= self.trip.sums(usage.cost_usd if usage is not None else None)
        return Fact(order=job.order.id, attempt=job.attempt, generation=job.generation, **{**known, **fields})

    async def tell(self, phase: Phase, **fields: Any) -> None:
        await self.emit(self.fact(phase=phase, **fields))

    async def work(self, workspace: Workspace) -> Fact:
        """Start the agent and follow it to its end; the ENDED fact without the snapshot."""
        if self.control.reason and self.job.handle is None:
            return self.fact(outcome=self.control.reason, text="stopped before the agent was started")
        try:
            not_started = await self._run(workspace)
        finally:
            if self.trip is not None and self.tools.toll is not None:
                await self.tools.toll.shut(self.trip)
        return self._judge() if not_started is None else not_started

    async def _start(self, agent: Agent, workspace: Workspace) -> Handle | None:
        """Start the agent; None when the attempt was stopped first. Some wait until one of their servers is free."""
        job, toll = self.job, self.tools.toll
        launch = self.tools.launch(job, workspace)
        if job.gateway and toll is not None:
            # The gateway keeps the limits, and by its own prices: those that the agent knows may be others.
            self.trip = await toll.open(job, self._hear, secrets=launch.secrets)
            launch = msgspec.structs.replace(launch, route=self.trip.route)
        else:
            launch = msgspec.structs.replace(launch, budget_usd=job.budget_usd)
        return await _unless_asked(agent.start(launch), self.control)

    async def _open_again(self, agent: Agent, handle: Handle) -> Fact | None:
        """Its way to its models, which went with an earlier controller; a fact where it cannot be had any more.

        Without it the agent can do nothing, and is ended. The next attempt goes on, with a way of its own.
        """
        try:
            route = await agent.route(handle) if isinstance(agent, Outliving) else None
            if route is not None and self.tools.toll is not None:
                self.trip = await self.tools.toll.open(self.job, self._hear, again=route)
        except _TROUBLE as problem:
            with suppress(ShopfloorError):
                await agent.stop(handle)
            return self.fact(outcome=Reason.LOST, text=f"its way to its models is gone: {said(problem)}")
        return None

    async def _run(self, workspace: Workspace) -> Fact | None:
        """The agent from its start to its end; a fact when it could not be started."""
        job, control = self.job, self.control
        agent = self.tools.agents[job.profile.driver]
        try:
            handle = job.handle or await self._start(agent, workspace)
        except _TROUBLE as problem:
            return self.fact(outcome=Reason.SPAWN, text=said(problem), transient=True)
        if handle is None:
            return self.fact(outcome=control.reason, text="stopped before the agent was started")
        control.agent, control.handle = agent, handle
        if job.handle is not None and not control.reason and (cut_off := await self._open_again(agent, handle)):
            return cut_off
        try:
            if job.handle is None:
                await self.tell(Phase.STARTED, handle=handle, workspace=workspace)
            self.started = self.last_at = self.tools.clock.awake()
            await self._watch(agent, handle)
        finally:
            with suppress(ShopfloorError):
                await agent.stop(handle)
            if self.telling is not None:
                self.telling.cancel()
        return None

    async def _watch(self, agent: Agent, handle: Handle) -> None:
        """Wait for the agent's end, and bring it about when a limit is reached or somebody asks for it."""
        pump = asyncio.create_task(self._follow(agent, handle))
        asked = asyncio.create_task(self.control.asked.wait())
        try:
            while not pump.done():
                self.waiting = asyncio.get_running_loop().create_future()
                change: set[asyncio.Future[Any]] = {pump, asked, self.waiting}
                await asyncio.wait(change, timeout=self._until_limit(), return_when=asyncio.FIRST_COMPLETED)
                if not pump.done() and (asked.done() or self._over_a_limit(handle)):
                    await agent.stop(handle)
                    break
                await self._tell_idle()
            await pump
        finally:
            asked.cancel()
            pump.cancel()

    def _until_limit(self) -> float | None:
        """Seconds until something may have to be done; None: nothing but reports can happen."""
        job, now = self.job, self.tools.clock.awake()
        ends = [] if self.idle else [self.last_at + self._idle_s - now]
        if self.final is not None:
            ends.append(self.final_at + FINAL_S - now)
        if job.timeout_s is not None:
            ends.append(self.started + job.timeout_s - now)
        if job.silence_s is not None:
            ends.append(self.last_at + job.silence_s - now)
        if job.profile.memory_limit_bytes is not None:
            ends.append(MEMORY_EVERY_S)
        return max(0.01, min(ends)) if ends else None

    def _over_a_limit(self, handle: Handle) -> bool:
        job, control, now = self.job, self.control, self.tools.clock.awake()
        if job.timeout_s is not None and now - self.started >= job.timeout_s:
            control.stop(Reason.TIMEOUT)
            self.failure = f"took longer than its limit of {job.timeout_s:g} s"
        elif job.silence_s is not None and now - self.last_at >= job.silence_s:
            control.stop(Reason.TIMEOUT)
            self.failure = f"silent for longer than its limit of {job.silence_s:g} s"
        elif self.final is not None and now - self.final_at >= FINAL_S:
            control.stop(_FINAL[self.final.status])
        elif (most := job.profile.memory_limit_bytes) is not None:
            used = self.tools.memory(handle)
            if used > most:
                control.stop(Reason.ERROR)
                self.failure = f"used {used >> 20} MiB of memory; its limit is {most >> 20} MiB"
        return bool(control.reason)

    @property
    def _idle_s(self) -> float:
        """Silence that is worth a word: less of it before the first report."""
        return self.job.idle_s if self.heard else min(self.job.first_s, self.job.idle_s)

    async def _tell_idle(self) -> None:
        silent = self.tools.clock.awake() - self.last_at
        if not self.idle and silent >= self._idle_s:
            self.idle = True
            await self.tell(Phase.IDLE, idle_s=silent, silent_from_start=not self.heard)

    async def _follow(self, agent: Agent, handle: Handle) -> None:
        async for report in agent.follow(handle):
            self.last_at = self.tools.clock.awake()
            self.heard = True
            if self.idle:
                self.idle = False
                self.waiting.cancel()
                await self.tell(Phase.WORKING)
            if report.session and report.session != self.session:
                self.session = report.session
                await self.tell(Phase.USAGE)  # known at once: whoever goes on after a crash needs it
            await self._note(report)

    async def _hear(self, told: Told) -> None:
        """What the gateway knows of this attempt, or that it has died."""
        if isinstance(told, Quota):
            await self._nothing_left(told.why, told.reset_at if told.told else None)
        else:
            await self._tell_usage()

    async def _nothing_left(self, why: str, reset_at: float | None) -> None:
        toll = self.tools.toll
        payers = toll.payers(self.trip) if toll is not None and self.trip is not None else ()
        await self.tell(Phase.QUOTA, text=why, reset_at=reset_at, accounts=(*payers, self.job.account))

    async def _tell_usage(self) -> None:
        left = self.usage_at + USAGE_EVERY_S - self.tools.clock.awake()
        if left <= 0:
            await self._tell_usage_after(0.0)
        elif self.telling is None or self.telling.done():
            self.telling = asyncio.create_task(self._tell_usage_after(left))  # the last word must not be kept back

    async def _tell_usage_after(self, delay_s: float) -> None:
        await asyncio.sleep(delay_s)
        self.usage_at = self.tools.clock.awake()
        await self.tell(Phase.USAGE)

    async def _note(self, report: Report) -> None:
        if report.kind is Kind.EXITED:
            self.exited = report
        elif report.kind is Kind.ASKED:
            self.asked = True
            await self.tell(Phase.ASKED, text=report.text)
        elif report.kind is Kind.PERMISSION and report.status == "asked":
            self.asked = True
            await self.tell(Phase.ASKED, text=permission_of(report), permission=True)
        elif report.kind is Kind.PERMISSION and self.asked:
            self.asked = False  # decided, perhaps by somebody who looked at its screen
            await self.tell(Phase.WORKING)
        elif report.kind in (Kind.ERROR, Kind.TURN_END):
            self._note_failure(report)
            if report.kind is Kind.ERROR and report.status == "quota" and self.trip is None:
                await self._nothing_left(report.text, reset_of(report))
        elif report.kind is Kind.RETRYING and self.last_at - self.retrying_at >= RETRYING_EVERY_S:
            self.retrying_at = self.last_at
            delay = report.data.get("delay_s")
            delay_s = float(delay) if isinstance(delay, int | float) else 0.0
            await self.tell(Phase.RETRYING, text=report.text, status=report.status, delay_s=delay_s)
        elif report.kind is Kind.USAGE:
            self.usage = report
            await self._tell_usage()

    def _note_failure(self, report: Report) -> None:
        if self.control.reason:
            return  # what it says when it is being stopped is not why it ended
        if report.kind is Kind.ERROR:
            self.failure = report.text
            if report.status in _FINAL:
                self.final, self.final_at = report, self.last_at
                self.waiting.cancel()
        elif report.status == "success":
            self.final = None
        elif report.status:
            self.failure = self.failure or f"it ended with status {report.status!r} {report.text}".rstrip()

    def _judge(self) -> Fact:
        """What the attempt came to, by facts: who ended it, then how the process ended."""
        exited, control = self.exited, self.control
        code = exited.exit_code if exited else None
        left = exited.leftovers if exited else 0
        them, were = ("1 process", "was") if left == 1 else (f"{left} processes", "were")
        notes = (f"{them} that it had left behind {were} ended with it",) if left else ()
        known: dict[str, Any] = {"exit_code": code, "notes": notes}
        if self.trip is not None:
            known["notes"] += self.trip.notes(self.usage.cost_usd if self.usage is not None else None)
        if control.reason:
            text = self.failure or _STOPPED.get(control.reason, control.reason)
            return self.fact(outcome=control.reason, text=text, **known, **self._more_of(control.reason))
        if exited is None or exited.status == "lost":
            text = "the agent's guard was killed, and the agent with it"
            return self.fact(outcome=Reason.LOST, text=text, **known)
        if self.trip is not None and (found := self.trip.verdict()) is not None:
            return self.fact(
                outcome=found.reason, text=found.text, reset_at=found.reset_at, limit=found.limit,
                known=self.trip.quota is not None, **known,
            )  # fmt: skip
        if self.trip is not None and self.trip.unrecorded and exited.status != "completed":
            return self.fact(outcome=Reason.ERROR, text=self.trip.unrecorded, **known)
        if self.final is not None:
            reason = _FINAL[self.final.status]
            return self.fact(outcome=reason, text=self.final.text, **known, **self._more_of(reason))
        if exited.status == "completed":
            return self.fact(outcome="completed", text=exited.text, **known)
        if self.trip is not None and self.trip.broken:
            return self.fact(outcome=Reason.LOST, text="the gateway died under it, and was started again", **known)
        signalled = code is not None and code < 0
        how = "" if code is None else "ended by a signal" if signalled else f"exit {code}"  # a server has no exit code
        why = self.failure or ("" if signalled else exited.text)
        told = [self.job.profile.name, *dict.fromkeys(word for word in (how, why) if word)]
        text = ": ".join(told if len(told) > 1 else [*told, "it failed"])
        return self.fact(outcome=Reason.ERROR, text=text, transient=True, **known)

    def _more_of(self, reason: str) -> dict[str, Any]:
        """What belongs to an end for want of money."""
        if reason != Reason.QUOTA or self.final is None:
            return {}
        return {"reset_at": reset_of(self.final), "known": self.trip is None}

    async def keep(self, workspace: Workspace, ended: Fact) -> Fact:
        """Snapshot the workspace and give it back; work that cannot be kept costs the attempt its success."""
        snapshot: Snapshot | None = None
        changes: dict[str, Any] = {}
        notes = list(ended.notes)
        try:
            who = trailers(self.job.order.id, self.job.attempt, self.job.profile.name)
            pool = self.tools.workspaces
            snapshot = await pool.snapshot(workspace, message=one_line(self.job.order.title), trailers=who)
            notes += snapshot.notes
            if not (snapshot.complete or snapshot.files) and ended.outcome == "completed":
                changes = _unkept(workspace, "; ".join(snapshot.notes))  # that is not the same as nothing to keep
            await pool.release(workspace)
        except _TROUBLE as problem:
            notes.append(f"{said(problem)}; {getattr(problem, 'hint', '')}".rstrip("; "))
            if snapshot is None and ended.outcome == "completed":
                changes = _unkept(workspace, said(problem))
        if not ended.outcome:
            changes = {"outcome": Reason.LOST, "text": "the controller was stopped while it ran"}
        return msgspec.structs.replace(ended, snapshot=snapshot, notes=tuple(notes), **changes)


def _unkept(workspace: Workspace, why: str) -> dict[str, Any]:
    return {"outcome": Reason.ERROR, "text": f"its work could not be kept and lies in {workspace.path!r}: {why}"}


_TROUBLE = (ShopfloorError, OSError)
"""What goes wrong with one attempt and is no reason to end the others: a full disk may be full for it alone."""


_STOPPED: dict[str, str] = {
    "completed": "",
    Reason.STOPPED: "stopped by a person",
    Reason.BUDGET: "the budget is spent",
}
