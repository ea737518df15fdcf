"""One sync for all processes that wrote before it began, where several append to one log.

Whoever has synced notes how far the log was before; whoever finds its own write before that has nothing to do. The note
is no truth: it says of one file (by inode) that its first so many bytes are on the disk, and is only written once they
are. A log that became shorter makes it void for whoever writes then.
"""

from __future__ import annotations

import contextlib
import os
import time

from shopfloor.domain.errors import Refused
from shopfloor.stores.files import LOCK_TIMEOUT_S, Lock
from shopfloor.stores.log import Log, Written

NAME = ".sync.lock"
_PAUSE_S = 0.002
_NOTE = 64
"""bytes of the note: inode and size, twice, because it is read without the lock"""


class Durable:
    """What is known to be durable of a log, among the processes that write it."""

    def __init__(self, log: Log) -> None:
        self._log = log
        self._lock = Lock(log.folder / NAME)
        self._reading = -1
        self._broken: Refused | None = None

    def check(self) -> None:
        """Raise Refused once a sync has failed.

        Nobody can say what is on the disk then. Going on would build on events that may be gone tomorrow.
        """
        if self._broken is not None:
            raise self._broken

    def reached(self) -> int:
        """How many bytes of the log are durable, as far as anybody has noted; 0 when nothing is known."""
        if self._reading < 0:
            with contextlib.suppress(OSError):
                self._reading = os.open(self._lock.path, os.O_RDONLY)
        words = os.pread(self._reading, _NOTE, 0).split() if self._reading >= 0 else []
        half = len(words) // 2
        whole = half == 2 and words[:half] == words[half:]  # noqa: PLR2004 - inode and size
        return int(words[1]) if whole and int(words[0]) == self._log.inode() else 0

    def make(self, written: Written, *, known: int, shared: bool) -> None:
        """Return once what was written is durable. Raises Refused when it may not be.

        ``known`` is what :meth:`reached` said before; ``shared``: other processes append at this moment too.
        """
        try:
            if not shared:
                self._log.sync()
            elif known > written.start:  # the log was cut meanwhile: the note speaks of what was there before
                self._sync()
            else:
                self._wait_for(written.end)
        except Refused as problem:
            self._broken = problem
            raise

    def _wait_for(self, end: int) -> None:
        limit = time.monotonic() + LOCK_TIMEOUT_S
        while self.reached() < end:
            try:
                ours = self._lock.try_once()
            except Refused:  # there is no room even for the lock
                self._log.sync()
                return
            if ours:
                try:
                    if self.reached() < end:
                        self._sync()
                finally:
                    self._lock.release()
                return
            if time.monotonic() > limit:  # somebody was stopped in the middle of it
                self._log.sync()
                return
            time.sleep(_PAUSE_S)

    def _sync(self) -> None:
        size, inode = self._log.size(), self._log.inode()
        self._log.sync()
        with contextlib.suppress(OSError):  # the next one syncs once more, then
            self._lock.note(b"%d %d %d %d " % (inode, size, inode, size))

    def close(self) -> None:
        """Let go of the files."""
        self._lock.close()
        if self._reading >= 0:
            os.close(self._reading)
            self._reading = -1
