"""Files for other programs: ``feed.jsonl`` and ``work_orders.jsonl``.

The log is the truth and these only follow it: a view that cannot be written is reported and nothing else happens.
Other programs may also write ``work_orders.jsonl``. What they wrote is never lost: their own keys and lines stay, and
before a file that holds an edit of theirs is replaced, it is kept in ``foreign/``.
"""

from __future__ import annotations

import os
import time
import zlib
from collections import deque
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import msgspec

from shopfloor.domain.errors import Refused
from shopfloor.stores.files import FOLDER_MODE, Lock, append_line, replace_file
from shopfloor.stores.index import Index
from shopfloor.stores.log import Log
from shopfloor.stores.sheet import Sheet

FEED = "feed.jsonl"
ORDERS = "work_orders.jsonl"
FOREIGN = "foreign"

STABLE_S = 0.1
"""A file that another program changed counts after it was left alone this long."""

UNFINISHED_S = 2.0
"""The same for one that is empty or ends in the middle of a line: somebody is writing it, or has died doing so."""

MEND_WINDOW = 4 << 20
"""Bytes at the end of log and feed that are compared to find what a crash kept from the feed."""

Signature = tuple[int, int, int]


class Edit(NamedTuple):
    """What another program did to a view: the orders it speaks of, and where in the folder its version is kept."""

    path: str
    ids: list[str]
    kept: str


class Note(NamedTuple):
    """Something about a file that a person should know."""

    file: str
    what: str


class _Text(NamedTuple):
    """A file as it was read; ``descriptor`` stays open, so that it can be looked at again after it was replaced."""

    content: bytes
    signature: Signature
    age_s: float
    descriptor: int


class Views:
    """The views of one folder. Every method blocks; one thread uses it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.notes: deque[Note] = deque(maxlen=100)
        self._path = folder / ORDERS
        self._lock = Lock(folder / ".views.lock")
        self._left: Signature | None = None
        """the file as we last left it"""

    def close(self) -> None:
        """Let go of the lock's file."""
        self._lock.close()

    def feed(self, lines: bytes) -> None:
        """Append to the feed what was just appended to the log."""
        try:
            append_line(self.folder / FEED, lines)
        except OSError as problem:
            self.note(FEED, f"cannot be appended to, watchers miss events: {_why(problem)}")

    def mend_feed(self, log: Log) -> None:
        """Append what a crash between the two files kept from the feed; the log's lock is held."""
        size = log.size()
        start = max(0, size - MEND_WINDOW)
        try:
            known = _end_of(self.folder / FEED)
        except FileNotFoundError:
            if start:  # a feed is no history: a new one begins now
                return
            known = set()
        except OSError as problem:
            self.note(FEED, f"cannot be read: {_why(problem)}")
            return
        lines = log.read(start, size - start).split(b"\n")[:-1]
        # Power loss may have left a hole in it: what follows the first line that it knows is looked at one by one.
        first = next((place for place, line in enumerate(lines) if line in known), len(lines) if known else 0)
        missing = [line for line in lines[first:] if line and line not in known]
        counted = set(_counted(log, start, size)) if missing else set()
        lost = b"".join([line + b"\n" for line in missing if line in counted])
        if lost:
            self.feed(lost)

    def touched(self) -> bool:
        """True when the file is no longer as we left it (one look at its entry)."""
        return self._left is not None and _signature(self._path) != self._left

    def publish(self, index: Index, report: Callable[[Edit], None]) -> bool:
        """Bring ``work_orders.jsonl`` up to the index; False: somebody is writing it just now, try again.

        ``report`` is told of an edit by others after their version was kept and before it is replaced.
        """
        text: _Text | None = None
        try:
            with self._lock.held():
                text = _read(self._path)
                return self._publish(index, text, report)
        except (OSError, Refused) as problem:
            why = _why(problem) if isinstance(problem, OSError) else problem.message
            self.note(ORDERS, f"cannot be written, other programs see old states: {why}")
            return True
        finally:
            if text is not None:
                os.close(text.descriptor)

    def _publish(self, index: Index, text: _Text | None, report: Callable[[Edit], None]) -> bool:
        at = index.mark().offset
        changed = index.changed_after(index.get("view", 0))
        content = text.content if text else b""
        sheet = Sheet(content)
        values = {}
        if text is None:
            sheet.put(index.records(index.changed_after(0)))
        elif index.get("view_digest") == _digest(content):
            sheet.put(index.records(changed))
        else:
            if not _settled(text):
                return False
            findings = sheet.reconcile(index, set(msgspec.json.decode(index.get("view_strangers", "[]"))))
            if findings.news:
                report(Edit(ORDERS, findings.edited, self._keep(content)))
            values["view_strangers"] = msgspec.json.encode(findings.strangers).decode()
        new = sheet.content()
        if new != content:
            if text and _signature(self._path) != text.signature:
                return False
            replace_file(self._path, new)
            self._left = _signature(self._path)
            self._take_over_late(text)
        elif text:
            self._left = text.signature
        index.put(view=at, view_digest=_digest(new), **values)
        return not self.touched()

    def _take_over_late(self, text: _Text | None) -> None:
        """What a peer appended to the old file while it was being replaced goes to the new one, as a line of theirs."""
        if text is None:
            return
        size = os.fstat(text.descriptor).st_size
        late = os.pread(text.descriptor, size, len(text.content)) if size > len(text.content) else b""
        if late.strip():
            append_line(self._path, late if late.endswith(b"\n") else late + b"\n")

    def _keep(self, content: bytes) -> str:
        folder = self.folder / FOREIGN
        folder.mkdir(mode=FOLDER_MODE, exist_ok=True)
        moment = time.strftime("%Y%m%dT%H%M%SZ", time.gmtime())
        number = 1
        while (path := folder / f"work_orders-{moment}-{number}.jsonl").exists():
            number += 1
        replace_file(path, content)
        return f"{FOREIGN}/{path.name}"

    def note(self, file: str, what: str) -> None:
        """Remember something about a file that a person should know."""
        note = Note(file, what)
        if note not in self.notes:
            self.notes.append(note)


def _read(path: Path) -> _Text | None:
    try:
        descriptor = os.open(path, os.O_RDONLY)
    except FileNotFoundError:
        return None
    # Ages compare the file system's time with the machine's: no clock that is passed in would fit.
    there = os.fstat(descriptor)
    with open(descriptor, "rb", closefd=False) as file:
        content = file.read()
    signature = (there.st_ino, there.st_size, there.st_mtime_ns)
    return _Text(content, signature, time.time() - there.st_mtime, descriptor)


def _settled(text: _Text) -> bool:
    whole = text.content.endswith(b"\n") and len(text.content) == text.signature[1]
    return text.age_s >= (STABLE_S if whole else UNFINISHED_S) or text.age_s < 0


def _signature(path: Path) -> Signature | None:
    try:
        there = path.stat()
    except OSError:
        return None
    return (there.st_ino, there.st_size, there.st_mtime_ns)


def _digest(content: bytes) -> str:
    return f"{len(content)}:{zlib.crc32(content):08x}"


def _end_of(path: Path) -> set[bytes]:
    """Lines in the last part of a file. Raises OSError."""
    with path.open("rb") as file:
        file.seek(max(0, path.stat().st_size - MEND_WINDOW))
        return set(file.read().split(b"\n")) - {b""}


def _counted(log: Log, start: int, until: int) -> Iterator[bytes]:
    """Lines of the events that count in a part of the log."""
    for found in log.scan(log.scanner_at(start), until, settle=False):
        for place, end, _event in found:
            yield log.read(place, end - place).rstrip(b"\n")


def _why(problem: OSError) -> str:
    return os.strerror(problem.errno).lower() if problem.errno else str(problem)
