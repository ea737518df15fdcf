"""One attempt from workspace to snapshot: the supervisor of one agent, judging by facts alone.

It ends an agent for four reasons only: it was asked to, the wall-clock limit, the silence limit (where one is set), the
memory limit. All of them are counted on the awake clock, so a machine that slept ends nobody.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from typing import Any

import msgspec

from shopfloor.domain.errors import ShopfloorError
from shopfloor.domain.names import one_line
from shopfloor.domain.order import Reason
from shopfloor.engine.facts import said
from shopfloor.ports import (
    Agent,
    Claim,
    Clock,
    Fact,
    Handle,
    Job,
    Kind,
    Launch,
    Phase,
    Report,
    Snapshot,
    Workspace,
    Workspaces,
)

MEMORY_EVERY_S = 2.0
USAGE_EVERY_S = 1.0


class Tools(msgspec.Struct, frozen=True, kw_only=True):
    """What an attempt is executed with."""

    agents: Mapping[str, Agent]
    workspaces: Workspaces
    clock: Clock
    launch: Callable[[Job, Workspace], Launch]
    """adds folder, environment and secrets"""
    memory: Callable[[Handle], int]
    """bytes that the agent and its descendants use now"""
    setup_log: Callable[[Job], str]


class Control:
    """The strings that the outside holds: stop it, talk to it."""

    def __init__(self) -> None:
        self.reason = ""
        self.asked = asyncio.Event()
        self.handle: Handle | None = None
        self.agent: Agent | None = None

    def stop(self, reason: str) -> None:
        """Ask for its end; the first reason stands."""
        if not self.reason:
            self.reason = reason
        self.asked.set()


Emit = Callable[[Fact], Awaitable[None]]


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
    claim = Claim(key=job.attempt, commit=job.base, branch=job.branch, log=tools.setup_log(job))
    getting = asyncio.create_task(tools.workspaces.acquire(claim))
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
        self.job = job
        self.control = control
        self.emit = emit
        self.tools = tools
        self.started = self.last_at = tools.clock.awake()
        self.usage_at = float("-inf")
        self.idle = self.asked = False
        self.usage: Report | None = None
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
        return Fact(order=job.order.id, attempt=job.attempt, generation=job.generation, **{**known, **fields})

    async def tell(self, phase: Phase, **fields: Any) -> None:
        await self.emit(self.fact(phase=phase, **fields))

    async def work(self, workspace: Workspace) -> Fact:
        """Start the agent and follow it to its end; the ENDED fact without the snapshot."""
        control, job = self.control, self.job
        agent, handle = self.tools.agents[job.profile.driver], job.handle
        if handle is None and control.reason:
            return self.fact(outcome=control.reason, text="stopped before the agent was started")
        try:
            handle = handle or await agent.start(self.tools.launch(job, workspace))
        except _TROUBLE as problem:
            return self.fact(outcome=Reason.SPAWN, text=said(problem), transient=True)
        control.agent, control.handle = agent, handle
        try:
            if job.handle is None:
                await self.tell(Phase.STARTED, handle=handle, workspace=workspace)
            self.started = self.last_at = self.tools.clock.awake()
            await self._watch(agent, handle)
        finally:
            with suppress(ShopfloorError):
                await agent.stop(handle)
        return self._judge()

    async def _watch(self, agent: Agent, handle: Handle) -> None:
        """Wait for the agent's end, and bring it about when a limit is reached or somebody asks for it."""
        pump = asyncio.create_task(self._follow(agent, handle))
        asked = asyncio.create_task(self.control.asked.wait())
        try:
            while not pump.done():
                await asyncio.wait({pump, asked}, timeout=self._until_limit(), return_when=asyncio.FIRST_COMPLETED)
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
        ends = [] if self.idle else [self.last_at + job.idle_s - now]
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
        elif (most := job.profile.memory_limit_bytes) is not None:
            used = self.tools.memory(handle)
            if used > most:
                control.stop(Reason.ERROR)
                self.failure = f"used {used >> 20} MiB of memory; its limit is {most >> 20} MiB"
        return bool(control.reason)

    async def _tell_idle(self) -> None:
        silent = self.tools.clock.awake() - self.last_at
        if not self.idle and silent >= self.job.idle_s:
            self.idle = True
            await self.tell(Phase.IDLE, idle_s=silent)

    async def _follow(self, agent: Agent, handle: Handle) -> None:
        async for report in agent.follow(handle):
            self.last_at = self.tools.clock.awake()
            if self.idle:
                self.idle = False
                await self.tell(Phase.WORKING)
            self.session = report.session or self.session
            await self._note(report)

    async def _note(self, report: Report) -> None:
        if report.kind is Kind.EXITED:
            self.exited = report
        elif report.kind is Kind.ASKED or (report.kind is Kind.PERMISSION and report.status == "asked"):
            self.asked = True
            await self.tell(Phase.ASKED, text=report.text)
        elif report.kind is Kind.PERMISSION and self.asked:
            self.asked = False  # decided, perhaps by somebody who looked at its screen
            await self.tell(Phase.WORKING)
        elif report.kind in (Kind.ERROR, Kind.TURN_END):
            self._note_failure(report)
        elif report.kind is Kind.USAGE:
            self.usage = report
            if self.last_at - self.usage_at >= USAGE_EVERY_S:
                self.usage_at = self.last_at
                await self.tell(Phase.USAGE)

    def _note_failure(self, report: Report) -> None:
        if self.control.reason:
            return  # what it says when it is being stopped is not why it ended
        if report.kind is Kind.ERROR:
            self.failure = report.text
        elif report.status not in ("", "success"):
            self.failure = self.failure or f"it ended with status {report.status!r} {report.text}".rstrip()

    def _judge(self) -> Fact:
        """What the attempt came to, by facts: who ended it, then how the process ended."""
        exited, control = self.exited, self.control
        code = exited.exit_code if exited else None
        left = exited.leftovers if exited else 0
        them, were = ("1 process", "was") if left == 1 else (f"{left} processes", "were")
        notes = (f"{them} that it had left behind {were} ended with it",) if left else ()
        if control.reason:
            text = self.failure or _STOPPED.get(control.reason, control.reason)
            return self.fact(outcome=control.reason, text=text, exit_code=code, notes=notes)
        if exited is None or exited.status == "lost":
            text = "the agent's guard was killed, and the agent with it"
            return self.fact(outcome=Reason.LOST, text=text, exit_code=code, notes=notes)
        if exited.status == "completed":
            return self.fact(outcome="completed", text=exited.text, exit_code=code, notes=notes)
        how = f"exit {code}" if code is not None and code >= 0 else "ended by a signal"
        why = self.failure or (exited.text if code is not None and code >= 0 else "")
        text = f"{self.job.profile.name}: {how}" + (f": {why}" if why and why != how else "")
        return self.fact(outcome=Reason.ERROR, text=text, exit_code=code, notes=notes, transient=True)

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


_STOPPED: dict[str, str] = {Reason.STOPPED: "stopped by a person", Reason.BUDGET: "the budget is spent"}


def trailers(order: str, attempt: str, agent: str) -> dict[str, str]:
    """Who did it, for the commit's last paragraph."""
    return {"Shopfloor-Order": order, "Shopfloor-Attempt": attempt, "Shopfloor-Agent": agent}
