"""One call from the worker's request to the last byte of its answer, and what is written down of it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from urllib.parse import parse_qsl, urlencode

import msgspec
from aiohttp import web

from shopfloor.config.accounts import Account
from shopfloor.domain.budget import Hold, Over, likely_tokens
from shopfloor.domain.errors import NotFound, Refused
from shopfloor.gateway import dialects
from shopfloor.gateway.accounts import Accounts
from shopfloor.gateway.dialects import FAMILY, Ask
from shopfloor.gateway.price import Prices
from shopfloor.gateway.quota import verdict
from shopfloor.gateway.routes import Routes, Way
from shopfloor.gateway.stream import WithoutUsage
from shopfloor.gateway.upstream import Answer, Broken, Source, Unreachable, passing, whole
from shopfloor.gateway.usage import Meter, Usage
from shopfloor.masking import Masker
from shopfloor.ports import Clock, ModelCall, Quota

MOST_BYTES = 64 << 20
"""of a request, and of an answer that is not streamed"""
_BAD_REQUEST = frozenset({400, 422})
_EVENTS = "text/event-stream"


class Shared(msgspec.Struct, frozen=True, kw_only=True):
    """What all calls of a gateway have in common."""

    routes: Routes
    accounts: Accounts
    prices: Prices
    source: Source
    masker: Masker
    clock: Clock
    tell: Callable[[ModelCall | Quota], None]
    """takes a call when it is over, and an account that has closed"""
    free: bool = False
    """answers come from a cassette: nothing is spent"""


class Stop(Exception):
    """An answer of ours instead of a model server's."""

    def __init__(
        self, status: int, kind: str, message: str, *, refused: str = "", limit: str = "", retry_after_s: float = 0
    ) -> None:
        super().__init__(message)
        self.status, self.kind, self.message = status, kind, message
        self.refused, self.limit, self.retry_after_s = refused, limit, retry_after_s


class Exchange:
    """Perform it once: ``await Exchange(…).perform()``, then `finish` whatever happened."""

    def __init__(self, shared: Shared, way: Way, request: web.Request, ask: Ask) -> None:
        self.shared, self.way, self.request, self.ask = shared, way, request, ask
        self.began_wall, self._began = shared.clock.wall(), shared.clock.awake()
        self._agent = request.headers.get("user-agent", "")
        self._hold: Hold | None = None
        self._settled: tuple[Usage, bool, float | None] | None = None
        self._meter = Meter(ask.place.dialect)
        self._account: Account | None = None
        self._model = ask.model
        self._first_byte = 0.0
        self._status = 0
        self._refused = self._limit = self._why = ""
        self._sent = False
        """something of it has reached a model server, which has not refused it"""

    async def perform(self) -> web.StreamResponse:
        """The answer. Raises Stop for one of ours."""
        chain = self.shared.accounts.chain(self.way.account, FAMILY[self.ask.place.dialect])
        if not chain:
            who = f"account {self.way.account!r}" if self.way.account else "no account of this gateway"
            told = f"{who} does not speak {FAMILY[self.ask.place.dialect]}"
            raise self._stop("wrong_dialect", told if self.way.account else told.replace("does not speak", "speaks"))
        ready = self._open(chain)
        self._account = ready[0]
        if not self.ask.place.free:
            await self._reserve(ready[0])
        while True:
            self._account, *rest = ready
            self._model = self._account.models.get(self.ask.model, self._account.models.get("*", self.ask.model))
            response = await self._forward(spill=bool(rest))
            if response is not None:
                return response
            ready = self._open(rest)

    def finish(self) -> None:
        """Settle what is not settled, and write it down; exactly once, also when the worker hung up."""
        usage, estimated, cost = self._settle()
        call = ModelCall(
            at=self.began_wall,
            attempt=self.way.attempt,
            order=self.way.order,
            run=self.way.run,
            account=self._account.name if self._account else "",
            dialect=self.ask.place.dialect,
            model=self._model,
            status=self._status,
            refused=self._refused,
            why=self._why,
            replayed=self._sent and self.shared.free,
            limit=self._limit,
            tokens_in=usage.into,
            tokens_out=usage.out,
            tokens_cached=usage.cached,
            cost_usd=cost,
            estimated=estimated,
            first_byte_s=self._first_byte,
            took_s=self.shared.clock.awake() - self._began,
        )
        if self.request.method == "POST":  # a list of models is no call
            self.shared.routes.count(self.way, call)
            self.shared.tell(call)

    def _settle(self) -> tuple[Usage, bool, float | None]:
        """What it used, whether that is an estimate, and what it cost: out of the purses, once.

        Before the worker has the end of its answer: its next call is reckoned by this one.
        """
        if self._settled is None:
            usage, estimated = Usage(), False
            if self._sent and not self.ask.place.free:
                usage, estimated = self._meter.result(lambda: likely_tokens(self.ask.chars, None)[0])
            nothing = not self._sent or self.ask.place.free or self.shared.free
            cost = 0.0 if nothing else self._cost(self._account, usage)
            if self._hold is not None:
                self.shared.routes.settle(self._hold, cost)
                self._hold = None
            if cost and not estimated:
                self.shared.routes.learn(self.way, self.ask.model, cost)
            self._settled = usage, estimated, cost
        return self._settled

    def refuse(self, stop: Stop) -> web.Response:
        """The worker's answer for a Stop."""
        self._status, self._refused, self._limit = stop.status, stop.refused, stop.limit
        self._why = stop.message if stop.refused else ""
        self._first_byte = self.shared.clock.awake() - self._began
        return stopped(self.ask.place.dialect, stop)

    # -- before it is forwarded

    def _stop(self, kind: str, message: str, *, refused: str = "", limit: str = "") -> Stop:
        return Stop(dialects.stopping_status(self._agent), kind, message, refused=refused, limit=limit)

    def _open(self, chain: list[Account]) -> list[Account]:
        """The accounts that have something left; Stop when none has."""
        now = self.shared.clock.wall()
        ready = self.shared.accounts.open(chain, now)
        if ready:
            return ready
        whole_chain = self.shared.accounts.chain(self.way.account, FAMILY[self.ask.place.dialect])
        quota = self.shared.accounts.quota(self.way.account, whole_chain)
        told = f"account {whole_chain[0].name!r} has nothing left for {quota.reset_at - now:.0f} s more: {quota.why}"
        raise self._stop("quota_exhausted", told, refused="quota")

    async def _reserve(self, account: Account) -> None:
        """Keep money aside. Raises Stop when there is not enough."""
        guess = 0.0 if self.shared.free else self._guess(account)
        found = await self.shared.routes.reserve(self.way, self.ask.model, guess)
        if isinstance(found, Over):
            raise self._stop("budget_exceeded", found.told(self.ask.model), refused="budget", limit=found.key)
        self._hold = found

    def _guess(self, account: Account) -> float | None:
        """What the call costs by its size; None: its price is not known."""
        into, out = likely_tokens(self.ask.chars, self.ask.most_out)
        return self._cost(account, Usage(fresh=into, out=out))

    def _cost(self, account: Account | None, usage: Usage) -> float | None:
        if account is None:
            return None
        mapped = account.models.get(self.ask.model, account.models.get("*", self.ask.model))
        return self.shared.prices.cost(account, (mapped, self._meter.model), usage)

    # -- forwarding

    async def _forward(self, *, spill: bool) -> web.StreamResponse | None:
        """The answer of the account; None when it has nothing left and another one may be asked instead."""
        account, ask = self._account, self.ask
        assert account is not None
        model = self._model if self._model != ask.model else ""
        headers, query = passing(self.request.headers), _query(self.request)
        for usage in (not ask.wants_usage, False):
            began = self.shared.clock.wall()
            try:
                tail, body = dialects.changed(ask, model=model, usage=usage)
                self._sent = True
                sending = self.shared.source.send(ask, account, tail=tail, query=query, headers=headers, body=body)
                async with sending as answer:
                    if answer.status < dialects.BAD:
                        self.shared.accounts.answered(account, began)
                        return await self._pass(answer, cut_usage=usage)
                    self._sent = False
                    refusing = await whole(answer, MOST_BYTES)
                    if usage and answer.status in _BAD_REQUEST and refusing and b"stream_options" in refusing:
                        continue  # a server that does not know how to tell its usage in a stream
                    if self._closes(account, answer, refusing or b"", began) and spill:
                        return None
                    return await self._whole(answer, refusing)
            except Unreachable as problem:
                self._sent = False
                raise Stop(dialects.GONE, "upstream_unreachable", self.shared.masker.text(str(problem))) from problem
            except Refused as problem:
                self._sent = False
                raise self._stop("no_key", problem.message) from problem
            except NotFound as problem:
                self._sent = False
                told = f"{problem.message}; {problem.hint}"
                raise self._stop("not_recorded", told, refused="cassette") from problem
            except ValueError as problem:
                self._sent = False
                raise Stop(dialects.BAD, "invalid_request_error", str(problem)) from problem
            except Broken as problem:
                if self._status:
                    raise
                told = f"account {account.name!r} broke off: {self.shared.masker.text(str(problem))}"
                raise Stop(dialects.GONE, "upstream_broken", told) from problem
        raise AssertionError("unreachable")

    def _closes(self, account: Account, answer: Answer, body: bytes, began: float) -> bool:
        """Take in a refusal; True when the account has nothing left. Tells it when nobody else takes over."""
        found = verdict(answer.status, answer.headers, body, self.shared.clock.wall())
        if found is None or not self.shared.accounts.refused(account, found, self.shared.clock.wall()):
            return False
        now = self.shared.clock.wall()
        for asked in {way.account for way in self.shared.routes.ways()} | {self.way.account}:
            chain = self.shared.accounts.chain(asked, account.dialect)
            if account in chain and not self.shared.accounts.open(chain, now):
                self.shared.tell(self.shared.accounts.quota(asked, chain))
        return True

    # -- answering

    async def _pass(self, answer: Answer, *, cut_usage: bool) -> web.StreamResponse:
        """Hand on what the model server answers: a stream as it comes, anything else in one piece."""
        if _EVENTS in answer.headers.get("content-type", "") or self.ask.stream:
            return await self._stream(answer, cut_usage=cut_usage)
        body = await whole(answer, MOST_BYTES)
        if body is not None:
            self._meter.whole(body)
        return await self._whole(answer, body)

    async def _whole(self, answer: Answer, body: bytes | None) -> web.StreamResponse:
        if body is None:
            told = f"the answer is longer than {MOST_BYTES >> 20} MB"
            raise Stop(dialects.GONE, "answer_too_long", told)
        self._status = answer.status
        response = web.Response(
            status=answer.status, headers=self._clean(answer.headers), body=self.shared.masker.data(body)
        )
        self._settle()
        # Sent before it is written down, so that nobody waits for that.
        await response.prepare(self.request)
        await response.write_eof()
        self._first_byte = self.shared.clock.awake() - self._began
        return response

    async def _stream(self, answer: Answer, *, cut_usage: bool) -> web.StreamResponse:
        events = _EVENTS in answer.headers.get("content-type", "")
        response = web.StreamResponse(status=answer.status, headers=self._clean(answer.headers))
        response.content_length = None
        masked, without, kept = self.shared.masker.stream(), WithoutUsage(), bytearray()
        await response.prepare(self.request)
        self._status = answer.status
        async for piece in answer.pieces():
            if not self._first_byte:
                self._first_byte = self.shared.clock.awake() - self._began
            if events:
                self._meter.feed(piece)
                if self._meter.over:
                    self._settle()  # whoever has its last event does not wait for what follows, if anything does
            elif len(kept) <= MOST_BYTES:
                kept += piece
            out = masked.feed(without.feed(piece) if cut_usage else piece)
            if out:
                await response.write(out)
        if not events and len(kept) <= MOST_BYTES:
            self._meter.whole(bytes(kept))
        self._settle()
        rest = (masked.feed(without.close()) if cut_usage else b"") + masked.close()
        if rest:
            await response.write(rest)
        await response.write_eof()
        return response

    def _clean(self, headers: Mapping[str, str]) -> dict[str, str]:
        return {name: self.shared.masker.text(value) for name, value in passing(headers).items()}


def stopped(dialect: str, stop: Stop) -> web.Response:
    """An answer of ours, in the words of the dialect. Whoever obeys headers is told not to try again."""
    headers = {"x-should-retry": "true" if stop.status == dialects.GONE else "false"}
    body = dialects.refusal(dialect, stop.status, stop.kind, stop.message)
    return web.Response(status=stop.status, body=body, content_type="application/json", headers=headers)


def _query(request: web.Request) -> str:
    """The query, without a key in it."""
    pairs = parse_qsl(request.rel_url.raw_query_string, keep_blank_values=True)
    return urlencode([(name, value) for name, value in pairs if name != "key"])


async def broken_off(request: web.Request) -> None:
    """End the worker's connection so that it sees a broken answer, not a whole one."""
    if request.transport is not None:
        request.transport.abort()
    await asyncio.sleep(0)
