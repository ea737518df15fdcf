"""What orchestration costs: 40 sleeping commands, 8 at a time, by hand and as work orders."""

from __future__ import annotations

import asyncio
import subprocess
import tempfile
import time
from pathlib import Path

from benchmarks.figures import Figure
from shopfloor.app import Shopfloor

TASKS, SIDE_BY_SIDE, SLEEP_S = 40, 8, 15.0
COMMAND = f'cat >/dev/null; sleep {SLEEP_S:g}; echo done > "result-$RANDOM$$"'


async def by_hand(folder: Path) -> float:
    """Wall seconds for the bare commands: no checkout, no log, no check."""
    room = asyncio.Semaphore(SIDE_BY_SIDE)

    async def one() -> None:
        async with room:
            process = await asyncio.create_subprocess_shell(COMMAND, cwd=folder, stdin=asyncio.subprocess.DEVNULL)
            await process.wait()

    began = time.perf_counter()
    await asyncio.gather(*(one() for _ in range(TASKS)))
    return time.perf_counter() - began


async def as_orders(repo: Path) -> float:
    """Wall seconds for the same commands as orders: worktree, guard, transcript, snapshot, check, landing."""
    flags = {
        "agents": {"sleeper": {"command": ["sh", "-c", COMMAND]}}, "agent": "sleeper", "check": "true",
        "max_parallel": SIDE_BY_SIDE, "load_per_core": 100.0,
    }  # fmt: skip
    began = time.perf_counter()
    async with Shopfloor.open(repo, flags=flags) as floor:
        report = await floor.run([f"# task {n}\n\nsleep" for n in range(TASKS)])
    took = time.perf_counter() - began
    if report.counts["landed"] != TASKS:
        raise RuntimeError(f"not every order landed: {report.counts}")
    return took


def make_repository(repo: Path) -> None:
    """A repository of a hundred files."""
    repo.mkdir()
    for number in range(100):
        (repo / f"file{number}.txt").write_text(f"{number}\n")
    for args in (["init", "-q", "-b", "main"], ["add", "-A"],
                 ["-c", "user.name=b", "-c", "user.email=b@localhost", "commit", "-q", "-m", "start"]):  # fmt: skip
        subprocess.run(["git", *args], cwd=repo, check=True)


def run() -> list[Figure]:
    """Both, and their ratio."""
    with tempfile.TemporaryDirectory() as place:
        folder, repo = Path(place, "hand"), Path(place, "repo")
        folder.mkdir()
        make_repository(repo)
        hand = asyncio.run(by_hand(folder))
        ours = asyncio.run(as_orders(repo))
    share = ours / hand - 1.0
    return [
        Figure(name=f"{TASKS} commands of {SLEEP_S:g} s, {SIDE_BY_SIDE} at a time, by hand", value=hand, unit="s"),
        Figure(name="the same as work orders, landed", value=ours, unit="s", baseline=hand, ratio=ours / hand),
        Figure(name="overhead", value=share * 100.0, unit="%", bar="≤ 2 %", ok=share <= 0.02),
    ]
