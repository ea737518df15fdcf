"""How orders end, told one by one while the others are still under way."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncGenerator, Callable, Coroutine
from contextlib import suppress
from typing import Any, Protocol

import msgspec

from shopfloor.domain.events import Event, tells_end
from shopfloor.domain.floor import Floor
from shopfloor.domain.order import Deliverable, Order, Record, State
from shopfloor.domain.report import Report

# Named here once: on CPython 3.11 naming a member of an enumeration takes longer than to compare it.
_DONE, _ANSWER = State.DONE, Deliverable.ANSWER


class Outcome(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """The end of one order. Seconds and USD."""

    order: Order
    state: State
    """done, failed or cancelled"""
    reason: str = ""
    """why it is not done: ``error``, ``timeout``, ``lost``, ``dependency`` …"""
    text: str = ""
    """the answer, where it hands one back"""
    message: str = ""
    """why it is not done, in words"""
    data: dict[str, Any] = msgspec.field(default_factory=dict)
    """what its agent told with its end: which server, how long each step took"""
    cost_usd: float | None = None
    """of all its attempts; None: unpriced"""
    tries: int = 0
    took_s: float = 0.0
    """from the last claim to the end of that attempt"""

    @property
    def ok(self) -> bool:
        """True when it is done."""
        return self.state is _DONE


def outcome_of(record: Record) -> Outcome:
    """The end of a record that has one."""
    attempt, done = record.attempt, record.state is _DONE
    answers = done and record.order.deliverable is _ANSWER
    took_s = (attempt.ended_at or attempt.claimed_at) - attempt.claimed_at if attempt is not None else 0.0
    return Outcome(
        order=record.order, state=record.state, reason=str(record.reason or ""),
        text=record.message if answers else "", message="" if answers else record.message,
        data=attempt.data if attempt is not None else {}, cost_usd=record.cost_usd, tries=len(record.attempts),
        took_s=max(0.0, took_s),
    )  # fmt: skip


class Telling(Protocol):
    """What is needed of a floor."""

    observers: list[Callable[[Event], None]]
    floor: Floor | None

    def stop(self, why: str = "") -> None: ...

    @property
    def leads(self) -> bool: ...


async def told(floor: Telling, perform: Callable[[], Coroutine[Any, Any, Report]]) -> AsyncGenerator[Outcome, None]:
    """Perform a run and tell of every end of an order in it. Who leaves early stops it, and waits for that."""
    ends: deque[Outcome] = deque()
    news = asyncio.Event()

    def see(event: Event) -> None:
        if tells_end(event) and floor.floor is not None:
            record = floor.floor.board.records.get(event.order_id)
            run = floor.floor.run
            if record is not None and run is not None and record.order.run == run.id:
                ends.append(outcome_of(record))
                news.set()

    floor.observers.append(see)
    performing = asyncio.create_task(perform())
    performing.add_done_callback(lambda _task: news.set())
    try:
        while ends or not performing.done():
            news.clear()
            while ends:
                yield ends.popleft()
            if not performing.done():
                await news.wait()
        await performing
    finally:
        floor.observers.remove(see)
        await _ended(floor, performing)


async def _ended(floor: Telling, performing: asyncio.Task[Report]) -> None:
    """Stop what still runs; what it raises then is nobody's any more."""
    if performing.done():
        return
    if floor.leads:
        floor.stop("nobody follows it any more")
    else:  # it may wait for its first order for ever
        performing.cancel()
    with suppress(asyncio.CancelledError):
        await asyncio.wait({performing})
