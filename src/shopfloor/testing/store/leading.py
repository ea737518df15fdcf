"""Cases: waiting for what others append, and being the one controller."""

from __future__ import annotations

import asyncio

from shopfloor.domain.errors import Conflict, Refused
from shopfloor.domain.events import E
from shopfloor.ports import Query
from shopfloor.testing.store.bench import SOON_S, Bench, Case, error_of, everything, types


async def waiting_ends_at_once_when_something_is_there(bench: Bench) -> None:
    store = bench.open()
    await store.append([bench.event()])
    async with asyncio.timeout(SOON_S):
        assert await store.wait(0, 10 * SOON_S)


async def waiting_ends_with_its_time(bench: Bench) -> None:
    store = bench.open()
    await store.append([bench.event()])
    [(end, _)] = await everything(store)
    assert not await store.wait(end, 0.0)
    assert not await store.wait(end, 0.05)


async def waiting_ends_with_an_append(bench: Bench) -> None:
    store, other = bench.open(), bench.open()
    end = 0
    for appender in (store, other):
        async with asyncio.timeout(SOON_S), asyncio.TaskGroup() as group:
            waiter = group.create_task(store.wait(end, 10 * SOON_S))
            await appender.append([bench.event()])
        assert waiter.result()
        end = (await everything(store))[-1][0]


async def a_waiter_may_be_cancelled(bench: Bench) -> None:
    store = bench.open()
    waiter = asyncio.create_task(store.wait(0, 10 * SOON_S))
    await asyncio.sleep(0)
    waiter.cancel()
    await asyncio.wait([waiter])
    assert waiter.cancelled()
    await store.append([bench.event()])
    assert await store.wait(0, SOON_S)


# -- leading --------------------------------------------------------------------------------------------------------


async def the_first_controller_is_number_one(bench: Bench) -> None:
    store = bench.open()
    assert await store.lead({"version": "x"}) == 1
    announced = [event async for _, event in store.read() if event.event_type == E.CONTROLLER_STARTED]
    assert [(event.data["generation"], event.data["version"]) for event in announced] == [(1, "x")]
    assert await store.lead({}) == 1, "it already leads"


async def a_controller_signs_what_it_says(bench: Bench) -> None:
    leader, other = await bench.leader(), bench.open()
    [ours] = await leader.append([bench.event()])
    [theirs] = await other.append([bench.event()])
    assert ours.sf is not None
    assert theirs.sf is not None
    assert (ours.sf.controller, theirs.sf.controller) == (1, 0)


async def a_second_controller_is_refused(bench: Bench) -> None:
    await bench.leader()
    other = bench.open()
    problem = await error_of(other.lead({}), Conflict)
    assert "pid" in problem.message
    assert "shopfloor status" in problem.hint
    await other.append([bench.event()])


async def a_controller_follows_one_that_closed(bench: Bench) -> None:
    for number in (1, 2, 3):
        store = bench.open()
        assert await store.lead({}) == number
        await store.close()
        for _ in range(2):  # a closed one refuses each call
            assert "closed" in (await error_of(store.append([bench.event()]), Refused)).message
            assert "closed" in (await error_of(store.query(Query()), Refused)).message


async def a_superseded_controller_is_refused(bench: Bench) -> None:
    old, new = await bench.leader(), bench.open()
    await old.append([bench.event("before")])
    bench.subject.depose(bench.folder)
    generation = await new.lead({})
    assert generation > 1
    problem = await error_of(old.append([bench.event("stray")]), Conflict)
    assert f"controller {generation}" in problem.message
    assert await types(new) == ["before"]
    await new.append([bench.event("after")])


CASES: tuple[Case, ...] = (
    waiting_ends_at_once_when_something_is_there,
    waiting_ends_with_its_time,
    waiting_ends_with_an_append,
    a_waiter_may_be_cancelled,
    the_first_controller_is_number_one,
    a_controller_signs_what_it_says,
    a_second_controller_is_refused,
    a_controller_follows_one_that_closed,
    a_superseded_controller_is_refused,
)
