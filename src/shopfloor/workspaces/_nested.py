"""Repositories that an agent made inside its workspace: their history and their files, under a ref of ours."""

from __future__ import annotations

import os
import shutil
from collections.abc import Sequence
from pathlib import Path

from shopfloor.git import Git, GitError, shown
from shopfloor.workspaces._stage import stage_all

MOST = 32


def changed_since(folder: Path, moment_ns: int) -> bool:
    """True when something in it was changed at or after a moment of file system time."""
    for place, _, names in os.walk(folder):
        for name in (".", *names):
            try:
                if os.lstat(f"{place}/{name}").st_ctime_ns >= moment_ns:
                    return True
            except OSError:
                return True
    return False


def keep_nested(main: Git, root: Path, folders: Sequence[str], under: str, scratch: Path) -> tuple[list[str], bool]:
    """Copy each repository to ``<under>/<n>/…``. Returns notes, and whether everything could be kept."""
    notes, complete = [], len(folders) <= MOST
    if not complete:
        notes.append(f"{len(folders)} repositories inside, only the first {MOST} are kept")
    for number, folder in enumerate(folders[:MOST]):
        ref = f"{under}/{number}"
        name = shown(folder) or "."
        if _keep_one(main, root / folder, ref, scratch):
            notes.append(f"the repository {name!r} inside is no part of the change; it is kept under {ref}/")
        else:
            notes.append(f"the repository {name!r} inside could not be kept whole; see {ref}/")
            complete = False
    return notes, complete


def _keep_one(main: Git, folder: Path, ref: str, scratch: Path) -> bool:
    history = _history(main, folder, ref)
    if not history and (folder / ".git").is_dir():
        # Shallow, damaged or of a kind that cannot be fetched: its folder as plain files says everything.
        history = _files(main, folder / ".git", f"{ref}/folder", scratch, parent="")
    parent = main.read_ref(f"{ref}/HEAD")
    return _files(main, folder, f"{ref}/files", scratch, parent=parent) and history


def _history(main: Git, folder: Path, ref: str) -> bool:
    """Fetch its refs and HEAD; False when that failed."""
    own = Git(folder, base_env=main.base_env)
    try:
        head = own.read_ref("HEAD")
        shared = own.common_dir.resolve() == main.common_dir.resolve()
        specs = [] if shared else [f"+refs/*:{ref}/refs/*"]
        if head:
            specs.append(f"+HEAD:{ref}/HEAD")
        if specs and (head or own.refs()):
            main.fetch(folder, *specs)
    except GitError:
        return False
    # A shallow repository's refs are left out without an error.
    return not head or main.read_ref(f"{ref}/HEAD") == head


def _files(main: Git, folder: Path, ref: str, scratch: Path, *, parent: str) -> bool:
    """Commit the folder's files as they are, unless HEAD has just these; False when some could not be read."""
    view = main.at(folder, main.common_dir)
    scratch.unlink(missing_ok=True)
    index = folder / ".git" / "index"
    if parent and index.is_file():
        shutil.copy2(index, scratch)
    try:
        unkept = stage_all(view, scratch)
        tree = view.text("write-tree", index=scratch)
    except GitError:
        scratch.unlink(missing_ok=True)
        unkept = stage_all(view, scratch)
        tree = view.text("write-tree", index=scratch)
    scratch.unlink(missing_ok=True)
    if not parent or view.tree_of(parent) != tree:
        commit = main.commit_tree(tree, [parent] if parent else [], f"files of {shown(str(folder.name))}")
        main.update_ref(ref, commit)
    return not unkept
