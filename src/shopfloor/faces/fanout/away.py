"""A server beside the agents (a queue, a database) that goes away in the middle of a run: it is waited for."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import TypeVar

T = TypeVar("T")
PATIENCE_S = 60.0
"""so long one that went away is waited for"""
_FIRST_S, _LONGEST_S = 0.1, 1.0
"""between two tries"""


def nobody(_line: str) -> None:
    """Takes a line that nobody is to read."""


def shown(url: str) -> str:
    """An address without its password."""
    scheme, mark, rest = url.partition("://")
    if not mark:
        return url
    who, at, where = rest.rpartition("@")
    name, colon, _ = who.partition(":")
    return f"{scheme}://{name}:***@{where}" if at and colon else url


class Away:
    """One server. That it is away is said once, and that it is back, however many wait for it."""

    def __init__(
        self,
        what: str,
        url: str,
        lost: tuple[type[Exception], ...],
        say: Callable[[str], None],
        patience_s: float = PATIENCE_S,
    ) -> None:
        """``lost`` is what its client raises when it is away, ``say`` takes a line."""
        self._what = f"{what} at {shown(url)}"
        self._url = url
        self._lost = lost
        self._say = say
        self._patience_s = patience_s
        self._since: float | None = None

    async def patiently(self, act: Callable[[], Awaitable[T]]) -> T:
        """Do it, again and again while the server is away; what its client raises at last is raised.

        A connection that is only lost, and there again at once, is nothing to speak of.
        """
        clock, pause_s, deadline = asyncio.get_running_loop().time, _FIRST_S, 0.0
        while True:
            try:
                done = await act()
            except self._lost as problem:
                if not deadline:
                    deadline = clock() + self._patience_s
                elif clock() > deadline:
                    raise
                else:
                    self._gone(problem, clock())
            else:
                self._back(clock())
                return done
            await asyncio.sleep(pause_s)
            pause_s = min(_LONGEST_S, 2 * pause_s)

    def _gone(self, problem: Exception, now: float) -> None:
        if self._since is None:
            self._since = now
            why = " ".join(str(problem).replace(self._url, shown(self._url)).split()).rstrip(".")
            self._say(f"{self._what} is away ({why}); it is waited for, {self._patience_s:g} s at most: start it again")

    def _back(self, now: float) -> None:
        if self._since is not None:
            self._say(f"{self._what} is back after {now - self._since:.0f} s")
            self._since = None
