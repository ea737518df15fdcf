"""Files that an agent asks for through the protocol: those of its workspace, and no other."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

MOST_BYTES = 16 << 20


class Outside(Exception):
    """It may not be touched; the message says why."""


class WorkspaceFiles:
    """Reads and writes text files below one folder, wherever links or dots may lead."""

    def __init__(self, folder: str) -> None:
        self._folder = Path(folder).resolve()

    def read(self, path: str, line: int | None, limit: int | None) -> str:
        """The text from a line on (1 is the first). Raises Outside, OSError; FileNotFoundError when it is not there."""
        with self._opened(path, os.O_RDONLY) as file:
            data = b""
            while len(data) <= MOST_BYTES and (more := os.read(file, 1 << 20)):
                data += more
        if len(data) > MOST_BYTES:
            raise Outside(f"{path!r} is larger than {MOST_BYTES >> 20} MiB")
        text = data.decode(errors="replace")
        if line is None and limit is None:
            return text
        first = max(0, (line or 1) - 1)
        lines = text.splitlines(keepends=True)[first:]
        return "".join(lines if limit is None else lines[:limit])

    def write(self, path: str, text: str) -> None:
        """The whole file anew; folders on the way are made. Raises Outside, OSError."""
        target = self._inside(path)
        if target.relative_to(self._folder).parts[0] == ".git":
            raise Outside(f"{path!r} belongs to git")
        target.parent.mkdir(parents=True, exist_ok=True)
        with self._opened(str(target), os.O_WRONLY | os.O_CREAT) as file:
            os.ftruncate(file, 0)
            data = text.encode(errors="replace")
            while data:
                data = data[os.write(file, data) :]

    def _inside(self, path: str) -> Path:
        if "\0" in path or not Path(path).is_absolute():
            raise Outside(f"{path!r} is not an absolute path")
        found = Path(os.path.realpath(path))
        if found == self._folder or not found.is_relative_to(self._folder):
            raise Outside(f"{path!r} is not in the workspace")
        return found

    @contextmanager
    def _opened(self, path: str, flags: int) -> Iterator[int]:
        """The descriptor of a plain file that is where its path says, also when somebody changes links meanwhile."""
        target = self._inside(path)
        folder = os.open(target.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            if Path(os.path.realpath(f"/proc/self/fd/{folder}")) != target.parent and Path("/proc/self/fd").exists():
                raise Outside(f"{path!r} moved")
            # Not blocking, because a pipe without a writer would be waited for.
            more = os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
            file = os.open(target.name, flags | more, 0o666, dir_fd=folder)
        finally:
            os.close(folder)
        try:
            if not stat.S_ISREG(os.fstat(file).st_mode):
                raise Outside(f"{path!r} is not a plain file")
            yield file
        finally:
            os.close(file)
