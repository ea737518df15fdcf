"""What follows for one order from what is known about it: the rule book, one function."""

from __future__ import annotations

from typing import NamedTuple

from shopfloor.domain.board import Run, at_rest
from shopfloor.domain.events import E
from shopfloor.domain.order import FINAL, Attempt, Deliverable, Reason, Record, State, reason_of
from shopfloor.domain.policy import Policy, backoff
from shopfloor.domain.resume import was_refused
from shopfloor.domain.spending import attempt_spent, order_spent
from shopfloor.domain.talk import answered, declined


class Start(NamedTuple):
    """Claim the order for attempt ``generation`` and run it."""

    order: str
    generation: int


class Stop(NamedTuple):
    """End the running attempt; its work is kept."""

    order: str
    reason: Reason


class Verify(NamedTuple):
    """Run the checks on the newest attempt's commit."""

    order: str


class Land(NamedTuple):
    """Merge these verified commits, in this order."""

    orders: tuple[str, ...]


class Retry(NamedTuple):
    """Make it ready again after ``delay_s`` seconds.

    ``kind``: transient, rework or lost, which are counted; stopped, answered (its question was), quota (its account had
    nothing left) or afresh (its agent did not know the session that it was to go on with), which are not.
    """

    order: str
    kind: str
    delay_s: float
    why: str
    findings: str


class Settle(NamedTuple):
    """It ends here: done, failed or cancelled."""

    order: str
    outcome: State
    reason: Reason | None
    message: str


class Hold(NamedTuple):
    """Start nothing more with this agent in this session: it fails whatever it is given."""

    agent: str
    why: str


class Open(NamedTuple):
    """An account has something left again."""

    account: str


Decision = Start | Stop | Verify | Land | Retry | Settle | Hold | Open

ENDS: dict[str, type[Decision]] = {
    E.ASSIGNED: Start,
    E.AGENT_STOPPED: Stop,
    E.RELEASED: Stop,
    E.VERIFY_VERDICT: Verify,
    E.LANDING_LANDED: Land,
    E.LANDING_REFUSED: Land,
}
"""The fact that a decision comes back as"""


# Named here once: on CPython 3.11 naming a member of an enumeration takes longer than to compare it.
_RUNNING, _ASKING, _CHECKING = State.RUNNING, State.ASKING, State.CHECKING
_VERIFIED, _LANDING, _DONE, _ANSWER = State.VERIFIED, State.LANDING, State.DONE, Deliverable.ANSWER


def step(record: Record, run: Run, policy: Policy) -> Decision | None:
    """The next thing to do about an order, or None while it is ready, at rest, or at work."""
    order = record.order.id
    if record.state in FINAL:
        return None
    state, live = record.state, record.live
    if state is _LANDING and record.reason is None:
        # A landing that has begun is not stopped: whether the target moved decides.
        return Settle(order, State.DONE, None, "") if record.merge else Land((order,))
    if record.stopping:
        if live:
            return Stop(order, Reason.STOPPED)
        return Settle(order, State.CANCELLED, Reason.STOPPED, _kept(record, "stopped by a person"))
    attempt = record.attempt
    if attempt is None or live:
        return _at_work(record, run)
    if state is _RUNNING:
        return _after_attempt(record, attempt, policy)
    if state is _ASKING:
        return _after_question(record, policy)
    if state is _CHECKING:
        return _after_checks(record, policy)
    if state is _LANDING:
        return _after_refusal(record, policy)
    if state is _VERIFIED and not at_rest(record, run):
        nothing = Settle(order, State.DONE, None, "nothing had to be changed")
        return nothing if _unchanged(attempt) else Land((order,))
    return None


def certain(record: Record, outcome: str) -> Settle | None:
    """The end of an order that follows from the end of its call, whatever else is decided meanwhile; else None.

    Both can be written down at once then: what is asked of an order that has its answer comes too late.
    """
    attempt = record.attempt
    answers = attempt is not None and attempt.call and record.order.deliverable is _ANSWER
    done = answers and outcome == "completed" and record.live and not record.stopping
    return Settle(record.order.id, _DONE, None, "") if done else None


def _at_work(record: Record, run: Run) -> Decision | None:
    spent = record.live and (order_spent(record) or attempt_spent(record, run))
    return Stop(record.order.id, Reason.BUDGET) if spent else None


def _unchanged(attempt: Attempt) -> bool:
    return attempt.commit in ("", attempt.base)


def _after_attempt(record: Record, attempt: Attempt, policy: Policy) -> Decision:
    order, outcome = record.order.id, attempt.outcome
    if outcome == "completed":
        if record.order.deliverable is Deliverable.ANSWER:
            return Settle(order, State.DONE, None, attempt.message)
        if _unchanged(attempt) and not record.order.allow_no_changes:
            return Settle(order, State.FAILED, Reason.NO_CHANGES, "the agent ended well but changed nothing")
        return Verify(order)
    reason = reason_of(outcome) or Reason.ERROR
    if reason not in (Reason.BUDGET, Reason.AUTH) and (spent := order_spent(record)):
        return Settle(order, State.FAILED, Reason.BUDGET, _kept(record, f"{spent}; the last try: {attempt.message}"))
    if reason is Reason.STOPPED:
        return Retry(order, "stopped", 0.0, "the run was stopped", record.findings)
    if reason is Reason.QUOTA:
        return Retry(order, "quota", 0.0, attempt.message, record.findings)
    if was_refused(attempt):
        text = f"{attempt.profile!r} did not take its session {attempt.resumed!r} up again ({attempt.message}); afresh"
        return Retry(order, "afresh", 0.0, text, record.findings)
    if reason is Reason.LOST:
        if record.lost < policy.lost_retries:
            return Retry(order, "lost", 0.0, attempt.message, record.findings)
        text = f"lost {record.lost + 1} times: {attempt.message}"
        return Settle(order, State.FAILED, reason, _kept(record, text))
    if attempt.transient and record.failures < policy.retries:
        delay = backoff(policy, order, record.failures + 1, call=attempt.call)
        return Retry(order, "transient", delay, attempt.message, record.findings)
    tries = f" ({record.failures + 1} tries)" if record.failures else ""
    return Settle(order, State.FAILED, reason, _kept(record, _words(record, attempt) + tries))


def _words(record: Record, attempt: Attempt) -> str:
    """Why it failed at last; of a call that reached nobody, also what the newest one was told that did."""
    reached = next((one.message for one in reversed(record.attempts) if one.call and one.data), "")
    if attempt.data or not reached:
        return attempt.message
    return reached if attempt.message in reached else f"{reached}; at last: {attempt.message}"


def _after_question(record: Record, policy: Policy) -> Decision | None:
    """Its agent ended before it had an answer: it goes on with one, or waits for one."""
    order, question = record.order.id, record.question
    if record.answer:
        return Retry(order, "answered", 0.0, "its question was answered", answered(question, record.answer))
    if policy.on_question == "ask":
        return None
    if record.reworks < policy.reworks:
        return Retry(order, "rework", 0.0, "nobody answers questions in this run", declined(question))
    text = f"it goes on asking, and nobody answers in this run: {first_line(question)}"
    return Settle(order, State.FAILED, Reason.ERROR, _kept(record, text))


def _after_checks(record: Record, policy: Policy) -> Decision:
    order = record.order.id
    if not record.verdict or (record.verdict == "UNSURE" and record.verifications < policy.verifications):
        return Verify(order)
    if record.verdict == "FAIL" and record.reworks < policy.reworks and not order_spent(record):
        return Retry(order, "rework", 0.0, first_line(record.findings), record.findings)
    word = "the checks could not tell: " if record.verdict == "UNSURE" else ""
    return Settle(order, State.FAILED, Reason.CHECKS, _kept(record, word + first_line(record.findings)))


def _after_refusal(record: Record, policy: Policy) -> Decision:
    if record.reworks < policy.reworks and not order_spent(record):
        return Retry(record.order.id, "rework", 0.0, first_line(record.findings), record.findings)
    return Settle(record.order.id, State.FAILED, record.reason, _kept(record, first_line(record.findings)))


def first_line(text: str) -> str:
    """The first two lines with something in them, as one."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return ": ".join(lines[:2])


def _kept(record: Record, text: str) -> str:
    attempt = record.attempt
    if attempt is not None and attempt.commit and attempt.commit != attempt.base:
        return f"{text}; its work is kept on {attempt.branch}"
    return text
