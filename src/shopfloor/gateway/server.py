"""The reverse proxy: listens on loopback, one way for each attempt, ``GET /health`` and ``GET /costs``."""

from __future__ import annotations

import asyncio
import hmac

import msgspec
from aiohttp import web

from shopfloor.domain.errors import Refused
from shopfloor.gateway import dialects
from shopfloor.gateway.exchange import MOST_BYTES, Exchange, Shared, Stop, broken_off, stopped
from shopfloor.gateway.ledger import Ledger
from shopfloor.gateway.routes import Way, end
from shopfloor.gateway.upstream import Broken

HOST = "127.0.0.1"
_GROUPS = ("run", "order", "attempt", "account", "model")
_CLOSE_S = 2.0


class Server:
    """Answers workers. `address` is there once it is open."""

    def __init__(self, shared: Shared, ledger: Ledger, *, token: str) -> None:
        """``token`` is asked for by ``GET /costs``."""
        self._shared, self._ledger, self._token = shared, ledger, token
        self._runner: web.AppRunner | None = None
        self._port = 0

    @property
    def address(self) -> str:
        """``http://127.0.0.1:PORT``."""
        return f"http://{HOST}:{self._port}"

    async def open(self, port: int = 0) -> None:
        """Listen; port 0: any that is free. Raises Refused."""
        app = web.Application(client_max_size=MOST_BYTES)
        app.router.add_get("/health", self._health)
        app.router.add_get("/costs", self._costs)
        app.router.add_route("*", "/w/{secret}/{tail:.*}", self._worker)
        app.router.add_route("*", "/{tail:.*}", self._nowhere)
        self._runner = web.AppRunner(
            app, access_log=None, handler_cancellation=True, shutdown_timeout=_CLOSE_S, handle_signals=False
        )
        await self._runner.setup()
        site = web.TCPSite(self._runner, HOST, port, backlog=1024)
        try:
            await site.start()
        except OSError as problem:
            await self._runner.cleanup()
            self._runner = None
            hint = "choose another one with --port, or 0 for any that is free"
            raise Refused(f"cannot listen on port {port} of {HOST}: {problem.strerror}", hint=hint) from problem
        self._port = self._runner.addresses[0][1]

    async def close(self) -> None:
        """End every call that is under way, and listen no more."""
        for way in list(self._shared.routes.ways()):
            await end(way.calls)
        if self._runner is not None:
            await self._runner.cleanup()
            self._runner = None

    async def _health(self, request: web.Request) -> web.Response:
        return web.json_response({"ok": True})

    async def _costs(self, request: web.Request) -> web.Response:
        if not hmac.compare_digest(_shown(request).encode(errors="replace"), self._token.encode()):
            return web.json_response({"error": "show the gateway's token: authorization: Bearer …"}, status=401)
        sums = {group: self._ledger.sums(group) for group in _GROUPS}
        body = msgspec.json.encode({"total": self._ledger.total, **sums})
        return web.Response(body=body, content_type="application/json")

    async def _nowhere(self, request: web.Request) -> web.Response:
        told = "there is nothing here: use the address that you were given, with the paths of your dialect behind it"
        return stopped(dialects.CHAT, Stop(dialects.NOT_FOUND, "not_found", told))

    async def _worker(self, request: web.Request) -> web.StreamResponse:
        place = dialects.locate(request.method, request.match_info["tail"], request.headers)
        dialect = place.dialect if place else dialects.CHAT
        way = self._shared.routes.find(request.match_info["secret"])
        if way is None or not way.shows(_shown(request)):
            return stopped(dialect, self._closed(request))
        if place is None:
            if request.method == "HEAD" or not request.match_info["tail"].strip("/"):
                return web.Response()  # some clients look whether anybody is there
            return await self._nowhere(request)
        try:
            ask = dialects.read(place, await request.read())
        except web.HTTPRequestEntityTooLarge:
            told = f"a request may have {MOST_BYTES >> 20} MB at the most"
            return stopped(dialect, Stop(dialects.TOO_LARGE, "request_too_large", told))
        except ValueError as problem:
            return stopped(dialect, Stop(dialects.BAD, "invalid_request_error", str(problem)))
        # The attempt may have ended while its last words arrived.
        if self._shared.routes.find(way.secret) is not way:
            return stopped(dialect, self._closed(request))
        return await self._exchange(Exchange(self._shared, way, request, ask), way, request)

    async def _exchange(self, exchange: Exchange, way: Way, request: web.Request) -> web.StreamResponse:
        task = asyncio.current_task()
        assert task is not None
        way.calls.add(task)
        try:
            return await exchange.perform()
        except Stop as stop:
            return exchange.refuse(stop)
        except (Broken, ConnectionError):
            await broken_off(request)
            return web.Response()
        finally:
            way.calls.discard(task)
            exchange.finish()

    def _closed(self, request: web.Request) -> Stop:
        status = dialects.stopping_status(request.headers.get("user-agent", ""))
        return Stop(status, "authentication_error", "this way is closed, or the token is not its own")


def _shown(request: web.Request) -> str:
    """The token that a request shows, wherever its dialect puts one."""
    headers = request.headers
    bearer = headers.get("authorization", "")
    if bearer[:7].lower() == "bearer ":
        return bearer[7:].strip()
    return headers.get("x-api-key") or headers.get("x-goog-api-key") or request.query.get("key", "")
