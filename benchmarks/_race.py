"""Many processes that claim at the same time, through the store or through a controller's socket.

`python -m benchmarks._race WAY WORK FOLDER SESSIONS LIMIT` imports everything once and forks the sessions. It says
their pids in one line of JSON when all are ready, lets them go with the next line on its standard input, says when they
have found nothing more, and ends them, holding what they hold, with the line after that. Each session writes what was
acknowledged to it into `FOLDER/<pid>` at once, so that it is known of a killed one too.
"""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import msgspec

from shopfloor import spawn
from shopfloor.app import holders
from shopfloor.app.leading import new_event_id
from shopfloor.app.wiring import SystemClock
from shopfloor.domain.board import Board, creation
from shopfloor.domain.events import E
from shopfloor.domain.floor import Floor
from shopfloor.domain.holder import Wanted
from shopfloor.domain.order import Order
from shopfloor.engine.counter import Counter
from shopfloor.engine.direct import Direct
from shopfloor.engine.hands import Claimed
from shopfloor.engine.journal import Draft, Journal
from shopfloor.engine.requests import Desk
from shopfloor.ports import Delivery, Fact, Job, Query
from shopfloor.stores.workdir import WorkdirStore
from shopfloor.wire.client import Wire
from shopfloor.wire.server import SocketDoor

ROOT = Path(__file__).resolve().parents[1]
RUN = "run-race"


class Ack(msgspec.Struct):
    """A claim as it was acknowledged; times are wall seconds."""

    order: str
    generation: int
    asked_at: float
    at: float


def journal(store: WorkdirStore) -> Journal:
    """A journal on a store, for whoever has no run."""
    return Journal(store, Floor(), SystemClock(), new_event_id)


def open_store(work: Path) -> WorkdirStore:
    """The log of a folder."""
    return WorkdirStore(work, clock=SystemClock())


def orders(count: int) -> list[Draft]:
    """The events that create so many orders."""
    wishes = (Order(id=f"wo-n{n}", name=f"n{n}", title=f"number {n}", instruction="do it " * 20) for n in range(count))
    return [Draft(E.CREATED, creation(wish)) for wish in wishes]


async def fill(work: Path, count: int) -> None:
    """Make a log with so many orders, and no controller."""
    async with open_store(work) as store:
        made = journal(store)
        await store.append([made.event(draft, None) for draft in orders(count)])
        await store.query(Query(limit=1))


async def board_of(work: Path) -> Board:
    """The state, from a replay of the whole log."""
    board = Board()
    async with open_store(work) as store:
        async for _, event in store.read():
            board.apply(event)
    return board


class Controller:
    """A controller that starts no agents, on a log of its own: the real store, state, counter and socket."""

    def __init__(self, work: Path) -> None:
        self.store = open_store(work)
        self.journal = journal(self.store)
        self.door = SocketDoor(work)
        desk = Desk(self.journal, runner=_NoRunner(), stop=lambda _why: None)
        self.counter = Counter(self.journal, desk, callers=holders.Callers(b""), spawn=asyncio.ensure_future)
        self._watch: asyncio.Task[None] | None = None

    async def open(self, count: int) -> None:
        """Lead, create so many orders, and listen."""
        self.journal.generation = await self.store.lead({})
        await self.journal.commit(Draft(E.RUN_STARTED, {"run_id": RUN, "branch": "main"}), *orders(count), run=RUN)
        self.journal.floor.open(RUN, self.journal.now())
        await self.door.open(self.counter)
        self._watch = asyncio.create_task(self.counter.watch())

    async def close(self) -> None:
        """Hang up on everybody and stop leading."""
        if self._watch is not None:
            self._watch.cancel()
        await self.door.close()
        await self.store.close()


class Sessions:
    """The forked sessions, from outside."""

    def __init__(self, nursery: subprocess.Popen[str], folder: Path) -> None:
        self.nursery = nursery
        self.folder = folder
        self.pids: list[int] = msgspec.json.decode(self._line())

    def go(self) -> None:
        """Let them race."""
        self._say()

    def wait(self) -> None:
        """Until all of them have found nothing more, or are dead."""
        self._line()

    def end(self) -> None:
        """End them as they are, with what they hold."""
        self._say()
        self.nursery.wait(60)

    def acks(self) -> dict[int, list[Ack]]:
        """What was acknowledged to each, by pid."""
        found = {}
        for pid in self.pids:
            path = self.folder / str(pid)
            lines = path.read_bytes().splitlines() if path.exists() else []
            found[pid] = [msgspec.json.decode(line, type=Ack) for line in lines]
        return found

    def _say(self) -> None:
        assert self.nursery.stdin is not None
        self.nursery.stdin.write("\n")
        self.nursery.stdin.flush()

    def _line(self) -> str:
        assert self.nursery.stdout is not None
        line = self.nursery.stdout.readline()
        assert line, "the sessions have failed"
        return line


@contextmanager
def sessions(way: str, work: Path, folder: Path, count: int, limit: int) -> Iterator[Sessions]:
    """So many sessions that claim ``limit`` orders at a time; ``way`` is ``socket`` or ``direct``."""
    folder.mkdir(parents=True, exist_ok=True)
    words = [sys.executable, "-m", "benchmarks._race", way, str(work), str(folder), str(count), str(limit)]
    with subprocess.Popen(words, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as nursery:
        try:
            yield Sessions(nursery, folder)
        finally:
            nursery.kill()


# -- one session ----------------------------------------------------------------------------------------------------


async def _session(way: str, work: Path, folder: Path, limit: int, *, ready: int, gate: int) -> None:
    file = os.open(folder / str(os.getpid()), os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    async with open_store(work) as store:
        claim = await (_by_socket(work, limit) if way == "socket" else _directly(store, limit))
        os.write(ready, b"r")
        os.read(gate, 1)
        while True:
            asked_at = time.time()
            claimed = await claim()
            now = time.time()
            if not claimed:
                break
            acks = [Ack(found.id, found.generation, asked_at, now) for found in claimed]
            os.write(file, b"".join(msgspec.json.encode(ack) + b"\n" for ack in acks))
        os.write(ready, b"d")
        os.read(gate, 1)
        os._exit(0)  # as if it were killed: nothing is given back by itself


async def _by_socket(work: Path, limit: int) -> Any:
    wire = await Wire.connect(work)
    assert wire is not None
    who = msgspec.to_builtins(holders.holder())

    async def claim() -> list[Claimed]:
        reply = await wire.ask({"verb": "claim", "limit": limit, "holder": who})
        return msgspec.convert(reply["orders"], list[Claimed])

    return claim


async def _directly(store: WorkdirStore, limit: int) -> Any:
    await store.query(Query(what="held"))  # it is live: its index is open
    direct = Direct(journal(store), holders.holder(), alive=holders.alive)

    async def claim() -> list[Claimed]:
        return await direct.claim(limit, Wanted())

    return claim


def _nursery(way: str, work: Path, folder: Path, count: int, limit: int) -> None:
    ready, said = os.pipe()
    gates: list[int] = []
    pids: list[int] = []
    for _ in range(count):
        gate, key = os.pipe()
        pid = os.fork()
        if not pid:
            for other in [key, *gates]:
                os.close(other)  # its gate opens when the nursery is gone, too
            asyncio.run(_session(way, work, folder, limit, ready=said, gate=gate))
            os._exit(1)
        os.close(gate)
        gates.append(key)
        pids.append(pid)
    os.close(said)
    _hear(ready, b"r", pids)
    print(msgspec.json.encode(pids).decode(), flush=True)
    for letter in (b"d", b""):
        sys.stdin.readline()
        for key in gates:
            try:
                os.write(key, b"g")
            except BrokenPipeError:
                continue
        if letter:
            _hear(ready, letter, pids)
            print("done", flush=True)
    for pid in pids:
        os.waitpid(pid, 0)


def _hear(ready: int, letter: bytes, pids: list[int]) -> None:
    """Until each session has said this, or is dead."""
    heard = 0
    while heard < sum(spawn.alive(pid, spawn.start_time_of(pid)) for pid in pids):
        os.set_blocking(ready, False)
        try:
            heard += os.read(ready, 4096).count(letter)
        except BlockingIOError:
            time.sleep(0.002)


class _NoRunner:
    """Nobody asks it for anything: no agent runs here."""

    async def submit(self, job: Job) -> None: ...

    async def cancel(self, attempt: str, reason: str) -> None: ...

    async def send(self, attempt: str, text: str) -> Delivery:
        return Delivery.SHOWN

    async def close(self) -> None: ...

    async def outcomes(self) -> AsyncIterator[Sequence[Fact]]:
        told: list[list[Fact]] = []
        for facts in told:
            yield facts


if __name__ == "__main__":
    _nursery(sys.argv[1], Path(sys.argv[2]), Path(sys.argv[3]), int(sys.argv[4]), int(sys.argv[5]))
