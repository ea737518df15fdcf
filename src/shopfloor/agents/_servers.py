"""Several servers that do the same.

Each takes one request at a time, is looked at before it is used, and is let rest after a failure, longer each time.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from urllib.parse import SplitResult, urlsplit

from shopfloor.agents._transport import Client, Unreachable
from shopfloor.domain.errors import Refused
from shopfloor.ports import Capabilities, Probe, Profile

HEALTH_S = 2.0
FEW, MANY = 10, 64
"""servers that are asked for their health at once: first, and when none of those is well"""
REST_S, LONGEST_REST_S = 0.5, 30.0
PATIENCE_S = 60.0
"""so long everybody may be down before a request is given up; a server that works for us is not down"""


def addresses(profile: Profile) -> list[str]:
    """Where the servers of a profile are. Raises Refused."""
    hint = _hint(profile)
    try:
        found = profile.addresses
    except ValueError as problem:
        raise Refused(f"agent {profile.name!r}: {problem}", hint=hint) from None
    if not found:
        raise Refused(f"agent {profile.name!r} has no urls", hint=hint)
    return found


def _hint(profile: Profile) -> str:
    return f'write urls = ["http://127.0.0.1:8080-8089"] under [agents.{profile.name}]'


async def probed(profile: Profile, capabilities: Capabilities, *, health: str = "/health") -> Probe:
    """Ask the servers for their health, the first ten and then many at once; one that answers is enough."""
    try:
        urls = addresses(profile)
    except Refused as problem:
        return Probe(found=False, problem=problem.message, hint=problem.hint)
    reasons: dict[str, list[str]] = {}
    for start in (0, *range(FEW, len(urls), MANY)):
        servers = [Server(url) for url in urls[start : start + (MANY if start else FEW)]]
        well = await asyncio.gather(*(server.ask(health) for server in servers))
        for server in servers:
            server.client.close()
            reasons.setdefault(server.why, []).append(server.url)
        if any(well):
            return Probe(found=True, capabilities=capabilities)
    told = "; ".join(f"{named[0]}{_more(named)}: {why}" for why, named in list(reasons.items())[:FEW])
    return Probe(found=False, problem=f"no agent server answers ({told})", hint=f"start one, or {_hint(profile)}")


def _more(urls: Sequence[str]) -> str:
    return "" if len(urls) == 1 else f" and {len(urls) - 1} more"


class Server:
    """One of them, as far as it is known."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.parts: SplitResult = urlsplit(url)
        self.client = Client(self.parts)
        self.busy = False
        self.failures = 0
        self.rests_until = 0.0
        self.well = False
        """it answered the last time"""
        self.why = ""
        """what was wrong the last time"""

    async def ask(self, path: str = "/health") -> bool:
        """Whether it answers ``GET`` there with anything but a fault of its own; ``why`` says what else it did."""
        try:
            async with asyncio.timeout(HEALTH_S), self.client.request("GET", path) as answer:
                await answer.body(1 << 20)
        except TimeoutError:
            self.why = f"no answer to GET {path} within {HEALTH_S:g} s"
        except Unreachable as error:
            self.why = str(error)
        else:
            if answer.status < 500:  # noqa: PLR2004 - a server without that path is one all the same
                return True
            self.why = f"GET {path} answered {answer.status}"
        return False


def rest_after(failures: int, wanted_s: float | None = None) -> float:
    """So many seconds a server rests after so many failures in a row; ``wanted_s`` is what it asked for itself."""
    return min(LONGEST_REST_S, max(REST_S * 2.0 ** min(failures - 1, 10), wanted_s or 0.0))


class Servers:
    """Hands out servers, each to one at a time, the one that has rested longest first."""

    def __init__(
        self, urls: Sequence[str], *, patience_s: float = PATIENCE_S, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self.all = [Server(url) for url in urls]
        self._order = list(self.all)
        self._patience_s = patience_s
        self._clock = clock
        self._changed = asyncio.Event()
        self._users = 0

    async def take(self, avoid: frozenset[str] = frozenset()) -> Server:
        """A free one that answers; of those in ``avoid`` only when there is no other at all.

        Waits while all are at work. Raises Refused when none has answered for so long.
        """
        self._users += 1
        taken: Server | None = None
        try:
            taken = await self._take(avoid)
        finally:
            if taken is None:
                self._left()
        return taken

    async def _take(self, avoid: frozenset[str]) -> Server:
        down_since: float | None = None
        while True:
            now = self._clock()
            wanted = [server for server in self._order if server.url not in avoid] or self._order
            free = [server for server in wanted if not server.busy and server.rests_until <= now]
            for server in free[:1]:
                if await self._fit(server):
                    return server
            if free:
                continue
            if any(server.busy for server in wanted):
                down_since = None
            elif down_since is None:
                down_since = now
            elif now - down_since >= self._patience_s:
                told = "; ".join(f"{server.url}: {server.why}" for server in wanted[:5])
                raise Refused(f"no agent server answers ({told})", hint="start them, or write others into urls")
            await self._wait([s.rests_until for s in wanted if not s.busy], down_since)

    async def _fit(self, server: Server) -> bool:
        """Take it, if it answers."""
        server.busy, fit = True, None
        try:
            fit = server.well or await server.ask()
        finally:
            server.busy = bool(fit)
        if fit:
            self._order.remove(server)
            self._order.append(server)
        else:
            self._rest(server)
        return fit

    async def _wait(self, times: list[float], down_since: float | None) -> None:
        """Until somebody gave one back, or the next has rested."""
        ends = times + ([down_since + self._patience_s] if down_since is not None else [])
        self._changed.clear()
        try:
            async with asyncio.timeout(max(0.001, min(ends) - self._clock()) if ends else None):
                await self._changed.wait()
        except TimeoutError:
            return

    def give(self, server: Server, *, failed: str = "", rest_s: float | None = None) -> None:
        """Give one back. ``failed`` says what was wrong with it; ``rest_s`` is what it asked for itself."""
        if failed:
            server.why = failed
            self._rest(server, rest_s)
        else:
            server.failures, server.well = 0, True
            server.busy = False
        self._left()
        self._changed.set()

    def _rest(self, server: Server, rest_s: float | None = None) -> None:
        server.failures += 1
        server.well = server.busy = False
        server.rests_until = self._clock() + rest_after(server.failures, rest_s)
        self._changed.set()

    def _left(self) -> None:
        """Connections are kept as long as somebody works with these servers."""
        self._users -= 1
        if not self._users:
            for server in self.all:
                server.client.close()
