"""Runs and their report: every order in one outcome, and figures that were measured."""

from typing import Any

import pytest

from shopfloor.domain.board import Board, Run
from shopfloor.domain.events import E
from shopfloor.domain.order import Attempt, Deliverable, Record, State
from shopfloor.domain.report import OUTCOMES, Report, build, outcome

from .events_of import RUN, START_S, Desk, Log, begun, order


def report(desk: Desk) -> Report:
    return build(desk.board, desk.board.runs[RUN])


def run_of(desk: Desk) -> Run:
    return desk.board.runs[RUN]


@pytest.mark.parametrize(
    ("state", "fields", "land", "expected"),
    [
        (State.DONE, {"merge": "m"}, "auto", "landed"),
        (State.DONE, {}, "auto", "unchanged"),
        (State.VERIFIED, {}, "off", "verified"),
        (State.VERIFIED, {}, "review", "verified"),
        (State.VERIFIED, {"accepted": True}, "review", "waiting"),
        (State.VERIFIED, {}, "auto", "waiting"),
        (State.FAILED, {}, "auto", "failed"),
        (State.CANCELLED, {}, "auto", "cancelled"),
        (State.READY, {}, "auto", "waiting"),
        (State.ASKING, {}, "auto", "waiting"),
        (State.LANDING, {"merge": "m"}, "auto", "waiting"),
    ],
)
def test_an_order_has_one_outcome(state: State, fields: dict[str, object], land: str, expected: str) -> None:
    record = Record(order=order("a"), state=state)
    for name, value in fields.items():
        setattr(record, name, value)
    assert outcome(record, Run(id=RUN, land=land)) == expected
    assert expected in OUTCOMES


def test_preparing_is_the_time_from_claim_to_agent_of_every_attempt() -> None:
    attempts = [
        Attempt(id="a.a1", generation=1, agent="x", claimed_at=10.0, started_at=13.0, ended_at=20.0),
        Attempt(id="a.a2", generation=2, agent="x", claimed_at=20.0, started_at=22.5, ended_at=30.0),
        Attempt(id="a.a3", generation=3, agent="x", claimed_at=30.0),
    ]
    board = Board()
    board.records["a"] = Record(order=order("a"), attempts=attempts)
    run = board.runs[RUN] = Run(id=RUN, orders=["a"])
    assert build(board, run).prepare_s == pytest.approx(5.5)


def test_an_answer_is_answered() -> None:
    wish = order("a", deliverable=Deliverable.ANSWER)
    assert outcome(Record(order=wish, state=State.DONE), Run(id=RUN)) == "answered"


def test_a_report_of_a_run() -> None:
    settings = {"branch": "main", "ref": "refs/x", "max_parallel": 3, "mirror": "h", "tip": "t0"}
    desk = begun(order("a"), order("b"), order("c", needs=["b"]), settings=settings)
    assert report(desk).speed_up is None
    desk.log.pass_time(1.0)  # nobody is at work
    desk.claim("a")
    desk.claim("b")
    desk.log.pass_time(10.0)
    desk.end("a", cost_usd=0.25, notes=["kept"])
    desk.end("b", outcome="timeout", message="slow", commit="")
    desk.write(E.VERIFY_STARTED, "a", generation=1)
    desk.log.pass_time(4.0)
    verdict = {"verdict": "PASS", "commit": "c", "evidence": "/e", "duration_s": 3.5}
    desk.write(E.VERIFY_VERDICT, "a", generation=1, **verdict)
    desk.settle("b", "failed", reason="timeout", message="slow")
    desk.land("a")
    desk.settle("a")
    desk.log.pass_time(5.0)
    desk.write(E.RUN_FINISHED, run_id=RUN)
    found = report(desk)
    assert found.counts == {**dict.fromkeys(OUTCOMES, 0), "landed": 1, "failed": 1, "waiting": 1}
    assert (found.wall_s, found.agent_s, found.check_s, found.overhead_s) == (20.0, 20.0, 3.5, 6.0)
    assert found.prepare_s == 0.0
    assert found.speed_up == pytest.approx(23.5 / 20.0)
    assert (found.peak_parallel, found.max_parallel, found.sessions, found.finished) == (2, 3, 1, True)
    assert (found.cost_usd, found.unpriced_attempts) == (0.25, 1)
    assert (found.branch, found.target, found.tip, found.mirror) == ("main", "refs/x", "m-a", "h")
    assert not found.ok
    a, b, c = found.orders
    assert (a.outcome, a.merge, a.commit, a.branch, a.evidence, a.notes) == (
        "landed", "m-a", "c", "shopfloor/a", "/e", ("kept",),
    )  # fmt: skip
    assert (b.outcome, b.reason, b.message, b.agent_s, b.cost_usd) == ("failed", "timeout", "slow", 10.0, None)
    assert (c.attempts, c.branch, c.commit) == (0, "", "")


def test_a_run_in_which_all_is_well() -> None:
    desk = begun(order("a", deliverable=Deliverable.ANSWER))
    desk.settle("a")
    assert report(desk).ok
    assert report(desk).cost_usd is None


def test_what_is_at_work_now_counts_up_to_now() -> None:
    desk = begun(order("a"), order("b"))
    desk.write(E.ASSIGNED, "b", generation=1)
    desk.claim("a")
    desk.log.pass_time(8.0)
    desk.write(E.AGENT_USAGE, "a", steps=1)
    found = report(desk)
    assert (found.wall_s, found.agent_s, found.overhead_s, found.peak_parallel) == (8.0, 8.0, 0.0, 1)


def killed_and_resumed() -> Desk:
    """Ten seconds of work, a kill, an hour of nothing, and a new controller that finds the attempt lost."""
    desk = begun(order("a"))
    desk.claim("a")
    desk.log.pass_time(10.0)
    desk.write(E.AGENT_USAGE, "a", steps=1)
    desk.log.pass_time(3600.0)
    desk.log.controller = 2
    desk.write(E.CONTROLLER_STARTED, generation=2, of_run=None)
    desk.write(E.SNAPSHOT, "", key="wo-a.a1")
    desk.write(E.RUN_STARTED, run_id=RUN)
    desk.write(E.AGENT_STOPPED, "a", generation=1, outcome="lost")
    return desk


def test_the_time_between_two_sessions_counts_nowhere() -> None:
    desk = killed_and_resumed()
    assert not run_of(desk).busy
    found = report(desk)
    assert (found.sessions, found.wall_s, found.agent_s, found.overhead_s) == (2, 10.0, 10.0, 0.0)
    desk.log.pass_time(2.0)
    desk.write(E.RETRIED, "a", kind="lost")
    desk.claim("a", 2)
    desk.log.pass_time(5.0)
    desk.end("a", 2)
    found = report(desk)
    assert (found.wall_s, found.agent_s, found.overhead_s) == (17.0, 15.0, 2.0)
    assert found.prepare_s == 0.0
    assert found.speed_up == pytest.approx(15.0 / 17.0)
    assert found.peak_parallel == 1


def test_a_session_that_was_cut_off_while_nobody_worked() -> None:
    desk = begun(order("a"))
    desk.log.pass_time(4.0)
    desk.write(E.ADMISSION, limit=1)
    desk.log.pass_time(100.0)
    desk.log.controller = 2
    desk.write(E.RUN_STARTED, run_id=RUN)
    assert (report(desk).wall_s, report(desk).overhead_s) == (4.0, 4.0)


def test_what_happens_after_a_run_finished_does_not_lengthen_it() -> None:
    desk = begun(order("a"))
    desk.log.pass_time(4.0)
    desk.write(E.RUN_FINISHED, run_id=RUN)
    desk.log.pass_time(100.0)
    desk.write(E.HANDLED, verb="pause", result="ok")
    desk.log.write(E.REQUEST, stamped=False)
    assert report(desk).wall_s == 4.0


def test_a_foreign_line_from_the_future_does_not_lengthen_a_run() -> None:
    desk = begun(order("a"))
    desk.log.pass_time(1e6)
    desk.write(E.REQUEST, "a", stamped=False, verb="stop")
    assert report(desk).wall_s == 0.0


def test_a_wall_clock_that_is_set_back_gives_no_negative_figures() -> None:
    desk = begun(order("a"))
    desk.claim("a")
    desk.log.wall -= 6 * 3600.0
    desk.end("a")
    desk.write(E.RUN_FINISHED, run_id=RUN)
    found = report(desk)
    assert (found.wall_s, found.agent_s, found.overhead_s, found.speed_up) == (0.0, 0.0, 0.0, None)


def test_a_run_that_ends_while_something_is_at_work_is_busy_no_longer() -> None:
    desk = begun(order("a"))
    desk.claim("a")
    desk.log.pass_time(3.0)
    desk.write(E.RUN_FINISHED, run_id=RUN)
    assert not run_of(desk).busy
    assert run_of(desk).busy_s == 3.0


def test_a_check_that_is_cut_off_was_work_until_then() -> None:
    for last, cut in ((E.RUN_FINISHED, 3.0), (E.RUN_STARTED, 0.0)):
        desk = begun(order("a"))
        desk.claim("a")
        desk.end("a")
        desk.write(E.VERIFY_STARTED, "a", generation=1)
        desk.log.pass_time(3.0)
        desk.write(last, run_id=RUN)
        assert not run_of(desk).busy
        assert run_of(desk).busy_s == cut  # a session that was killed is known up to its last line


@pytest.mark.parametrize("end", [E.SETTLED, E.RETRIED])
def test_a_check_that_is_stopped_ends_with_what_was_decided_about_its_order(end: E) -> None:
    desk = begun(order("a"), order("b"))
    for name in "ab":
        desk.claim(name)
        desk.end(name)
        desk.write(E.VERIFY_STARTED, name, generation=1)
    desk.log.pass_time(2.0)
    desk.write(end, "a", outcome="cancelled", kind="manual")
    assert run_of(desk).checks_at_work == {"wo-b:1"}
    desk.write(end, "b", outcome="cancelled", kind="manual")
    assert (run_of(desk).busy, run_of(desk).busy_s) == (False, 2.0)


def test_a_check_of_the_base_is_work_too() -> None:
    desk = begun()
    desk.write(E.VERIFY_STARTED)
    desk.log.pass_time(2.0)
    desk.write(E.VERIFY_VERDICT, duration_s=2.0)
    assert (run_of(desk).busy_s, run_of(desk).check_s) == (2.0, 2.0)


def test_the_end_of_work_that_never_began_ends_nothing() -> None:
    desk = begun(order("a"))
    desk.write(E.VERIFY_VERDICT, duration_s=2.0)
    desk.write(E.AGENT_STOPPED, "a", generation=4)
    desk.write(E.AGENT_STARTED, "a", generation=1)
    assert (run_of(desk).busy_s, run_of(desk).check_s, run_of(desk).peak) == (0.0, 0.0, 0)


# -- the run's own lines ----------------------------------------------------------------------------------------------


def test_a_run_is_what_it_was_started_with() -> None:
    run = run_of(begun(settings={"checks": ["make"], "land": "off", "peak": 9, "orders": ["x"], "sessions": 7}))
    assert (run.checks, run.land, run.peak, run.orders, run.sessions) == (("make",), "off", 0, [], 1)
    assert (run.started_at, run.session_at, run.controller) == (START_S, START_S, 1)


@pytest.mark.parametrize(
    "data", [{}, {"run_id": 3}, {"run_id": RUN, "max_parallel": "many"}, {"run_id": RUN, "checks": 3}]
)
def test_a_run_that_cannot_be_read_is_not_begun_and_changes_no_other(data: dict[str, Any]) -> None:
    board = Board()
    board.apply(Log().write(E.RUN_STARTED, **data))
    assert (board.runs, board.uncounted) == ({}, 1)
    desk = begun()
    desk.write(E.RUN_STARTED, **data)
    assert (run_of(desk).sessions, run_of(desk).max_parallel) == (1, 1)


def test_a_resumed_run_keeps_what_it_was_begun_with_but_for_what_may_change() -> None:
    desk = begun(settings={"checks": ["make"], "max_parallel": 2, "base": "b"})
    desk.write(E.RUN_FINISHED, run_id=RUN)
    desk.write(E.RUN_STARTED, run_id=RUN, checks=["other"], max_parallel=5, budget_usd=1.5)
    run = run_of(desk)
    assert (run.checks, run.max_parallel, run.budget_usd, run.base) == (("make",), 5, 1.5, "b")
    assert (run.sessions, run.finished_at) == (2, None)


def test_the_target_is_where_it_was_seen() -> None:
    desk = begun(order("a"), settings={"tip": "t0", "passed_on_base": ["make", "lint"], "mirror": "h0"})
    run = run_of(desk)
    desk.write(E.LANDING_PLANNED, old="t0", new="t1")
    assert run.planned == {"old": "t0", "new": "t1"}
    desk.write(E.LANDING_LANDED, observed="t1", passed=["make"])
    assert (run.tip, run.planned, run.passed_on("t1")) == ("t1", {}, frozenset({"make"}))
    assert run.passed_on("elsewhere") == {"make", "lint"}
    desk.write(E.LANDING_LANDED)
    assert run.tip == "t1"
    desk.write(E.TARGET_MOVED, to="t2", by="unknown", passed=[])
    assert (run.tip, run.moved_by_others, run.passed_on("t2")) == ("t2", ["t2"], frozenset())
    desk.write(E.LANDING_PLANNED, old="t2", new="t3")
    desk.write(E.TARGET_MOVED, to="t3", by="shopfloor")
    assert run.planned == {}
    desk.write(E.TARGET_MOVED, by="shopfloor")
    assert (run.tip, run.moved_by_others, run.land) == ("t3", ["t2"], "auto")
    desk.write(E.TARGET_MOVED, to="t4", hold=True, why="red")
    assert (run.land, run.mirror_why) == ("review", "red")
    desk.write(E.MIRROR_HELD, why="dirty")
    assert (run.mirror, run.mirror_why) == ("h0", "dirty")
    desk.write(E.MIRROR_ADVANCED, to="t4")
    assert (run.mirror, run.mirror_why) == ("t4", "")
    desk.write(E.MIRROR_ADVANCED)
    assert run.mirror == "t4"
    desk.write(E.ADMISSION, limit=2)
    assert run.limit == 2


def test_flaky_checks_are_counted_wherever_they_were_met() -> None:
    desk = begun(order("a"), settings={"land": "auto"})
    desk.claim("a")
    desk.end("a")
    tests = {"criterion": "make test", "passed": True, "generation": 1}
    desk.write(E.VERIFY_TEST, "a", **tests, flaky=True)
    desk.write(E.VERIFY_TEST, "a", **tests, flaky=False)
    desk.write(E.LANDING_TESTED, verdict="PASS", flaky=["make test", "make lint"])
    desk.write(E.LANDING_TESTED, verdict="PASS", flaky=["made up"], stamped=False)
    assert report(desk).flaky == {"make test": 2, "make lint": 1}
