"""Where attempts execute, and the facts that come back."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from enum import StrEnum
from typing import Any, Protocol

import msgspec

from shopfloor.domain.order import Order
from shopfloor.ports.agents import Delivery, Handle, Profile
from shopfloor.ports.gateway import Bill, Limit
from shopfloor.ports.workspaces import Snapshot, Workspace


class Job(msgspec.Struct, frozen=True, kw_only=True, gc=False):
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
    first_s: float = 300.0
    """the same before its first report"""
    onto: str = ""
    """the commit, made on ``base``, whose work it goes on from; empty: it begins with ``base``"""
    session: str = ""
    """the agent's own session, which goes on; empty: a new one"""
    account: str = ""
    """who pays for its model calls"""
    gateway: bool = False
    """its model calls go through the gateway"""
    limits: tuple[Limit, ...] = ()
    """what it may spend there, alone and together with others"""
    budget_usd: float | None = None
    """the narrowest of the limits, for agents that keep one themselves"""
    handle: Handle | None = None
    """an agent that an earlier controller started and that goes on: it is followed, and not started again"""
    workspace: Workspace | None = None
    """where that one works"""
    spent: Bill | None = None
    """what has gone over its way to its models by then"""
    call: bool = False
    """it is one call of an agent that answers: there is no prompt, no base and no branch"""


class Phase(StrEnum):
    """The facts of an attempt's life; ENDED comes exactly once and last."""

    WORKSPACE = "workspace"
    STARTED = "started"
    USAGE = "usage"
    IDLE = "idle"
    WORKING = "working"
    ASKED = "asked"
    RETRYING = "retrying"
    """a model call failed and the agent tries again by itself: ``text``, ``status``, ``delay_s``"""
    QUOTA = "quota"
    """accounts have nothing left: ``text``, ``accounts``, ``reset_at``"""
    ENDED = "ended"


class Fact(msgspec.Struct, frozen=True, kw_only=True, gc=False):
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
    status: str = ""
    """RETRYING: what the model answered, e.g. ``429``"""
    delay_s: float = 0.0
    """RETRYING: after so long it tries again"""
    accounts: tuple[str, ...] = ()
    """QUOTA: those that have nothing left"""
    reset_at: float | None = None
    """QUOTA, and ENDED with outcome ``quota``: wall seconds at which there is something left again; None: not told"""
    known: bool = False
    """ENDED with outcome ``quota``: a QUOTA fact has said so before, at the time; there may be something left by now"""
    limit: str = ""
    """ENDED with outcome ``budget``: the limit that was reached, by its key"""
    cost_usd: float | None = None
    """by the gateway where it went through that, else as the agent says"""
    said_usd: float | None = None
    """as the agent says, where the gateway counts"""
    tokens_in: int = 0
    tokens_out: int = 0
    steps: int = 0
    idle_s: float = 0.0
    silent_from_start: bool = False
    """IDLE: it has not reported anything yet"""
    snapshot: Snapshot | None = None
    notes: tuple[str, ...] = ()
    permission: bool = False
    """ASKED: it is answered by yes or no"""
    transient: bool = False
    """ENDED in failure: trying again may help"""
    data: dict[str, Any] = {}
    """ENDED: small facts that came with it"""


class Runner(Protocol):
    """Where attempts execute."""

    async def submit(self, job: Job) -> None:
        """Start executing; returns at once."""
        ...

    async def cancel(self, attempt: str, reason: str) -> None:
        """Stop it; its work is still snapshotted and ENDED still comes, with ``reason`` as outcome.

        With ``completed`` it is ended because it said that it is done: its work is verified like any other.
        """
        ...

    def outcomes(self) -> AsyncIterator[Sequence[Fact]]:
        """Facts of all attempts as they happen, those that are there at once together, until the runner is closed."""
        ...

    async def send(self, attempt: str, text: str) -> Delivery:
        """Pass a person's words to the agent. Raises Refused where it cannot listen."""
        ...

    async def close(self) -> None:
        """Cancel what still runs and wait for it."""
        ...
