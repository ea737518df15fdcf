"""Attempts as tasks of this process's event loop."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from typing import Protocol

from shopfloor.domain.errors import NotFound
from shopfloor.ports import Delivery, Fact, Job

MOST_TOGETHER = 500
"""Facts that are told of at once."""


class Control(Protocol):
    """The strings that hold a running attempt."""

    def stop(self, reason: str) -> None: ...

    async def send(self, attempt: str, text: str) -> Delivery: ...


Execute = Callable[[Job, "Control", Callable[[Fact], Awaitable[None]]], Awaitable[None]]


class LocalRunner:
    """Port Runner on this machine."""

    def __init__(self, execute: Execute, control: Callable[[], Control]) -> None:
        self._execute = execute
        self._control = control
        self._running: dict[str, tuple[asyncio.Task[None], Control]] = {}
        self._facts: deque[Fact | Exception | None] = deque()
        self._there = asyncio.Event()
        """set while there may be facts"""

    async def submit(self, job: Job) -> None:
        """Start executing; returns at once."""
        control = self._control()
        task = asyncio.create_task(self._run(job, control), name=job.attempt)
        self._running[job.attempt] = (task, control)

    async def _run(self, job: Job, control: Control) -> None:
        try:
            await self._execute(job, control, self._emit)
        except Exception as bug:
            # Nobody awaits this task: whoever reads the facts must learn that one of them will never come.
            self._tell(bug)
        finally:
            self._running.pop(job.attempt, None)

    async def _emit(self, fact: Fact) -> None:
        self._tell(fact)

    def _tell(self, what: Fact | Exception | None) -> None:
        self._facts.append(what)
        self._there.set()

    async def cancel(self, attempt: str, reason: str) -> None:
        """Stop it; its work is kept and its end is still reported. Harmless when it has ended."""
        if attempt in self._running:
            self._running[attempt][1].stop(reason)

    async def outcomes(self) -> AsyncIterator[Sequence[Fact]]:
        """Facts of all attempts as they happen, those that are there at once together, until ``close``.

        Raises what an attempt died of, if it ever does: after the facts that came before.
        """
        while True:
            while not self._facts:
                self._there.clear()
                await self._there.wait()
            facts: list[Fact] = []
            while self._facts and isinstance(fact := self._facts[0], Fact) and len(facts) < MOST_TOGETHER:
                facts.append(fact)
                self._facts.popleft()
            if facts:
                yield facts
            elif (last := self._facts.popleft()) is None:
                return
            elif isinstance(last, Exception):
                raise last

    async def send(self, attempt: str, text: str) -> Delivery:
        """Pass a person's words to the agent. Raises NotFound when it has ended, Refused when it cannot listen."""
        if attempt not in self._running:
            raise NotFound(f"attempt {attempt!r} is not running")
        return await self._running[attempt][1].send(attempt, text)

    async def close(self) -> None:
        """Stop what still runs, wait until its work is kept, and end ``outcomes``."""
        running = list(self._running.values())
        for _, control in running:
            control.stop("stopped")
        await asyncio.gather(*(task for task, _ in running), return_exceptions=True)
        self._tell(None)
