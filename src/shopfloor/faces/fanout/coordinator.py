"""Many specifications over several agents: a composition of the floor, a source, and places for what comes back.

The floor does the work. Each specification is an order whose deliverable is an answer, so that retries, health, time
limits, the record of what happened, and going on after a crash are those of every other order.
"""

from __future__ import annotations

import hashlib
import socket
import time
from asyncio import TaskGroup
from collections.abc import Callable, Mapping, Sequence
from contextlib import AsyncExitStack
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Self

import msgspec

from shopfloor import Event, NotFound, Outcome, Profile, Shopfloor, ShopfloorError, UsageError
from shopfloor.faces.fanout.away import nobody
from shopfloor.faces.fanout.earlier import START_AGENTS, Earlier, earlier, refuse_dead, refuse_other, refuse_second
from shopfloor.faces.fanout.intake import AGENT, Intake
from shopfloor.faces.fanout.queue import RedisQueue
from shopfloor.faces.fanout.results import TIMES, FanoutReport, Finished, Result, Tally
from shopfloor.faces.fanout.source import Source, again, forget, keep
from shopfloor.faces.fanout.specs import Specification
from shopfloor.faces.fanout.stores import MemoryResults, ResultStore, Writer, open_results

DEFAULT_AGENTS = ("http://localhost:8080-8089",)
TIMEOUT_S = 30.0
IN_THE_QUEUE = "the specifications are in the queue by now, and are not to be given again"
STEPS = (*TIMES, "health")
"""what an agent is asked for"""
POLICIES = ("round-robin", "strict", "least-busy")


class FastForthAgent(msgspec.Struct, frozen=True):
    """One agent server."""

    url: str

    async def process_spec(self, spec: Specification) -> Result:
        """Validate, generate, verify; a failure is a result too. Raises NotFound when no server answers there."""
        (result,) = await Coordinator([self]).process([spec])
        return result.plain()


class Coordinator:
    """Gives specifications to agents and takes their results.

    ``agents`` are servers or addresses, which may have ranges of ports. ``folder`` holds the log, which a later
    ``resume`` goes on with; None: a folder that is gone with the call. ``queue`` is an address of Redis, ``results``
    one of PostgreSQL or an SQLite file.
    """

    def __init__(
        self,
        agents: Sequence[FastForthAgent | str] | None = None,
        *,
        folder: Path | None = None,
        queue: str | RedisQueue | None = None,
        results: str | ResultStore | None = None,
        policy: str | None = None,
        in_flight: int | None = None,
        timeout_s: float | None = None,
        paths: Mapping[str, str] | None = None,
        flags: Mapping[str, object] | None = None,
    ) -> None:
        """``in_flight`` is for each agent, 0 finds it out; ``timeout_s`` is of one request, from when an agent is free.

        ``paths`` are those of the steps ``validate``, ``generate``, ``verify`` and ``health`` that are not the usual
        ones. What is None is as the run had it that is resumed, else: the ports 8080-8089 here, round-robin, 0, 30 s.
        Raises UsageError for words that are off, Refused where a client is not installed.
        """
        urls = None if agents is None else tuple(a.url if isinstance(a, FastForthAgent) else a for a in agents)
        self._wanted = Wanted(urls=urls, policy=policy, in_flight=in_flight,
                              paths=None if paths is None else dict(paths))  # fmt: skip
        self._timeout_s = timeout_s
        self._profile = self._wanted.profile()
        self.when_told: Callable[[str], None] = nobody
        """called with a line when a queue or a database is away, and when it is back"""
        self.queue = RedisQueue(queue, taker=_taker(folder), say=self._say) if isinstance(queue, str) else queue
        if results is None or isinstance(results, str):
            results = open_results(results, self._say)
        self.results = results
        self.when_begun: Callable[[], None] = lambda: None
        """called when the agents and what they are to do are known"""
        self.observers: list[Callable[[Finished], None]] = []
        """called with every result of this session"""
        self.tally = Tally()
        """what has come back in the newest run"""
        self.intake: Intake | None = None
        """what the newest run asks for"""
        self._folder = folder
        self._flags = dict(flags or {})
        self._floor: Shopfloor | None = None
        self._stopped = ""
        self._opened = False
        self._kept: list[Finished] | None = None
        self._dequeued: dict[str, bytes] = {}

    @property
    def agents(self) -> list[FastForthAgent]:
        """The servers, each with its own address, in their order."""
        return [FastForthAgent(url) for url in self._profile.addresses]

    async def __aenter__(self) -> Self:
        await self.results.open()
        if self.queue is not None:
            await self.queue.open()
        self._opened = True
        return self

    async def __aexit__(self, *_exc: object) -> None:
        self._opened = False
        if self.queue is not None:
            await self.queue.close()
        await self.results.close()

    # -- single steps ---------------------------------------------------------------------------------------------

    async def store_result(self, result: Result) -> None:
        """Keep one result, and let go of its specification when it came from the queue. Raises ShopfloorError."""
        kept = result if isinstance(result, Finished) else Finished(**msgspec.structs.asdict(result))
        await self.results.store([kept])
        if (payload := self._dequeued.pop(result.spec_id, None)) is not None:
            await self._queue().settle([payload])

    async def enqueue_spec(self, spec: Specification) -> None:
        """Append it to the queue."""
        await self._queue().put([spec])

    async def dequeue_spec(self) -> Specification:
        """The next one of the queue; waits for it as long as it takes.

        It goes back to the queue when this coordinator ends, or is killed, before its result is stored.
        """
        (taken,) = await self._queue().take(1)
        self._dequeued[taken.spec.id] = taken.payload
        return taken.spec

    def _queue(self) -> RedisQueue:
        if self.queue is None:
            raise UsageError("there is no queue", hint='give one: Coordinator(…, queue="redis://127.0.0.1:6379/0")')
        return self.queue

    # -- the whole of it ------------------------------------------------------------------------------------------

    async def process(self, specs: Sequence[Specification]) -> list[Finished]:
        """All of them; the results in the order of the specifications. Raises NotFound when no agent answers."""
        return list((await self.run(Source(specs=specs), keep=True)).results)

    async def run(
        self, source: Source | None = None, *, resume: bool = False, wait: bool = False, keep: bool = False
    ) -> FanoutReport:
        """Perform the specifications of ``source``, or with a queue those in it, to which ``source`` is appended.

        ``wait`` goes on when the queue is empty, until ``stop``. ``resume`` goes on with the unfinished run of the
        folder: what is finished is not done again, and nothing is appended to the queue again; what is left of its
        source is found again where ``source`` is not given. Where results go somewhere, one that is over has them
        stored and reported again. With ``keep`` the report has all results. Raises NotFound
        when no agent answers or there is nothing to resume, Conflict when the folder has another controller, Refused
        when it has an unfinished run that is not resumed, or is to be resumed with another source.
        """
        async with AsyncExitStack() as stack:
            if not self._opened:
                await stack.enter_async_context(self)
            folder = self._folder or Path(stack.enter_context(TemporaryDirectory(prefix="shopfloor-fanout-")))
            before = await self._earlier(folder, also_over=keep) if resume else None
            self._profile = self._wanted.profile(before.profile if before else None)
            floor = self._floor = await stack.enter_async_context(open_floor(folder, self._profile, self._flags))
            stack.callback(setattr, self, "_floor", None)
            found = await self._source(floor, source or Source(), before)
            timeout_s = self._timeout_s or (before.asked.timeout_s if before and before.asked else TIMEOUT_S)
            intake = self.intake = Intake(found, self.queue, wait=wait, timeout_s=timeout_s)
            if self._stopped:
                self.stop(self._stopped)
            self.tally, self._kept = Tally(), [] if keep else None
            report = await self._perform(floor, intake, before)
            if not report.waiting:
                forget(floor.root)
            held = (await floor.report()).held.get(AGENT, "") if report.waiting else ""
            refused = self.queue.refused if self.queue is not None else 0
            return msgspec.structs.replace(report, held=held, refused=refused)

    async def _earlier(self, folder: Path, *, also_over: bool) -> Earlier:
        async with Shopfloor.open(folder, without_git=True, flags=self._flags) as floor:
            # One that is over may have been killed before all of its results were kept where they are wanted.
            kept_elsewhere = self.queue is not None or not isinstance(self.results, MemoryResults)
            return await earlier(floor, also_over=also_over or kept_elsewhere)

    async def _source(self, floor: Shopfloor, given: Source, before: Earlier | None) -> Source:
        """What this run is asked for. Raises what keeps it from beginning, before anything is put into the queue."""
        if before is None:
            await refuse_second(floor)
        else:
            refuse_other(before, queued=self.queue is not None)
        if self.queue is not None:
            if before is None or not before.over:
                await refuse_dead(floor)
            return given
        if before is not None:
            return again(floor.root, before.source, before.asked, len(before.orders), given) if before.asked else given
        return keep(given, self._folder, floor.root) if self._folder else given

    def stop(self, why: str) -> None:
        """Let ``run`` end early: what is unfinished stays for ``resume``."""
        self._stopped = why
        if self._floor is not None:
            self._floor.stop(why)
        if self.intake is not None:
            self.intake.end()

    async def _perform(self, floor: Shopfloor, intake: Intake, before: Earlier | None) -> FanoutReport:
        writer, clock = Writer(self.results, intake.settle), _Clock(self._begun)
        urls = homes(self._profile)
        if before is not None:
            # What was finished and not yet stored is stored now; storing it again changes nothing.
            then = homes(before.profile) if before.profile is not None else []
            ended = [finished(outcome, then) for outcome in await floor.answers(before.run)]
            for result in ended:
                self._count(result, earlier=True)
                writer.add(result)
            await intake.take_up(before.orders, len(ended))
        else:
            await intake.begin()
        await intake.look()
        if self.queue is not None:
            self._begun()  # it may be long until there is anything to do
        floor.observers.append(clock.see)
        if before.over if before is not None else not await intake.any():
            self._begun()
            writer.close()
            await writer.run()
            if self.queue is not None:
                await self.queue.give_back()
            return self._report(0.0)
        try:
            async with TaskGroup() as group:
                group.create_task(writer.run())
                async for outcome in floor.outcomes(intake.wishes(), resume=before is not None):
                    result = finished(outcome, urls)
                    clock.ended()
                    self._count(result)
                    intake.ended()
                    writer.add(result)
                    for observer in self.observers:
                        observer(result)
                writer.close()
        except* ShopfloorError as several:
            problem = several.exceptions[0]
            if isinstance(problem, NotFound) and not clock.seconds:
                problem.hint = START_AGENTS
            elif isinstance(problem, ShopfloorError) and self.queue and before is None and intake.source.specs:
                problem.hint = "; ".join(filter(None, [problem.hint, IN_THE_QUEUE]))
            raise problem from None
        return self._report(clock.seconds)

    def _say(self, line: str) -> None:
        self.when_told(line)

    def _begun(self) -> None:
        told, self.when_begun = self.when_begun, lambda: None
        told()

    def _count(self, result: Finished, *, earlier: bool = False) -> None:
        self.tally.add(result, earlier=earlier)
        if self._kept is not None:
            self._kept.append(result)

    def _report(self, wall_s: float) -> FanoutReport:
        waiting = max(0, self.intake.known - self.tally.done) if self.intake else 0
        results = sorted(self._kept or (), key=lambda result: result.number or 0)
        return self.tally.report(agents=len(self._profile.addresses), wall_s=wall_s, waiting=waiting, results=results)


class _Clock:
    """From the first specification that is given to an agent to the last result. Seconds."""

    def __init__(self, begun: Callable[[], None]) -> None:
        """``begun`` is called with the first event: nothing has kept the run from beginning."""
        self._began = self._last = 0.0
        self._begun = begun

    def see(self, event: Event) -> None:
        """An event of the floor."""
        if not self._began:
            self._begun()
            self._began = time.monotonic() if event.event_type == "work_order.assigned" else 0.0

    def ended(self) -> None:
        """A result has come."""
        self._last = time.monotonic()

    @property
    def seconds(self) -> float:
        """0 when there was nothing to do."""
        return max(0.0, self._last - self._began) if self._began else 0.0


def _taker(folder: Path | None) -> str:
    """Who takes from the queue: the same for the same folder, so that a run that is resumed has what it had taken."""
    place = f"{socket.gethostname()}:{folder.resolve()}" if folder else ""
    return hashlib.sha256(place.encode(errors="surrogateescape")).hexdigest()[:16] if place else ""


def homes(profile: Profile) -> Sequence[str]:
    """The agents, of which specification i is meant for the one at i mod N; empty where each is for anybody."""
    return [] if profile.policy == "least-busy" else profile.addresses


def finished(outcome: Outcome, urls: Sequence[str]) -> Finished:
    """What the floor tells of an order as the result of its specification; ``urls`` are the `homes` of its time."""
    order, data = outcome.order, outcome.data
    given, url = order.metadata, str(data.get("url", ""))
    number = given["number"]
    return Finished(
        spec_id=str(given["spec"]["id"]), success=outcome.ok, code=outcome.text or data.get("code", ""),
        tests=tuple(data.get("tests", ())), error=outcome.message, latency_ms=float(data.get("latency_ms", 0.0)),
        number=number, run=order.run, agent_id=url, attempt=max(1, outcome.tries - 1 + data.get("tries", 1)),
        # One of a session before that one, with agents that are named no more, was meant for nobody knows whom.
        moved=url in urls and url != urls[number % len(urls)],
        phases_ms={step: data[key] for step, key in TIMES.items() if key in data},
    )  # fmt: skip


class Wanted(msgspec.Struct, frozen=True, kw_only=True):
    """What was said of the agents; None: nothing."""

    urls: tuple[str, ...] | None
    policy: str | None
    in_flight: int | None
    paths: dict[str, str] | None

    def profile(self, before: Profile | None = None) -> Profile:
        """The servers as one agent of the floor; what was not said is as ``before``. Raises UsageError."""
        if self.policy is not None and self.policy not in POLICIES:
            raise UsageError(f"there is no policy {self.policy!r}", hint=f"choose one of {', '.join(POLICIES)}")
        for step, path in (self.paths or {}).items():
            if step not in STEPS or not path.startswith("/"):
                hint = f"name a path, such as /validate, for one of {', '.join(STEPS)}"
                raise UsageError(f"{path!r} is no path for a step {step!r}", hint=hint)
        said = {"urls": self.urls, "policy": self.policy, "in_flight": self.in_flight, "paths": self.paths}
        known = {key: value for key, value in said.items() if value is not None}
        found = msgspec.structs.replace(before or Profile(name=AGENT, driver="specs", urls=DEFAULT_AGENTS), **known)
        try:
            there = found.addresses
        except ValueError as problem:
            raise UsageError(str(problem)) from None
        if not there:
            raise UsageError("no agent was named", hint="shopfloor fanout --agents http://127.0.0.1:8080-8089")
        return found


def open_floor(folder: Path, agent: Profile, flags: Mapping[str, object]) -> Shopfloor:
    """The floor of a folder, with these servers as its agent."""
    floor = Shopfloor.open(folder, without_git=True, flags=flags)
    agents = {**floor.settings.agents, agent.name: agent}
    return floor.with_settings(msgspec.structs.replace(floor.settings, agents=agents, agent=agent.name))
