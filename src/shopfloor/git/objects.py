"""Objects that are named by a ref must be on the disk before it: their content, and the names of their files.

Git syncs the content of what our commands write, not the names. An agent's own git syncs neither for loose objects, and
a command of ours that would write an object which is there already takes it as it is.
"""

from __future__ import annotations

import hashlib
import os
import re
import time
import zlib
from collections.abc import Iterator
from pathlib import Path

from shopfloor.git.files import sync_file, sync_folder

_FOLDERS = re.compile(r"[0-9a-f]{2}|pack")
_UNFINISHED = ("tmp_", ".tmp-")
_DIGESTS = {40: "sha1", 64: "sha256"}
_PIECE = 1 << 16
_SLACK_NS = 2_000_000_000
"""File systems count time in steps of up to two seconds."""

_WRITTEN_BACK_NS = 3_600_000_000_000
"""What is older than an hour when a process begins has long been written by the system itself."""


class Objects:
    """The object folder of one repository, and up to when everything in it is known to be on the disk."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._until_ns = time.time_ns() - _WRITTEN_BACK_NS
        self._last: frozenset[tuple[str, int]] = frozenset()

    def sync(self) -> None:
        """Make durable what anybody has written since the last time. Raises OSError."""
        begun, last = time.time_ns(), self._last
        found = dict(self._written(self._until_ns - _SLACK_NS))
        seen = frozenset((path, moment) for path, (moment, _) in found.items())
        for path, (moment, is_folder) in found.items():
            if (path, moment) not in last and not is_folder:
                sync_file(Path(path))
        for path, (moment, is_folder) in found.items():
            if (path, moment) not in last and is_folder:
                sync_folder(Path(path))
        # Only now: another thread that asks meanwhile must not take half of the work for the whole.
        self._until_ns, self._last = max(self._until_ns, begun), seen

    def drop_damaged(self, since_ns: int) -> int:
        """Remove what power loss made of loose objects written since a moment; returns how many there were.

        Git takes an object that is there for whole, so that the same content, written again, would stay lost.
        """
        damaged = [
            path
            for path, (_, is_folder) in self._written(since_ns)
            if not is_folder and Path(path).parent.name != "pack" and not _is_whole(Path(path))
        ]
        for path in damaged:
            Path(path).unlink(missing_ok=True)
        return len(damaged)

    def _written(self, since_ns: int) -> Iterator[tuple[str, tuple[int, bool]]]:
        """Files, and folders in which names were made, since a moment: path -> when, and whether it is a folder."""
        for folder in (self.folder, *self.folder.iterdir()):
            if folder != self.folder and not _FOLDERS.fullmatch(folder.name):
                continue
            changed = folder.stat().st_mtime_ns
            if changed < since_ns:
                continue
            with os.scandir(folder) as entries:
                for entry in entries:
                    if entry.is_file(follow_symlinks=False) and not entry.name.startswith(_UNFINISHED):
                        moment = _changed_ns(entry)
                        if moment >= since_ns:
                            yield entry.path, (moment, False)
            yield str(folder), (changed, True)


def _is_whole(path: Path) -> bool:
    """True when the object is the one that its name says."""
    name = path.parent.name + path.name
    digest = hashlib.new(_DIGESTS.get(len(name), "sha1"), usedforsecurity=False)
    unpacking = zlib.decompressobj()
    try:
        with path.open("rb") as file:
            while piece := file.read(_PIECE):
                digest.update(unpacking.decompress(piece))
    except (FileNotFoundError, zlib.error):
        return not path.exists()
    return digest.hexdigest() == name


def _changed_ns(entry: os.DirEntry[str]) -> int:
    try:
        return entry.stat(follow_symlinks=False).st_ctime_ns
    except FileNotFoundError:  # taken into a pack meanwhile
        return 0
