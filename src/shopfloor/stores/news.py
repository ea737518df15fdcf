"""What a reader of the log found that the index does not have yet, and how far either of them is."""

from __future__ import annotations

from itertools import islice

import msgspec

from shopfloor.domain.events import E, Event
from shopfloor.stores.rows import claimed_generation, opened_schema, started_controller
from shopfloor.stores.scan import Found, Problem, Scanner

_MARKS = frozenset({E.CONTROLLER_STARTED, E.LOG_OPENED})


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

    def take(self, found: list[Found], scanner: Scanner, mark: Mark) -> Mark:
        """Add what a scanner found behind ``mark``, and what was wrong there; how far that is."""
        controller, schema, claims = mark.controller, mark.schema, self.claims
        for _start, _end, event in found:
            if event.event_type in _MARKS:
                controller = max(controller, started_controller(event))
                schema = max(schema, opened_schema(event))
            value = event.data.get("generation")
            if type(value) is int and value > claims.get(order := event.order_id, 0):
                claimed = claimed_generation(event, controller)
                if claimed:
                    claims[order] = claimed
        self.found += found
        self.problems += scanner.problems
        scanner.problems.clear()
        offset, line = scanner.clean
        sequence = max(mark.sequence, scanner.sequence)
        last = found[-1].end if found else mark.last
        return Mark(offset, line, sequence, controller, mark.events + len(found), last, schema)

    def about(self, order: str) -> list[tuple[int, Event]]:
        """What was found of an order, each with the position behind it."""
        for _start, end, event in islice(self.found, self._sorted, None):
            self._about.setdefault(event.order_id, []).append((end, event))
        self._sorted = len(self.found)
        return self._about.get(order, [])

    def __bool__(self) -> bool:
        """False: nothing."""
        return bool(self.found or self.problems)
