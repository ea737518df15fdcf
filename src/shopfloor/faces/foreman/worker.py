"""One worker: claims a task, has its session work on it, hands in what came of it, and goes on until it is to stop."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Protocol

from shopfloor import ShopfloorError
from shopfloor.faces.foreman import briefs
from shopfloor.faces.foreman.pools import Routing
from shopfloor.faces.foreman.progress import after_failure
from shopfloor.faces.foreman.session import Session
from shopfloor.faces.foreman.signals import EventRouter, Name
from shopfloor.faces.foreman.task import Given, Wish
from shopfloor.faces.foreman.tasks import Tasks
from shopfloor.faces.foreman.waiting import Queue, outcome_of

log = logging.getLogger(__name__)

SHOWN_CHARS = 300
"""of an answer, in the program's log"""
LONGEST_DELAY_S = 300.0


class Crew(Protocol):
    """What a worker needs of its orchestrator."""

    pause_s: float
    routing: Routing

    @property
    def stop(self) -> asyncio.Event:
        """Set when it is to end."""
        ...

    def queue(self) -> Queue | None:
        """Where tasks come from; None: none is visible, so the session has to look for itself."""
        ...

    def trouble(self, worker: str, text: str) -> bool:
        """Something that the user is to be told, why the worker cannot work; whether it is news."""
        ...

    @property
    def router(self) -> EventRouter:
        """Is told what the worker does."""
        ...


class Worker:
    """``name`` is its id; ``open_session`` gives a session that is not entered yet, with its plan."""

    def __init__(
        self, name: str, category: str, wish: Wish, *, crew: Crew, tasks: Tasks, open_session: Callable[[], Session],
        opened: Callable[[Session], Awaitable[bool]],
    ) -> None:  # fmt: skip
        """``opened`` furnishes an entered session and says whether it has the issue tool."""
        self.name = name
        self.tasks = tasks
        self._category = category
        self._wish = wish
        self._crew = crew
        self._open_session = open_session
        self._opened = opened

    async def run(self) -> None:
        """Work until the crew stops. A session that cannot be opened, or breaks, is opened anew after the pause."""
        try:
            while not self._crew.stop.is_set():
                ended = await outcome_of(self._serve())
                if ended.error is None:
                    return
                news = self._crew.trouble(self.name, f"{type(ended.error).__name__}: {ended.error}")
                level = logging.ERROR if news else logging.DEBUG
                log.log(level, "worker %s cannot work: %s", self.name, ended.error, exc_info=ended.error)
                await self._pause()
        finally:
            await self.tasks.end()

    async def _serve(self) -> None:
        self._tell(Name.BUNDLE_LOADING)
        async with self._open_session() as session:
            issues = await self._opened(session)
            self._tell(Name.SESSION_CREATED)
            context = session.coordinator.get("context")
            if context is None:
                raise RuntimeError(f"Worker {self.name}: No context manager mounted")
            words = briefs.worker(self.name, self._category, issues=issues)
            await context.add_message({"role": "system", "content": words})
            while not self._crew.stop.is_set():
                queue = self._crew.queue()
                if queue is None:
                    await self._cycle(session)
                    await self._pause()
                    continue
                given = await queue.take(self._wish, self.tasks)
                if given is not None:
                    await self._work(session, given)

    async def _cycle(self, session: Session) -> None:
        """Without a queue of ours the session looks for work itself."""
        ended = await outcome_of(session.execute(briefs.look_for_work(self.name, self._category)))
        if ended.error is not None:
            log.error("worker %s failed: %s", self.name, ended.error, exc_info=ended.error)
        else:
            log.info("worker %s: %s", self.name, str(ended.value)[:SHOWN_CHARS])

    async def _work(self, session: Session, given: Given) -> None:
        self._tell(Name.TASK_STARTED, task=given.id)
        self._tell(Name.EXECUTION_STARTING, task=given.id)
        ended = await outcome_of(session.execute(briefs.issue(given)))
        if ended.error is not None:
            self._tell(Name.EXECUTION_FAILED, task=given.id, error=str(ended.error))
        else:
            self._tell(Name.EXECUTION_COMPLETED, task=given.id)
        for task in self.tasks.held:  # what its session has handed in by itself is not among them
            try:
                if task != given.id:
                    await self.tasks.release(task, "its worker went on to another")
                elif ended.error is not None:
                    await self._failed(given, ended.error)
                else:
                    await self._conclude(given, str(ended.value))
            except ShopfloorError as problem:  # it was closed or taken back meanwhile
                self.tasks.forget(task)
                log.warning("worker %s: what came of %s was not taken: %s", self.name, task, problem.message)
        self._tell(Name.SESSION_STATE_WRITTEN, task=given.id)

    async def _conclude(self, given: Given, answer: str) -> None:
        log.info("worker %s, %s: %s", self.name, given.id, answer[:SHOWN_CHARS])
        what, words = briefs.last_word(answer)
        if what == "asks":
            await self.tasks.ask(given.id, words)
        elif what == "stuck":
            await self.tasks.block(given.id, words)
        else:
            await self.tasks.complete(given.id, words)

    async def _failed(self, given: Given, error: BaseException) -> None:
        """Back it goes, to be tried again later; who failed too often is set aside by the routing."""
        log.error("worker %s failed on %s: %s", self.name, given.id, error, exc_info=error)
        task = await self.tasks.get(given.id)
        delay = min(self._crew.pause_s * 2.0**task.retries, LONGEST_DELAY_S)
        why = error.message if isinstance(error, ShopfloorError) else f"{type(error).__name__}: {error}"
        await self.tasks.release(given.id, why, failed=True, delay_s=delay)
        await after_failure(self.tasks, self._crew.routing, given.id)

    def _tell(self, name: Name, **data: str) -> None:
        self._crew.router.emit(name, {"worker": self.name, **data})

    async def _pause(self) -> None:
        with suppress(TimeoutError):
            async with asyncio.timeout(self._crew.pause_s):
                await self._crew.stop.wait()
