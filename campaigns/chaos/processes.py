"""Who of a round is alive: by what /proc says, not by what anybody wrote down."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from shopfloor import guard

PAUSE_S = 0.002


class Process(NamedTuple):
    """A living process; zombies are none."""

    pid: int
    parent: int
    name: str
    words: tuple[str, ...]


def living(pid: int) -> Process | None:
    """The process with that id, None when it is gone or only waits to be reaped."""
    try:
        facts = guard.stat(pid)
        if facts[0] in b"ZX":
            return None
        name = Path(f"/proc/{pid}/comm").read_text().strip()
        words = Path(f"/proc/{pid}/cmdline").read_bytes().decode(errors="replace").split("\0")
    except OSError:
        return None
    return Process(pid, int(facts[1]), name, tuple(words))


def of(folder: Path) -> list[Process]:
    """Everything that was started for this folder: it stands in its environment, or is where it works."""
    mark, found = os.fsencode(folder) + b"/", []
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit() or int(entry.name) == os.getpid():
            continue
        try:
            ours = mark in (entry / "environ").read_bytes()
            ours = ours or (bytes((entry / "cwd").readlink()) + b"/").startswith(mark)
        except OSError:
            continue
        if ours and (process := living(int(entry.name))) is not None:
            found.append(process)
    return found


def variable(pid: int, name: str) -> str:
    """A variable of a process's environment; empty when it has none, or is gone."""
    try:
        words = Path(f"/proc/{pid}/environ").read_bytes().decode(errors="replace").split("\0")
    except OSError:
        return ""
    return next((value for key, _, value in (word.partition("=") for word in words) if key == name), "")


def guards(controller: int) -> list[int]:
    """The guard processes of a controller."""
    found = map(living, guard.children(controller))
    return [p.pid for p in found if p is not None and "guard" in " ".join((p.name, *p.words))]


def keepers(controller: int) -> list[int]:
    """The keepers below its guards."""
    return [child for pid in guards(controller) for child in guard.children(pid) if living(child)]


def agents(controller: int) -> list[int]:
    """What the keepers started: agents, checks and setup commands."""
    return [child for pid in keepers(controller) for child in guard.children(pid) if living(child)]


def until(true: Callable[[], bool], limit_s: float) -> bool:
    """Wait for a condition that announces itself to nobody; False when it did not come true in time."""
    ends = time.monotonic() + limit_s
    while not true():
        if time.monotonic() > ends:
            return False
        time.sleep(PAUSE_S)
    return True
