"""From bytes of a log to the events that count.

A line that is damaged is left out and remembered as a :class:`Problem`. A line that belongs to a group counts when the
whole group is there. While a group is open, what others wrote in between is held back, so that events come in the order
of the file and a position (the byte behind a line) is all that a reader has to remember.
"""

from __future__ import annotations

from itertools import accumulate
from typing import NamedTuple

from shopfloor.domain.events import Event, Stamp
from shopfloor.domain.names import printable
from shopfloor.stores.codec import LINE_LIMIT, decode, decode_all, possible

PIECE = 60
"""Characters of a damaged line that are shown."""


class Found(NamedTuple):
    """An event that counts; ``start`` and ``end`` are byte offsets, the newline included."""

    start: int
    end: int
    event: Event


class Problem(NamedTuple):
    """A line that does not count: where it is, why, and how it begins (printable). Lines are numbered from 1."""

    offset: int
    line: int
    what: str
    piece: str


class Scanner:
    """Takes the bytes of a log in pieces of any size, starting at a line's beginning."""

    def __init__(self, offset: int = 0, line: int = 0) -> None:
        self.offset = offset
        """behind the last whole line"""
        self.line = line
        """whole lines before ``offset``"""
        self.rest = b""
        """the beginning of a line whose end is not there yet"""
        self.problems: list[Problem] = []
        """what was left out; the owner takes them away"""
        self.sequence = 0
        """the greatest seen in any line, counted or not"""
        self.headless = False
        """True when the first stamped line belongs to a group that began before ``offset``"""
        self._skipped = 0
        self._piece = b""
        self._open: Stamp | None = None
        self._first = Problem(0, 0, "", "")
        self._held: list[tuple[Found, bool]] = []
        self._have = 0

    @property
    def seen(self) -> int:
        """How far the file was read, an unfinished line included."""
        return self.offset + self._skipped + len(self.rest)

    @property
    def clean(self) -> tuple[int, int]:
        """Offset and line number up to which all is decided: a new scanner may start there."""
        if self._open is not None:
            return self._first.offset, self._first.line - 1
        return self.offset, self.line

    @property
    def torn(self) -> bool:
        """True when the file does not end with a newline, as far as it was read."""
        return bool(self.rest or self._skipped)

    @property
    def undecided(self) -> bool:
        """True while a group is open: its other lines may be on their way."""
        return self._open is not None

    def feed(self, chunk: bytes) -> list[Found]:
        """The events that count now."""
        if self._skipped:
            end = chunk.find(b"\n")
            if end < 0:
                self._skipped += len(chunk)
                return []
            self._leave_out_long(end)
            chunk = chunk[end + 1 :]
        text = self.rest + chunk if self.rest else chunk
        lines = text.split(b"\n")
        self.rest = lines.pop()
        counted: list[Found] = []
        whole = text[: len(text) - len(self.rest)]
        events = decode_all(whole, len(lines)) if len(whole) < LINE_LIMIT else None
        if events is None:
            for line in lines:
                self._take(line, None, counted)
        else:
            self._take_all(lines, events, counted)
        if len(self.rest) >= LINE_LIMIT:
            self._piece = self.rest[: 4 * PIECE]
            self._skipped, self.rest = len(self.rest), b""
        return counted

    def pass_over(self, lines: bytes, sequence: int) -> None:
        """Take whole lines for read: whoever calls this has their events already."""
        self.offset += len(lines)
        self.line += lines.count(b"\n")
        self.sequence = max(self.sequence, sequence)

    def settle(self) -> list[Found]:
        """Nobody is writing: a group that is not complete never will be. The events of others that it held back."""
        counted: list[Found] = []
        self._abandon(counted)
        return counted

    def _take_all(self, lines: list[bytes], events: list[Event], counted: list[Found]) -> None:
        """Many lines at once: where a change is there from its first line to its last, no line needs its own look."""
        ends = list(accumulate([len(line) + 1 for line in lines], initial=self.offset))
        new = tuple.__new__
        found = [new(Found, parts) for parts in zip(ends, ends[1:], events, strict=False)]
        first, place, number = self.line, 0, len(lines)
        while place < number:
            stamp = events[place].sf
            size = 1 if stamp is None else stamp.size
            if self._open is None and place + size <= number and _whole(events, place, stamp):
                counted += found[place : place + size]
                place += size
                if stamp is not None and stamp.sequence > self.sequence:
                    self.sequence = stamp.sequence
            else:
                self.offset, self.line = ends[place], first + place
                self._take(lines[place], events[place], counted)
                place += 1
        self.offset, self.line = ends[-1], first + number

    def _take(self, line: bytes, event: Event | None, counted: list[Found]) -> None:
        """One line; ``event``: what is in it, where that is known."""
        start = self.offset
        self.offset = end = start + len(line) + 1
        self.line += 1
        if not line.strip():
            return
        if len(line) >= LINE_LIMIT:
            self._report(start, f"longer than {LINE_LIMIT} bytes", line[: 4 * PIECE])
            return
        try:
            event = decode(line) if event is None or not (event.sf is None or possible(event.sf)) else event
        except ValueError as problem:
            self._report(start, str(problem), line[: 4 * PIECE])
            return
        found = Found(start, end, event)
        stamp = event.sf
        if stamp is not None:
            if not self.sequence and stamp.index:
                self.headless = True
            self.sequence = max(self.sequence, stamp.sequence)
            if stamp.size > 1 or self._open is not None:
                self._take_grouped(found, stamp, counted)
                return
        if self._open is not None:
            self._held.append((found, False))
        else:
            counted.append(found)

    def _take_grouped(self, found: Found, stamp: Stamp, counted: list[Found]) -> None:
        group = self._open
        # Fields one by one: a stamp made to compare with takes longer than all the rest here.
        if (
            group is not None
            and stamp.sequence == group.sequence
            and stamp.index == self._have
            and stamp.size == group.size
            and stamp.controller == group.controller
        ):
            self._held.append((found, True))
            self._have += 1
            if self._have == group.size:
                counted += [held for held, _ in self._held]
                self._close()
            return
        # Our programs write one change at a time: a line of another one means that the open one was torn.
        self._abandon(counted)
        if stamp.size == 1:
            counted.append(found)
        elif stamp.index == 0:
            self._open, self._have = stamp, 1
            self._first = Problem(found.start, self.line, "", found.event.event_type)
            self._held.append((found, True))
        else:
            self._report(found.start, "belongs to a change whose beginning is missing", found.event.event_type)

    def _abandon(self, counted: list[Found]) -> None:
        if self._open is None:
            return
        what = f"a change of {self._open.size} events of which only {self._have} were written; it does not count"
        self.problems.append(self._first._replace(what=what))
        counted += [held for held, ours in self._held if not ours]
        self._close()

    def _close(self) -> None:
        self._open, self._have = None, 0
        self._held.clear()

    def _leave_out_long(self, more: int) -> None:
        length = self._skipped + more
        start = self.offset
        self.offset += length + 1
        self.line += 1
        self._skipped = 0
        self._report(start, f"{length} bytes long, at most {LINE_LIMIT} are read", self._piece)

    def _report(self, start: int, what: str, piece: bytes | str) -> None:
        text = piece.decode("utf-8", "replace") if isinstance(piece, bytes) else piece
        self.problems.append(Problem(start, self.line, what, printable(text, PIECE)))


def _whole(events: list[Event], place: int, first: Stamp | None) -> bool:
    """True when all lines of the change that begins at a place follow there, none of them damaged."""
    if first is None:
        return True
    if first.index or not possible(first):
        return False
    for index in range(1, first.size):
        stamp = events[place + index].sf
        # Fields one by one: a stamp made to compare with takes longer than all the rest here.
        if (
            stamp is None
            or stamp.sequence != first.sequence
            or stamp.index != index
            or stamp.size != first.size
            or stamp.controller != first.controller
        ):
            return False
    return True
