"""From specifications to orders: out of a list at once, out of a queue as agents get free."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Iterator, Sequence
from typing import Any

import msgspec

from shopfloor import Deliverable, Order, PromptOrder
from shopfloor.faces.fanout.queue import RedisQueue, Taken
from shopfloor.faces.fanout.results import Finished
from shopfloor.faces.fanout.source import Asked, Source
from shopfloor.faces.fanout.specs import Specification

AGENT = "fanout"
"""the profile that all of the servers are"""
CHUNK = 500
"""specifications that are made orders together"""
AHEAD = 1000
"""specifications of a queue that are taken and not finished, at most: what one process holds no other can take"""


class Intake:
    """The orders of one run, numbered from 0."""

    def __init__(self, source: Source, queue: RedisQueue | None, *, wait: bool, timeout_s: float) -> None:
        """``wait``: a queue that is empty is not the end. ``timeout_s`` is of a request, where a spec has none."""
        self.source = source
        self._queue = queue
        self._wait = wait
        self._timeout_s = timeout_s
        self._names: set[str] = set()
        self._payloads: dict[int, bytes] = {}
        self._unbegun: list[Taken] = []
        self._room = asyncio.Event()
        self._over = asyncio.Event()
        self._open = 0
        self.known = 0 if queue else len(source.specs)
        """how many have a number"""
        self.expected = self.known
        """how many there will be, as far as can be told before the first has ended"""

    @property
    def waits(self) -> str:
        """The queue that is waited at; empty where it is known how many there will be."""
        return self._queue.name if self._queue is not None and self._wait else ""

    async def take_up(self, orders: Sequence[Order], ended: int) -> None:
        """Go on after ``orders``, of which so many have ended, with what was taken for them from the queue."""
        if self._queue is None:
            self.known = self.expected = max(self.known, len(orders))
            return
        for order in orders:
            self._names.add(order.name)
            number, payload = order.metadata.get("number"), order.metadata.get("payload")
            if isinstance(number, int) and isinstance(payload, str):
                self._payloads[number] = payload.encode()
        # One that was pushed twice in the same words, of which one is finished, is not told from the finished one.
        self._queue.hold(self._payloads.values())
        self._unbegun = await self._queue.unsettled(Counter(self._payloads.values()))
        self._open = len(orders) - ended
        self.known = len(orders)

    async def begin(self) -> None:
        """Begin anew: with a queue, what an earlier run in this folder left goes back, and the source is appended."""
        if self._queue is not None:
            await self._queue.give_back()
            await self._queue.put(self.source.specs)

    async def look(self) -> None:
        """See how many wait in the queue."""
        if self._queue is not None:
            self.expected = self.known + len(self._unbegun) + await self._queue.length()

    async def any(self) -> bool:
        """Whether there is anything to do. Waits for it at a queue, where that is wanted."""
        if self._queue is None:
            return bool(self.source.specs)
        self._unbegun += await self._next(self._queue)
        return bool(self._unbegun)

    def end(self) -> None:
        """Nothing more is taken."""
        self._over.set()
        self._room.set()

    def wishes(self) -> Iterator[PromptOrder] | AsyncIterator[Sequence[PromptOrder]]:
        """What the floor is asked to do."""
        return self._listed() if self._queue is None else self._taken(self._queue)

    def ended(self) -> None:
        """One of them has an end."""
        self._open -= 1
        self._room.set()

    async def settle(self, results: Sequence[Finished]) -> None:
        """Their results are kept."""
        if self._queue is not None:
            held = (self._payloads.pop(r.number, None) for r in results if r.number is not None)
            await self._queue.settle([payload for payload in held if payload is not None])

    def _listed(self) -> Iterator[PromptOrder]:
        return (self._wish(spec, number) for number, spec in enumerate(self.source.specs))

    async def _taken(self, queue: RedisQueue) -> AsyncIterator[Sequence[PromptOrder]]:
        unbegun, self._unbegun = self._unbegun, []
        if unbegun:
            yield self._orders(unbegun)
        while True:
            while self._open >= AHEAD and not self._over.is_set():
                self._room.clear()
                await self._room.wait()
            taken = await self._next(queue)
            if not taken:
                return
            yield self._orders(taken)

    async def _next(self, queue: RedisQueue) -> list[Taken]:
        """The next ones of the queue, none when it is empty and not waited at, or when this is over."""
        taking = asyncio.ensure_future(queue.take(min(CHUNK, AHEAD - self._open), wait=self._wait))
        over = asyncio.ensure_future(self._over.wait())
        try:
            await asyncio.wait({taking, over}, return_when=asyncio.FIRST_COMPLETED)
            return taking.result() if taking.done() else []
        finally:
            # What is taken in this very moment stays in this taker's list, and goes back from there.
            taking.cancel()
            over.cancel()
            await asyncio.wait({taking, over})

    def _orders(self, taken: Sequence[Taken]) -> list[PromptOrder]:
        found = []
        for payload, spec in taken:
            self._payloads[self.known] = payload
            found.append(self._wish(spec, self.known, payload))
            self.known += 1
        self._open += len(taken)
        return found

    def _wish(self, spec: Specification, number: int, payload: bytes | None = None) -> PromptOrder:
        name = spec.id if spec.id not in self._names else f"{spec.id}#{number + 1}"
        self._names.add(name)
        metadata: dict[str, Any] = {"spec": spec.document(), "number": number}
        if payload is not None:
            metadata["payload"] = payload.decode()
        elif number == 0:
            asked = Asked(specs=len(self.source.specs), digest=self.source.digest, timeout_s=self._timeout_s)
            metadata["asked"] = msgspec.to_builtins(asked)
        return PromptOrder(
            name=name, title=f"{spec.word} {spec.stack_effect}", instruction="", deliverable=Deliverable.ANSWER,
            agent=AGENT, source=self.source.name, timeout_s=spec.timeout_s or self._timeout_s, metadata=metadata,
        )  # fmt: skip
