"""How often to try again, how long to wait, when silence is worth a word. Numbers only; nothing here waits."""

from __future__ import annotations

from typing import Literal
from zlib import crc32

import msgspec

from shopfloor.domain.order import Reason

TRANSIENT = frozenset({Reason.SPAWN, Reason.ERROR})
"""Outcomes of an attempt that a new try may mend without anybody changing anything."""


MOST_DOUBLINGS = 64


class Capacity(msgspec.Struct, frozen=True, kw_only=True):
    """What the machine has room for now."""

    starts: int = 0
    checks: int = 0
    landing: bool = False
    """True while no landing is under way"""
    calls: dict[str, int] = {}
    """starts that are calls, by profile: they take no slot of the machine"""


class Policy(msgspec.Struct, frozen=True, kw_only=True):
    """The limits of a run. Durations in seconds."""

    retries: int = 3
    """tries after a transient failure (spawn, crash) beyond the first"""
    reworks: int = 1
    """times that an order goes back with findings (checks, conflict)"""
    lost_retries: int = 5
    """times that an order is taken up again after its controller or guard was killed under it"""
    backoff_s: float = 1.0
    backoff_cap_s: float = 300.0
    call_backoff_s: float = 0.05
    """the same for the first retry of a call, which itself takes less than a second"""
    jitter: float = 0.25
    idle_s: float = 300.0
    """silence after which an agent is reported as idle; nobody is ended for it"""
    first_report_s: float = 30.0
    """the same after its start, when it has not reported anything yet"""
    verifications: int = 4
    """verifications of one commit when the checks cannot tell, e.g. because their guard was killed"""
    barren: int = 3
    """orders that an agent may fail one after the other with nothing done; then nothing more is started with it.
    0: any number"""
    barren_calls: int = 100
    """the same for calls, many of which fail together when one of many servers dies"""
    confirmations: int = 1
    """times that a check which failed is run again on the same commit before it counts as failed"""
    on_question: Literal["ask", "decline"] = "ask"
    """whether a question waits for a person, or the agent is told to decide by itself"""
    done_grace_s: float = 30.0
    """how long an agent that asked for verification may take to end by itself"""
    batch: int = 24
    """landings tested together at the most; fewer after several red batches in a row"""


def batch_size(policy: Policy, red_batches: int) -> int:
    """How many landings to test together: halved with each red batch in a row after the first."""
    return max(1, policy.batch >> max(0, red_batches - 1))


def backoff(policy: Policy, order: str, failures: int, *, call: bool = False) -> float:
    """Seconds before try ``failures + 1``: doubled each time, spread by ±jitter, never above the cap.

    The spread comes from the order's id, so a replay gives the same number and a crowd that failed together
    does not come back together.
    """
    highest = policy.backoff_cap_s / (1.0 + policy.jitter)
    first = policy.call_backoff_s if call else policy.backoff_s
    plain = min(highest, first * 2.0 ** min(max(0, failures - 1), MOST_DOUBLINGS))
    spread = crc32(f"{order}:{failures}".encode()) / 0xFFFFFFFF
    return max(0.0, plain * (1.0 + policy.jitter * (2.0 * spread - 1.0)))


def remaining(delay_s: float, since_wall: float, now_wall: float) -> float:
    """What is left of a delay after a restart. A wall clock that jumped can shorten it to 0, never lengthen it."""
    return min(delay_s, max(0.0, delay_s - max(0.0, now_wall - since_wall)))
