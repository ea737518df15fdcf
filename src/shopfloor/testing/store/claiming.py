"""Cases: a change that builds on a claim is refused when somebody else was first."""

from __future__ import annotations

import asyncio

from shopfloor.domain.errors import Conflict
from shopfloor.domain.events import E
from shopfloor.testing.store.bench import Bench, Case, error_of, types


async def an_unknown_order_is_at_generation_zero(bench: Bench) -> None:
    store = await bench.leader()
    await error_of(store.append([bench.event()], expect={"wo-a1": 1}), Conflict)
    await store.append([bench.claim("wo-a1", 1)], expect={"wo-a1": 0})
    await store.append([bench.event()], expect={"wo-a1": 1})


async def a_stale_claim_changes_nothing(bench: Bench) -> None:
    store = await bench.leader()
    await store.append([bench.created("wo-a1"), bench.claim("wo-a1", 1)])
    problem = await error_of(
        store.append([bench.event("stray"), bench.claim("wo-a1", 1)], expect={"wo-a1": 0}), Conflict
    )
    assert "'wo-a1'" in problem.message
    assert await types(store) == [E.CREATED, E.ASSIGNED]


async def every_expectation_must_hold(bench: Bench) -> None:
    store = await bench.leader()
    await store.append([bench.claim("wo-a1", 1)])
    await error_of(store.append([bench.event("stray")], expect={"wo-b2": 0, "wo-a1": 0}), Conflict)
    assert await types(store) == [E.ASSIGNED]


async def a_conflict_does_not_hurt_its_neighbours(bench: Bench) -> None:
    store = await bench.leader()
    calls = [store.append([bench.event(f"n.{n}")], expect={"wo-a1": n % 2} if n % 5 == 0 else None) for n in range(40)]
    answers = await asyncio.gather(*calls, return_exceptions=True)
    refused = [n for n, answer in enumerate(answers) if isinstance(answer, Conflict)]
    assert refused == [n for n in range(40) if n % 5 == 0 and n % 2]
    assert sorted(await types(store)) == sorted(f"n.{n}" for n in range(40) if n not in refused)


async def one_of_many_claims_wins(bench: Bench) -> None:
    store = await bench.leader()
    await store.append([bench.created("wo-a1")])
    claims = (store.append([bench.claim("wo-a1", 1)], expect={"wo-a1": 0}) for _ in range(50))
    answers = await asyncio.gather(*claims, return_exceptions=True)
    assert sum(isinstance(answer, list) for answer in answers) == 1
    assert all(isinstance(answer, list | Conflict) for answer in answers)


async def claims_of_one_store_are_known_to_another(bench: Bench) -> None:
    leader, other = await bench.leader(), bench.open()
    for generation in (1, 2, 3):
        await leader.append([bench.claim("wo-a1", generation)], expect={"wo-a1": generation - 1})
        await other.append([bench.event()], expect={"wo-a1": generation})
        await error_of(other.append([bench.event()], expect={"wo-a1": generation - 1}), Conflict)


async def a_claim_without_the_right_to_it_is_none(bench: Bench) -> None:
    leader, other = await bench.leader(), bench.open()
    await leader.append([bench.created("wo-a1")])
    await other.append([bench.claim("wo-a1", 7)])
    await leader.append([bench.claim("wo-a1", 1)], expect={"wo-a1": 0})


CASES: tuple[Case, ...] = (
    an_unknown_order_is_at_generation_zero,
    a_stale_claim_changes_nothing,
    every_expectation_must_hold,
    a_conflict_does_not_hurt_its_neighbours,
    one_of_many_claims_wins,
    claims_of_one_store_are_known_to_another,
    a_claim_without_the_right_to_it_is_none,
)
