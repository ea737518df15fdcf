"""What the cases work with: a folder, stores on it, words to make events with."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path
from typing import Any, Protocol

from shopfloor.domain.board import creation
from shopfloor.domain.errors import ShopfloorError
from shopfloor.domain.events import E, Event, stamp_time
from shopfloor.domain.order import Order
from shopfloor.ports import Clock, Store

SOON_S = 10.0
"""Longest time that something which happens at once may take on a busy machine."""


class OpenStore(Store, Protocol):
    """A store that can be closed."""

    async def close(self) -> None:
        """Let go of everything."""
        ...


@dataclass(frozen=True, kw_only=True)
class Subject:
    """The store to be held to the port."""

    make: Callable[[Path, Clock], OpenStore]
    depose: Callable[[Path], None]


class FixedClock:
    """A clock that shows what it is set to, in seconds."""

    def __init__(self, wall: float = 1_767_700_800.0) -> None:
        self.now = wall

    def wall(self) -> float:
        """Wall seconds since the epoch."""
        return self.now

    def awake(self) -> float:
        """Seconds since some start."""
        return self.now


@dataclass
class Bench:
    """One folder, the stores that were opened on it, and words to make events with."""

    subject: Subject
    folder: Path
    clock: FixedClock = field(default_factory=FixedClock)
    stores: list[OpenStore] = field(default_factory=list)
    numbers: count[int] = field(default_factory=lambda: count(1))

    def open(self) -> OpenStore:
        """One more store on the same log."""
        store = self.subject.make(self.folder, self.clock)
        self.stores.append(store)
        return store

    async def leader(self) -> OpenStore:
        """A store that leads."""
        store = self.open()
        await store.lead({})
        return store

    def event(self, event_type: str = "note.taken", run: str | None = None, **data: Any) -> Event:
        """A new event; ``order`` in ``data`` becomes ``work_order_id``."""
        if "order" in data:
            data = {"work_order_id": data.pop("order"), **data}
        self.clock.now += 1.0
        moment = stamp_time(self.clock.now)
        return Event(f"evt-{next(self.numbers):012}", event_type, moment, "human", run, data)

    def created(self, order: str, *, name: str = "", priority: int = 2, run: str = "") -> Event:
        """The event that creates an order."""
        wish = Order(id=order, name=name or order, title=f"title of {order}", priority=priority)
        return self.event(E.CREATED, run or None, **creation(wish))

    def claim(self, order: str, generation: int) -> Event:
        """The event by which an attempt takes an order."""
        return self.event(
            E.ASSIGNED, order=order, generation=generation, attempt=f"{order}.a{generation}", agent="robot"
        )


class Case(Protocol):
    """One thing that every store does; its name says which."""

    __name__: str

    def __call__(self, bench: Bench) -> Awaitable[None]:
        """Raises AssertionError when this store does not."""
        ...


async def everything(store: Store, after: int = 0) -> list[tuple[int, Event]]:
    """All that a store has behind a position, without the events that a store writes by itself."""
    own = (E.LOG_OPENED, E.CONTROLLER_STARTED)
    return [(position, event) async for position, event in store.read(after) if event.event_type not in own]


async def types(store: Store) -> list[str]:
    """The types of all events, in order."""
    return [event.event_type for _, event in await everything(store)]


async def error_of(work: Awaitable[object], kind: type[ShopfloorError]) -> ShopfloorError:
    """The error that an action must raise."""
    [answer] = await asyncio.gather(work, return_exceptions=True)
    assert isinstance(answer, kind), f"no {kind.__name__} was raised, but there was {answer!r}"
    assert answer.message, "an error says what happened"
    return answer
