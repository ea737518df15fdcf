"""What a landing costs beyond the checks, against `git merge` and the same check by hand in the same run.

All orders are worked on and verified first; then `land` takes them from the queue, which is what is measured.
"""

from __future__ import annotations

import asyncio
import statistics
import subprocess
import tempfile
import time
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec

from benchmarks.figures import Figure
from shopfloor.app import Shopfloor
from shopfloor.domain.events import E, Event
from shopfloor.domain.report import Report
from shopfloor.git import repository

ORDERS = 60
BAR_PER_HOUR, BAR_S = 1000.0, 1.0
CHECK = "test -e README.md"
AGENT = ("sh", "-c", "sed -n 's/^RUN: //p' | sh -e")
"""Does what the lines of its prompt say that begin with ``RUN:``."""


def git(repo: Path, *args: str) -> str:
    """What git prints, called as a person would."""
    identity = ["-c", "user.name=person", "-c", "user.email=person@localhost"]
    done = subprocess.run(["git", *identity, *args], cwd=repo, capture_output=True, text=True, check=True)
    return done.stdout.strip()


def make_repository(repo: Path, files: Mapping[str, str]) -> Path:
    """A repository with these files and one commit on ``main``."""
    for name, content in files.items():
        path = repo / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content)
    git(repo, "init", "-q", "-b", "main")
    git(repo, "add", "-A")
    git(repo, "commit", "-q", "-m", "start")
    return repo


def wish(name: str, *commands: str, checks: Sequence[str] = ()) -> str:
    """A prompt whose agent runs these commands."""
    front = f"---\nchecks: {msgspec.json.encode(list(checks)).decode()}\n---\n" if checks else ""
    return f"{front}# {name}\n\n" + "".join(f"RUN: {command}\n" for command in commands)


class Watch:
    """Every event of the sessions, with the moment at which it was seen."""

    def __init__(self) -> None:
        self.seen: list[tuple[float, Event]] = []

    def __call__(self, event: Event) -> None:
        self.seen.append((time.perf_counter(), event))

    def of(self, kind: E) -> list[Event]:
        """The events of one kind."""
        return [event for _, event in self.seen if event.event_type == kind]


class Costs(msgspec.Struct, frozen=True, kw_only=True):
    """What landing came to. Seconds."""

    landed: int
    wall_s: float
    each_s: list[float]
    """from taken out of the queue to landed, without the run time of the checks in between"""
    tests: int
    git_calls: int = 0

    @property
    def per_hour(self) -> float:
        """Landings an hour at this rate."""
        return self.landed / self.wall_s * 3600.0 if self.wall_s else 0.0

    @property
    def median_s(self) -> float:
        """Half of the orders took no longer."""
        return statistics.median(self.each_s)

    @property
    def p95_s(self) -> float:
        """Nineteen of twenty took no longer."""
        return sorted(self.each_s)[int(len(self.each_s) * 0.95)]


def costs(watch: Watch, wall_s: float, *, git_calls: int = 0) -> Costs:
    """Add up what was seen."""
    begun: dict[str, float] = {}
    tests: list[tuple[float, float]] = []
    each = []
    for at, event in watch.seen:
        if event.event_type == E.LANDING_STARTED:
            begun[event.order_id] = at
        elif event.event_type == E.LANDING_TESTED:
            tests.append((at, event.data["duration_s"]))
        elif event.event_type == E.LANDING_LANDED:
            since = begun[event.order_id]
            each.append(at - since - sum(took for tested, took in tests if since < tested <= at))
    return Costs(landed=len(each), wall_s=wall_s, each_s=each, tests=len(tests), git_calls=git_calls)


class Shop:
    """One repository's floor, opened anew for each session."""

    def __init__(self, repo: Path, check: str) -> None:
        self.repo = repo
        self.watch = Watch()
        self.flags: dict[str, Any] = {
            "agents": {"worker": {"command": list(AGENT)}}, "agent": "worker", "check": check, "max_parallel": 4,
            "max_checks": 2, "load_per_core": 100.0, "land": "review",
        }  # fmt: skip

    def _open(self, **flags: Any) -> Shopfloor:
        floor = Shopfloor.open(self.repo, flags=self.flags | flags)
        floor.observers.append(self.watch)
        return floor

    async def work(self, wishes: Iterable[str]) -> Report:
        """Have them worked on and verified; nothing lands."""
        async with self._open() as floor:
            return await floor.run(list(wishes))

    async def land(self) -> Costs:
        """Land everything that is verified."""
        first = len(self.watch.seen)
        counted, start = [0], repository.start

        def counting(*args: Any, **more: Any) -> Any:
            counted[0] += 1
            return start(*args, **more)

        repository.start = counting
        began = time.perf_counter()
        try:
            async with self._open() as floor:
                await floor.ask("land")
        finally:
            repository.start = start
        took = time.perf_counter() - began
        part = Watch()
        part.seen = self.watch.seen[first:]
        return costs(part, took, git_calls=counted[0])

    async def go_on(self) -> Report:
        """Let what came back be worked on again, and land it."""
        async with self._open(land="auto") as floor:
            return await floor.resume()


def by_hand(repo: Path, branches: Sequence[str], place: Path) -> float:
    """Seconds for each branch merged and checked with git alone, in a checkout of its own."""
    git(repo, "worktree", "add", "-q", "--detach", str(place), git(repo, "rev-list", "--max-parents=0", "main"))
    began = time.perf_counter()
    for branch in branches:
        git(place, "merge", "-q", "--no-ff", "-m", "by hand", branch)
        subprocess.run(["sh", "-c", CHECK], cwd=place, check=True)
    return (time.perf_counter() - began) / len(branches)


def figures(found: Costs, *, hand_s: float | None = None) -> list[Figure]:
    """Rate and latency beside their bars."""
    each = found.wall_s / found.landed
    return [
        Figure(name="landings an hour", value=found.per_hour, bar=f"≥ {BAR_PER_HOUR:,.0f}",
               ratio=found.per_hour / BAR_PER_HOUR, ok=found.per_hour >= BAR_PER_HOUR),
        Figure(name="a landing beyond the checks, median", value=found.median_s, unit="s", bar=f"≤ {BAR_S:g} s",
               ratio=found.median_s / BAR_S, ok=found.median_s <= BAR_S),
        Figure(name="a landing beyond the checks, p95", value=found.p95_s, unit="s"),
        Figure(name="wall time for each landing, checks included", value=each, unit="s", baseline=hand_s,
               ratio=each / hand_s if hand_s else None),
        Figure(name="tests of merged work for each landing", value=found.tests / found.landed),
        Figure(name="git processes for each landing", value=found.git_calls / found.landed),
    ]  # fmt: skip


def run() -> list[Figure]:
    """Land good orders only; the baseline is `git merge` and the check by hand."""
    with tempfile.TemporaryDirectory() as place:
        files = {"README.md": "# sample\n", **{f"src/file{n}.txt": f"{n}\n" for n in range(200)}}
        repo = make_repository(Path(place, "repo"), files)
        shop = Shop(repo, CHECK)
        report = asyncio.run(shop.work(wish(f"order {n}", f"echo {n} > new{n}.txt") for n in range(ORDERS)))
        hand = by_hand(repo, [row.branch for row in report.orders], Path(place, "hand"))
        found = asyncio.run(shop.land())
    if found.landed != ORDERS:
        raise RuntimeError(f"{found.landed} of {ORDERS} orders landed")
    return figures(found, hand_s=hand)
