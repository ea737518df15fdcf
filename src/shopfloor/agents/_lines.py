"""Lines out of a stream of bytes, each of bounded length, and files that take a bounded number of bytes."""

from __future__ import annotations

import os
from pathlib import Path
from typing import NamedTuple


class Line(NamedTuple):
    """One line without its end; ``cut``: it was longer, the rest is dropped."""

    data: bytes
    cut: bool = False


class Lines:
    """Cuts pieces of any size into lines; holds at most ``limit`` bytes of a line, however long it is."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._held = bytearray()
        self._cut = False

    def feed(self, data: bytes) -> list[Line]:
        """The lines that end in this piece."""
        *ended, rest = data.split(b"\n")
        lines = []
        for part in ended:
            self._hold(part)
            lines.append(self._take())
        self._hold(rest)
        return lines

    def close(self) -> list[Line]:
        """The last line, when it had no end."""
        return [self._take()] if self._held or self._cut else []

    def _hold(self, part: bytes) -> None:
        room = self._limit - len(self._held)
        self._held += part[:room]
        self._cut = self._cut or len(part) > room

    def _take(self) -> Line:
        data = bytes(self._held)
        line = Line(data if self._cut else data.removesuffix(b"\r"), self._cut)
        self._held.clear()
        self._cut = False
        return line


class BoundedFile:
    """A file that takes ``limit`` bytes and then one note. What cannot be written costs the agent nothing."""

    def __init__(self, path: Path, limit: int, note: bytes) -> None:
        """Raises OSError when it cannot be opened."""
        self._name = path.name
        self._room = limit
        self._note = note
        self._file = os.fdopen(os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600), "ab", buffering=0)

    def write(self, data: bytes) -> str:
        """Keep what there is room for. Returns why nothing is kept any more, at the moment when that happens."""
        kept = data[: max(0, self._room)]
        if len(kept) < len(data) and self._room >= 0:
            kept += self._note
            self._room = _FULL
        elif self._room >= 0:
            self._room -= len(kept)
        return self._put(kept)

    def write_whole(self, data: bytes) -> str:
        """Keep all of it, or, where there is no room for all of it, the note and nothing more."""
        if len(data) > self._room >= 0:
            self._room = 0
        return self.write(data)

    def force(self, data: bytes) -> str:
        """Keep it even when there is no room."""
        return self._put(data)

    def close(self) -> None:
        self._file.close()

    def _put(self, data: bytes) -> str:
        if self._room == _BROKEN:
            return ""
        try:
            while data:
                data = data[self._file.write(data) or 0 :]
        except OSError as error:
            self._room = _BROKEN
            return f"{self._name} is not kept any more: {os.strerror(error.errno or 0).lower()}"
        return ""


_FULL, _BROKEN = -1, -2
