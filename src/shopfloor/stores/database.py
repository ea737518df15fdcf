"""The file of an index: opened, thrown away, and replaced by one that was made beside it.

SQLite finds what lies beside a database (``-wal``, ``-shm``) by its name, so nobody may ever have the old file open
together with what lies beside the new one. Therefore the old file goes first, then what lies beside it, and the new one
comes only where nothing is; and who opens one looks afterwards whether it is still there. Whoever had the old one open
goes on with that, undisturbed, until it looks.
"""

from __future__ import annotations

import contextlib
import errno
import gc
import os
import sqlite3
from collections.abc import Iterator
from pathlib import Path

from shopfloor.stores.files import FILE_MODE

FILES = ("index.sqlite", "index.sqlite-wal", "index.sqlite-shm")
CHECKPOINT_PAGES = 8000
"""Every checkpoint syncs the disk twice; at SQLite's own 1000 that took half the time of making an index anew."""
_TRIES = 100
_NO_LINKS = frozenset({errno.EPERM, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK})
"""what a file system says that has no hard links"""

File = tuple[int, int]
"""device and inode"""


def which(path: Path | None) -> File | None:
    """The file that has this name now, None for none."""
    try:
        found = None if path is None else path.stat()
    except OSError:
        return None
    return None if found is None else (found.st_dev, found.st_ino)


def connect(path: Path | None) -> tuple[sqlite3.Connection, File | None]:
    """Open the database of an index, in memory where there is no path; a new one is empty. Raises sqlite3.Error."""
    for _ in range(_TRIES):
        if path is not None:
            with contextlib.suppress(OSError):  # SQLite says it better
                path.touch(mode=FILE_MODE)
        before = which(path)
        db = _open(path)
        try:
            db.execute("PRAGMA journal_mode = WAL")
            db.execute("PRAGMA synchronous = NORMAL")
            db.execute(f"PRAGMA wal_autocheckpoint = {CHECKPOINT_PAGES}")
        except sqlite3.Error:
            db.close()
            raise
        if which(path) == before:
            return db, before
        db.close()
    raise sqlite3.OperationalError(f"{path} is replaced again and again")


def remove(folder: Path) -> None:
    """Delete the index of a folder. Raises OSError."""
    for name in FILES:
        (folder / name).unlink(missing_ok=True)


@contextlib.contextmanager
def beside(path: Path) -> Iterator[sqlite3.Connection]:
    """An empty database beside the one at ``path``, which takes its place in the end; a failure leaves that as it is.

    Nothing in it is safe before: neither a journal nor a sync is paid for. One process at a time. Raises sqlite3.Error.
    """
    new = path.with_name(f"{path.name}.new")
    try:
        new.unlink(missing_ok=True)
        new.touch(mode=FILE_MODE)
        with contextlib.closing(_open(new)) as db:
            for setting in ("locking_mode = EXCLUSIVE", "journal_mode = OFF", "synchronous = OFF"):
                db.execute(f"PRAGMA {setting}")
            yield db
            db.execute("PRAGMA journal_mode = WAL")
        _sync(new)
        _put(new, path)
    except OSError as problem:
        raise sqlite3.OperationalError(f"{new}: {problem}") from problem
    finally:
        with contextlib.suppress(OSError):
            new.unlink(missing_ok=True)


@contextlib.contextmanager
def uncollected() -> Iterator[None]:
    """Without looks for circles of references: what is read makes none, and the looks take a tenth of the time."""
    was = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was:
            gc.enable()


def _open(path: Path | None) -> sqlite3.Connection:
    place = ":memory:" if path is None else f"{path.absolute().as_uri()}?mode=rw"
    return sqlite3.connect(place, uri=True, isolation_level=None, timeout=10.0, check_same_thread=False)


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDWR)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _put(new: Path, path: Path) -> None:
    for _ in range(_TRIES):
        remove(path.parent)
        try:
            path.hardlink_to(new)
        except FileExistsError:  # somebody has just begun one
            continue
        except OSError as problem:
            if problem.errno not in _NO_LINKS:
                raise
            new.rename(path)  # which takes the place of one that was begun just now: it is made anew once more
        return
    raise FileExistsError(f"{path} is made again and again")
