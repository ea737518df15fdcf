"""Calls to the model servers, with the real keys."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Protocol

import aiohttp

from shopfloor.config.accounts import Account
from shopfloor.gateway.dialects import Ask

CONNECT_S = 30.0
_LOCAL_IDLE_S, _IDLE_S = 4.0, 60.0
"""Seconds that an unused connection is kept: servers of this machine often hang up after 5 s."""
_READ_BYTES = 1 << 18

_OURS = frozenset(
    {
        *("connection", "keep-alive", "proxy-connection", "proxy-authenticate", "proxy-authorization", "te", "trailer"),
        *("transfer-encoding", "upgrade", "host", "content-length", "content-encoding", "accept-encoding", "expect"),
        *("authorization", "x-api-key", "x-goog-api-key", "cookie", "set-cookie", "forwarded", "via"),
    }
)
"""Headers of one connection, of a body's packing, or of somebody's identity: none goes from one side to the other."""


class Unreachable(Exception):
    """The model server did not answer, or broke off before it did."""


class Broken(Exception):
    """An answer ended before it was whole."""


class Answer(Protocol):
    """What a model server answers: never compressed."""

    @property
    def status(self) -> int: ...

    @property
    def headers(self) -> Mapping[str, str]:
        """By lower-case name."""
        ...

    def pieces(self) -> AsyncIterator[bytes]:
        """The body as it arrives. Raises Broken."""
        ...


class Source(Protocol):
    """Where answers come from: model servers, or a cassette."""

    def send(
        self, ask: Ask, account: Account, *, tail: str, query: str, headers: Mapping[str, str], body: bytes
    ) -> AbstractAsyncContextManager[Answer]:
        """The answer. Raises Unreachable, Refused when there is no key, NotFound when it was not recorded."""
        ...

    async def close(self) -> None:
        """Let go of everything."""
        ...


class Live:
    """An answer under way."""

    def __init__(self, response: aiohttp.ClientResponse) -> None:
        self._response = response
        self.status = response.status
        self.headers = {name.lower(): value for name, value in response.headers.items()}

    async def pieces(self) -> AsyncIterator[bytes]:
        """As `Answer` says."""
        try:
            async for piece in self._response.content.iter_any():
                yield piece
        except (aiohttp.ClientError, ConnectionError, TimeoutError) as problem:
            raise Broken(str(problem) or type(problem).__name__) from problem


class Upstream:
    """The model servers of all accounts. It must be opened in the loop that uses it."""

    def __init__(self, key_of: Callable[[Account], Mapping[str, str]]) -> None:
        """``key_of`` gives the header with an account's key, and raises Refused when there is none."""
        self._key_of = key_of
        self._sessions: dict[bool, aiohttp.ClientSession] = {}

    async def close(self) -> None:
        """Let go of every connection."""
        for session in self._sessions.values():
            await session.close()
        self._sessions.clear()

    @asynccontextmanager
    async def send(
        self, ask: Ask, account: Account, *, tail: str, query: str, headers: Mapping[str, str], body: bytes
    ) -> AsyncIterator[Answer]:
        """The answer to one call; leaving the block ends the call."""
        sent = {**headers, **self._key_of(account), "accept-encoding": "identity"}
        address = f"{account.base}/{tail}" + (f"?{query}" if query else "")
        response = await self._request(account, address, sent, body)
        try:
            yield Live(response)
        finally:
            response.close() if not response.content.at_eof() else response.release()

    async def _request(
        self, account: Account, address: str, headers: Mapping[str, str], body: bytes
    ) -> aiohttp.ClientResponse:
        session = self._session(account.local)
        for last in (False, True):
            try:
                return await session.request(
                    "POST" if body else "GET", address, headers=headers, data=body or None, allow_redirects=False
                )
            except aiohttp.ServerDisconnectedError as problem:
                # Mostly a kept connection that the server gave up at that very moment: the clients try again, too.
                if last:
                    raise Unreachable(f"account {account.name!r}: the server hung up") from problem
            except (aiohttp.ClientError, OSError, TimeoutError) as problem:
                why = str(problem) or type(problem).__name__
                raise Unreachable(f"account {account.name!r}: {why}") from problem
        raise AssertionError("unreachable")

    def _session(self, local: bool) -> aiohttp.ClientSession:  # noqa: FBT001 - it is the key
        if local not in self._sessions:
            connector = aiohttp.TCPConnector(limit=0, keepalive_timeout=_LOCAL_IDLE_S if local else _IDLE_S)
            self._sessions[local] = aiohttp.ClientSession(
                connector=connector,
                timeout=aiohttp.ClientTimeout(total=None, sock_connect=CONNECT_S),
                trust_env=not local,  # proxies are for the way out
                read_bufsize=_READ_BYTES,
                skip_auto_headers=("User-Agent", "Accept", "Content-Type"),
                cookie_jar=aiohttp.DummyCookieJar(),
            )
        return self._sessions[local]


def passing(headers: Mapping[str, str]) -> dict[str, str]:
    """The headers that go on to the other side, by lower-case name."""
    lower = {name.lower(): value for name, value in headers.items()}
    named = {name.strip().lower() for name in lower.get("connection", "").split(",")}
    return {name: value for name, value in lower.items() if name not in _OURS and name not in named}


async def whole(answer: Answer, limit: int) -> bytes | None:
    """All of an answer's body; None when it is longer than the limit. Raises Broken."""
    found = bytearray()
    async for piece in answer.pieces():
        found += piece
        if len(found) > limit:
            return None
        await asyncio.sleep(0)
    return bytes(found)
