"""The loop: facts in, decisions out, until nothing is left to do or somebody says stop.

There is one loop and one state. Everything slow (attempts, verifications, the landing lane) runs in tasks of its own
and comes back through the journal; the loop wakes when something has changed, never by polling for it.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import msgspec

from shopfloor.domain.admission import Limits, Load, admit
from shopfloor.domain.board import Run, creation
from shopfloor.domain.errors import NotFound
from shopfloor.domain.events import E
from shopfloor.domain.floor import Capacity, Floor
from shopfloor.domain.judge import Decision, Hold, Land, Open, Retry, Settle, Start, Stop, Verify
from shopfloor.domain.order import Order, Reason, Record
from shopfloor.domain.verdict import Verdict, required_checks
from shopfloor.engine.clerk import Clerk
from shopfloor.engine.counter import Counter
from shopfloor.engine.facts import bounded
from shopfloor.engine.hands import Back, release_data
from shopfloor.engine.journal import Draft, Journal
from shopfloor.engine.landing import LandingLane
from shopfloor.engine.outset import AskMeans, Outset
from shopfloor.engine.requests import Desk
from shopfloor.ports import Answering, Callers, CheckJob, Door, Job, Lander, Phase, Profile, Runner, Verifier

ADMISSION_EVERY_S = 2.0
CAPACITY_EVERY_S = 0.25
"""How often an agent that answers is asked whether it takes more by now, while nothing else happens."""
ASKED_TOO_MUCH = frozenset({"429", "503", "529"})
"""What models answer that are asked too much."""


class Settings(msgspec.Struct, frozen=True, kw_only=True):
    """What the loop needs to know beside the run."""

    profiles: dict[str, Profile]
    means: AskMeans
    """what may be used of an agent"""
    evidence: str
    """folder for checks' logs and verdicts"""
    max_checks: int = 1
    limits: Limits = Limits()
    hands_only: bool = False
    """True: start nothing new; only finish, land and answer requests"""
    answering: Mapping[str, Answering] = {}
    """the drivers of those profiles whose attempts at an answer are calls"""


class More(msgspec.Struct, frozen=True, kw_only=True):
    """Orders that come to a run while it is performed."""

    orders: AsyncIterator[Sequence[Order]]
    most_waiting: int = 0
    """no more are asked for while so many have not ended; 0: as many as there are"""
    told: bool = False
    """somebody is told of every end as it comes, and needs no report of all"""


class Controller:
    """Performs one run."""

    def __init__(
        self,
        journal: Journal,
        *,
        runner: Runner,
        verifier: Verifier,
        lander: Lander,
        settings: Settings,
        load: Callable[[], Load],
        door: Door,
        callers: Callers,
    ) -> None:
        self.journal = journal
        self.floor: Floor = journal.floor
        self.runner = runner
        self.verifier = verifier
        self.lander = lander
        self.settings = settings
        self._load = load
        self._wake = asyncio.Event()
        self._tasks: set[asyncio.Task[None]] = set()
        self._checks: dict[str, asyncio.Task[None]] = {}
        """the newest verification of each order"""
        self._away: dict[str, Job] = {}
        """orders whose agents go on without us, while we are here for something else"""
        self._failure: BaseException | None = None
        self._stopping = ""
        self._sampled = self._lowered = self._storm = float("-inf")
        self._memory_short = False
        self._most_waiting = 0
        self._roomy = asyncio.Event()
        """set while more orders are wanted"""
        self._intake: asyncio.Task[None] | None = None
        self.lane = LandingLane(journal, verifier=verifier, lander=lander, evidence=settings.evidence)
        self.outset = Outset(journal, self.lane, lander, profiles=settings.profiles, means=settings.means)
        self.desk = Desk(journal, runner=runner, stop=self.stop)
        self.clerk = Clerk(
            journal, outset=self.outset, runner=runner, catch_up=self.desk.catch_up, settled=self._settled
        )
        self.counter = Counter(journal, self.desk, callers=callers, spawn=self._spawn)
        self._door = door

    @property
    def run(self) -> Run:
        """The run it performs."""
        run = self.floor.run
        if run is None:
            raise NotFound("no run is open", hint="start one with `shopfloor run`")
        return run

    def stop(self, why: str) -> None:
        """End the session: start nothing more, stop the agents, keep their work. ``run --resume`` goes on later."""
        self._stopping = self._stopping or why or "stopped"
        self._wake.set()

    async def take_up(self, job: Job) -> None:
        """Follow an agent that outlived its controller. With hands only it is let alone until somebody stops it."""
        if self.settings.hands_only:
            self._away[job.order.id] = job
            return
        data = {"work_order_id": job.order.id, "generation": job.generation}
        await self.journal.commit(Draft(E.AGENT_ADOPTED, data), expect={job.order.id: job.generation})
        await self.runner.submit(self.outset.again(self._record(job.order.id), job))

    async def perform(self, more: More | None = None) -> str:
        """Work until the run is finished or stopped; returns why it stopped, empty when it finished."""
        if more is not None:
            self._most_waiting, self.clerk.sheds = more.most_waiting, more.told
            self._intake = self._spawn(self._take_orders(more.orders))
        self.journal.taken.append(self._wake.set)
        facts, desk, loop = map(self._spawn, (self._take_facts(), self.desk.attend(), self._loop()))
        try:
            if not self.settings.hands_only:
                self._spawn(self.counter.watch())
                await self._door.open(self.counter)
            await asyncio.wait({loop})
        finally:
            # Also when this is cancelled: what the agents have done is kept, and the log says how they ended.
            if not loop.done():
                self.stop("cancelled")
            await self._door.close()
            await self._wind_down(loop, desk, facts)
        if self._failure is not None:
            raise self._failure
        return self._stopping

    async def _loop(self) -> None:
        while not self._failure and not self._stopping:
            self._wake.clear()
            if not self._most_waiting or len(self.floor.plan) < self._most_waiting:
                self._roomy.set()
            await self._admission()
            decisions = self._possible(self.floor.decide(self.journal.now(), self._capacity()))
            for decision in await self.clerk.write(decisions):
                await self._do(decision)
            if not decisions and self._idle():
                await self.desk.catch_up()  # who asks at the last moment is answered, and may give us more to do
                if not self._wake.is_set():
                    return
            if not self._wake.is_set():
                await self._sleep()

    # -- waiting ----------------------------------------------------------------------------------------------------

    async def _take_orders(self, orders: AsyncIterator[Sequence[Order]]) -> None:
        await self._roomy.wait()
        async for some in orders:
            created = (Draft(E.CREATED, creation(order), order.created_by) for order in some)
            await self.journal.commit(*created)
            self._roomy.clear()
            await self._roomy.wait()

    def _idle(self) -> bool:
        if self._intake is not None and not self._intake.done():
            return self._stuck()
        elsewhere = {*self.floor.held, *self._away}
        at_work = self.floor.live - elsewhere if self.settings.hands_only else self.floor.live
        busy = bool(at_work or self.floor.checking or self.floor.landing)
        if self.settings.hands_only:
            return not busy and not self.floor.board.requests
        return self.floor.finished

    def _stuck(self) -> bool:
        """Whether nothing more is started with the agents of all that is open: what is to come would wait as well."""
        if not (self.run.held and self.floor.finished):
            return False
        left = self.floor.board.open_orders(self.run)
        return bool(left) and all(self.floor.entry.held(record) for record in left)

    async def _sleep(self) -> None:
        due = self.floor.next_timer()
        timeout = None if due is None else max(0.0, due - self.journal.clock.awake())
        if any(not self.floor.plan.lacks(name) for name in self.settings.answering):
            timeout = min(timeout, CAPACITY_EVERY_S) if timeout is not None else CAPACITY_EVERY_S
        if self.floor.board.runs and self._wants_room():
            timeout = min(timeout, ADMISSION_EVERY_S) if timeout is not None else ADMISSION_EVERY_S
        with suppress(TimeoutError):
            async with asyncio.timeout(timeout):
                await self._wake.wait()

    def _wants_room(self) -> bool:
        return bool(self.floor.live) or len(self.floor.plan) > 0

    def _capacity(self) -> Capacity:
        run, hands_only = self.run, self.settings.hands_only
        limit = min(run.limit or run.max_parallel, run.max_parallel)
        return Capacity(
            starts=0 if hands_only else max(0, limit - self._processes),
            checks=max(0, self.settings.max_checks - len(self.floor.checking)),
            landing=not self.floor.landing,
            calls={} if hands_only else {name: self._room(name) for name in self.settings.answering},
        )

    @property
    def _processes(self) -> int:
        """How many agents are at work that take a slot of this machine."""
        return len(self.floor.live - self.floor.held.keys()) - len(self.floor.calls)

    def _room(self, name: str) -> int:
        """How many more calls of an agent may be begun."""
        most = self.settings.answering[name].capacity(self.settings.profiles[name])
        return max(0, (min(most, 1) if self._memory_short else most) - self.floor.calls.under_way(name))

    async def _admission(self) -> None:
        now, run = self.journal.clock.awake(), self.run
        if now - self._sampled < ADMISSION_EVERY_S or self.settings.hands_only:
            return
        self._sampled = now
        old = run.limit or run.max_parallel
        limits, most, lowered_s, storm_s = (
            self.settings.limits,
            run.max_parallel,
            now - self._lowered,
            now - self._storm,
        )
        load = self._load()
        self._memory_short = load.memory_used >= (limits.memory_low if self._memory_short else limits.memory_high)
        if not self._processes and self.floor.plan.lacks(""):
            load = msgspec.structs.replace(load, cpu_per_core=0.0)  # calls are no load here
        new, why = admit(min(old, most), most, load, limits, lowered_s=lowered_s, storm_s=storm_s)
        if why:
            self._lowered = now if new < old else self._lowered
            await self.journal.commit(Draft(E.ADMISSION, {"limit": new, "from": old, "why": why}))

    # -- performing -------------------------------------------------------------------------------------------------

    async def _do(self, decision: Decision) -> None:
        match decision:
            case Start():
                await self.clerk.start(decision)
            case Stop(order) if order in self.floor.held:
                # Nobody ends a process that is not ours: it is told when it next speaks for the order.
                holder, generation = self.floor.held[order], self._record(order).generation
                data = release_data(order, generation, holder, Back(why="stopped by a person"))
                await self.journal.commit(Draft(E.RELEASED, data))
            case Stop(order, reason):
                await self._stop(order, reason)
            case Verify(order):
                self._checks[order] = self._spawn(self._verify(order))
            case Land(orders):
                self._spawn(self.lane.land(orders))
            case Open() | Hold():
                await self.journal.commit(_notice(decision))

    def _possible(self, decisions: list[Decision]) -> list[Decision]:
        if not self.settings.hands_only:
            return decisions
        # Whoever goes on with the run may give it a greater budget.
        return [d for d in decisions if not (isinstance(d, Settle) and d.reason is Reason.BUDGET)]

    def _settled(self, order: str) -> None:
        if order in self._checks:
            self._checks.pop(order).cancel()  # nobody waits for what it would find

    async def _stop(self, order: str, reason: Reason) -> None:
        attempt = self._record(order).attempt
        if order in self._away:
            await self.runner.submit(self._away.pop(order))
        if attempt is not None:
            await self.runner.cancel(attempt.id, reason)

    def _record(self, order: str) -> Record:
        return self.floor.board.records[order]

    async def _verify(self, order: str) -> None:
        record, run = self._record(order), self.run
        attempt = record.attempt
        if attempt is None:
            return
        number = record.verifications + 1
        data = {"work_order_id": order, "generation": record.generation, "process_id": None}
        await self.journal.commit(Draft(E.VERIFY_STARTED, {**data, "commit": attempt.commit, "run": number}))
        folder = Path(self.settings.evidence, order, "runs", f"{record.generation}.{number}")
        verdict = await self.verifier.check(
            CheckJob(
                key=f"{order}.v{record.generation}.{number}", commit=attempt.commit, tree=attempt.tree,
                base=attempt.base, evidence=str(folder), again=self.floor.policy.confirmations,
                checks=required_checks(record.order.checks, run.checks, run.passed_on(attempt.base)),
            )
        )  # fmt: skip
        await self.journal.commit(*verdict_drafts(data, verdict, str(folder)))

    # -- tasks ------------------------------------------------------------------------------------------------------

    async def _take_facts(self) -> None:
        async for facts in self.runner.outcomes():
            now = self.journal.now()
            if any(fact.phase is Phase.RETRYING and fact.status in ASKED_TOO_MUCH for fact in facts):
                self._storm = now.awake
            await self.clerk.take(facts, now.wall)
            self._wake.set()

    def _spawn(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._ended)
        return task

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and task.exception() is not None:
            self._failure = self._failure or task.exception()
        self._wake.set()

    async def _wind_down(self, *pumps: asyncio.Task[None]) -> None:
        """Stop what still runs and take its last facts in. What was not finished stays to be resumed."""
        loop, desk, facts = pumps
        try:
            await asyncio.wait({loop})
            desk.cancel()
            await self.lane.rest()
            for task in self._tasks - {facts}:
                task.cancel()
            await self.runner.close()
            if facts.done():
                self._spawn(self._take_facts())  # it failed over one fact; the others' ends are still to be recorded
            await asyncio.gather(*self._tasks, return_exceptions=True)
        finally:
            for task in self._tasks:
                task.cancel()
            await asyncio.gather(*self._tasks, return_exceptions=True)
        if self._failure is None:
            await self.desk.catch_up()
            decisions = self.floor.decide(self.journal.now(), Capacity())
            await self.clerk.write([d for d in self._possible(decisions) if isinstance(d, Retry | Settle)])
            if self.floor.finished and self.run.finished_at is None:
                await self.journal.commit(Draft(E.RUN_FINISHED, {"run_id": self.run.id}))


def _notice(decision: Open | Hold) -> Draft:
    if isinstance(decision, Open):
        return Draft(E.ACCOUNT_OPENED, {"account": decision.account})
    return Draft(E.AGENT_HELD, {"profile": decision.agent, "why": bounded(decision.why)})


def verdict_drafts(data: dict[str, Any], verdict: Verdict, folder: str) -> list[Draft]:
    """The evidence of one verification as one group of events."""
    tests = [
        Draft(E.VERIFY_TEST, {
            **data, "criterion": r.command, "passed": r.passed, "required": r.required, "exit_code": r.exit_code,
            "duration_ms": round(r.duration_s * 1000), "log": r.log, "digest": r.digest, "base_passed": r.base_passed,
            "flaky": r.flaky,
        })
        for r in verdict.results
    ]  # fmt: skip
    counted = [r for r in verdict.results if r.required]
    summary = {
        **data, "verdict": verdict.decision.value.upper(), "criteria_passed": sum(r.passed for r in counted),
        "criteria_failed": sum(not r.passed for r in counted), "reasoning": bounded(verdict.findings),
        "commit": verdict.commit, "tree": verdict.tree, "base": verdict.base, "evidence": folder,
        "passed": [r.command for r in verdict.results if r.passed],
        "duration_s": round(sum(r.duration_s for r in verdict.results), 3),
    }  # fmt: skip
    return [*tests, Draft(E.VERIFY_VERDICT, summary)]
