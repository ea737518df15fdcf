"""Claims and updates of the foreman's issues, by its tool, with ten thousand of them in the log."""

from __future__ import annotations

import asyncio
import tempfile
import time
from collections.abc import Awaitable, Callable, Iterator, Sequence
from functools import partial
from pathlib import Path

from benchmarks.figures import Figure
from shopfloor import Deliverable, Order, Shopfloor
from shopfloor.faces.foreman.tasks import Tasks
from shopfloor.faces.foreman.tool import IssueTool

STORED = 10_000
CALLS = 1_000
WORKERS = 50
BAR = 500.0
"""calls a second"""


def run() -> list[Figure]:
    """Calls a second of each kind, one after the other and from fifty workers of one process, and CPU for each."""
    with tempfile.TemporaryDirectory() as place:
        return asyncio.run(_measure(Path(place)))


async def _measure(place: Path) -> list[Figure]:
    figures = []
    async with Shopfloor.open(place, without_git=True) as floor:
        ids = await _fill(floor)
        tools = [IssueTool(Tasks(floor, f"worker-{n}")) for n in range(WORKERS)]
        turn = iter(ids)
        figures += await _rate("update, one after the other", _each(tools[:1], "update", turn, comment="so far"))
        figures += await _rate("update, 50 workers", _each(tools, "update", turn, comment="so far"))
        held = [next(turn) for _ in range(CALLS)]
        figures += await _rate("claim, one after the other", _each(tools[:1], "claim", iter(held)))
        figures += await _rate("complete, one after the other", _each(tools[:1], "complete", iter(held), result="done"))
        held = [next(turn) for _ in range(CALLS)]
        figures += await _rate("claim, 50 workers", _each(tools, "claim", iter(held)))
        figures += await _rate("complete, 50 workers", _each(tools, "complete", iter(held), result="done"))
        figures += await _rate("create, 50 workers", _each(tools, "create", turn, title="one more"))
        for tool in tools:
            await tool.tasks.end()
    return figures


async def _fill(floor: Shopfloor) -> list[str]:
    wishes = [
        Order(
            id="", name="", title=f"number {n}", instruction="do it " * 20, deliverable=Deliverable.ANSWER,
            priority=n % 5, extra={"metadata": {"category": "coding"}},
        )
        for n in range(STORED)
    ]  # fmt: skip
    return [order.id for order in await floor.orders.create(wishes)]


def _each(
    tools: Sequence[IssueTool], operation: str, ids: Iterator[str], **params: str
) -> list[Callable[[], Awaitable[None]]]:
    """The calls of each tool, one after the other."""
    shares: list[list[str]] = [[] for _ in tools]
    for number in range(CALLS):
        shares[number % len(tools)].append(next(ids))

    async def calls(tool: IssueTool, names: Sequence[str]) -> None:
        for name in names:
            about = {} if operation == "create" else {"issue_id": name}
            result = await tool.execute({"operation": operation, **about, **params})
            assert result.success, result.error

    return [partial(calls, tool, names) for tool, names in zip(tools, shares, strict=True)]


async def _rate(what: str, calls: Sequence[Callable[[], Awaitable[None]]]) -> list[Figure]:
    cpu, began = time.process_time(), time.perf_counter()
    await asyncio.gather(*(call() for call in calls))
    took, spent = time.perf_counter() - began, time.process_time() - cpu
    rate = CALLS / took
    return [
        Figure(
            name=f"{what}, {STORED:,} stored", value=round(rate, 1), unit="/s", bar=f"{BAR:,g} /s",
            ratio=round(rate / BAR, 2), ok=rate >= BAR,
        ),
        Figure(name=f"{what}: CPU for each", value=round(spent / CALLS * 1000, 3), unit="ms"),
    ]  # fmt: skip
