"""Where results are kept, and the queue, on real servers."""

import asyncio
import json
import sqlite3
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, closing
from pathlib import Path
from typing import Any

import psycopg
import pytest
import redis.asyncio as redis_client

from shopfloor.domain.errors import Refused, ShopfloorError
from shopfloor.faces.fanout import (
    Coordinator,
    Finished,
    MemoryResults,
    PostgresResults,
    RedisQueue,
    Result,
    ResultStore,
    Specification,
    SqliteResults,
    specification,
)
from shopfloor.faces.fanout.stores import Writer

from .engine_lab import until_true

SEEDS_INSERT = "INSERT INTO agent_results (spec_id, code, success, latency_ms) VALUES ($1, $2, $3, $4)"
COLUMNS = ["spec_id", "code", "success", "latency_ms", "agent_id", "error", "tests", "attempt"]


def finished(number: int, run: str = "run-1", **changes: Any) -> Finished:
    known: dict[str, Any] = {
        "spec_id": f"s{number}", "success": True, "code": ": a ( n -- n ) ;", "tests": ("t",), "latency_ms": 1.25,
        "number": number, "run": run, "agent_id": "http://h:1",
    }  # fmt: skip
    return Finished(**(known | changes))


class Table:
    """The table as other programs see it."""

    def __init__(self, store: ResultStore) -> None:
        self.store = store

    async def ask(self, statement: str, *words: object) -> list[tuple[Any, ...]]:
        match self.store:
            case SqliteResults():
                named = {str(place): word for place, word in enumerate(words, 1)}  # $1 … are names to SQLite
                with closing(sqlite3.connect(self.store.path)) as db, db:
                    return db.execute(statement, named).fetchall()
            case PostgresResults():
                # The extended protocol with $1 … is what a driver of another language sends.
                async with await psycopg.AsyncConnection.connect(self.store.url, autocommit=True) as other:
                    cursor = psycopg.AsyncRawCursor(other)
                    await cursor.execute(statement.encode(), words or None)
                    return await cursor.fetchall() if cursor.description else []
        raise AssertionError(self.store)


@pytest.fixture(params=["sqlite", "postgres"])
def table(request: pytest.FixtureRequest, tmp_path: Path) -> Table:
    if request.param == "sqlite":
        return Table(SqliteResults(tmp_path / "results.db"))
    return Table(PostgresResults(request.getfixturevalue("postgres")))


@asynccontextmanager
async def opened(table: Table) -> AsyncIterator[ResultStore]:
    if isinstance(table.store, PostgresResults):
        await table.ask("DROP TABLE IF EXISTS agent_results")
    await table.store.open()
    try:
        yield table.store
    finally:
        await table.store.close()


async def test_the_seeds_own_insert_works_against_the_table(table: Table) -> None:
    async with opened(table):
        await table.ask(SEEDS_INSERT, "s1", ": x ;", True, 12.5)
        await table.ask(SEEDS_INSERT, "s1", ": x ;", True, 12.5)
        (row, again) = await table.ask("SELECT * FROM agent_results")
        assert row[:4] == ("s1", ": x ;", True, 12.5)
        assert again[:4] == row[:4]


async def test_a_result_is_one_row_however_often_it_is_stored(table: Table) -> None:
    async with opened(table) as store:
        await store.store([finished(n) for n in range(300)])
        await store.store(
            [finished(7, code="new", attempt=2), finished(300, success=False, error="100% odd", tests=())]
        )
        await store.store([finished(7, run="run-2")])
        (count,) = await table.ask("SELECT count(*), count(DISTINCT spec_id) FROM agent_results")
        assert count == (302, 301)
        rows = await table.ask(f"SELECT {', '.join(COLUMNS)} FROM agent_results WHERE number = 7 ORDER BY run")
        assert rows[0] == ("s7", "new", True, 1.25, "http://h:1", None, '["t"]', 2)
        (bad,) = await table.ask("SELECT success, error, tests FROM agent_results WHERE number = 300")
        assert bad == (False, "100% odd", None)


async def test_a_table_that_was_made_by_others_is_completed(table: Table) -> None:
    async with opened(table) as store:
        await table.ask("DROP TABLE agent_results")
        await table.ask("CREATE TABLE agent_results (spec_id text, code text, success boolean, latency_ms float)")
        await table.ask(SEEDS_INSERT, "old", "", True, 1.0)
        await store.close()
        await store.open()
        await store.store([finished(1), finished(1)][:1])
        assert await table.ask("SELECT spec_id FROM agent_results ORDER BY spec_id") == [("old",), ("s1",)]


async def test_code_that_a_database_cannot_take_as_it_is_does_no_harm(table: Table) -> None:
    async with opened(table) as store:
        await store.store([finished(1, code="a\0b'; DROP TABLE agent_results; --", error="\0")])
        ((code,),) = await table.ask("SELECT code FROM agent_results")
        assert code.endswith("b'; DROP TABLE agent_results; --")


async def test_a_lost_connection_is_made_again(postgres: str) -> None:
    table = Table(PostgresResults(postgres))
    async with opened(table) as store:
        others = "pid <> pg_backend_pid() AND datname IS NOT NULL"
        await table.ask(f"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE {others}")
        await store.store([finished(1)])
        assert await table.ask("SELECT spec_id FROM agent_results") == [("s1",)]


async def test_that_a_database_is_away_and_back_is_told_once_however_often_it_is_tried(postgres: str) -> None:
    class Counted(PostgresResults):
        tries = 0

        async def _connect(self) -> None:
            self.tries += 1
            await super()._connect()

    told: list[str] = []
    store, away = Counted(postgres, say=told.append), "postgresql://ada:geheim@127.0.0.1:1/none"
    async with opened(Table(store)):
        await store.close()
        store.url = away
        waiting = asyncio.create_task(store.store([finished(1)]))
        await until_true(lambda: store.tries > 4, "it is tried again and again")
        store.url = postgres
        await waiting
    first, last = told
    assert first.startswith("the database at ")
    assert " is away (connection failed: " in first
    assert last.startswith("the database at ")
    assert " is back after " in last
    assert "geheim" not in "".join(told)


async def test_a_connection_that_is_there_again_at_once_is_nothing_to_speak_of(redis: str) -> None:
    told: list[str] = []
    async with RedisQueue(redis, say=told.append) as queue, other(redis) as client:
        waiting = asyncio.create_task(queue.take(5))
        await blocked(client)
        await client.client_kill_filter(skipme=True)
        await client.rpush("work_queue", json.dumps(spec(1).document()))
        assert ids(await waiting) == ["s1"]
    assert told == []


async def test_a_database_that_went_away_is_not_waited_for_for_ever(postgres: str) -> None:
    async with opened(Table(PostgresResults(postgres, patience_s=0.3))) as store:
        assert isinstance(store, PostgresResults)
        await store.close()
        store.url = "postgresql://ada:geheim@127.0.0.1:1/none"
        with pytest.raises(ShopfloorError, match="cannot be kept in") as told:
            await store.store([finished(1)])
        assert "--resume" in told.value.hint
        assert "geheim" not in told.value.message


async def test_a_place_that_cannot_be_had_is_refused_without_its_password(tmp_path: Path) -> None:
    with pytest.raises(Refused) as told:
        await PostgresResults("postgresql://ada:geheim@127.0.0.1:1/none").open()
    assert "geheim" not in told.value.message
    with pytest.raises(ShopfloorError, match="cannot be kept in"):
        await SqliteResults(tmp_path / "no" / "results.db").open()


async def test_the_writer_stores_what_comes_meanwhile_as_one_batch() -> None:
    class Slow(MemoryResults):
        def __init__(self) -> None:
            super().__init__()
            self.batches: list[int] = []
            self.go = asyncio.Event()

        async def store(self, results: Sequence[Finished]) -> None:
            self.batches.append(len(results))
            await self.go.wait()
            await super().store(results)

    store = Slow()
    told: list[Finished] = []

    async def then(batch: Sequence[Finished]) -> None:
        assert all((result.run, result.number) in store.results for result in batch)
        told.extend(batch)

    writer = Writer(store, then)
    work = asyncio.create_task(writer.run())
    writer.add(finished(0))
    await until_true(lambda: store.batches)
    for number in range(1, 100):
        writer.add(finished(number))
    writer.close()
    store.go.set()
    await work
    assert store.batches == [1, 99]
    assert len(told) == 100


# -- the queue ----------------------------------------------------------------------------------------------------


def spec(number: int) -> Specification:
    return specification({"id": f"s{number}", "word": "square", "stack_effect": "( n -- n² )"})


@asynccontextmanager
async def other(url: str) -> AsyncIterator[Any]:
    """Another program at the same Redis."""
    client = redis_client.Redis.from_url(url, decode_responses=True)
    try:
        yield client
    finally:
        await client.aclose()


async def blocked(client: Any) -> None:
    """Until somebody waits in the server."""
    async with asyncio.timeout(10):
        while not (await client.info("clients"))["blocked_clients"]:
            pass


def ids(taken: Sequence[Any]) -> list[str]:
    return [one.spec.id for one in taken]


async def test_what_is_put_is_a_list_of_json_first_in_first_out(redis: str) -> None:
    async with RedisQueue(redis) as queue, other(redis) as client:
        await queue.put([spec(n) for n in range(3)])
        assert json.loads(await client.lindex("work_queue", 0)) == spec(0).document()
        _, first = await client.blpop(["work_queue"], 0)
        assert json.loads(first)["id"] == "s0"
        assert ids(await queue.take(5)) == ["s1", "s2"]


async def test_a_waiting_taker_blocks_in_the_server_and_gets_what_others_push(redis: str) -> None:
    async with RedisQueue(redis) as queue, other(redis) as client:
        waiting = asyncio.create_task(queue.take(5))
        await blocked(client)
        before = await client.info("commandstats")
        for _ in range(1000):
            await client.ping()
        after = await client.info("commandstats")
        asked = {name: stat["calls"] - before.get(name, {"calls": 0})["calls"] for name, stat in after.items()}
        assert {name for name, calls in asked.items() if calls} == {"cmdstat_ping", "cmdstat_info"}
        await client.rpush("work_queue", json.dumps({"id": "from outside", "word": "x", "stack_effect": "( -- n )"}))
        assert ids(await waiting) == ["from outside"]


async def test_what_a_killed_taker_had_goes_back_to_the_front(redis: str) -> None:
    async with RedisQueue(redis) as queue, other(redis) as client:
        await queue.put([spec(n) for n in range(5)])
        killed = RedisQueue(redis, taker="killed", lease_s=0.2)
        await killed.open()
        taken = await killed.take(3)
        await killed.settle([taken[0].payload])
        await _die(killed)
        assert await queue.rescue() == 0, "its lease has not ended yet"
        async with asyncio.timeout(10):
            while await client.exists("work_queue:alive:killed"):
                pass
        assert await queue.rescue() == 2
        assert ids(await queue.take(9)) == ["s1", "s2", "s3", "s4"]
        assert await client.smembers("work_queue:takers") == {queue.taker}


async def _die(queue: RedisQueue) -> None:
    """As with -9: nothing is said, nothing is given back."""
    assert queue._beating is not None
    queue._beating.cancel()
    await asyncio.wait({queue._beating})
    await queue._redis.aclose()


async def test_under_the_same_name_one_goes_on_with_what_one_had(redis: str) -> None:
    first = RedisQueue(redis, taker="a")
    await first.open()
    await first.put([spec(n) for n in range(3)])
    taken = await first.take(2)
    await _die(first)
    async with RedisQueue(redis, taker="a") as again:
        known = Counter([taken[0].payload])
        assert ids(await again.unsettled(known)) == ["s1"]
        assert await again.give_back() == 2
        assert ids(await again.take(9)) == ["s0", "s1", "s2"]


async def test_a_lost_connection_loses_no_specification(redis: str) -> None:
    async with RedisQueue(redis) as queue, other(redis) as client:
        waiting = asyncio.create_task(queue.take(5))
        await blocked(client)
        # The server moves one for a taker that never hears of it.
        await client.client_kill_filter(skipme=True)
        await client.rpush(f"work_queue:processing:{queue.taker}", json.dumps(spec(1).document()))
        assert ids(await waiting) == ["s1"]


async def test_what_is_no_specification_is_put_aside(redis: str) -> None:
    async with RedisQueue(redis) as queue, other(redis) as client:
        await client.rpush("work_queue", "nonsense", "[1]", json.dumps(spec(1).document()))
        assert ids(await queue.take(5)) == ["s1"]
        assert await client.lrange("work_queue:refused", 0, -1) == ["nonsense", "[1]"]
        assert queue.refused == 2
        assert await queue.take(1, wait=False) == []


async def test_a_queue_that_is_not_there_is_refused() -> None:
    with pytest.raises(Refused, match=r"redis://:\*\*\*@127.0.0.1:1/0 cannot be used"):
        await RedisQueue("redis://:geheim@127.0.0.1:1/0").open()


async def test_the_seeds_three_verbs(redis: str, tmp_path: Path) -> None:
    async with (
        Coordinator(["http://h:1"], queue=redis, results=f"sqlite:{tmp_path}/r.db") as crew,
        other(redis) as client,
    ):
        await crew.enqueue_spec(spec(1))
        got = await crew.dequeue_spec()
        assert got == spec(1)
        assert crew.queue is not None
        processing = f"work_queue:processing:{crew.queue.taker}"
        assert await client.llen(processing) == 1
        await crew.store_result(Result(spec_id=got.id, success=True, code="x", latency_ms=2.0))
        assert await client.llen(processing) == 0
        assert await Table(crew.results).ask("SELECT spec_id, latency_ms FROM agent_results") == [("s1", 2.0)]
