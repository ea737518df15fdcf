"""Several servers that do the same: how many calls each gets, what takes too long, what is worth moving."""

from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shopfloor.domain.servers import AGAIN_S, FIRST, MOST, Limit, Pace, Standing, Turns, end_of_queue_s, worth_moving

CLOCK = [0.0]


def settle(
    limit: Limit, takes: Callable[[int], float], rounds: int = 400, waits: Callable[[int], float] = lambda _: 0.0
) -> list[int]:
    """Keep a server full whose calls take, and wait, so long when so many are under way; the limits that were tried."""
    tried = [limit.value]
    for _ in range(rounds):
        under_way = limit.value
        took = takes(under_way)
        now = CLOCK[0] = CLOCK[0] + took
        for _ in range(under_way):
            limit.took(under_way, took, now, waits(under_way))
        if limit.value != tried[-1]:
            tried.append(limit.value)
    return tried


def test_a_server_with_one_thread_ends_at_one() -> None:
    assert settle(Limit(), lambda under_way: 10.0 * under_way, 40)[:7] == [16, 32, 16, 8, 4, 2, 1]


def test_where_calls_wait_for_their_turn_fewer_are_tried_first() -> None:
    limit, now = Limit(), 1.6
    for number in range(FIRST):
        assert limit.value == (FIRST if number < FIRST // 4 else FIRST // 4), "the places of most are not given again"
        limit.took(FIRST, 1.6, now, 0.75)
    tried = settle(limit, lambda under_way: 0.1 * under_way, 40, lambda under_way: 0.05 * (under_way - 1))
    assert tried[:3] == [4, 2, 1]


@pytest.mark.parametrize(
    ("workers", "tried"),
    [(2, [4, 2, 1]), (4, [4, 2, 4]), (8, [4, 32, 16, 8]), (64, [4, 32, 64, 128]), (300, [4, 32, 64])],
)
def test_a_sign_that_misleads_costs_one_look(workers: int, tried: list[int]) -> None:
    def takes(under_way: int) -> float:
        return 2.0 * max(1.0, under_way / workers)

    assert settle(Limit(), takes, 20, lambda under_way: takes(under_way) / 2)[: len(tried) + 1] == [16, *tried]


@pytest.mark.parametrize(("took", "waited"), [(0.2, 0.09), (2.0, 0.4)])
def test_a_wait_that_is_short_or_a_small_part_is_no_sign(took: float, waited: float) -> None:
    assert settle(Limit(), lambda _: took, 2, lambda _: waited)[:2] == [16, 32]


def test_a_server_that_works_on_many_at_once_ends_at_the_most() -> None:
    tried = settle(Limit(), lambda _: 0.1, 10)
    assert tried == [16, 32, 64, 128, 256, 128, 256]


@pytest.mark.parametrize("workers", [2, 4, 8, 64])
def test_a_server_with_some_workers_ends_near_their_number(workers: int) -> None:
    limit = Limit()
    kept = []
    for _ in range(40):
        settle(limit, lambda under_way: 0.1 * max(1.0, under_way / workers), 10)
        kept.append(limit.value)
    assert max(set(kept), key=kept.count) == workers


def test_a_server_that_changes_is_found_out() -> None:
    limit = Limit()
    settle(limit, lambda under_way: 0.1 * under_way, 60)
    assert limit.value <= 2
    assert max(settle(limit, lambda _: 0.1, 200)) == MOST


def test_calls_of_very_different_length_do_no_harm() -> None:
    lengths = iter([0.1, 0.1, 5.0, 0.2, 1.0, 0.1, 3.0, 0.5] * 1000)
    limit, now = Limit(), 0.0
    for _ in range(600):
        under_way = limit.value
        for _ in range(under_way):
            took = next(lengths, 1.0)
            now += took / under_way
            limit.took(under_way, took, now)
    assert limit.value >= 64


def test_a_limit_that_proved_itself_is_not_left_at_once() -> None:
    limit = Limit()
    settle(limit, lambda under_way: 0.001 * under_way, 200)
    assert limit.value == 1
    assert len(settle(limit, lambda under_way: 0.001 * under_way, 8000)) <= 1 + 2 * 8.0 / AGAIN_S


def test_an_average_that_is_off_in_its_last_digit_counts() -> None:
    limit = Limit()
    for _ in range(2 * FIRST):
        limit.took(FIRST + 1e-12, 1.0, 10.0)
    assert limit.value == 2 * FIRST


def test_the_pace_follows_what_is_answered_and_falls_when_nothing_is() -> None:
    pace = Pace()
    for tick in range(100):
        pace.count += 50
        pace.look(tick * 0.05)
    assert 900 <= pace.rate <= 1000
    pace.look(99 * 0.05 + 0.5)
    assert 450 <= pace.rate <= 500
    pace.look(1e9)
    assert pace.rate < 1e-6


def test_a_fixed_limit_stays() -> None:
    assert settle(Limit(7), lambda under_way: 1.0 * under_way) == [7]
    limit = Limit(7)
    limit.overloaded(1.0, 9.0)
    assert limit.value == 7


def test_no_more_than_there_are_connections_for() -> None:
    assert Limit(most=5).value == 5
    assert Limit(200, most=30).value == 30
    assert max(settle(Limit(most=70), lambda _: 0.1)) <= 70


def test_too_much_is_halved_once_for_all_that_were_under_way() -> None:
    limit = Limit()
    for _ in range(5):
        limit.overloaded(3.0, 10.0)
    assert limit.value == FIRST // 2
    limit.overloaded(1.0, 12.0)
    assert limit.value == FIRST // 4


def test_calls_that_began_before_a_change_say_nothing_of_it() -> None:
    limit = Limit()
    for _ in range(2 * FIRST):
        limit.took(FIRST, 1.0, 10.0)
    assert limit.value == 2 * FIRST
    for _ in range(100):
        limit.took(2 * FIRST, 5.0, 12.0)  # begun at 7
    assert limit.value == 2 * FIRST


@given(st.lists(st.tuples(st.integers(1, 300), st.floats(0, 1e6), st.booleans()), max_size=300), st.integers(1, 300))
def test_a_limit_is_always_one_that_can_be_kept(calls: list[tuple[int, float, bool]], most: int) -> None:
    limit, now = Limit(most=most), 0.0
    for under_way, took, bad in calls:
        now += took
        if bad:
            limit.overloaded(took, now)
        else:
            limit.took(under_way, took, now)
        assert 1 <= limit.value <= most


# -- time limits ----------------------------------------------------------------------------------------------------


def test_a_request_waits_for_those_before_it_in_a_server_with_one_thread() -> None:
    turns = Turns()
    numbers = [turns.send(0.0, 30.0) for _ in range(10)]
    for place, number in enumerate(numbers):
        now = 10.0 * (place + 1)
        turns.answered(number)
        assert turns.overdue(now) == []


def test_nothing_from_a_server_is_too_long_for_all() -> None:
    turns = Turns()
    numbers = [turns.send(0.0, 30.0), turns.send(5.0, 30.0)]
    assert turns.overdue(29.0) == []
    assert turns.overdue(31.0) == numbers[:1]
    assert turns.overdue(36.0) == numbers


def test_one_that_hangs_beside_others_is_noticed() -> None:
    turns = Turns()
    hangs = turns.send(0.0, 30.0)
    for second in range(1, 40):
        late = turns.overdue(float(second))
        assert late == ([hangs] if second >= 30 else [])
        turns.answered(turns.send(float(second), 30.0))


def test_what_is_gone_is_not_overdue_and_does_not_help_others() -> None:
    turns = Turns()
    first, second = turns.send(0.0, 1.0), turns.send(0.0, 1.0)
    turns.gone(first)
    assert turns.overdue(2.0) == [second]
    turns.gone(second)
    turns.answered(second)
    assert turns.overdue(9.0) == []


def test_limits_of_their_own() -> None:
    turns = Turns()
    turns.send(0.0, float("inf"))
    short = turns.send(0.0, 1.0)
    assert turns.shortest() == 1.0
    assert turns.overdue(1e9) == [short]


# -- moving ----------------------------------------------------------------------------------------------------------

IDLE = Standing(limit=4, under_way=0, queued=0, oldest_s=0.0, typical_s=1.0)


@pytest.mark.parametrize(
    ("home", "moves"),
    [
        (Standing(4, 4, 0, 99.0, 1.0), False),  # nothing waits
        (Standing(4, 4, 3, 0.9, 1.0), False),  # as fast as the other: it is about to be done
        (Standing(4, 4, 3, 0.1, 1.1), False),
        (Standing(4, 4, 9, 0.9, 1.0), True),  # as fast, but three rounds behind
        (Standing(4, 4, 1, 1.0, 10.0), True),  # ten times as slow
        (Standing(4, 4, 1, 60.0, 1.0), True),  # it hangs
        (Standing(4, 4, 1, 60.0, 0.0), True),  # it has never answered
    ],
)
def test_a_call_moves_from_a_slow_server_only(home: Standing, moves: bool) -> None:
    assert worth_moving(home, IDLE) is moves


def test_nothing_moves_while_nothing_is_known() -> None:
    assert not worth_moving(Standing(4, 4, 9, 60.0, 0.0), Standing(4, 0, 0, 0.0, 0.0))


def test_a_short_wait_is_not_worth_a_move() -> None:
    home = Standing(limit=1, under_way=1, queued=5, oldest_s=0.0, typical_s=0.01)
    assert end_of_queue_s(home, 0.01) == pytest.approx(0.06)
    assert not worth_moving(home, Standing(1, 0, 0, 0.0, 0.01))
