"""What differs between the kinds of workspace, and a slot at work."""

from __future__ import annotations

from pathlib import Path
from typing import Protocol

import msgspec

from shopfloor.domain.errors import Conflict
from shopfloor.git import Git
from shopfloor.workspaces._lease import Lease

Moves = dict[str, tuple[str, str | None]]
"""Ref -> where it goes and where it must stand before, as `Git.update_refs` takes them."""


class Slot(msgspec.Struct, frozen=True, kw_only=True):
    """A slot at work: its git, trusted to look at its own git folder only."""

    lease: Lease
    git: Git
    main: Git
    caches: tuple[str, ...] = ()
    copies: tuple[str, ...] = ()

    @property
    def git_dir(self) -> Path:
        return Path(self.lease.git_dir)


def ensure_free(slot: Slot, standing: str, *, taken: bool = False) -> None:
    """Raises Conflict when the lease's branch has commits of somebody else on it, or is checked out."""
    lease = slot.lease
    if standing and (standing != lease.base or taken):
        text = f"branch {lease.branch!r} is there already, at {standing[:12]}"
        raise Conflict(text, hint=f"git branch -m {lease.branch} another-name")


class Backend(Protocol):
    """Linked worktrees, or independent clones."""

    main: Git

    def create(self, path: Path, commit: str) -> Path:
        """Make the checkout's folder without files, and return its own git folder."""
        ...

    def repair(self, slot: Slot) -> None:
        """Make a damaged git folder usable again, as far as that is possible."""
        ...

    def bring(self, slot: Slot) -> None:
        """Let the slot's repository have the lease's base, and nothing of whoever used it before."""
        ...

    def publish(self, slot: Slot, moves: Moves) -> None:
        """Bring commits to the main repository and move the refs there. Raises RefMoved."""
        ...

    def remove(self, path: Path, git_dir: str) -> None:
        """Remove the checkout and its own git folder."""
        ...
