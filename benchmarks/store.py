"""The store against its bars: durable appends, recovery, ready and claim. Run `python -m benchmarks.store`."""

from __future__ import annotations

import asyncio
import gc
import statistics
import sys
import tempfile
import time
from collections.abc import Coroutine
from pathlib import Path
from typing import Any

from shopfloor.domain.board import Board, creation
from shopfloor.domain.events import E, Event, stamp_time
from shopfloor.domain.order import Order
from shopfloor.ports import Query
from shopfloor.stores.workdir import WorkdirStore

Figure = dict[str, Any]
START_S = 1_767_700_800.0


class _Clock:
    def wall(self) -> float:
        return time.time()

    def awake(self) -> float:
        return time.monotonic()


def run() -> list[Figure]:
    """Every figure as ``{name, value, unit, bar, ratio}``; ``ratio`` is bar by value: 1 or more holds the bar."""
    figures: list[Figure] = []
    for measure in (_appends, _recovery):
        with tempfile.TemporaryDirectory() as place:
            figures += asyncio.run(measure(Path(place) / ".work"))
    for orders, bar_ms in ((10_000, 5.0), (100_000, 20.0)):
        with tempfile.TemporaryDirectory() as place:
            figures += asyncio.run(_claims(Path(place) / ".work", orders, bar_ms))
    return figures


async def _appends(folder: Path) -> list[Figure]:
    async with _open(folder) as store:
        await store.lead({})
        note = {"work_order_id": "wo-a1", "text": "x" * 120}
        single = [await _timed(store.append([_event("note.taken", note)])) for _ in range(500)]
        batches = [await _timed(_together(store, note)) / 50 for _ in range(40)]
        waits = await asyncio.gather(*(_appender(store, note) for _ in range(50)))
    latency = sorted(wait for appender in waits for wait in appender)
    return [
        _figure("durable append, one at a time, p50", statistics.median(single), "ms"),
        _figure("durable append, one at a time, p95", _p95(single), "ms"),
        _figure("durable append, 50 at once, amortised p50", statistics.median(batches), "ms"),
        _figure("durable append, 50 at once, amortised p95", _p95(batches), "ms", bar=1.0),
        _figure("durable append, 50 appenders, latency p50", statistics.median(latency), "ms"),
        _figure("durable append, 50 appenders, latency p95", _p95(latency), "ms"),
    ]


async def _together(store: WorkdirStore, note: dict[str, Any]) -> None:
    await asyncio.gather(*(store.append([_event("note.taken", note)]) for _ in range(50)))


async def _appender(store: WorkdirStore, note: dict[str, Any]) -> list[float]:
    return [await _timed(store.append([_event("note.taken", note)])) for _ in range(40)]


async def _recovery(folder: Path) -> list[Figure]:
    orders = 10_000
    async with _open(folder) as store:
        await store.lead({})
        for first in range(0, orders, 500):
            for order in (f"wo-n{number}" for number in range(first, first + 500)):
                await store.append(_life(order))
    figures = []
    for name, remove in (("with its index", False), ("without an index", True)):
        if remove:
            _forget_index(folder)
        gc.collect()
        async with _open(folder) as store:
            board = Board()
            value = await _timed(_recover(store, board))
            assert len(board.records) == orders
        figures.append(_figure(f"recovery of 100,000 events, {name}", value / 1000, "s", bar=2.0))
    return figures


def _forget_index(folder: Path) -> None:
    for path in folder.glob("index.sqlite*"):
        path.unlink()


async def _recover(store: WorkdirStore, board: Board) -> None:
    """As a controller begins, but with every order, also those at rest."""
    await store.lead({})
    (row,) = await store.query(Query(what="board"))
    board.records |= row["board"].records


async def _claims(folder: Path, orders: int, bar_ms: float) -> list[Figure]:
    async with _open(folder) as store:
        await store.lead({})
        for first in range(0, orders, 5_000):
            wishes = [_created(f"wo-n{number}") for number in range(first, first + 5_000)]
            await store.append(wishes)
        await store.query(Query(limit=1))
        store_only = [await _timed(_claim(store, f"wo-n{orders - 1 - number}")) for number in range(300)]
        with_query = [await _timed(_ready_and_claim(store)) for _ in range(300)]
    name = f"at {orders:,} orders".replace(",", " ")
    return [
        _figure(f"claim {name}, p95", _p95(store_only), "ms"),
        _figure(f"first 50 ready by the index and claim {name}, p50", statistics.median(with_query), "ms"),
        _figure(f"first 50 ready by the index and claim {name}, p95", _p95(with_query), "ms", bar=bar_ms),
    ]


async def _ready_and_claim(store: WorkdirStore) -> None:
    rows = await store.query(Query(state="ready", limit=50))
    await _claim(store, rows[0]["id"])


async def _claim(store: WorkdirStore, order: str) -> None:
    await store.append([_assigned(order)], expect={order: 0})


def _open(folder: Path) -> WorkdirStore:
    return WorkdirStore(folder, clock=_Clock())


_numbers = iter(range(1 << 60))


def _event(event_type: str, data: dict[str, Any], run: str | None = None) -> Event:
    number = next(_numbers)
    return Event(f"evt-{number:012}", event_type, stamp_time(START_S + number), "shopfloor", run, data)


def _created(order: str) -> Event:
    wish = Order(id=order, name=order, title=f"title of {order}", instruction="do what has to be done " * 4)
    return _event(E.CREATED, creation(wish), "run-1")


def _assigned(order: str) -> Event:
    data = {"work_order_id": order, "generation": 1, "attempt": f"{order}.a1", "agent": "robot"}
    return _event(E.ASSIGNED, data, "run-1")


def _life(order: str) -> list[Event]:
    """Ten events from creation to done."""
    base = {"work_order_id": order, "generation": 1, "attempt": f"{order}.a1"}
    rest: list[tuple[E, dict[str, Any]]] = [
        (E.WORKSPACE, {"path": f"/somewhere/{order}"}),
        (E.AGENT_STARTED, {"handle": {"driver": "command", "pid": 4711, "start_time": 1}}),
        (E.AGENT_USAGE, {"cost_usd": 0.01, "tokens_in": 1000, "tokens_out": 100, "steps": 3}),
        (E.AGENT_STOPPED, {"outcome": "completed", "commit": "c" * 40, "tree": "t" * 40, "files": ["a.py"]}),
        (E.VERIFY_STARTED, {"run": 1}),
        (E.VERIFY_VERDICT, {"verdict": "PASS", "commit": "c" * 40, "tree": "t" * 40}),
        (E.LANDING_LANDED, {"commit": "m" * 40, "observed": "m" * 40}),
        (E.SETTLED, {"outcome": "done"}),
    ]
    return [_created(order), _assigned(order), *(_event(kind, {**base, **data}, "run-1") for kind, data in rest)]


async def _timed(work: Coroutine[Any, Any, object]) -> float:
    """Milliseconds from its first step to its end."""
    begin = time.perf_counter()
    await work
    return (time.perf_counter() - begin) * 1000


def _p95(values: list[float]) -> float:
    return statistics.quantiles(values, n=20)[-1]


def _figure(name: str, value: float, unit: str, bar: float | None = None) -> Figure:
    ratio = None if bar is None else round(bar / value, 2)
    return {"name": name, "value": round(value, 3), "unit": unit, "bar": bar, "ratio": ratio}


def main() -> int:
    """Print the figures; 1 when a bar does not hold."""
    figures = run()
    for figure in figures:
        bar = "" if figure["bar"] is None else f"  bar {figure['bar']:g} {figure['unit']}, x {figure['ratio']:g}"
        print(f"{figure['name']:<62} {figure['value']:>9.3f} {figure['unit']}{bar}")
    return int(any(figure["ratio"] is not None and figure["ratio"] < 1 for figure in figures))


if __name__ == "__main__":
    sys.exit(main())
