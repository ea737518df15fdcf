"""The other end: a connection to the controller that listens."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Self

import msgspec

from shopfloor.domain.errors import Conflict, NotFound, Refused, ShopfloorError, UsageError
from shopfloor.wire._place import LINE_LIMIT, address

_REPLY_LIMIT = 1 << 28
_ERRORS = {kind.__name__: kind for kind in (ShopfloorError, UsageError, NotFound, Refused, Conflict)}


class HungUp(ConnectionError):
    """The controller has ended, or is ending, before it replied."""


class Wire:
    """One connection, one request at a time."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer

    @classmethod
    async def connect(cls, folder: Path) -> Self | None:
        """Connect to the controller of a ``.work`` folder; None when none listens."""
        try:
            with address(folder) as place:
                return cls(*await asyncio.open_unix_connection(place, limit=_REPLY_LIMIT))
        except (FileNotFoundError, NotADirectoryError, ConnectionError):
            return None

    async def ask(self, request: Mapping[str, Any]) -> dict[str, Any]:
        """The reply. Raises what the controller refused with, HungUp when it is gone."""
        line = msgspec.json.encode(request) + b"\n"
        if len(line) > LINE_LIMIT:
            raise UsageError(f"a request is {len(line)} bytes long, at most {LINE_LIMIT} are taken")
        try:
            self._writer.write(line)
            await self._writer.drain()
            reply = msgspec.json.decode(await self._reader.readuntil(b"\n"), type=dict[str, Any])
        except (ConnectionError, asyncio.IncompleteReadError, asyncio.LimitOverrunError) as problem:
            raise HungUp("the controller has hung up") from problem
        error = reply.get("error")
        if isinstance(error, dict):
            kind = _ERRORS.get(str(error.get("kind")), ShopfloorError)
            raise kind(str(error.get("message", "")), hint=str(error.get("hint", "")))
        return reply

    async def close(self) -> None:
        """Hang up."""
        self._writer.close()
        try:
            await self._writer.wait_closed()
        except ConnectionError:
            return
