"""Turning a slot into a clean checkout of one commit, whatever was left in it."""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from pathlib import Path

from shopfloor.config.settings import Cache
from shopfloor.git import GitError
from shopfloor.workspaces._backend import Backend, Slot, ensure_free
from shopfloor.workspaces._folder import bring, cache_key, oddities, remove, tidy
from shopfloor.workspaces._keep import below
from shopfloor.workspaces._stage import State, entries, look, marks

# What an interrupted command, or an agent, leaves in a checkout's own git folder.
_LEFT_OVER = (
    *(
        "index.lock",
        "HEAD.lock",
        "config.worktree",
        "info/sparse-checkout",
        "rebase-merge",
        "rebase-apply",
        "sequencer",
    ),
    *("MERGE_HEAD", "MERGE_MSG", "MERGE_MODE", "MERGE_RR", "AUTO_MERGE", "CHERRY_PICK_HEAD", "REVERT_HEAD"),
    *("SQUASH_MSG", "BISECT_LOG", "BISECT_START", "BISECT_TERMS", "BISECT_NAMES"),
)


def fill(slot: Slot, backend: Backend, caches: Sequence[Cache], seen: State | None) -> dict[str, str]:
    """Check out the lease's base on its branch. Returns the caches that survived, with their keys.

    ``seen``: how the checkout was just seen; everything that git does not track in it is in that list.
    """
    git, lease = slot.git, slot.lease
    backend.repair(slot)
    for name in _LEFT_OVER:
        remove(slot.git_dir / name)
    _link(slot)
    trusted = {c.path: key for c in caches if (key := lease.caches.get(c.path)) and key == cache_key(git.root, c)}
    local = [*(c for c in slot.copies if os.path.lexists(backend.main.root / c)), *slot.caches]
    if local:
        backend.main.exclude("/" + name for name in local)
    backend.bring(slot)
    _switch(slot)
    if lease.onto:
        _go_on(slot, backend)
    kept = {c.path: trusted[c.path] for c in caches if c.path in trusted and trusted[c.path] == cache_key(git.root, c)}
    if seen is None or not _remove_seen(git.root, seen, tuple(kept)):
        tidy(git.root, _tracked(slot), keep=kept)
    elif (git.root / ".gitmodules").exists():
        _tracked(slot)
    bring(backend.main.root, git.root, [name for name in slot.copies if not os.path.lexists(git.root / name)])
    return kept


def _link(slot: Slot) -> None:
    """Make the checkout's ``.git`` ours again."""
    link, wanted = slot.git.root / ".git", b"gitdir: " + os.fsencode(slot.git_dir) + b"\n"
    if link.is_symlink() or not link.is_file() or link.read_bytes() != wanted:
        remove(link)
        link.write_bytes(wanted)


def _remove_seen(root: Path, seen: State, kept: Sequence[str]) -> bool:
    """Remove what was listed but not tracked; False when a kept folder lies inside of something that has to go."""
    gone = [path.rstrip("/") for path in (*seen.untracked, *seen.ignored) if not below(path, tuple(kept))]
    if any(folder.startswith(path + "/") for folder in kept for path in gone):
        return False
    for path in gone:
        remove(root / path)
    return True


def _tracked(slot: Slot) -> list[str]:
    """What the checkout has to hold. Starts over where somebody hid files in its index; empties submodules."""
    git, lease = slot.git, slot.lease
    if marks(git):
        remove(slot.git_dir / "index")
        git.call("reset", "-q", "--hard", lease.base)
    paths, submodules = entries(git)
    lease.submodules = tuple(submodules)
    for path in submodules:
        remove(git.root / path)
        (git.root / path).mkdir(parents=True)
    return paths


def _switch(slot: Slot) -> None:
    git, lease = slot.git, slot.lease
    where = ("--no-track", "-b", lease.branch, lease.base) if lease.branch else ("--detach", lease.base)
    try:
        git.call("checkout", "-q", "-f", *where)
    except GitError:
        standing = git.read_ref(f"refs/heads/{lease.branch}") if lease.branch else ""
        if not standing:
            raise
        taken = any(tree.branch == f"refs/heads/{lease.branch}" for tree in git.worktrees())
        ensure_free(slot, standing, taken=taken)
        git.call("checkout", "-q", "-f", lease.branch)


def _go_on(slot: Slot, backend: Backend) -> None:
    """Put the branch where earlier work on the same base ends."""
    git, onto = slot.git, slot.lease.onto
    if git.call("cat-file", "-e", onto, ok=(0, 1, 128)).code:
        git.fetch(backend.main.common_dir, onto)
    git.call("reset", "-q", "--hard", onto)


def remember(slot: Slot, probe: Path) -> None:
    """Write into the lease what setup and copies have made, so that nobody takes it for the agent's work."""
    lease = slot.lease
    lease.ignored = tuple(look(slot.git).ignored)
    lease.repositories = tuple(oddities(slot.git.root, skip=slot.caches).repositories)
    first = _tick(probe)
    now = first
    while now == first:  # file system time advances in steps of some milliseconds
        time.sleep(0.001)
        now = _tick(probe)
    lease.ready_ns = now


def _tick(probe: Path) -> int:
    probe.write_bytes(b"")
    return probe.stat().st_ctime_ns
