"""A `.work` folder for tests: stores on it, events, and other processes that write to it."""

import os
import signal
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import count
from pathlib import Path
from typing import Any

from shopfloor.domain.board import creation
from shopfloor.domain.events import E, Event, stamp_time
from shopfloor.domain.order import Order
from shopfloor.stores import workdir
from shopfloor.stores.workdir import WorkdirStore

SOURCE = str(Path(workdir.__file__).parents[2])
PRELUDE = """
import asyncio, os, sys
from pathlib import Path
from shopfloor.domain.errors import ShopfloorError
from shopfloor.domain.events import Event
from shopfloor.ports import Query
from shopfloor.stores.workdir import WorkdirStore

class Clock:
    def wall(self):
        return 1767700800.0
    awake = wall

def event(name):
    return Event(name, "note.taken", "2026-01-06T12:00:00.000Z", "human", None, {"text": "x" * 200})

def say(text):
    os.write(1, f"{text}\\n".encode())

folder = Path(sys.argv[1])
store = WorkdirStore(folder, clock=Clock())
"""
_numbers = count(1)


class Clock:
    """Wall time moves one second with every look."""

    def __init__(self) -> None:
        self.now = 1_767_700_800.0

    def wall(self) -> float:
        self.now += 1.0
        return self.now

    awake = wall


def open_store(folder: Path) -> WorkdirStore:
    return WorkdirStore(folder, clock=Clock())


def event(event_type: str = "note.taken", **data: Any) -> Event:
    number = next(_numbers)
    return Event(f"evt-{number:012}", event_type, stamp_time(1_767_700_800.0 + number), "human", None, data)


def created(order: str, title: str = "a title") -> Event:
    return event(E.CREATED, **creation(Order(id=order, name=order, title=title)))


def claimed(order: str, generation: int = 1) -> Event:
    return event(
        E.ASSIGNED, work_order_id=order, generation=generation, attempt=f"{order}.a{generation}", agent="robot"
    )


async def types(store: WorkdirStore, after: int = 0) -> list[str]:
    own = (E.LOG_OPENED, E.CONTROLLER_STARTED)
    return [found.event_type async for _, found in store.read(after) if found.event_type not in own]


def start(script: str, folder: Path, *arguments: str) -> "subprocess.Popen[str]":
    """Another Python process; `script` finds `store`, `event` and `say` ready."""
    source = PRELUDE + textwrap.dedent(script)
    return subprocess.Popen(
        [sys.executable, "-c", source, str(folder), *arguments],
        env={**os.environ, "PYTHONPATH": SOURCE},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def finish(process: "subprocess.Popen[str]") -> list[str]:
    """The lines it said; an assertion when it failed."""
    out, err = process.communicate(timeout=50)
    assert process.returncode == 0, err
    return out.splitlines()


@contextmanager
def running(script: str, folder: Path) -> Iterator["subprocess.Popen[str]"]:
    """A process that is killed at the end; the block begins when it has said its first line."""
    process = start(script, folder)
    assert process.stdout is not None
    assert process.stderr is not None
    try:
        assert process.stdout.readline(), process.stderr.read()
        yield process
    finally:
        process.send_signal(signal.SIGKILL)
        process.communicate()


def until(condition: Callable[[], bool], timeout_s: float = 20.0) -> None:
    limit = time.monotonic() + timeout_s
    pause = threading.Event()
    while not condition():
        assert time.monotonic() < limit, "it never happened"
        pause.wait(0.002)  # not at once: what it waits for needs the processor
