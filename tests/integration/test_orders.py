"""Orders of no run in a folder without a repository: made, changed and claimed by several programs."""

import asyncio
import contextlib
import shutil
import sqlite3
import weakref
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from shopfloor import Deliverable, NotFound, Order, Record, Refused, Shopfloor, State, UsageError
from shopfloor.app import orders as orders_module
from shopfloor.domain.holder import Wanted
from shopfloor.ports import Query
from shopfloor.stores import workdir

CLOSED = {"status": "closed"}


@asynccontextmanager
async def floor_in(folder: Path) -> AsyncIterator[Shopfloor]:
    async with Shopfloor.open(folder, without_git=True, environment={"API_TOKEN": "sesame-sesame"}) as floor:
        yield floor


def wish(name: str = "", **more: object) -> Order:
    known: dict[str, Any] = {"name": "", "title": "Do it", "deliverable": Deliverable.ANSWER}
    return Order(id=name, **(known | more))


async def test_they_are_made_all_or_none(tmp_path: Path) -> None:
    async with floor_in(tmp_path) as floor:
        first, second = await floor.orders.create(
            [wish("wo-a"), wish(depends_on=("wo-a",), title="Say sesame-sesame", instruction="and sesame-sesame")]
        )
        assert (first.id, first.name) == ("wo-a", "wo-a")
        assert second.id.startswith("wo-")
        assert "sesame" not in (tmp_path / ".work" / "events.jsonl").read_text()
        with pytest.raises(NotFound, match="wo-nobody"):
            await floor.orders.create([wish(), wish(depends_on=("wo-nobody",))])
        with pytest.raises(UsageError, match="circle"):
            await floor.orders.create([wish("wo-x", depends_on=("wo-y",)), wish("wo-y", depends_on=("wo-x",))])
        assert [r.order.id for r in await floor.orders.all()] == ["wo-a", second.id]
        with pytest.raises(NotFound):
            await floor.orders.get("wo-x")
    assert not (tmp_path / ".git").exists()


async def test_what_waits_is_claimed_when_the_other_is_answered(tmp_path: Path) -> None:
    async with floor_in(tmp_path) as floor, floor.session("ann") as ann:
        await floor.orders.create([wish("wo-a"), wish("wo-b", depends_on=("wo-a",))])
        (claim,) = await ann.claim(5)
        assert (claim.id, claim.base) == ("wo-a", "")
        await ann.finish("wo-a", text="42")
        assert (await floor.orders.get("wo-a")).state is State.DONE
        assert [claim.id for claim in await ann.claim(5)] == ["wo-b"]


async def test_what_nobody_changed_is_not_looked_at_again(tmp_path: Path) -> None:
    looked: list[str] = []

    def look(record: Record) -> str:
        looked.append(record.order.id)
        return f"{record.order.id} {record.state}"

    async with floor_in(tmp_path) as floor, floor_in(tmp_path) as beside, beside.session("ann") as ann:
        await floor.orders.create([wish("wo-b"), wish("wo-a")])
        assert await floor.orders.seen(look) == ["wo-b ready", "wo-a ready"]
        await floor.orders.create([wish("wo-c")])
        assert [claim.id for claim in await ann.claim(orders=["wo-a"])] == ["wo-a"]
        looked.clear()
        assert await floor.orders.seen(look) == ["wo-b ready", "wo-a running", "wo-c ready"]
        assert sorted(looked) == ["wo-a", "wo-c"]
        looked.clear()
        assert [record.order.id for record in await floor.orders.all()] == ["wo-b", "wo-a", "wo-c"]
        assert (await floor.orders.seen(look), looked) == (["wo-b ready", "wo-a running", "wo-c ready"], [])
    shutil.rmtree(tmp_path / ".work")
    async with floor_in(tmp_path) as floor:
        await floor.orders.create([wish("wo-x")])
        assert await floor.orders.seen(look) == ["wo-x ready"]
        shutil.rmtree(tmp_path / ".work")
        async with floor_in(tmp_path) as beside:
            await beside.orders.create([wish(f"wo-{n}") for n in range(9)])
            assert await floor.orders.seen(look) == [f"wo-{n} ready" for n in range(9)], "another log"


class Looked:
    """What a look made of a record: it can be seen to be let go of."""

    alive: weakref.WeakSet["Looked"]

    def __init__(self, record: Record) -> None:
        self.order = record.order.id
        self.alive.add(self)


async def test_what_is_finished_is_not_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """However many there were, only the unfinished are in memory; a start looks at no others."""
    Looked.alive = weakref.WeakSet()
    names = [f"wo-{n:03}" for n in range(120)]
    async with floor_in(tmp_path) as floor:
        await floor.orders.create([wish(name) for name in names])
        assert [looked.order for looked in await floor.orders.seen(Looked)] == names
        assert len(Looked.alive) == len(names)
        await asyncio.gather(*(floor.orders.change(name, lambda _record: CLOSED) for name in names[5:]))
        await floor.orders.seen(Looked)
        assert sorted(looked.order for looked in Looked.alive) == names[:5]
        assert [record.order.id for record in await floor.orders.unfinished()] == names[:5]
        assert await floor.orders.states() == {"ready": 5, "cancelled": 115}
        assert [record.order.id for record in await floor.orders.all()] == names, "but they can be asked for"
        new = ["wo-x", "wo-y"]
        await floor.orders.create([wish(name) for name in new])
        await floor.orders.change(new[0], lambda _record: {"title": "Anew"})  # it comes behind the other one
        assert [record.order.id for record in await floor.orders.unfinished()] == [*names[:5], *new], "the oldest first"
        assert [record.order.id for record in await floor.orders.all()] == [*names, *new]
        for name in new:
            await floor.orders.change(name, lambda _record: CLOSED)
        names += new
    Looked.alive.clear()
    async with floor_in(tmp_path) as floor:
        read: list[int] = []
        query = floor.store.query

        async def noted(question: Query) -> list[dict[str, Any]]:
            rows = await query(question)
            read.append(sum(len(row["records"]) for row in rows))
            return rows

        monkeypatch.setattr(floor.store, "query", noted)
        assert [looked.order for looked in await floor.orders.seen(Looked)] == names[:5]
        assert read == [5]
        finished = [record.order.id async for record in floor.orders.finished()]
        assert sorted(finished) == names[5:]
        assert len(Looked.alive) <= 5


async def test_what_has_ended_is_told_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(orders_module, "AT_ONCE", 3)
    async with floor_in(tmp_path) as floor, floor_in(tmp_path) as beside:
        orders = beside.orders

        async def close(*names: str) -> None:
            for name in names:
                await orders.change(name, lambda _record: CLOSED)

        async def new() -> list[str]:
            return [record.order.id async for record in ends.new()]

        none, ends = floor.orders.ends(), floor.orders.ends()
        await none.begin()  # before there is a log
        names = [f"wo-{n}" for n in range(10)]
        await orders.create([wish(name) for name in names])
        await close("wo-0")
        await ends.begin()
        assert await new() == []
        await close("wo-5", "wo-1")
        await orders.create([wish("wo-x"), wish("wo-y"), wish("wo-z")])
        await close("wo-z", "wo-x", "wo-2")
        assert await new() == ["wo-5", "wo-1", "wo-z", "wo-x", "wo-2"]
        for name in ("wo-0", "wo-1", "wo-z"):  # more is said of what has ended
            await orders.change(name, lambda _record: {"metadata": {"note": "well done"}})
        assert await new() == []
        told = [record.order.id async for record in none.new()]
        assert sorted(told) == ["wo-0", "wo-1", "wo-2", "wo-5", "wo-x", "wo-z"]
        await orders.create([wish("wo-w")])
        await close("wo-w", "wo-3", "wo-4")
        async for record in ends.new():  # who listens is called away, and comes back
            assert record.order.id == "wo-w"
            break
        await close("wo-y")
        assert [*await new(), *await new()] == ["wo-3", "wo-4", "wo-y"]


async def test_an_order_is_asked_for_without_writing_the_index(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is said of it meanwhile is told with it, whoever says it; the answers are those of the index."""
    monkeypatch.setattr(workdir, "LAG_S", 3600.0)  # nor does anybody write it by himself
    async with floor_in(tmp_path) as floor, floor_in(tmp_path) as beside, floor.session("ann") as ann:
        await floor.orders.create([wish(f"wo-{n}") for n in range(3)])
        await ann.claim(orders=["wo-0"])  # the first claim looks at all
        store = beside.store
        await store.query(Query(what="meta"))
        index = tmp_path / ".work" / "index.sqlite"
        [before] = asked(index, "SELECT value FROM meta WHERE key = 'offset'")
        orders = beside.orders
        await orders.change("wo-1", lambda _record: {"title": "Anew"})
        [claim] = await ann.claim(orders=["wo-1"])
        record = await orders.get("wo-1")
        assert (record.order.title, record.generation, record.state) == ("Anew", 2, State.RUNNING)
        [held] = await store.query(Query(what="held", order="wo-1"))
        assert (held["id"], held["generation"], held["attempt"]) == ("wo-1", 2, claim.attempt)
        wanted = Wanted(orders=("wo-1", "wo-2"))
        ready = await store.query(Query(what="ready", wanted=wanted))
        assert [row["id"] for row in ready] == ["wo-2"]
        few = [record, held, ready]
        assert asked(index, "SELECT value FROM meta WHERE key = 'offset'") == [before], "nothing had to be written"
        await store.query(Query(what="meta"))
        assert asked(index, "SELECT value FROM meta WHERE key = 'offset'") != [before]
        again = [await orders.get("wo-1"), (await store.query(Query(what="held", order="wo-1")))[0],
                 await store.query(Query(what="ready", wanted=wanted))]  # fmt: skip
        assert few == again


async def test_what_waits_for_another_is_not_claimed_by_its_name_too_early(tmp_path: Path) -> None:
    async with floor_in(tmp_path) as floor, floor.session("ann") as ann:
        await floor.orders.create([wish("wo-a"), wish("wo-b", depends_on=("wo-a",))])
        assert await ann.claim(orders=["wo-b"]) == []
        await ann.claim(orders=["wo-a"])
        await ann.finish("wo-a", text="42")
        assert [claim.id for claim in await ann.claim(orders=["wo-b"])] == ["wo-b"]


def asked(index: Path, question: str) -> list[int]:
    with contextlib.closing(sqlite3.connect(f"file:{index}?mode=ro", uri=True)) as db:
        return [row[0] for row in db.execute(question)]


async def test_claims_by_metadata_and_a_delay(tmp_path: Path) -> None:
    async with floor_in(tmp_path) as floor, floor.session("ann") as ann:
        kinds = {"wo-a": {"kind": "x"}, "wo-b": {"kind": "y"}, "wo-c": {}}
        await floor.orders.create([wish(name, extra={"metadata": meta}) for name, meta in kinds.items()])
        assert [c.id for c in await ann.claim(5, metadata={"kind": ["y", ""]})] == ["wo-b", "wo-c"]
        await ann.release("wo-b", "the wind", failed=True, delay_s=0.3)
        assert await ann.claim(5, without={"kind": ["x"]}) == []
        assert await ann.claim(5, orders=["wo-b"]) == []
        at = await floor.orders.changed(0, 0.0)
        async with asyncio.timeout(20):
            while not (again := await ann.claim(5, orders=["wo-b"])):
                assert await floor.orders.changed(at, 0.05) == at, "its time comes without any news"
        assert "the wind" in again[0].prompt
        await ann.release("wo-b", "ask somebody", aside="blocked")
        assert await ann.claim(5, orders=["wo-b"]) == []
        await floor.orders.change("wo-b", lambda _record: {"status": "open"})
        assert [c.id for c in await ann.claim(5, orders=["wo-b"])] == ["wo-b"]


async def test_changes_that_meet_are_all_made(tmp_path: Path) -> None:
    """Each change builds on the one before: none is lost, whichever program was faster."""
    async with floor_in(tmp_path) as one, floor_in(tmp_path) as other:
        await one.orders.create([wish("wo-a", instruction="0")])
        changes = [
            floor.orders.change("wo-a", lambda record: {"description": str(int(record.order.instruction) + 1)})
            for floor in (one, other) * 3
        ]
        await asyncio.gather(*changes)
        assert (await one.orders.get("wo-a")).order.instruction == "6"


async def test_a_change_that_may_not_be_is_refused_by_name(tmp_path: Path) -> None:
    async with floor_in(tmp_path) as floor, floor.session("ann") as ann:
        needs: dict[str, tuple[str, ...]] = {"wo-a": (), "wo-b": ("wo-a",), "wo-c": ("wo-b",)}
        await floor.orders.create([wish(name, depends_on=need) for name, need in needs.items()])
        with pytest.raises(UsageError, match="would wait for itself"):
            await floor.orders.change("wo-a", lambda _record: {"dependencies": ["wo-c"]})
        await ann.claim(1)
        with pytest.raises(Refused, match="description of 'wo-a' cannot be changed: the order is running"):
            await floor.orders.change("wo-a", lambda _record: {"description": "something else"})
        with pytest.raises(NotFound):
            await floor.orders.change("wo-z", lambda _record: {})
        with pytest.raises(UsageError, match="may be 3 orders"):
            await floor.orders.get("wo-")


async def test_news_of_others_is_heard(tmp_path: Path) -> None:
    async with floor_in(tmp_path) as one, floor_in(tmp_path) as other:
        await one.orders.create([wish("wo-a")])
        at = await other.orders.changed(0, 5.0)
        assert await other.orders.changed(at, 0.0) == at
        waiting = asyncio.create_task(other.orders.changed(at, 30.0))
        await one.orders.create([wish("wo-b")])
        async with asyncio.timeout(5):
            assert await waiting > at
