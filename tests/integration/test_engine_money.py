"""Money in the engine: what an attempt costs, why it could not go on, and what follows for the others."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from shopfloor.domain.events import E
from shopfloor.domain.order import Attempt, Order, Reason
from shopfloor.engine.recovery import booked
from shopfloor.engine.toll import Told, Toll, Trip
from shopfloor.ports import Bill, Job, Limit, ModelCall, Profile, Quota, Route

from .engine_lab import Watch
from .lab import Lab, row, script, write


@pytest.fixture
def lab(tmp_path: Path) -> Lab:
    return Lab(tmp_path)


class House:
    """A gateway that says what it is told to say, and dies when it is told to."""

    def __init__(self) -> None:
        self.facts: asyncio.Queue[ModelCall | Quota | None] = asyncio.Queue()
        self.bills: dict[str, Bill] = {}
        self.opened: list[str] = []
        self.closed = False

    async def open(
        self, attempt: str, *, order: str, run: str, account: str = "", limits: Sequence[Limit] = (),
        secrets: Sequence[str] = (),
        again: Route | None = None, spent: Bill | None = None,
    ) -> Route:  # fmt: skip
        self.opened.append(f"{attempt} {order} {run} {account} {[limit.key for limit in limits]}")
        return Route(url="http://127.0.0.1:1/w", token="t")

    async def shut(self, attempt: str) -> Bill:
        return self.bills.pop(attempt, Bill())

    async def heard(self) -> AsyncIterator[ModelCall | Quota]:
        while (fact := await self.facts.get()) is not None:
            yield fact

    async def close(self) -> None:
        self.closed = True
        self.facts.put_nowait(None)


def job(name: str, *, account: str = "", agent: str = "cli", limits: tuple[Limit, ...] = ()) -> Job:
    return Job(
        order=Order(id=f"wo-{name}", name=name, title=name, run="run-1"), attempt=f"wo-{name}.a1", generation=1,
        profile=Profile(name=agent, account=account), prompt="", base="b", branch="br", account=account or agent,
        gateway=True, limits=limits,
    )  # fmt: skip


def call(name: str, **fields: Any) -> ModelCall:
    known: dict[str, Any] = {"at": 1000.0, "attempt": f"wo-{name}.a1", "account": "lab", "status": 200}
    return ModelCall(**{**known, **fields})


QUOTA = Quota(account="", reset_at=2000.0, why="all gone")


class Ears:
    """What attempts have been told."""

    def __init__(self) -> None:
        self.told: list[tuple[str, Told]] = []
        self.changed = asyncio.Event()

    async def open(self, toll: Toll, job: Job) -> Trip:
        async def hear(told: Told) -> None:
            self.told.append((job.order.name, told))
            self.changed.set()

        return await toll.open(job, hear)

    async def until(self, count: int) -> None:
        while len(self.told) < count:
            self.changed.clear()
            await asyncio.wait_for(self.changed.wait(), 5)

    def quotas(self) -> list[str]:
        return [name for name, told in self.told if isinstance(told, Quota)]


async def started(house: House) -> House:
    return house


async def test_the_gateways_bill_counts_and_a_difference_is_told() -> None:
    house, ears = House(), Ears()
    toll = Toll(lambda: started(house))
    trip = await ears.open(toll, job("a", account="lab", limits=(Limit(key="run:run-1", usd=1.0),)))
    assert house.opened == ["wo-a.a1 wo-a run-1 lab ['run:run-1']"]
    house.facts.put_nowait(call("a", cost_usd=0.01, tokens_in=10, tokens_out=2))
    house.facts.put_nowait(call("a", cost_usd=0.02, tokens_in=20, tokens_out=3))
    await ears.until(2)
    assert trip.sums(0.03) == {"cost_usd": pytest.approx(0.03), "said_usd": 0.03, "tokens_in": 30, "tokens_out": 5}
    house.bills["wo-a.a1"] = Bill(calls=3, cost_usd=0.05, tokens_in=40, tokens_out=9, unpriced=1)
    await toll.shut(trip)
    assert trip.sums(0.03)["cost_usd"] == 0.05
    unpriced, apart = trip.notes(0.03)
    assert "the price of 1 of 3 model calls is not known" in unpriced
    assert apart == "its agent says that it spent 0.03 USD; the gateway has seen 0.05 USD"
    assert trip.notes(0.0501) == (unpriced,)
    assert trip.verdict() is None
    await toll.close()
    assert house.closed


async def test_what_went_around_the_gateway_is_told_and_counted() -> None:
    house, ears = House(), Ears()
    toll = Toll(lambda: started(house))
    trip = await ears.open(toll, job("a"))
    await toll.shut(trip)
    assert trip.sums(None)["cost_usd"] == 0.0
    assert trip.sums(0.4)["cost_usd"] == 0.4
    assert trip.notes(0.4) == ("its agent says that it spent 0.4 USD; the gateway has seen 0 USD",)
    await toll.close()


@pytest.mark.parametrize("quota_first", [True, False])
async def test_a_call_that_failed_for_quota_ends_its_attempt_so(quota_first: bool) -> None:
    house, ears = House(), Ears()
    toll = Toll(lambda: started(house))
    one, other, third = [await ears.open(toll, job(n, agent=a)) for n, a in (("a", "x"), ("b", "y"), ("c", "z"))]
    house.facts.put_nowait(call("b"))
    house.facts.put_nowait(call("c", account="elsewhere"))
    failed = call("a", status=429)
    for fact in (QUOTA, failed) if quota_first else (failed, QUOTA):
        house.facts.put_nowait(fact)
    await ears.until(4)
    assert ears.quotas() == ["a"]
    assert toll.payers(one) == ("x", "y"), "whoever's calls that account has paid for"
    verdict = one.verdict()
    assert verdict is not None
    assert (verdict.reason, verdict.reset_at) == (Reason.QUOTA, 2000.0)
    assert other.verdict() is None
    assert third.verdict() is None
    house.facts.put_nowait(call("b", status=401, refused="quota"))
    await ears.until(6)
    assert ears.quotas() == ["a", "b"]
    await toll.close()


async def test_where_another_account_takes_over_nobody_ends() -> None:
    house, ears = House(), Ears()
    toll = Toll(lambda: started(house))
    trip = await ears.open(toll, job("a"))
    house.facts.put_nowait(QUOTA)
    house.facts.put_nowait(call("a", account="spare"))
    await ears.until(1)
    assert ears.quotas() == []
    assert trip.verdict() is None
    await toll.close()


async def test_a_refusal_for_budget_names_its_limit() -> None:
    house, ears = House(), Ears()
    toll = Toll(lambda: started(house))
    limits = (Limit(key="run:run-1", usd=1.0), Limit(key="order:wo-a", usd=0.1))
    trip = await ears.open(toll, job("a", limits=limits))
    house.bills["wo-a.a1"] = Bill(calls=1, cost_usd=0.09, refused="budget", limit="order:wo-a")
    await toll.shut(trip)
    verdict = trip.verdict()
    assert verdict is not None
    assert (verdict.reason, verdict.limit) == (Reason.BUDGET, "order:wo-a")
    await toll.close()


async def test_a_gateway_that_died_is_heard_again() -> None:
    house, ears = House(), Ears()
    toll = Toll(lambda: started(house))
    before = await ears.open(toll, job("a"))
    house.facts.put_nowait(None)
    house.facts.put_nowait(call("a"))
    await ears.until(1)
    assert before.broken
    after = await ears.open(toll, job("b"))
    assert not after.broken
    await toll.close()


@pytest.mark.parametrize(
    ("known", "bill", "cost"),
    [
        (0.25, Bill(calls=3, cost_usd=0.75, tokens_in=30), 0.75),
        (0.75, Bill(calls=3, cost_usd=0.25, tokens_in=30), 0.75),
        (0.25, Bill(calls=3, cost_usd=None, tokens_in=30), 0.25),
        (0.25, Bill(cost_usd=0.0, refused="budget"), 0.25),
        (None, Bill(cost_usd=0.0, refused="budget"), None),
        (None, Bill(), None),
        (None, Bill(calls=1, cost_usd=0.0), 0.0),
    ],
)
def test_what_the_ledger_knows_more_than_the_log_counts_once(
    known: float | None, bill: Bill, cost: float | None
) -> None:
    attempt = Attempt(id="wo-a.a1", generation=1, agent="a", claimed_at=1.0, cost_usd=known, tokens_in=20)
    for _ in range(2):
        found = booked(attempt, bill)
        assert (found["cost_usd"], found["tokens_in"]) == (cost, max(20, bill.tokens_in))
        attempt.cost_usd, attempt.tokens_in = found["cost_usd"], found["tokens_in"]


# -- whole runs, without the gateway ------------------------------------------------------------------------------


def test_an_agent_that_says_its_quota_is_used_up_closes_its_account_until_then(lab: Lab) -> None:
    gate = lab.repo.parent / "left"
    ends = script(write("x.txt"), {"no_more": "quota", "reset_in_s": 2.0, "unless": str(gate)}, write("y.txt"))
    settings = "\n".join(f'[agents.{name}]\ndriver = "scripted"\n' for name in ("one", "two"))
    (lab.repo / ".shopfloor.toml").write_text(settings)
    prompts = [
        lab.prompt(f"q{n}", ends.replace("x.txt", f"x{n}").replace("y.txt", f"y{n}"), agent="one") for n in range(3)
    ]
    other = lab.prompt("other", script(write("z.txt")), agent="two")

    def see(event: object) -> None:
        if getattr(event, "event_type", "") == E.ACCOUNT_OPENED:
            gate.touch()

    async def body() -> None:
        async with lab.floor(max_parallel=1, agent="one") as floor:
            floor.observers.append(see)
            report = await floor.run([*prompts, other])
            assert [r.outcome for r in report.orders] == ["landed"] * 4

    asyncio.run(body())
    kinds = [e.event_type for e in lab.events]
    assert kinds.count(E.ACCOUNT_CLOSED) == kinds.count(E.ACCOUNT_OPENED) == 1
    begun = lab.events[kinds.index(E.ACCOUNT_CLOSED) : kinds.index(E.ACCOUNT_OPENED)]
    assert [e.data["profile"] for e in begun if e.event_type == E.ASSIGNED] == ["two"]
    assert lab.seen(E.ACCOUNT_CLOSED)[0].data["account"] == "one"


def test_an_attempt_that_ends_late_does_not_close_an_account_that_works_again(
    lab: Lab, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("shopfloor.engine.attempt.FINAL_S", 3.0)
    gate = lab.repo.parent / "left"
    waits = f"while [ ! -e {gate} ]; do sleep 0.02; done"
    late = script({"no_more": "quota", "reset_in_s": 0.5, "linger": True, "unless": str(gate)}, write("a"))
    quick = [lab.prompt(f"q{n}", script({"run": waits}, write(f"b{n}"))) for n in range(2)]

    def see(event: object) -> None:
        if getattr(event, "event_type", "") == E.ACCOUNT_OPENED:
            gate.touch()

    async def body() -> None:
        async with lab.floor(max_parallel=2) as floor:
            floor.observers.append(see)
            report = await floor.run([lab.prompt("late", late), *quick])
            assert [r.outcome for r in report.orders] == ["landed"] * 3

    asyncio.run(body())
    assert len(lab.seen(E.ACCOUNT_CLOSED)) == 1
    assert [e.data["kind"] for e in lab.seen(E.RETRIED)] == ["quota"]


def test_an_agent_that_lingers_after_its_last_error_is_ended(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("shopfloor.engine.attempt.FINAL_S", 0.2)
    # Nothing else that is waited for comes in the time of this test: its last error alone ends it.
    report = lab.run(lab.prompt("a", script(write("a"), {"no_more": "budget", "linger": True})), first_report=3600.0)
    (found,) = report.orders
    assert (found.outcome, found.reason, found.message) == (
        "failed", "budget", f"no budget left; its work is kept on {found.branch}",
    )  # fmt: skip


def test_a_refused_login_is_not_tried_again_and_starts_nothing_more(lab: Lab) -> None:
    prompts = [lab.prompt(f"o{n}", script({"no_more": "auth"})) for n in range(4)]
    report = lab.run(*prompts, max_parallel=1)
    assert report.counts["failed"] == 1
    assert report.counts["waiting"] == 3
    assert row(report, "o0").reason == "auth"
    assert len(lab.seen(E.AGENT_STARTED)) == 1
    assert "was refused by its models" in report.held["scripted"]


def test_an_orders_own_budget_ends_it_and_leaves_the_others_alone(lab: Lab) -> None:
    dear = lab.prompt("dear", script(write("a"), {"cost": 0.5}, {"hang": True}), budget=0.4)
    report = lab.run(dear, lab.prompt("cheap", script(write("b"), {"cost": 0.5})))
    assert row(report, "cheap").outcome == "landed"
    assert (row(report, "dear").reason, row(report, "dear").attempts) == ("budget", 1)
    assert lab.seen(E.AGENT_STOPPED)
    assert row(report, "dear").commit


def test_an_attempts_budget_is_no_other_attempts(lab: Lab) -> None:
    body = script({"cost": 0.3}, {"crash_once": "x"}, {"cost": 0.3}, write("a"))
    report = lab.run(lab.prompt("a", body), attempt_budget=1.0)
    assert row(report, "a").outcome == "landed"
    assert row(report, "a").cost_usd == pytest.approx(0.9)
    report = lab.run(lab.prompt("b", script({"cost": 1.5}, {"hang": True})), attempt_budget=1.0)
    assert row(report, "b").reason == "budget"


def test_a_storm_of_refusals_is_told_and_lowers_admission(lab: Lab) -> None:
    hold = lab.repo.parent / "hold"
    waits = f"while [ ! -e {hold} ]; do sleep 0.02; done"
    stormy = script(*[{"retry_call": 429, "delay_s": 2.0}] * 3, {"run": waits}, write("a"))

    async def body() -> None:
        async with lab.floor(max_parallel=4) as floor:
            watch = Watch(floor)
            run = asyncio.create_task(floor.run([lab.prompt("a", stormy)]))
            await watch.until(E.ADMISSION)
            hold.touch()
            report = await run
        assert row(report, "a").outcome == "landed"
        (told,) = watch.of(E.AGENT_RETRYING)  # one for the whole storm
        assert (told.data["status"], told.data["delay_s"]) == ("429", 2.0)
        lowered = watch.of(E.ADMISSION)[0].data
        assert (lowered["from"], lowered["limit"]) == (4, 2)
        assert "asked too much" in lowered["why"]

    asyncio.run(body())


def test_an_agent_that_reports_nothing_from_its_start_is_told(lab: Lab) -> None:
    hold = lab.repo.parent / "hold"
    silent = script({"run": f"while [ ! -e {hold} ]; do sleep 0.02; done"}, write("a"))
    prompt = lab.prompt("a", silent.replace("```script\n", "```script\nsilent = true\n"))

    async def body() -> None:
        async with lab.floor(first_report=0.3, check=None, no_check=True) as floor:
            watch = Watch(floor)
            run = asyncio.create_task(floor.run([prompt]))
            await watch.until(E.AGENT_IDLE)
            hold.touch()
            await run
        assert watch.of(E.AGENT_IDLE)[0].data["from_start"] is True

    asyncio.run(body())
