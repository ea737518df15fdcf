"""A program that uses stores on one folder in a seeded way, and says of each change when it begins and what came of it.

`python _disk_program.py FOLDER SEED`; every third seed runs two processes side by side. Each line that it says is a
JSON object with a `word`: `try` and `ids` (also `order` and `generation` when it claims one), `ok`, `no`, `lead` and
`generation`, `end`.
"""

from __future__ import annotations

import asyncio
import json
import os
import random
import resource
import sys
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path

from shopfloor.domain.board import creation
from shopfloor.domain.errors import Conflict, ShopfloorError
from shopfloor.domain.events import E, Event, stamp_time
from shopfloor.domain.order import Order
from shopfloor.ports import Query
from shopfloor.stores.workdir import WorkdirStore
from shopfloor.testing.store import FixedClock

STEPS = 14
ORDERS = ("wo-a1", "wo-b2", "wo-c3")
SIZES = (10, 10, 300, 3_000, 9_000)


def say(word: str, **more: object) -> None:
    """One line, with one write: it stands in the trace where it was said."""
    os.write(1, json.dumps({"word": word, **more}).encode() + b"\n")


class Program:
    """One life of a process with a few stores open."""

    def __init__(self, folder: Path, seed: int, *, alone: bool) -> None:
        self.folder = folder
        self.alone = alone
        self.seed = seed
        self.random = random.Random(seed)
        self.clock = FixedClock()
        self.stores: list[WorkdirStore] = []
        self.leader: WorkdirStore | None = None
        self.numbers = 0

    async def run(self) -> None:
        """Do some steps; whatever is open at the end is closed."""
        deeds = {
            self.note: 6, self.group: 4, self.together: 3, self.create: 3, self.claim: 6, self.lead: 4, self.ask: 3,
            self.reopen: 2, self.lose_index: 1, self.lose_feed: 1, self.stranger: 1, self.full: 2,
        }  # fmt: skip
        self.open()
        for deed in self.random.choices(list(deeds), list(deeds.values()), k=STEPS):
            if len(self.stores) < 3 and self.random.random() < 0.2:
                self.open()
            await deed()
        for store in self.stores:
            await store.close()
        say("end")

    def open(self) -> None:
        self.stores.append(WorkdirStore(self.folder, clock=self.clock))

    def store(self) -> WorkdirStore:
        return self.random.choice(self.stores)

    def event(self, event_type: str = "note.taken", **data: object) -> Event:
        """A new event; some are longer than a page."""
        self.numbers += 1
        self.clock.now += 1.0
        name = f"evt-{self.seed}-{self.numbers}"
        data["text"] = "x" * self.random.choice(SIZES)
        return Event(name, event_type, stamp_time(self.clock.now), "human", None, data)

    async def append(
        self, store: WorkdirStore, *events: Event, expect: Mapping[str, int] | None = None, **more: object
    ) -> None:
        """One change, told before and after."""
        ids = [event.event_id for event in events]
        say("try", ids=ids, **more)
        try:
            await store.append(events, expect=expect)
        except ShopfloorError as problem:
            say("no", ids=ids, why=problem.message)
        else:
            say("ok", ids=ids)

    async def note(self) -> None:
        await self.append(self.store(), self.event())

    async def group(self) -> None:
        await self.append(self.store(), *(self.event() for _ in range(self.random.randint(2, 5))))

    async def together(self) -> None:
        changes = [[self.event() for _ in range(self.random.randint(1, 3))] for _ in range(4)]
        await asyncio.gather(*(self.append(self.store(), *change) for change in changes))

    async def create(self) -> None:
        order = self.random.choice(ORDERS)
        data = creation(Order(id=order, name=order, title=f"title of {order}"))
        await self.append(self.store(), self.event(E.CREATED, **data))

    async def claim(self) -> None:
        """Claim an order as a controller does, now and then from a wrong idea of where it stands."""
        store, order, known = self.leader, self.random.choice(ORDERS), 0
        if store is None:
            return
        async for _, event in store.read():
            if event.event_type == E.ASSIGNED and event.data.get("work_order_id") == order and event.sf is not None:
                known = max(known, int(event.data["generation"]))
        generation = known + 1
        data = {"work_order_id": order, "generation": generation, "attempt": f"{order}.a{generation}", "agent": "r"}
        expect = {order: known - (self.random.random() < 0.2)}
        claim = self.event(E.ASSIGNED, **data)
        await self.append(store, claim, self.event(), expect=expect, order=order, generation=generation)

    async def lead(self) -> None:
        if self.leader is None:
            store = self.store()
            try:
                say("lead", generation=await store.lead({}))
            except Conflict:
                return  # the other process leads
            self.leader = store

    async def ask(self) -> None:
        await self.store().query(Query(what=self.random.choice(("orders", "events", "meta"))))

    async def reopen(self) -> None:
        store = self.store()
        self.stores.remove(store)
        await store.close()
        self.leader = None if store is self.leader else self.leader
        self.open()

    async def lose_index(self) -> None:
        for path in self.folder.glob("index.sqlite*"):
            path.unlink(missing_ok=True)  # another store may make it anew at this moment

    async def lose_feed(self) -> None:
        (self.folder / "feed.jsonl").unlink(missing_ok=True)

    async def stranger(self) -> None:
        """Another program is killed while it writes a line; not just when one of ours writes, it heeds no lock."""
        if not self.alone:
            return
        if (self.folder / "events.jsonl").exists():
            with (self.folder / "events.jsonl").open("ab") as log:
                log.write(b'{"event_id":"theirs","event_type":"note')

    async def full(self) -> None:
        """The disk takes a part of what is written."""
        async with self.limited(self.random.choice((0, 1, 100, 700, 5_000))):
            await self.append(self.store(), *(self.event() for _ in range(self.random.randint(1, 4))))

    @asynccontextmanager
    async def limited(self, room: int) -> AsyncIterator[None]:
        log = self.folder / "events.jsonl"
        before = resource.getrlimit(resource.RLIMIT_FSIZE)
        size = log.stat().st_size if log.exists() else 0
        resource.setrlimit(resource.RLIMIT_FSIZE, (size + room, before[1]))
        try:
            yield
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, before)


if __name__ == "__main__":
    number = int(sys.argv[2])
    other = os.fork() if number % 3 == 0 else -1
    program = Program(Path(sys.argv[1]), number + (other == 0), alone=other < 0)
    asyncio.run(program.run())
    if other > 0:
        sys.exit(os.waitstatus_to_exitcode(os.waitpid(other, 0)[1]))
