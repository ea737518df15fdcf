"""Files for other programs: ``feed.jsonl`` and ``work_orders.jsonl``.

The log is the truth and these only follow it: a view that cannot be written is reported and nothing else happens.
Other programs may also write ``work_orders.jsonl``. What they wrote is taken into the log before the file is replaced,
or told of; what they write at the very moment is found in the file that was taken away. A line that stands only in
``feed.jsonl`` is no event: the feed repeats the log.
"""

from __future__ import annotations

import os
import time
import zlib
from collections import deque
from collections.abc import Iterable, Iterator
from functools import partial
from pathlib import Path
from typing import NamedTuple, Protocol

import msgspec

from shopfloor.domain.errors import Refused
from shopfloor.stores.ahead import Newest
from shopfloor.stores.files import FOLDER_MODE, Lock, append_line, exchange_file
from shopfloor.stores.follow import Follower
from shopfloor.stores.history import versions
from shopfloor.stores.index import Index
from shopfloor.stores.log import Log
from shopfloor.stores.revision import Left, announced, left_there, revision_of
from shopfloor.stores.sheet import Findings, Sheet

FEED = "feed.jsonl"
ORDERS = "work_orders.jsonl"
FOREIGN = "foreign"

STABLE_S = 0.1
"""A file that another program changed counts after it was left alone this long, but for what was appended to it."""

UNFINISHED_S = 2.0
"""The same for one that is empty or ends in the middle of a line: somebody is writing it, or has died doing so."""

BUSY_S = 0.5
"""A file that ends with a line's end counts after this long, however busily it is written: what is still to come is
found in it after it was taken away."""

LATE_S = 5.0
"""How long a file that was taken away is watched after it last changed: a program may still have it open."""

MEND_WINDOW = 4 << 20
"""Bytes at the end of log and feed that are compared to find what a crash kept from the feed."""

Signature = tuple[int, int, int]


class Note(NamedTuple):
    """Something about a file that a person should know."""

    file: str
    what: str


class Keeper(Protocol):
    """What the views need of whoever keeps log and index."""

    log: Log
    follower: Follower

    def take_in(self, findings: Findings, kept: str) -> bool:
        """Make what others want events of the log; False when somebody was faster with one of the orders.

        ``kept`` names the file in which their lines lie that are not followed.
        """
        ...


class _Text:
    """A file as it was read. Its descriptor stays open, so that it can be looked at again after it was replaced."""

    def __init__(self, descriptor: int) -> None:
        self.descriptor = descriptor
        self.content = b""
        self.length = 0
        self.digest = 0
        self.signature = _signature_of(os.fstat(descriptor))
        self.age_s = 0.0
        self.changed_at = time.monotonic()

    def read(self) -> None:
        """Take the content in, as it is now. Raises OSError."""
        # Ages compare the file system's time with the machine's: no clock that is passed in would fit.
        there = os.fstat(self.descriptor)
        with open(self.descriptor, "rb", closefd=False) as file:
            file.seek(0)
            self.content = file.read()
        self.length, self.digest = len(self.content), zlib.crc32(self.content)
        self.signature = (there.st_ino, there.st_size, there.st_mtime_ns)
        self.age_s = time.time() - there.st_mtime

    def changed(self) -> bool:
        """True when somebody wrote to it since it was read."""
        return _signature_of(os.fstat(self.descriptor)) != self.signature

    def left_alone(self) -> bool:
        """True when nobody has written to it for long enough."""
        return time.monotonic() - self.changed_at > LATE_S

    def unended(self) -> bool:
        """True when its last line has no end, and will not get one."""
        return self.length < self.signature[1] and self.left_alone()

    def begins(self, length: int, digest: int) -> bool:
        """True when it begins with these whole lines."""
        if length == self.length:
            return digest == self.digest
        begin = self.content[: max(0, length)]
        return len(begin) == length and begin[-1:] in (b"\n", b"") and zlib.crc32(begin) == digest

    def forget(self) -> None:
        """Free the memory; length and digest stay."""
        self.content = b""

    def close(self) -> None:
        os.close(self.descriptor)


class Views:
    """The views of one folder. Every method blocks; one thread uses it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.notes: deque[Note] = deque(maxlen=100)
        self._path = folder / ORDERS
        self._lock = Lock(folder / ".views.lock")
        self._left: Signature | None = None
        """the file as we last left it"""
        self._sighted = (0, 0, 0)
        """inode, length and digest of a foreign file that does not count yet, seen first at ``_sighted_at``"""
        self._sighted_at = 0.0
        self._waits_since = 0.0
        """when a file first did not count, 0: the last one did"""
        self._replaced: list[_Text] = []
        """files that were taken away, and are watched for what is still written to them"""
        self._late: list[bytes] = []
        """lines that were found in them and are not in the log yet"""

    def close(self) -> None:
        """Let go of the files."""
        for text in self._replaced:
            text.close()
        self._replaced.clear()
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
        """True when the file is no longer as we left it, or one that we took away was written to (one look each)."""
        if self._late or any(text.changed() or text.unended() for text in self._replaced):
            return True
        return self._left is not None and _signature(self._path) != self._left

    @property
    def waiting(self) -> bool:
        """True while a file of others is not stable yet: it is worth while to look again soon."""
        return self._waits_since > 0

    def unread(self, index: Index) -> bool:
        """True when the file is not as any of our programs left it."""
        there = _signature(self._path)
        return there is not None and index.get("view_signature", "") != _written(there)

    def publish(self, keeper: Keeper) -> bool:
        """Take edits of others in, and bring ``work_orders.jsonl`` up to the index.

        False: somebody is writing it just now, try again.
        """
        try:
            with self._lock.held():
                text = _open(self._path)
                try:
                    return self._publish(keeper, text)
                finally:
                    if text is not None and text not in self._replaced:
                        text.close()
        except FileExistsError:
            return False
        except (OSError, Refused) as problem:
            why = _why(problem) if isinstance(problem, OSError) else problem.message
            self.note(ORDERS, f"cannot be written, other programs see old states: {why}")
            return True

    def _publish(self, keeper: Keeper, text: _Text | None) -> bool:
        self._gather_late()
        # The digest is of what any of our programs left there last; from where it still begins so, others went on.
        lefts, since = keeper.follower.glimpse(left_there)
        if text is not None:
            for one in () if self._late else lefts:
                if 0 < one.length == text.signature[1]:
                    done = keeper.follower.newest(since, partial(self._revise, since, one, text))
                    if done is not None:
                        return done
            text.read()
        left = next((one for one in lefts if text is not None and text.begins(*one)), lefts[0])
        content = text.content if text else b""
        appended = text is not None and text.begins(*left)
        same = appended and len(content) == left.length
        if text is not None and not same and not self._settled(text, appended=appended):
            return False
        sheet = Sheet(content, ours=left.length if appended else 0)
        sheet.add(self._late)
        if not (same or text is None) or self._late:
            ask = keeper.follower.ask
            findings = ask(lambda index: sheet.survey(index, partial(versions, keeper.log, index)))
            known = set(msgspec.json.decode(ask(lambda index: index.get("view_strangers", "[]"))))
            fresh = [one for one in findings.complaints if one.digest not in known]
            if (findings.wishes or fresh) and not keeper.take_in(
                Findings(findings.wishes, fresh), self._keep(findings)
            ):
                return False
            strangers = sorted({one.digest for one in findings.complaints} | (known if appended else set()))
            ask(lambda index: index.put(view_strangers=msgspec.json.encode(strangers).decode()))
        since = since if text is not None else 0
        return keeper.follower.newest(since, lambda known: self._write(known, since, sheet, text))

    def _revise(self, since: int, left: Left, text: _Text, known: Newest) -> bool | None:
        """Bring the file up to the log when it is as it was left; None: it is not."""
        revision = revision_of(text.descriptor, left, known.changed_after(since), known.lines)
        if revision is None:
            return None
        text.length, text.digest = left
        if revision:
            if _signature(self._path) != text.signature:
                return False
            self._replace(announced(revision, known.index), text)
            left = revision.given
        else:
            self._left = text.signature
        return self._written(known, left)

    def _write(self, known: Newest, since: int, sheet: Sheet, text: _Text | None) -> bool:
        """Bring the file up to the log; all that stands in the sheet is known."""
        sheet.settle(known.index, since, known.beyond())
        length, digest, same = 0, 0, text is not None
        for piece in sheet.pieces():
            same = same and text is not None and text.content[length : length + len(piece)] == piece
            length, digest = length + len(piece), zlib.crc32(piece, digest)
        if text is None or not (same and length == len(text.content)):
            if text is not None and _signature(self._path) != text.signature:
                return False
            known.index.put(view_next=Left(length, digest).text)
            self._replace(sheet.pieces(), text)
        elif text is not None:
            self._left = text.signature
        return self._written(known, Left(length, digest))

    def _written(self, known: Newest, left: Left) -> bool:
        """The file is as new as what is known; False when somebody wrote to it meanwhile."""
        self._waits_since = 0.0
        self._late.clear()
        signature = "" if self._left is None else _written(self._left)
        known.told(view_digest=left.text, view_signature=signature)
        return not self.touched()

    def _replace(self, new: Iterable[bytes], text: _Text | None) -> None:
        ours, descriptor = exchange_file(self._path, new)
        self._left = _signature_of(ours)
        if descriptor < 0:
            return
        gone = _Text(descriptor)
        if text is not None and _signature_of(os.fstat(descriptor))[0] == text.signature[0]:
            # The file that we read; whatever its end is by now, this much of it is known.
            gone.length, gone.digest, gone.signature = text.length, text.digest, text.signature
        self._replaced.append(gone)

    def _gather_late(self) -> None:
        """What was written to files after they were taken away; they are let go of when nobody has for a while."""
        for text in tuple(self._replaced):
            if text.changed():
                length, digest = text.length, text.digest
                text.read()
                text.changed_at = time.monotonic()
                begin = length if text.begins(length, digest) else 0
                end = text.content.rfind(b"\n") + 1  # the rest of the last line is still to come
                self._late += [line for line in text.content[begin:end].split(b"\n") if line.strip()]
                text.length, text.digest = end, zlib.crc32(text.content[:end])
                text.forget()
            elif text.left_alone():
                if text.unended():
                    begin = text.length
                    text.read()
                    self._late += [line for line in text.content[begin:].split(b"\n") if line.strip()]
                self._replaced.remove(text)
                text.close()

    def _settled(self, text: _Text, *, appended: bool) -> bool:
        """True when what others wrote counts: it is whole, and its beginning was left alone for a while."""
        whole = text.content.endswith(b"\n") and len(text.content) == text.signature[1]
        if text.age_s >= (STABLE_S if whole else UNFINISHED_S) or text.age_s < 0:
            return True
        if not whole:
            return False
        if appended:  # a whole line more, at the end of what we left there
            return True
        now = time.monotonic()
        self._waits_since = self._waits_since or now
        inode, length, digest = self._sighted
        if inode != text.signature[0] or not text.begins(length, digest):
            self._sighted, self._sighted_at = (text.signature[0], text.length, text.digest), now
        return now - self._sighted_at >= STABLE_S or now - self._waits_since >= BUSY_S

    def _keep(self, findings: Findings) -> str:
        """Lines of others that will be replaced by ours although they are not followed: where they lie."""
        lines = [line for wish in findings.wishes if wish.refused for line in wish.lines]
        if not lines:
            return ""
        folder = self.folder / FOREIGN
        folder.mkdir(mode=FOLDER_MODE, exist_ok=True)
        path = folder / f"work_orders-{time.strftime('%Y%m%d', time.gmtime())}.jsonl"
        append_line(path, b"".join(line + b"\n" for line in lines))
        return f"{FOREIGN}/{path.name}"

    def note(self, file: str, what: str) -> None:
        """Remember something about a file that a person should know."""
        note = Note(file, what)
        if note not in self.notes:
            self.notes.append(note)


def _open(path: Path) -> _Text | None:
    try:
        return _Text(os.open(path, os.O_RDONLY))
    except FileNotFoundError:
        return None


def _signature(path: Path) -> Signature | None:
    try:
        return _signature_of(path.stat())
    except OSError:
        return None


def _signature_of(there: os.stat_result) -> Signature:
    return (there.st_ino, there.st_size, there.st_mtime_ns)


def _written(signature: Signature) -> str:
    return ":".join(map(str, signature))


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
