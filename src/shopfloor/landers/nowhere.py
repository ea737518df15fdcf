"""Where there is no git repository: nothing lands."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from shopfloor.domain.errors import Refused
from shopfloor.ports import Landed, Mirrored, Proposal, Target


class Nowhere:
    """Port Lander of a folder without a repository: it refuses."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    async def tip(self, target: Target, *, start: str = "") -> str:
        """Raises Refused."""
        raise self._refusal(f"{target.ref or start!r} cannot be looked up")

    async def propose(self, onto: str, commit: str, *, message: str, trailers: Mapping[str, str]) -> Proposal:
        """Raises Refused."""
        raise self._refusal(f"{commit!r} cannot be merged onto {onto!r} ({message!r}, {len(trailers)} trailers)")

    async def bundle(self, onto: str, top: Proposal, *, message: str, trailers: Mapping[str, str]) -> Proposal:
        """Raises Refused."""
        raise self._refusal(f"{top.commit!r} cannot be put onto {onto!r} ({message!r}, {len(trailers)} trailers)")

    async def land(self, target: Target, *, old: str, new: str) -> Landed:
        """Raises Refused."""
        raise self._refusal(f"{target.ref!r} cannot be moved from {old!r} to {new!r}")

    async def mirror(self, target: Target, *, old: str, new: str) -> Mirrored:
        """Raises Refused."""
        raise self._refusal(f"{target.branch!r} cannot be moved from {old!r} to {new!r}")

    def _refusal(self, what: str) -> Refused:
        return Refused(f"{what}: {str(self._folder)!r} is in no git repository", hint=f"git init {str(self._folder)!r}")
