"""Advancing the branch that a person may have checked out: all or nothing, also when cut off half-way.

While the working tree is moved, git's own ``index.lock`` is ours, and its content is the journal: which branch was to
be moved, from where to where. The next call finds it there and finishes or undoes the move (``_repair``); until then
git refuses to touch the index.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

from shopfloor.git import Git, GitError, RefMoved, open_lock, shown, sync_folder
from shopfloor.landers._repair import INDEX, Held, Journal, clear, finish_interrupted, put_back, put_index, sync_files
from shopfloor.ports import Mirrored, Target


def advance(git: Git, target: Target, old: str, new: str) -> Mirrored:
    """See the port: ``Lander.mirror``."""
    ref = f"refs/heads/{target.branch}"
    with open_lock(git.common_dir / "shopfloor-mirror.lock"):
        try:
            finished = finish_interrupted(git)
            if finished is not None and (finished.ref, finished.old) == (ref, old):
                old = finished.new
            _advance(git, ref, old, new)
        except Held as held:
            head = git.read_ref(ref)
            how = "--ff-only " if head and git.is_ancestor(head, new) else ""
            why = f"{held}; take the result with: git merge {how}{target.ref}"
            return Mirrored(moved=False, head=head, why=why)
    return Mirrored(moved=True, head=git.read_ref(ref))


def _advance(git: Git, ref: str, old: str, new: str) -> None:
    standing = git.read_ref(ref)
    if standing == new:
        return
    name = ref.removeprefix("refs/heads/")
    if not standing:
        raise Held(f"branch {name!r} does not exist any more")
    if standing != old:
        if not _on_the_way(git, standing, old, new):
            raise Held(f"branch {name!r} stands at {standing[:12]}, not at {old[:12]} where it was last seen")
        old = standing  # moved by us, who did not live to say so, or by a person who took the result over
    if not git.is_ancestor(old, new):
        raise Held(f"{new[:12]} does not descend from branch {name!r}")
    for place in _rebasing(git, ref):
        raise Held(f"a rebase of branch {name!r} is under way in {str(place)!r}")
    trees = git.worktrees()
    holders = [tree.path for tree in trees if tree.branch == ref]
    elsewhere = [path for path in holders if path != trees[0].path]
    if elsewhere:
        raise Held(f"branch {name!r} is checked out in {str(elsewhere[0])!r}")
    if holders:
        _advance_checkout(git, Journal(ref=ref, old=old, new=new))
    else:
        _move(git, ref, old, new)


def _on_the_way(git: Git, commit: str, old: str, new: str) -> bool:
    """True for a commit at which the target itself has stood since."""
    return commit in git.text("rev-list", "--first-parent", f"{old}..{new}").split()


def _move(git: Git, ref: str, old: str, new: str) -> None:
    name = ref.removeprefix("refs/heads/")
    try:
        git.update_ref(ref, new, old=old, reason="shopfloor: fast-forward")
    except RefMoved as moved:
        if moved.observed != new:  # else git was killed after it had moved it
            raise Held(f"branch {name!r} was moved meanwhile") from moved
    except GitError as error:
        raise Held(f"branch {name!r} could not be moved: {error.said or error.message}") from error


def _rebasing(git: Git, ref: str) -> Iterator[Path]:
    """The worktrees in which a rebase will move a branch when it ends. One whose folder is gone moves nothing."""
    for kind in ("rebase-merge", "rebase-apply"):
        for head in (git.common_dir / kind / "head-name", *git.common_dir.glob(f"worktrees/*/{kind}/head-name")):
            if head.exists() and _line(head) == ref:
                link = head.parents[1] / "gitdir"
                place = Path(_line(link)).parent if link.exists() else git.worktrees()[0].path
                if place.exists():
                    yield place


def _line(file: Path) -> str:
    """What git wrote there: a ref or a path, in whatever bytes it has."""
    return os.fsdecode(file.read_bytes()).rstrip("\n")


def _advance_checkout(git: Git, journal: Journal) -> None:
    under_way = git.under_way()
    if under_way:
        raise Held(f"a {under_way} is under way")
    modified = git.modified()
    if modified:
        files = "1 tracked file is" if len(modified) == 1 else f"{len(modified)} tracked files are"
        raise Held(f"{files} modified or staged, e.g. {shown(modified[0])!r}")
    in_the_way = _in_the_way(git, journal)
    if in_the_way:
        raise Held(f"untracked {shown(in_the_way)!r} is in the way of what was landed")
    folder = git.own_dir
    lock = folder / "index.lock"
    _take(lock, journal)
    try:
        _move_checkout(git, folder, journal)
    except Held:
        clear(folder)
        raise
    except (GitError, OSError):
        # Cut off half-way: that is finished or undone now, or when even this fails, by the next call.
        finish_interrupted(git)
        return
    clear(folder)


def _move_checkout(git: Git, folder: Path, journal: Journal) -> None:
    # Only while the index is locked does git let nobody else switch to another branch.
    if git.call("symbolic-ref", "-q", "HEAD", ok=(0, 1)).stdout.decode().strip() != journal.ref:
        raise Held("another branch was checked out meanwhile")
    scratch = folder / INDEX
    shutil.copy2(folder / "index", scratch)
    # A file that is as it was but was touched, or copied with all the rest, is no reason to hold back.
    git.call("update-index", "-q", "--refresh", index=scratch, ok=(0, 1))
    try:
        git.call("read-tree", "-m", "-u", journal.old, journal.new, index=scratch)
    except GitError as error:
        if error.code < 0:
            raise
        # It looks at everything before it writes anything; but what it then writes may fill the disk.
        put_back(git, folder, journal)
        raise Held(f"git would not move the checkout: {error.said}") from error
    sync_files(git, git.changed(journal.old, journal.new))
    try:
        _move(git, journal.ref, journal.old, journal.new)
    except Held:
        git.call("read-tree", "-m", "-u", journal.new, journal.old, index=scratch)
        raise
    put_index(folder)


def _take(lock: Path, journal: Journal) -> None:
    """Create the lock with its content in it, as one step."""
    beside = lock.with_name("shopfloor-mirror.json")
    with beside.open("wb") as file:
        file.write(journal.encode())
        file.flush()
        os.fsync(file.fileno())
    try:
        os.link(beside, lock)
    except FileExistsError:
        raise Held(f"another git command is at work: {str(lock)!r} exists; remove it if there is none") from None
    finally:
        beside.unlink()
    sync_folder(lock.parent)


class _Tracked:
    """The paths that git tracks: asked for once, and only when something stands where something new has to go."""

    def __init__(self, git: Git) -> None:
        self._git = git
        self._paths: set[str] | None = None

    def holds(self, path: str) -> bool:
        if self._paths is None:
            self._paths = set(self._git.names("ls-files", "-z"))
        return path in self._paths


def _in_the_way(git: Git, journal: Journal) -> str:
    """An untracked or ignored path where a new file has to go; git itself would overwrite ignored ones."""
    tracked = _Tracked(git)
    for path in git.changed(journal.old, journal.new, "--diff-filter=A"):
        parts = path.split("/")
        for end in range(1, len(parts)):
            above = "/".join(parts[:end])
            place = git.root / above
            if (place.is_symlink() or (place.exists() and not place.is_dir())) and not tracked.holds(above):
                return above
        place = git.root / path
        if place.is_dir() and not place.is_symlink():
            below = [p.relative_to(git.root) for p in place.rglob("*") if p.is_symlink() or not p.is_dir()]
            if any(not tracked.holds(str(p)) for p in below):
                return path
        elif os.path.lexists(place) and not tracked.holds(path):
            return path
    return ""
