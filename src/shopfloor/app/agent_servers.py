"""Servers of one command, started, looked after and ended together."""

from __future__ import annotations

import asyncio
import signal
import socket
from collections.abc import Awaitable, Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import msgspec

from shopfloor.agents._servers import Server as Address
from shopfloor.domain.errors import Refused, ShopfloorError, UsageError
from shopfloor.spawn import Exit, Guard, Process, SpawnError, Step

COMMAND = ("fastforth-server", "--port", "{port}")
PORT_WORD = "{port}"
READY_S = 30.0
"""so long a server may take until it answers"""
_LOOK_S = 0.05
_LAST_BYTES = 2000
_HIGHEST = 65535
_LADDER = (Step(signal.SIGINT, 2.0), Step(signal.SIGTERM, 2.0), Step(signal.SIGKILL, 10.0))


class Wanted(msgspec.Struct, frozen=True, kw_only=True):
    """Which servers there are to be."""

    count: int
    command: tuple[str, ...] = COMMAND
    """argv; ``{port}`` is replaced inside a word"""
    port: int = 8080
    """of the first one"""
    health: str = "/health"
    ready_s: float = READY_S
    restarts: int = 0
    """how often one that ended is started again"""


class News(msgspec.Struct, frozen=True, kw_only=True):
    """Something about one server."""

    number: int
    """0 for the first one"""
    url: str
    pid: int = 0
    ended: str = ""
    """how it ended, with its last words; empty: it answers"""


Told = Callable[[News], None]


class _One:
    """One server."""

    def __init__(self, wanted: Wanted, number: int, start: Callable[[list[str]], Awaitable[Process]]) -> None:
        self.number = number
        self.port = wanted.port + number
        self.url = f"http://localhost:{self.port}"
        self.ended = ""
        self.process: Process | None = None
        self._wanted = wanted
        self._start = start
        self._said = b""
        self._listening: list[asyncio.Task[None]] = []

    async def start(self) -> None:
        """Start it. Raises SpawnError."""
        argv = [word.replace(PORT_WORD, str(self.port)) for word in self._wanted.command]
        self._said = b""
        self.process = process = await self._start(argv)
        streams = [stream for stream in (process.stdout, process.stderr) if stream is not None]
        self._listening = [asyncio.create_task(self._listen(stream)) for stream in streams]

    async def _listen(self, stream: asyncio.StreamReader) -> None:
        while piece := await stream.read(1 << 16):
            self._said = (self._said + piece)[-_LAST_BYTES:]

    async def until_ready(self) -> None:
        """Wait until it answers. Raises ShopfloorError that says why it does not."""
        assert self.process is not None
        address = Address(f"http://127.0.0.1:{self.port}")
        ending = asyncio.ensure_future(self.process.wait())
        try:
            async with asyncio.timeout(self._wanted.ready_s):
                while not await address.ask(self._wanted.health):
                    await asyncio.wait({ending}, timeout=_LOOK_S)
                    if ending.done():
                        raise ShopfloorError(await self.last_words(ending.result()))
        except TimeoutError:
            why = f"it did not answer within {self._wanted.ready_s:g} s ({address.why})"
            raise ShopfloorError(self._with_words(why)) from None
        finally:
            ending.cancel()
            address.client.close()

    async def last_words(self, end: Exit) -> str:
        """How it ended, and what it said at last."""
        await asyncio.wait(self._listening, timeout=1.0)
        how = f"it ended with exit code {end.code}" if end.code is not None else f"it was ended by signal {end.signal}"
        return self._with_words(how)

    def _with_words(self, why: str) -> str:
        said = self._said.decode(errors="replace").strip()
        return f"{why}; it said: {said}" if said else f"{why}; it said nothing"

    async def end(self) -> None:
        """End it, and everything it started."""
        if self.process is not None:
            await self.process.stop(_LADDER)
        for task in self._listening:
            task.cancel()


async def stand(
    wanted: Wanted,
    environment: Mapping[str, str],
    folder: Path,
    *,
    told: Told,
    until: Callable[[], Awaitable[object]],
) -> list[str]:
    """Start them, tell of each that answers, and keep them until ``until`` returns, or until none is left.

    Returns the addresses of those that ended by themselves for good. Raises ShopfloorError that names all that did not
    come up, with their last words, when any did not; UsageError for a command that cannot be for several servers.
    """
    if wanted.count > 1 and not any(PORT_WORD in word for word in wanted.command):
        hint = f"write {PORT_WORD} where each has its port, e.g. --command 'my-server --port {PORT_WORD}'"
        raise UsageError(f"the command has no {PORT_WORD}: all servers would have the same port", hint=hint)
    if wanted.port + wanted.count - 1 > _HIGHEST:
        raise UsageError(f"{wanted.count} ports from {wanted.port} on go beyond {_HIGHEST}")
    # Otherwise another program's answer would be taken for the one of a server that is about to end for this reason.
    if taken := [port for port in range(wanted.port, wanted.port + wanted.count) if _taken(port)]:
        numbers = ", ".join(map(str, taken))
        raise Refused(f"no server was started: another program has port {numbers}", hint="end it, or choose --port")
    async with Guard() as guard:
        start = partial(guard.spawn, cwd=folder, env=environment)
        ones = [_One(wanted, number, start) for number in range(wanted.count)]
        leaving = asyncio.ensure_future(until())
        try:
            coming = asyncio.ensure_future(_come_up(ones, told))
            await asyncio.wait({leaving, coming}, return_when=asyncio.FIRST_COMPLETED)
            if coming.done():
                coming.result()
                await _watch(ones, wanted.restarts, told, leaving)
            else:
                coming.cancel()
                await asyncio.wait({coming})
        finally:
            leaving.cancel()
            await asyncio.gather(*(one.end() for one in ones))
    return [one.url for one in ones if one.ended]


def _taken(port: int) -> bool:
    with socket.socket() as one:
        one.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # what was closed a moment ago is free
        try:
            one.bind(("127.0.0.1", port))
        except OSError:
            return True
    return False


async def _come_up(ones: Sequence[_One], told: Told) -> None:
    try:
        for one in ones:
            await one.start()
    except SpawnError as problem:
        raise Refused(f"no server was started: {problem.message}", hint=problem.hint) from None
    coming = [asyncio.ensure_future(one.until_ready()) for one in ones]
    try:
        for one, ready in zip(ones, coming, strict=True):
            await asyncio.wait({ready})
            if ready.exception() is None:
                assert one.process is not None
                told(News(number=one.number, url=one.url, pid=one.process.pid))
    finally:
        for ready in coming:
            ready.cancel()
    dead = [f"{one.url}: {ready.exception()}" for one, ready in zip(ones, coming, strict=True) if ready.exception()]
    if dead:
        raise ShopfloorError(
            f"{len(dead)} of {len(ones)} servers did not come up, so all were ended:\n" + "\n".join(dead),
            hint="see that the command works by itself, and that the ports are free",
        )


async def _watch(ones: Sequence[_One], restarts: int, told: Told, leaving: asyncio.Future[Any]) -> None:
    """Until somebody wants it to end, or none is left."""

    async def keep(one: _One) -> None:
        assert one.process is not None
        for left in range(restarts, -1, -1):
            why = await one.last_words(await one.process.wait())
            again = "; it is started again" if left else ""
            told(News(number=one.number, url=one.url, pid=one.process.pid, ended=why + again))
            if not left:
                break
            try:
                await one.start()
                await one.until_ready()
            except ShopfloorError as problem:
                told(News(number=one.number, url=one.url, ended=problem.message))
                break
            told(News(number=one.number, url=one.url, pid=one.process.pid))
        one.ended = "for good"

    keeping = {asyncio.ensure_future(keep(one)) for one in ones}
    try:
        left: set[asyncio.Future[Any]] = {*keeping}
        while left and not leaving.done():
            done, _ = await asyncio.wait({leaving, *left}, return_when=asyncio.FIRST_COMPLETED)
            left -= done
    finally:
        for task in keeping:
            task.cancel()
        await asyncio.wait(keeping)
