"""The rule book, one line for each rule."""

from typing import Any

import pytest

from shopfloor.domain.board import Run
from shopfloor.domain.judge import Decision, Land, Retry, Settle, Start, Stop, Verify, first_line, step
from shopfloor.domain.order import Attempt, Deliverable, Reason, Record, State
from shopfloor.domain.policy import Policy, backoff

from .events_of import order

POLICY = Policy(retries=2, reworks=1, lost_retries=1, verifications=2)
KEPT = "; its work is kept on br"
ID = "wo-a"


def failed(reason: Reason, text: str) -> Settle:
    return Settle(ID, State.FAILED, reason, text)


def case(state: State, expected: Decision | None, **fields: Any) -> Any:
    name = fields.pop("case")
    return pytest.param(state, expected, fields, id=name)


RUNNING, CHECKING, VERIFIED, LANDING = State.RUNNING, State.CHECKING, State.VERIFIED, State.LANDING
CANCELLED = Settle(ID, State.CANCELLED, Reason.STOPPED, f"stopped by a person{KEPT}")
UNCHANGED = failed(Reason.NO_CHANGES, "the agent ended well but changed nothing")
TWO = {"findings": "check failed: make\n\nexit 2\nmore"}

RULES = [
    case(State.DONE, None, case="what has ended stays so", stopping=True),
    case(State.FAILED, None, case="a failed one waits for a person"),
    case(State.READY, None, case="a ready one is the plan's", outcome=None),
    case(State.READY, None, case="one that is tried again too", outcome="error"),
    case(RUNNING, None, case="a running one is left alone", outcome=""),
    case(State.ASKING, None, case="one that asks too", outcome=""),
    case(State.ASKING, None, case="an unanswered question waits", outcome="completed"),
    case(RUNNING, Stop(ID, Reason.STOPPED), case="a person stops it", outcome="", stopping=True),
    case(RUNNING, CANCELLED, case="stopped, it is cancelled", outcome="stopped", stopping=True),
    case(
        State.READY, Settle(ID, State.CANCELLED, Reason.STOPPED, "stopped by a person"), case="before it began",
        outcome=None, stopping=True,
    ),
    case(CHECKING, CANCELLED, case="during a check", stopping=True),
    case(VERIFIED, CANCELLED, case="before it lands", stopping=True),
    case(LANDING, Land((ID,)), case="not while it lands", stopping=True),
    case(LANDING, CANCELLED, case="after it was refused", stopping=True, reason=Reason.CONFLICT),
    case(RUNNING, Verify(ID), case="what was made is checked"),
    case(RUNNING, UNCHANGED, case="nothing made", commit="b"),
    case(RUNNING, UNCHANGED, case="no commit", commit=""),
    case(RUNNING, Verify(ID), case="nothing made, as allowed", commit="b", allow_no_changes=True),
    case(
        RUNNING, Settle(ID, State.DONE, None, "42"), case="an answer is done", deliverable=Deliverable.ANSWER,
        commit="", message="42",
    ),
    case(RUNNING, failed(Reason.TIMEOUT, f"slow{KEPT}"), case="out of time", outcome="timeout", message="slow"),
    case(RUNNING, failed(Reason.TIMEOUT, "slow"), case="with no work", outcome="timeout", message="slow", commit=""),
    case(RUNNING, failed(Reason.TIMEOUT, "slow"), case="on its base", outcome="timeout", message="slow", commit="b"),
    case(RUNNING, failed(Reason.ERROR, f"odd{KEPT}"), case="an unknown outcome", outcome="sang", message="odd"),
    case(
        RUNNING, Retry(ID, "transient", backoff(POLICY, ID, 2), "died", "f"), case="a crash is tried again",
        outcome="error", transient=True, message="died", failures=1, findings="f",
    ),
    case(
        RUNNING, failed(Reason.SPAWN, f"gone (3 tries){KEPT}"), case="but not for ever", outcome="spawn",
        transient=True, message="gone", failures=2,
    ),
    case(
        RUNNING, Retry(ID, "stopped", 0.0, "the run was stopped", "f"), case="a stopped run keeps it",
        outcome="stopped", findings="f",
    ),
    case(
        RUNNING, Retry(ID, "lost", 0.0, "killed", ""), case="a lost one is taken up", outcome="lost",
        message="killed",
    ),
    case(
        RUNNING, failed(Reason.LOST, f"lost 2 times: killed{KEPT}"), case="not for ever either", outcome="lost",
        message="killed", lost=1,
    ),
    case(
        RUNNING, Retry(ID, "quota", 0.0, "all gone", "f"), case="no money is no failure", outcome="quota",
        message="all gone", failures=99, findings="f",
    ),
    case(
        RUNNING, Retry(ID, "afresh", 0.0, "'cli' did not take its session 's' up again (what?); afresh", "f"),
        case="an unknown session costs no try", outcome="error", transient=True, message="what?", failures=99,
        findings="f", profile="cli", resumed="s", commit="b",
    ),
    case(RUNNING, failed(Reason.AUTH, f"who?{KEPT}"), case="a refused login", outcome="auth", message="who?"),
    case(RUNNING, failed(Reason.BUDGET, f"spent{KEPT}"), case="a budget", outcome="budget", message="spent"),
    case(RUNNING, Stop(ID, Reason.BUDGET), case="more than the order may", outcome="", budget_usd=0.1, cost_usd=0.1),
    case(RUNNING, None, case="less than it may", outcome="", budget_usd=0.1, cost_usd=0.09),
    case(
        RUNNING,
        failed(Reason.BUDGET, f"the order's budget of 0.1 USD is spent (0.2 USD); the last try: killed{KEPT}"),
        case="no new try without money", outcome="lost", message="killed", budget_usd=0.1, cost_usd=0.2,
    ),
    case(CHECKING, Verify(ID), case="a check that was cut off"),
    case(CHECKING, Verify(ID), case="unsure is checked again", verdict="UNSURE", verifications=1),
    case(
        CHECKING, failed(Reason.CHECKS, f"the checks could not tell: check failed: make: exit 2{KEPT}"),
        case="unsure for good", verdict="UNSURE", verifications=2, **TWO,
    ),
    case(
        CHECKING, Retry(ID, "rework", 0.0, "check failed: make: exit 2", TWO["findings"]), case="red goes back",
        verdict="FAIL", **TWO,
    ),
    case(
        CHECKING, failed(Reason.CHECKS, f"check failed: make: exit 2{KEPT}"), case="red again fails", verdict="FAIL",
        reworks=1, **TWO,
    ),
    case(VERIFIED, Land((ID,)), case="verified is landed"),
    case(VERIFIED, None, case="in review it waits", land="review"),
    case(VERIFIED, None, case="without landing it rests", land="off"),
    case(VERIFIED, Land((ID,)), case="accepted it is landed", land="review", accepted=True),
    case(VERIFIED, Settle(ID, State.DONE, None, "nothing had to be changed"), case="nothing to land", commit="b"),
    case(VERIFIED, None, case="nothing to land, in review", commit="b", land="review"),
    case(LANDING, Land((ID,)), case="a landing that was cut off"),
    case(LANDING, Settle(ID, State.DONE, None, ""), case="landed is done", merge="m", stopping=True),
    case(
        LANDING, Retry(ID, "rework", 0.0, "both changed x", "both changed x"), case="a conflict goes back",
        reason=Reason.CONFLICT, findings="both changed x",
    ),
    case(
        LANDING, failed(Reason.CONFLICT, f"both changed x{KEPT}"), case="a conflict again fails",
        reason=Reason.CONFLICT, findings="both changed x", reworks=1,
    ),
]  # fmt: skip


@pytest.mark.parametrize(("state", "expected", "fields"), RULES)
def test_rule(state: State, expected: Decision | None, fields: dict[str, Any]) -> None:
    fields = dict(fields)
    wish = order("a", **{k: fields.pop(k) for k in ("deliverable", "allow_no_changes", "budget_usd") if k in fields})
    run = Run(id="run-1", land=fields.pop("land", "auto"))
    record = Record(order=wish, state=state)
    outcome = fields.pop("outcome", "completed")
    ended = {k: fields.pop(k) for k in ("message", "transient", "profile", "resumed", "cost_usd") if k in fields}
    attempt = Attempt(
        id="x", generation=1, agent="a", claimed_at=0.0, base="b", branch="br", outcome=outcome or "",
        commit=fields.pop("commit", "c"), **ended,
    )  # fmt: skip
    record.attempts = [] if outcome is None else [attempt]
    for name, value in fields.items():
        setattr(record, name, value)
    assert step(record, run, POLICY) == expected


def test_the_first_lines_that_say_something_are_quoted() -> None:
    assert first_line("\n  a \n\n b\nc") == "a: b"
    assert first_line(" \n") == ""


def test_a_start_says_which_generation() -> None:
    assert Start(ID, 3).generation == 3


@pytest.mark.parametrize(
    ("messages", "told"),
    [
        (["u: said no", "nobody answers"], "u: said no; at last: nobody answers"),
        (["u: said no; then nobody answers", "nobody answers"], "u: said no; then nobody answers"),
        (["nobody answers", "nobody answers"], "nobody answers"),
        (["u: said no", "w: said no, too"], "w: said no, too"),
        (["nobody answers", "u: said no", "nobody answers"], "u: said no; at last: nobody answers"),
    ],
)
def test_a_call_that_reached_nobody_at_last_keeps_what_it_was_told_before(messages: list[str], told: str) -> None:
    record = Record(order=order("a", deliverable=Deliverable.ANSWER), state=State.RUNNING)
    record.attempts = [
        Attempt(
            id=f"x{n}", generation=n, agent="a", claimed_at=0.0, outcome="error", call=True, message=message,
            data={"url": message[0]} if "said" in message else {},
        )
        for n, message in enumerate(messages, 1)
    ]  # fmt: skip
    assert step(record, Run(id="run-1", land="off"), POLICY) == failed(Reason.ERROR, told)
