"""What other programs want, as events of the log."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from shopfloor.domain.events import E
from shopfloor.stores.sheet import Complaint, Wish

MOST_COMPLAINTS = 20
"""lines that are named in one report"""

FILE = "work_orders.jsonl"

Told = tuple[E, dict[str, Any]]


def changes_of(wishes: Iterable[Wish], kept: str) -> Iterator[tuple[list[Told], Mapping[str, int]]]:
    """For each order the events of one change, and the generation that it builds on."""
    for wish in wishes:
        events: list[Told] = []
        about: dict[str, Any] = {"work_order_id": wish.order, "source": FILE}
        generation = max(0, wish.generation)
        if wish.creation:
            events.append((E.CREATED, {**wish.creation, "source": FILE}))
        if wish.changes:
            fence = {"generation": generation + 1} if wish.fenced else {}
            events.append((E.UPDATED, {**about, "changes": wish.changes, **fence}))
        if wish.refused:
            events.append((E.VIEW_COLLISION, {**about, "refused": wish.refused, "kept": kept}))
        yield events, {wish.order: generation}


def complaint_of(complaints: Sequence[Complaint]) -> dict[str, Any]:
    """The data of one report about lines that no order can be made of."""
    first = complaints[0]
    more = f" (and {len(complaints) - 1} more)" if len(complaints) > 1 else ""
    return {
        "source": FILE,
        "message": f"{FILE} line {first.line}: {first.what}: {first.value}{more}; the line is kept as it is",
        "lines": [{"line": c.line, "what": c.what, "value": c.value} for c in complaints[:MOST_COMPLAINTS]],
    }
