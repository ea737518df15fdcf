"""A crew at work: what its agents were started for, what the log says of it, what it costs the machine."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil

from .shop import Running, Shop, until

RUN = ("run", "--plain", "--no-check")


def alive(pid: int) -> bool:
    """True for a process that runs; one that ended and waits to be collected does not."""
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def events(shop: Shop, kind: str) -> list[dict[str, Any]]:
    """All events of a type, in the order of the log."""
    lines = map(json.loads, (shop.root / ".work" / "events.jsonl").read_text().splitlines())
    return [line for line in lines if line["event_type"] == kind]


def data_of(shop: Shop, kind: str) -> list[dict[str, Any]]:
    """What those events say."""
    return [event["data"] for event in events(shop, kind)]


def starts(shop: Shop) -> list[str]:
    """The orders that an agent of the test was started for, one line for each start."""
    called = shop.root.parent / "called"
    return called.read_text().split() if called.exists() else []


class Idle:
    """What a controller has used and started so far."""

    def __init__(self, run: Running) -> None:
        self.process = psutil.Process(run.process.pid)
        family = [self.process, *self.process.children(recursive=True)]
        self.family = {p.pid for p in family}
        self.cpu_s = sum(sum(p.cpu_times()[:2]) for p in family)
        # Faults of children that have ended: of a process that started none, and saw none end, they stay what they are.
        self.ended = [int(Path(f"/proc/{p.pid}/stat").read_text().rpartition(")")[2].split()[8]) for p in family]


def watched(run: Running, seconds: int) -> tuple[Idle, Idle]:
    """What it was at a time, and so many seconds later."""
    before = Idle(run)
    end = time.monotonic() + seconds
    until(lambda: time.monotonic() >= end, "time passes")
    return before, Idle(run)


@contextmanager
def agents_waiting(shop: Shop, orders: int, *, side_by_side: int) -> Iterator[Running]:
    """A run whose agents do nothing but wait, from when all of them are there; it is given up at the end."""
    agent = shop.tool("agent", "echo $name >> $there/called; read x < $there/fifo")
    os.mkfifo(shop.root.parent / "fifo")
    prompts = shop.plain(*(f"o{n:02}" for n in range(orders)))
    with shop.start(*RUN, "--agent", agent, "--max-parallel", str(side_by_side), *prompts) as run:
        until(lambda: len(starts(shop)) == side_by_side, "the agents wait")
        yield run
        assert shop("stop", "--cancel").code == 0
        run.end()
