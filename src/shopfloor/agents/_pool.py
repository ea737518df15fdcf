"""The servers of one profile at work on many calls at the same time: who takes which, who rests, who is given up."""

from __future__ import annotations

import asyncio
import math
from collections import deque
from collections.abc import Awaitable, Mapping, Sequence
from time import monotonic
from typing import Any

from shopfloor.agents._connections import Late, Reply, Room, connections_at_most
from shopfloor.agents._servers import HEALTH_S, rest_after
from shopfloor.agents._spec_server import KEPT_S, Held, Server, Waiting, takes_bodies
from shopfloor.agents._steps import Fault, beside_s, where, work
from shopfloor.agents._transport import Unreachable
from shopfloor.domain.errors import Refused
from shopfloor.domain.servers import MOST, Limit, Pace, SpreadPolicy, end_of_queue_s, worth_moving
from shopfloor.ports import Answered

PATIENCE_S = 15.0
"""so long nobody who may take a call may be down before it is given up"""
TRIES = 4
"""of a call, at one server or another"""
LATE_TRIES = 2
"""of a call whose answer took too long"""
STRIKES = 3
"""faults in a row after which a server rests; that it cannot be reached is enough by itself"""
AHEAD_S = 0.25
"""for so long those that wait are enough"""
_TICK_S = 0.05
_LOOKS = 8
"""within the narrowest time limit"""
_SETTLING = 0.2
"""weight of the newest call in what is typical"""


class Pool:
    """Servers that do the same. In one event loop."""

    def __init__(
        self,
        urls: Sequence[str],
        paths: Mapping[str, str],
        *,
        policy: SpreadPolicy = "round-robin",
        in_flight: int = 0,
        patience_s: float = PATIENCE_S,
    ) -> None:
        self._loop = asyncio.get_running_loop()
        self._room = Room(connections_at_most())
        self._room.evict = self._evict
        each = max(1, min(MOST, self._room.most // len(urls)))
        self.servers = [Server(url, self._room, Limit(in_flight, each), paths) for url in urls]
        self._policy = policy
        self._patience_s = patience_s
        self._shared: deque[Waiting] = deque()
        """calls that anybody may take"""
        self._under_way = 0
        self._users = 0
        self._key = 0
        self._tick: asyncio.TimerHandle | None = None
        self._next_look = self._unused_since = 0.0
        self._pace = Pace()
        self._looks: set[asyncio.Task[None]] = set()

    @property
    def capacity(self) -> int:
        """Calls that may be under way, those that wait included: nobody is to idle while the next are written down."""
        slots = min(sum(s.limit.value for s in self.servers if s.down_since is None), self._room.most)
        return max(64, 2 * slots, slots + round(self._pace.rate * AHEAD_S))

    async def answer(self, spec: Mapping[str, Any], number: int, limit_s: float | None) -> Answered:
        """What became of spec ``number``, with one server or another; ``limit_s`` is what each request may take."""
        left: list[str] = []
        why, late = "", False
        while len(left) < (LATE_TRIES if late else TRIES):
            try:
                held = await self.take(number, left)
            except Refused as refused:
                why = f"{why}; then {refused.message}" if why else refused.message
                break
            server, answered = held.server, None
            try:
                answered = await work(Talk(self, server, limit_s), spec)
            except (Unreachable, Fault) as problem:
                late = isinstance(problem, Late)
                self.failed(held, problem)
                why = f"{server.url}: {problem}"
            finally:
                self.give(held, answered)
            if answered is not None:
                answered.data.update(where(server.url, left))
                return answered
            left.append(server.url)
        tries = f" (the last of {len(left)} tries)" if len(left) > 1 else ""
        data = where(left[-1], left[:-1]) if left else {}
        return Answered(failed=why + tries, timed_out=late, data=data)

    # -- a place for a call -------------------------------------------------------------------------------------------

    async def take(self, number: int, avoid: Sequence[str] = ()) -> Held:
        """A place for call ``number``, at a server not in ``avoid`` where there is another.

        Raises Refused when those who may take it have been down for too long.
        """
        self._users += 1
        held: Held | None = None
        waiting = Waiting(self.servers[number % len(self.servers)], avoid, self._loop.create_future())
        try:
            self._place(waiting)
            held = await waiting.future
        finally:
            if held is None:
                future = waiting.future
                if future.done() and not future.cancelled() and future.exception() is None:
                    self.give(future.result())  # it was given one at the very moment when it was not wanted any more
                else:
                    self._left()
        return held

    def _place(self, waiting: Waiting) -> None:
        home = waiting.home
        if self._policy == "least-busy" or (
            self._policy != "strict" and (waiting.avoid or home.down_since is not None)
        ):
            self._shared.append(waiting)
            self._offer()
        else:
            home.queue.append(waiting)
            self._wake(home)
            self._feed(home)
        self._keep_ticking()

    def _offer(self) -> None:
        """Give what anybody may take to those who have most room."""
        while self._shared:
            free = [server for server in self.servers if server.free]
            free.sort(key=lambda server: len(server.calls) / server.limit.value)
            if not any(self._feed(server, most=1) for server in free):
                break
        if self._shared:
            for server in self.servers:
                self._wake(server)

    def _feed(self, server: Server, most: int = MOST) -> int:
        """Give a server calls that wait; how many it took."""
        found = 0
        while found < most and server.free and self._under_way < self._room.most:
            waiting = self._next_for(server)
            if waiting is None:
                break
            self._grant(server, waiting)
            found += 1
        return found

    def _grant(self, server: Server, waiting: Waiting) -> None:
        self._key += 1
        self._under_way += 1
        waiting.future.set_result(Held(server, self._key, self._loop.time()))

    def _next_for(self, server: Server) -> Waiting | None:
        while self._shared and self._shared[0].future.done():
            self._shared.popleft()
        for place, waiting in enumerate(self._shared):
            if waiting.future.done():
                continue
            others = (s for s in self.servers if s.down_since is None and s.url not in waiting.avoid)
            if server.url not in waiting.avoid or not any(others):
                del self._shared[place]
                return waiting
        while server.queue:
            waiting = server.queue.popleft()
            if not waiting.future.done():
                return waiting
        return None

    def give(self, held: Held, answered: Answered | None = None) -> None:
        """Give a place back; with what the server made of it where it did all its part."""
        server, now = held.server, self._loop.time()
        under_way = held.under_way(now)
        del server.calls[held.key]
        self._under_way -= 1
        if answered is not None:
            took = now - held.began
            server.limit.took(under_way, took, now, beside_s(answered) if server.limit.fresh else 0.0)
            weight = _SETTLING if server.typical_s else 1.0
            server.typical_s += weight * (took - server.typical_s)
            server.failures = server.strikes = 0
            self._pace.count += 1
            server.trial, server.down_since = False, None
        self._feed(server)
        if self._shared:
            self._offer()
        if self._under_way + 1 == self._room.most:
            for other in self.servers:  # who had room had no connection
                if other.queue:
                    self._feed(other)
        self._left()

    def failed(self, held: Held, problem: Unreachable | Fault) -> None:
        """A server did not do its part; its place is still held."""
        server, now = held.server, self._loop.time()
        fault = problem if isinstance(problem, Fault) else None
        slow = isinstance(problem, Late) or (fault is not None and fault.busy)
        server.why = str(problem) if fault is None else fault.what  # its words are about one spec, not about itself
        server.strikes += 1
        if slow:
            server.limit.overloaded(now - held.began, now)
        away = isinstance(problem, Unreachable) and not problem.sent
        rest_s = fault.rest_s if fault is not None else None
        if away or server.trial or rest_s is not None or server.strikes >= STRIKES:
            self._down(server, rest_s)
        elif fault is None and not slow:
            server.well = False  # until it has been looked at
            self._wake(server)

    def _left(self) -> None:
        self._users -= 1
        self._unused_since = self._loop.time()

    def close(self) -> None:
        """Close the connections that nobody uses."""
        for server in self.servers:
            server.links.drop()

    # -- who is well --------------------------------------------------------------------------------------------------

    def _down(self, server: Server, rest_s: float | None = None) -> None:
        now = self._loop.time()
        if server.rests_until > now:
            return
        server.well = False
        server.failures += 1
        server.rests_until = now + rest_after(server.failures, rest_s)
        server.down_since = now if server.down_since is None else server.down_since
        server.links.drop()
        if self._policy != "strict" and server.queue:
            self._shared.extend(server.queue)
            server.queue.clear()
        if self._shared:
            self._offer()

    def _wake(self, server: Server) -> None:
        """Look after a server that is not known to be well, unless it rests."""
        if not (server.well or server.looking or server.rests_until > self._loop.time()):
            server.looking = True
            task = self._loop.create_task(self._look(server))
            self._looks.add(task)
            task.add_done_callback(self._looks.discard)

    async def _look(self, server: Server) -> None:
        self._users += 1
        try:
            why = await self._trouble(server)
        finally:
            server.looking = False
            self._left()
        if why:
            server.why = why
            self._down(server)
            return
        server.well, server.trial = True, server.down_since is not None
        self._feed(server)

    async def _trouble(self, server: Server) -> str:
        """What is wrong with it, empty when it answers as one that is well."""
        try:
            async with asyncio.timeout(HEALTH_S):
                reply = await self.asked(server, server.health, b"", math.inf, "GET of its health")
        except TimeoutError:
            return f"no answer to GET of its health within {HEALTH_S:g} s"
        except Unreachable as problem:
            return str(problem)
        if reply.status >= 500:  # noqa: PLR2004 - a server without that path is one all the same
            return f"answered {reply.status} to GET of its health"
        server.bodies = server.bodies or takes_bodies(reply.body)
        return ""

    # -- asking -------------------------------------------------------------------------------------------------------

    def asked(self, server: Server, head: bytes, body: bytes, limit_s: float, name: str) -> Awaitable[Reply]:
        """One request, which is called so. Raises Unreachable, and Late, which names it."""
        self._next_look = min(self._next_look, self._loop.time() + limit_s / _LOOKS)
        return server.links.ask(head, body, limit_s=limit_s, name=name)

    def _evict(self) -> bool:
        """Close one connection that nobody uses now, of whatever server; whether there was one."""
        return any(server.links.drop(max(0, len(server.links.idle) - 1)) for server in self.servers)

    # -- from time to time --------------------------------------------------------------------------------------------

    def _keep_ticking(self) -> None:
        if self._tick is None:
            self._tick = self._loop.call_later(_TICK_S, self._ticked)

    def _ticked(self) -> None:
        self._tick = None
        now = self._loop.time()
        if not self._users and now - self._unused_since >= KEPT_S:
            self.close()
            return
        self._pace.look(now)
        if now >= self._next_look:
            narrowest = min(server.links.turns.shortest() for server in self.servers)
            self._next_look = now + min(1.0, narrowest / _LOOKS)
            for server in self.servers:
                server.links.look()
        for server in self.servers:
            server.trim(now)
            if server.queue:
                self._wake(server)
                self._feed(server)
        if self._shared:
            self._offer()
        if self._policy == "round-robin":
            self._move_some(now)
        self._give_up(now)
        self._keep_ticking()

    def _move_some(self, now: float) -> None:
        """Let those who have nothing to do take from those who are slow."""
        behind = [server for server in self.servers if server.queue]
        if not behind:
            return
        # The quickest first: what is not worth a move for it is not for the others either.
        for idle in sorted((s for s in self.servers if s.free and not s.queue), key=lambda s: s.typical_s):
            while idle.free and behind:
                last = max(behind, key=lambda s: end_of_queue_s(s.standing(now), s.typical_s))
                if not worth_moving(last.standing(now), idle.standing(now)):
                    return
                waiting = last.queue.pop()
                if not waiting.future.done():
                    self._grant(idle, waiting)
                if not last.queue:
                    behind.remove(last)

    def _give_up(self, now: float) -> None:
        if self._policy == "strict":
            for server in self.servers:
                self._refuse([server], server.queue, now)
        else:
            self._refuse(self.servers, self._shared, now)

    def _refuse(self, servers: Sequence[Server], queue: deque[Waiting], now: float) -> None:
        """Tell those who wait that nobody comes."""
        if not queue or not all(_hopeless(server, now - self._patience_s) for server in servers):
            return
        told = "; ".join(f"{server.url}: {server.why}" for server in servers[:5])
        for waiting in queue:
            if not waiting.future.done():
                refused = Refused(f"no agent server answers ({told})", hint="start them, or write others into urls")
                waiting.future.set_exception(refused)
        queue.clear()


def _hopeless(server: Server, before: float) -> bool:
    down = server.down_since is not None and server.down_since <= before
    return down and not (server.well or server.looking or server.calls)


class Talk:
    """One server as a call speaks with it: with the limit of that call."""

    __slots__ = ("_limit_s", "_pool", "_server")

    def __init__(self, pool: Pool, server: Server, limit_s: float | None) -> None:
        self._pool = pool
        self._server = server
        self._limit_s = math.inf if limit_s is None else limit_s

    @property
    def bodies(self) -> bool:
        """Its verifier takes the body of a definition, not the whole of it."""
        return self._server.bodies

    @bodies.setter
    def bodies(self, value: bool) -> None:
        self._server.bodies = value

    def ask(self, step: str, body: bytes) -> Awaitable[Reply]:
        """POST. Raises Unreachable, and Late, which names the step."""
        name, head = self._server.heads[step]
        return self._pool.asked(self._server, head, body, self._limit_s, name)

    def now(self) -> float:
        """Seconds: not those of the event loop, which may count in whole milliseconds."""
        return monotonic()
