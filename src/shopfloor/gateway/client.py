"""The floor's end: a gateway started as a process, and again when it died, with the same ways at the same address."""

from __future__ import annotations

import asyncio
import importlib.util
import re
import signal
import sys
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import suppress
from itertools import count
from pathlib import Path
from secrets import token_urlsafe

import msgspec

from shopfloor.domain.errors import Refused
from shopfloor.gateway.words import Open, Said, Shut, Start
from shopfloor.ports import Bill, Limit, ModelCall, Quota, Route
from shopfloor.spawn import Guard, Process, SpawnError, Step

MISSING_HINT = "pip install 'shopfloor[gateway]'"
NEEDED = ("aiohttp", "genai_prices")
START_S, CLOSE_S = 30.0, 5.0
MOST_DEATHS = 5
"""after which it is not started again"""

_ENDING = (Step(signal.SIGTERM, 2.0), Step(signal.SIGKILL, 10.0))
_WAY = re.compile(r"(http://127\.0\.0\.1:[0-9]{1,5})/w/([\w-]{16,})", re.ASCII)
_encode = msgspec.json.Encoder().encode
_said = msgspec.json.Decoder(Said)


def require() -> None:
    """Raises Refused when what the gateway is built on is not installed."""
    missing = [name for name in NEEDED if importlib.util.find_spec(name) is None]
    if missing:
        raise Refused(f"the gateway needs {' and '.join(missing)}, which is not installed", hint=f"type {MISSING_HINT}")


class GatewayProcess:
    """A `shopfloor.ports.Gateway`. The process is started by the first `open`; use it in one event loop."""

    def __init__(self, guard: Guard, start: Start, *, environment: Mapping[str, str], folder: Path) -> None:
        """``environment`` is all that the process gets, keys included; ``folder`` is where it stands and logs."""
        self._guard, self._start, self._environment, self._folder = guard, start, dict(environment), folder
        self._process: Process | None = None
        self._address = ""
        self._reading: asyncio.Task[None] | None = None
        self._starting = asyncio.Lock()
        self._ids = count(1)
        self._asked: dict[int, asyncio.Future[Said]] = {}
        self._open: dict[str, Open] = {}
        self._bills: dict[str, Bill] = {}
        self._spent: dict[str, float] = {}
        self._facts: asyncio.Queue[ModelCall | Quota | None] = asyncio.Queue()
        self._deaths = 0
        self._closed = False

    @property
    def pid(self) -> int:
        """Of its process; 0 when none runs."""
        return self._process.pid if self._process else 0

    async def open(
        self,
        attempt: str,
        *,
        order: str,
        run: str,
        account: str = "",
        limits: Sequence[Limit] = (),
        secrets: Sequence[str] = (),
        again: Route | None = None,
        spent: Bill | None = None,
    ) -> Route:
        """As the port says."""
        address, secret = _parts(again) if again is not None else ("", token_urlsafe(24))
        await self._run(port=int(address.rpartition(":")[2] or 0))
        if address and address != self._address:
            raise Refused(f"the gateway listens at {self._address}, and not at {address}, where its agent looks for it")
        for limit in limits:
            self._spent.setdefault(limit.key, limit.spent_usd)
        wish = Open(
            id=next(self._ids),
            secret=secret,
            token=again.token if again is not None else f"sf-{token_urlsafe(24)}",
            attempt=attempt,
            order=order,
            run=run,
            account=account,
            limits=tuple(limits),
            secrets=tuple(secrets),
        )
        await self._ask(wish)
        self._open[attempt] = wish
        self._bills.setdefault(attempt, spent or Bill())
        return Route(url=f"{self._address}/w/{wish.secret}", token=wish.token)

    async def shut(self, attempt: str) -> Bill:
        """As the port says."""
        if self._open.pop(attempt, None) is not None and self._process is not None and not self._closed:
            with suppress(Refused):  # it died, and its ways with it
                await self._ask(Shut(id=next(self._ids), attempt=attempt))
        return self._bills.pop(attempt, Bill())

    async def heard(self) -> AsyncIterator[ModelCall | Quota]:
        """As the port says."""
        while (fact := await self._facts.get()) is not None:
            yield fact
        if self._closed:
            self._facts.put_nowait(None)  # for whoever else listens

    async def close(self) -> None:
        """As the port says."""
        if self._closed:
            return
        self._closed = True
        async with self._starting:
            process = self._process
        if process is not None:
            if process.stdin is not None:
                process.stdin.close()
            try:
                async with asyncio.timeout(CLOSE_S):
                    await process.wait()
            except TimeoutError:
                await process.stop(_ENDING)
        if self._reading is not None:
            await self._reading
        self._facts.put_nowait(None)

    # -- the process

    async def _run(self, *, port: int = 0) -> None:
        """See that it runs; ``port`` is where it starts when it has not listened anywhere yet. Raises Refused."""
        async with self._starting:
            if self._closed:
                raise Refused("the gateway is closed")
            if self._process is None:
                await self._begin(port)

    async def _begin(self, port: int) -> None:
        require()
        argv = [sys.executable, "-P", "-m", "shopfloor.gateway"]
        log = self._folder / "gateway.log"
        try:
            process = await self._guard.spawn(
                argv, cwd=self._folder, env=self._environment, stderr=log, pipe_stdin=True
            )
        except SpawnError as problem:
            raise Refused(f"the gateway cannot be started: {problem.message}", hint=problem.hint) from problem
        assert process.stdin is not None
        assert process.stdout is not None
        start = msgspec.structs.replace(self._start, ways=self._ways(), port=self._start.port or port)
        process.stdin.write(_encode(start) + b"\n")
        said = Said()
        try:
            async with asyncio.timeout(START_S):
                line = await process.stdout.readline()
            said = _said.decode(line)
        except (TimeoutError, msgspec.DecodeError, ValueError):
            await process.stop(_ENDING)
        if not said.address:
            await process.stop(_ENDING)
            why, hint = said.error or "it says nothing", said.hint or f"look into {str(log)!r}"
            raise Refused(f"the gateway does not start: {why}", hint=hint)
        self._process, self._address = process, said.address
        # Should it die, the next one has to be where the agents look for it.
        self._start = msgspec.structs.replace(self._start, port=int(said.address.rpartition(":")[2]))
        self._reading = asyncio.create_task(self._read(process))

    def _ways(self) -> tuple[Open, ...]:
        """Those that are open, with what was spent by now."""
        found = []
        for wish in self._open.values():
            limits = [msgspec.structs.replace(x, spent_usd=self._spent.get(x.key, 0.0)) for x in wish.limits]
            found.append(msgspec.structs.replace(wish, limits=tuple(limits)))
        return tuple(found)

    def _say(self, wish: Open | Shut) -> None:
        process = self._process
        if process is None or process.stdin is None:
            raise Refused("the gateway has ended")
        process.stdin.write(_encode(wish) + b"\n")

    async def _ask(self, wish: Open | Shut) -> None:
        """Say it and wait for the answer. Raises Refused."""
        answer: asyncio.Future[Said] = asyncio.get_running_loop().create_future()
        self._asked[wish.id] = answer
        try:
            self._say(wish)
            said = await answer
        finally:
            self._asked.pop(wish.id, None)
        if said.error:
            raise Refused(said.error, hint=said.hint)

    async def _read(self, process: Process) -> None:
        """Take everything that it says, until it ends."""
        assert process.stdout is not None
        while line := await process.stdout.readline():
            try:
                said = _said.decode(line)
            except msgspec.DecodeError:
                break  # cut off in the middle
            if said.call is not None:
                self._count(said.call)
                self._facts.put_nowait(said.call)
            elif said.quota is not None:
                self._facts.put_nowait(said.quota)
            elif (waiting := self._asked.get(said.id)) is not None and not waiting.done():
                waiting.set_result(said)
        await process.wait()
        self._process = None
        for waiting in self._asked.values():
            if not waiting.done():
                waiting.set_result(Said(error="the gateway has ended", hint="look into gateway.log"))
        self._deaths += 1
        if not self._closed:
            self._facts.put_nowait(None)
        if not self._closed and self._open and self._deaths <= MOST_DEATHS:
            self._again = asyncio.create_task(self._revive())

    async def _revive(self) -> None:
        """Start it again for those who have a way. When that fails, the next `open` says why."""
        try:
            await self._run()
        except Refused:
            return

    def _count(self, call: ModelCall) -> None:
        if call.attempt in self._bills:
            self._bills[call.attempt] = self._bills[call.attempt].plus(call)
        wish = self._open.get(call.attempt)
        for limit in wish.limits if wish else ():
            self._spent[limit.key] = self._spent.get(limit.key, 0.0) + (call.cost_usd or 0.0)


def _parts(route: Route) -> tuple[str, str]:
    """Address and secret of a way that a gateway has given. Raises Refused for anything else."""
    found = _WAY.fullmatch(route.url)
    if found is None or not route.token:
        raise Refused("it is not known which way to its models its agent was started with")
    return found[1], found[2]
