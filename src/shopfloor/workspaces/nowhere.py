"""Where there is no git repository: nothing can be checked out, so only answers can be handed back."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from pathlib import Path

from shopfloor.domain.errors import Refused
from shopfloor.ports import Claim, Orphan, Snapshot, Workspace


class Nowhere:
    """Port Workspaces of a folder without a repository: it has none, and refuses to make one."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    async def acquire(self, claim: Claim) -> Workspace:
        """Raises Refused."""
        raise no_git(self._folder, f"attempt {claim.key!r} needs a checkout")

    async def snapshot(self, workspace: Workspace, *, message: str, trailers: Mapping[str, str]) -> Snapshot:
        """Raises Refused."""
        raise no_git(self._folder, f"{message!r} ({len(trailers)} trailers) of {workspace.path!r} cannot be kept")

    async def changes(self, workspace: Workspace) -> tuple[str, ...]:
        """Raises Refused."""
        raise no_git(self._folder, f"what was changed in {workspace.path!r} cannot be told")

    async def release(self, workspace: Workspace) -> None:
        """Raises Refused."""
        raise no_git(self._folder, f"{workspace.path!r} is no workspace of ours")

    async def recover(self, living: Collection[str] = ()) -> list[Orphan]:
        """None."""
        del living
        return []


def no_git(folder: Path, what: str) -> Refused:
    """The error of whatever needs a repository."""
    hint = f"git init {str(folder)!r}, or let it hand back an answer, by an agent that needs no checkout"
    return Refused(f"{what}, and {str(folder)!r} is in no git repository", hint=hint)
