"""While very much is written the views follow the log without the index, and are the same as with it."""

from __future__ import annotations

import asyncio
from pathlib import Path
from random import Random

import pytest

from shopfloor.domain.board import creation
from shopfloor.domain.events import E
from shopfloor.domain.order import Deliverable, Order
from shopfloor.ports import Query
from shopfloor.stores import ahead, follow, workdir
from shopfloor.stores.index import Index
from shopfloor.stores.sheet import render
from shopfloor.stores.workdir import WorkdirStore

from .test_workdir_boards import Story, folded, told
from .workdir import open_store

SOON = 15
"""events after which what the index lacks is let go of, in place of thousands"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / ".work"


@pytest.fixture(autouse=True)
def soon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(follow, "BATCH", SOON)
    monkeypatch.setattr(follow, "LET_GO", SOON)
    monkeypatch.setattr(workdir, "LAG_S", 3600.0)  # nothing is brought up but when a test does


def offset(folder: Path) -> int:
    index = Index(folder / "index.sqlite")
    try:
        return index.offset()
    finally:
        index.close()


async def published(store: WorkdirStore) -> bool:
    """Bring the views up as in a rush; whether that was done without the index."""
    books = store._books
    await asyncio.to_thread(books.tidy, views_only=True)
    return books.follower.ahead is not None


async def expect_views(folder: Path) -> None:
    lines = (folder / "work_orders.jsonl").read_bytes().splitlines()
    async with open_store(folder) as reader:
        assert lines == [render(record) for record in (await folded(reader)).records.values()]


async def answers(store: WorkdirStore, first: int, number: int, *, open_too: bool = True) -> None:
    """Orders that calls have answered, and some that nobody has begun."""
    for n in range(first, first + number):
        order = Order(id=f"wo-{n:04}", name=f"o{n}", title="t", run="run-0", deliverable=Deliverable.ANSWER)
        about = {"work_order_id": order.id, "generation": 1}
        await store.append([told(E.CREATED, "run-0", **creation(order))])
        if n % 5 and open_too:
            await store.append([told(E.ASSIGNED, "run-0", **about, attempt=f"{order.id}.a1", agent="a", call=True)])
            end = {"outcome": "completed", "message": f"answer {n}"}
            status = {"work_order_id": order.id, "from_status": "open", "to_status": "closed"}
            settled = told(E.SETTLED, "run-0", **about, outcome="done", end=end)
            await store.append([settled, told(E.STATUS, "run-0", **status)])


@pytest.mark.parametrize("seed", range(6))
async def test_they_are_as_with_the_index(folder: Path, seed: int) -> None:
    story, pick = Story(seed), Random(seed)
    async with open_store(folder) as store:
        await store.lead({})
        async with open_store(folder) as other:  # edits are nothing that a controller says
            for change in story.changes():
                await (other if change[0].event_type == E.UPDATED else store).append(change)
                if pick.random() < 0.05:
                    await published(store)
                    await expect_views(folder)
                elif pick.random() < 0.02:
                    await store.query(Query(limit=1))
    await expect_views(folder)


async def test_the_index_is_left_to_who_asks(folder: Path) -> None:
    async with open_store(folder) as store:
        await store.lead({})
        await answers(store, 0, 40)
        assert await published(store)
        await expect_views(folder)
    async with open_store(folder) as store:
        await store.lead({})
        await store.query(Query(limit=1))
        before = offset(folder)
        await answers(store, 40, 40)
        assert await published(store)
        known = store._books.follower.ahead
        assert known is not None
        assert [*known] == []
        await answers(store, 80, 40)
    assert offset(folder) == before < (folder / "events.jsonl").stat().st_size
    await expect_views(folder)
    async with open_store(folder) as reader:
        assert len(await reader.query(Query(state="done"))) == 96
        assert offset(folder) == (folder / "events.jsonl").stat().st_size


async def test_an_order_that_was_over_is_opened_again(folder: Path) -> None:
    async with open_store(folder) as store:
        await store.lead({})
        await answers(store, 0, 20)
        assert await published(store)
        await store.append([told(E.RETRIED, "run-0", work_order_id="wo-0001", generation=1, kind="manual")])
        assert not await published(store)
        await expect_views(folder)
        await answers(store, 20, 20)
    await expect_views(folder)


async def test_so_many_are_open_that_the_index_is_sooner_written(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ahead, "MOST_OPEN", 10)
    async with open_store(folder) as store:
        await store.lead({})
        await answers(store, 0, 40, open_too=False)
        assert not await published(store)
        await expect_views(folder)


async def test_the_file_is_gone(folder: Path) -> None:
    async with open_store(folder) as store:
        await store.lead({})
        await answers(store, 0, 20)
        assert await published(store)
        (folder / "work_orders.jsonl").unlink()
        await answers(store, 20, 20)
        await published(store)
        await expect_views(folder)


@pytest.mark.parametrize("more", [0, 3])
async def test_another_process_brings_the_index_up_meanwhile(folder: Path, more: int) -> None:
    async with open_store(folder) as store:
        await store.lead({})
        await answers(store, 0, 20)
        async with open_store(folder) as other:
            assert len(await other.query(Query())) == 20
        await answers(store, 20, more)
        async with asyncio.timeout(10):
            assert len(await store.query(Query())) == 20 + more
        await answers(store, 40, 20)
        async with open_store(folder) as other:
            await other.query(Query())
        await answers(store, 60, more)
        await published(store)
        await expect_views(folder)
    await expect_views(folder)


async def test_the_index_is_deleted_meanwhile(folder: Path) -> None:
    async with open_store(folder) as store:
        await store.lead({})
        await answers(store, 0, 20)
        for path in folder.glob("index.sqlite*"):
            path.unlink()
        await answers(store, 20, 20)
        await published(store)
        await expect_views(folder)
    await expect_views(folder)
