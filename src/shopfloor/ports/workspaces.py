"""Workspaces: isolated checkouts of one repository."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Literal, Protocol

import msgspec


class Claim(msgspec.Struct, frozen=True, kw_only=True):
    """What an attempt or a check needs a checkout for."""

    key: str
    """attempt id, or check run id: written beside the slot, so that a later start knows whose it was"""
    commit: str
    """what is checked out, and what changes are told against"""
    onto: str = ""
    """a descendant of ``commit`` that is checked out in its place: work that goes on"""
    branch: str = ""
    """created there for an attempt; empty: detached, for checks"""
    purpose: Literal["attempt", "check"] = "attempt"
    log: str = ""
    """file that takes the output of the setup command"""


class Workspace(msgspec.Struct, frozen=True, kw_only=True):
    """An isolated checkout."""

    key: str
    path: str
    commit: str
    branch: str = ""
    slot: str = ""


class Snapshot(msgspec.Struct, frozen=True, kw_only=True):
    """The state of a workspace, kept for ever: what was committed plus what was not, as one commit on a ref."""

    commit: str
    """tip of the attempt's branch: descends from the base; equals the base when nothing changed"""
    tree: str
    base: str
    ref: str
    files: tuple[str, ...] = ()
    """paths that differ from the base"""
    dirty: bool = False
    """True when something had not been committed by the agent"""
    complete: bool = True
    """False: something could not be kept; the slot is retired instead of reused"""
    notes: tuple[str, ...] = ()


class Orphan(msgspec.Struct, frozen=True, kw_only=True):
    """A slot that a dead controller left in use: snapshotted and returned to the pool, unless somebody lives in it."""

    key: str
    path: str
    snapshot: Snapshot | None
    problem: str = ""
    workspace: Workspace | None = None
    """somebody lives in it: it was left as it is, and belongs to this process now"""


class Workspaces(Protocol):
    """A pool of isolated checkouts of one repository."""

    async def acquire(self, claim: Claim) -> Workspace:
        """A clean checkout, prepared by the repository's setup. Raises Refused with the end of the setup's output."""
        ...

    async def snapshot(self, workspace: Workspace, *, message: str, trailers: Mapping[str, str]) -> Snapshot:
        """Keep everything in it (but ignored files, which are named) under refs/shopfloor/ and on its branch."""
        ...

    async def changes(self, workspace: Workspace) -> tuple[str, ...]:
        """Paths that differ from the commit it was made for, committed or not."""
        ...

    async def release(self, workspace: Workspace) -> None:
        """Give it back. An attempt's workspace that was not snapshotted since is snapshotted first."""
        ...

    async def recover(self, living: Collection[str] = ()) -> list[Orphan]:
        """At start: every slot that a dead controller left in use, snapshotted and returned.

        What has its key in ``living`` is taken over as it is: its agent still works there.
        """
        ...
