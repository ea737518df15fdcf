"""Files that survive a crash, and locks that do not."""

from __future__ import annotations

import errno
import fcntl
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from shopfloor import spawn

_LOCK_EXISTS = re.compile(r"Unable to create '(.+\.lock)': File exists")


@contextmanager
def open_lock(path: Path) -> Iterator[None]:
    """Hold a lock file; waits for other threads and processes, and ends with the process that holds it."""
    fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX)
        yield
    finally:
        os.close(fd)


def write_durably(path: Path, content: bytes) -> None:
    """Replace a file as a whole: after a crash there is the old content or the new one."""
    beside = path.with_name(f"{path.name}.new")
    with beside.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    beside.replace(path)
    sync_folder(path.parent)


def is_blank(path: Path) -> bool:
    """True when there is no such file, or nothing but zeros and white space in it, as power loss leaves it."""
    try:
        return not path.read_bytes().strip(b"\0 \n")
    except FileNotFoundError:
        return True


def sync_file(path: Path) -> None:
    """Make a file's content durable; nothing happens when there is none, or a link."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    except OSError as problem:
        if problem.errno in (errno.ENOENT, errno.ENOTDIR, errno.ELOOP):
            return
        raise
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def sync_folder(path: Path) -> None:
    """Make the names in a folder durable."""
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def drop_stale_lock(said: str, common_dir: Path) -> bool:
    """True when git failed on the lock of a ref that nobody can hold any more, and that lock is gone now.

    A git that is killed, or whose power goes, leaves it; git itself then refuses to move that ref for ever.
    """
    for found in _LOCK_EXISTS.findall(said):
        lock = common_dir / found
        if not (lock.is_relative_to(common_dir / "refs") or lock.name in {"packed-refs.lock", "HEAD.lock"}):
            continue
        try:
            made = lock.stat().st_mtime
        except FileNotFoundError:
            return True
        if not spawn.at_work("git", _checkouts(common_dir), before=made):
            lock.unlink(missing_ok=True)
            return True
    return False


def _checkouts(common_dir: Path) -> list[Path]:
    """Folders in which git works on this repository."""
    linked = [path.read_text().strip() for path in common_dir.glob("worktrees/*/gitdir")]
    return [common_dir.parent, *(Path(path).parent for path in linked if path)]
