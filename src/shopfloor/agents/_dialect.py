"""Two-way talk with a local program: what it is told goes to its stdin, which stays open until all is said."""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from collections.abc import Sequence
from contextlib import suppress
from typing import NamedTuple

from shopfloor.agents._lines import Line
from shopfloor.ports import Delivery, Report

UNREAD_BYTES = 8 << 20
"""of what an agent was told and has not read; then it is told nothing more"""


class Wait(NamedTuple):
    """Something the agent owes an answer to, and how long that may take."""

    what: str
    most_s: float


class Dialect(ABC):
    """A reader that also speaks. Pure: it collects what it wants said, and whoever runs the agent says it.

    It may speak whenever one of its methods is called; ``taken`` is asked after each. Once ``done`` is true, stdin is
    closed behind the last word.
    """

    line_bytes: int
    """longer lines are cut"""
    masked = False
    """answers need the exact words; what is reported of them is masked by the dialect"""

    def __init__(self) -> None:
        self.done = False
        self.seen: set[str] = set()
        """the keys of ``told`` whose words the agent said that it has"""
        self.delivery = Delivery.DELIVERED
        """what became of the words last ``told``, as long as they are not seen"""
        self.dismissed = False
        """it did not end by itself when it should have, so how it ends says nothing"""
        self._unsaid = bytearray()

    def say(self, data: bytes) -> None:
        """Write this to the agent."""
        self._unsaid += data

    def taken(self) -> bytes:
        """What is to be written now; it is forgotten here."""
        data = bytes(self._unsaid)
        self._unsaid.clear()
        return data

    @abstractmethod
    def started(self) -> Sequence[Report]:
        """What is reported as soon as the process runs; the place for the first words, the prompt among them."""

    @abstractmethod
    def heard(self, stream: str, line: Line) -> Sequence[Report]:
        """What one line of ``stdout`` or ``stderr`` means."""

    @abstractmethod
    def ended(self, code: int | None) -> Report:
        """EXITED for an agent that ended by itself, with this exit code (None: by a signal)."""

    @abstractmethod
    def told(self, text: str) -> str:
        """Somebody has words for it: a key that is in ``seen`` once it has them, empty where that is never known.

        Raises Refused when there is nothing it could do with them.
        """

    def aside(self) -> Sequence[Report]:
        """What became known otherwise than by a line; asked for after ``told``, and at the end."""
        return ()

    @property
    def waits(self) -> Wait | None:
        """What it waits for at most so long; None: for as long as it takes."""
        return None

    def overdue(self) -> Sequence[Report]:
        """That took too long; when ``dismissed`` is set now, the agent will be ended."""
        return ()

    def leave(self) -> None:
        """It is to end now: interrupt what it does, politely. The signals come when that took too long."""
        self.done = True


class Voice:
    """The way to one agent's stdin. Never waits for an agent that does not read."""

    def __init__(self, stdin: asyncio.StreamWriter) -> None:
        self._stdin = stdin
        # A drain is to wait for the pipe, not for a buffer of ours.
        stdin.transport.set_write_buffer_limits(high=0)

    @property
    def unread_bytes(self) -> int:
        """What did not fit into the pipe yet."""
        return self._stdin.transport.get_write_buffer_size()

    @property
    def closed(self) -> bool:
        return self._stdin.is_closing()

    def say(self, data: bytes) -> bool:
        """False when it does not read, or does not listen any more: then nothing was said."""
        if self.closed or self.unread_bytes > UNREAD_BYTES:
            return False
        self._stdin.write(data)
        return True

    async def drain(self, most_s: float) -> None:
        """Wait until everything is in the pipe, or nobody reads it any more, or the time is over."""
        with suppress(TimeoutError, ConnectionError):
            async with asyncio.timeout(most_s):
                await self._stdin.drain()

    def close(self) -> None:
        """The end, behind what was said."""
        if not self.closed:
            self._stdin.close()

    def abort(self) -> None:
        """The end, now, whatever was not read."""
        if not self.closed or self.unread_bytes:  # else it is closed already, and its number may be another's
            self._stdin.transport.abort()
