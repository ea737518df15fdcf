"""Crews at work for half an hour, crashing at random: no session stays open, no task is lost, memory stays flat."""

from __future__ import annotations

import asyncio
import random
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterable
from pathlib import Path

import msgspec

from benchmarks._race import board_of, open_store
from benchmarks.figures import Figure
from campaigns._crews import Crew, crews
from campaigns.outcome import Options, Outcome
from shopfloor import Shopfloor
from shopfloor.domain.board import Board
from shopfloor.domain.events import E
from shopfloor.domain.holder import held
from shopfloor.domain.order import State
from shopfloor.faces.foreman.tasks import Tasks

SECONDS = 1_800.0
SHORTEST_S = 6.0
CREWS, WORKERS = 3, 4
"""The first crew is never killed: it is the one whose memory is looked at."""
TURN_S = 0.2
FAILS = 50
"""of 1,000 turns"""
EVERY_S = 0.5
BATCH = 8
KILL_EVERY_S = 4.0
LAST_S = 60.0
"""for what is left when nothing new comes"""
SETTLED_S = 300.0
"""before this memory still grows for good reasons: caches fill"""
MOST_GROWTH = 1.2


class Soak(msgspec.Struct):
    """What was found."""

    made: int = 0
    killed: int = 0
    failed: int = 0
    completed: int = 0
    unfinished: int = 0
    twice: int = 0
    """tasks that were completed more than once"""
    held: int = 0
    """tasks that are still somebody's"""
    sessions: int = 0
    """sessions that were open after a crew had ended"""
    left: int = 0
    """asyncio tasks that were left then"""
    bad_ends: int = 0
    before_mib: float = 0.0
    after_mib: float = 0.0
    late_mib: float = 0.0
    """the most that a crew had which began when all was done"""
    took_s: float = 0.0


def run(options: Options) -> Outcome:
    """A smaller campaign takes less time; memory is only judged where there was enough of it."""
    seconds = max(SHORTEST_S, SECONDS * options.size)
    with tempfile.TemporaryDirectory() as place:
        soak = asyncio.run(_soak(Path(place), seconds, options.seed))
    return Outcome(
        figures=list(_figures(soak, seconds)),
        untested=[
            "Models: the workers' sessions are scripted, so what a provider's client keeps in memory is not seen.",
            "A workspace on a file system that several machines share.",
            "Very many tasks that are unfinished at a time: those a crew has in memory, 1 to 2 KiB for each.",
        ],
    )


async def _soak(place: Path, seconds: float, seed: int) -> Soak:
    found, chance = Soak(), random.Random(seed)
    (place / "workspace").mkdir()
    started = 0
    with crews() as running:

        def start() -> None:
            nonlocal started
            kind = ("coding", "research")[started % 2]
            one = Crew(
                place, f"{kind}-{started}", workers=WORKERS, longest_s=TURN_S, fails=FAILS, seed=seed
            )  # fmt: skip
            started += 1
            running.append(one)

        for _ in range(CREWS):
            start()
        veteran, alive = running[0], list(running)
        began = killed_at = time.monotonic()
        async with Shopfloor.open(place / "workspace", without_git=True) as floor:
            tasks = Tasks(floor, "feeder")
            while (now := time.monotonic()) < began + seconds:
                await _feed(tasks, found)
                if now > killed_at + KILL_EVERY_S * chance.uniform(0.5, 1.5):
                    killed_at = now
                    victim = chance.choice(alive[1:])
                    alive.remove(victim)
                    await asyncio.to_thread(victim.kill)
                    found.killed += 1
                    start()
                    alive.append(running[-1])
                    print(f"soak: {now - began:.0f} s of {seconds:.0f}, {found}", file=sys.stderr, flush=True)
                if not found.before_mib and now - began > min(SETTLED_S, seconds / 3):
                    found.before_mib = veteran.rss_mib
                await asyncio.sleep(EVERY_S)
            await _until_done(tasks)
            found.after_mib = veteran.rss_mib
            start()
            alive.append(running[-1])
            found.late_mib = await _begun(running[-1])
        for crew in alive:
            found.bad_ends += await asyncio.to_thread(crew.end) != 0
            last = (crew.lines() or [{}])[-1]
            found.sessions += int(last.get("sessions", -1))
            found.left += int(last.get("tasks", -1))
        found.took_s = time.monotonic() - began
    await _judge(place / "workspace" / ".work", found)
    return found


async def _feed(tasks: Tasks, found: Soak) -> None:
    """Some more to do, unless there is a heap of it already."""
    waiting = len(await tasks.floor.ready(limit=10 * BATCH))
    for number in range(BATCH if waiting < 5 * BATCH else 0):
        await tasks.create(f"Task {found.made}", category=("coding", "research")[number % 2])
        found.made += 1


async def _begun(crew: Crew) -> float:
    """Its peak, as soon as it has taken in what there is."""
    limit = time.monotonic() + LAST_S
    while time.monotonic() < limit:
        if any("begun" in line for line in crew.lines()):
            break
        await asyncio.sleep(EVERY_S)
    return crew.peak_mib


async def _until_done(tasks: Tasks) -> None:
    limit = time.monotonic() + LAST_S
    while time.monotonic() < limit and await tasks.unfinished():
        for task in await tasks.all(status="blocked"):  # it failed too often: somebody looks at it
            await tasks.unblock(task.id, "try again")
        await asyncio.sleep(EVERY_S)


async def _judge(work: Path, found: Soak) -> None:
    """By a replay of the whole log."""
    board: Board = await board_of(work)
    ends: Counter[str] = Counter()
    async with open_store(work) as store:
        async for _, event in store.read():
            ends[event.order_id] += event.event_type == E.AGENT_STOPPED
    found.completed = sum(record.state is State.DONE for record in board.records.values())
    found.unfinished = found.made - found.completed
    found.failed = sum(record.failures for record in board.records.values())
    found.twice = sum(count > 1 for count in ends.values())
    found.held = sum(held(record) is not None for record in board.records.values())


def _figures(soak: Soak, seconds: float) -> Iterable[Figure]:
    yield Figure(name="time at work", value=soak.took_s, unit="s")
    yield Figure(name="tasks made, of them completed", value=soak.made, baseline=soak.completed)
    yield Figure(name="crews killed", value=soak.killed, bar="> 0", ok=soak.killed > 0)
    yield Figure(name="turns of workers that failed", value=soak.failed)
    for name, value in (
        ("tasks that were lost", soak.unfinished),
        ("tasks that were completed twice", soak.twice),
        ("tasks that are still held at the end", soak.held),
        ("sessions that are open at the end", soak.sessions),
        ("asyncio tasks that are left at the end", soak.left),
        ("crews that did not end well", soak.bad_ends),
    ):
        yield Figure(name=name, value=value, bar="0", ok=value == 0)
    for what, most in (
        ("memory of a crew at the end, against that after it had settled", soak.after_mib),
        ("the most that a crew has in memory which begins at the end, against the same", soak.late_mib),
    ):
        growth = most / soak.before_mib if soak.before_mib else 0.0
        judged = growth <= MOST_GROWTH if seconds > SETTLED_S else None
        yield Figure(
            name=what, value=most, unit="MiB", baseline=soak.before_mib, ratio=growth, bar=f"<= {MOST_GROWTH:g} x",
            ok=judged,
        )  # fmt: skip
