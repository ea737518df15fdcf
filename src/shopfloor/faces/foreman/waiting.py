"""Waiting without looking: workers without work sleep until the log says something new, or something may be due."""

from __future__ import annotations

import asyncio
import logging
from collections import defaultdict
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any, NamedTuple, Protocol

from shopfloor.faces.foreman.task import Given, Wish
from shopfloor.faces.foreman.tasks import Tasks

log = logging.getLogger(__name__)

SETTLE_S = 0.02
"""Between two looks: what many write at one moment is one piece of news."""


class Outcome(NamedTuple):
    """How something ended that others have written, and that may raise anything."""

    value: Any = None
    error: BaseException | None = None


async def outcome_of(work: Awaitable[Any]) -> Outcome:
    """Await it to its end, whatever that is. Being cancelled cancels it."""
    task = asyncio.ensure_future(work)
    try:
        await asyncio.wait({task})
    finally:
        if not task.done():
            task.cancel()
            await asyncio.wait({task})
    if task.cancelled():
        return Outcome(error=asyncio.CancelledError("it was cancelled"))
    error = task.exception()
    return Outcome(error=error) if error is not None else Outcome(task.result())


class News(Protocol):
    """What tells that there may be tasks: ``Tasks`` does."""

    async def changed(self, after: int, timeout_s: float) -> int:
        """Where the log ends, as soon as that is behind ``after`` or the time is over."""
        ...


class Queue:
    """Hands the tasks of a floor to the workers of one process that wait for them."""

    def __init__(
        self, tasks: News, stop: asyncio.Event, *, pause_s: float,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:  # fmt: skip
        """``pause_s`` is the longest time between two looks, whether news can be heard or not."""
        self._tasks = tasks
        self._stop = stop
        self._pause_s = pause_s
        self._sleep = sleep
        self._news = 0
        self._nothing: dict[str, int] = {}
        """wish -> the news at which there was nothing that it fits"""
        self._turns: defaultdict[str, asyncio.Lock] = defaultdict(asyncio.Lock)
        self._changed = asyncio.Condition()

    async def take(self, wish: Wish, tasks: Tasks) -> Given | None:
        """The next task for this worker, as soon as there is one; None: the crew is to stop.

        Workers that wait for the same look one after the other, and not again for news at which there was nothing.
        """
        key = repr(wish)
        while not self._stop.is_set():
            async with self._turns[key]:
                news = self._news
                if self._nothing.get(key) != news and not self._stop.is_set():
                    given = await tasks.next(wish)
                    if given is not None:
                        return given
                    self._nothing[key] = news
            async with self._changed:
                await self._changed.wait_for(partial(self._is_news, news))
        return None

    def _is_news(self, seen: int) -> bool:
        return self._news != seen or self._stop.is_set()

    async def watch(self) -> None:
        """Hear of news until cancelled. A pause without any is news too: a delay is over, or a holder has died."""
        position = 0
        while True:
            heard = await outcome_of(self._tasks.changed(position, self._pause_s))
            if heard.error is None:
                position = heard.value
            else:  # the workers look all the same, and say what is wrong
                log.error("news of tasks cannot be heard: %s", heard.error, exc_info=heard.error)
                await self._sleep(self._pause_s)
            await self.wake()
            await self._sleep(min(SETTLE_S, self._pause_s))

    async def wake(self) -> None:
        """Have everybody look again."""
        async with self._changed:
            self._news += 1
            self._changed.notify_all()
