"""From what an agent reports to facts in words, and from an attempt's facts to events of the log."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from typing import Any

from shopfloor.domain.errors import ShopfloorError
from shopfloor.domain.events import VERMAS_STATUS, E, stamp_time
from shopfloor.domain.judge import Settle
from shopfloor.domain.order import Deliverable, Reason, Record, State
from shopfloor.domain.quota import Account, closing
from shopfloor.engine.journal import Draft
from shopfloor.ports import Fact, Phase, Report

MOST_CHARS = 8_000
"""of what an agent or a check said, in one event: the whole of it lies in the files of the attempt or the evidence"""
MOST_ANSWER_CHARS = 64_000
"""of an answer, which is what its order hands back"""
MOST_NAMES = 200
"""paths or notes in one event; git and the attempt's files have them all"""


def bounded(text: str, most: int = MOST_CHARS) -> str:
    """The text, or its beginning and its end around a line that says how much is missing."""
    if len(text) <= most:
        return text
    half = most // 2
    return f"{text[:half]}\n… {len(text) - 2 * half} characters left out …\n{text[-half:]}"


def bounded_names(names: Iterable[str]) -> list[str]:
    """The first of them, each bounded, and how many there are beyond."""
    known = list(names)
    more = [f"… and {len(known) - MOST_NAMES} more"] if len(known) > MOST_NAMES else []
    return [bounded(name) for name in known[:MOST_NAMES]] + more


def drafts(fact: Fact, record: Record) -> list[Draft]:
    """The events that one fact amounts to: one logical change."""
    actor = agent_id(record)
    data: dict[str, Any] = {"work_order_id": fact.order, "generation": fact.generation, "agent": actor}
    if fact.phase is Phase.WORKSPACE and fact.workspace is not None:
        where = {"path": fact.workspace.path, "branch": fact.workspace.branch, "base": fact.workspace.commit}
        return [Draft(E.WORKSPACE, {**data, **where})]
    if fact.phase is Phase.STARTED and fact.handle is not None and fact.workspace is not None:
        handle = {
            "driver": fact.handle.driver, "pid": fact.handle.pid, "start_time": fact.handle.start_time,
            "attempt": fact.handle.attempt, "detail": fact.handle.detail,
        }  # fmt: skip
        started = {
            **data, "session_name": "", "worktree": fact.workspace.path, "profile": record.order.agent,
            "assigned_work_order": fact.order, "handle": handle,
        }  # fmt: skip
        return [Draft(E.AGENT_STARTED, started, actor), *status_change(record, "assigned", "in_progress")]
    if fact.phase is Phase.USAGE:
        return [Draft(E.AGENT_USAGE, {**data, **_usage(fact)}, actor)]
    if fact.phase is Phase.IDLE:
        silent = {"idle_since": fact.idle_s, "last_activity": fact.idle_s, "from_start": fact.silent_from_start}
        return [Draft(E.AGENT_IDLE, {**data, **silent})]
    if fact.phase is Phase.WORKING:
        return [Draft(E.AGENT_WORKING, data, actor)]
    if fact.phase is Phase.ASKED:
        return [Draft(E.AGENT_ASKED, {**data, "question": bounded(fact.text), "permission": fact.permission}, actor)]
    if fact.phase is Phase.RETRYING:
        again = {"status": bounded(fact.status), "delay_s": fact.delay_s, "message": bounded(fact.text)}
        return [Draft(E.AGENT_RETRYING, {**data, **again}, actor)]
    if fact.phase is Phase.QUOTA:
        return []
    attempt = record.attempt
    end = _end_of_call(fact) if attempt is not None and attempt.call else _end(fact, record)
    return [Draft(E.AGENT_STOPPED, {**data, **end})]


def closings(fact: Fact, record: Record, accounts: Mapping[str, Account], wall: float) -> list[Draft]:
    """The accounts that are closed by what one fact says of them; those that are closed already are no news."""
    attempt = record.attempt
    ended = fact.phase is Phase.ENDED and fact.outcome == Reason.QUOTA and not fact.known
    if attempt is None or not (ended or fact.phase is Phase.QUOTA):
        return []
    found = []
    for name in dict.fromkeys(fact.accounts or (attempt.account,)):
        said = closing(accounts.get(name), claimed_at=attempt.claimed_at, reset_at=fact.reset_at, wall=wall)
        if name and said is not None:
            more = {"reset_at": stamp_time(wall + said["delay_s"]), "why": bounded(fact.text)}
            found.append(Draft(E.ACCOUNT_CLOSED, {"account": name, **said, **more}))
    return found


def answer(fact: Fact, record: Record, settle: Settle) -> list[Draft]:
    """The end of a call and of its order, which is done, as one change: ``closed`` tells of both."""
    outcome = settle.outcome.value
    data = {
        "work_order_id": fact.order, "reason": settle.message or outcome, "outcome": outcome,
        "generation": fact.generation, "agent": agent_id(record), "end": _end_of_call(fact),
    }  # fmt: skip
    return [*status_change(record, "open", VERMAS_STATUS[outcome]), Draft(E.CLOSED, data)]


def _usage(fact: Fact) -> dict[str, Any]:
    return {
        "cost_usd": fact.cost_usd, "tokens_in": fact.tokens_in, "tokens_out": fact.tokens_out,
        "steps": fact.steps, "session": fact.session,
        **({} if fact.said_usd is None else {"said_usd": fact.said_usd}),
    }  # fmt: skip


def _end(fact: Fact, record: Record) -> dict[str, Any]:
    kept = fact.snapshot
    attempt = record.attempt
    work: dict[str, Any] = {}
    if kept is not None:
        work = {
            "commit": kept.commit, "tree": kept.tree, "base": kept.base, "ref": kept.ref,
            "files": bounded_names(kept.files),
        }  # fmt: skip
    answers = fact.outcome == "completed" and record.order.deliverable is Deliverable.ANSWER
    said = fact.text
    if not said and fact.outcome == "completed" and attempt is not None:
        said = attempt.done or ""  # it was ended after it had asked for verification
    message = bounded(said, MOST_ANSWER_CHARS if answers else MOST_CHARS)
    return {
        "reason": fact.outcome, "exit_code": fact.exit_code, "outcome": fact.outcome, "message": message,
        "transient": fact.transient, "notes": bounded_names(fact.notes), **_usage(fact), **work,
        "started": attempt is not None and attempt.started_at is not None,
        **({"limit": fact.limit} if fact.limit else {}),
    }  # fmt: skip


def _end_of_call(fact: Fact) -> dict[str, Any]:
    """The same of a call, of which there may be very many: without what is empty."""
    most = MOST_ANSWER_CHARS if fact.outcome == "completed" else MOST_CHARS
    told = {"reason": fact.outcome, "exit_code": None, "outcome": fact.outcome, "message": bounded(fact.text, most)}
    more = {
        "transient": fact.transient, "cost_usd": fact.cost_usd, "tokens_in": fact.tokens_in,
        "tokens_out": fact.tokens_out, "data": fact.data,
    }  # fmt: skip
    return told | {name: value for name, value in more.items() if value or (name == "cost_usd" and value is not None)}


def agent_id(record: Record) -> str:
    """How the agent is named to other programs: ``shopfloor/workers/<order name>``."""
    return f"shopfloor/workers/{record.order.name}"


def status_change(record: Record, old: str, new: str) -> Iterable[Draft]:
    """The event that other programs follow, when one of their four statuses changes."""
    if old == new:
        return []
    return [Draft(E.STATUS, {"work_order_id": record.order.id, "from_status": old, "to_status": new})]


def settlement(record: Record, outcome: State, reason: str, message: str) -> list[Draft]:
    """An order's end: one group, so that ``closed`` is never seen without its status."""
    data = {"work_order_id": record.order.id}
    # A call is over so soon that its beginning is told by its claim alone.
    called = record.attempt is not None and record.attempt.call
    old, new = "open" if called else VERMAS_STATUS[record.state], VERMAS_STATUS[outcome]
    found = [Draft(E.SETTLED, {**data, "outcome": outcome.value, "reason": reason or None, "message": message})]
    found += status_change(record, old, new)
    if new == "closed":
        found.append(Draft(E.CLOSED, {**data, "reason": message or outcome.value}))
    return found


def said(problem: ShopfloorError | OSError) -> str:
    """What went wrong, in words for people."""
    if isinstance(problem, ShopfloorError):
        return problem.message
    said = (problem.strerror or str(problem)).lower()
    return f"{problem.filename!r}: {said}" if problem.filename else said


def trailers(order: str, attempt: str, agent: str) -> dict[str, str]:
    """Who did it, for the commit's last paragraph."""
    return {"Shopfloor-Order": order, "Shopfloor-Attempt": attempt, "Shopfloor-Agent": agent}


def reset_of(report: Report) -> float | None:
    """The wall time that an error tells for when there is something left again, or None."""
    found = report.data.get("reset_at")
    return float(found) if isinstance(found, int | float) and not isinstance(found, bool) and found > 0 else None


def permission_of(report: Report) -> str:
    """What it wants to do, in one line for a person."""
    wanted = report.data.get("input")
    how = "" if wanted is None else f": {json.dumps(wanted, ensure_ascii=False, default=str)}"
    return f"may it use {report.text or 'a tool'}{how}"
