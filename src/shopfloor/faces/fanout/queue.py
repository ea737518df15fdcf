"""The work queue: a Redis list that anybody may push specifications to.

``work_queue`` is used as RPUSH and BLPOP use it: first in, first out, each specification taken by exactly one. What is
taken goes to a processing list of its taker in the same step, and leaves it when its result is kept. A taker says every
few seconds that it lives; when it has not for ``lease_s``, the next one to look puts what it had taken back in front.
"""

from __future__ import annotations

import asyncio
import secrets
from collections import Counter
from collections.abc import Awaitable, Callable, Iterable, Sequence
from contextlib import suppress
from functools import partial
from importlib import import_module
from typing import Any, NamedTuple, Self, TypeVar

import msgspec

from shopfloor import Refused, UsageError
from shopfloor.faces.fanout.away import Away, nobody, shown
from shopfloor.faces.fanout.specs import Specification, decoded
from shopfloor.faces.fanout.stores import client

NAME = "work_queue"
LEASE_S = 15.0
SUCH_AS = "give redis://HOST:PORT/DB"
GONE_HINT = "is it up? What has come back is in the log: when it is, say it again with --resume"
T = TypeVar("T")


class Taken(NamedTuple):
    """A specification, and what it was pushed as."""

    payload: bytes
    spec: Specification


class RedisQueue:
    """One taker's view of it: ``async with RedisQueue("redis://127.0.0.1:6379/0") as queue: …``.

    ``taker`` names who takes: under the same name one goes on with what it had taken when it was killed.
    """

    def __init__(
        self, url: str, *, taker: str = "", name: str = NAME, lease_s: float = LEASE_S,
        say: Callable[[str], None] = nobody,
    ) -> None:  # fmt: skip
        """``say`` is told in a line when the server is away, and when it is back. Raises UsageError, Refused."""
        if not url.startswith(("redis://", "rediss://", "unix://")):
            raise UsageError(f"{shown(url)!r} is no queue", hint=SUCH_AS)
        self.url = url
        self.name = name
        self.taker = taker or secrets.token_hex(6)
        self.refused = 0
        """how many were no specifications; they are in the list ``<name>:refused``"""
        self._lease_s = lease_s
        self._driver = client("redis.asyncio")
        lost = (self._driver.ConnectionError, self._driver.TimeoutError)
        self._away = Away("the queue", url, lost, say)
        self._held: Counter[bytes] = Counter()
        self._lost = False
        self._redis: Any = None
        self._beating: asyncio.Task[None] | None = None

    # -- the names of its keys ------------------------------------------------------------------------------------

    @property
    def _takers(self) -> str:
        return f"{self.name}:takers"

    def _list_of(self, taker: str) -> str:
        return f"{self.name}:processing:{taker}"

    def _alive(self, taker: str) -> str:
        return f"{self.name}:alive:{taker}"

    # -- being there ----------------------------------------------------------------------------------------------

    async def open(self) -> None:
        """Connect and say that this taker lives. Raises UsageError, and Refused where no server answers."""
        retry = import_module("redis.asyncio.retry").Retry(import_module("redis.backoff").NoBackoff(), 0)
        # No command is sent again by the client: one whose answer was lost may have been done.
        waits = {"socket_timeout": None, "socket_connect_timeout": 10, "retry": retry}
        try:
            self._redis = self._driver.Redis.from_url(self.url, **waits)
        except ValueError as problem:
            raise UsageError(f"{shown(self.url)!r} is no queue: {problem}", hint=SUCH_AS) from None
        try:
            await self._beat()
        except self._driver.RedisError as problem:
            await self._redis.aclose()
            self._redis = None
            raise Refused(f"the queue at {shown(self.url)} cannot be used: {problem}", hint="is it up?") from None
        self._beating = asyncio.create_task(self._keep_beating())

    async def close(self) -> None:
        """Go away. What is still held stays in the processing list: for this taker, or once its lease has ended."""
        if self._beating is not None:
            self._beating.cancel()
            await asyncio.wait({self._beating})
            self._beating = None
        if self._redis is not None:
            with suppress(self._driver.RedisError):
                await self._redis.delete(self._alive(self.taker))
            await self._redis.aclose()
            self._redis = None

    async def __aenter__(self) -> Self:
        await self.open()
        return self

    async def __aexit__(self, *_exc: object) -> None:
        await self.close()

    async def _beat(self) -> None:
        pipe = self._redis.pipeline()
        pipe.set(self._alive(self.taker), 1, px=round(self._lease_s * 1000))
        pipe.sadd(self._takers, self.taker)
        await pipe.execute()
        await self.rescue()

    async def _keep_beating(self) -> None:
        while True:
            await asyncio.sleep(self._lease_s / 3)
            with suppress(self._driver.RedisError):  # the next beat is soon, and who takes is told
                await self._beat()

    async def rescue(self) -> int:
        """Put back to the front what takers hold who have not said for long that they live; how many."""
        count = 0
        for name in await self._redis.smembers(self._takers):
            taker = name.decode()
            if taker == self.taker or await self._redis.exists(self._alive(taker)):
                continue
            count += await self._put_back(taker)
            await self._redis.srem(self._takers, taker)
        return count

    async def give_back(self) -> int:
        """Put back to the front what this taker holds; how many."""
        self._held.clear()
        return await self._put_back(self.taker)

    async def _put_back(self, taker: str) -> int:
        count = 0
        # From the end, so that the oldest is in front again.
        while await self._redis.lmove(self._list_of(taker), self.name, "RIGHT", "LEFT") is not None:
            count += 1
        return count

    # -- putting and taking ---------------------------------------------------------------------------------------

    async def length(self) -> int:
        """How many wait in it."""
        return int(await self._redis.llen(self.name))

    async def put(self, specs: Iterable[Specification]) -> None:
        """Append them."""
        payloads = [msgspec.json.encode(spec.document()) for spec in specs]
        for at in range(0, len(payloads), 1000):
            await self._redis.rpush(self.name, *payloads[at : at + 1000])

    async def take(self, most: int = 1, *, wait: bool = True) -> list[Taken]:
        """The next ones, at most ``most``. What is no specification goes to the list ``<name>:refused``.

        Waits for the first one as long as it takes, blocked in the server; without ``wait`` there may be none. A lost
        connection is made again for a minute, then Refused is raised.
        """
        while True:
            found, again = await self._patiently(partial(self._next, most, wait=wait))
            self.hold(taken.payload for taken in found)
            if found or not again:
                return found

    async def _next(self, most: int, *, wait: bool) -> tuple[list[Taken], bool]:
        """Some, and whether to look again where there are none."""
        if self._lost:  # what was moved while nobody heard of it
            found = await self.unsettled(self._held)
            self._lost = False
            return found, True
        self._lost = True  # unless it is heard of
        found = await self._understood(await self._moved(most, wait=wait))
        self._lost = False
        return found, wait

    async def _patiently(self, act: Callable[[], Awaitable[T]]) -> T:
        """Do it, however often the connection is lost for less than a minute. Raises Refused."""
        try:
            return await self._away.patiently(act)
        except (self._driver.ConnectionError, self._driver.TimeoutError) as problem:
            raise Refused(f"the queue at {shown(self.url)} is gone: {problem}", hint=GONE_HINT) from None
        except self._driver.RedisError as problem:
            raise Refused(f"the queue at {shown(self.url)} cannot be used: {problem}") from None

    async def _moved(self, most: int, *, wait: bool) -> list[bytes]:
        mine = self._list_of(self.taker)
        pipe = self._redis.pipeline(transaction=False)
        for _ in range(min(most, await self.length())):
            pipe.lmove(self.name, mine, "LEFT", "RIGHT")
        found = [payload for payload in await pipe.execute() if payload is not None]
        # The blocking call takes one; the next round takes what came with it.
        return found if found or not wait else [await self._redis.blmove(self.name, mine, 0, "LEFT", "RIGHT")]

    async def _understood(self, payloads: Iterable[bytes]) -> list[Taken]:
        found = []
        for payload in payloads:
            try:
                found.append(Taken(payload, decoded(payload)))
            except ValueError:
                self.refused += 1
                pipe = self._redis.pipeline()
                pipe.lrem(self._list_of(self.taker), 1, payload)
                pipe.rpush(f"{self.name}:refused", payload)
                await pipe.execute()
        return found

    def hold(self, payloads: Iterable[bytes]) -> None:
        """These are known to be at work here."""
        self._held.update(payloads)

    async def settle(self, payloads: Sequence[bytes]) -> None:
        """Their results are kept: nobody needs them any more."""
        if payloads:
            await self._patiently(partial(self._settle, payloads))
            self._held.subtract(payloads)

    async def _settle(self, payloads: Sequence[bytes]) -> None:
        pipe = self._redis.pipeline(transaction=False)
        for payload in payloads:
            pipe.lrem(self._list_of(self.taker), 1, payload)
        await pipe.execute()

    async def unsettled(self, known: Counter[bytes]) -> list[Taken]:
        """What this taker has in its list beside ``known``."""
        left, new = Counter(known), []
        for payload in await self._redis.lrange(self._list_of(self.taker), 0, -1):
            if left[payload] > 0:
                left[payload] -= 1
            else:
                new.append(payload)
        return await self._understood(new)
