"""Writing down together: it amounts to the same as one by one, and one conflict costs the others nothing."""

from collections.abc import AsyncIterator, Sequence
from itertools import count
from pathlib import Path
from random import Random
from typing import Any

import pytest

from shopfloor.domain.board import creation
from shopfloor.domain.errors import Led
from shopfloor.domain.events import E, Event, stamp_time
from shopfloor.domain.floor import Capacity, Floor
from shopfloor.domain.judge import Decision, Start
from shopfloor.domain.order import Deliverable, Record, State
from shopfloor.domain.verdict import Verdict
from shopfloor.engine.clerk import Clerk
from shopfloor.engine.journal import Draft, Journal
from shopfloor.engine.landing import LandingLane
from shopfloor.engine.outset import Means, Outset
from shopfloor.landers.nowhere import Nowhere
from shopfloor.ports import CheckJob, Delivery, Fact, Job, Phase, Profile
from shopfloor.stores.memory import MemoryLog, MemoryStore

from .events_of import RUN, START_S, order

PROFILE = Profile(name="specs")


class Clock:
    def wall(self) -> float:
        return START_S

    def awake(self) -> float:
        return 0.0


class Jobs:
    """A runner that only remembers what it was given."""

    def __init__(self) -> None:
        self.given: list[Job] = []

    async def submit(self, job: Job) -> None:
        self.given.append(job)

    async def cancel(self, attempt: str, reason: str) -> None:
        raise AssertionError((attempt, reason))

    async def outcomes(self) -> AsyncIterator[Sequence[Fact]]:
        told: list[list[Fact]] = []
        for facts in told:
            yield facts

    async def send(self, attempt: str, text: str) -> Delivery:
        raise AssertionError((attempt, text))

    async def close(self) -> None:
        """Nothing runs."""


class Unasked:
    async def check(self, job: CheckJob) -> Verdict:
        raise AssertionError(job)


class Desk:
    """A clerk at a log of its own, with orders for answers."""

    def __init__(self, names: Sequence[str]) -> None:
        self.log = MemoryLog()
        numbers = count(1)
        store = MemoryStore(self.log, clock=Clock(), random=bytes)
        self.journal = Journal(store, Floor(), Clock(), lambda: f"evt-{next(numbers)}")
        self.jobs = Jobs()
        self.settled: list[str] = []
        lander = Nowhere(Path("/nowhere"))
        lane = LandingLane(self.journal, verifier=Unasked(), lander=lander, evidence="")
        outset = Outset(self.journal, lane, lander, profiles={"specs": PROFILE}, means=self.means)
        self.clerk = Clerk(
            self.journal, outset=outset, runner=self.jobs, catch_up=self.catch_up, settled=self.settled.append
        )
        self.names = names

    async def means(self, _profile: Profile, _limited: bool) -> Means:
        return Means()

    async def catch_up(self) -> None:
        known = {e.event_id for e in self.seen}
        self.journal.take(*(e for e in self.log.events if e.event_id not in known and e.sf and not e.sf.controller))

    async def begin(self) -> None:
        self.seen: list[Event] = []
        self.journal.observers.append(self.seen.append)
        self.journal.generation = await self.journal.store.lead({})
        self.journal.take(*self.log.events)
        orders = [order(n, deliverable=Deliverable.ANSWER, agent="specs") for n in self.names]
        created = [Draft(E.CREATED, creation(one)) for one in orders]
        await self.journal.commit(Draft(E.RUN_STARTED, {"run_id": RUN}), *created, run=RUN)
        self.journal.floor.open(RUN, self.journal.now(), frozenset({"specs"}))

    def record(self, name: str) -> Record:
        return self.journal.floor.board.records[f"wo-{name}"]

    async def steal(self, name: str) -> None:
        """Another program claims an order, and nobody has told us yet."""
        data = {"work_order_id": f"wo-{name}", "generation": 1, "attempt": "theirs", "handle": {
            "driver": "session", "name": "them", "pid": 7, "start_time": 7, "host": "h", "boot": "b",
        }}  # fmt: skip
        stolen = Event("evt-theirs", E.ASSIGNED, stamp_time(START_S), "them", None, data)
        self.log.claims[f"wo-{name}"] = 1
        self.log.take([stolen])

    def starts(self) -> list[Decision]:
        return self.journal.floor.decide(self.journal.now(), Capacity(calls={"specs": 100}))

    async def end(self, *facts: Fact) -> None:
        await self.clerk.take(facts, START_S)


def ended(name: str, generation: int = 1, **fields: Any) -> Fact:
    known: dict[str, Any] = {"phase": Phase.ENDED, "outcome": "completed", "text": f"answer of {name}"}
    return Fact(
        order=f"wo-{name}", attempt=f"wo-{name}.a{generation}", generation=generation,
        **(known | fields),
    )  # fmt: skip


async def test_a_conflict_of_one_order_does_not_lose_the_others() -> None:
    desk = Desk(["a", "b", "c"])
    await desk.begin()
    await desk.steal("b")
    assert await desk.clerk.write(desk.starts()) == []
    assert [job.order.id for job in desk.jobs.given] == ["wo-a", "wo-c"]
    assert (desk.record("a").state, desk.record("c").state) == (State.RUNNING, State.RUNNING)
    assert desk.record("b").state is State.FAILED, "it is theirs, and must not keep this run open"
    assert desk.record("b").reason == "lost"
    assert all(job.call and not (job.base or job.branch or job.prompt) for job in desk.jobs.given)


async def test_decisions_of_one_moment_are_one_change() -> None:
    desk = Desk([f"n{n}" for n in range(50)])
    await desk.begin()
    before = desk.log.sequence
    await desk.clerk.write(desk.starts())
    assert desk.log.sequence == before + 1
    await desk.end(*(ended(f"n{n}") for n in range(50)))
    assert desk.log.sequence == before + 2
    states = {record.state for record in desk.journal.floor.board.records.values()}
    assert (states, desk.record("n7").message) == ({State.DONE}, "answer of n7")
    types = [event.event_type for event in desk.log.events if event.order_id == "wo-n7"]
    assert types == [E.CREATED, E.ASSIGNED, E.STATUS, E.CLOSED]
    assert desk.journal.floor.finished


async def test_facts_about_one_order_build_on_each_other() -> None:
    desk = Desk(["a", "b"])
    await desk.begin()
    await desk.clerk.write(desk.starts())
    usage = ended("a", phase=Phase.USAGE, cost_usd=0.25)
    await desk.end(usage, ended("b"), ended("a", cost_usd=0.75), ended("a", text="a second end says nothing"))
    assert (desk.record("a").cost_usd, desk.record("a").message) == (0.75, "answer of a")


async def test_what_an_older_attempt_says_is_no_news() -> None:
    desk = Desk(["a"])
    await desk.begin()
    await desk.clerk.write(desk.starts())
    await desk.end(ended("a", generation=2))
    assert desk.record("a").live


async def test_another_controller_ends_it() -> None:
    desk = Desk(["a", "b"])
    await desk.begin()
    starts = desk.starts()
    desk.log.controller += 1
    with pytest.raises(Led):
        await desk.clerk.write(starts)
    assert not desk.jobs.given


async def test_a_failed_call_is_told_and_then_decided() -> None:
    desk = Desk(["a"])
    await desk.begin()
    await desk.clerk.write(desk.starts())
    await desk.end(ended("a", outcome="error", text="500", transient=True, data={"url": "u"}))
    assert desk.record("a").attempts[0].data == {"url": "u"}
    assert await desk.clerk.write(desk.starts()) == []
    assert (desk.record("a").state, desk.record("a").failures) == (State.READY, 1)
    await desk.clerk.write([Start("wo-a", 2)])
    await desk.end(ended("a", generation=2, outcome="error", text="Invalid specification"))
    await desk.clerk.write(desk.starts())
    assert (desk.record("a").state, desk.settled) == (State.FAILED, ["wo-a"])
    status = [e.data["to_status"] for e in desk.log.events if e.event_type == E.STATUS]
    assert status == ["in_progress"], "it must not look as if anybody could begin it"


@pytest.mark.parametrize("seed", range(20))
async def test_together_is_the_same_as_one_by_one(seed: int) -> None:
    """The same decisions and facts, in one batch and alone: the same records, the same jobs, the same order."""
    names = [f"n{n}" for n in range(8)]
    together, alone = Desk(names), Desk(names)
    for desk in (together, alone):
        await desk.begin()
    random = Random(seed)
    outcomes: list[dict[str, Any]] = [{"outcome": "error", "transient": value} for value in (True, False)]
    outcomes += [{}, {"outcome": "timeout"}]
    stolen = random.choice(names)
    for round_ in range(4):
        if round_ == 1:
            for desk in (together, alone):
                if desk.record(stolen).state is State.READY and not desk.record(stolen).generation:
                    await desk.steal(stolen)
        batch, single = together.starts(), alone.starts()
        assert batch == single
        await together.clerk.write(batch)
        for decision in single:
            await alone.clerk.write([decision])
        live = [r.order.name for r in together.journal.floor.board.records.values() if r.live]
        some = random.sample(live, k=random.randint(0, len(live)))
        facts = [ended(n, together.record(n).generation, **random.choice(outcomes)) for n in some]
        await together.end(*facts)
        for fact in facts:
            await alone.end(fact)
        both = [_plain(desk) for desk in (together, alone)]
        assert both[0] == both[1]
        assert [j.attempt for j in together.jobs.given] == [j.attempt for j in alone.jobs.given]
        assert together.settled == alone.settled


def _plain(desk: Desk) -> list[tuple[object, ...]]:
    """Records without what says in which change they stood."""
    found: list[tuple[object, ...]] = []
    for record in desk.journal.floor.board.records.values():
        ends = [(a.id, a.outcome, a.message, a.transient, a.call) for a in record.attempts]
        found.append((record.order.id, record.state, record.reason, record.message, record.failures, ends))
    return found
