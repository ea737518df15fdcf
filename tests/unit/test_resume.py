"""Where the next attempt begins."""

from typing import Any

import pytest

from shopfloor.domain.order import Attempt, Record
from shopfloor.domain.prompt import render
from shopfloor.domain.resume import AFRESH, Footing, footing, was_refused

from .events_of import order

GOES_ON = Footing("s1", "c1", interrupted=True)


def record(sent_back: str, findings: str = "", **last: Any) -> Record:
    known = {"id": "wo-a.a1", "generation": 1, "agent": "x", "claimed_at": 0.0, "profile": "cli", "session": "s1"}
    attempt = Attempt(**{**known, "base": "b", "commit": "c1", "branch": "br", "outcome": "lost", **last})
    text = {"instruction": "Do it.\n"}
    return Record(order=order("a", **text), attempts=[attempt], sent_back=sent_back, findings=findings)


@pytest.mark.parametrize(
    ("case", "expected"),
    [
        (record("lost"), GOES_ON),
        (record("stopped", outcome="stopped"), GOES_ON),
        (record("quota", outcome="quota"), GOES_ON),
        (record("answered", "You asked: …", outcome="completed"), GOES_ON),
        (record("lost", commit="b"), Footing("s1", "", interrupted=True)),
        (record("transient", outcome="error", exit_code=-9), GOES_ON),
        (record("transient", outcome="error", exit_code=1), AFRESH),
        (record("rework", "red", outcome="completed"), Footing("s1")),
        (record("manual", "no, like this", outcome="completed"), Footing("s1")),
        (record("manual", outcome="completed"), AFRESH),
        (record("manual", outcome="budget"), GOES_ON),
        (record("manual", outcome="timeout"), AFRESH),
        (record("afresh", outcome="error", exit_code=-9), AFRESH),
        (record("lost", session=""), AFRESH),
        (record("lost", profile="another"), AFRESH),
        (record("lost", handle={"driver": "session", "name": "me", "pid": 1}), AFRESH),
        (Record(order=order("a")), AFRESH),
    ],
)
def test_footing(case: Record, expected: Footing) -> None:
    assert footing(case, "cli") == expected


def test_a_session_that_was_refused_is_told_from_one_that_failed_later() -> None:
    def refused(**fields: Any) -> bool:
        known = {"resumed": "s1", "outcome": "error", "onto": "c1", "commit": "c1", **fields}
        return was_refused(record("", **known).attempts[0])

    assert refused()
    assert refused(outcome="spawn")
    assert not refused(resumed="")
    assert not refused(steps=1)
    assert not refused(tokens_out=1)
    assert not refused(cost_usd=0.1)
    assert not refused(commit="c2")
    assert not refused(outcome="timeout")


def test_what_a_session_that_goes_on_is_told() -> None:
    told = render(record("lost"), GOES_ON)
    assert told.startswith("Do it.\n\n---\n\n## You were interrupted\n")
    assert "has all that you had done" in told
    told = render(record("answered", "The answer is: yes"), GOES_ON)
    assert "## Your question was answered" in told
    assert "The answer is: yes" in told
    told = render(record("rework", "red"), Footing("s1"))
    assert "An earlier attempt was not accepted" in told
