"""The installed command with two additions: a clock that a file can move, and a note of each event once it is durable.

``child.py FOLDER WORDS…``: FOLDER/clock holds ``WALL_OFFSET_S AWAKE_STOPPED(0|1)``; FOLDER/acknowledged gets the id of
every event that this process was told is in the log. SIGUSR1 makes it write FOLDER/stood.txt. Started by the campaign,
never imported by it.
"""

from __future__ import annotations

import asyncio
import io
import os
import resource
import signal
import sys
import time
from pathlib import Path
from typing import Any

import msgspec

import shopfloor
from shopfloor.app import Shopfloor
from shopfloor.domain.events import Event
from shopfloor.fast import main

FOLDER = Path(sys.argv[1])


class MovedClock:
    """The machine's clocks, moved as the file says."""

    def __init__(self, file: Path) -> None:
        self._file = file
        self._stopped_at: float | None = None
        self._slept = 0.0

    def _read(self) -> tuple[float, bool]:
        try:
            offset, stopped = self._file.read_text().split()
        except (FileNotFoundError, ValueError):
            return 0.0, False
        return float(offset), stopped == "1"

    def wall(self) -> float:
        return time.time() + self._read()[0]

    def awake(self) -> float:
        """Stands still while the file says so, and goes on from there afterwards."""
        now, stopped = time.monotonic() - self._slept, self._read()[1]
        if stopped:
            self._stopped_at = now if self._stopped_at is None else self._stopped_at
            return self._stopped_at
        if self._stopped_at is not None:
            self._slept += now - self._stopped_at
            now, self._stopped_at = self._stopped_at, None
        return now


class Watched(Shopfloor):
    """The façade on that clock, noting what was made durable."""

    def __init__(self, place: Any) -> None:
        super().__init__(msgspec.structs.replace(place, clock=MovedClock(FOLDER / "clock")))
        self._noted = os.open(FOLDER / "acknowledged", os.O_WRONLY | os.O_APPEND | os.O_CREAT)
        self.observers.append(self._note)

    def _note(self, event: Event) -> None:
        os.write(self._noted, f"{event.event_id}\n".encode())


def tell_where(*_: object) -> None:
    """Write down where every task stands."""
    text = io.StringIO()
    for task in asyncio.all_tasks():
        task.print_stack(file=text)
    (FOLDER / "stood.txt").write_text(text.getvalue())


if __name__ == "__main__":
    signal.signal(signal.SIGUSR1, tell_where)
    vars(shopfloor)["Shopfloor"] = Watched
    if limit := os.environ.get("CHAOS_FILE_BYTES"):
        sys.dont_write_bytecode = True  # the interpreter would leave compiled modules that are cut off in the middle
        resource.setrlimit(resource.RLIMIT_FSIZE, (int(limit), resource.RLIM_INFINITY))
    sys.argv[1:] = sys.argv[2:]
    sys.exit(main())
