"""Cases: what is appended is there, whole, in order, once."""

from __future__ import annotations

import asyncio
from typing import Any

from shopfloor.domain.errors import Conflict, Refused
from shopfloor.domain.events import SCHEMA, E, Event, Stamp
from shopfloor.ports import Query
from shopfloor.testing.store.bench import Bench, Case, error_of, everything, types


async def an_empty_store_has_no_events(bench: Bench) -> None:
    assert await everything(bench.open()) == []


async def the_log_begins_with_its_schema(bench: Bench) -> None:
    store = bench.open()
    await store.append([bench.event()])
    events = [event async for _, event in store.read()]
    first = events[0]
    assert (first.event_type, first.data) == (E.LOG_OPENED, {"schema": SCHEMA})


async def what_was_appended_is_read_back(bench: Bench) -> None:
    store = bench.open()
    data = {"text": "é\n\u2028\0<&>", "list": [1, 2.5, None, True], "deep": {"a": {"b": []}}, "big": 1 << 70}
    event = Event("evt-1", "note.taken", "2026-01-06T12:00:00.000Z", "human", "run-1", data, "evt-0")
    stamped = await store.append([event])
    [(_, found)] = await everything(store)
    assert [found] == stamped
    assert (found.event_id, found.correlation_id, found.caused_by, found.data) == ("evt-1", "run-1", "evt-0", data)


async def events_keep_their_order(bench: Bench) -> None:
    store = bench.open()
    for number in range(20):
        await store.append([bench.event(f"n.{number}")])
    assert await types(store) == [f"n.{number}" for number in range(20)]


async def a_position_resumes_exactly_behind_its_event(bench: Bench) -> None:
    store = bench.open()
    for size in (1, 3, 1, 2):
        await store.append([bench.event(n=n) for n in range(size)])
    found = await everything(store)
    positions = [position for position, _ in found]
    assert positions == sorted(set(positions)), "positions grow"
    for place, position in enumerate(positions):
        assert await everything(bench.open(), position) == found[place + 1 :]


async def a_change_is_one_group(bench: Bench) -> None:
    store = bench.open()
    first = await store.append([bench.event(), bench.event(), bench.event()])
    [second] = await store.append([bench.event()])
    assert first[0].sf is not None
    number = first[0].sf.sequence
    assert [event.sf for event in first] == [Stamp(0, number, place, 3) for place in range(3)]
    assert second.sf == Stamp(0, number + 1)


async def an_empty_change_is_nothing(bench: Bench) -> None:
    store = bench.open()
    assert await store.append([]) == []
    assert await everything(store) == []


async def what_cannot_be_written_is_refused_whole(bench: Bench) -> None:
    store = bench.open()
    for value in (object(), "\ud800", {"deep": [{1j}]}):
        await error_of(store.append([bench.event("good"), bench.event("bad", value=value)]), Refused)
    await store.append([bench.event("later")])
    assert await types(store) == ["later"]


async def what_was_said_cannot_be_changed_afterwards(bench: Bench) -> None:
    store = bench.open()
    data: dict[str, Any] = {"list": [1]}
    await store.append([bench.event(list=data["list"])])
    data["list"].append(2)
    [(_, found)] = await everything(store)
    assert found.data == {"list": [1]}


async def concurrent_changes_are_all_there_and_whole(bench: Bench) -> None:
    stores = [bench.open(), bench.open(), bench.open()]
    changes = [[bench.event(f"n.{n}"), bench.event(f"n.{n}")] for n in range(60)]
    await asyncio.gather(*(stores[n % 3].append(change) for n, change in enumerate(changes)))
    found = await types(stores[0])
    assert sorted(found) == sorted(f"n.{n}" for n in range(60) for _ in range(2))
    assert found[::2] == found[1::2], "the events of a change stand together"


async def sequences_grow_across_stores(bench: Bench) -> None:
    stores = [bench.open(), bench.open()]
    stamps = [(await stores[n % 2].append([bench.event()]))[0].sf for n in range(6)]
    numbers = [stamp.sequence for stamp in stamps if stamp is not None]
    assert numbers == list(range(numbers[0], numbers[0] + 6))


async def everything_is_there_after_closing(bench: Bench) -> None:
    store = await bench.leader()
    await store.append([bench.created("wo-a1")])
    await store.append([bench.claim("wo-a1", 1)], expect={"wo-a1": 0})
    await store.close()
    again = bench.open()
    assert await types(again) == [E.CREATED, E.ASSIGNED]
    assert [row["state"] for row in await again.query(Query())] == ["running"]
    await error_of(again.append([bench.event()], expect={"wo-a1": 0}), Conflict)


async def a_closed_store_refuses(bench: Bench) -> None:
    store = bench.open()
    await store.close()
    await error_of(store.append([bench.event()]), Refused)
    await error_of(store.query(Query()), Refused)
    await store.close()


CASES: tuple[Case, ...] = (
    an_empty_store_has_no_events,
    the_log_begins_with_its_schema,
    what_was_appended_is_read_back,
    events_keep_their_order,
    a_position_resumes_exactly_behind_its_event,
    a_change_is_one_group,
    an_empty_change_is_nothing,
    what_cannot_be_written_is_refused_whole,
    what_was_said_cannot_be_changed_afterwards,
    concurrent_changes_are_all_there_and_whole,
    sequences_grow_across_stores,
    everything_is_there_after_closing,
    a_closed_store_refuses,
)
