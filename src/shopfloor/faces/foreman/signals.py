"""What happens in a crew, told by name to whoever wants to know: the names, and the router that hands them on."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Mapping
from enum import StrEnum
from typing import Any

import msgspec

MOST_KEPT = 200
"""signals that are remembered for who asks what has happened"""


class Name(StrEnum):
    """The signals of the crew itself."""

    TASK_CREATED = "foreman:worker:task_created"
    TASK_STARTED = "foreman:worker:task_started"
    BUNDLE_LOADING = "foreman:worker:bundle_loading"
    SESSION_CREATED = "foreman:worker:session_created"
    EXECUTION_STARTING = "foreman:worker:execution_starting"
    EXECUTION_COMPLETED = "foreman:worker:execution_completed"
    EXECUTION_FAILED = "foreman:worker:execution_failed"
    SESSION_STATE_WRITTEN = "foreman:worker:session_state_written"
    """what came of an issue is in the log"""


class Signal(msgspec.Struct, frozen=True):
    """Something that happened; ``data`` is small."""

    name: str
    data: dict[str, Any] = {}


Listener = Callable[[Signal], None]


class EventRouter:
    """``router.emit("tests:red", {...})`` tells it to all who subscribed to that name, or to ``*``."""

    def __init__(self) -> None:
        self.recent: deque[Signal] = deque(maxlen=MOST_KEPT)
        self._listeners: dict[str, list[Listener]] = {}

    def subscribe(self, name: str, listener: Listener) -> Callable[[], None]:
        """Have ``listener`` called with each signal of this name (``*``: of any); the result ends that."""
        listeners = self._listeners.setdefault(name, [])
        listeners.append(listener)

        def end() -> None:
            if listener in listeners:
                listeners.remove(listener)

        return end

    def emit(self, name: str, data: Mapping[str, Any] | None = None) -> None:
        """Tell everybody now, in the order in which they subscribed."""
        signal = Signal(str(name), dict(data or {}))
        self.recent.append(signal)
        for listener in [*self._listeners.get(signal.name, ()), *self._listeners.get("*", ())]:
            listener(signal)

    async def wait_for_event(self, name: str, timeout_s: float | None = None) -> Signal | None:
        """The next signal of this name; None when the time is over."""
        found: asyncio.Future[Signal] = asyncio.get_running_loop().create_future()
        end = self.subscribe(name, lambda signal: None if found.done() else found.set_result(signal))
        try:
            async with asyncio.timeout(timeout_s):
                return await found
        except TimeoutError:
            return None
        finally:
            end()
