"""A repository to try the floor on, and orders for the scripted agent."""

from __future__ import annotations

import asyncio
import json
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from shopfloor.app import Shopfloor
from shopfloor.app.intake import Wish
from shopfloor.domain.events import E, Event
from shopfloor.domain.report import Report, Row

FLAGS: dict[str, object] = {
    "agent": "scripted", "check": "test ! -e broken", "max_parallel": 2, "load_per_core": 100.0, "backoff": 0.05,
}  # fmt: skip


def git(repo: Path, *args: str) -> str:
    """What git prints, called as a person would."""
    identity = ["-c", "user.name=person", "-c", "user.email=person@localhost"]
    done = subprocess.run(["git", *identity, *args], cwd=repo, capture_output=True, text=True, check=True)
    return done.stdout.strip()


def script(*deeds: Mapping[str, object]) -> str:
    """A fenced script for the scripted agent."""
    tables = []
    for deed in deeds:
        lines = [f"{key} = {json.dumps(value)}" for key, value in deed.items()]
        tables.append("[[do]]\n" + "\n".join(lines))
    return "```script\n" + "\n\n".join(tables) + "\n```\n"


def write(path: str, content: str = "x\n") -> dict[str, object]:
    return {"write": path, "content": content}


class Lab:
    """A repository with a few files, and prompts outside of git."""

    def __init__(self, folder: Path, **files: str) -> None:
        self.repo = folder / "repo"
        self.repo.mkdir()
        git(self.repo, "init", "-q", "-b", "main")
        for name, text in {"a.txt": "one\ntwo\nthree\n", "b.txt": "b\n", ".gitignore": "ignored/\n", **files}.items():
            (self.repo / name).write_text(text)
        git(self.repo, "add", "-A")
        git(self.repo, "commit", "-q", "-m", "start")
        self.start = git(self.repo, "rev-parse", "HEAD")
        self.events: list[Event] = []
        self._awaited: list[tuple[int, asyncio.Event]] = []

    def prompt(self, name: str, body: str, **front: object) -> Path:
        """A prompt file; front matter values are written as JSON, which this subset of YAML understands."""
        place = self.repo / "prompts" / f"{name}.md"
        place.parent.mkdir(exist_ok=True)
        lines = "".join(f"{key}: {json.dumps(value)}\n" for key, value in front.items())
        place.write_text((f"---\n{lines}---\n" if lines else "") + f"# {name}\n\n{body}")
        return place

    def floor(self, **flags: object) -> Shopfloor:
        floor = Shopfloor.open(self.repo, flags={**FLAGS, **flags})
        floor.observers.append(self._see)
        return floor

    def _see(self, event: Event) -> None:
        self.events.append(event)
        for count, reached in self._awaited:
            if len(self.seen(E.AGENT_STARTED)) >= count:
                reached.set()

    async def agents_started(self, count: int) -> None:
        """Wait until so many agents were started, in all runs of this lab together."""
        reached = asyncio.Event()
        self._awaited.append((count, reached))
        if len(self.seen(E.AGENT_STARTED)) < count:
            await asyncio.wait_for(reached.wait(), 20)

    def run(self, *prompts: Wish, **flags: object) -> Report:
        """Run these to the end."""
        return asyncio.run(self._run(prompts, flags))

    async def _run(self, prompts: tuple[Wish, ...], flags: dict[str, Any]) -> Report:
        async with self.floor(**flags) as floor:
            return await floor.run(list(prompts))

    def resume(self, **flags: object) -> Report:
        async def body() -> Report:
            async with self.floor(**flags) as floor:
                return await floor.resume()

        return asyncio.run(body())

    def ask(self, verb: str, order: str = "", text: str = "") -> str:
        async def body() -> str:
            async with self.floor() as floor:
                return await floor.ask(verb, order, text)

        return asyncio.run(body())

    def report(self) -> Report:
        async def body() -> Report:
            async with self.floor() as floor:
                return await floor.report()

        return asyncio.run(body())

    def seen(self, kind: E) -> list[Event]:
        return [e for e in self.events if e.event_type == kind]


def row(report: Report, name: str) -> Row:
    return next(r for r in report.orders if r.name == name)
