"""What may be spent: the rule, for any order of calls."""

import asyncio

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shopfloor.domain.budget import NANO, Budget, Hold, Over, likely_tokens, nano, usd
from shopfloor.gateway.routes import Routes, Way
from shopfloor.ports import Limit

MONEY = st.integers(0, 50).map(lambda cents: cents / 100)
CALLS = st.lists(st.tuples(st.sampled_from(["", "a", "b", "ab"]), MONEY, MONEY, st.integers(0, 5)), max_size=40)


@given(st.floats(0.01, 2.0), st.floats(0.01, 2.0), CALLS)
def test_what_is_spent_passes_a_limit_by_no_more_than_calls_in_flight_were_underestimated(
    one: float, two: float, calls: list[tuple[str, float, float, int]]
) -> None:
    budget = Budget()
    budget.know("a", one)
    budget.know("b", two)
    flying: list[tuple[Hold, float]] = []
    under, paid = {"a": 0, "b": 0}, {"a": 0, "b": 0}

    def land(count: int) -> None:
        for _ in range(min(count, len(flying))):
            hold, cost = flying.pop(0)
            budget.settle(hold, cost)
            for key in hold.keys:
                paid[key] += nano(cost)
                under[key] += max(0, nano(cost) - hold.amount)

    for keys, likely, cost, landing in calls:
        found = budget.reserve(keys, likely)
        if isinstance(found, Hold):
            for key in found.keys:
                purse = budget.purses[key]
                assert purse.spent + purse.held <= purse.limit + under[key]
                assert purse.spent < purse.limit, "nothing is begun when nothing is left"
            flying.append((found, cost))
        elif found is None:
            assert flying, "only calls in flight make a call wait"
        land(landing)
    land(len(flying))
    for key, purse in budget.purses.items():
        assert purse.held == 0
        assert purse.spent == paid[key]
        assert purse.spent <= purse.limit + under[key]


def test_a_call_is_refused_when_it_would_pass_any_limit() -> None:
    budget = Budget()
    budget.know("run:1", 1.0)
    budget.know("order:a", 0.01)
    found = budget.reserve(["run:1", "order:a"], 0.02)
    assert isinstance(found, Over)
    assert found.key == "order:a"
    assert budget.purses["run:1"].held == 0, "nothing is kept aside for it anywhere"
    assert "0.02 USD" in found.told("m")


def test_a_call_of_unknown_price_is_refused_only_under_a_limit() -> None:
    budget = Budget()
    free = budget.reserve(["run:1"], None)
    assert isinstance(free, Hold)
    assert (free.keys, free.amount) == ((), 0)
    budget.know("run:1", 1.0)
    found = budget.reserve(["run:1"], None)
    assert isinstance(found, Over)
    assert "[gateway.prices.'m']" in found.told("m")


def test_what_cannot_be_priced_afterwards_costs_what_was_kept_aside() -> None:
    budget = Budget()
    budget.know("a", 1.0)
    hold = budget.reserve(["a"], 0.25)
    assert isinstance(hold, Hold)
    budget.settle(hold, None)
    assert budget.purses["a"].spent == NANO // 4


def test_a_purse_that_is_known_keeps_what_it_has_spent_and_takes_the_newest_limit() -> None:
    budget = Budget()
    budget.know("a", 1.0, 0.4)
    budget.know("a", 0.5, 0.0)
    assert (budget.purses["a"].limit, budget.purses["a"].spent) == (nano(0.5), nano(0.4))
    budget.know("a", 2.0, 9.0)
    assert budget.purses["a"].room() == nano(1.6)


def test_a_call_waits_for_those_in_flight_rather_than_being_refused() -> None:
    budget = Budget()
    budget.know("a", 0.10)
    first = budget.reserve(["a"], 0.06)
    assert isinstance(first, Hold)
    assert budget.reserve(["a"], 0.06) is None
    budget.settle(first, 0.01)
    assert isinstance(budget.reserve(["a"], 0.06), Hold)


@pytest.mark.parametrize("odd", [-1.0, float("nan"), 0.0])
def test_what_is_no_money_is_none(odd: float) -> None:
    assert nano(odd) == 0


def test_likely_tokens() -> None:
    assert likely_tokens(4001, None) == (1001, 256)
    assert likely_tokens(0, 16) == (0, 16)
    assert usd(nano(0.25)) == 0.25


async def test_first_calls_in_flight_are_reckoned_by_the_first_that_is_known() -> None:
    routes = Routes()
    ways = [Way(secret=n, token=n, attempt=n, order=n, run="run-1", account="") for n in "abcd"]
    for way in ways:
        routes.open(way, [Limit(key="run:run-1", usd=0.02, spent_usd=0.0)])
    first, *others = [await routes.reserve(way, "m", 0.0001) for way in ways[:3]]
    other_model = await routes.reserve(ways[0], "n", 0.0001)
    assert isinstance(first, Hold)
    routes.settle(first, 0.0045)
    routes.learn(ways[0], "m", 0.0045)
    assert [hold.amount for hold in (*others, other_model) if isinstance(hold, Hold)] == [4_500_000] * 2 + [100_000]
    assert isinstance(await routes.reserve(ways[0], "m", 0.0001), Hold)
    waits = asyncio.ensure_future(routes.reserve(ways[3], "m", 0.0001))
    await asyncio.sleep(0)
    assert not waits.done(), "0.0181 of 0.02 are spent or kept aside"
    for hold in others:
        assert isinstance(hold, Hold)
        routes.settle(hold, 0.0)
    found = await waits
    assert isinstance(found, Hold)
    assert found.amount == 4_500_000
    assert routes.budget.purses["run:run-1"].held == 9_100_000


async def test_who_waited_is_reckoned_by_what_has_become_known_meanwhile() -> None:
    routes = Routes()
    one, two = (Way(secret=n, token=n, attempt=n, order=n, run="run-1", account="") for n in "ab")
    for way in (one, two):
        routes.open(way, [Limit(key="run:run-1", usd=0.02, spent_usd=0.0)])
    first = await routes.reserve(one, "m", 0.015)
    waits = asyncio.ensure_future(routes.reserve(two, "m", 0.015))
    await asyncio.sleep(0)
    assert not waits.done()
    assert isinstance(first, Hold)
    routes.settle(first, 0.011)
    routes.learn(one, "m", 0.011)
    found = await waits
    assert isinstance(found, Over)
    assert found.likely == 11_000_000
