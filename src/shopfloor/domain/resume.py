"""Where the next attempt of an order begins: in the agent's own session, and with the work it has there, or afresh."""

from __future__ import annotations

from typing import NamedTuple

from shopfloor.domain.holder import holder_of
from shopfloor.domain.order import Attempt, Reason, Record

INTERRUPTED = frozenset({"lost", "stopped", "quota", "answered"})
"""Ways back to the beginning on which nothing was found wrong with what had been done."""
WITH_FINDINGS = frozenset({"rework", "manual"})


class Footing(NamedTuple):
    """``session``: the one that goes on, empty: a new one; ``onto``: the commit that its work goes on from.

    ``interrupted``: nothing was wrong with what had been done.
    """

    session: str = ""
    onto: str = ""
    interrupted: bool = False


AFRESH = Footing()


def footing(record: Record, agent: str) -> Footing:
    """What the next attempt of an order with this agent may go on from, if the agent can.

    Interrupted work goes on where it was. What goes back with findings keeps its session and begins on a fresh base.
    A crash of its own making begins afresh: what brought it down may lie in the session.
    """
    last = record.attempt
    if last is None or not last.session or last.profile != agent or holder_of(last) is not None:
        return AFRESH
    how = record.sent_back
    killed = how == "transient" and last.exit_code is not None and last.exit_code < 0
    broke = how == "manual" and last.outcome == Reason.BUDGET
    if how in INTERRUPTED or killed or broke:
        return Footing(last.session, last.commit if last.commit != last.base else "", interrupted=True)
    if how in WITH_FINDINGS and record.findings and last.outcome == "completed":
        return Footing(last.session)
    return AFRESH


def was_refused(attempt: Attempt) -> bool:
    """True when an attempt was to resume a session and came to nothing at once: its agent does not know it any more."""
    idle = not (attempt.steps or attempt.tokens_out or attempt.cost_usd)
    return bool(attempt.resumed) and idle and attempt.outcome in (Reason.ERROR, Reason.SPAWN) and not attempt.worked
