"""Workers that have nothing to do: woken at once by what can be heard, else looking again after the pause."""

from __future__ import annotations

import asyncio
from pathlib import Path

from shopfloor import Shopfloor
from shopfloor.faces.foreman.task import Given, Wish
from shopfloor.faces.foreman.tasks import Tasks
from shopfloor.faces.foreman.waiting import Queue

PATIENCE_S = 20.0
ANY = Wish()


class Deaf:
    """News that cannot be heard: it fails, or nothing ever comes."""

    def __init__(self, *, fails: bool) -> None:
        self.fails = fails
        self.waited: list[float] = []

    async def changed(self, after: int, timeout_s: float) -> int:
        self.waited.append(timeout_s)
        if self.fails:
            raise OSError("the log cannot be watched")
        await asyncio.sleep(0)
        return after


class Pauses:
    """Time that passes when it is told to."""

    def __init__(self) -> None:
        self.asked: list[float] = []
        self.over = asyncio.Semaphore(0)
        self.begun = asyncio.Event()

    async def sleep(self, seconds: float) -> None:
        self.asked.append(seconds)
        self.begun.set()
        await self.over.acquire()


async def asleep(queue: Queue, taking: asyncio.Task[Given | None]) -> None:
    """Until the worker has looked at all there is to hear of, and found nothing."""
    async with asyncio.timeout(PATIENCE_S):
        while queue._nothing.get(repr(ANY)) != queue._news:
            assert not taking.done()
            await asyncio.sleep(0)


async def test_news_that_are_never_heard_only_cost_the_pause(tmp_path: Path) -> None:
    for fails in (True, False):
        pauses, deaf, stop = Pauses(), Deaf(fails=fails), asyncio.Event()
        (tmp_path / str(fails)).mkdir()
        async with Shopfloor.open(tmp_path / str(fails), without_git=True) as floor:
            worker, other = Tasks(floor, "worker"), Tasks(floor, "other")
            queue = Queue(deaf, stop, pause_s=2.0, sleep=pauses.sleep)
            watching = asyncio.create_task(queue.watch())
            taking = asyncio.create_task(queue.take(ANY, worker))
            async with asyncio.timeout(PATIENCE_S):
                await pauses.begun.wait()
            await asleep(queue, taking)
            task = await other.create("Nobody tells")
            await asleep(queue, taking)
            assert not taking.done(), "it looks again only after the pause"
            pauses.over.release()
            async with asyncio.timeout(PATIENCE_S):
                if not fails:  # the pause was the waiting for news; this was the moment between two looks
                    assert deaf.waited[0] == 2.0
                else:
                    assert pauses.asked[0] == 2.0
                given = await taking
            assert given is not None
            assert given.id == task.id
            watching.cancel()
            await asyncio.wait([watching])
            await worker.end()


async def test_whoever_can_be_woken_does_not_wait_for_the_pause(tmp_path: Path) -> None:
    stop = asyncio.Event()
    async with (
        Shopfloor.open(tmp_path, without_git=True) as floor,
        Shopfloor.open(tmp_path, without_git=True) as beside,
    ):
        worker, foreman, other = Tasks(floor, "worker"), Tasks(floor, "foreman"), Tasks(beside, "other")
        queue = Queue(foreman, stop, pause_s=3600.0)
        watching = asyncio.create_task(queue.watch())
        for maker in (foreman, other):  # of this process, and as another process writes
            taking = asyncio.create_task(queue.take(ANY, worker))
            await asleep(queue, taking)
            task = await maker.create("Now")
            async with asyncio.timeout(PATIENCE_S):
                given = await taking
            assert given is not None
            assert given.id == task.id
        watching.cancel()
        await asyncio.wait([watching])
        await worker.end()
