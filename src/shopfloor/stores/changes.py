"""What every store does with a change: its stamp, the claims it builds on, the events that the store itself tells."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from itertools import chain
from pathlib import Path
from typing import Any

import msgspec

from shopfloor.domain.errors import Conflict, Led, Refused, ShopfloorError
from shopfloor.domain.events import SCHEMA, E, Event, Stamp, stamp_time
from shopfloor.domain.fold import by_session
from shopfloor.domain.holder import holder_in
from shopfloor.domain.names import base36
from shopfloor.ports import CONTROLLER, Clock


class Change(msgspec.Struct):
    """One call of append on its way, and what became of it."""

    events: Sequence[Event]
    expect: Mapping[str, int] = msgspec.field(default_factory=dict)
    foreign: bool = False
    """it says what another program wants: never with a controller's stamp"""
    stamped: list[Event] = msgspec.field(default_factory=list)
    at_most: int = 0
    """not 0: the events are alternatives, each of the order at its place in ``expect``; so many of them are wanted"""
    parts: list[tuple[int, list[Event]]] = msgspec.field(default_factory=list)
    """what was to be written of it: where each part ends, and its events"""
    error: ShopfloorError | None = None
    done: bool = False
    """it is durable"""


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


def superseded(own: int, newer: int) -> Led:
    """The error of a controller that is no longer the one."""
    return Led(
        f"controller {own} may not write any more: controller {newer} has started", hint="type: shopfloor status"
    )


def check_schema(path: Path, schema: int) -> None:
    """Raise Refused for a log that a newer version has begun."""
    if schema > SCHEMA:
        raise Refused(
            f"{str(path)!r} has schema {schema}, this version writes schema {SCHEMA}",
            hint="type: pip install --upgrade shopfloor",
        )


def check_untold(order: str, told: Collection[str]) -> None:
    """Raise Conflict for an order of which somebody has said something that is not decoded yet."""
    if order in told:
        raise Conflict(f"order {order!r} was just changed by somebody else", hint=f"type: shopfloor show {order}")


def check_generation(order: str, expected: int, actual: int) -> None:
    """Raise Conflict when an order is not at the generation that a change builds on."""
    if expected != actual:
        raise Conflict(
            f"order {order!r} is at generation {actual}, not {expected}: somebody else was first",
            hint=f"type: shopfloor show {order}",
        )


def check_session(events: Sequence[Event], expect: Mapping[str, int], *, alive: Callable[[], bool]) -> None:
    """Raise Conflict for what a session says by itself while a controller is ``alive``, which alone decides then.

    Such a change says what it builds on: raises Refused when it does not, because nothing else keeps two apart.
    """
    spoken = [event for event in events if by_session(event)]
    if not spoken:
        return
    if alive():
        raise Led("a controller is at work: it decides who claims what", hint="ask it by its socket")
    if CONTROLLER not in expect or any(event.order_id not in expect for event in spoken):
        raise Refused("a session's change has to say what it expects of each order, and of the controller")


def check_controller(expected: int, actual: int) -> None:
    """Raise Conflict when a controller has led since the change was decided on."""
    if expected != actual:
        raise Led(f"controller {actual} has led since: what was to be changed may be different now", hint="look again")


def check_expected(
    expect: Mapping[str, int],
    controller: int,
    known: Mapping[str, int],
    claims: Mapping[str, int],
    told: Collection[str],
) -> None:
    """Raise Conflict where anything is not as a change expects it.

    ``known`` are the generations of orders in the log, ``claims`` those of this very write, ``told`` orders of which
    somebody has said something that is not decoded yet.
    """
    for order, generation in expect.items():
        if order == CONTROLLER:
            check_controller(generation, controller)
            continue
        check_untold(order, told)
        check_generation(order, generation, max(claims.get(order, 0), known.get(order, 0)))


def alternatives(change: Change, *, free: Callable[[str, int], bool]) -> Iterator[Change]:
    """The changes of which some are wanted, those whose order is ``free``; one that offers no choice is its own.

    Where none is free that is the first one, so that there is something whose refusal says why.
    """
    if not change.at_most:
        yield change
        return
    common = {CONTROLLER: change.expect[CONTROLLER]} if CONTROLLER in change.expect else {}
    # No more of them are looked at than needed: there may be a thousand.
    orders = enumerate(item for item in change.expect.items() if item[0] != CONTROLLER)
    found = ((place, order, generation) for place, (order, generation) in orders if free(order, generation))
    first = next(iter(item for item in change.expect.items() if item[0] != CONTROLLER))
    for place, order, generation in chain([next(found, (0, *first))], found):
        yield Change([change.events[place]], {**common, order: generation})


def of_session(change: Change) -> bool:
    """True when a session says all of it: nobody else offers a choice."""
    return change.at_most > 0 or all(map(by_session, change.events))


def may_wait(change: Change) -> bool:
    """True when a process that lives on says all of it: the views need not have it before the call returns."""
    return of_session(change) or all(holder_in(event.data) is not None for event in change.events)
