"""Sessions that work beside the crew on a timer, on a signal, or when they are asked to."""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import suppress
from functools import partial
from typing import Any, Literal

import msgspec

from shopfloor import NotFound, UsageError
from shopfloor.faces.foreman.config import MOST_WORKERS, listed
from shopfloor.faces.foreman.signals import EventRouter, Signal

LONGEST_S = 366 * 86400.0
"""of an interval; a clock cannot count to any number"""
BY_HAND = "manual"
"""The signal of a turn that somebody asked for."""
MOST_WAITING = 100
"""triggers that one session may be behind; more of them are dropped"""

_log = logging.getLogger(__name__)


class BackgroundConfig(msgspec.Struct, frozen=True, kw_only=True):
    """One of them. Times in seconds."""

    name: str
    profile: str = ""
    """its mount plan; empty: that of its name"""
    trigger: Literal["timer", "session_event", "manual"] = "manual"
    interval_seconds: float = 60.0
    """``timer``: from the end of one turn to the next"""
    immediate: bool = False
    """``timer``: the first turn at once"""
    event_names: tuple[str, ...] = ()
    """``session_event``: the signals that it wakes for"""
    instruction_template: str = "{event}"
    """what it is told: ``{name}``, ``{event}`` and ``{data}`` stand for itself, the signal and what came with it"""
    pool_size: int = 1
    """turns at the same time"""
    on_complete_emit: str = ""
    on_error_emit: str = ""
    restart_on_failure: bool = True
    max_restarts: int = 3
    """failures in a row after which it is left alone; a turn that ends well, or that is asked for, forgets them"""

    def instruction(self, signal: Signal) -> str:
        """The words of one turn."""
        text = self.instruction_template
        for word, value in (("name", self.name), ("event", signal.name), ("data", _words(signal.data))):
            text = text.replace(f"{{{word}}}", value)
        return text


Turn = Callable[[BackgroundConfig, str], Awaitable[str]]
"""One turn of a session: its configuration and what it is told; what it answers. What it raises counts as a failure."""


def background_of(config: Mapping[str, Any]) -> tuple[BackgroundConfig, ...]:
    """``background_sessions`` of a configuration. Raises UsageError that names what is off."""
    found = listed(config, "background_sessions", BackgroundConfig)
    names = [one.name for one in found]
    if len(set(names)) < len(names):
        raise UsageError(f"two background sessions have one name: {', '.join(names)}")
    for one in found:
        if one.trigger == "session_event" and not one.event_names:
            raise UsageError(f"background session {one.name!r} waits for no event", hint="give event_names")
        off = (
            not 0 < one.interval_seconds <= LONGEST_S or not 1 <= one.pool_size <= MOST_WORKERS or one.max_restarts < 0
        )
        if off:
            raise UsageError(
                f"background session {one.name!r}: interval_seconds {one.interval_seconds}, pool_size {one.pool_size}, "
                f"max_restarts {one.max_restarts}",
                hint=f"give an interval above 0, 1 to {MOST_WORKERS} turns at a time, and no negative number",
            )
    return found


class Background:
    """``start()`` them once, ``close()`` them all; each works in tasks of its own, and none disturbs another."""

    def __init__(
        self,
        configs: Sequence[BackgroundConfig],
        *,
        turn: Turn,
        router: EventRouter,
        pause: Callable[[float], Awaitable[None]] = asyncio.sleep,
        trouble: Callable[[str, str], bool] = lambda _who, why: bool(why),
    ) -> None:
        """``trouble`` is told why a session fails, and of "" when it does not; it says whether that is news."""
        self._configs = {config.name: config for config in configs}
        self._turn = turn
        self._router = router
        self._pause = pause
        self._trouble = trouble
        self._tasks: list[asyncio.Task[None]] = []
        self._waiting: dict[str, asyncio.Queue[Signal]] = {}
        self._failures: dict[str, int] = {}
        self._turns: dict[str, int] = {}
        self._busy: Counter[str] = Counter()
        self._ends: list[Callable[[], None]] = []

    @property
    def configs(self) -> tuple[BackgroundConfig, ...]:
        """All of them."""
        return tuple(self._configs.values())

    @property
    def started(self) -> bool:
        """True from the first ``start`` to ``close``."""
        return bool(self._waiting)

    def start(self) -> None:
        """Start all; calling it again changes nothing."""
        if self.started:
            return
        for config in self._configs.values():
            queue = self._waiting[config.name] = asyncio.Queue(MOST_WAITING)
            for place in range(config.pool_size):
                self._spawn(self._serve(config, queue), f"background-{config.name}-{place}")
            if config.trigger == "timer":
                self._spawn(self._tick(config, queue), f"background-{config.name}-timer")
            for name in config.event_names if config.trigger == "session_event" else ():
                self._ends.append(self._router.subscribe(name, partial(_offer, queue)))

    def trigger(self, name: str, data: Mapping[str, Any] | None = None) -> None:
        """Have a session take a turn now, whatever else wakes it, and also when it was left alone. Raises NotFound."""
        queue = self._waiting.get(name)
        if queue is None:
            hint = f"there are {', '.join(self._waiting)}" if self._waiting else "none has begun yet"
            raise NotFound(f"there is no background session {name!r}", hint=hint)
        _offer(queue, Signal(BY_HAND, dict(data or {})))

    def status(self) -> dict[str, dict[str, Any]]:
        """Of each session that has begun, by name.

        Its ``trigger``, ``turns`` that ended well, how many are ``at_work``, ``failures`` in a row, triggers that are
        ``waiting``, and whether it is ``given_up``.
        """
        return {
            name: {
                "trigger": self._configs[name].trigger, "turns": self._turns.get(name, 0), "at_work": self._busy[name],
                "failures": self._failures.get(name, 0), "waiting": queue.qsize(),
                "given_up": self._given_up(self._configs[name]),
            }
            for name, queue in self._waiting.items()
        }  # fmt: skip

    async def close(self) -> None:
        """End all; harmless when repeated."""
        for end in self._ends:
            end()
        tasks, self._tasks = self._tasks, []
        for task in tasks:
            task.cancel()
        for task in tasks:
            with suppress(asyncio.CancelledError):
                await task
        self._waiting.clear()
        self._ends.clear()

    def _spawn(self, work: Any, name: str) -> None:
        self._tasks.append(asyncio.create_task(work, name=name))

    def _given_up(self, config: BackgroundConfig) -> bool:
        failures = self._failures.get(config.name, 0)
        return failures > (config.max_restarts if config.restart_on_failure else 0)

    async def _tick(self, config: BackgroundConfig, queue: asyncio.Queue[Signal]) -> None:
        if config.immediate:
            _offer(queue, Signal("timer"))
        while True:
            await self._pause(config.interval_seconds)
            if queue.empty():  # a session that is slower than its timer does not fall behind
                _offer(queue, Signal("timer"))

    async def _serve(self, config: BackgroundConfig, queue: asyncio.Queue[Signal]) -> None:
        while True:
            signal = await queue.get()
            if signal.name == BY_HAND:
                self._failures[config.name] = 0
            if self._given_up(config):
                continue
            self._busy[config.name] += 1
            try:
                await self._take(config, signal)
            finally:
                self._busy[config.name] -= 1

    async def _take(self, config: BackgroundConfig, signal: Signal) -> None:
        task = asyncio.ensure_future(self._turn(config, config.instruction(signal)))
        try:
            await asyncio.wait([task])
        finally:
            task.cancel()  # ours was: its own goes with it
        if task.cancelled():
            return
        if (problem := task.exception()) is None:
            self._failures[config.name] = 0
            self._turns[config.name] = self._turns.get(config.name, 0) + 1
            self._trouble(f"background session {config.name}", "")
            self._tell(config.on_complete_emit, config, result=task.result())
            return
        self._failures[config.name] = self._failures.get(config.name, 0) + 1
        why = f"{problem}; it is left alone from now on" if self._given_up(config) else str(problem)
        news = self._trouble(f"background session {config.name}", why)
        _log.log(logging.WARNING if news else logging.DEBUG, "background session %s failed: %s", config.name, why)
        self._tell(config.on_error_emit, config, error=str(problem))

    def _tell(self, name: str, config: BackgroundConfig, **data: Any) -> None:
        if name:
            self._router.emit(name, {"session": config.name, **data})


def _offer(queue: asyncio.Queue[Signal], signal: Signal) -> None:
    with suppress(asyncio.QueueFull):
        queue.put_nowait(signal)


def _words(data: Mapping[str, Any]) -> str:
    return msgspec.json.encode(data).decode() if data else ""
