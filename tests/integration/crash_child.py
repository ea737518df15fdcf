"""Run one order's life and die by SIGKILL at one durable step: started by test_crash.py, never imported by it.

A durable step is an append to the log, or a git command that moves a ref, an index or a worktree. Each counts twice:
before and after. ``crash_child.py REPO KILL_AT STEPS_FILE``; with KILL_AT 0 nothing is killed. Each step's name goes to
the file, and every event that was acknowledged to ``STEPS_FILE.acknowledged``.
"""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from shopfloor.app import Shopfloor
from shopfloor.domain.events import Event
from shopfloor.git import repository
from shopfloor.stores.workdir import WorkdirStore

WRITES = ("update-ref", "read-tree", "worktree", "reset", "checkout", "clean", "commit-tree", "symbolic-ref", "fetch")


class Steps:
    """Counts durable steps and ends the process at the chosen one."""

    def __init__(self, kill_at: int, file: Path) -> None:
        self.kill_at = kill_at
        self.count = 0
        self.names = file.open("a", buffering=1)
        self.acknowledged = file.with_suffix(".acknowledged").open("a", buffering=1)

    def step(self, name: str) -> None:
        self.count += 1
        self.names.write(f"{self.count} {name}\n")
        if self.count == self.kill_at:
            os.kill(os.getpid(), signal.SIGKILL)


class WatchedStore(WorkdirStore):
    """The real store, with a step before and after each append."""

    steps: Steps

    async def append(
        self, events: Sequence[Event], *, expect: Mapping[str, int] | None = None, at_most: int = 0
    ) -> list[Event]:
        name = "+".join(dict.fromkeys(e.event_type for e in events))
        self.steps.step(f"before {name}")
        stamped = await super().append(events, expect=expect, at_most=at_most)
        for event in stamped:
            self.steps.acknowledged.write(event.event_id + "\n")
        self.steps.step(f"after {name}")
        return stamped


def watch_git(steps: Steps) -> None:
    """The real git door, with a step before and after each command that changes the repository."""
    start = repository.start

    def watched(argv: Sequence[str], **more: Any) -> Any:
        verb = next((word for word in argv if word in WRITES), "")
        if verb:
            steps.step(f"before git {verb}")
        done = start(argv, **more)
        if verb:
            steps.step(f"after git {verb}")
        return done

    repository.start = watched


async def main() -> int:
    repo, kill_at, file = Path(sys.argv[1]), int(sys.argv[2]), Path(sys.argv[3])
    steps = Steps(kill_at, file)
    flags = {"agent": "scripted", "check": "grep -q done result.txt", "setup": "true", "max_parallel": 1}
    async with Shopfloor.open(repo, flags=flags) as floor:
        store = WatchedStore(floor.work, clock=floor.clock)
        store.steps = steps
        floor.store = store
        watch_git(steps)
        report = await floor.run([repo / "prompts" / "life.md"])
        return 0 if report.ok else 1


if __name__ == "__main__":
    raise SystemExit(asyncio.run(main()))
