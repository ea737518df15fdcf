"""The attempts of one driver: each is started once and followed by one, and its end is remembered for a while."""

from __future__ import annotations

import asyncio
import os
from collections import OrderedDict
from collections.abc import AsyncGenerator, Awaitable, Callable
from typing import Generic, Protocol, TypeVar

from shopfloor.agents._run import Mailbox
from shopfloor.domain.errors import Refused
from shopfloor.ports import Kind, Report

_REMEMBERED = 1000


class Running(Protocol):
    """An attempt from its start to its EXITED, which the task brings about, whatever happens."""

    followed: bool

    @property
    def mailbox(self) -> Mailbox:
        """What it has reported and nobody has taken yet."""
        ...

    @property
    def task(self) -> asyncio.Task[None]:
        """Its life."""
        ...


R = TypeVar("R", bound=Running)


class Attempts(Generic[R]):
    """Those that run, and how the last ones ended."""

    def __init__(self, unknown: str) -> None:
        """``unknown`` says what has become of one that is neither."""
        self._running: dict[str, R | None] = {}
        self._ended: OrderedDict[str, Report] = OrderedDict()
        self._unknown = unknown

    def get(self, attempt: str) -> R | None:
        """The one that runs, None when it does not."""
        return self._running.get(attempt)

    def known(self, attempt: str) -> bool:
        """True when it was started here: it runs, or is about to, or its end is remembered."""
        return attempt in self._running or attempt in self._ended

    async def start(self, attempt: str, starting: Callable[[], Awaitable[R]]) -> R:
        """Start it. Raises Refused when that was done before, and whatever ``starting`` raises."""
        if self.known(attempt):
            raise Refused(f"attempt {attempt!r} was started before", hint="start a new attempt of the order")
        self._running[attempt] = run = None  # so that a second start of it is refused while this one is under way
        try:
            run = self._running[attempt] = await starting()
        finally:
            if run is None:
                del self._running[attempt]
        return run

    def take_up(self, attempt: str, run: R) -> R:
        """Count one in that somebody else has started."""
        self._running[attempt] = run
        return run

    async def follow(self, attempt: str) -> AsyncGenerator[Report, None]:
        """Everything it reports. One that ended before, or is not known, has only EXITED.

        Raises Refused when somebody follows it already.
        """
        run = self._running.get(attempt)
        if run is None:
            unknown = Report(kind=Kind.EXITED, status="lost", text=self._unknown)
            yield self._ended.get(attempt, unknown)
            return
        if run.followed:
            raise Refused(f"attempt {attempt!r} is followed already", hint="one follower hears everything")
        run.followed = True
        try:
            while (report := await run.mailbox.get()).kind is not Kind.EXITED:
                yield report
            await asyncio.wait({run.task})
            self._remember(attempt, report)
            yield report
            run.task.result()
        finally:
            run.followed = False

    def _remember(self, attempt: str, report: Report) -> None:
        self._running.pop(attempt, None)
        self._ended[attempt] = report
        while len(self._ended) > _REMEMBERED:
            self._ended.popitem(last=False)


def not_started(agent: str, error: OSError) -> Refused:
    """What to raise when what an attempt leaves behind cannot be written."""
    what = f"cannot write {error.filename!r}: {os.strerror(error.errno or 0).lower()}"
    return Refused(f"agent {agent!r} was not started: {what}")


def deaf(attempt: str, why: str) -> Refused:
    """What to raise when words for an agent cannot reach it."""
    hint = "stop the attempt; the next one is told with its prompt"
    return Refused(f"attempt {attempt!r} cannot listen: {why}", hint=hint)
