"""One server of the driver ``specs``, as far as it is known, and the calls that it has or is to have."""

from __future__ import annotations

import asyncio
import math
from collections import deque
from collections.abc import Mapping, Sequence
from contextlib import suppress
from urllib.parse import urlsplit

import msgspec

from shopfloor.agents._connections import Connections, Room
from shopfloor.domain.servers import Limit, Standing

KEPT_S = 1.0
"""so long connections are kept that nobody uses: a limit that was lowered may be raised again at once"""


class Server:
    """One of them, as far as it is known."""

    def __init__(self, url: str, room: Room, limit: Limit, paths: Mapping[str, str]) -> None:
        self.url = url
        parts = urlsplit(url)
        self.links = Connections(parts, room)
        self.limit = limit
        self.heads = {
            step: (f"POST {path}", self.links.head("POST", parts.path + path)) for step, path in paths.items()
        }
        self.health = self.links.head("GET", parts.path + paths["health"])
        self.bodies = False
        """its verifier takes the body of a definition"""
        self.calls: dict[int, float] = {}
        """under way: when each began, the first one first"""
        self.queue: deque[Waiting] = deque()
        self.typical_s = 0.0
        self.well = False
        self.looking = False
        self.trial = False
        """it was down: one call at a time, until one succeeds"""
        self.failures = 0
        self.strikes = 0
        self.rests_until = -math.inf
        self.down_since: float | None = None
        self.why = ""
        self._many_since = math.inf
        self._calls_s = self._counted = 0.0

    @property
    def free(self) -> bool:
        return self.well and len(self.calls) < (1 if self.trial else self.limit.value)

    def trim(self, now: float) -> None:
        """Close what was kept beyond the limit for a while. To be called from time to time."""
        if len(self.links.idle) <= self.limit.value:
            self._many_since = math.inf
            return
        self._many_since = min(self._many_since, now)
        if now - self._many_since >= KEPT_S:
            self.links.drop(self.limit.value)

    def calls_s(self, now: float) -> float:
        """Seconds that calls were under way until now, those of all of them added up."""
        self._calls_s += len(self.calls) * (now - self._counted)
        self._counted = now
        return self._calls_s

    def standing(self, now: float) -> Standing:
        """How far it is with its work."""
        oldest = next(iter(self.calls.values()), now)
        return Standing(self.limit.value, len(self.calls), len(self.queue), now - oldest, self.typical_s)


class Waiting:
    """A call that waits for a server."""

    __slots__ = ("avoid", "future", "home")

    def __init__(self, home: Server, avoid: Sequence[str], future: asyncio.Future[Held]) -> None:
        self.home = home
        self.avoid = avoid
        self.future = future


class Held:
    """A place at a server, for one call."""

    __slots__ = ("_calls_s", "began", "key", "server")

    def __init__(self, server: Server, key: int, began: float) -> None:
        self.server = server
        self.key = key
        self.began = began
        self._calls_s = server.calls_s(began)
        server.calls[key] = began

    def under_way(self, now: float) -> float:
        """How many were under way since it began, itself included: on average. Before it is taken off."""
        took = now - self.began
        return (self.server.calls_s(now) - self._calls_s) / took if took > 0 else len(self.server.calls)


class _Health(msgspec.Struct):
    status: object = None
    version: object = None
    verifier: object = None


def takes_bodies(health: bytes) -> bool:
    """Whether a server declares by its health that its verifier counts what words do.

    By ``"verifier": "body"`` or ``"definition"``; else one that is ``healthy`` and has a ``version`` is such a one.
    """
    with suppress(msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        told = msgspec.json.decode(health, type=_Health)
        return told.verifier == "body" or (told.verifier is None and told.status == "healthy" and bool(told.version))
    return False
