"""What the engine's tests share: waiting for events, looking for processes, and ports that go wrong on purpose."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import msgspec
import psutil
import pytest

from shopfloor.app import Shopfloor, wiring
from shopfloor.domain.board import Board
from shopfloor.domain.events import E, Event
from shopfloor.domain.order import Record
from shopfloor.domain.report import Report
from shopfloor.ports import Landed, Lander, Mirrored, Proposal, Target

from .lab import Lab

PATIENCE_S = 25.0
LOOK_EVERY_S = 0.01


class Watch:
    """Waits for events of a floor's next session, and remembers them all."""

    def __init__(self, floor: Shopfloor) -> None:
        self.events: list[Event] = []
        self._waiting: list[tuple[Callable[[], bool], asyncio.Event]] = []
        floor.observers.append(self._see)

    def _see(self, event: Event) -> None:
        self.events.append(event)
        for reached, awaited in self._waiting:
            if reached():
                awaited.set()

    def of(self, kind: E) -> list[Event]:
        return [e for e in self.events if e.event_type == kind]

    async def until(self, kind: E, count: int = 1) -> None:
        """Return once so many events of a kind were seen."""
        reached = asyncio.Event()
        self._waiting.append((lambda: len(self.of(kind)) >= count, reached))
        if len(self.of(kind)) < count:
            await asyncio.wait_for(reached.wait(), PATIENCE_S)


def records(board: Board) -> dict[str, Record]:
    """By order name."""
    return {record.order.name: record for record in board.records.values()}


def at_work_in(lab: Lab) -> list[psutil.Process]:
    """Processes whose working folder is one of the workspaces, zombies left out."""
    found = []
    for process in psutil.process_iter():
        try:
            if process.status() != psutil.STATUS_ZOMBIE and process.cwd().startswith(str(lab.repo / ".worktrees")):
                found.append(process)
        except psutil.Error:
            continue
    return found


async def until_true(condition: Callable[[], object], what: str = "it never came true") -> None:
    """Give way until something outside of this process has happened, which announces itself to nobody."""
    limit = time.monotonic() + PATIENCE_S
    while not condition():
        assert time.monotonic() < limit, f"waited in vain: {what}"
        await asyncio.wait({asyncio.get_running_loop().create_future()}, timeout=LOOK_EVERY_S)


def swap(monkeypatch: pytest.MonkeyPatch, **ports: Callable[[Any], Any]) -> None:
    """Every session from now on has these ports in place of its own; each is made from the real one."""
    real = wiring.build

    def build(*args: Any, **more: Any) -> Any:
        tools, settings = real(*args, **more)
        return msgspec.structs.replace(tools, **{n: make(getattr(tools, n)) for n, make in ports.items()}), settings

    monkeypatch.setattr("shopfloor.app.leading.build", build)


class Lander0:
    """The real lander, as a base for those that do something else at one place."""

    def __init__(self, real: Lander) -> None:
        self.real = real

    async def tip(self, target: Target, *, start: str = "") -> str:
        return await self.real.tip(target, start=start)

    async def propose(self, onto: str, commit: str, *, message: str, trailers: Mapping[str, str]) -> Proposal:
        return await self.real.propose(onto, commit, message=message, trailers=trailers)

    async def bundle(self, onto: str, top: Proposal, *, message: str, trailers: Mapping[str, str]) -> Proposal:
        return await self.real.bundle(onto, top, message=message, trailers=trailers)

    async def land(self, target: Target, *, old: str, new: str) -> Landed:
        return await self.real.land(target, old=old, new=new)

    async def mirror(self, target: Target, *, old: str, new: str) -> Mirrored:
        return await self.real.mirror(target, old=old, new=new)


def log_of(lab: Lab) -> list[dict[str, Any]]:
    """The whole log as it lies on disk, without lines that are torn or no events."""
    found = []
    for line in (lab.repo / ".work/events.jsonl").read_bytes().splitlines():
        with contextlib.suppress(msgspec.DecodeError):
            found.append(msgspec.json.decode(line, type=dict[str, Any]))
    return found


async def resumed(lab: Lab, **flags: object) -> Report:
    """Go on in a session of its own."""
    async with lab.floor(**flags) as floor:
        return await floor.resume()


def hold_file(folder: Path) -> tuple[Path, str]:
    """A file, and a shell command that ends once the file is gone."""
    hold = folder / "hold"
    hold.touch()
    return hold, f"while [ -e {hold} ]; do sleep 0.02; done"
