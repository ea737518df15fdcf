"""Cases: a change that builds on a claim is refused when somebody else was first."""

from __future__ import annotations

import asyncio

from shopfloor.domain.errors import Conflict, Led, Refused
from shopfloor.domain.events import E, Event
from shopfloor.domain.holder import Holder, Wanted
from shopfloor.ports import CONTROLLER, Query
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


# -- sessions: claims of processes that do not lead -----------------------------------------------------------------


def _session(bench: Bench, order: str, generation: int) -> Event:
    claim = bench.claim(order, generation)
    claim.data["handle"] = Holder(name="ann", pid=1, start_time=1).handle()
    return claim


def _at(orders: dict[str, int], controller: int = 0) -> dict[str, int]:
    return {**orders, CONTROLLER: controller}


async def a_session_claims_while_nobody_leads(bench: Bench) -> None:
    store, other = bench.open(), bench.open()
    await store.append([bench.created("wo-a1")])
    for vague in ({}, {"wo-a1": 0}, {CONTROLLER: 0}):
        await error_of(store.append([_session(bench, "wo-a1", 1)], expect=vague), Refused)
    await store.append([_session(bench, "wo-a1", 1)], expect=_at({"wo-a1": 0}))
    await error_of(other.append([_session(bench, "wo-a1", 1)], expect=_at({"wo-a1": 0})), Conflict)
    [row] = await other.query(Query(what="held"))
    assert (row["id"], row["generation"], row["handle"]["name"]) == ("wo-a1", 1, "ann")
    assert await other.query(Query(what="ready")) == []
    # Of several alternatives the first that are free are taken.
    orders = [f"wo-n{n}" for n in range(6)]
    await store.append([bench.created(order) for order in orders])
    expect = _at(dict.fromkeys(orders, 0))
    claims = [_session(bench, order, 1) for order in orders]
    won = await store.append(claims, expect=expect, at_most=2)
    assert [event.order_id for event in won] == orders[:2]
    won = await other.append(claims, expect=expect, at_most=3)
    assert [event.order_id for event in won] == orders[2:5]
    won = await store.append(claims, expect=expect, at_most=3)
    assert [event.order_id for event in won] == orders[5:]
    assert await store.append(claims, expect=expect, at_most=3) == []
    assert (await types(store))[2:] == [E.CREATED] * 6 + [E.ASSIGNED] * 6


async def a_session_claims_nothing_beside_a_controller(bench: Bench) -> None:
    leader, other = await bench.leader(), bench.open()
    await leader.append([bench.created("wo-a1")])
    await error_of(other.append([_session(bench, "wo-a1", 1)], expect=_at({"wo-a1": 0}, 1)), Led)
    await leader.close()
    await error_of(other.append([_session(bench, "wo-a1", 1)], expect=_at({"wo-a1": 0}, 0)), Led)
    await other.append([_session(bench, "wo-a1", 1)], expect=_at({"wo-a1": 0}, 1))
    leader = await bench.leader()
    await error_of(leader.append([bench.claim("wo-a1", 1)], expect={"wo-a1": 0}), Conflict)
    await leader.append([bench.event()], expect={"wo-a1": 1})


async def what_may_be_claimed_waits_for_no_order_and_no_file(bench: Bench) -> None:
    store = bench.open()
    first, last = bench.created("wo-a1", priority=0), bench.created("wo-b2", priority=4)
    behind, bug = bench.created("wo-c3"), bench.created("wo-d4")
    behind.data["shopfloor"]["depends_on"] = ["wo-a1"]
    bug.data["issue_type"] = "bug"
    await store.append([last, behind, bug, first])
    rows = await store.query(Query(what="ready"))
    assert [row["id"] for row in rows] == ["wo-a1", "wo-d4", "wo-b2"]
    assert [row["id"] for row in await store.query(Query(what="ready", limit=1))] == ["wo-a1"]
    rows = await store.query(Query(what="ready", wanted=Wanted(types=("bug",))))
    assert [row["id"] for row in rows] == ["wo-d4"]
    named = Query(what="ready", wanted=Wanted(orders=("wo-b2", "wo-c3", "wo-b2", "wo-unknown", "wo-a1")))
    assert [row["id"] for row in await store.query(named)] == ["wo-a1", "wo-b2"]
    files = [bench.created(f"wo-n{n}") for n in range(3)]
    for wish, file in zip(files, ("src", "src/a.py", "docs"), strict=True):
        wish.data["issue_type"], wish.data["shopfloor"]["files"] = "chore", [file]
    await store.append(files)
    chores = Query(what="ready", wanted=Wanted(types=("chore",)))
    assert [row["id"] for row in await store.query(chores)] == ["wo-n0", "wo-n2"]
    await store.append([_session(bench, "wo-n1", 1)], expect=_at({"wo-n1": 0}))
    assert [row["id"] for row in await store.query(chores)] == ["wo-n2"]


CASES: tuple[Case, ...] = (
    an_unknown_order_is_at_generation_zero,
    a_stale_claim_changes_nothing,
    every_expectation_must_hold,
    a_conflict_does_not_hurt_its_neighbours,
    one_of_many_claims_wins,
    claims_of_one_store_are_known_to_another,
    a_claim_without_the_right_to_it_is_none,
    a_session_claims_while_nobody_leads,
    a_session_claims_nothing_beside_a_controller,
    what_may_be_claimed_waits_for_no_order_and_no_file,
)
