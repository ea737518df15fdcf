"""How a floor and its gateway speak: by the gateway's standard input and output, which nobody else can open.

One JSON object a line. The floor says first what the gateway is to be (`Start`), and is told the address; then it opens
and shuts ways, each answered under its number, and hears facts between the answers. The end of its standard input ends
the gateway, so it never outlives its floor.
"""

from __future__ import annotations

import asyncio
import secrets
import signal
import sys
from collections.abc import Callable, Mapping
from pathlib import Path

import msgspec

from shopfloor.domain.errors import ShopfloorError
from shopfloor.gateway.accounts import Accounts
from shopfloor.gateway.cassette import Player, Recorder
from shopfloor.gateway.exchange import Shared
from shopfloor.gateway.ledger import Ledger
from shopfloor.gateway.price import Prices
from shopfloor.gateway.routes import Routes, Way
from shopfloor.gateway.server import Server
from shopfloor.gateway.upstream import Source, Upstream
from shopfloor.gateway.words import LONGEST_LINE, Open, Said, Shut, Start
from shopfloor.masking import Masker
from shopfloor.ports import Clock, ModelCall, Quota

_encode = msgspec.json.Encoder().encode
_asked = msgspec.json.Decoder(Open | Shut)


class Gatehouse:
    """A gateway in this process: everything put together."""

    def __init__(self, start: Start, environment: Mapping[str, str], clock: Clock) -> None:
        self._start = start
        self._clock = clock
        self.accounts = Accounts(start.settings.known(environment), environment, offline=bool(start.replay))
        self.routes = Routes()
        self.ledger: Ledger | None = None
        self._source: Source | None = None
        self.server: Server | None = None
        self.token = secrets.token_urlsafe(24)

    async def open(self, tell: Callable[[ModelCall | Quota], None]) -> None:
        """Listen. ``tell`` takes each fact. Raises ShopfloorError."""
        start = self._start
        masker = Masker(self.accounts.secrets)
        self.ledger = ledger = Ledger(Path(start.ledger) if start.ledger else None)
        live = Upstream(self.accounts.headers)
        prices = Prices(start.settings.prices)
        prices.warm()
        if start.replay:
            self._source = Player(Path(start.replay))
        else:
            self._source = Recorder(live, Path(start.record), self._recorded_without) if start.record else live

        def take(fact: ModelCall | Quota) -> None:
            if isinstance(fact, ModelCall):
                ledger.write(fact)
            tell(fact)

        shared = Shared(
            routes=self.routes,
            accounts=self.accounts,
            prices=prices,
            source=self._source,
            masker=masker,
            clock=self._clock,
            tell=take,
            free=bool(start.replay),
        )
        for wish in start.ways:
            self.let_in(wish)  # before anybody can ask: an agent that is told no does not ask again
        self.server = Server(shared, ledger, token=self.token)
        await self.server.open(start.port)

    async def close(self) -> None:
        """End every call, write the last lines, let go of everything."""
        if self.server is not None:
            await self.server.close()
        if self._source is not None:
            await self._source.close()
        if self.ledger is not None:
            self.ledger.close()

    def _recorded_without(self) -> Masker:
        """The masker of what is kept: it knows what agents know, too."""
        return Masker((*self.accounts.secrets, *self.routes.secrets()))

    def let_in(self, wish: Open) -> None:
        """Open a way. Raises Refused."""
        self.accounts.check(wish.account)
        way = Way(
            secret=wish.secret,
            token=wish.token,
            attempt=wish.attempt,
            order=wish.order,
            run=wish.run,
            account=wish.account,
            secrets=wish.secrets,
        )
        self.routes.open(way, wish.limits)


async def serve(environment: Mapping[str, str], clock: Clock) -> int:
    """Be a floor's gateway until its standard input ends, or a signal says so."""
    loop = asyncio.get_running_loop()
    reader = asyncio.StreamReader(limit=LONGEST_LINE)
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    transport, protocol = await loop.connect_write_pipe(asyncio.streams.FlowControlMixin, sys.stdout)
    transport.set_write_buffer_limits(0)
    writer = asyncio.StreamWriter(transport, protocol, None, loop)
    task = asyncio.current_task()
    assert task is not None
    loop.add_signal_handler(signal.SIGTERM, reader.feed_eof)
    try:
        return await _talk(reader, writer, environment, clock)
    except ConnectionError:
        return 0  # the floor is gone
    finally:
        writer.close()


async def _talk(
    reader: asyncio.StreamReader, writer: asyncio.StreamWriter, environment: Mapping[str, str], clock: Clock
) -> int:
    def say(said: Said) -> None:
        writer.write(_encode(said) + b"\n")

    def tell(fact: ModelCall | Quota) -> None:
        say(Said(call=fact) if isinstance(fact, ModelCall) else Said(quota=fact))

    start = msgspec.json.decode(await reader.readline(), type=Start)
    house = Gatehouse(start, environment, clock)
    try:
        await house.open(tell)
    except ShopfloorError as problem:
        say(Said(error=problem.message, hint=problem.hint))
        await writer.drain()
        return problem.exit_code
    assert house.server is not None
    say(Said(address=house.server.address))
    shutting: set[asyncio.Task[None]] = set()
    try:
        while line := await reader.readline():
            wish = _asked.decode(line)
            if isinstance(wish, Open):
                try:
                    house.let_in(wish)
                    say(Said(id=wish.id))
                except ShopfloorError as problem:
                    say(Said(id=wish.id, error=problem.message, hint=problem.hint))
            else:
                closing = asyncio.create_task(_shut(house, wish, say))
                shutting.add(closing)
                closing.add_done_callback(shutting.discard)
    finally:
        await house.close()
        await asyncio.gather(*shutting)
        await writer.drain()
    return 0


async def _shut(house: Gatehouse, wish: Shut, say: Callable[[Said], None]) -> None:
    await house.routes.shut(wish.attempt)
    say(Said(id=wish.id))
