"""Finishing or undoing a move of the checkout that was cut off, without touching what a person has changed since."""

from __future__ import annotations

import os
import shutil
import stat
from collections.abc import Iterable
from pathlib import Path

import msgspec

from shopfloor.git import Git, GitError, RefMoved, differences, is_hash, shown, sync_file, sync_folder

INDEX = "shopfloor-mirror.index"
_GITLINK = "160000"


class Held(Exception):
    """The branch is left alone; the text says why. Raised and caught inside this package."""


class Journal(msgspec.Struct, frozen=True, kw_only=True, tag="mirror", tag_field="shopfloor"):
    """A move of the checkout under way, as written into ``index.lock``."""

    ref: str
    old: str
    new: str

    def encode(self) -> bytes:
        return msgspec.json.encode(self)

    @classmethod
    def decode(cls, raw: bytes) -> Journal | None:
        """The inverse; None for everything that no call of ours has written, such as a lock of git's own."""
        try:
            found = msgspec.json.decode(raw, type=cls)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            return None
        # What stands here is handed to git: never an option, never a ref that is no branch.
        sound = found.ref.startswith("refs/heads/") and is_hash(found.old) and is_hash(found.new)
        return found if sound else None


class Side(msgspec.Struct, frozen=True):
    """How one of the two commits has the paths that differ: path -> mode and blob, in a small index of its own."""

    entries: dict[str, tuple[str, str]]
    index: Path

    def differing(self, git: Git) -> set[str]:
        """Its paths that are not on disk as it has them."""
        git.call("update-index", "-q", "--refresh", index=self.index, ok=(0, 1))
        return set(git.names("diff-files", "-z", "--name-only", index=self.index))


def finish_interrupted(git: Git) -> Journal | None:
    """Settle what an earlier call left; the move that was finished, None when there was none.

    Raises Held when it was undone instead: a person has changed one of the files meanwhile or moved the branch, or git
    cannot move it.
    """
    folder = git.own_dir
    lock = folder / "index.lock"
    try:
        journal = Journal.decode(lock.read_bytes())
    except FileNotFoundError:
        return None
    if journal is None:
        return None
    try:
        _settle(git, folder, journal)
    except Held:
        clear(folder)
        raise
    clear(folder)  # whatever else is raised leaves the journal, because nothing is settled then
    return journal


def clear(folder: Path) -> None:
    """Forget a move that was settled: its journal, which is the lock, goes last."""
    scratch = (name + end for name in (f"{INDEX}.old", f"{INDEX}.new", INDEX) for end in (".lock", ""))
    for name in (*scratch, "index.lock"):
        (folder / name).unlink(missing_ok=True)
    sync_folder(folder)


def put_back(git: Git, folder: Path, journal: Journal) -> None:
    """Bring the files back to how they were, but for what a person has changed since."""
    old, new = _sides(git, folder, journal)
    _write(git, old, new, spare=_touched_by_others(git, old, new))


def _settle(git: Git, folder: Path, journal: Journal) -> None:
    """Finish the move; Held when it was undone instead."""
    old, new = _sides(git, folder, journal)
    standing = git.read_ref(journal.ref)
    if standing not in {journal.old, journal.new}:
        raise Held("a move of it was cut off, and somebody has moved it since; look with: git status")
    touched = _touched_by_others(git, old, new)
    if standing == journal.old and touched:
        _write(git, old, new, spare=touched)
        raise Held(f"a move of it was cut off and is undone, because {shown(touched.pop())!r} was changed since")
    try:
        _next_index(git, folder, journal)
    except GitError as error:
        _write(git, old, new, spare=touched)
        raise Held(f"a move of it was cut off and is undone: {error.said}") from error
    _write(git, new, old, spare=touched)
    git.call("update-index", "-q", "--refresh", index=folder / INDEX, ok=(0, 1))
    if standing == journal.old:
        try:
            git.update_ref(journal.ref, journal.new, old=journal.old, reason="shopfloor: fast-forward, finished")
        except (GitError, RefMoved) as error:
            if git.read_ref(journal.ref) != journal.new:
                _write(git, old, new, spare=touched)
                raise Held(f"a move of it was cut off and is undone: {error.message}") from error
    put_index(folder)


def put_index(folder: Path) -> None:
    """The prepared index becomes the person's, durably: git syncs neither an index nor the files of a checkout."""
    sync_file(folder / INDEX)
    (folder / INDEX).replace(folder / "index")
    sync_folder(folder)


def sync_files(git: Git, paths: Iterable[str]) -> None:
    """Make durable what has become of these paths of the checkout."""
    folders: dict[Path, None] = {}
    for path in paths:
        place = git.root / path
        sync_file(place)
        above = next(folder for folder in place.parents if folder.is_dir())
        folders |= dict.fromkeys((above, *(folder for folder in above.parents if folder.is_relative_to(git.root))))
    for folder in folders:
        sync_folder(folder)


def _next_index(git: Git, folder: Path, journal: Journal) -> None:
    """The person's index with the move in it."""
    scratch = folder / INDEX
    for stale in (scratch, scratch.with_name(f"{INDEX}.lock")):
        stale.unlink(missing_ok=True)
    shutil.copy2(folder / "index", scratch)
    git.call("read-tree", "-i", "-m", journal.old, journal.new, index=scratch)


def _sides(git: Git, folder: Path, journal: Journal) -> tuple[Side, Side]:
    raw = git.call("diff-tree", "-r", "-z", "--raw", "--no-renames", journal.old, journal.new).stdout
    before: dict[str, tuple[str, str]] = {}
    after: dict[str, tuple[str, str]] = {}
    for found in differences(raw):
        for side, mode, oid in ((before, found.old_mode, found.old), (after, found.new_mode, found.new)):
            if mode not in {"000000", _GITLINK}:
                side[found.path] = (mode, oid)
    return _side(git, folder / f"{INDEX}.old", before), _side(git, folder / f"{INDEX}.new", after)


def _side(git: Git, index: Path, entries: dict[str, tuple[str, str]]) -> Side:
    for stale in (index, index.with_name(f"{index.name}.lock")):
        stale.unlink(missing_ok=True)
    lines = [f"{mode} {oid} 0\t{path}" for path, (mode, oid) in entries.items()]
    git.call("update-index", "-z", "--index-info", input=_words(lines), index=index)
    return Side(entries, index)


def _touched_by_others(git: Git, old: Side, new: Side) -> set[str]:
    """Paths whose content is neither the old nor the new one, nor a beginning of either."""
    not_old, not_new = old.differing(git), new.differing(git)
    found = set()
    for path in old.entries.keys() | new.entries.keys():
        place = git.root / path
        as_old = path in old.entries and path not in not_old
        as_new = path in new.entries and path not in not_new
        if as_old or as_new or not _is_file(place):
            continue
        if not any(_begins(git, place, side, path) for side in (old, new)):
            found.add(path)
    return found


def _is_file(place: Path) -> bool:
    return os.path.lexists(place) and not stat.S_ISDIR(place.lstat().st_mode)


def _begins(git: Git, place: Path, side: Side, path: str) -> bool:
    """True for a file that git was writing when it was killed; after a loss of power with zeros behind it."""
    if path not in side.entries or place.is_symlink():
        return False
    whole = git.call("cat-file", "--filters", f"--path={path}", side.entries[path][1]).stdout
    there = place.read_bytes()
    return len(there) <= len(whole) and whole.startswith(there.rstrip(b"\0"))


def _write(git: Git, wanted: Side, other: Side, *, spare: set[str]) -> None:
    """Bring the files to one side."""
    for path in other.entries.keys() - wanted.entries.keys() - spare:
        place = git.root / path
        if _is_file(place):
            place.unlink()
            _remove_empty(git.root, place.parent)
    paths = [path for path in wanted.differing(git) if path not in spare]
    if paths:
        git.call("checkout-index", "-q", "-f", "-z", "--stdin", input=_words(paths), index=wanted.index)
    sync_files(git, wanted.entries.keys() | other.entries.keys())


def _remove_empty(root: Path, folder: Path) -> None:
    while folder != root and not any(folder.iterdir()):
        folder.rmdir()
        folder = folder.parent


def _words(lines: Iterable[str]) -> bytes:
    return b"".join(os.fsencode(line) + b"\0" for line in lines)
