"""The index is derived: whatever happens to it, the answers are those of the log."""

import asyncio
import shutil
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from shopfloor.domain.events import E
from shopfloor.ports import Query
from shopfloor.stores.codec import encode
from shopfloor.stores.memory import MemoryStore
from shopfloor.stores.rows import order_row
from shopfloor.stores.workdir import WorkdirStore

from .workdir import Clock, claimed, created, event, finish, open_store, start


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / ".work"


async def fill(store: WorkdirStore, orders: int = 12, begin: int = 0) -> None:
    await store.lead({})
    for number in range(begin, orders):
        await store.append([created(f"wo-n{number}")])
        if number % 2:
            await store.append([claimed(f"wo-n{number}")], expect={f"wo-n{number}": 0})
        if number % 4 == 3:
            data = {"work_order_id": f"wo-n{number}", "generation": 1}
            await store.append([event(E.AGENT_STOPPED, **data, outcome="error")])
            await store.append([event(E.RETRIED, **data, kind="transient")])


async def answers(store: WorkdirStore) -> dict[str, Any]:
    meta = (await store.query(Query(what="meta")))[0]
    return {
        "orders": await store.query(Query()),
        "one": await store.query(Query(order="wo-n3")),
        "events": await store.query(Query(what="events")),
        "counts": (meta["events"], meta["position"], meta["sequence"], meta["controller"], meta["orders"]),
    }


async def from_the_log(folder: Path) -> dict[str, Any]:
    """The same answers without any index."""
    copy = folder.parent / "copy"
    shutil.rmtree(copy, ignore_errors=True)
    copy.mkdir()
    shutil.copy(folder / "events.jsonl", copy)
    async with open_store(copy) as store:
        return await answers(store)


async def check(folder: Path) -> None:
    async with open_store(folder) as store:
        assert await answers(store) == await from_the_log(folder)
    async with open_store(folder) as store:
        assert await answers(store) == await from_the_log(folder), "and again from what was kept"


async def test_it_agrees_with_the_fold_in_memory(folder: Path) -> None:
    async with open_store(folder) as store, MemoryStore(clock=Clock()) as memory:
        await fill(store)
        log = memory.log
        log.take([found async for _, found in store.read()])
        expected = [order_row(record) for record in log.board.records.values()]
        assert await store.query(Query()) == expected
        assert sum(row["state"] == "running" for row in expected) == 3


async def test_deleted_while_nobody_looks(folder: Path) -> None:
    async with open_store(folder) as store:
        await fill(store)
    for path in folder.glob("index.sqlite*"):
        path.unlink()
    await check(folder)


async def test_deleted_while_in_use(folder: Path) -> None:
    async with open_store(folder) as store:
        await fill(store)
        await store.query(Query())
        for path in folder.glob("index.sqlite*"):
            path.unlink()
        await store.append([created("wo-late")])
        assert await answers(store) == await from_the_log(folder)
        assert (folder / "index.sqlite").exists()


@pytest.mark.parametrize("damage", [b"", b"junk" * 4096, None])
async def test_damaged_while_nobody_looks(folder: Path, damage: bytes | None) -> None:
    async with open_store(folder) as store:
        await fill(store)
    path = folder / "index.sqlite"
    content = path.read_bytes()
    path.write_bytes(content[:4096] + b"\xff" * (len(content) - 4096) if damage is None else damage)
    await check(folder)


async def test_a_table_that_is_gone(folder: Path) -> None:
    async with open_store(folder) as store:
        await fill(store)
    with closing(sqlite3.connect(folder / "index.sqlite")) as db, db:
        db.execute("DROP TABLE events")
    await check(folder)
    assert (folder / "index.sqlite").exists()


async def test_of_another_version(folder: Path) -> None:
    async with open_store(folder) as store:
        await fill(store)
    with closing(sqlite3.connect(folder / "index.sqlite")) as db, db:
        db.execute("UPDATE meta SET value = 'older' WHERE key = 'shape'")
        db.execute("UPDATE orders SET title = 'wrong', blob = '{}'")
    await check(folder)


async def test_stale(folder: Path) -> None:
    async with open_store(folder) as store:
        await fill(store, 4)
    old = (folder / "index.sqlite").read_bytes()
    async with open_store(folder) as store:
        await fill(store, begin=4)
    (folder / "index.sqlite").write_bytes(old)
    await check(folder)


async def test_of_another_log(folder: Path) -> None:
    async with open_store(folder) as store:
        await fill(store, 4)
    other = folder.parent / "other"
    async with open_store(other) as store:
        await fill(store)
    shutil.copy(other / "events.jsonl", folder / "events.jsonl")
    await check(folder)


async def test_of_a_log_that_was_cut_and_went_on_differently(folder: Path) -> None:
    async with open_store(folder) as store:
        await fill(store, 6)
    log = folder / "events.jsonl"
    lines = log.read_bytes().splitlines(keepends=True)
    log.write_bytes(b"".join(lines[:-3]) + b"".join(encode(created(f"wo-other{n}")) for n in range(9)))
    await check(folder)


async def test_it_is_as_new_as_the_log_once_closed(folder: Path) -> None:
    async with open_store(folder) as store:
        await fill(store)
    with closing(sqlite3.connect(f"file:{folder / 'index.sqlite'}?mode=ro", uri=True)) as db, db:
        [(offset,)] = db.execute("SELECT value FROM meta WHERE key = 'offset'")
        counts = dict(db.execute("SELECT state, count(*) FROM orders GROUP BY state"))
    assert offset == (folder / "events.jsonl").stat().st_size
    assert counts == {"ready": 9, "running": 3}


async def test_the_controller_writes_it_without_being_asked(folder: Path) -> None:
    async with open_store(folder) as store:
        await store.lead({})
        await store.append([created("wo-a1")])
        size = (folder / "events.jsonl").stat().st_size
        async with asyncio.timeout(20):
            while True:
                with closing(sqlite3.connect(folder / "index.sqlite")) as db, db:
                    [(offset,)] = db.execute("SELECT value FROM meta WHERE key = 'offset'").fetchall() or [(0,)]
                if offset == size:
                    break
                await store.wait(size, 0.02)


COUNTING = """
async def main():
    from shopfloor.domain.board import creation
    from shopfloor.domain.order import Order
    async with store:
        for number in range(40):
            order = f"wo-p{sys.argv[2]}n{number}"
            made = Event(order, "work_order.created", "2026-01-06T12:00:00.000Z", "human", None,
                         creation(Order(id=order, name=order, title="t")))
            await store.append([made])
            rows = await store.query(Query(order=order))
            assert len(rows) == 1, rows
            if number % 10 == 9 and sys.argv[2] == "0":
                (folder / "index.sqlite").unlink(missing_ok=True)
asyncio.run(main())
"""


async def test_several_processes_write_it_and_one_deletes_it(folder: Path) -> None:
    processes = [start(COUNTING, folder, str(number)) for number in range(4)]
    async with open_store(folder) as store:
        await store.lead({})
        for number in range(40):
            await store.append([claimed(f"wo-p1n{number}")])
            await store.query(Query(limit=1))
        for process in processes:
            finish(process)
        assert await answers(store) == await from_the_log(folder)
        assert len(await store.query(Query())) == 160
    await check(folder)


async def test_hostile_values_are_taken_in(folder: Path) -> None:
    hostile = [
        created("wo-a1", title="x\x00y\ufeff'; DROP TABLE orders; --"),
        event(E.CREATED, work_order_id="wo-big", title="t", priority=10**30),
        event(E.CREATED, work_order_id="wo-neg", title="t", priority=-(10**30)),
        event(E.CREATED, work_order_id="wo-bool", title=["t"], priority=True),
        event(E.CREATED, work_order_id=["wo"], title="t"),
        event(E.CREATED, work_order_id="", title="t"),
        event(E.ASSIGNED, work_order_id="wo-a1", generation=10**30, agent={"a": 1}),
        event(E.AGENT_USAGE, work_order_id="wo-a1", cost_usd=["free"], tokens_in="many"),
        *(created(order) for order in ("wo-dear", "wo-dearer")),
        *(claimed(order) for order in ("wo-dear", "wo-dearer")),
        *(event(E.AGENT_USAGE, work_order_id=order, cost_usd=9e15) for order in ("wo-dear", "wo-dearer")),
        event("x" * 100_000, work_order_id="y" * 100_000),
    ]
    async with open_store(folder) as store:
        await store.lead({})
        for one in hostile:
            await store.append([one])
        await store.append([created("wo-last")])
        assert "wo-last" in [row["id"] for row in await store.query(Query())]
        for name in ("%", "_", "'", '"', "wo-a1' OR 1", "\x00", "\U0010ffff"):
            assert await store.query(Query(order=name)) == []
    await check(folder)
