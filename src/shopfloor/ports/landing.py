"""Checking commits, and making them part of the target."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

import msgspec

from shopfloor.domain.verdict import Check, CheckResult, Verdict


class CheckJob(msgspec.Struct, frozen=True, kw_only=True):
    """What to find out about one commit."""

    key: str
    """names the run: order and number, ``base`` or ``tip``"""
    commit: str
    tree: str
    base: str
    """where a failing project check is run again before anybody is blamed; empty: it is not"""
    checks: tuple[Check, ...]
    evidence: str
    """folder that takes logs and ``verdict.json``"""
    timeout_s: float | None = None
    fail_fast: bool = False
    again: int = 0
    """times that a check which failed is run again on this commit, in a fresh checkout, before it counts as failed"""
    known: tuple[CheckResult, ...] = ()
    """what an earlier job has found on this very commit"""


class Verifier(Protocol):
    """Finds out whether a commit is good."""

    async def check(self, job: CheckJob) -> Verdict:
        """Run the checks in a clean, prepared checkout of exactly that commit. Never raises for what the checks do."""
        ...


class Target(msgspec.Struct, frozen=True, kw_only=True):
    """Where verified work goes: the user's branch, and the ref of ours that leads it."""

    branch: str
    """e.g. ``main``"""
    ref: str
    """``refs/shopfloor/target/<branch>``"""


class Proposal(msgspec.Struct, frozen=True, kw_only=True):
    """A merge that exists as objects only; no working tree was touched."""

    commit: str
    tree: str
    onto: str
    conflicts: tuple[str, ...] = ()
    """paths; not empty: there is no merge, ``commit`` and ``tree`` are empty"""
    message: str = ""


class Landed(msgspec.Struct, frozen=True, kw_only=True):
    """What the ref was observed to be after the move was tried."""

    moved: bool
    observed: str
    by_others: bool = False
    """True: somebody else had moved it"""


class Mirrored(msgspec.Struct, frozen=True, kw_only=True):
    """What became of the user's branch."""

    moved: bool
    head: str
    why: str = ""
    """why it was left alone, and how to take the result"""


class Lander(Protocol):
    """Makes verified work part of the target."""

    async def tip(self, target: Target, *, start: str = "") -> str:
        """Where the target stands now; ``start`` creates the ref there when it does not exist. Empty: no such ref."""
        ...

    async def propose(self, onto: str, commit: str, *, message: str, trailers: Mapping[str, str]) -> Proposal:
        """Merge ``commit`` into ``onto`` as objects.

        Raises OSError when nothing can be written now, whatever is merged; ShopfloorError when this cannot be merged.
        """
        ...

    async def bundle(self, onto: str, top: Proposal, *, message: str, trailers: Mapping[str, str]) -> Proposal:
        """A whole stack of merges as one step from ``onto``: a commit with both as its parents and the top's tree."""
        ...

    async def land(self, target: Target, *, old: str, new: str) -> Landed:
        """Move the target by compare-and-swap, and say where it was seen afterwards."""
        ...

    async def mirror(self, target: Target, *, old: str, new: str) -> Mirrored:
        """Advance the user's branch when it stands at ``old`` and nothing tracked is modified; else leave it alone.

        A first-parent ancestor of ``new`` that comes after ``old`` will do as well: the target has stood there.

        Finishing after a crash in between is calling it again.
        """
        ...
