"""Many small requests to one server at the same time: connections kept alive, every size bounded, no task for any.

A request is sent once, with the one exception that `_transport` makes too: a kept connection that turns out to be
closed before anything came back is replaced by a new one. Whoever is cancelled while waiting closes the connection.
Answers are read whole; what may be long, or is to be read as it comes, is for `_transport`.
"""

from __future__ import annotations

import asyncio
import errno
import math
import resource
import ssl
from collections.abc import Callable
from typing import NamedTuple, cast
from urllib.parse import SplitResult

import httptools

from shopfloor.agents._transport import CONNECT_S, HEAD_BYTES, LOOPBACK, Unreachable, keep_alive, said
from shopfloor.domain.servers import Turns

BODY_BYTES = 16 << 20
"""of an answer"""
_OTHERS = 256
"""descriptors that are left to everything else in this process"""
_AGAIN_S = 0.005
_CROWDED = frozenset({errno.EMFILE, errno.ENFILE, errno.EADDRNOTAVAIL})


class _Crowded(Exception):
    """This process cannot have one more connection. That is no fault of the server."""


class Late(Unreachable):
    """The answer took too long."""


class Reply(NamedTuple):
    """A whole answer."""

    status: int
    body: bytes
    rest_s: str = ""
    """``Retry-After`` as it was sent"""


class Room:
    """How many connections there may be to all servers together."""

    def __init__(self, most: int) -> None:
        self.most = most
        self.open = 0
        self.evict: Callable[[], bool] = lambda: False
        """closes a connection that nobody uses now, to whatever server; whether there was one"""


class _Stale(Exception):
    """A kept connection was closed meanwhile."""


class _Connection(asyncio.Protocol):
    """One connection, one request at a time."""

    def __init__(self, owner: Connections) -> None:
        self._owner = owner
        self._transport: asyncio.Transport
        self._reply: asyncio.Future[Reply] | None = None
        self._parser = httptools.HttpResponseParser(self)
        self._clear()
        self._used = False
        self.closed = False

    def _clear(self) -> None:
        self._headed = self._framed = self._kept = self._done = False
        self._head = self._size = 0
        self._pieces: list[bytes] = []
        self._rest_s = ""

    # -- what asyncio calls -------------------------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)  # that of uvloop is none by its class
        self._owner.made()
        if not self._owner.here:  # this machine does not vanish, and to say so takes as long as to connect
            keep_alive(transport.get_extra_info("socket"))

    def data_received(self, data: bytes) -> None:
        if self._reply is None or self._reply.done():
            self.close()  # nobody asked
            return
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserError:
            self._fail("its answer broke off (it is not HTTP)" if self._headed else "its answer is not HTTP")
            return
        if not self._headed:
            self._head += len(data)
            if self._head > HEAD_BYTES:
                self._fail("its answer is not HTTP (its head has no end)")
        elif self._done:
            self._deliver(keep=self._kept)
        elif self._size > BODY_BYTES:
            self._fail(f"its answer has more than {BODY_BYTES} bytes")

    def connection_lost(self, exc: Exception | None) -> None:
        self.closed = True
        self._owner.lost()
        if self._reply is None or self._reply.done():
            return
        if self._headed and not self._framed and exc is None:
            self._deliver(keep=False)
        elif self._headed:
            self._fail(f"its answer broke off ({said(exc) if exc else 'it closed the connection'})")
        elif self._used and not self._head:
            self._reply.set_exception(_Stale)
        else:
            self._fail(said(exc) if exc else "it closed the connection without an answer")

    # -- what the parser calls ----------------------------------------------------------------------------------------

    def on_header(self, name: bytes, value: bytes) -> None:
        kind = name.lower()
        if kind in (b"content-length", b"transfer-encoding"):
            self._framed = True
        elif kind == b"retry-after":
            self._rest_s = value.decode("latin-1")

    def on_headers_complete(self) -> None:
        self._headed = True
        self._kept = self._parser.should_keep_alive()  # asked later it knows no more

    def on_body(self, piece: bytes) -> None:
        self._size += len(piece)
        if self._size <= BODY_BYTES:
            self._pieces.append(piece)

    def on_message_complete(self) -> None:
        if self._parser.get_status_code() >= 200:  # noqa: PLR2004 - before it come words on the way
            self._done = True
        else:
            self._headed = self._framed = False

    # -- what the owner calls -----------------------------------------------------------------------------------------

    def send(self, data: bytes) -> asyncio.Future[Reply]:
        """What is awaited, and told of to `over`, whatever comes of it."""
        if self.closed:
            raise _Stale
        reply = self._reply = self._owner.loop.create_future()
        self._transport.write(data)
        return reply

    def over(self) -> None:
        """Nobody waits for an answer any more: be kept for another, or be closed."""
        reply, self._reply = self._reply, None
        if reply is not None and reply.done() and not reply.cancelled():
            reply.exception()  # seen, also by one who was cancelled at that very moment
        if not self._done or self.closed:
            self.close()
        else:
            self._used = True
            self._clear()
            self._owner.idle.append(self)

    def close(self) -> None:
        if not self.closed:
            self.closed = True
            self._transport.abort()

    def _deliver(self, *, keep: bool) -> None:
        if self._reply is not None and not self._reply.done():
            self._done = keep
            self._reply.set_result(Reply(self._parser.get_status_code(), b"".join(self._pieces), self._rest_s))

    def fail(self, why: Unreachable) -> None:
        """There will be no answer."""
        if self._reply is not None and not self._reply.done():
            self._reply.set_exception(why)
        self.close()

    def _fail(self, why: str) -> None:
        self.fail(Unreachable(why, sent=True))


class Connections:
    """Requests to one server, from one event loop."""

    def __init__(self, url: SplitResult, room: Room) -> None:
        """``url`` is ``http`` or ``https`` with a host."""
        self.loop = asyncio.get_running_loop()
        self.idle: list[_Connection] = []
        self.turns = Turns()
        self._waiting: dict[int, tuple[_Connection, str, float]] = {}
        self._room = room
        self._host = url.hostname or ""
        self.here = self._host in LOOPBACK
        self._tls = ssl.create_default_context() if url.scheme == "https" else None
        self._port = url.port or (443 if self._tls else 80)
        self._name = url.netloc.rpartition("@")[2].encode("latin-1", "replace")

    def head(self, method: str, path: str) -> bytes:
        """The beginning of a request, up to the length of its body."""
        line = f"{method} {path} HTTP/1.1\r\nhost: ".encode("latin-1", "replace")
        return line + self._name + b"\r\ncontent-type: application/json\r\ncontent-length: "

    async def ask(self, head: bytes, body: bytes = b"", *, limit_s: float = math.inf, name: str = "it") -> Reply:
        """Send a request that begins with ``head``. Raises Unreachable, and Late, which names it, when `look` says so.

        ``limit_s``: seconds that the answer may take, counted as `Turns` counts them.
        """
        data = b"%s%d\r\n\r\n%s" % (head, len(body), body)
        until = 0.0
        while True:
            kept = bool(self.idle)
            try:
                connection = self.idle.pop() if kept else await self._connect()
            except _Crowded:
                until = await self._crowded(until)
                continue
            number = self.turns.send(self.loop.time(), limit_s)
            self._waiting[number] = connection, name, limit_s
            answered = False
            try:
                reply = await connection.send(data)
                answered = True
                return reply
            except _Stale:
                if not kept:
                    raise Unreachable("it closed the connection without an answer", sent=False) from None
            finally:
                connection.over()
                del self._waiting[number]
                (self.turns.answered if answered else self.turns.gone)(number)

    def look(self) -> None:
        """Give up what has taken too long; to be called several times within the narrowest limit."""
        for number in self.turns.overdue(self.loop.time()):
            connection, name, limit_s = self._waiting[number]
            connection.fail(Late(f"no answer to {name} within {limit_s:g} s", sent=True))

    def drop(self, most: int = 0) -> bool:
        """Close what is kept beyond ``most``; whether there was something."""
        found = len(self.idle) > most
        while len(self.idle) > most:
            self.idle.pop(0).close()
        return found

    def made(self) -> None:
        """One more is open."""
        self._room.open += 1

    def lost(self) -> None:
        """One of them is closed."""
        self._room.open -= 1

    async def _crowded(self, until: float) -> float:
        """Wait a moment for room; until when that goes on. Raises Unreachable when that was it."""
        now = self.loop.time()
        if until and now > until:
            raise Unreachable("this process cannot open one more connection (see ulimit -n)", sent=False)
        # Closing takes a moment, too: the loop has to come around.
        await asyncio.sleep(0 if self._room.evict() else _AGAIN_S)
        return until or now + CONNECT_S

    async def _connect(self) -> _Connection:
        if self._room.open >= self._room.most:
            raise _Crowded
        self._room.open += 1  # as long as it is not made
        try:
            async with asyncio.timeout(CONNECT_S):
                _, connection = await self.loop.create_connection(
                    lambda: _Connection(self), self._host, self._port, ssl=self._tls
                )
        except TimeoutError:
            raise Unreachable(f"no connection within {CONNECT_S:g} s", sent=False) from None
        except (OSError, ValueError) as error:
            if isinstance(error, OSError) and error.errno in _CROWDED:
                raise _Crowded from None
            raise Unreachable(said(error), sent=False) from None
        finally:
            self._room.open -= 1
        return connection


def connections_at_most() -> int:
    """How many connections this process may have to all servers: what its limit leaves beside everything else."""
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft == resource.RLIM_INFINITY:
        return 1 << 16
    return max(8, soft // 2, soft - _OTHERS)
