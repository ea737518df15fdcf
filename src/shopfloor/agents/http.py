"""Agents that are servers: an order is POSTed as JSON to one of the profile's addresses, its answer is what came of it.

The request has the attempt's id as its ``Idempotency-Key``, so that a server that gets it twice can tell. When a
connection breaks, the server is asked whether it still answers: one that does gets the same request again, else another
one gets it. Never are two requests of one attempt under way.

An answer may be

- ``application/x-ndjson`` (or ``jsonl``): the events of the driver ``jsonlines``, as they come;
- ``application/json``: an object with ``status`` or ``success``, ``result`` (or ``code``), ``error``, ``cost``
  (``{total, tokens_in, tokens_out}``) and ``files`` (path to text, or null for one that is to go), all optional;
- anything else: text, which is the result.

A server on this machine may also work in the ``workspace`` that it is told.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import suppress
from functools import partial
from pathlib import Path

import msgspec

from shopfloor.agents._answer import Reading, request_of
from shopfloor.agents._attempts import Attempts, deaf
from shopfloor.agents._process import attempt_files, require_workspace
from shopfloor.agents._run import Files, Teller
from shopfloor.agents._servers import PATIENCE_S, Server, Servers, addresses, probed
from shopfloor.agents._transport import LOOPBACK, Answer, Unreachable
from shopfloor.domain.errors import Refused
from shopfloor.masking import Masker
from shopfloor.ports import Capabilities, Delivery, Handle, Kind, Launch, Probe, Profile, Report
from shopfloor.spawn import Guard

PATH = "/orders"
"""where an order goes when an address has no path of its own"""
FEWEST_TRIES = 4


class HttpAgent:
    """Sends orders to servers."""

    driver = "http"
    capabilities = Capabilities(cost=True, tokens=True)

    def __init__(
        self,
        guard: Guard,
        *,
        environment: Mapping[str, str] | None = None,
        root: Path | None = None,
        wall: Callable[[], float] = time.time,
        patience_s: float = PATIENCE_S,
    ) -> None:
        """``patience_s``: so long all servers may be down before an attempt is given up."""
        self._wall = wall
        self._patience_s = patience_s
        self._servers: dict[tuple[str, ...], Servers] = {}
        self._attempts: Attempts[_Request] = Attempts("it did not outlive the controller that started it")

    async def probe(self, profile: Profile) -> Probe:
        """Ask the servers for their health; one that answers is enough."""
        return await probed(profile, self.capabilities)

    async def start(self, launch: Launch) -> Handle:
        """Wait for a server that is free, and send it the order.

        Raises Refused when no server answers, or when the attempt runs already.
        """
        run = await self._attempts.start(launch.attempt, partial(self._start, launch))
        return Handle(driver=self.driver, attempt=launch.attempt, detail={"url": run.server.url})

    async def _start(self, launch: Launch) -> _Request:
        require_workspace(launch)
        urls = tuple(addresses(launch.profile))
        if urls not in self._servers:
            self._servers[urls] = Servers(urls, patience_s=self._patience_s)
        servers = self._servers[urls]
        server = await servers.take()
        try:
            masker = Masker((*launch.secrets, *((launch.route.token,) if launch.route else ())))
            files = attempt_files(launch, masker.text(launch.prompt))
        except Refused:
            servers.give(server)
            raise
        return _Request(launch, servers, server, files=files, masker=masker, teller=Teller(files, self._wall))

    def follow(self, handle: Handle) -> AsyncIterator[Report]:
        """Everything it reports; see :meth:`Attempts.follow`."""
        return self._attempts.follow(handle.attempt)

    async def send(self, handle: Handle, text: str) -> Delivery:
        """Raises Refused: a request is sent once."""
        raise deaf(handle.attempt, "its order is sent and cannot be added to")

    async def stop(self, handle: Handle) -> None:
        """Close the connection; harmless when it has ended."""
        if run := self._attempts.get(handle.attempt):
            await run.stop()


class _Request:
    """One order on its way, until its answer is read to the end."""

    def __init__(
        self, launch: Launch, servers: Servers, server: Server, *, files: Files, masker: Masker, teller: Teller
    ) -> None:
        self.server = server
        self.teller = teller
        self.mailbox = teller.mailbox
        self.followed = False
        self.stopping = False
        self._launch = launch
        self._servers = servers
        self._files = files
        self._masker = masker
        self._reading = Reading(masker, Path(launch.workspace))
        self._holding = True
        """the server is ours"""
        self._work = asyncio.create_task(self._send())
        self.task = asyncio.create_task(self._live())

    async def stop(self) -> None:
        """End it; returns when its connection is closed and everything it said is kept."""
        if not self.task.done():
            self.stopping = True
            self.teller.mailbox.unbind()
            self._work.cancel()
            await asyncio.wait({self.task})

    async def _live(self) -> None:
        """Until its EXITED, whatever happens in between."""
        why = ""
        try:
            await asyncio.wait({self._work})
        finally:
            self._work.cancel()
            await asyncio.wait({self._work})
            if not self._work.cancelled() and self._work.exception() is None:
                why = self._work.result()
            if self._holding:
                self._servers.give(self.server)
            self.teller.mailbox.unbind()
            await self.teller.tell(self._exited(why), force=True)
            self._files.close()
        if not self._work.cancelled():
            self._work.result()

    def _exited(self, why: str) -> Report:
        report = self._reading.ended(why)
        if self.stopping:
            report = msgspec.structs.replace(report, status="killed", text="it was stopped")
        return msgspec.structs.replace(report, data={"url": self.server.url})

    async def _send(self) -> str:
        """Bring the order to its end with one server or another. Returns why that failed; empty: it did not."""
        await self.teller.tell(Report(kind=Kind.STARTED, text=self._launch.profile.name, data={"url": self.server.url}))
        tried: set[str] = set()
        most = max(FEWEST_TRIES, 2 * len(self._servers.all))
        for number in range(1, most + 1):
            tried.add(self.server.url)
            why, again = await self._try()
            if not again:
                return why
            text = f"{self.server.url}: {why}"
            if number == most:
                return f"{text} (the last of {most} tries)"
            await self.teller.tell(Report(kind=Kind.RETRYING, text=text, data={"url": self.server.url}))
            self._reading.begin_again()
            try:
                self.server = await self._servers.take(frozenset(tried))
                self._holding = True
            except Refused as refused:
                return refused.message
        raise AssertionError(most)

    async def _try(self) -> tuple[str, bool]:
        """One server. Returns why it failed, empty when it did not, and whether another may do better."""
        server, failed, rest_s = self.server, "", None
        try:
            while True:
                try:
                    why, again, rest_s = await self._ask(server)
                except Unreachable as error:
                    failed = str(error)
                    # It may still be at work: then nobody else may have the order, and it knows the request again.
                    if not error.sent or not await server.ask():
                        return failed, True
                    if self._reading.asked_again:
                        return f"{failed}, twice", False
                    self._reading.begin_again()
                    self._reading.asked_again = True
                    await self.teller.tell(Report(kind=Kind.RETRYING, text=failed, data={"url": server.url}))
                else:
                    failed = why if again else ""
                    return why, again
        finally:
            self._holding = False
            self._servers.give(server, failed=failed, rest_s=rest_s)

    async def _ask(self, server: Server) -> tuple[str, bool, float | None]:
        """One request. Returns why it failed, whether another server may do better, and how long this one asks for."""
        headers = {
            "content-type": "application/json",
            "accept": "application/x-ndjson, application/json, text/plain",
            "idempotency-key": self._launch.attempt,
        }
        body = request_of(self._launch, local=server.parts.hostname in LOOPBACK)
        path = server.parts.path or PATH
        if server.parts.query:
            path += f"?{server.parts.query}"
        async with server.client.request("POST", path, body, headers) as answer:
            if answer.status >= 300:  # noqa: PLR2004 - where success ends
                text = (await answer.body(_FAULT_BYTES)).decode(errors="replace").strip()
                why = f"answered {answer.status}" + (f": {self._masker.text(text)[:500]}" if text else "")
                return why, answer.status in _ELSEWHERE, _wanted_rest(answer)
            masked = self._masker.stream()
            self._reading.open(answer.headers.get("content-type", ""))
            async for piece in answer.pieces():
                await self.teller.keep("stdout", masked.feed(piece))
                await self.teller.tell_all(self._reading.feed(piece))
            await self.teller.keep("stdout", masked.close())
            await self.teller.tell_all(self._reading.close())
        return "", False, None


_FAULT_BYTES = 1 << 20
_ELSEWHERE = frozenset({408, 425, 429, 500, 502, 503, 504})
"""what another server may not answer"""


def _wanted_rest(answer: Answer) -> float | None:
    with suppress(ValueError):
        return max(0.0, float(answer.headers.get("retry-after", "")))
    return None
