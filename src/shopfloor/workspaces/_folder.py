"""Files and folders of a checkout, without git: what is odd in it, what has to go, what is brought in.

A walk costs 3 ms for 10,000 files, less than any git command over them, and sees what git never lists: named pipes,
sockets, empty folders, repositories inside ignored folders.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import stat
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

import msgspec

from shopfloor.config.settings import Cache
from shopfloor.domain.names import printable


class Oddities(msgspec.Struct):
    """What a walk found, as paths relative to the checkout."""

    repositories: list[str] = msgspec.field(default_factory=list)
    """folders that have a ``.git`` of their own"""
    specials: list[str] = msgspec.field(default_factory=list)
    """named pipes, sockets and devices: they have no content that could be kept"""
    closed: list[str] = msgspec.field(default_factory=list)
    """folders that we may not read"""


def oddities(root: Path, *, skip: Iterable[str] = ()) -> Oddities:
    """Walk the checkout; its own ``.git`` and the folders in ``skip`` are left out."""
    found = Oddities()
    left_out = {".git", *skip}

    def walk(folder: str, inside: str) -> None:
        try:
            entries = list(os.scandir(folder))
        except OSError:
            found.closed.append(inside.rstrip("/"))
            return
        for entry in entries:
            name = inside + entry.name
            if name in left_out:
                continue
            if entry.is_dir(follow_symlinks=False):
                if entry.name != ".git":
                    walk(entry.path, name + "/")
            elif not (entry.is_file(follow_symlinks=False) or entry.is_symlink()):
                found.specials.append(name)
            if entry.name == ".git":
                found.repositories.append(inside.rstrip("/"))

    walk(str(root), "")
    return found


def tidy(root: Path, tracked: Iterable[str], *, keep: Iterable[str] = ()) -> None:
    """Remove everything that is neither tracked nor below a folder in ``keep``. The checkout's ``.git`` stays."""
    files, kept = set(tracked), {".git", *keep}
    folders = _parents(files | kept)

    def walk(folder: str, inside: str) -> None:
        for entry in list(os.scandir(folder)):
            name = inside + entry.name
            if name in files or name in kept:
                continue
            if name in folders and entry.is_dir(follow_symlinks=False):
                walk(entry.path, name + "/")
            else:
                remove(Path(entry.path))

    walk(str(root), "")


def _parents(paths: Iterable[str]) -> set[str]:
    found: set[str] = set()
    for path in paths:
        folder = path.rpartition("/")[0]
        while folder and folder not in found:
            found.add(folder)
            folder = folder.rpartition("/")[0]
    return found


def remove(path: Path) -> None:
    """Remove a file or a whole folder, also what is write-protected; symbolic links are not followed."""
    try:
        if not stat.S_ISDIR(path.lstat().st_mode):
            path.unlink()
            return
    except FileNotFoundError:
        return
    shutil.rmtree(path, onerror=_open_up)


def _open_up(function: Callable[[str], object], name: str, _error: object) -> None:
    # Package managers leave folders without write permission (Go's module cache does).
    path = Path(name)
    try:
        path.lstat()
    except FileNotFoundError:
        return
    except PermissionError:
        pass  # its folder is closed, and is opened now
    for place in (path.parent, path):
        if not place.is_symlink() and place.is_dir():
            place.chmod(0o700)
    if function in {os.unlink, os.rmdir}:
        function(name)
    else:
        remove(path)


def inside(root: Path, path: Path) -> bool:
    """True when no symbolic link on the way leads out of the checkout."""
    return path.parent.resolve().is_relative_to(root.resolve())


def bring(source: Path, root: Path, copies: Sequence[str]) -> None:
    """Copy files from the main checkout into this one, as far as they are there."""
    for name in copies:
        origin, target = source / name, root / name
        if not origin.exists() or not inside(root, target):
            continue
        target.parent.mkdir(parents=True, exist_ok=True)
        if origin.is_dir():
            shutil.copytree(origin, target, symlinks=True, dirs_exist_ok=True)
        else:
            shutil.copy2(origin, target)


def cache_key(root: Path, cache: Cache) -> str:
    """SHA-256 over the content of the file that a cache depends on; a missing file is a content of its own."""
    digest = hashlib.sha256(cache.key.encode())
    path = root / cache.key
    if cache.key and path.is_file() and inside(root, path):
        digest.update(b"\0")
        with path.open("rb") as file:
            while piece := file.read(1 << 20):
                digest.update(piece)
    return digest.hexdigest()


def tail_of(path: Path, start: int = 0, *, lines: int = 40, size: int = 4096) -> str:
    """The last lines of a file behind a position, fit for people."""
    with path.open("rb") as file:
        end = file.seek(0, os.SEEK_END)
        file.seek(max(start, end - size))
        text = file.read(size).decode(errors="replace")
    return "\n".join(printable(text).splitlines()[-lines:])


def end_of(path: Path) -> int:
    """Where a file ends that more will be appended to; its folder is made."""
    path.parent.mkdir(parents=True, exist_ok=True)
    return path.stat().st_size if path.exists() else 0
