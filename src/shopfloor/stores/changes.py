"""What every store does with a change: its stamp, the claims it builds on, the events that the store itself tells."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import msgspec

from shopfloor.domain.errors import Conflict
from shopfloor.domain.events import E, Event, Stamp, stamp_time
from shopfloor.domain.names import base36
from shopfloor.ports import Clock


def own_event(
    event_type: E, data: dict[str, Any], *, clock: Clock, random: Callable[[int], bytes], actor: str = "system"
) -> Event:
    """An event that the store itself has to tell."""
    return Event(
        event_id=f"evt-{base36(random(8), 12)}",
        event_type=event_type,
        timestamp=stamp_time(clock.wall()),
        actor=actor,
        data=data,
    )


def stamp(events: Sequence[Event], controller: int, sequence: int) -> list[Event]:
    """The events of one logical change with its stamp."""
    size = len(events)
    stamps = [Stamp(controller, sequence, place, size) for place in range(size)]
    return [msgspec.structs.replace(event, sf=sf) for event, sf in zip(events, stamps, strict=True)]


def superseded(own: int, newer: int) -> Conflict:
    """The error of a controller that is no longer the one."""
    return Conflict(
        f"controller {own} may not write any more: controller {newer} has started", hint="type: shopfloor status"
    )


def check_generation(order: str, expected: int, actual: int) -> None:
    """Raise Conflict when an order is not at the generation that a change builds on."""
    if expected != actual:
        raise Conflict(
            f"order {order!r} is at generation {actual}, not {expected}: somebody else was first",
            hint=f"type: shopfloor show {order}",
        )
