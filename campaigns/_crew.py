"""A crew as a process: workers without models on a folder's tasks, for races and for hours.

`python -m campaigns._crew WORKSPACE REPORT NAME WORKERS LONGEST_S FAILS SEED` works until its standard input ends. Each
turn of a worker takes up to LONGEST_S, and of FAILS in 1,000 turns something is raised. What it was given to do stands
in REPORT, a line for each turn, at once, and that it has begun; its last line says what was still open after the crew
had ended.
"""

from __future__ import annotations

import asyncio
import json
import random
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Self, TextIO

from shopfloor.faces.foreman.config import WorkerConfig
from shopfloor.faces.foreman.orchestrator import ForemanWorkerOrchestrator, SessionClass

PAUSE_S = 0.2


class Hand:
    """A session that needs no model."""

    opened = 0

    def __init__(self, report: TextIO, longest_s: float, fails: int, chance: random.Random) -> None:
        self._report, self._longest_s, self._fails, self._chance = report, longest_s, fails, chance
        self.session_id = f"hand-{id(self):x}"
        self.coordinator: Any = SimpleNamespace(get=lambda _name: self)

    async def __aenter__(self) -> Self:
        Hand.opened += 1
        return self

    async def __aexit__(self, *_error: object) -> None:
        Hand.opened -= 1

    async def add_message(self, _message: dict[str, str]) -> None:
        """It listens to nobody."""

    async def execute(self, prompt: str) -> str:
        """Do as if."""
        if not prompt.startswith("Issue "):
            return "here we are"
        task = prompt.split()[1].rstrip(",")
        self._report.write(json.dumps({"task": task}) + "\n")
        self._report.flush()
        await asyncio.sleep(self._chance.random() * self._longest_s)
        if self._chance.randrange(1000) < self._fails:
            raise RuntimeError("a worker crashed")
        return f"did {task}"


class Many(ForemanWorkerOrchestrator):
    """A crew of hands."""

    hand: Any = None

    def _session_class(self) -> SessionClass:
        return lambda **_given: self.hand()


async def work(words: list[str], lines: TextIO) -> None:
    """Until the standard input ends."""
    workspace, name, workers, longest_s, fails, seed = words
    chance = random.Random(f"{seed} {name}")
    crew = Many(
        foreman_config={}, worker_configs=[WorkerConfig(name=name, config={}, count=int(workers))],
        workspace_root=Path(workspace), pause_s=PAUSE_S, queue=True,
    )  # fmt: skip
    crew.hand = lambda: Hand(lines, float(longest_s), int(fails), chance)
    async with crew:
        await crew.execute_user_message("Go")
        lines.write(json.dumps({"begun": True}) + "\n")
        lines.flush()
        await asyncio.to_thread(sys.stdin.read)
    left = [task for task in asyncio.all_tasks() if task is not asyncio.current_task()]
    lines.write(json.dumps({"sessions": Hand.opened, "tasks": len(left)}) + "\n")


def main(words: list[str]) -> None:
    """Open the report, and work."""
    with Path(words[1]).open("a", encoding="utf-8") as lines:
        asyncio.run(work([words[0], *words[2:]], lines))


if __name__ == "__main__":
    main(sys.argv[1:])
