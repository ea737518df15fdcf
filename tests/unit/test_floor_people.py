"""People and the floor: stop, pause, review, answer."""

from shopfloor.domain.events import E
from shopfloor.domain.judge import Land, Retry, Settle, Start, Stop, Verify
from shopfloor.domain.order import Deliverable, Reason, State
from shopfloor.domain.situation import situation

from .events_of import RUN, Desk, begun, decided, is_over, order, started


def stop(desk: Desk, name: str) -> None:
    desk.write(E.HANDLED, name, verb="stop", result="ok")


def test_a_stop_of_what_runs_ends_it_once_and_cancels_it() -> None:
    desk = begun(order("a"))
    desk.claim("a")
    stop(desk, "a")
    assert decided(desk) == [Stop("wo-a", Reason.STOPPED)]
    stop(desk, "a")
    assert decided(desk) == []
    desk.end("a", outcome="stopped", commit="c")
    text = "stopped by a person; its work is kept on shopfloor/a"
    assert decided(desk) == [Settle("wo-a", State.CANCELLED, Reason.STOPPED, text)]


def test_a_stop_while_it_is_being_started_waits_for_the_claim() -> None:
    desk = begun(order("a"))
    assert started(desk) == ["wo-a"]
    stop(desk, "a")
    assert decided(desk) == []
    desk.claim("a")
    assert decided(desk) == [Stop("wo-a", Reason.STOPPED)]


def test_a_stop_during_a_check_does_not_wait_for_it_and_the_verdict_revives_nothing() -> None:
    desk = begun(order("a"))
    desk.claim("a")
    desk.end("a")
    assert decided(desk) == [Verify("wo-a")]
    desk.write(E.VERIFY_STARTED, "a")
    stop(desk, "a")
    assert [type(d) for d in decided(desk)] == [Settle]
    desk.settle("a", "cancelled")
    desk.write(E.VERIFY_VERDICT, "a", verdict="PASS", commit="c")
    assert desk.board.records["wo-a"].state is State.CANCELLED
    assert decided(desk) == []
    assert is_over(desk)


def test_a_stop_during_a_landing_leaves_the_outcome_to_the_landing() -> None:
    desk = begun(order("a"), order("b"))
    for name in "ab":
        desk.verified(name)
    assert decided(desk) == [Land(("wo-a", "wo-b"))]
    for name in "ab":
        desk.write(E.LANDING_STARTED, name)
        stop(desk, name)
    assert decided(desk) == []
    desk.write(E.LANDING_LANDED, "a", commit="m")
    desk.write(E.LANDING_REFUSED, "b", again=True)
    outcomes = [d.outcome for d in decided(desk) if isinstance(d, Settle)]
    assert outcomes == [State.DONE, State.CANCELLED]


def test_a_stop_during_a_back_off_is_not_overtaken_by_its_timer() -> None:
    desk = begun(order("a"))
    desk.claim("a")
    desk.end("a", outcome="error", transient=True)
    desk.write(E.RETRIED, "a", kind="transient", delay_s=60.0)
    stop(desk, "a")
    assert [type(d) for d in decided(desk)] == [Settle]
    desk.log.pass_time(61.0)
    assert decided(desk) == []


def test_a_stop_of_an_order_that_waits_for_another_one() -> None:
    desk = begun(order("a"), order("b", needs=["a"]), settings={"land": "review"})
    desk.verified("a")
    assert is_over(desk)
    stop(desk, "b")
    assert not is_over(desk)
    assert decided(desk) == [Settle("wo-b", State.CANCELLED, Reason.STOPPED, "stopped by a person")]


def test_an_end_that_is_on_its_way_is_not_overtaken_by_a_person_who_sends_the_order_back() -> None:
    desk = begun(order("a"), settings={"land": "review"})
    desk.verified("a")
    stop(desk, "a")
    assert [type(d) for d in decided(desk)] == [Settle]
    desk.write(E.RETRIED, "a", kind="manual")
    assert decided(desk) == []
    desk.settle("a", "cancelled")
    assert is_over(desk)


def test_a_stop_survives_a_retry_that_was_on_its_way() -> None:
    desk = begun(order("a"))
    desk.claim("a")
    desk.end("a", outcome="error", transient=True)
    assert [type(d) for d in decided(desk)] == [Retry]
    stop(desk, "a")
    assert decided(desk) == []
    desk.write(E.RETRIED, "a", kind="transient", delay_s=60.0)
    assert [type(d) for d in decided(desk)] == [Settle]
    desk.log.pass_time(61.0)
    assert decided(desk) == []


def test_pause_starts_nothing_and_resume_goes_on() -> None:
    desk = begun(order("a"))
    desk.write(E.HANDLED, verb="pause", result="ok")
    assert decided(desk) == []
    assert not is_over(desk)
    desk.write(E.HANDLED, verb="resume", result="ok")
    assert started(desk) == ["wo-a"]


def test_review_ends_with_verified_ones_and_lands_what_is_accepted() -> None:
    desk = begun(order("a"), order("b", needs=["a"]), settings={"land": "review"})
    desk.verified("a")
    assert decided(desk) == []
    assert is_over(desk)
    desk.write(E.HANDLED, "a", verb="accept", result="ok")
    assert not is_over(desk)
    assert decided(desk) == [Land(("wo-a",))]


def test_a_target_that_turned_red_holds_what_waits_to_be_landed() -> None:
    desk = begun(order("a", files=("x",)), order("b", files=("x",)))
    desk.verified("a")
    desk.write(E.TARGET_MOVED, to="t", hold=True, why="red")
    assert started(desk) == ["wo-b"]
    desk.settle("b", "failed")
    assert is_over(desk)
    desk.write(E.RUN_STARTED, run_id=RUN, land="auto")
    assert decided(desk) == [Land(("wo-a",))]


def test_an_agent_that_ended_with_a_question_frees_its_files_and_waits_for_the_answer() -> None:
    desk = begun(order("a", files=("x",)), order("b", files=("x",), deliverable=Deliverable.ANSWER))
    desk.claim("a")
    desk.write(E.AGENT_ASKED, "a", question="which?")
    assert started(desk) == []
    desk.end("a")
    assert started(desk) == ["wo-b"]
    desk.settle("b")
    assert is_over(desk)
    assert situation(desk.floor, desk.board.records["wo-a"]) == (State.ASKING, "")
    desk.write(E.RETRIED, "a", kind="manual", findings="this one")
    assert decided(desk) == [Start("wo-a", 2)]
