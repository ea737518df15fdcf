"""The controller's end: listens, reads a line, has it answered, writes a line, and so on for each connection alone."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import struct
from itertools import count
from pathlib import Path
from typing import Any

import msgspec

from shopfloor.domain.errors import Conflict, Refused, ShopfloorError, UsageError
from shopfloor.ports import Caller, Service
from shopfloor.wire._place import LINE_LIMIT, NAME, address

MOST = 512
"""Connections at once; one more is told so and hung up on."""

_BACKLOG = 512
_decoder = msgspec.json.Decoder(dict[str, Any])


class SocketDoor:
    """A :class:`shopfloor.ports.Door` on a Unix socket that only this user may open."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._server: asyncio.Server | None = None
        self._place = contextlib.ExitStack()
        self._links: dict[asyncio.Task[None], asyncio.StreamWriter] = {}
        self._numbers = count(1)

    async def open(self, service: Service) -> None:
        """Listen. What an earlier controller left there is taken away: we alone lead. Raises Refused."""
        listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            (self._folder / NAME).unlink(missing_ok=True)
            # Since Python 3.13 asyncio looks at the address again, as it begins to serve and as it ends.
            listener.bind(self._place.enter_context(address(self._folder)))
            (self._folder / NAME).chmod(0o600)
            listener.listen(_BACKLOG)
        except OSError as problem:
            listener.close()
            self._place.close()
            raise Refused(f"cannot listen at {str(self._folder / NAME)!r}: {problem.strerror}") from problem

        def welcome(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            task = asyncio.ensure_future(self._serve(service, reader, writer))
            self._links[task] = writer
            task.add_done_callback(self._links.pop)

        self._server = await asyncio.start_unix_server(welcome, sock=listener, limit=LINE_LIMIT)

    async def close(self) -> None:
        """Hang up on everybody and take the socket away."""
        server, self._server = self._server, None
        if server is None:
            return
        (self._folder / NAME).unlink(missing_ok=True)
        server.close()
        self._place.close()
        links = dict(self._links)
        for task, writer in links.items():
            task.cancel()
            writer.transport.abort()  # also of one that was not begun to be served
        await asyncio.gather(*links, return_exceptions=True)
        await asyncio.sleep(0)  # the transports let go of their sockets in the loop's next turn

    async def _serve(self, service: Service, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        pid, user = _peer(writer)
        caller = Caller(number=next(self._numbers), pid=pid)
        try:
            if user not in (os.getuid(), 0):
                return
            if len(self._links) > MOST:
                await _say(writer, _told(Refused(f"{MOST} connections are open already", hint="try again later")))
                return
            while True:
                await self._turn(service, caller, reader, writer)
                # Also who is refused at once, again and again, lets the others have their turn.
                await asyncio.sleep(0)
        except (ConnectionError, asyncio.IncompleteReadError):
            pass  # it hung up
        finally:
            writer.close()
            if self._server is not None:  # or it is we who hang up, and a session that lives keeps what it holds
                with contextlib.suppress(ShopfloorError):
                    await service.gone(caller)

    async def _turn(
        self, service: Service, caller: Caller, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        """One request and its reply."""
        try:
            line = await _line(reader)
            reply = {"ok": True, **await service.answer(caller, _decoder.decode(line))}
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as problem:
            reply = _told(UsageError(f"a request is no JSON object: {problem}"))
        except ShopfloorError as problem:
            reply = _told(problem)
        await _say(writer, reply)


async def _line(reader: asyncio.StreamReader) -> bytes:
    """The next line. Raises UsageError for one that is too long, when it is over; nothing of it is kept."""
    length = 0
    while True:
        try:
            line = await reader.readuntil(b"\n")
        except asyncio.LimitOverrunError as problem:
            length += len(await reader.readexactly(problem.consumed))
            continue
        if length:
            raise UsageError(f"a request is {length + len(line)} bytes long, at most {LINE_LIMIT} are taken")
        return line


async def _say(writer: asyncio.StreamWriter, reply: dict[str, Any]) -> None:
    writer.write(msgspec.json.encode(reply) + b"\n")
    await writer.drain()  # who does not read waits here, and keeps nobody else


def _told(problem: ShopfloorError) -> dict[str, Any]:
    kind = "Conflict" if isinstance(problem, Conflict) else type(problem).__name__
    return {"ok": False, "error": {"kind": kind, "message": problem.message, "hint": problem.hint}}


def _peer(writer: asyncio.StreamWriter) -> tuple[int, int]:
    """Process and user at the other end; 0 and ours where the system does not say."""
    link = writer.get_extra_info("socket")
    if not hasattr(socket, "SO_PEERCRED"):
        return 0, os.getuid()
    pid, user, _group = struct.unpack("3i", link.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12))
    return pid, user
