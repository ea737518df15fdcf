"""An account with nothing left is closed for all by the first answer, and opens by itself."""

from typing import Any

import pytest

from shopfloor.domain.events import E
from shopfloor.domain.floor import Capacity
from shopfloor.domain.judge import Open, Retry
from shopfloor.domain.order import State
from shopfloor.domain.quota import LONGEST_GUESS_S, LONGEST_S, Account, closing, guess
from shopfloor.domain.report import build
from shopfloor.domain.situation import situation

from .events_of import RUN, START_S, Desk, begun, decided, is_over, order, started

T = START_S


def account(**fields: Any) -> Account:
    return Account(**{"name": "x", "closed_at": T, "delay_s": 100.0, "told": True, "times": 1, **fields})


@pytest.mark.parametrize(
    ("known", "reset_at", "claimed_at", "expected"),
    [
        (None, T + 90, T - 5, (90.0, True, 1)),
        (None, None, T - 5, (60.0, False, 1)),
        (None, T - 1, T - 5, (60.0, False, 1)),
        (None, T + 1e12, T - 5, (LONGEST_S, True, 1)),
        (account(), None, T - 5, None),
        (account(), T + 100.5, T - 5, None),
        (account(), T + 300, T - 5, (300.0, True, 1)),
        (account(told=False, delay_s=60.0), T + 30, T - 5, (30.0, True, 1)),
        (account(opened_at=T - 1, told=False), None, T - 5, None),
        (account(opened_at=T - 9, told=False), None, T - 5, (120.0, False, 2)),
        (account(opened_at=T - 9, told=False, times=3), None, T - 5, (480.0, False, 4)),
        (account(opened_at=T - 9), T + 2, T - 5, (60.0, True, 2)),
        (account(opened_at=T - 9), T + 500, T - 5, (500.0, True, 2)),
    ],
    ids=[
        *("told", "not told: a guess", "a time that is past was not told", "never longer than a month"),
        *("the second is no news", "the same time twice", "a later time counts", "a time beats a guess"),
        *("asked before it was opened", "again: longer", "and longer", "a wrong time is not believed at once"),
        "a right one is",
    ],
)
def test_what_an_answer_says_of_an_account(
    known: Account | None, reset_at: float | None, claimed_at: float, expected: tuple[float, bool, int] | None
) -> None:
    said = closing(known, claimed_at=claimed_at, reset_at=reset_at, wall=T)
    assert (None if said is None else (said["delay_s"], said["told"], said["times"])) == expected


def test_guesses_grow_to_an_hour() -> None:
    assert [guess(n) for n in (1, 2, 3)] == [60.0, 120.0, 240.0]
    assert guess(10**9) == LONGEST_GUESS_S


def floor_of(*names: str, **settings: Any) -> Desk:
    orders = [order(name, agent=name.rstrip("0123456789")) for name in names]
    return begun(*orders, settings={"accounts": {"a": "x", "b": "x"}, **settings})


def claim(desk: Desk, name: str, generation: int = 1) -> None:
    agent = name.rstrip("0123456789")
    payer = desk.board.runs[RUN].account_of(agent)
    desk.claim(name, generation, profile=agent, account=payer)


def used_up(desk: Desk, name: str, generation: int = 1, *, delay_s: float = 100.0, told: bool = True) -> None:
    """Its attempt ends because its account has nothing left, which closes that."""
    desk.end(name, generation, outcome="quota", commit="b0", message="nothing left")
    times = desk.board.accounts["x"].times + 1 if "x" in desk.board.accounts else 1
    desk.write(E.ACCOUNT_CLOSED, account="x", delay_s=delay_s, told=told, times=times, why="nothing left")
    for found in decided(desk, Capacity()):
        if isinstance(found, Retry):
            assert found.kind == "quota"
            desk.write(E.RETRIED, found.order.removeprefix("wo-"), generation=generation, kind="quota", delay_s=0.0)


def opened(desk: Desk) -> list[object]:
    """What is decided now; an account that opens is a fact then."""
    found = decided(desk)
    for one in found:
        if isinstance(one, Open):
            desk.write(E.ACCOUNT_OPENED, account=one.account)
    return found


def test_the_first_answer_closes_the_account_for_all_its_agents_and_no_other() -> None:
    desk = floor_of("a1", "a2", "b1", "c1")
    claim(desk, "a1")
    used_up(desk, "a1")
    assert started(desk) == ["wo-c1"], "agents a and b have one account"
    record = desk.board.records["wo-a1"]
    assert (record.state, record.failures, record.lost, record.reworks) == (State.READY, 0, 0, 0)
    assert situation(desk.floor, record) == (State.WAITING, "waits for account 'x', which has nothing left for now")
    assert [one.name for one in build(desk.board, desk.board.runs[RUN]).closed] == ["x"]
    assert not is_over(desk)


def test_everything_goes_on_at_the_stated_time() -> None:
    desk = floor_of("a1", "a2", "b1")
    claim(desk, "a1")
    used_up(desk, "a1")
    assert started(desk) == []
    assert desk.floor.next_timer() == pytest.approx(desk.log.awake + 100.0)
    desk.log.pass_time(99.9)
    assert opened(desk) == []
    desk.log.pass_time(0.2)
    assert opened(desk) == [Open("x")]
    assert sorted(started(desk)) == ["wo-a1", "wo-a2", "wo-b1"]


@pytest.mark.parametrize(
    ("wall", "awake"), [(200.0, 0.0), (0.0, 200.0), (-9e5, 200.0)], ids=["slept", "ran", "set back"]
)
def test_either_clock_opens_it_and_none_keeps_it_closed(wall: float, awake: float) -> None:
    desk = floor_of("a1")
    claim(desk, "a1")
    used_up(desk, "a1")
    desk.log.wall += wall
    desk.log.awake += awake
    assert opened(desk)[0] == Open("x")


def test_a_clock_that_is_set_back_does_not_lengthen_it() -> None:
    desk = floor_of("a1")
    claim(desk, "a1")
    used_up(desk, "a1")
    desk.log.wall -= 9e5
    desk.floor.open(RUN, desk.log.now)
    assert desk.floor.next_timer() == pytest.approx(desk.log.awake + 100.0)


def test_it_is_still_closed_after_a_restart_and_only_for_what_is_left() -> None:
    desk = floor_of("a1", "a2")
    claim(desk, "a1")
    used_up(desk, "a1")
    desk.log.pass_time(60.0)
    desk.floor.open(RUN, desk.log.now)
    assert started(desk) == []
    assert desk.floor.next_timer() == pytest.approx(desk.log.awake + 40.0)


def test_after_a_guess_one_order_tries_the_account_first() -> None:
    desk = floor_of("a1", "a2", "a3", "b1")
    claim(desk, "a1")
    used_up(desk, "a1", told=False)
    desk.log.pass_time(101.0)
    assert Open("x") in opened(desk)
    assert started(desk) == ["wo-a1"]
    claim(desk, "a1", 2)
    assert started(desk) == []
    assert situation(desk.floor, desk.board.records["wo-a2"])[1].endswith("is tried with another order first")
    used_up(desk, "a1", 2, told=False)
    assert desk.board.accounts["x"].times == 2
    desk.log.pass_time(101.0)
    opened(desk)
    (first,) = started(desk)
    assert first == "wo-a1"
    claim(desk, "a1", 3)
    desk.write(E.AGENT_USAGE, "a1", generation=3, session="s")
    assert started(desk) == [], "a session is no answer"
    desk.write(E.AGENT_USAGE, "a1", generation=3, tokens_out=5)
    assert desk.board.accounts["x"].works
    assert sorted(started(desk)) == ["wo-a2", "wo-a3", "wo-b1"]


def test_who_was_refused_before_it_opened_closes_nothing_afterwards() -> None:
    desk = floor_of("a1", "b1", "a2")
    claim(desk, "a1")
    claim(desk, "b1")
    used_up(desk, "a1")
    desk.log.pass_time(101.0)
    opened(desk)
    claim(desk, "a1", 2)
    desk.write(E.AGENT_USAGE, "a1", generation=2, tokens_out=5)
    late, fresh = (desk.board.records[order].attempts[-1].claimed_at for order in ("wo-b1", "wo-a1"))
    known, wall = desk.board.accounts["x"], fresh + 5.0
    assert closing(known, claimed_at=late, reset_at=None, wall=wall) is None
    assert closing(known, claimed_at=fresh, reset_at=None, wall=wall) == {"delay_s": 60.0, "told": False, "times": 1}


@pytest.mark.parametrize("end", ["stopped", "lost", "spawn"])
def test_one_that_was_cut_off_tells_nothing_and_the_next_one_tries(end: str) -> None:
    desk = floor_of("a1", "a2")
    claim(desk, "a1")
    used_up(desk, "a1", told=False)
    desk.log.pass_time(101.0)
    opened(desk)
    assert started(desk) == ["wo-a1"]
    claim(desk, "a1", 2)
    desk.end("a1", 2, outcome=end, commit="b0")
    desk.settle("a1", "failed", reason="error")
    assert desk.board.accounts["x"].on_trial
    assert started(desk) == ["wo-a2"]


def test_what_nobody_of_ours_has_said_closes_nothing() -> None:
    desk = floor_of("a1")
    desk.take(desk.log.write(E.ACCOUNT_CLOSED, stamped=False, account="x", delay_s=100.0, told=True, times=1))
    desk.write(E.ACCOUNT_CLOSED, account=7, delay_s="x")
    desk.write(E.ACCOUNT_OPENED, account="x")
    assert desk.board.accounts == {}
    assert started(desk) == ["wo-a1"]


def test_a_run_whose_orders_do_not_need_it_does_not_wait_for_a_closed_account() -> None:
    desk = floor_of("c1")
    desk.write(E.ACCOUNT_CLOSED, account="x", delay_s=1e6, told=True, times=1)
    assert started(desk) == ["wo-c1"]
    desk.verified("c1")
    desk.land("c1")
    desk.settle("c1")
    assert decided(desk) == []
    assert is_over(desk)


def test_a_login_that_was_refused_is_not_tried_with_every_order() -> None:
    desk = begun(*(order(f"o{n}") for n in range(5)), settings={"agent": "cli"})
    desk.claim("o0")
    desk.end("o0", outcome="auth", commit="b0", message="invalid key")
    found = [type(one).__name__ for one in decided(desk)]
    assert "Hold" in found
    assert "Settle" in found
    assert "Start" not in found
