"""Fifty live sessions race for a thousand orders, some are killed in the middle: nothing is claimed twice or lost."""

from __future__ import annotations

import asyncio
import os
import random
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

import msgspec

from benchmarks._race import Ack, Controller, Sessions, board_of, fill, journal, open_store, sessions
from benchmarks.figures import Figure
from campaigns.outcome import Options, Outcome
from shopfloor.app import holders
from shopfloor.domain.board import Board
from shopfloor.domain.holder import held
from shopfloor.domain.order import State
from shopfloor.engine.direct import Direct

ROUNDS = 10
"""of each way in the whole campaign"""
SESSIONS, ORDERS = 50, 1_000
FEWEST_SESSIONS, FEWEST_ORDERS = 8, 60
LIMITS = (1, 3, 10)
PATIENCE_S = 30.0


class Count(msgspec.Struct):
    """What was found in all rounds of one way."""

    rounds: int = 0
    sessions: int = 0
    killed: int = 0
    acknowledged: int = 0
    unheard: int = 0
    """claims in the log of sessions that were killed, perhaps before they heard of them"""
    silent: int = 0
    """claims in the log that nobody was told of, but for those of the last call of a session that was killed"""
    twice: int = 0
    """orders that were acknowledged twice in one generation"""
    forgotten: int = 0
    """claims that were acknowledged and are not in the log as such"""
    lost: int = 0
    """orders that were claimed by nobody although they were ready, or are gone"""
    kept: int = 0
    """orders that were not free again after all sessions were dead"""


def run(options: Options) -> Outcome:
    """Both ways, by turns; a smaller campaign has fewer rounds, and the smallest one also fewer sessions and orders."""
    chance = random.Random(options.seed)
    rounds = max(1, round(ROUNDS * options.size))
    whole = ROUNDS * options.size >= 1
    many = (SESSIONS, ORDERS) if whole else (FEWEST_SESSIONS, FEWEST_ORDERS)
    found = {"socket": Count(), "direct": Count()}
    for number in range(rounds):
        for way, count in found.items():
            with tempfile.TemporaryDirectory() as place:
                asyncio.run(_round(way, Path(place), many, chance, count))
            print(f"claims: round {number + 1} of {rounds}, {way}: {count}", file=sys.stderr, flush=True)
    return Outcome(
        figures=[figure for way, count in found.items() for figure in _figures(way, count)],
        untested=[
            "Sessions on several machines that share a folder: one of another machine is never declared dead.",
            "A session that stands still (suspended, not dead) keeps what it holds, however long.",
        ],
    )


async def _round(way: str, place: Path, many: tuple[int, int], chance: random.Random, count: Count) -> None:
    (number, orders), work = many, place / ".work"
    controller = Controller(work) if way == "socket" else None
    if controller is not None:
        await controller.open(orders)
    else:
        await fill(work, orders)
    limit = chance.choice(LIMITS)
    block = sessions(way, work, place / "acks", number, limit)
    racing = await asyncio.to_thread(block.__enter__)
    try:
        acks, killed = await asyncio.to_thread(_race, racing, chance)
        _judge(await board_of(work), acks, killed, limit, count)
        await asyncio.to_thread(racing.end)
        if controller is not None:
            await _until_free(controller)
        else:
            await _return_lost(work)
    finally:
        block.__exit__(None, None, None)
        if controller is not None:
            await controller.close()
    board = await board_of(work)
    count.rounds += 1
    count.sessions += number
    count.kept += sum(held(r) is not None for r in board.records.values())
    count.lost += orders - sum(r.state is State.READY for r in board.records.values())


def _race(racing: Sessions, chance: random.Random) -> tuple[dict[int, list[Ack]], set[int]]:
    """Let them go, and kill a tenth of them at some time."""
    began = time.monotonic()
    racing.go()
    killed = set(chance.sample(racing.pids, max(1, len(racing.pids) // 10)))
    for pid in killed:
        time.sleep(chance.random() * 0.05)
        os.kill(pid, signal.SIGKILL)
    racing.wait()
    took_s = time.monotonic() - began
    acks = racing.acks()
    print(f"claims: raced for {took_s:.2f} s, {len(killed)} killed", file=sys.stderr, flush=True)
    return acks, killed


def _judge(board: Board, acks: dict[int, list[Ack]], killed: set[int], limit: int, count: Count) -> None:
    """Every acknowledged claim is in the log, as its session's; every order went to somebody, who was told of it.

    A session asks again only once it has written down what it got: so one that is killed does not live to hear of one
    call at the most, and of no more than ``limit`` orders.
    """
    every = [(pid, ack) for pid, found in acks.items() for ack in found]
    count.killed += len(killed)
    count.acknowledged += len(every)
    heard = {(ack.order, ack.generation) for _, ack in every}
    unheard = Counter(
        a.handle.get("pid")
        for order, record in board.records.items()
        for a in record.attempts
        if (order, a.generation) not in heard
    )
    count.unheard += unheard.total()
    count.silent += sum(max(0, n - (limit if pid in killed else 0)) for pid, n in unheard.items())
    count.twice += len(every) - len(heard)
    for pid, ack in every:
        attempts = board.records[ack.order].attempts
        known = attempts[ack.generation - 1].handle if ack.generation <= len(attempts) else {}
        count.forgotten += known.get("pid") != pid
    # What the killed ones held may be back already, and ready for the next one who asks.
    theirs = {o for o, r in board.records.items() if any(a.handle.get("pid") in killed for a in r.attempts)}
    count.lost += sum(not r.attempts for o, r in board.records.items() if o not in theirs)


async def _until_free(controller: Controller) -> None:
    """They have hung up: the controller gives back what they held, at once."""
    floor, freed = controller.journal.floor, asyncio.Event()
    controller.journal.observers.append(lambda _event: None if floor.held else freed.set())
    if floor.held:
        with suppress(TimeoutError):
            await asyncio.wait_for(freed.wait(), PATIENCE_S)


async def _return_lost(work: Path) -> None:
    """The next one who looks gives back what the dead held."""
    async with open_store(work) as store:
        await Direct(journal(store), holders.holder(), alive=holders.alive).return_lost()


def _figures(way: str, count: Count) -> Iterable[Figure]:
    what = "by the socket" if way == "socket" else "directly"
    yield Figure(name=f"{what}: races", value=count.rounds)
    yield Figure(name=f"{what}: sessions, of them killed", value=count.sessions, baseline=count.killed)
    yield Figure(name=f"{what}: claims acknowledged", value=count.acknowledged)
    yield Figure(name=f"{what}: claims whose session was killed before it heard", value=count.unheard)
    for name, value in (
        ("claims that nobody was told of, but for the last call of a killed session", count.silent),
        ("claimed twice", count.twice),
        ("acknowledged and not in the log", count.forgotten),
        ("orders lost", count.lost),
        ("not returned", count.kept),
    ):
        yield Figure(name=f"{what}: {name}", value=value, bar="0", ok=value == 0)
