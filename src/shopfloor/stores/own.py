"""Which parts of a log this store wrote itself, so that it need not read them to learn what others wrote."""

from __future__ import annotations

from bisect import bisect_right


class Own:
    """Parts of one log, in bytes, in their order. Written by one thread, and read by another."""

    def __init__(self) -> None:
        self._parts: list[tuple[int, int]] = []

    def add(self, start: int, end: int) -> None:
        """One more part, behind all others."""
        if self._parts and self._parts[-1][1] == start:
            self._parts[-1] = (self._parts[-1][0], end)
        else:
            self._parts.append((start, end))

    def beyond(self, position: int) -> int:
        """The end of the part that begins at or before a position and ends behind it; else the position."""
        place = bisect_right(self._parts, position, key=lambda part: part[0]) - 1
        return max(position, self._parts[place][1]) if place >= 0 else position

    def next_after(self, position: int, until: int) -> int:
        """Where the next part behind a position begins, at most ``until``."""
        place = bisect_right(self._parts, position, key=lambda part: part[0])
        return min(until, self._parts[place][0]) if place < len(self._parts) else until
