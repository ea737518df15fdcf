"""The file ``events.jsonl``: read in pieces, appended to with one write, made durable, repaired at its end."""

from __future__ import annotations

import errno
import hashlib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from shopfloor.domain.errors import Conflict
from shopfloor.stores.codec import CANCEL, LINE_LIMIT, decode
from shopfloor.stores.files import FILE_MODE, Lock, make_folder, not_a_folder, refusal, sync_folder
from shopfloor.stores.scan import Found, Scanner

CHUNK = 1 << 18
"""Bytes read at once: some 800 events."""

WINDOW = 1 << 12
"""Bytes at either end that identify a log."""


class Written(NamedTuple):
    """How much of a write arrived: ``size`` bytes of what was asked for; ``problem`` when that is not all."""

    size: int
    problem: OSError | None
    start: int = 0
    """where the file ended before"""
    end: int = 0
    """where it ended after it"""


class Log:
    """One log file. Every method blocks; one thread uses it. A file that is not there reads as empty."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.path = folder / "events.jsonl"
        self.lock = Lock(folder / ".lock")
        self._reading = -1
        self._writing = -1

    def size(self, at_least: int = 0) -> int:
        """Bytes in the file now. Raises Conflict when it is no longer the file that was opened, or was cut."""
        try:
            there = self.path.stat()
        except FileNotFoundError:
            if self._reading >= 0:
                raise self._replaced() from None
            return 0
        except NotADirectoryError:
            raise not_a_folder(self.folder) from None
        except OSError as problem:
            raise refusal("read", self.path, problem) from problem
        if self._reading < 0:
            self._reading = self._open(os.O_RDONLY)
        here = os.fstat(self._reading)
        if (here.st_dev, here.st_ino) != (there.st_dev, there.st_ino):
            raise self._replaced()
        if here.st_size < at_least:
            raise Conflict(
                f"{str(self.path)!r} became shorter while it was in use: {here.st_size} bytes, was {at_least}",
                hint="put the missing part back, then type: shopfloor run --resume",
            )
        return here.st_size

    def forget(self) -> None:
        """Let go of the file; the next use opens whatever is there then."""
        for descriptor in (self._reading, self._writing):
            if descriptor >= 0:
                os.close(descriptor)
        self._reading = self._writing = -1

    def close(self) -> None:
        """Let go of file and lock."""
        self.forget()
        self.lock.close()

    def create(self) -> None:
        """Make folder and file be there, durably. Raises Refused naming what is in the way."""
        if self._writing >= 0:
            return
        make_folder(self.folder)
        known = self.path.exists()
        self._writing = self._open(os.O_WRONLY | os.O_APPEND | os.O_CREAT)
        if not known:
            sync_folder(self.folder)

    def read(self, offset: int, size: int) -> bytes:
        """Up to ``size`` bytes from ``offset``; fewer at the end."""
        if self._reading < 0 and self.size() == 0:
            return b""
        try:
            return os.pread(self._reading, size, offset)
        except OSError as problem:
            raise refusal("read", self.path, problem) from problem

    def write(self, lines: bytes, first: int) -> Written:
        """Append with one write; it is durable after :meth:`sync`.

        ``first`` bytes of it are the first change: another program that takes no lock may put a line without an end
        just before it, and then both are written once more.
        """
        problem: OSError | None = None
        size = self.size()
        ended = not size or lines[:1] in (b"\n", CANCEL[:1]) or self.read(size - 1, 1) == b"\n"
        begin = b"" if ended else b"\n"
        try:
            count = os.write(self._writing, begin + lines) - len(begin)
        except OSError as caught:
            return Written(0, caught)
        if count < len(lines):
            problem = self._close_torn()
        elif piece := self._glued(len(lines) + len(begin)):
            try:
                os.write(self._writing, b"\n" + piece + b"\n" + lines[:first])
            except OSError as caught:
                return Written(0, caught)
        return Written(count, problem, size, os.lseek(self._writing, 0, os.SEEK_CUR))

    def inode(self) -> int:
        """Which file it is, 0 when it is not open."""
        return os.fstat(self._reading).st_ino if self._reading >= 0 else 0

    def sync(self) -> None:
        """Make durable what was written, and all that stood before it, whoever wrote that.

        Not under the lock: the syncs of several processes are one for the disk, and the next of them writes meanwhile.
        Raises Refused when what was written may not be durable.
        """
        try:
            _datasync(self._writing)
        except OSError as caught:
            raise refusal("make durable what was appended to", self.path, caught) from caught

    def _glued(self, count: int) -> bytes:
        """What stands before the last write on the same line, if anything."""
        start = os.lseek(self._writing, 0, os.SEEK_CUR) - count
        if start <= 0 or self.read(start, 1) in (b"\n", CANCEL[:1]) or self.read(start - 1, 1) == b"\n":
            return b""
        window = self.read(max(0, start - LINE_LIMIT), min(start, LINE_LIMIT))
        return window[window.rfind(b"\n") + 1 :]

    def closing(self, scanner: Scanner) -> bytes:
        """What to write before the next line, when the file was read to its end and that is not a newline.

        A whole event of ours without its newline was never acknowledged, perhaps even refused: it must not start to
        count. The same from another program does count.
        """
        if not scanner.torn:
            return b""
        try:
            ours = decode(scanner.rest).sf is not None
        except ValueError:
            ours = False
        return CANCEL if ours else b"\n"

    def scan(self, scanner: Scanner, until: int, *, settle: bool = True) -> Iterator[list[Found]]:
        """Events that count from where the scanner stands up to the byte ``until``, in pieces.

        When a group is open at the end, our programs are waited for (they write under the lock), so that what is
        still missing then will never come.
        """
        while scanner.seen < until:
            chunk = self.read(scanner.seen, min(CHUNK, until - scanner.seen))
            if not chunk:
                return
            yield scanner.feed(chunk)
        if settle and scanner.undecided:
            with self.lock.held():
                until = self.size()
            yield from self.scan(scanner, until, settle=False)
            if scanner.undecided:
                yield scanner.settle()

    def scanner_at(self, position: int) -> Scanner:
        """A scanner for what comes after a position, also when that lies inside a group."""
        probe = Scanner(position)
        if position:
            probe.feed(self.read(position, CHUNK))
        back = CHUNK
        while probe.headless:
            start = max(0, position - back)
            before = self.read(start, position - start)
            skip = before.find(b"\n") + 1 if start else 0
            scanner = Scanner(start + skip)
            scanner.feed(before[skip:])
            if scanner.undecided or not start:
                scanner.problems.clear()
                return scanner
            back *= 16
        return Scanner(position)

    def identity(self, offset: int) -> str:
        """A digest of how the log begins and of what lies before ``offset``: tells another log, or a rewritten one."""
        head = self.read(0, min(WINDOW, offset))
        tail = self.read(max(0, offset - WINDOW), min(WINDOW, offset))
        return hashlib.blake2b(head + b"\0" + tail, digest_size=16).hexdigest()

    def _open(self, flags: int) -> int:
        try:
            return os.open(self.path, flags, FILE_MODE)
        except OSError as problem:
            raise refusal("open", self.path, problem) from problem

    def _close_torn(self) -> OSError:
        """End the torn line so that it can never count, if the disk takes two bytes more; learn why it was full."""
        try:
            os.write(self._writing, CANCEL)
        except OSError as problem:
            return problem
        return OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    def _replaced(self) -> Conflict:
        return Conflict(
            f"{str(self.path)!r} was deleted or replaced by another file while it was in use",
            hint=(
                "put it back, then type: shopfloor run --resume; where it is gone for good, start again with "
                "shopfloor run: what the agents had done is on branches (git branch --list 'shopfloor/*')"
            ),
        )


def _datasync(descriptor: int) -> None:
    if hasattr(os, "fdatasync"):
        os.fdatasync(descriptor)
    else:  # macOS: only this reaches the disk itself
        import fcntl

        fcntl.fcntl(descriptor, getattr(fcntl, "F_FULLFSYNC", 51))
