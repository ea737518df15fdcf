"""Attempts as tasks of this process's event loop."""

from __future__ import annotations

import asyncio
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
        self._facts: asyncio.Queue[Fact | Exception | None] = asyncio.Queue()

    async def submit(self, job: Job) -> None:
        """Start executing; returns at once."""
        control = self._control()
        task = asyncio.create_task(self._run(job, control), name=job.attempt)
        self._running[job.attempt] = (task, control)

    async def _run(self, job: Job, control: Control) -> None:
        try:
            await self._execute(job, control, self._facts.put)
        except Exception as bug:
            # Nobody awaits this task: whoever reads the facts must learn that one of them will never come.
            self._facts.put_nowait(bug)
        finally:
            self._running.pop(job.attempt, None)

    async def cancel(self, attempt: str, reason: str) -> None:
        """Stop it; its work is kept and its end is still reported. Harmless when it has ended."""
        if attempt in self._running:
            self._running[attempt][1].stop(reason)

    async def outcomes(self) -> AsyncIterator[Sequence[Fact]]:
        """Facts of all attempts as they happen, those that are there at once together, until ``close``.

        Raises what an attempt died of, if it ever does: after the facts that came before.
        """
        found: Fact | Exception | None = None
        while (found := await self._facts.get()) is not None:
            facts: list[Fact] = []
            while isinstance(found, Fact):
                facts.append(found)
                if len(facts) == MOST_TOGETHER or self._facts.empty():
                    break
                found = self._facts.get_nowait()
            if facts:
                yield facts
            if isinstance(found, Exception):
                raise found
            if found is None:
                return

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
        await self._facts.put(None)
