"""What a run came to: every order in exactly one outcome, and figures that were measured."""

from __future__ import annotations

import msgspec

from shopfloor.domain.board import Board, Run, at_rest
from shopfloor.domain.order import Attempt, Record, State
from shopfloor.domain.quota import Account

OUTCOMES = ("landed", "verified", "answered", "unchanged", "failed", "cancelled", "waiting")


class Row(msgspec.Struct, frozen=True, kw_only=True):
    """One order's end. Seconds and USD; ``cost_usd`` None means unpriced."""

    order: str
    name: str
    title: str
    outcome: str
    reason: str
    message: str
    attempts: int
    agent_s: float
    cost_usd: float | None
    branch: str
    commit: str
    merge: str
    evidence: str
    notes: tuple[str, ...]


class Report(msgspec.Struct, frozen=True, kw_only=True):
    """One run. ``counts`` adds up to the number of orders."""

    run: str
    branch: str
    target: str
    """the ref that holds the result"""
    tip: str
    mirror: str
    """where the user's branch stands; empty: never moved by us"""
    mirror_why: str
    """why it was not advanced, and what to type"""
    held: dict[str, str]
    """agents with which nothing more was started, and why"""
    landing_held: str
    """why verified work was not landed although it was to be, and what to type; empty: it was"""
    counts: dict[str, int]
    orders: tuple[Row, ...]
    wall_s: float
    agent_s: float
    prepare_s: float
    """seconds from claim to agent, all attempts added up: workspace and setup"""
    check_s: float
    speed_up: float | None
    """(agents' seconds + checks' seconds) / wall seconds; None when nothing ran"""
    overhead_s: float
    """wall seconds in which neither an agent nor a verification was at work"""
    peak_parallel: int
    max_parallel: int
    cost_usd: float | None
    unpriced_attempts: int
    replay: str
    """the file that answered the model calls, for which nothing was spent; empty: models did"""
    sessions: int
    finished: bool
    closed: tuple[Account, ...] = ()
    """accounts of this run's agents with nothing left, when it is not finished"""
    flaky: dict[str, int] = msgspec.field(default_factory=dict)
    """checks that failed and passed on the same commit, and on how many commits; nobody was blamed for them"""

    @property
    def ok(self) -> bool:
        """True when nothing failed, was cancelled or still waits."""
        return not any(self.counts[name] for name in ("failed", "cancelled", "waiting"))


def outcome(record: Record, run: Run | None) -> str:
    """The one outcome an order counts under; ``waiting`` while something is still to happen."""
    if record.state is State.DONE:
        if record.merge:
            return "landed"
        return "answered" if record.order.deliverable == "answer" else "unchanged"
    if record.state is State.VERIFIED and at_rest(record, run):
        return "verified"
    if record.state in (State.FAILED, State.CANCELLED):
        return record.state.value
    return "waiting"


def build(board: Board, run: Run) -> Report:
    """The report of a run as things stand."""
    records = [board.records[o] for o in run.orders]
    rows = tuple(_row(r, run) for r in records)
    counts = {name: sum(row.outcome == name for row in rows) for name in OUTCOMES}
    attempts = [a for r in records for a in r.attempts]
    agent_s = sum(row.agent_s for row in rows)
    wall_s = run.earlier_s + max(0.0, run.last_at - run.session_at)
    busy_s = run.busy_s + (max(0.0, run.last_at - run.busy_since) if run.busy else 0.0)
    priced = [a.cost_usd for a in attempts if a.cost_usd is not None]
    return Report(
        run=run.id,
        branch=run.branch,
        target=run.ref,
        tip=run.tip,
        mirror=run.mirror,
        mirror_why=run.mirror_why,
        held=dict(run.held),
        landing_held=run.landing_held,
        counts=counts,
        orders=rows,
        wall_s=wall_s,
        agent_s=agent_s,
        prepare_s=sum(max(0.0, a.started_at - a.claimed_at) for a in attempts if a.started_at is not None),
        check_s=run.check_s,
        speed_up=(agent_s + run.check_s) / wall_s if wall_s and attempts else None,
        overhead_s=max(0.0, wall_s - busy_s),
        peak_parallel=run.peak,
        max_parallel=run.max_parallel,
        cost_usd=sum(priced) if priced else None,
        unpriced_attempts=len(attempts) - len(priced),
        replay=run.replay,
        sessions=run.sessions,
        finished=run.finished_at is not None,
        closed=_closed(board, run, records),
        flaky=dict(run.flaky),
    )


def _closed(board: Board, run: Run, records: list[Record]) -> tuple[Account, ...]:
    waiting = {run.account_of(r.order.agent or run.agent) for r in records if outcome(r, run) == "waiting"}
    return tuple(one for name, one in board.accounts.items() if one.closed and name in waiting)


def _row(record: Record, run: Run) -> Row:
    newest = record.attempt
    return Row(
        order=record.order.id,
        name=record.order.name,
        title=record.order.title,
        outcome=outcome(record, run),
        reason=record.reason.value if record.reason else "",
        message=record.message or _last_failure(record),
        attempts=len(record.attempts),
        agent_s=sum(_seconds(a, run.last_at) for a in record.attempts),
        cost_usd=record.cost_usd,
        branch=newest.branch if newest else "",
        commit=record.commit or (newest.commit if newest and newest.commit != newest.base else ""),
        merge=record.merge,
        evidence=record.evidence,
        notes=tuple(note for a in record.attempts for note in a.notes),
    )


def _last_failure(record: Record) -> str:
    """Why the newest attempt of an order that has not ended did not come to anything."""
    attempt = record.attempt
    ended_badly = record.state is State.READY and attempt is not None and attempt.outcome not in ("", "completed")
    return attempt.message if attempt is not None and ended_badly else ""


def _seconds(attempt: Attempt, now: float) -> float:
    """How long its agent was at work; a wall clock that was set back meanwhile makes it 0, never less."""
    if attempt.started_at is None:
        return 0.0
    return max(0.0, (now if attempt.ended_at is None else attempt.ended_at) - attempt.started_at)
