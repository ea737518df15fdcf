"""``work_orders.jsonl`` as we left it, brought up to date: the lines that changed, and never all of it in memory."""

from __future__ import annotations

import os
import zlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import NamedTuple

from shopfloor.stores.index import Index
from shopfloor.stores.sheet import LineIds

CHUNK = 1 << 16
"""Bytes that are read at once."""
PIECE = 200
"""New lines that are written at once."""

Lines = Callable[[Sequence[str]], Iterable[tuple[str, bytes]]]
"""Gives orders and their lines, without newlines."""


class Left(NamedTuple):
    """A file as one of our programs left it; length -1 when that is not known."""

    length: int
    digest: int

    @property
    def text(self) -> str:
        """As the index keeps it."""
        return f"{self.length}:{self.digest:08x}"


class _Patch(NamedTuple):
    start: int
    end: int
    line: bytes


class Revision:
    """What there is to do about a file."""

    def __init__(self, descriptor: int, left: Left, patches: list[_Patch], new: list[str], lines: Lines) -> None:
        self.given = Left(0, 0)
        """what :meth:`pieces` gave"""
        self._descriptor = descriptor
        self._left = left
        self._patches = patches
        self._new = new
        """orders that have no line yet"""
        self._lines = lines

    def __bool__(self) -> bool:
        """False: nothing."""
        return bool(self._patches or self._new)

    def pieces(self) -> Iterator[bytes]:
        """The bytes of the file, up to date. Raises FileExistsError when somebody has written to it meanwhile."""
        self.given = Left(0, 0)
        for piece in self._all():
            self.given = Left(self.given.length + len(piece), zlib.crc32(piece, self.given.digest))
            yield piece

    def _all(self) -> Iterator[bytes]:
        at = digest = 0
        for patch in [*self._patches, _Patch(self._left.length, self._left.length, b"")]:
            for chunk in _read(self._descriptor, at, patch.start):
                digest = zlib.crc32(chunk, digest)
                yield chunk
            for chunk in _read(self._descriptor, patch.start, patch.end):
                digest = zlib.crc32(chunk, digest)
            yield patch.line
            at = patch.end
        if digest != self._left.digest:
            raise FileExistsError(f"descriptor {self._descriptor} is being written to")
        for first in range(0, len(self._new), PIECE):
            yield b"".join([line + b"\n" for _, line in self._lines(self._new[first : first + PIECE])])


def left_there(index: Index) -> tuple[list[Left], int]:
    """The file as one of our programs left it, or was about to when it was killed; and how far the log was then."""
    lefts = []
    for name in ("view_digest", "view_next"):
        length, _, digest = str(index.get(name, "")).partition(":")
        lefts.append(Left(int(length), int(digest, 16)) if length.isdigit() and digest else Left(-1, 0))
    return lefts, int(index.get("view", 0))


def announced(revision: Revision, index: Index) -> Iterator[bytes]:
    """Its pieces; the index knows what they are before anybody can put them in place."""
    yield from revision.pieces()
    index.put(view_next=revision.given.text)


def revision_of(descriptor: int, left: Left, changed: Iterable[str], lines: Lines) -> Revision | None:
    """What to do about a file when these orders have changed since it was left; None: it is not as we left it."""
    wanted = dict.fromkeys(changed)
    places = _places(descriptor, left, LineIds(wanted))
    if places is None:
        return None
    patches = [
        _Patch(*places[order], line + b"\n")
        for order, line in lines(sorted(places, key=lambda order: places[order]))
        if line != os.pread(descriptor, places[order][1] - places[order][0] - 1, places[order][0])
    ]
    return Revision(descriptor, left, patches, [order for order in wanted if order not in places], lines)


def _places(descriptor: int, left: Left, ids: LineIds) -> dict[str, tuple[int, int]] | None:
    """Where the first line of each wanted order begins and ends."""
    found: dict[str, tuple[int, int]] = {}
    start = digest = 0
    begun: list[bytes] = []
    for chunk in _read(descriptor, 0, left.length):
        digest = zlib.crc32(chunk, digest)
        begun.append(chunk)
        if b"\n" not in chunk:
            continue
        lines = b"".join(begun)
        whole = lines.rfind(b"\n") + 1
        for order, begin, end in ids.find(lines[:whole]):
            found.setdefault(order, (start + begin, start + end))
        begun, start = [lines[whole:]], start + whole
    as_left = start == left.length and digest == left.digest
    return found if as_left and not ids.doubtful else None


def _read(descriptor: int, start: int, end: int) -> Iterator[bytes]:
    while start < end and (chunk := os.pread(descriptor, min(CHUNK, end - start), start)):
        yield chunk
        start += len(chunk)
