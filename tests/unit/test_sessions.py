"""What a session may say by itself, and what follows from it; replay of the same lines gives the same state."""

from typing import Any

import msgspec
import pytest

from shopfloor.domain.board import Board
from shopfloor.domain.events import E, Event, Stamp
from shopfloor.domain.fold import by_session
from shopfloor.domain.holder import Holder, Wanted, held
from shopfloor.domain.judge import Settle, Start, Stop, Verify
from shopfloor.domain.order import Deliverable, Reason, Record, State

from .events_of import RUN, Desk, begun, decided, order

ANN = Holder(name="ann", pid=11, start_time=5, host="here", boot="b1")
BOB = Holder(name="bob", pid=12, start_time=6, host="here", boot="b1")


def said(desk: Desk, kind: E, name: str = "a", /, *, stamp: bool = True, by: Holder = ANN, **data: Any) -> Record:
    """Take in a line of a session, or (no ``stamp``) of a program that does not write through our store."""
    data = {"generation": 1, "handle": by.handle(), **data}
    event = desk.log.write(kind, f"wo-{name}", stamped=False, **data)
    if stamp:
        event = msgspec.structs.replace(event, sf=Stamp(0, len(desk.log.events)))
        desk.log.events[-1] = event
    desk.take(event)
    return desk.board.records[f"wo-{name}"]


def claimed(desk: Desk, **data: Any) -> Record:
    return said(desk, E.ASSIGNED, attempt="wo-a.a1", agent="session/ann", **data)


def replayed(desk: Desk) -> dict[str, Record]:
    board = Board()
    for event in desk.log.events:
        board.apply(event)
    return board.records


def test_a_session_claims_by_itself() -> None:
    desk = begun(order("a"))
    record = claimed(desk)
    assert (record.state, record.generation, held(record)) == (State.RUNNING, 1, ANN)
    assert desk.floor.held == {"wo-a": ANN}
    assert desk.floor.live == {"wo-a"}
    assert replayed(desk) == desk.board.records


def test_the_same_line_of_a_stranger_is_nothing() -> None:
    desk = begun(order("a"))
    record = claimed(desk, stamp=False)
    assert (record.state, record.attempts) == (State.READY, [])
    assert desk.board.uncounted == 1


@pytest.mark.parametrize("generation", [0, 2, 7, "1", None])
def test_a_claim_goes_one_generation_up(generation: object) -> None:
    desk = begun(order("a"))
    assert claimed(desk, generation=generation).attempts == []


def test_what_is_held_or_ended_is_not_claimed() -> None:
    desk = begun(order("a"), order("b"))
    claimed(desk)
    record = claimed(desk, by=BOB, generation=2)
    assert held(record) == ANN
    desk.write(E.SETTLED, "b", outcome="cancelled")
    assert said(desk, E.ASSIGNED, "b").state is State.CANCELLED


@pytest.mark.parametrize("kind", sorted({*E} - {E.ASSIGNED, E.RELEASED, E.AGENT_STOPPED}))
def test_a_session_says_nothing_else(kind: E) -> None:
    event = Event("e", kind, "t", "x", data={"handle": ANN.handle()}, sf=Stamp(0, 1))
    assert not by_session(event)


@pytest.mark.parametrize(
    ("kind", "data"),
    [
        (E.VERIFY_VERDICT, {"verdict": "PASS", "commit": "c"}),
        (E.LANDING_LANDED, {"commit": "m"}),
        (E.SETTLED, {"outcome": "done"}),
    ],
)
def test_nobody_marks_their_own_work_done(kind: E, data: dict[str, Any]) -> None:
    desk = begun(order("a"))
    claimed(desk)
    assert said(desk, kind, **data).state is State.RUNNING


def test_only_its_holder_gives_an_order_back() -> None:
    desk = begun(order("a"))
    claimed(desk)
    assert held(said(desk, E.RELEASED, by=BOB, reason="released")) == ANN
    record = said(desk, E.RELEASED, reason="released", message="too hard")
    assert (record.state, record.live, record.attempts[0].outcome) == (State.READY, False, Reason.STOPPED)
    assert desk.floor.held == {}
    assert [d for d in decided(desk) if isinstance(d, Start)] == [Start("wo-a", 2)]


def test_anybody_returns_what_a_dead_one_held() -> None:
    desk = begun(order("a"))
    claimed(desk)
    record = said(desk, E.RELEASED, reason="lost")
    assert (record.state, record.attempts[0].outcome) == (State.READY, Reason.LOST)
    assert claimed(desk, by=BOB, generation=2).generation == 2
    assert replayed(desk) == desk.board.records


def test_a_stale_holder_changes_nothing() -> None:
    desk = begun(order("a"))
    claimed(desk)
    said(desk, E.RELEASED, reason="lost")
    claimed(desk, by=BOB, generation=2)
    assert held(said(desk, E.RELEASED, reason="released")) == BOB
    assert held(said(desk, E.AGENT_STOPPED, outcome="completed", commit="c")) == BOB


def test_work_that_is_handed_in_is_verified_and_not_done() -> None:
    desk = begun(order("a"))
    claimed(desk)
    assert decided(desk) == []
    record = said(desk, E.AGENT_STOPPED, outcome="completed", commit="c1", tree="t1", base="b0")
    assert (record.state, record.live) == (State.RUNNING, False)
    assert decided(desk) == [Verify("wo-a")]


def test_a_session_reports_no_end_but_completed_work() -> None:
    desk = begun(order("a"))
    claimed(desk)
    assert said(desk, E.AGENT_STOPPED, outcome="stopped").live
    assert said(desk, E.AGENT_STOPPED, by=BOB, outcome="completed").live


def test_an_answer_is_what_it_was_asked_for() -> None:
    desk = begun(order("a", deliverable=Deliverable.ANSWER))
    claimed(desk)
    said(desk, E.AGENT_STOPPED, outcome="completed", message="42")
    assert decided(desk) == [Settle("wo-a", State.DONE, None, "42")]


def test_the_run_is_not_finished_while_a_session_holds_an_order() -> None:
    desk = begun(order("a"))
    claimed(desk)
    assert not desk.floor.finished


def test_a_person_stops_what_a_session_holds() -> None:
    desk = begun(order("a"))
    claimed(desk)
    desk.write(E.HANDLED, "a", verb="stop", result="ok")
    assert decided(desk) == [Stop("wo-a", Reason.STOPPED)]
    desk.write(E.RELEASED, "a", generation=1, reason="released", handle=ANN.handle())
    assert [type(d) for d in decided(desk)] == [Settle]
    assert said(desk, E.AGENT_STOPPED, outcome="completed", commit="c").state is not State.CHECKING


def test_the_floor_hands_out_claims_in_its_own_order() -> None:
    first, last = order("first", priority=0), order("last", priority=4)
    desk = begun(last, order("second", needs=["first"]), first)
    starts = desk.floor.claim(5, Wanted())
    assert starts == [Start("wo-first", 1), Start("wo-last", 1)]
    assert desk.floor.claim(5, Wanted()) == []
    desk.floor.unclaim(starts, desk.log.now)
    assert desk.floor.claim(1, Wanted()) == [Start("wo-first", 1)]


def test_a_claim_keeps_files_apart() -> None:
    desk = begun(order("a", files=("src",)), order("b", files=("src/x.py",)))
    assert len(desk.floor.claim(5, Wanted())) == 1


def test_a_claim_for_some_kind_leaves_the_others_where_they_are() -> None:
    desk = begun(order("a"), order("b", issue_type="bug"), order("c"))
    assert desk.floor.claim(5, Wanted(types=("bug",))) == [Start("wo-b", 1)]
    assert desk.floor.claim(5, Wanted(orders=("wo-c",))) == [Start("wo-c", 1)]
    assert desk.floor.claim(5, Wanted(run="other")) == []
    assert desk.floor.claim(5, Wanted(run=RUN)) == [Start("wo-a", 1)]


def test_a_paused_floor_hands_out_nothing() -> None:
    desk = begun(order("a"))
    desk.write(E.HANDLED, verb="pause", result="ok")
    assert desk.floor.claim(1, Wanted()) == []


def test_a_session_is_the_same_one_by_any_name() -> None:
    desk = begun(order("a"))
    claimed(desk)
    record = said(desk, E.RELEASED, by=msgspec.structs.replace(ANN, name="other"), reason="released")
    assert record.state is State.READY


# -- how an order comes back ------------------------------------------------------------------------------------------


def given_back(desk: Desk, **data: Any) -> Record:
    claimed(desk)
    return said(desk, E.RELEASED, **{"reason": "released", **data})


def test_one_that_failed_is_counted_and_the_next_attempt_is_told() -> None:
    desk = begun(order("a"))
    record = given_back(desk, reason="error", message="the disk was full", delay_s=4.0)
    assert (record.state, record.failures, record.findings) == (State.READY, 1, "the disk was full")
    assert (record.attempts[0].outcome, record.retry_delay_s) == (Reason.ERROR, 4.0)
    assert decided(desk) == []
    desk.log.pass_time(4.1)
    assert decided(desk) == [Start("wo-a", 2)]


def test_one_that_is_set_aside_waits_for_somebody_to_open_it() -> None:
    desk = begun(order("a"))
    record = given_back(desk, aside="blocked", message="no network")
    assert (record.state, record.elsewhere, record.failures) == (State.READY, "blocked", 0)
    assert decided(desk) == []
    assert said(desk, E.ASSIGNED, generation=2, attempt="wo-a.a2").generation == 1, "nobody claims it"
    desk.take(desk.log.write(E.UPDATED, "wo-a", changes={"status": "open"}, generation=2))
    assert (record.elsewhere, record.generation) == ("", 2)
    assert decided(desk) == [Start("wo-a", 3)]


@pytest.mark.parametrize(("run", "state"), [("", State.DONE), (RUN, State.RUNNING)])
def test_an_answer_of_no_run_is_done_when_it_is_handed_in(run: str, state: State) -> None:
    desk = begun(order("b"))
    desk.take(desk.log.create(order("a", deliverable=Deliverable.ANSWER, run=run)))
    claimed(desk)
    record = said(desk, E.AGENT_STOPPED, outcome="completed", message="42")
    assert (record.state, record.attempts[0].message) == (state, "42")
    assert (record.settled_at is None) == bool(run)
    assert replayed(desk) == desk.board.records


def test_a_change_of_no_run_is_not_done_by_saying_so() -> None:
    desk = begun(order("b"))
    desk.take(desk.log.create(order("a", run="")))
    claimed(desk)
    assert said(desk, E.AGENT_STOPPED, outcome="completed", commit="c").state is State.RUNNING


@pytest.mark.parametrize(
    ("wanted", "takes"),
    [
        (Wanted(metadata={"category": ("coding",)}), "a"),
        (Wanted(metadata={"category": ("coding", "7")}), "ab"),
        (Wanted(metadata={"category": ("",)}), "c"),
        (Wanted(without={"category": ("coding", "")}), "b"),
        (Wanted(metadata={"category": ("coding",), "pool": ("x",)}), ""),
        (Wanted(metadata={"category": ("coding",)}, orders=("wo-b",)), ""),
    ],
)
def test_what_is_said_of_an_order_tells_who_takes_it(wanted: Wanted, takes: str) -> None:
    told: dict[str, Any] = {"a": {"category": "coding"}, "b": {"category": 7}, "c": {"category": None}}
    known = {name: order(name, extra={"metadata": value}) for name, value in told.items()}
    assert "".join(name for name, one in known.items() if wanted.fits(one)) == takes
    assert wanted
