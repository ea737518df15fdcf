"""Claims and updates of the foreman's issues, by its tool, with ten thousand of them in the log."""

from __future__ import annotations

import asyncio
import os
import tempfile
import time
from collections.abc import Awaitable, Callable, Iterator, Sequence
from functools import partial
from itertools import chain
from pathlib import Path
from typing import NamedTuple

from benchmarks.figures import Figure
from shopfloor import Deliverable, Order, Shopfloor
from shopfloor.faces.foreman.tasks import Tasks
from shopfloor.faces.foreman.tool import IssueTool

STORED, FEW = 10_000, 1_000
CALLS, FEW_CALLS = 1_000, 200
WORKERS = 50
BAR = 500.0
"""calls a second"""
LOOK_BAR_MS = 50.0
"""all issues, when one has changed since the last look"""


class Rate(NamedTuple):
    """Of one kind of call."""

    per_second: float
    cpu_ms: float


def run() -> list[Figure]:
    """Calls a second of each kind, one after the other and from fifty workers of one process, and CPU for each.

    The baseline is the same with a tenth of the issues: a call is not to cost more because others are stored.
    """
    measured = []
    for stored, calls in ((FEW, FEW_CALLS), (STORED, CALLS)):
        with tempfile.TemporaryDirectory() as place:
            measured.append(asyncio.run(_measure(Path(place), stored, calls)))
    (few, few_looks), (many, looks) = measured
    with tempfile.TemporaryDirectory() as place:
        bare = Figure(name="one line written and synced, without us", value=round(_bare(Path(place)), 1), unit="/s")
    return [
        bare,
        *chain.from_iterable(_figures(what, many[what], few[what]) for what in many),
        *_of_looks(looks, few_looks),
    ]


async def _measure(place: Path, stored: int, calls: int) -> tuple[dict[str, Rate], tuple[float, float]]:
    found = {}
    async with Shopfloor.open(place, without_git=True) as floor:
        ids = await _fill(floor, stored)
        tools = [IssueTool(Tasks(floor, f"worker-{n}")) for n in range(WORKERS)]
        turn = iter(ids)
        looks = await _look(tools[0], ids[-1])
        for how, some in (("one after the other", tools[:1]), (f"{WORKERS} workers", tools)):
            held = [next(turn) for _ in range(calls)]
            found[f"update, {how}"] = await _rate(_each(some, "update", iter(held), calls, comment="so far"))
            found[f"claim, {how}"] = await _rate(_each(some, "claim", iter(held), calls))
            found[f"complete, {how}"] = await _rate(_each(some, "complete", iter(held), calls, result="done"))
        found[f"create, {WORKERS} workers"] = await _rate(_each(tools, "create", turn, calls, title="one more"))
        for tool in tools:
            await tool.tasks.end()
    return found, looks


def _bare(place: Path) -> float:
    """What the disk lets anybody write durably one after the other, in a second."""
    descriptor = os.open(place / "lines", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    try:
        began = time.perf_counter()
        for _ in range(FEW_CALLS):
            os.write(descriptor, b"x" * 500 + b"\n")
            os.fdatasync(descriptor)
        return FEW_CALLS / (time.perf_counter() - began)
    finally:
        os.close(descriptor)


async def _look(tool: IssueTool, name: str) -> tuple[float, float]:
    """Milliseconds of the first look at all issues, and of the next one, after a change."""
    began = time.perf_counter()
    await tool.tasks.all()
    first = time.perf_counter() - began
    await tool.tasks.update(name, comment="so far")
    began = time.perf_counter()
    await tool.tasks.all()
    return first * 1000, (time.perf_counter() - began) * 1000


async def _fill(floor: Shopfloor, stored: int) -> list[str]:
    wishes = [
        Order(
            id="", name="", title=f"number {n}", instruction="do it " * 20, deliverable=Deliverable.ANSWER,
            priority=n % 5, extra={"metadata": {"category": "coding"}},
        )
        for n in range(stored)
    ]  # fmt: skip
    return [order.id for order in await floor.orders.create(wishes)]


def _each(
    tools: Sequence[IssueTool], operation: str, ids: Iterator[str], count: int, **params: str
) -> list[Callable[[], Awaitable[int]]]:
    """The calls of each tool, one after the other."""
    shares: list[list[str]] = [[] for _ in tools]
    for number in range(count):
        shares[number % len(tools)].append(next(ids))

    async def calls(tool: IssueTool, names: Sequence[str]) -> int:
        for name in names:
            about = {} if operation == "create" else {"issue_id": name}
            result = await tool.execute({"operation": operation, **about, **params})
            assert result.success, result.error
        return len(names)

    return [partial(calls, tool, names) for tool, names in zip(tools, shares, strict=True)]


async def _rate(calls: Sequence[Callable[[], Awaitable[int]]]) -> Rate:
    cpu, began = time.process_time(), time.perf_counter()
    made = sum(await asyncio.gather(*(call() for call in calls)))
    took, spent = time.perf_counter() - began, time.process_time() - cpu
    return Rate(made / took, spent / made * 1000)


def _figures(what: str, many: Rate, few: Rate) -> list[Figure]:
    return [
        Figure(
            name=f"{what}, {STORED:,} stored", value=round(many.per_second, 1), unit="/s", bar=f"{BAR:,g} /s",
            baseline=round(few.per_second, 1), ratio=round(many.per_second / few.per_second, 2),
            ok=many.per_second >= BAR,
        ),
        Figure(
            name=f"{what}: CPU for each", value=round(many.cpu_ms, 3), unit="ms", baseline=round(few.cpu_ms, 3),
            ratio=round(many.cpu_ms / few.cpu_ms, 2),
        ),
    ]  # fmt: skip


def _of_looks(many: tuple[float, float], few: tuple[float, float]) -> list[Figure]:
    (first, again), (few_first, few_again) = many, few
    return [
        Figure(name=f"first look at all {STORED:,}", value=round(first, 1), unit="ms", baseline=round(few_first, 1)),
        Figure(
            name="the next look, one has changed", value=round(again, 1), unit="ms", bar=f"{LOOK_BAR_MS:g} ms",
            baseline=round(few_again, 1), ratio=round(again / few_again, 2), ok=again <= LOOK_BAR_MS,
        ),
    ]  # fmt: skip
