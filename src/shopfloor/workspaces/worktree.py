"""Workspaces as linked worktrees of the repository: quick to make, sharing its refs and configuration."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from shopfloor.git import Git, is_blank
from shopfloor.spawn import Guard
from shopfloor.workspaces._backend import Moves, Slot
from shopfloor.workspaces._folder import remove
from shopfloor.workspaces.pool import Pool


class LinkedWorktrees:
    """One linked worktree per slot. An agent in it can move every ref of the repository; clones prevent that."""

    def __init__(self, main: Git) -> None:
        self.main = main

    def create(self, path: Path, commit: str) -> Path:
        return self.main.worktree_add(path, commit)

    def repair(self, slot: Slot) -> None:
        """Write again what makes the git folder one of a linked worktree."""
        own, branch = slot.git_dir, f"refs/heads/{slot.lease.branch}"
        head = (
            f"ref: {branch}"
            if slot.lease.branch and self.main.common_dir.joinpath(branch).exists()
            else slot.lease.base
        )
        for name, text in (("commondir", "../.."), ("HEAD", head), ("gitdir", str(slot.git.root / ".git"))):
            if is_blank(own / name):
                own.mkdir(parents=True, exist_ok=True)
                (own / name).write_text(text + "\n")

    def bring(self, slot: Slot) -> None:
        """Nothing to do: objects and refs are shared."""

    def publish(self, slot: Slot, moves: Moves) -> None:
        slot.git.update_refs(moves, reason=f"shopfloor: {slot.lease.key}")

    def remove(self, path: Path, git_dir: str) -> None:
        remove(path)
        self.main.worktree_remove(path)


class WorktreeWorkspaces(Pool):
    """The port Workspaces over linked worktrees; the options are those of `Pool`."""

    def __init__(self, git: Git, guard: Guard, **options: Any) -> None:
        super().__init__(LinkedWorktrees(git), guard, **options)
