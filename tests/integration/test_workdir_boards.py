"""A board from the index is the fold of the log, whole or in part, however often the index was kept on the way."""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Iterator
from contextlib import closing
from functools import partial
from pathlib import Path
from random import Random
from typing import Any

import msgspec
import pytest

from shopfloor.cli import peek
from shopfloor.cli.glance import text
from shopfloor.cli.status import choose, glance
from shopfloor.cli.words import screen
from shopfloor.domain.board import Board, at_rest, creation
from shopfloor.domain.events import E, Event
from shopfloor.domain.floor import Floor, Now
from shopfloor.domain.order import Deliverable, Order
from shopfloor.ports import Query
from shopfloor.stores.workdir import WorkdirStore

from .workdir import event, open_store

RUNS, ORDERS, CHANGES = 5, 12, 160
LANDS = ("auto", "auto", "review", "off")


class Story:
    """Random changes of a log that mostly make sense."""

    def __init__(self, seed: int) -> None:
        self.random = Random(seed)
        self.orders: list[str] = []
        self.runs: list[str] = []
        self.generation: dict[str, int] = {}

    def changes(self) -> Iterator[list[Event]]:
        for number in range(RUNS):
            yield self.begins(f"run-{number}")
            for _ in range(CHANGES // RUNS):
                yield [self.happens()]
            if number < RUNS - 1 and self.random.random() < 0.8:
                yield from self.ends(f"run-{number}")

    def begins(self, run: str) -> list[Event]:
        self.runs.append(run)
        first = len(self.orders)
        made = [self.order(run, first + n, first) for n in range(ORDERS)]
        started = {"run_id": run, "land": self.random.choice(LANDS), "branch": "main", "checks": ["true"]}
        return [told(E.RUN_STARTED, run, **started), *(told(E.CREATED, run, **creation(o)) for o in made)]

    def order(self, run: str, number: int, first: int) -> Order:
        pick = self.random
        earlier = self.orders[first:] if pick.random() < 0.9 else self.orders
        needs = tuple(pick.sample(earlier, min(len(earlier), pick.choice([0, 0, 1, 2]))))
        files = tuple(pick.sample(["a.py", "src/b.py", "src", "src/c/d.py", "."], pick.choice([0, 0, 1, 1, 2])))
        kind = Deliverable.ANSWER if pick.random() < 0.2 else Deliverable.CHANGE
        self.orders.append(f"wo-{number:04}")
        return Order(
            id=f"wo-{number:04}", name=f"o{number % 30}", title="t", run=run, depends_on=needs, files=files,
            deliverable=kind,
        )  # fmt: skip

    def happens(self) -> Event:
        pick = self.random
        order = pick.choice(self.orders[-ORDERS:] if pick.random() < 0.9 else self.orders)
        now = self.generation.get(order, 0)
        run = f"run-{self.orders.index(order) // ORDERS}"
        data: dict[str, Any] = {"work_order_id": order, "generation": now}
        what = pick.choice([*_HAPPENS, *_OFTEN])
        if what == E.ASSIGNED:
            self.generation[order] = now + 1
            return told(what, run, work_order_id=order, generation=now + 1, attempt=f"{order}.a{now + 1}", base="b")
        if what == E.RUN_STARTED:
            return told(what, pick.choice(self.runs), run_id=pick.choice(self.runs), land=pick.choice(LANDS))
        if what == E.UPDATED and now == 0:  # later it would be a wish that is only told
            needs = self.orders[: self.orders.index(order)][-2:]
            return told(what, run, work_order_id=order, changes={"dependencies": pick.choice([needs, []])})
        if what == E.REQUEST:
            return event(what, work_order_id=order, verb="stop")
        return told(what, run, **data, **{key: pick.choice(values) for key, values in _SAYS.get(what, {}).items()})

    def ends(self, run: str) -> Iterator[list[Event]]:
        for place, order in enumerate(self.orders):
            if place // ORDERS == int(run[4:]):
                stop = {"work_order_id": order, "generation": self.generation.get(order, 0), "outcome": "completed"}
                yield [
                    told(E.AGENT_STOPPED, run, **stop, cost_usd=0.1),
                    told(E.SETTLED, run, work_order_id=order, outcome=self.random.choice(["done", "failed"])),
                ]
        yield [told(E.RUN_FINISHED, run, run_id=run)]


_SAYS: dict[str, dict[str, list[Any]]] = {
    E.AGENT_STARTED: {"handle": [{"pid": 1}]},
    E.AGENT_USAGE: {"cost_usd": [0.1, 0.7, 1.3]},
    E.AGENT_ASKED: {"question": ["why?"]},
    E.AGENT_STOPPED: {"outcome": ["completed", "completed", "error"], "commit": ["c"], "cost_usd": [None, 0.25]},
    E.VERIFY_VERDICT: {"verdict": ["PASS", "PASS", "FAIL"], "commit": ["c"]},
    E.LANDING_LANDED: {"commit": ["m"], "passed": [["true"]]},
    E.RETRIED: {"kind": ["manual", "transient"], "delay_s": [0.0, 1e9]},
    E.SETTLED: {"outcome": ["done", "failed", "cancelled"], "reason": ["dependency", None]},
    E.HANDLED: {"verb": ["accept", "stop", "pause", "resume"], "result": ["ok"]},
}
_OFTEN = [*(2 * [E.ASSIGNED]), E.AGENT_STOPPED, E.VERIFY_VERDICT, *(4 * [E.UPDATED])]
_HAPPENS = [*_SAYS, E.VERIFY_STARTED, E.LANDING_STARTED, E.RUN_STARTED, E.REQUEST, E.AGENT_WORKING, E.UPDATED]


def told(kind: str, run: str, /, **data: Any) -> Event:
    return msgspec.structs.replace(event(kind, **data), correlation_id=run)


async def write(store: WorkdirStore, seed: int) -> Story:
    """The index is brought up to date now and then, as it is in life, so that it is kept in many steps."""
    story = Story(seed)
    await store.lead({})
    async with open_store(store.folder) as other:  # edits are nothing that a controller says
        for change in story.changes():
            await (other if change[0].event_type == E.UPDATED else store).append(change)
            if story.random.random() < 0.2:
                await store.query(Query(limit=1))
    return story


async def folded(store: WorkdirStore) -> Board:
    board = Board()
    async for _, found in store.read():
        board.apply(found)
    return board


async def taken(store: WorkdirStore, **conditions: Any) -> Board:
    (row,) = await store.query(Query(what="board", **conditions))
    board = row["board"]
    assert isinstance(board, Board)
    return board


def plain(board: Board, runs: set[str] | None = None) -> dict[str, Any]:
    """Everything that a board says, of all runs or of some."""
    kept = set(board.runs) | {""} if runs is None else runs
    return {
        **{name: value for name, value in vars(board).items() if name not in ("records", "runs", "absent")},
        "records": [(o, msgspec.to_builtins(r)) for o, r in board.records.items() if r.order.run in kept],
        "runs": [(name, msgspec.to_builtins(run)) for name, run in board.runs.items() if name in kept],
    }


SEEDS = range(6)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / ".work"


@pytest.mark.parametrize("seed", SEEDS)
async def test_whole_it_is_the_fold_of_the_log(folder: Path, seed: int) -> None:
    async with open_store(folder) as store:
        await write(store, seed)
        want = plain(await folded(store))
        assert plain(await taken(store)) == want
    for path in folder.glob("index.sqlite*"):
        path.unlink()
    async with open_store(folder) as store:
        assert plain(await taken(store)) == want, "made anew in one go"


@pytest.mark.parametrize("seed", SEEDS)
async def test_in_part_it_says_the_same_of_what_it_has(folder: Path, seed: int) -> None:
    async with open_store(folder) as store:
        await write(store, seed)
        whole = await folded(store)
        board = await taken(store, state="open")
        here = set(board.runs) - board.absent
        assert plain(board, here) == plain(whole, here)
        for run in board.absent:
            assert whole.runs[run].finished_at is not None
            assert all(at_rest(whole.records[order], whole.runs[run]) for order in whole.runs[run].orders)
        unfinished = whole.unfinished()
        assert (board.unfinished() is None) == (unfinished is None)
        for run in sorted(board.absent):
            board.join(await taken(store, run=run))
        assert board.absent == set()
        key = sorted(board.records)
        assert key == sorted(whole.records)
        assert [board.records[o] for o in key] == [whole.records[o] for o in key]
        assert board.runs == whole.runs


@pytest.mark.parametrize("seed", SEEDS)
async def test_one_order_comes_with_all_that_keeps_it_from_starting(folder: Path, seed: int) -> None:
    async with open_store(folder) as store:
        story = await write(store, seed)
        whole = await folded(store)
        floors = {run: opened(whole, run) for run in whole.runs}
        waiting = 0
        for order in story.orders:
            board = await taken(store, order=order)
            assert board.records[order] == whole.records[order]
            run = whole.records[order].order.run
            part, full = opened(board, run), floors[run]
            if whole.records[order].state == "ready":
                assert part.plan.waits_for(order) == full.plan.waits_for(order)
                assert part.plan.held_by(order) == full.plan.held_by(order)
                waiting += bool(full.plan.waits_for(order) or full.plan.held_by(order))
        assert waiting, "or this shows nothing"


@pytest.mark.parametrize("seed", SEEDS)
async def test_the_quick_answer_is_that_of_the_fold(folder: Path, seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    async with open_store(folder) as store:
        await write(store, seed)
        board = await folded(store)
    monkeypatch.setattr(time, "time", lambda: 2e9)
    monkeypatch.setattr(peek, "_elsewhere", lambda _db, _run: False)
    newest = next(reversed(board.runs.values()))
    others = any(board.records[o].taken or board.records[o].collisions for o in newest.orders)
    expected = None if others else text(glance(board, newest, None), now=2e9, width=screen()[0])
    assert peek.answer(str(folder)) == expected
    assert choose(board) is not None


async def test_the_quick_answer_costs_the_same_in_a_long_run(tmp_path: Path) -> None:
    """Counted in steps of the database, which depend on nothing but the rows that it looks at."""
    steps = {}
    for orders in (50, 1_000):
        folder = tmp_path / str(orders)
        async with open_store(folder) as store:
            await store.lead({})
            made = [Order(id=f"wo-{n:04}", name=f"o{n}", title="t", run="run-0") for n in range(orders)]
            began = {"run_id": "run-0", "land": "auto", "branch": "main", "checks": []}
            await store.append([told(E.RUN_STARTED, "run-0", **began)])
            await store.append([told(E.CREATED, "run-0", **creation(order)) for order in made])
            await store.append([told(E.SETTLED, "run-0", work_order_id=o.id, outcome="done") for o in made[1:]])
            await store.query(Query(limit=1))
        counted: list[None] = []
        with closing(sqlite3.connect(f"file:{folder}/index.sqlite?mode=ro", uri=True)) as db:
            db.set_progress_handler(partial(counted.append, None), 10)
            found = peek._glance(db, str(folder))
        assert found is not None
        assert found.counts == {"ready": 1, "unchanged": orders - 1}
        steps[orders] = len(counted)
    assert steps[1_000] <= 2 * steps[50]


def opened(board: Board, run: str) -> Floor:
    floor = Floor()
    floor.board = board
    floor.open(run, Now(2e9, 0.0))
    return floor
