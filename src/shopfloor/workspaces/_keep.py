"""Keeping what is in a workspace: one commit on refs that nobody else moves, and on the attempt's branch."""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import msgspec

from shopfloor.git import Git, GitError, is_hash, is_ours, shown, split
from shopfloor.ports import Snapshot
from shopfloor.workspaces._backend import Backend, Moves, Slot
from shopfloor.workspaces._folder import Oddities, oddities
from shopfloor.workspaces._nested import changed_since, keep_nested
from shopfloor.workspaces._stage import GITLINK, Change, Marks, State, drop, look, made_before, marks, stage, unhide

ATTEMPTS, NESTED = "refs/shopfloor/attempts", "refs/shopfloor/nested"
_SAID = 5


class Kept(msgspec.Struct, frozen=True):
    """A snapshot, and whether the slot's index hides files, so that it must not be used again."""

    snapshot: Snapshot
    heads: tuple[str, ...]
    sparse: bool
    messy: bool


class Content(msgspec.Struct, kw_only=True):
    """What goes into the snapshot's tree."""

    tree: str
    files: tuple[str, ...]
    unkept: list[str]
    staged: str = ""
    """tree of the agent's own index, where that says something that neither HEAD nor the files say"""


def keep(slot: Slot, backend: Backend, *, message: str, trailers: Mapping[str, str]) -> Kept:
    """Snapshot one slot. Raises GitError when even that fails; nothing is changed in the checkout's files."""
    git, lease = slot.git, slot.lease
    backend.repair(slot)
    gone = git.root.is_symlink() or not git.root.is_dir()
    if gone:
        git.root.unlink(missing_ok=True)  # a link in its place must not lead us elsewhere
        git.root.mkdir()
    index = slot.git_dir / "shopfloor.index"
    _copy_index(slot, index)
    if gone:
        git.call("checkout-index", "-a", "-f", "-u", index=index)
    state, odd, sparse, known = _look_around(slot, index)
    content = _content(slot, index, state)
    notes = _notes(slot, state, content, odd.specials, odd.closed)
    if gone:
        notes.append("its folder was gone: only what had been committed or staged is kept")
    nested = _worth_keeping(slot, state, odd.repositories)
    more, whole = keep_nested(slot.main, git.root, nested, f"{NESTED}/{lease.key}", slot.git_dir / "shopfloor.nested")
    tip, moves, said = _history(slot, state, content, known, message=message, trailers=trailers)
    backend.publish(slot, moves)
    index.replace(slot.git_dir / "index")
    snapshot = Snapshot(
        commit=tip,
        tree=content.tree,
        base=lease.base,
        ref=f"{ATTEMPTS}/{lease.key}/tip",
        files=content.files,
        dirty=tip not in {state.head, lease.base},
        complete=whole and not content.unkept and not odd.closed,
        notes=(*said, *more, *notes),
    )
    return Kept(snapshot, (tip, state.head), sparse, messy=bool(odd.specials or odd.closed or nested))


def _copy_index(slot: Slot, index: Path) -> None:
    """A copy of the slot's index to work with; where there is none, the base's."""
    for stale in (index, index.with_name(f"{index.name}.lock")):
        stale.unlink(missing_ok=True)
    try:
        # With its time stamp: git compares it with those of files to see which may have changed at that same moment.
        shutil.copy2(slot.git_dir / "index", index)
    except FileNotFoundError:
        slot.git.call("read-tree", slot.lease.base, index=index)


def _look_around(slot: Slot, index: Path) -> tuple[State, Oddities, bool, dict[str, str]]:
    """State, oddities, whether files are left out of the checkout, and the refs that keep it; all looked at at once."""
    git, lease = slot.git, slot.lease
    refs = [f"{ATTEMPTS}/{lease.key}/tip", *([f"refs/heads/{lease.branch}"] if lease.branch else [])]
    with ThreadPoolExecutor(3) as side:
        walking = side.submit(oddities, git.root, skip=slot.caches)
        marking = side.submit(marks, git, index)
        reading = side.submit(git.refs, *refs)
        try:
            state = look(git, index)
            hidden = marking.result()
        except GitError:  # nobody can read this index, and it stands in the way of other commands
            index.unlink(missing_ok=True)
            (slot.git_dir / "index").unlink(missing_ok=True)
            git.call("read-tree", lease.base, index=index)
            state, hidden = look(git, index), Marks()
        if hidden:
            unhide(git, index, hidden)
            state = look(git, index)
        return state, walking.result(), bool(hidden.skipped), reading.result()


def part_of_change(slot: Slot, state: State) -> tuple[list[Change], list[str]]:
    """What differs on disk from the index and was not made by us or by setup."""
    before = made_before(slot.git.root, slot.lease.ready_ns)
    changes = [c for c in state.changes if c.unstaged != "." and not is_ours(c.path) and not before(c.path)]
    untracked = [
        path
        for path in state.untracked
        if not (path.endswith("/") or is_ours(path) or below(path, slot.caches) or before(path))
    ]
    return changes, untracked


def below(path: str, folders: tuple[str, ...]) -> bool:
    """True for the folders themselves too."""
    return any(path.rstrip("/") == folder or path.startswith(folder + "/") for folder in folders)


def _content(slot: Slot, index: Path, state: State) -> Content:
    git, base = slot.git, slot.lease.base
    changes, untracked = part_of_change(slot, state)
    staged = ""
    if any(c.staged not in ".u" and c.unstaged != "." for c in state.changes):
        done = git.call("write-tree", index=index, ok=(0, 128))
        staged = done.stdout.decode().strip()
    unkept = stage(git, index, changes, untracked)
    if changes or untracked or any(c.staged != "." for c in state.changes) or not state.head:
        tree = git.text("write-tree", index=index)
    else:
        tree = git.tree_of(state.head)
    differing = _differing(git, base, tree)
    links = [path for path, mode in differing.items() if mode == GITLINK and path not in slot.lease.submodules]
    ours = [path for path in differing if is_ours(path)]
    if links or ours:
        drop(git, index, links)
        drop(git, index, ours, restore=base)
        tree = git.text("write-tree", index=index)
        differing = _differing(git, base, tree)
    return Content(tree=tree, files=tuple(map(shown, differing)), unkept=unkept, staged=staged)


def _differing(git: Git, base: str, tree: str) -> dict[str, str]:
    """Path -> new mode, for what differs."""
    words = split(git.call("diff-tree", "-r", "-z", "--raw", "--no-renames", base, tree).stdout)
    return {path: facts.split(" ")[1] for facts, path in zip(words[::2], words[1::2], strict=True)}


def _worth_keeping(slot: Slot, state: State, repositories: list[str]) -> list[str]:
    lease, root = slot.lease, slot.git.root
    touched = {c.path for c in state.changes if c.submodule}
    found = [
        path
        for path in repositories
        if not (path in lease.repositories and not changed_since(root / path, lease.ready_ns))
        and (path not in lease.submodules or path in touched)
    ]
    return found if owns_root(slot) else ["", *found]


def owns_root(slot: Slot) -> bool:
    """True while the checkout's ``.git`` is the one we wrote, or nothing that could be a repository."""
    link = slot.git.root / ".git"
    if link.is_symlink() or not link.exists():
        return True
    return link.is_file() and link.read_bytes().strip() == b"gitdir: " + os.fsencode(slot.git_dir)


def _history(
    slot: Slot, state: State, content: Content, known: Mapping[str, str], *, message: str, trailers: Mapping[str, str]
) -> tuple[str, Moves, list[str]]:
    """The tip, the refs that keep it and what it leaves behind, and what to say about that."""
    git, lease = slot.git, slot.lease
    under, branch, base = f"{ATTEMPTS}/{lease.key}", f"refs/heads/{lease.branch}", lease.base
    notes: list[str] = []
    moves: Moves = {}
    ours = bool(state.head) and git.is_ancestor(base, state.head)
    if not ours and state.head:
        moves[f"{under}/head"] = (state.head, None)
        notes.append(f"HEAD did not descend from the base any more; it is kept as {under}/head")
    tip = _tip(slot, content, parent=state.head if ours else base, known=known.get(f"{under}/tip", ""),
               message=message, trailers=trailers)  # fmt: skip
    for ref, name in ((branch, "branch"), (f"{under}/tip", "earlier")):
        left = known.get(ref, "")
        if left and left not in {base, tip} and not git.is_ancestor(left, tip):
            place = f"{under}/{name}/{left[:16]}"
            moves[place] = (left, None)
            notes.append(f"commits that the tip does not hold are kept as {place}")
    if content.staged and content.staged not in {content.tree, git.tree_of(state.head or base)}:
        moves[f"{under}/index"] = (git.commit_tree(content.staged, [tip], "what was staged"), None)
    merging = slot.git_dir / "MERGE_HEAD"
    if merging.exists():
        # What an agent may have put there is no name of a commit for that.
        oids = filter(is_hash, os.fsdecode(merging.read_bytes()).split())
        moves |= {f"{under}/merging/{oid[:16]}": (oid, None) for oid in oids}
        notes.append("a merge was under way")
    for ref in (branch, f"{under}/tip") if lease.branch else (f"{under}/tip",):
        moves[ref] = (tip, known.get(ref, ""))  # also where it stands there: the agent's git has not synced it
    return tip, moves, notes


def _tip(slot: Slot, content: Content, *, parent: str, known: str, message: str, trailers: Mapping[str, str]) -> str:
    git = slot.git
    if parent == slot.lease.base and not content.files:
        return parent
    for there in (parent, known):
        if there and there != slot.lease.base and git.tree_of(there) == content.tree and git.is_ancestor(parent, there):
            return there
    author = trailers.get("Shopfloor-Agent", "")
    return git.commit_tree(content.tree, [parent], message, author=author, trailers=trailers)


def _notes(slot: Slot, state: State, content: Content, specials: list[str], closed: list[str]) -> list[str]:
    expected = (*slot.lease.ignored, *slot.caches, *slot.copies)
    ignored = [p for p in state.ignored if not (is_ours(p) or below(p, expected) or p in expected)]
    notes = [f"{what}: {_some(paths)}" for what, paths in (
        ("could not be kept", content.unkept),
        ("could not be read", closed),
        ("ignored by git and not kept", ignored),
        ("neither files nor folders, not kept", specials),
    ) if paths]  # fmt: skip
    if any(c.unmerged for c in state.changes):
        notes.append("conflicts were not resolved: files with conflict marks are part of the commit")
    return notes


def _some(paths: list[str]) -> str:
    rest = len(paths) - _SAID
    return ", ".join(repr(shown(path)) for path in paths[:_SAID]) + (f" and {rest} more" if rest > 0 else "")
