"""HTTP/1.1 to one server: connections kept alive, every size and every wait bounded.

A request is sent once. One exception: a kept connection that turns out to be closed before anything came back is
replaced by a new one, because a server may close an idle connection at any moment. Leaving an answer early, or being
cancelled, closes its connection, and that is how the server learns of it.
"""

from __future__ import annotations

import asyncio
import socket
import ssl
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager, suppress
from urllib.parse import SplitResult

CONNECT_S = 5.0
HEAD_BYTES = 64 << 10
LOOPBACK = frozenset({"127.0.0.1", "localhost", "::1"})
"""Names of this machine."""
KEPT = 64
"""idle connections, at most"""
CHUNK = 1 << 16
_KEEPALIVE = (("TCP_KEEPIDLE", 30), ("TCP_KEEPINTVL", 10), ("TCP_KEEPCNT", 3))
"""A machine that vanished is noticed after a minute, however long an answer may take."""


class Unreachable(Exception):
    """There was no answer, or not a whole one. ``sent``: the server may have begun with the request."""

    def __init__(self, why: str, *, sent: bool) -> None:
        super().__init__(why)
        self.sent = sent


class Answer:
    """The head of an answer, and its body in pieces as they come."""

    def __init__(self, status: int, headers: Mapping[str, str], reader: asyncio.StreamReader) -> None:
        self.status = status
        self.headers = headers
        """names in lower case"""
        self.done = False
        """its body has been read to the end"""
        self._reader = reader

    @property
    def closes(self) -> bool:
        """Whether the connection ends with it."""
        return "close" in self.headers.get("connection", "").lower() or not self._framed

    @property
    def _framed(self) -> bool:
        return self._empty or "content-length" in self.headers or self._chunked

    @property
    def _chunked(self) -> bool:
        return self.headers.get("transfer-encoding", "").lower().endswith("chunked")

    @property
    def _empty(self) -> bool:
        return self.status in (204, 304)

    async def pieces(self) -> AsyncIterator[bytes]:
        """The body. Raises Unreachable when it breaks off."""
        try:
            source = self._chunks() if self._chunked else self._plain()
            async for piece in source:
                yield piece
        except (OSError, EOFError, ValueError, asyncio.LimitOverrunError) as error:
            raise Unreachable(f"its answer broke off ({said(error)})", sent=True) from None
        self.done = True

    async def body(self, most: int) -> bytes:
        """All of it. Raises Unreachable when it breaks off or has more than ``most`` bytes."""
        found = bytearray()
        async for piece in self.pieces():
            found += piece
            if len(found) > most:
                raise Unreachable(f"its answer has more than {most} bytes", sent=True)
        return bytes(found)

    async def _plain(self) -> AsyncIterator[bytes]:
        text = self.headers.get("content-length")
        if text is not None and not (text.isascii() and text.isdigit()):
            raise ValueError(text)
        left = 0 if self._empty else int(text) if text is not None else -1
        while left:
            piece = await self._reader.read(min(CHUNK, left) if left > 0 else CHUNK)
            if not piece:
                if left > 0:
                    raise EOFError
                return
            left -= len(piece) if left > 0 else 0
            yield piece

    async def _chunks(self) -> AsyncIterator[bytes]:
        while True:
            line = await self._reader.readuntil(b"\n")
            left = int(line.partition(b";")[0], 16)
            if left < 0:
                raise ValueError(left)
            if not left:
                break
            while left:
                piece = await self._reader.read(min(CHUNK, left))
                if not piece:
                    raise EOFError
                left -= len(piece)
                yield piece
            await self._reader.readuntil(b"\n")
        while (await self._reader.readuntil(b"\n")).strip():
            pass  # trailers


_Pair = tuple[asyncio.StreamReader, asyncio.StreamWriter]


class Client:
    """Requests to one server."""

    def __init__(self, url: SplitResult) -> None:
        """``url`` is ``http`` or ``https`` with a host."""
        self._host = url.hostname or ""
        self._tls = ssl.create_default_context() if url.scheme == "https" else None
        self._port = url.port or (443 if self._tls else 80)
        self._name = url.netloc.rpartition("@")[2]
        self._idle: list[_Pair] = []

    @asynccontextmanager
    async def request(
        self, method: str, path: str, body: bytes = b"", headers: Mapping[str, str] | None = None
    ) -> AsyncIterator[Answer]:
        """Send a request; its answer is to be read inside. Raises Unreachable."""
        told = {"host": self._name, "content-length": str(len(body)), **(headers or {})}
        head = f"{method} {path} HTTP/1.1\r\n" + "".join(f"{name}: {text}\r\n" for name, text in told.items())
        pair, answer = await self._answered(head.encode("latin-1", "replace") + b"\r\n" + body)
        try:
            yield answer
        finally:
            if answer.done and not answer.closes and len(self._idle) < KEPT:
                self._idle.append(pair)
            else:
                pair[1].transport.abort()

    def close(self) -> None:
        """Close what is kept."""
        while self._idle:
            _, writer = self._idle.pop()  # held while it is closed: one that nobody holds complains
            writer.transport.abort()

    async def _answered(self, data: bytes) -> tuple[_Pair, Answer]:
        while self._idle:
            pair = self._idle.pop()
            if pair[0].at_eof():
                pair[1].transport.abort()
                continue
            with suppress(_Stale):
                return pair, await _exchange(pair, data, kept=True)
        pair = await self._connect()
        return pair, await _exchange(pair, data, kept=False)

    async def _connect(self) -> _Pair:
        try:
            async with asyncio.timeout(CONNECT_S):
                pair = await asyncio.open_connection(self._host, self._port, ssl=self._tls, limit=HEAD_BYTES)
        except TimeoutError:
            raise Unreachable(f"no connection within {CONNECT_S:g} s", sent=False) from None
        except (OSError, ValueError) as error:
            raise Unreachable(said(error), sent=False) from None
        keep_alive(pair[1].get_extra_info("socket"))
        return pair


def keep_alive(connection: socket.socket) -> None:
    """Let the system look from time to time whether the other machine is still there."""
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for name, value in _KEEPALIVE:
        if (option := getattr(socket, name, None)) is not None:
            connection.setsockopt(socket.IPPROTO_TCP, option, value)


class _Stale(Exception):
    """A kept connection was closed meanwhile."""


async def _exchange(pair: _Pair, data: bytes, *, kept: bool) -> Answer:
    """Send, and read the head of the answer. Raises Unreachable, or _Stale on a kept connection that was closed."""
    reader, writer = pair
    whole = False
    try:
        writer.write(data)
        # An answer may come before the whole request is taken: a server that refuses it reads no further.
        draining = asyncio.ensure_future(writer.drain())
        try:
            status, headers = await _head(reader)
        finally:
            draining.cancel()
            await asyncio.wait({draining})
            if not draining.cancelled():
                draining.exception()  # when it could not send, the answer says why, or its end does
        whole = True
        return Answer(status, headers, reader)
    except asyncio.IncompleteReadError as error:
        if kept and not error.partial:
            raise _Stale from None
        raise Unreachable("it closed the connection without an answer", sent=True) from None
    except OSError as error:
        if kept:
            raise _Stale from None
        raise Unreachable(said(error), sent=True) from None
    except (ValueError, asyncio.LimitOverrunError):
        raise Unreachable("its answer is not HTTP", sent=True) from None
    finally:
        if not whole:
            writer.transport.abort()


async def _head(reader: asyncio.StreamReader) -> tuple[int, dict[str, str]]:
    """Status and headers. Raises ValueError for anything but HTTP/1.x."""
    while True:
        first = (await reader.readuntil(b"\n")).decode("latin-1").split(None, 2)
        if len(first) < 2 or not first[0].startswith("HTTP/1.") or not first[1].isascii():  # noqa: PLR2004 - version, status
            raise ValueError(first)
        status, headers, size = int(first[1]), {"connection": "close"} if first[0] == "HTTP/1.0" else {}, 0
        while line := (await reader.readuntil(b"\n")).strip():
            size += len(line)
            if size > HEAD_BYTES:
                raise ValueError(size)
            name, _, text = line.decode("latin-1").partition(":")
            headers[name.strip().lower()] = text.strip()
        if status >= 200 or status == 101:  # noqa: PLR2004 - before it come words on the way
            return status, headers


def said(error: Exception) -> str:
    """What the system said, without numbers and names that say nothing."""
    if isinstance(error, ConnectionRefusedError):
        return "connection refused"
    text = (error.strerror if isinstance(error, OSError) else "") or str(error) or type(error).__name__
    return text.lower()
