"""Fifty live sessions race for a thousand orders, by the controller's socket and directly."""

from __future__ import annotations

import asyncio
import statistics
import tempfile
from pathlib import Path

from benchmarks._race import Controller, Sessions, fill, sessions
from benchmarks.figures import Figure

SESSIONS = 50
ORDERS = 1_000
BAR = 2_000.0
"""claims a second"""
ONE_BY_ONE, BY_TENS = 1, 10


def run() -> list[Figure]:
    """Claims a second, how long one took, and how fair it was, each way."""
    figures = []
    for way in ("socket", "direct"):
        for limit in (ONE_BY_ONE, BY_TENS):
            with tempfile.TemporaryDirectory() as place:
                race = _by_socket if way == "socket" else _directly
                figures += asyncio.run(race(Path(place), limit))
    return figures


async def _by_socket(place: Path, limit: int) -> list[Figure]:
    controller = Controller(place / ".work")
    await controller.open(ORDERS)
    try:
        with await asyncio.to_thread(_Entered, "socket", place, limit) as racing:
            await asyncio.to_thread(_race, racing)
            return _figures("by the socket", limit, racing)
    finally:
        await controller.close()


async def _directly(place: Path, limit: int) -> list[Figure]:
    await fill(place / ".work", ORDERS)
    with _Entered("direct", place, limit) as racing:
        _race(racing)
        return _figures("directly", limit, racing)


class _Entered:
    """The sessions, ready: starting them blocks, and ends in the block that uses them."""

    def __init__(self, way: str, place: Path, limit: int) -> None:
        self._block = sessions(way, place / ".work", place / "acks", SESSIONS, limit)
        self._racing = self._block.__enter__()

    def __enter__(self) -> Sessions:
        return self._racing

    def __exit__(self, *_: object) -> None:
        self._block.__exit__(None, None, None)


def _race(racing: Sessions) -> None:
    racing.go()
    racing.wait()
    racing.end()


def _figures(way: str, limit: int, racing: Sessions) -> list[Figure]:
    acks = racing.acks()
    every = [ack for found in acks.values() for ack in found]
    assert len({ack.order for ack in every}) == len(every) == ORDERS, "an order was claimed twice, or by nobody"
    took = max(ack.at for ack in every) - min(ack.asked_at for ack in every)
    rate = len(every) / took
    counts = [len(found) for found in acks.values()]
    waits = sorted({(ack.asked_at, ack.at) for ack in every})
    p95 = statistics.quantiles([(b - a) * 1000 for a, b in waits], n=20)[-1]
    what = f"{SESSIONS} sessions {way}, {limit} at a time"
    return [
        Figure(
            name=f"{what}: claims", value=round(rate, 1), unit="/s", bar=f"{BAR:,g} /s", ratio=round(rate / BAR, 2),
            ok=rate >= BAR,
        ),
        Figure(name=f"{what}: one claim, p95", value=round(p95, 2), unit="ms"),
        Figure(name=f"{what}: most by mean of a session", value=round(max(counts) / statistics.mean(counts), 2)),
    ]  # fmt: skip
