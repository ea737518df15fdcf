"""What the cases work with: a repository, pools over it, and an agent's hands in a workspace."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from shopfloor.git import Git
from shopfloor.ports import Claim, Snapshot, Workspace, Workspaces
from shopfloor.spawn import Guard
from shopfloor.testing.repository import Repository, write

TRAILERS = {"Shopfloor-Order": "wo-1", "Shopfloor-Agent": "robot"}


@dataclass(frozen=True, kw_only=True)
class Subject:
    """``make(git, guard, folder=…, setup=…, copies=…, caches=…, env=…)`` opens the pool under test."""

    make: Callable[..., Workspaces]


class Bench:
    """What a case works with: a repository, and pools over it."""

    def __init__(self, subject: Subject, guard: Guard, folder: Path) -> None:
        self.subject = subject
        self.guard = guard
        self.repository = Repository(folder / "repo")
        self.repository.git.exclude(["/.worktrees/"])
        self.pool = self.open()
        self._number = 0

    def open(self, **options: Any) -> Workspaces:
        """Another pool over the same slots."""
        repository = self.repository
        known = {"folder": repository.root / ".worktrees", "env": repository.env}
        return self.subject.make(repository.git, self.guard, **known, **options)

    def claim(self, commit: str = "") -> Claim:
        """A new attempt's."""
        self._number += 1
        key = f"wo-{self._number}.a1"
        return Claim(key=key, commit=commit or self.repository.first, branch=f"shopfloor/order-{self._number}")

    def check(self, commit: str = "") -> Claim:
        """A check's."""
        self._number += 1
        return Claim(key=f"check-{self._number}", commit=commit or self.repository.first, purpose="check")

    async def workspace(self, **files: str | bytes) -> tuple[Workspace, Path, Git]:
        """A fresh attempt: the workspace, its folder, and git as the agent calls it."""
        workspace = await self.pool.acquire(self.claim())
        root = Path(workspace.path)
        write(root, files)
        return workspace, root, Git(root, base_env=self.repository.env)

    async def keep(self, workspace: Workspace) -> Snapshot:
        return await self.pool.snapshot(workspace, message="the work", trailers=TRAILERS)


def saved(bench: Bench, snapshot: Snapshot, workspace: Workspace) -> None:
    """What holds for every snapshot."""
    git = bench.repository.git
    assert git.read_ref(snapshot.ref) == snapshot.commit, "the snapshot's ref does not name its commit"
    assert git.read_ref(f"refs/heads/{workspace.branch}") == snapshot.commit, "the branch is not at the snapshot"
    assert git.is_ancestor(workspace.commit, snapshot.commit), "the snapshot does not descend from the base"
    assert git.tree_of(snapshot.commit) == snapshot.tree
    assert snapshot.base == workspace.commit
    links = [line for line in git.names("ls-tree", "-r", "-z", snapshot.commit) if line.startswith("160000")]
    assert not links, "a repository inside became part of the change"


async def is_clean(bench: Bench) -> None:
    """A new attempt's checkout is exactly the commit."""
    _, root, git = await bench.workspace()
    assert git.rev_parse("HEAD") == bench.repository.first
    assert git.text("status", "--porcelain", "--ignored") == ""
    assert (root / "src/deep/er/data.txt").read_text() == "data\n"


Case = Callable[[Bench], Awaitable[None]]
