"""What one event means for the record of its order."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from shopfloor.domain import edits, talk, values
from shopfloor.domain.creating import created
from shopfloor.domain.events import OPEN_TO_ALL, SESSIONS_MAY, E, Event, read_time
from shopfloor.domain.holder import held, holder_in
from shopfloor.domain.order import FINAL, Attempt, Deliverable, Reason, Record, State, reason_of

OURS = frozenset(E)


def counts(event: Event) -> bool:
    """False for a line that claims what only a controller may say: it is a request at the most."""
    stamp = event.sf
    if stamp is not None and stamp.controller > 0:  # nearly all are: the cheap look comes first
        return True
    open_to_all = event.event_type in OPEN_TO_ALL or event.event_type not in OURS
    return open_to_all or (stamp is not None and by_session(event))


def by_session(event: Event) -> bool:
    """True for what a session says by itself: it went through our store, and no controller has stamped it."""
    if (event.sf is not None and event.sf.controller > 0) or event.event_type not in SESSIONS_MAY:
        return False
    return holder_in(event.data) is not None


def fold(record: Record | None, event: Event) -> Record | None:
    """The record after one more event about its order; the same object, changed in place.

    Events of an older generation, of unknown types, or without the right to say what they say change nothing.
    """
    if record is None:
        return created(event) if event.event_type == E.CREATED else None
    change(record, event, read_time(event.timestamp))
    return record


def change(record: Record, event: Event, at: float) -> bool:
    """Fold one more event, which is of this time, into a record; False when it changed nothing."""
    kind, data = event.event_type, event.data
    if kind == _UPDATED:
        changed = edits.fold_update(record, event, at)
        record.updated_at = at if changed else record.updated_at
        return changed
    handler = _HANDLERS.get(kind)
    stamp = event.sf
    by_controller = stamp is not None and stamp.controller > 0  # then it counts, and no session says it
    if handler is None or not (by_controller or counts(event)):
        return False
    claims = kind == _ASSIGNED
    if not claims and data.get("generation", record.generation) != record.generation:
        return False
    if not by_controller and by_session(event) and not _session_may(record, event):
        return False
    if not handler(record, data, at):
        return False
    if claims and stamp is not None:
        record.attempts[-1].claimed_seq = stamp.sequence
    if kind not in _NO_CHANGE:
        record.updated_at = at
    return True


# Named here once: on CPython 3.11 naming a member of an enumeration takes longer than to compare it.
_ASSIGNED, _UPDATED = E.ASSIGNED, E.UPDATED


def _session_may(r: Record, event: Event) -> bool:
    """A session takes only what is free, one generation up, and speaks only for what it holds itself.

    Only one thing may be said by others too: that a holder is dead and has lost what it held.
    """
    if event.event_type == E.ASSIGNED:
        free = r.state is State.READY and not r.live and not r.stopping and not r.taken
        return free and event.data.get("generation") == r.generation + 1
    owner, speaker = held(r), holder_in(event.data)
    if owner is None or speaker is None:
        return False
    if event.event_type == E.RELEASED and event.data.get("reason") == Reason.LOST:
        return True
    return owner.identity == speaker.identity and event.data.get("outcome", "completed") == "completed"


# -- one function for each type of event: True when it changed the record ---------------------------------------


def _assigned(r: Record, d: dict[str, Any], at: float) -> bool:
    generation = values.count(d, "generation")
    if generation <= r.generation:
        return False
    if r.live:
        r.attempts[-1].outcome, r.attempts[-1].ended_at = Reason.LOST, at
    r.generation, r.state, r.retry_at = generation, _RUNNING, None
    talk.forget_question(r)
    r.elsewhere = r.assignee = r.sent_back = ""
    attempt = Attempt(
        id=values.text(d, "attempt"),
        generation=generation,
        agent=values.text(d, "agent"),
        claimed_at=at,
        profile=values.text(d, "profile"),
        account=values.text(d, "account"),
        call=d.get("call") is True,
    )
    if not attempt.call:  # which has no workspace and no session
        attempt.base, attempt.branch = values.text(d, "base"), values.text(d, "branch")
        attempt.session = attempt.resumed = values.text(d, "session")
        attempt.onto = values.text(d, "onto")
    if holder_in(d) is not None:
        attempt.handle, attempt.started_at = d["handle"], at
    r.attempts.append(attempt)
    return True


def _released(r: Record, d: dict[str, Any], at: float) -> bool:
    if held(r) is None:
        return False
    a = r.attempts[-1]
    why = reason_of(d.get("reason"))
    a.outcome = why if why in (Reason.LOST, Reason.ERROR) else Reason.STOPPED
    a.ended_at = r.updated_at if a.outcome == Reason.LOST else at
    a.message = values.text(d, "message")
    r.state = State.READY
    talk.forget_question(r)
    if a.outcome == Reason.ERROR:
        r.failures, r.findings = r.failures + 1, a.message
    if delay := values.amount(d, "delay_s"):
        r.retry_at, r.retry_delay_s = at, delay
    r.elsewhere = values.text(d, "aside")
    return True


def _workspace(r: Record, d: dict[str, Any], _at: float) -> bool:
    if not r.live:
        return False
    r.attempts[-1].workspace = values.text(d, "path")
    return True


def _started(r: Record, d: dict[str, Any], at: float) -> bool:
    if not r.live:
        return False
    a = r.attempts[-1]
    a.started_at = at if a.started_at is None else a.started_at
    handle = d.get("handle")
    a.handle = handle if isinstance(handle, dict) else {}
    return True


_OF_USAGE = frozenset({"cost_usd", "said_usd", "tokens_in", "tokens_out", "steps", "session"})


def _usage(r: Record, d: dict[str, Any], _at: float) -> bool:
    if not r.attempts or _OF_USAGE.isdisjoint(d):
        return bool(r.attempts)
    # Totals of the attempt: they never fall, and a report that leaves one out does not take it back.
    a = r.attempts[-1]
    cost = values.amount(d, "cost_usd")
    if cost is not None:
        a.cost_usd = max(cost, a.cost_usd or 0.0)
    said = values.amount(d, "said_usd")
    if said is not None:
        a.said_usd = max(said, a.said_usd or 0.0)
    a.tokens_in = max(a.tokens_in, values.count(d, "tokens_in"))
    a.tokens_out = max(a.tokens_out, values.count(d, "tokens_out"))
    a.steps = max(a.steps, values.count(d, "steps"))
    a.session = values.text(d, "session") or a.session
    return True


def _idle(r: Record, _d: dict[str, Any], at: float) -> bool:
    if not r.live:
        return False
    r.attempts[-1].idle_since = at
    return True


def _working(r: Record, _d: dict[str, Any], _at: float) -> bool:
    if not r.live:
        return False
    r.attempts[-1].idle_since = None
    return True


def _stopped(r: Record, d: dict[str, Any], at: float) -> bool:
    if not r.live:
        return False
    _usage(r, d, at)
    held_by_session = held(r) is not None
    a = r.attempts[-1]
    a.outcome = values.text(d, "outcome") or Reason.ERROR
    # Nobody saw a lost one end: what counts is when it was last heard of, not when the loss was noticed.
    a.ended_at = r.updated_at if a.outcome == _LOST else at
    a.idle_since = None
    a.message = values.text(d, "message")
    if not a.call:
        a.exit_code = values.whole(d, "exit_code")
        a.commit, a.tree = values.text(d, "commit"), values.text(d, "tree")
        a.base = values.text(d, "base") or a.base
        a.files, a.notes = values.texts(d, "files"), values.texts(d, "notes")
    a.transient = d.get("transient") is True
    if isinstance(data := d.get("data"), dict):
        a.data = data
    talk.settle_question(r, a.outcome)
    if held_by_session and r.order.deliverable is Deliverable.ANSWER and not r.order.run:
        # Nobody verifies an answer, and no run waits for it: with its being handed in everything is done.
        talk.forget_question(r)
        r.state, r.message, r.settled_at = State.DONE, a.message, at
    return True


def _to_be_checked(r: Record) -> bool:
    return r.state in (State.RUNNING, State.CHECKING) and not r.live


def _verify_started(r: Record, d: dict[str, Any], _at: float) -> bool:
    if not _to_be_checked(r):
        return False
    r.state, r.verdict = State.CHECKING, ""
    r.verifications = values.count(d, "run") or r.verifications + 1
    return True


def _verdict(r: Record, d: dict[str, Any], _at: float) -> bool:
    if not _to_be_checked(r):
        return False
    word = values.text(d, "verdict")
    r.verdict = word if word in ("PASS", "FAIL") else "UNSURE"
    r.evidence = values.text(d, "evidence")
    r.findings = values.text(d, "reasoning")
    r.passed = values.texts(d, "passed")
    r.state = State.CHECKING
    if r.verdict == "PASS":
        r.state = State.VERIFIED
        r.commit, r.tree = values.text(d, "commit"), values.text(d, "tree")
        r.base = values.text(d, "base")
    return True


def _landable(r: Record) -> bool:
    return r.state in (State.VERIFIED, State.LANDING) and not r.merge


def _landing(r: Record, _d: dict[str, Any], _at: float) -> bool:
    if not _landable(r):
        return False
    r.state = State.LANDING
    return True


def _landing_refused(r: Record, d: dict[str, Any], _at: float) -> bool:
    if not _landable(r):
        return False
    if d.get("again"):
        # Nothing was wrong with this order: the target moved, or its batch was split. It goes back into the queue.
        r.state = State.VERIFIED
        r.accepted = r.accepted and not d.get("hold")
        return True
    r.state = State.LANDING
    r.reason = reason_of(d.get("reason")) or Reason.CONFLICT
    r.findings = values.text(d, "message")
    return True


def _landed(r: Record, d: dict[str, Any], _at: float) -> bool:
    merge = values.text(d, "commit") or values.text(d, "observed")
    if not merge or not _landable(r):
        return False
    r.state, r.reason, r.merge = State.LANDING, None, merge
    return True


def _retried(r: Record, d: dict[str, Any], at: float) -> bool:
    kind, asked = d.get("kind"), r.state is State.ASKING
    if r.live or (kind != "manual" and (r.state in FINAL or r.state is State.READY)):
        return False
    r.failures += kind == "transient"
    r.reworks += kind == "rework"
    r.lost += kind == "lost"
    if kind == "manual":
        edits.reset(r)
    edits.reopen(r, at, values.text(d, "findings"), values.amount(d, "delay_s") or 0.0)
    r.sent_back = "answered" if asked else values.text(d, "kind")
    return True


def _settled(r: Record, d: dict[str, Any], at: float) -> bool:
    outcome, end = _OUTCOMES.get(values.text(d, "outcome")), d.get("end")
    if outcome is None:
        return False
    if isinstance(end, dict) and r.live and r.attempts[-1].call:
        _stopped(r, end, at)  # the end of a call and of its order, told at once
    if r.live or r.state is _DONE or r.state is _CANCELLED:
        return False
    r.state, r.reason = outcome, reason_of(d.get("reason"))
    r.message = values.text(d, "message") or _answer(r)
    talk.forget_question(r)
    r.settled_at = at
    return True


def _closed(r: Record, d: dict[str, Any], at: float) -> bool:
    """For most orders that repeats what was settled; one that a call has answered is settled by it."""
    return isinstance(d.get("end"), dict) and r.live and r.attempts[-1].call and _settled(r, d, at)


def _answer(r: Record) -> str:
    """What an order that is done hands back where that is an answer: its end need not repeat it."""
    given = r.state is _DONE and r.order.deliverable is _ANSWER and r.attempts
    return r.attempts[-1].message if given else ""


def _handled(r: Record, d: dict[str, Any], _at: float) -> bool:
    verb = d.get("verb") if d.get("result") == "ok" else ""
    if verb == "stop" and r.state not in FINAL:
        r.stopping = True
        return True
    if verb == "accept" and r.state is State.VERIFIED:
        r.accepted = True
        return True
    return False


_DONE, _CANCELLED, _RUNNING = State.DONE, State.CANCELLED, State.RUNNING  # as above
_LOST, _ANSWER = Reason.LOST, Deliverable.ANSWER
_OUTCOMES: dict[str, State] = {"done": _DONE, "failed": State.FAILED, "cancelled": _CANCELLED}

_HANDLERS: dict[str, Callable[[Record, dict[str, Any], float], bool]] = {
    E.ASSIGNED: _assigned,
    E.RELEASED: _released,
    E.WORKSPACE: _workspace,
    E.AGENT_STARTED: _started,
    E.AGENT_USAGE: _usage,
    E.AGENT_IDLE: _idle,
    E.AGENT_WORKING: _working,
    E.AGENT_STOPPED: _stopped,
    E.VERIFY_STARTED: _verify_started,
    E.VERIFY_VERDICT: _verdict,
    E.LANDING_STARTED: _landing,
    E.LANDING_REFUSED: _landing_refused,
    E.LANDING_LANDED: _landed,
    E.RETRIED: _retried,
    E.SETTLED: _settled,
    E.CLOSED: _closed,
    E.HANDLED: _handled,
    E.VIEW_COLLISION: edits.fold_collision,
    **talk.HANDLERS,
}

_NO_CHANGE = frozenset({E.VIEW_COLLISION, E.MAIL_SENT})
"""What was refused, and what was said about an order, is no change of it."""
