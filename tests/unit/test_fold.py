"""What each line means for the record of its order: once, in its time, and never against what has ended."""

from typing import Any

from shopfloor.domain.events import E
from shopfloor.domain.order import Attempt, Reason, Record, State

from .events_of import RUN, START_S, Desk, begun, order, state_of


def record_of(desk: Desk) -> Record:
    return desk.board.records["wo-a"]


def twice(desk: Desk, kind: E, /, **data: Any) -> None:
    """The same line again changes nothing."""
    event = desk.log.write(kind, "wo-a", **data)
    desk.take(event)
    before = state_of(desk.board)
    desk.take(event)
    assert state_of(desk.board) == before, kind


def test_the_same_line_twice_counts_once() -> None:
    desk = begun(order("a"))
    twice(desk, E.ASSIGNED, generation=1, attempt="a1")
    twice(desk, E.WORKSPACE, path="/w")
    twice(desk, E.AGENT_STARTED, generation=1, handle={"pid": 1})
    twice(desk, E.AGENT_USAGE, cost_usd=0.5, tokens_in=3)
    twice(desk, E.AGENT_IDLE)
    twice(desk, E.AGENT_WORKING)
    twice(desk, E.AGENT_ASKED, question="?")
    twice(desk, E.AGENT_WORKING)
    twice(desk, E.AGENT_STOPPED, generation=1, outcome="error", transient=True)
    twice(desk, E.RETRIED, kind="transient", delay_s=1.0)
    assert record_of(desk).failures == 1
    desk.claim("a", 2)
    desk.end("a", 2)
    twice(desk, E.VERIFY_STARTED, generation=2, run=1)
    twice(desk, E.VERIFY_VERDICT, generation=2, verdict="PASS", commit="c", duration_s=2.0)
    assert desk.board.runs[RUN].check_s == 2.0
    twice(desk, E.LANDING_STARTED)
    twice(desk, E.LANDING_REFUSED, again=True)
    twice(desk, E.LANDING_LANDED, commit="m")
    twice(desk, E.SETTLED, outcome="done")
    twice(desk, E.HANDLED, verb="stop", result="ok")
    assert len(record_of(desk).attempts) == 2
    assert desk.board.runs[RUN].peak == 1


def test_an_attempt_is_recorded() -> None:
    desk = begun(order("a"))
    desk.claim("a")
    desk.write(E.AGENT_STARTED, "a", handle={"pid": 7})
    desk.write(E.WORKSPACE, "a", path="/w")
    desk.write(E.AGENT_USAGE, "a", cost_usd=1.5, tokens_in=10, tokens_out=4, steps=2, session="s")
    desk.write(E.AGENT_IDLE, "a")
    assert record_of(desk).attempts[0].idle_since == START_S
    desk.write(E.AGENT_WORKING, "a")
    assert record_of(desk).attempts[0].idle_since is None
    desk.write(E.AGENT_IDLE, "a")
    desk.write(E.AGENT_ASKED, "a", question="which?")
    assert (record_of(desk).state, record_of(desk).question) == (State.ASKING, "which?")
    desk.write(E.AGENT_WORKING, "a")
    assert record_of(desk).state is State.ASKING, "a sign of life is no answer"
    desk.write(E.AGENT_ANSWERED, "a", answer="this", delivery="seen", by="human")
    assert (record_of(desk).state, record_of(desk).question) == (State.RUNNING, "")
    desk.write(E.AGENT_IDLE, "a")
    desk.log.pass_time(5.0)
    desk.end("a", base="b1", message="done", exit_code=-9, files=["f", 3], notes=["n"], cost_usd=None, tokens_in=0)
    assert record_of(desk).attempt == Attempt(
        id="wo-a.a1", generation=1, agent="a", claimed_at=START_S, claimed_seq=4, started_at=START_S,
        ended_at=START_S + 5.0, handle={"pid": 7},
        workspace="/w", branch="shopfloor/a", base="b1", session="s", outcome="completed", message="done", exit_code=-9,
        commit="c-a-1", tree="t", files=("f",), notes=("n",), cost_usd=1.5, tokens_in=10, tokens_out=4, steps=2,
    )  # fmt: skip
    assert record_of(desk).cost_usd == 1.5


def test_the_cost_of_an_attempt_never_falls() -> None:
    desk = begun(order("a"))
    desk.claim("a")
    for cost in (0.5, 0.2, None, "much"):
        desk.write(E.AGENT_USAGE, "a", cost_usd=cost)
        assert record_of(desk).cost_usd == 0.5


def test_a_cost_is_unknown_until_it_is_told() -> None:
    desk = begun(order("a"))
    assert record_of(desk).cost_usd is None
    desk.write(E.AGENT_USAGE, "a", cost_usd=9.0)
    desk.claim("a")
    assert record_of(desk).cost_usd is None
    desk.write(E.AGENT_USAGE, "a", cost_usd=0)
    assert record_of(desk).cost_usd == 0.0


def test_what_comes_after_the_end_of_an_attempt_does_not_bring_it_back() -> None:
    desk = begun(order("a"))
    desk.claim("a")
    desk.end("a")
    before = state_of(desk.board)
    for kind in (E.WORKSPACE, E.AGENT_STARTED, E.AGENT_IDLE, E.AGENT_WORKING, E.AGENT_ASKED, E.AGENT_STOPPED):
        desk.write(kind, "a", generation=1, question="?")
        assert state_of(desk.board) == before


def test_a_question_that_its_agent_did_not_live_to_hear_answered_is_gone() -> None:
    desk = begun(order("a"))
    desk.claim("a")
    desk.write(E.AGENT_ASKED, "a", question="which?")
    desk.end("a", outcome="timeout", base="")
    r = record_of(desk)
    assert (r.state, r.question, r.attempts[0].base) == (State.RUNNING, "", "b0")


def test_nothing_is_checked_while_its_agent_lives() -> None:
    desk = begun(order("a"))
    desk.claim("a")
    desk.check("a")
    assert (record_of(desk).state, record_of(desk).verdict) == (State.RUNNING, "")


def test_checks_are_counted() -> None:
    desk = begun(order("a"))
    desk.claim("a")
    desk.end("a")
    for number in (1, 2):
        desk.check("a", "UNSURE")
        assert record_of(desk).verifications == number


def test_a_claim_over_a_live_attempt_closes_it() -> None:
    desk = begun(order("a"))
    desk.claim("a")
    desk.claim("a", 2)
    first, second = record_of(desk).attempts
    assert (first.outcome, second.outcome) == (Reason.LOST, "")


def test_a_lost_attempt_ended_when_it_was_last_heard_of() -> None:
    desk = begun(order("a"))
    desk.claim("a")
    desk.log.pass_time(10.0)
    desk.write(E.AGENT_USAGE, "a", steps=1)
    desk.log.pass_time(7 * 3600.0)
    desk.write(E.AGENT_STOPPED, "a", generation=1, outcome="lost")
    assert record_of(desk).attempts[0].ended_at == START_S + 10.0


def test_an_end_without_an_outcome_is_an_error() -> None:
    desk = begun(order("a"))
    desk.claim("a")
    desk.end("a", outcome=None)
    assert record_of(desk).attempts[0].outcome == Reason.ERROR


def test_no_verdict_and_no_landing_for_an_order_that_has_ended() -> None:
    desk = begun(order("a"))
    desk.settle("a", "cancelled")
    before = state_of(desk.board)
    for kind in (E.VERIFY_STARTED, E.VERIFY_VERDICT, E.LANDING_STARTED, E.LANDING_REFUSED, E.LANDING_LANDED):
        desk.board.apply(desk.log.write(kind, "wo-a", of_run=None, verdict="PASS", commit="x"))
    desk.settle("a", "done")
    desk.write(E.RETRIED, "a", kind="lost")
    desk.write(E.HANDLED, "a", verb="stop", result="ok")
    assert state_of(desk.board) == before


def test_a_verdict_that_nobody_can_read_tells_nothing() -> None:
    desk = begun(order("a"))
    desk.claim("a")
    desk.end("a")
    desk.check("a", verdict="perhaps")
    assert (record_of(desk).state, record_of(desk).verdict) == (State.CHECKING, "UNSURE")


def test_a_verdict_says_what_was_found_also_of_a_check_whose_start_is_not_there() -> None:
    desk = begun(order("a"))
    desk.claim("a")
    desk.end("a")
    desk.write(E.VERIFY_VERDICT, "a", verdict="FAIL", reasoning="exit 2")
    r = record_of(desk)
    assert (r.state, r.verdict, r.findings) == (State.CHECKING, "FAIL", "exit 2")


def test_retries_are_counted_by_kind_until_a_person_steps_in() -> None:
    desk = begun(order("a"))
    for generation, kind in enumerate(["transient", "rework", "lost", "stopped", "lost"], start=1):
        desk.claim("a", generation)
        desk.end("a", generation)
        desk.write(E.RETRIED, "a", kind=kind)
    r = record_of(desk)
    assert (r.failures, r.reworks, r.lost) == (1, 1, 2)
    desk.write(E.RETRIED, "a", kind="manual")
    assert (r.failures, r.reworks, r.lost) == (0, 0, 0)


def test_a_refused_landing_says_why_and_a_landed_one_is_not_refused_any_more() -> None:
    desk = begun(order("a"))
    desk.verified("a")
    desk.write(E.LANDING_STARTED, "a")
    assert record_of(desk).state is State.LANDING
    desk.write(E.LANDING_REFUSED, "a", reason="checks", message="red")
    assert (record_of(desk).reason, record_of(desk).findings) == (Reason.CHECKS, "red")
    desk.write(E.LANDING_LANDED, "a", commit="m")
    desk.write(E.LANDING_REFUSED, "a", again=True)
    assert (record_of(desk).state, record_of(desk).reason, record_of(desk).merge) == (State.LANDING, None, "m")


def test_a_new_check_forgets_the_verdict_of_the_last() -> None:
    desk = begun(order("a"))
    desk.claim("a")
    desk.end("a")
    desk.check("a", "UNSURE")
    desk.write(E.VERIFY_STARTED, "a", run=2)
    assert (record_of(desk).verdict, record_of(desk).verifications) == ("", 2)


def test_a_verified_commit_is_kept_with_its_evidence() -> None:
    desk = begun(order("a"))
    desk.claim("a")
    desk.end("a")
    desk.check("a", tree="t", base="b", evidence="/e", passed=["make", 3], reasoning="")
    r = record_of(desk)
    assert (r.state, r.commit, r.tree, r.base, r.evidence, r.passed) == (
        State.VERIFIED, "c-a-1", "t", "b", "/e", ("make",),
    )  # fmt: skip


def test_a_refusal_without_a_reason_is_a_conflict() -> None:
    desk = begun(order("a"))
    desk.verified("a")
    desk.write(E.LANDING_REFUSED, "a", reason="whatever", message="no")
    assert (record_of(desk).state, record_of(desk).reason) == (State.LANDING, Reason.CONFLICT)


def test_a_landing_that_names_no_commit_is_none() -> None:
    desk = begun(order("a"))
    desk.verified("a")
    desk.write(E.LANDING_LANDED, "a")
    assert record_of(desk).state is State.VERIFIED
    desk.write(E.LANDING_LANDED, "a", observed="m")
    assert (record_of(desk).state, record_of(desk).merge) == (State.LANDING, "m")


def test_a_person_who_sends_an_order_back_gives_it_a_new_start() -> None:
    desk = begun(order("a"), settings={"land": "review"})
    desk.verified("a")
    desk.write(E.HANDLED, "a", verb="accept", result="ok")
    assert record_of(desk).accepted
    desk.land("a")
    desk.settle("a")
    desk.write(E.RETRIED, "a", kind="manual", findings="not so")
    r = record_of(desk)
    assert (r.state, r.merge, r.commit, r.passed, r.accepted, r.stopping) == (State.READY, "", "", (), False, False)
    assert (r.findings, r.settled_at, r.question) == ("not so", None, "")


def test_what_a_person_accepted_is_not_accepted_any_more_once_it_is_done_anew() -> None:
    desk = begun(order("a"), settings={"land": "review"})
    desk.write(E.HANDLED, "a", verb="accept", result="ok")
    assert not record_of(desk).accepted
    desk.verified("a")
    desk.write(E.HANDLED, "a", verb="accept", result="refused")
    assert not record_of(desk).accepted
    desk.write(E.HANDLED, "a", verb="accept", result="ok")
    desk.write(E.LANDING_REFUSED, "a", reason="conflict")
    desk.write(E.RETRIED, "a", kind="rework")
    assert (record_of(desk).accepted, record_of(desk).reworks) == (False, 1)


def test_a_person_does_not_send_back_what_is_running() -> None:
    desk = begun(order("a"))
    desk.claim("a")
    desk.write(E.RETRIED, "a", kind="manual")
    assert record_of(desk).live
    assert record_of(desk).state is State.RUNNING
