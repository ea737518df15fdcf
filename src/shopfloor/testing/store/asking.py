"""Cases: the answers of the derived index."""

from __future__ import annotations

from typing import Any

import msgspec

from shopfloor.domain.board import Board
from shopfloor.domain.events import SCHEMA, E
from shopfloor.domain.order import Record
from shopfloor.ports import Query, Store
from shopfloor.testing.store.bench import Bench, Case, everything


async def rows(store: Store, **conditions: Any) -> list[str]:
    """The ids of the orders that a query finds."""
    return [row["id"] for row in await store.query(Query(**conditions))]


async def an_order_is_found_by_what_people_type(bench: Bench) -> None:
    store = bench.open()
    for order, name in (("wo-abc1", "parser"), ("wo-abd2", "lexer"), ("wo-x3", "parser")):
        await store.append([bench.created(order, name=name)])
    assert await rows(store) == ["wo-abc1", "wo-abd2", "wo-x3"]
    assert await rows(store, order="wo-abd2") == ["wo-abd2"]
    assert await rows(store, order="parser") == ["wo-x3"], "the newest of that name"
    assert await rows(store, order="wo-ab") == ["wo-abc1", "wo-abd2"]
    assert await rows(store, order="lex") == ["wo-abd2"]
    assert await rows(store, order="nothing") == []


async def one_order_comes_with_its_record(bench: Bench) -> None:
    store = await bench.leader()
    await store.append([bench.created("wo-a1", name="one", run="run-1"), bench.claim("wo-a1", 1)])
    [row] = await store.query(Query(order="wo-a1"))
    record = row.pop("record")
    assert record["order"]["title"] == row["title"] == "title of wo-a1"
    assert record["attempts"][0]["id"] == "wo-a1.a1"
    assert [row] == await store.query(Query()), "without it where many are asked for"
    expected = {"name": "one", "run": "run-1", "state": "running", "agent": "robot", "generation": 1, "attempts": 1}
    assert {key: row[key] for key in expected} == expected
    assert (row["cost_usd"], row["reason"], row["commit"], row["merge"]) == (None, "", "", "")


async def orders_of_a_state_come_by_priority_and_age(bench: Bench) -> None:
    store = await bench.leader()
    await store.append([bench.created(f"wo-p{p}x{n}", priority=p) for n in range(3) for p in (3, 0, 2)])
    await store.append([bench.claim("wo-p0x1", 1)])
    ready = await rows(store, state="ready")
    assert ready == ["wo-p0x0", "wo-p0x2", *(f"wo-p{p}x{n}" for p in (2, 3) for n in range(3))]
    assert await rows(store, state="ready", limit=3) == ready[:3]
    assert await rows(store, state="running") == ["wo-p0x1"]


async def runs_count_their_orders(bench: Bench) -> None:
    store = await bench.leader()
    for run in ("run-1", "run-2"):
        await store.append([bench.event(E.RUN_STARTED, run, run_id=run, branch="main")])
        await store.append([bench.created(f"wo-{run}x{n}", run=run) for n in range(3)])
    await store.append([bench.claim("wo-run-1x0", 1)])
    await store.append([bench.event(E.RUN_FINISHED, "run-1")])
    found = {row["id"]: (row["state"], row["orders"]) for row in await store.query(Query(what="runs"))}
    assert found == {"run-1": ("finished", {"ready": 2, "running": 1}), "run-2": ("running", {"ready": 3})}
    assert [row["id"] for row in await store.query(Query(what="runs", limit=1))] == ["run-2"]
    assert await rows(store, run="run-2", limit=2) == ["wo-run-2x0", "wo-run-2x1"]


async def the_history_of_an_order(bench: Bench) -> None:
    store = await bench.leader()
    await store.append([bench.created("wo-a1", name="one"), bench.created("wo-b2"), bench.claim("wo-a1", 1)])
    history = await store.query(Query(what="events", order="one"))
    assert [row["event_type"] for row in history] == [E.CREATED, E.ASSIGNED]
    assert [(p, e.data) for p, e in await everything(store)][::2] == [(r["position"], r["data"]) for r in history]
    newest = await store.query(Query(what="events", limit=2))
    assert [row["data"]["work_order_id"] for row in newest] == ["wo-b2", "wo-a1"]


async def _what_others_wrote_is_found(bench: Bench, store: Store, other: Store) -> None:
    """Also between what the leading store wrote, which is left out."""
    start = [position async for position, _ in store.read()][-1]
    assert not await store.wait(start, 0.0, others=True)
    position = start
    found: list[str] = []
    for n in range(1, 25):
        await store.append([bench.created(f"wo-o{n}"), bench.created(f"wo-p{n}")])
        if n % 3 == 0:
            assert not await store.wait(position, 0.0, others=True), "nobody else has written"
            await other.append([bench.created(f"wo-t{n}") for _ in range(n % 2 + 1)])
            assert await store.wait(position, 0.0, others=True)
        async for place, event in store.read(position, others=True):
            position, found = place, [*found, event.order_id]
    theirs = [f"wo-t{n}" for n in range(3, 25, 3) for _ in range(n % 2 + 1)]
    assert [order for order in found if order in theirs] == theirs, "each once, and in their order"


async def _orders_of_no_run_are_followed(bench: Bench, store: Store, other: Store) -> None:
    await store.append([bench.event(E.RUN_STARTED, "run-1", run_id="run-1"), bench.created("wo-r", run="run-1")])
    await store.append([bench.created("wo-b"), bench.created("wo-a")])
    assert (await _loose(other, 0))[-2:] == ["wo-b", "wo-a"]
    [row] = await other.query(Query(what="loose"))
    assert await _loose(other, row["position"]) == []
    await store.append([bench.claim("wo-a", 1), bench.created("wo-c"), bench.claim("wo-r", 1)])
    assert await _loose(other, row["position"]) == ["wo-a", "wo-c"]
    [new] = await other.query(Query(what="loose", after=row["position"]))
    assert msgspec.json.decode(new["records"][0], type=Record).generation == 1
    assert (new["log"], await _loose(other, new["position"])) == (row["log"], [])
    await store.append([bench.event(E.SETTLED, "", order="wo-b", outcome="done")])
    await _orders_of_no_run_come_in_pieces(bench, store, other)


async def _orders_of_no_run_come_in_pieces(bench: Bench, store: Store, other: Store) -> None:
    """By when they last changed, finished or not; whoever goes on where a piece ended misses none."""
    assert (await _loose(other, 0, "finished"), (await _loose(other, 0, "unfinished"))[-2:]) == (
        ["wo-b"],
        ["wo-a", "wo-c"],
    )
    [whole] = await other.query(Query(what="loose"))
    assert whole["states"]["done"] == 1
    assert sum(whole["states"].values()) == len(whole["records"])
    assert (sorted(whole["ages"]), whole["newest"]) == (whole["ages"], whole["ages"][-1])
    urgent = Query(what="loose", limit=2, urgent=True, state="unfinished")
    [row] = await other.query(urgent)
    assert row["ages"] == (await _ages(other, "unfinished"))[:2], "of the same priority the oldest first"
    await store.append([bench.event(E.UPDATED, "", work_order_id="wo-c", changes={"priority": 0})])
    [row] = await other.query(urgent)
    assert row["ages"] == [(await _ages(other, "unfinished"))[-1], *(await _ages(other, "unfinished"))[:1]]
    assert await _loose(other, 0, "done") == ["wo-b"]
    found: list[str] = []
    position, size, most = 0, 3, 3
    while size == most:
        [row] = await other.query(Query(what="loose", after=position, limit=most))
        size, position = len(row["records"]), row["position"]
        found += [msgspec.json.decode(text, type=Record).order.id for text in row["records"]]
        if not found[3:]:
            await store.append([bench.claim(found[0], 1)])  # it is told again, as it changed again
    assert position == [place async for place, _ in store.read()][-1]
    assert (found[-1], set(found), len(found)) == (found[0], set(await _loose(other, 0)), len(whole["records"]) + 1)


async def answers_are_as_new_as_the_log(bench: Bench) -> None:
    store, other = await bench.leader(), bench.open()
    for n in range(1, 30):
        await (store if n % 2 else other).append([bench.created(f"wo-{n}a")])
        assert [len(await rows(one)) for one in (store, other)] == [n, n]
    await _what_others_wrote_is_found(bench, store, other)
    await _orders_of_no_run_are_followed(bench, store, other)


async def the_log_speaks_of_itself(bench: Bench) -> None:
    store = await bench.leader()
    await store.append([bench.created("wo-a1"), bench.created("wo-b2")])
    [meta] = await bench.open().query(Query(what="meta"))
    assert (meta["schema"], meta["controller"], meta["events"], meta["orders"]) == (SCHEMA, 1, 4, {"ready": 2})
    assert meta["position"] == (await everything(store))[-1][0]
    assert meta["problems"] == []
    assert meta["alive"]["pid"] > 0


async def a_board_is_the_fold_of_the_log(bench: Bench) -> None:
    store = await bench.leader()
    for run in ("run-1", "run-2", "run-3"):
        await store.append([bench.event(E.RUN_STARTED, run, run_id=run)])
        await store.append([bench.created(f"wo-{run}x{n}", run=run) for n in range(2)])
    for order in ("wo-run-1x0", "wo-run-1x1"):
        await store.append([bench.event(E.SETTLED, "run-1", order=order, outcome="done")])
    await store.append([bench.event(E.RUN_FINISHED, "run-1"), bench.claim("wo-run-2x1", 1)])
    whole = Board()
    async for position, event in store.read():
        last = position
        whole.apply(event)
    [row] = await store.query(Query(what="board"))
    assert (row["position"], row["board"].absent) == (last, set())
    assert (row["board"].records, row["board"].runs) == (whole.records, whole.runs)
    parts: list[dict[str, Any]] = [{"state": "open"}, {"run": "run-1"}, {"order": "wo-run-2x1"}]
    for conditions in parts:
        [row] = await store.query(Query(what="board", **conditions))
        board = row["board"]
        assert board.records.items() <= whole.records.items(), "a part, and nothing else"
        here = set(board.runs) - board.absent
        assert [board.runs[run] for run in here] == [whole.runs[run] for run in here]
        assert {"run-2", "run-3"} <= here or "state" not in conditions
        assert "run-1" in here or "run" not in conditions
        assert "wo-run-2x1" in board.records or "order" not in conditions
    board.records.clear()
    [row] = await store.query(Query(what="board"))
    assert row["board"].records == whole.records, "a board is the caller's own"


async def _loose(store: Store, after: int, state: str = "") -> list[str]:
    [row] = await store.query(Query(what="loose", after=after, state=state))
    return [msgspec.json.decode(text, type=Record).order.id for text in row["records"]]


async def _ages(store: Store, state: str) -> list[int]:
    [row] = await store.query(Query(what="loose", state=state))
    ages: list[int] = row["ages"]
    return ages


CASES: tuple[Case, ...] = (
    an_order_is_found_by_what_people_type,
    one_order_comes_with_its_record,
    orders_of_a_state_come_by_priority_and_age,
    runs_count_their_orders,
    the_history_of_an_order,
    answers_are_as_new_as_the_log,
    the_log_speaks_of_itself,
    a_board_is_the_fold_of_the_log,
)
