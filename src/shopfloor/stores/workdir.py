"""The store in a ``.work`` folder: files that survive everything and that programs in any language may read and write.

``events.jsonl`` is the log; ``feed.jsonl`` and ``work_orders.jsonl`` are views of it; ``index.sqlite`` is derived. All
blocking work runs on one thread of the store. Calls of ``append`` that come together share one write and one sync.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import time
from collections import deque
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from types import TracebackType
from typing import Any, Generic, ParamSpec, Self, TypeVar

from shopfloor.domain.errors import Refused
from shopfloor.domain.events import Event
from shopfloor.ports import Clock, Query
from shopfloor.stores.books import Books
from shopfloor.stores.changes import Change
from shopfloor.stores.lead import controller_alive
from shopfloor.stores.scan import Found
from shopfloor.stores.views import STABLE_S

POLL_S = 0.1
"""How often a waiting store looks whether another process appended."""

LAG_S = 0.25
"""How far index and views may be behind the log while nobody asks."""

RUSH_S = 30.0
"""How far while thousands of events come in: most orders change again before anybody could look."""

EDITED_S = 5.0
"""How far at most while another program has changed a view and waits for what comes of it."""

SHARE = 10
"""Bringing them up to date takes one part in so many of the time: what took long is not done again at once."""

PUT_OFF = 8
"""How many times that is put off while somebody reads the log: a start reads all of it and is waited for."""

P = ParamSpec("P")
T = TypeVar("T")


class _Job(Generic[T]):
    """Work of the thread on its way. What has begun is finished also when who waits for it is cancelled."""

    def __init__(self, work: Future[T]) -> None:
        self._loop = asyncio.get_running_loop()
        self._work = work
        self._done = self._loop.create_future()
        work.add_done_callback(self._tell)

    async def result(self) -> T:
        """What came of it, for one that waits."""
        await self._done
        return self._work.result()

    async def shared(self) -> T:
        """The same for one of several that wait."""
        await asyncio.shield(self._done)
        return self._work.result()

    def _tell(self, _work: Future[T]) -> None:
        if not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self._wake)

    def _wake(self) -> None:
        if not self._done.done():
            self._done.set_result(None)


class _Batch:
    """A commit on its way."""

    def __init__(self) -> None:
        self.job: _Job[None] | None = None


class WorkdirStore:
    """A :class:`shopfloor.ports.Store` in the folder ``.work``; ``folder`` is created by the first append."""

    def __init__(self, folder: Path, *, clock: Clock, random: Callable[[int], bytes] = os.urandom) -> None:
        self.folder = folder
        self._books = Books(folder, clock=clock, random=random)
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="shopfloor-store")
        self._changes: deque[Change] = deque()
        self._batch: _Batch | None = None
        """a commit that has not begun yet"""
        self._waiting: set[asyncio.Event] = set()
        self._tidying: asyncio.TimerHandle | None = None
        self._readers = 0
        self._put_off = 0
        self._tidied_at = self._tidying_took_s = 0.0
        self._closed = False

    async def append(
        self, events: Sequence[Event], *, expect: Mapping[str, int] | None = None, at_most: int = 0
    ) -> list[Event]:
        """Make one logical change durable: all of the events count, or none. Returns them as stamped.

        ``at_most``: each event is a change of its own; the first so many whose order is as expected are written. They
        are asked for on the thread of the store.

        Raises Conflict for an ``expect`` that does not hold or when a newer controller has started; Refused when the
        disk is full or read-only. When the call is cancelled the change may still have been made.
        """
        if not events:
            return []
        change = Change(events if at_most else list(events), dict(expect or {}), at_most=at_most)
        await self._committed(change)
        self._wake()
        if change.error is not None:
            raise change.error.with_traceback(None)
        if not change.done:
            raise Refused(
                f"{len(change.events)} events were perhaps not written to {str(self.folder)!r}",
                hint="look for them: shopfloor log",
            )
        return change.stamped

    async def read(self, after: int = 0, *, others: bool = False) -> AsyncIterator[tuple[int, Event]]:
        """Events behind the byte position ``after``, up to now, each with the position behind it."""
        nothing: list[Found] = []
        self._readers += 1
        try:
            while True:
                after = self._books.follower.own.beyond(after) if others else after
                if others and after == self._size():
                    return
                scanner, until = await self._run(self._books.scanner, after)
                # Where others wrote, that is read alone: what is ours before and after it is known.
                stop = self._books.follower.own.next_after(after, until) if others else until
                pieces = self._books.log.scan(scanner, stop, settle=stop == until)
                while (found := await self._run(next, pieces, nothing)) is not nothing:
                    for _start, end, event in found:
                        if end > after:
                            yield end, event
                if stop == until:
                    return
                after = stop
        finally:
            self._readers -= 1

    async def wait(self, after: int, timeout_s: float, *, others: bool = False) -> bool:
        """True as soon as there is an event behind ``after``: at once for own ones, within ``POLL_S`` for others."""
        loop = asyncio.get_running_loop()
        limit = loop.time() + timeout_s
        woken = asyncio.Event()
        self._waiting.add(woken)
        seen = -1
        try:
            while True:
                woken.clear()
                after = self._books.follower.own.beyond(after) if others else after
                if (size := self._size()) != seen:
                    if others and size == after:
                        seen = size
                    else:
                        last, seen = await self._run(self._books.look)
                        if last > (self._books.follower.own.beyond(after) if others else after):
                            return True
                self._tidy_later()
                left = limit - loop.time()
                if left <= 0:
                    return False
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(min(POLL_S, left)):
                        await woken.wait()
        finally:
            self._waiting.discard(woken)

    async def query(self, query: Query) -> list[dict[str, Any]]:
        """Rows of the index, as new as the log; ``stores/rows.py`` says what is in them.

        ``orders`` come by age, or by priority and age where a state is asked for; ``limit`` keeps the first. One order
        (``order=``) has its whole ``record``. ``events`` and ``runs`` come oldest first; ``limit`` keeps the newest.
        ``meta`` is one row.
        """
        return await self._run(self._books.query, query)

    async def lead(self, info: Mapping[str, Any]) -> int:
        """Become the controller until :meth:`close` or the end of the process; the same number when it already is.

        ``info`` goes into the log and the lock file. Raises Conflict naming the controller that is alive.
        """
        generation = await self._run(self._books.lead, dict(info))
        self._wake()
        return generation

    async def close(self) -> None:
        """Bring index and views up to date and let go of everything; harmless when repeated."""
        if self._closed:
            return
        if self._tidying is not None:
            self._tidying.cancel()
        try:
            await self._run(self._books.close)
        finally:
            self._closed = True
            self._thread.shutdown(wait=True)

    async def __aenter__(self) -> Self:
        """For ``async with``: closed at the end of the block."""
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close it."""
        await self.close()

    async def _run(self, work: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> T:
        return await self._begin(work, *args, **kwargs).result()

    def _begin(self, work: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> _Job[T]:
        self._check_open()
        return _Job(self._thread.submit(work, *args, **kwargs))

    async def _committed(self, change: Change) -> None:
        """Wait for the commit that takes this change along: one job of the thread for all that come until it begins."""
        self._check_open()
        self._changes.append(change)
        batch = self._batch
        if batch is None:
            batch = self._batch = _Batch()
            batch.job = self._begin(self._commit, batch)
        assert batch.job is not None
        await batch.job.shared()

    def _check_open(self) -> None:
        if self._closed:
            raise Refused(f"the store in {str(self.folder)!r} is closed", hint="open it anew")

    def _commit(self, batch: _Batch) -> None:
        if self._batch is batch:
            self._batch = None
        changes = []
        while self._changes:
            changes.append(self._changes.popleft())
        if changes:
            self._books.commit(changes)

    def _wake(self) -> None:
        for woken in self._waiting:
            woken.set()
        self._tidy_later()

    def _tidy_later(self) -> None:
        if self._tidying is None and self._books.behind and not self._closed:
            after_s = STABLE_S if self._books.soon else LAG_S
            self._tidying = asyncio.get_running_loop().call_later(after_s, self._tidy)

    def _tidy(self) -> None:
        self._tidying = None
        put_off_s = PUT_OFF * LAG_S * bool(self._readers)
        soon_again = time.monotonic() - self._tidied_at < SHARE * self._tidying_took_s
        if self._books.follower.rush.look(self._books.follower.mark.events):
            put_off_s = EDITED_S if self._books.edited else RUSH_S
        elif soon_again and not self._books.edited:
            put_off_s = RUSH_S
        if self._put_off < round(put_off_s / LAG_S):
            self._put_off += 1
            self._tidy_later()
        elif not self._closed:
            self._put_off = 0
            self._thread.submit(self._tidy_in_thread)

    def _tidy_in_thread(self) -> None:
        began = time.monotonic()
        self._books.tidy_quietly()
        self._tidied_at = time.monotonic()
        self._tidying_took_s = self._tidied_at - began

    def _size(self) -> int:
        try:
            return (self.folder / "events.jsonl").stat().st_size
        except OSError:
            return 0


__all__ = ["WorkdirStore", "controller_alive"]
