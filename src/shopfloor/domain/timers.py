"""Both clocks, and back-offs on the awake clock: once set, nothing that happens to the wall clock moves them."""

from __future__ import annotations

from collections.abc import Iterator
from heapq import heappop, heappush
from typing import NamedTuple


class Now(NamedTuple):
    """Both clocks, in seconds: wall time since the epoch, and awake time, which stands still during sleep."""

    wall: float
    awake: float


class Timers:
    """Who sleeps until when. Times are awake seconds."""

    def __init__(self) -> None:
        self._due: dict[str, tuple[object, float]] = {}
        self._asleep: set[str] = set()
        self._heap: list[tuple[float, str]] = []

    def sleeps(self, order: str, cause: object, delay_s: float, awake: float) -> bool:
        """True while an order sleeps for a cause. The first call for a cause sets the timer; later ones only look."""
        known = self._due.get(order)
        if known is None or known[0] != cause:
            self.forget(order)
            self._due[order] = (cause, awake + delay_s)
            if delay_s > 0.0:
                self._asleep.add(order)
                heappush(self._heap, (awake + delay_s, order))
        return order in self._asleep

    def is_asleep(self, order: str) -> bool:
        """True while an order sleeps, for whatever cause."""
        return order in self._asleep

    def forget(self, order: str) -> None:
        """It does not sleep any more, or has ended."""
        self._due.pop(order, None)
        self._asleep.discard(order)

    def wake(self, awake: float) -> Iterator[str]:
        """The orders whose time has come."""
        while (due := self.next()) is not None and due <= awake:
            order = heappop(self._heap)[1]
            self._asleep.discard(order)
            yield order

    def next(self) -> float | None:
        """When the next order wakes, or None."""
        while self._heap:
            due, order = self._heap[0]
            if order in self._asleep and self._due[order][1] == due:
                return due
            heappop(self._heap)
        return None
