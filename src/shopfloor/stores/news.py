"""What a reader of the log found that the index does not have yet, and how far either of them is."""

from __future__ import annotations

from itertools import islice

import msgspec

from shopfloor.domain.events import Event
from shopfloor.stores.scan import Found, Problem


class Mark(msgspec.Struct, frozen=True):
    """How far a log was taken in: bytes and lines, and the numbers that the next change needs."""

    offset: int = 0
    line: int = 0
    sequence: int = 0
    controller: int = 0
    events: int = 0
    last: int = 0
    """position behind the newest event that counts"""
    schema: int = 0


class News:
    """What a reader of the log found and the index does not have yet, from the offset ``begin`` on."""

    def __init__(self, begin: int = 0) -> None:
        self.begin = begin
        self.found: list[Found] = []
        self.problems: list[Problem] = []
        self.claims: dict[str, int] = {}
        """order -> greatest generation claimed for it"""
        self._about: dict[str, list[tuple[int, Event]]] = {}
        self._sorted = 0

    def about(self, order: str) -> list[tuple[int, Event]]:
        """What was found of an order, each with the position behind it."""
        for _start, end, event in islice(self.found, self._sorted, None):
            self._about.setdefault(event.order_id, []).append((end, event))
        self._sorted = len(self.found)
        return self._about.get(order, [])

    def __bool__(self) -> bool:
        """False: nothing."""
        return bool(self.found or self.problems)
