"""Files of the store: private, durable, and refused by name when the disk does not play along."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import time
from collections.abc import Callable, Iterable, Iterator
from functools import cache
from pathlib import Path

from shopfloor.domain.errors import Refused

FOLDER_MODE = 0o700
FILE_MODE = 0o600
LOCK_TIMEOUT_S = 30.0
_PAUSE_S = (0.0005, 0.01)

RESUME = "then type: shopfloor run --resume"
"""how a hint ends"""
_HINTS = {
    errno.ENOSPC: f"free space on that disk, {RESUME}",
    errno.EDQUOT: f"free space within your quota, {RESUME}",
    errno.EFBIG: f"raise the file size limit (ulimit -f), {RESUME}",
    errno.EROFS: f"mount it writable, {RESUME}",
    errno.EACCES: f"make it writable for you (chmod u+rwX), {RESUME}",
    errno.EPERM: f"make it writable for you (lsattr shows flags that forbid it), {RESUME}",
    errno.EIO: f"the disk reports errors: look at the kernel's messages, copy the folder away, {RESUME}",
}


def refusal(doing: str, path: Path, problem: OSError) -> Refused:
    """The error for people: what was tried with which file, what the system said, what to do."""
    number = problem.errno or 0
    why = os.strerror(number).lower() if number else str(problem)
    return Refused(f"cannot {doing} {str(path)!r}: {why}", hint=_HINTS.get(number, f"look at that path, {RESUME}"))


def make_folder(folder: Path) -> None:
    """Create a private folder whose parent exists, durably. Raises Refused naming what is in the way."""
    try:
        folder.mkdir(mode=FOLDER_MODE)
    except FileExistsError:
        if folder.is_dir():
            return
        raise not_a_folder(folder) from None
    except FileNotFoundError:
        missing = folder.parent
        raise Refused(
            f"cannot create {str(folder)!r}: {str(missing)!r} is not there", hint=f"type: mkdir -p {missing}"
        ) from None
    except OSError as problem:
        raise refusal("create", folder, problem) from problem
    sync_folder(folder.parent)


def not_a_folder(path: Path) -> Refused:
    """The error for a file that stands where the folder belongs."""
    return Refused(f"{str(path)!r} is a file, the log needs a folder there", hint=f"type: mv {path} {path}.old")


def sync_folder(folder: Path) -> None:
    """Make the names in a folder durable."""
    try:
        descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
    except OSError as problem:
        raise refusal("make durable what is in", folder, problem) from problem


def exchange_file(path: Path, content: Iterable[bytes]) -> tuple[os.stat_result, int]:
    """Write a file as a whole; what it is, and what stood there at that moment: a descriptor, -1 for nothing.

    Nobody's file is lost that came to stand there at the last moment, where the system can exchange two names (Linux);
    elsewhere that moment is as long as a rename takes. Raises OSError; FileExistsError when there was no file before
    and now is one.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    _write(temporary, content, durable=True)
    ours = temporary.stat()  # looked at later, another program's file may stand there already
    try:
        found = _put_in_place(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)
    sync_folder(path.parent)
    return ours, found


def _put_in_place(temporary: Path, path: Path) -> int:
    try:
        before = os.open(path, os.O_RDONLY)
    except FileNotFoundError:
        os.link(temporary, path)
        return -1
    try:
        if _exchange(temporary, path):
            before, old = os.open(temporary, os.O_RDONLY), before
            os.close(old)
        else:
            temporary.replace(path)
    except OSError:
        os.close(before)
        raise
    return before


@cache
def _renameat2() -> Callable[..., int] | None:
    """The system's, where it has it: loaded once, as each loading makes classes of its own."""
    import ctypes

    found: Callable[..., int] | None = getattr(ctypes.CDLL(None, use_errno=True), "renameat2", None)
    return found


def _exchange(one: Path, other: Path) -> bool:
    """Swap two names in one step; False where the system or the file system cannot."""
    swap = _renameat2()
    if swap is None:
        return False
    if swap(_AT_FDCWD, os.fsencode(one), _AT_FDCWD, os.fsencode(other), _RENAME_EXCHANGE) == 0:
        return True
    import ctypes

    number = ctypes.get_errno()
    if number == errno.ENOENT:  # it was taken away just now
        raise FileExistsError(number, os.strerror(number), str(other))
    return False


_AT_FDCWD = -100
_RENAME_EXCHANGE = 2


def replace_file(path: Path, content: bytes, *, durable: bool = True) -> None:
    """Write a file as a whole: a reader sees the old content or the new one, never a part. Raises OSError."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    _write(temporary, [content], durable=durable)
    try:
        temporary.replace(path)
    except OSError:
        temporary.unlink(missing_ok=True)
        raise
    if durable:
        sync_folder(path.parent)


def _write(path: Path, content: Iterable[bytes], *, durable: bool) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, FILE_MODE)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.writelines(content)
            file.flush()
            if durable:
                os.fsync(descriptor)
    except OSError:
        path.unlink(missing_ok=True)
        raise


def append_line(path: Path, lines: bytes) -> None:
    """Append whole lines with one write, on a line of their own whatever the file ends with. Raises OSError."""
    descriptor = os.open(path, os.O_RDWR | os.O_APPEND | os.O_CREAT, FILE_MODE)
    try:
        size = os.fstat(descriptor).st_size
        if size and os.pread(descriptor, 1, size - 1) != b"\n":
            lines = b"\n" + lines
        if os.write(descriptor, lines) != len(lines):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    finally:
        os.close(descriptor)


class Lock:
    """An advisory lock on a file beside what it protects; the kernel frees it when the process ends, however."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._descriptor = -1

    @contextlib.contextmanager
    def held(self) -> Iterator[None]:
        """Hold it for a moment.

        Raises Refused when somebody else has not let go, nor said that it is busy, for half a minute.
        """
        limit, said = time.monotonic() + LOCK_TIMEOUT_S, self._said()
        pause_s = _PAUSE_S[0]
        while not self._try():
            if time.monotonic() > limit and said != (news := self._said()):
                limit, said = time.monotonic() + LOCK_TIMEOUT_S, news
            if time.monotonic() > limit:
                raise Refused(
                    f"another process has held {str(self.path)!r} for {LOCK_TIMEOUT_S:.0f} s",
                    hint=f"a stopped program? type: fuser -v {self.path}",
                )
            time.sleep(pause_s)
            pause_s = min(2 * pause_s, _PAUSE_S[1])
        try:
            yield
        finally:
            fcntl.flock(self._descriptor, fcntl.LOCK_UN)

    def try_once(self) -> bool:
        """Take it if nobody has it; given back with :meth:`release`. Raises Refused."""
        return self._try()

    def release(self) -> None:
        """Give back what :meth:`try_once` took."""
        fcntl.flock(self._descriptor, fcntl.LOCK_UN)

    def busy(self) -> None:
        """Say that what it is held for goes on, so that others wait for longer."""
        if self._descriptor >= 0:
            with contextlib.suppress(OSError):
                os.utime(self._descriptor)

    def _said(self) -> int:
        try:
            return self.path.stat().st_mtime_ns
        except OSError:
            return 0

    def note(self, text: bytes) -> None:
        """Write at the beginning of the file; whoever holds it may. Raises OSError."""
        os.pwrite(self._descriptor, text, 0)

    def close(self) -> None:
        """Let go of the file."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1

    def _try(self) -> bool:
        if self._descriptor < 0:
            self._descriptor = self._open()
        try:
            fcntl.flock(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        # A lock on a file that somebody deleted locks nobody out.
        if _same_file(self._descriptor, self.path):
            return True
        self.close()
        return False

    def _open(self) -> int:
        try:
            return os.open(self.path, os.O_RDWR | os.O_CREAT, FILE_MODE)
        except OSError as problem:
            raise refusal("lock", self.path, problem) from problem


def _same_file(descriptor: int, path: Path) -> bool:
    try:
        there = path.stat()
    except FileNotFoundError:
        return False
    here = os.fstat(descriptor)
    return (here.st_dev, here.st_ino) == (there.st_dev, there.st_ino)
