"""Where attempts execute, and the facts that come back."""

from __future__ import annotations

from collections.abc import AsyncIterator
from enum import StrEnum
from typing import Protocol

import msgspec

from shopfloor.domain.order import Order
from shopfloor.ports.agents import Delivery, Handle, Profile
from shopfloor.ports.workspaces import Snapshot, Workspace


class Job(msgspec.Struct, frozen=True, kw_only=True):
    """One attempt to execute somewhere."""

    order: Order
    attempt: str
    generation: int
    profile: Profile
    prompt: str
    base: str
    branch: str
    timeout_s: float | None = None
    silence_s: float | None = None
    """stop it after so long without any output; None: silence is only reported"""
    idle_s: float = 300.0
    """silence after which it is reported as idle"""
    session: str = ""
    handle: Handle | None = None
    """an agent that an earlier controller started and that goes on: it is followed, and not started again"""
    workspace: Workspace | None = None
    """where that one works"""


class Phase(StrEnum):
    """The facts of an attempt's life, in order; ENDED comes exactly once and last."""

    WORKSPACE = "workspace"
    STARTED = "started"
    USAGE = "usage"
    IDLE = "idle"
    WORKING = "working"
    ASKED = "asked"
    ENDED = "ended"


class Fact(msgspec.Struct, frozen=True, kw_only=True):
    """One fact about one attempt, keyed by order and generation."""

    phase: Phase
    order: str
    attempt: str
    generation: int
    workspace: Workspace | None = None
    handle: Handle | None = None
    session: str = ""
    text: str = ""
    outcome: str = ""
    """ENDED: ``completed`` or a Reason"""
    exit_code: int | None = None
    cost_usd: float | None = None
    tokens_in: int = 0
    tokens_out: int = 0
    steps: int = 0
    idle_s: float = 0.0
    snapshot: Snapshot | None = None
    notes: tuple[str, ...] = ()
    transient: bool = False
    """ENDED in failure: trying again may help"""


class Runner(Protocol):
    """Where attempts execute."""

    async def submit(self, job: Job) -> None:
        """Start executing; returns at once."""
        ...

    async def cancel(self, attempt: str, reason: str) -> None:
        """Stop it; its work is still snapshotted and ENDED still comes, with ``reason`` as outcome."""
        ...

    def outcomes(self) -> AsyncIterator[Fact]:
        """Facts of all attempts as they happen, until the runner is closed."""
        ...

    async def send(self, attempt: str, text: str) -> Delivery:
        """Pass a person's words to the agent. Raises Refused where it cannot listen."""
        ...

    async def close(self) -> None:
        """Cancel what still runs and wait for it."""
        ...
