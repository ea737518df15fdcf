"""The floor, case by case."""

from random import Random

import pytest

from shopfloor.domain.errors import UsageError
from shopfloor.domain.events import E
from shopfloor.domain.floor import Capacity, Floor, Now
from shopfloor.domain.judge import Land, Retry, Settle, Start, Stop, Verify
from shopfloor.domain.order import Deliverable, Reason, State
from shopfloor.domain.plan import AGEING_S
from shopfloor.domain.policy import Policy, backoff
from shopfloor.domain.situation import situation

from .events_of import ROOM, RUN, START_S, Desk, Log, begun, decided, is_over, order, started
from .world import HOURS_6


def is_spent(desk: Desk) -> bool:
    return desk.floor.over_budget


def test_a_floor_without_a_run_decides_nothing() -> None:
    floor = Floor()
    assert floor.decide(Now(START_S, 0.0), ROOM) == []
    assert floor.finished
    assert not floor.over_budget
    floor.apply(Log().write(E.RUN_STARTED, run_id=RUN), Now(START_S, 0.0))
    assert floor.decide(Now(START_S, 0.0), ROOM) == []


def test_a_change_is_started_checked_landed_and_done() -> None:
    desk = begun(order("a"))
    assert decided(desk) == [Start("wo-a", 1)]
    desk.claim("a")
    assert decided(desk) == []
    desk.end("a")
    assert decided(desk) == [Verify("wo-a")]
    assert desk.floor.checking == {"wo-a"}
    desk.check("a")
    assert desk.floor.checking == set()
    assert decided(desk) == [Land(("wo-a",))]
    assert desk.floor.landing == {"wo-a"}
    desk.land("a")
    assert desk.floor.landing == set()
    assert decided(desk) == [Settle("wo-a", State.DONE, None, "")]
    assert not is_over(desk)
    desk.settle("a")
    assert decided(desk) == []
    assert is_over(desk)


def test_capacity_is_kept() -> None:
    desk = begun(*(order(f"o{n}") for n in range(4)))
    assert len(decided(desk, Capacity(starts=2))) == 2
    for name in ("o0", "o1"):
        desk.claim(name)
        desk.end(name)
    assert decided(desk, Capacity(checks=1)) == [Verify("wo-o0")]
    assert desk.floor.checking == {"wo-o0"}
    assert decided(desk, Capacity(checks=1)) == [Verify("wo-o1")]
    for name in ("o0", "o1"):
        desk.check(name)
    assert decided(desk, Capacity()) == []
    assert decided(desk, Capacity(landing=True)) == [Land(("wo-o0", "wo-o1"))]
    assert desk.floor.landing == {"wo-o0", "wo-o1"}


def batch(desk: Desk) -> tuple[str, ...]:
    (found,) = decided(desk, Capacity(landing=True))
    assert isinstance(found, Land)
    return tuple(order.removeprefix("wo-") for order in found.orders)


def landing_begins(desk: Desk) -> tuple[str, ...]:
    """The next batch, and the lines that say so."""
    names = batch(desk)
    for place, name in enumerate(names):
        desk.write(E.LANDING_STARTED, name, generation=1, place=place)
    return names


def landed(desk: Desk, *names: str) -> None:
    for name in names:
        desk.write(E.LANDING_LANDED, name, commit="m", observed="m")
        desk.settle(name)


def queued_again(desk: Desk, *names: str) -> None:
    for name in names:
        desk.write(E.LANDING_REFUSED, name, generation=1, again=True)


def red_batch(desk: Desk, good: int = 1) -> int:
    """A batch of which some land, the next is to blame, and the rest queues again; how many there were."""
    names = landing_begins(desk)
    landed(desk, *names[:good])
    for bad in names[good : good + 1]:
        desk.write(E.LANDING_REFUSED, bad, generation=1, reason="checks")
        desk.settle(bad, "failed")
    queued_again(desk, *names[good + 1 :])
    return len(names)


def green_batch(desk: Desk) -> int:
    names = landing_begins(desk)
    landed(desk, *names)
    return len(names)


def verified_ones(count: int, most: int) -> Desk:
    names = [f"o{n:03}" for n in range(count)]
    desk = begun(*map(order, names), policy=Policy(batch=most))
    for name in names:
        desk.verified(name)
    return desk


def test_batches_are_halved_as_red_ones_follow_each_other_and_grow_back() -> None:
    desk = verified_ones(80, 16)
    assert [red_batch(desk) for _ in range(5)] == [16, 16, 8, 4, 2], "one red batch is no reason yet"
    assert [green_batch(desk) for _ in range(8)] == [1, 2, 4, 8, 16, 16, 16, 7]


def test_after_many_red_batches_in_a_row_a_few_green_ones_are_enough() -> None:
    desk = verified_ones(120, 4)
    assert [red_batch(desk, good=0) for _ in range(40)][-1] == 1
    assert [green_batch(desk) for _ in range(6)] == [1, 1, 1, 1, 2, 4]


def test_a_conflict_makes_no_batch_red() -> None:
    desk = verified_ones(40, 4)
    for _ in range(4):
        first, *rest = landing_begins(desk)
        desk.write(E.LANDING_REFUSED, first, generation=1, reason="conflict")
        desk.settle(first, "failed")
        queued_again(desk, *rest)
    assert green_batch(desk) == 4


def test_a_floor_that_knows_only_the_log_takes_batches_of_the_same_size() -> None:
    desk = verified_ones(40, 16)
    for _ in range(4):
        red_batch(desk)
    again = Floor(desk.floor.policy)
    again.load(desk.log.events)
    again.open(RUN, desk.log.now)
    room = Capacity(landing=True)
    assert again.decide(desk.log.now, room) == desk.floor.decide(desk.log.now, room)


@pytest.mark.parametrize("seed", range(20))
def test_no_verified_order_waits_for_newer_ones_for_ever(seed: int) -> None:
    # The worst that can happen to it: only the first of each batch is ever decided, and urgent orders keep coming.
    chance = Random(seed)
    desk = begun(order("old", priority=4), policy=Policy(batch=5))
    desk.verified("old")
    older, count = 0, 0
    for turn in range(400):
        desk.log.pass_time(chance.choice([10.0, 60.0, 300.0]))
        for _ in range(chance.randrange(3)):
            count += 1
            late = order(f"n{count}", priority=chance.randrange(5))
            desk.take(desk.log.create(late))
            desk.verified(late.name)
            older += desk.log.wall + late.priority * AGEING_S < START_S + 4 * AGEING_S
        first, *rest = landing_begins(desk)
        if first == "old":
            assert turn <= older
            return
        ends = chance.choice([{"reason": "conflict"}, {"reason": "checks"}, {}])
        if ends:
            desk.write(E.LANDING_REFUSED, first, generation=1, **ends)
            desk.settle(first, "failed")
        else:
            landed(desk, first)
        queued_again(desk, *rest)
    raise AssertionError(f"it never came first, with {older} before it")


def test_what_has_to_queue_again_keeps_its_place() -> None:
    desk = begun(order("a"), order("b"), order("c"), policy=Policy(batch=2))
    for name in ("c", "a", "b"):
        desk.verified(name)
    assert batch(desk) == ("a", "b")
    queued_again(desk, "b", "a")
    assert batch(desk) == ("a", "b"), "not behind the one that came later"


def test_nothing_lands_by_itself_after_it_was_held_not_even_what_was_accepted() -> None:
    desk = begun(order("a"), order("b"), settings={"land": "review"})
    for name in ("a", "b"):
        desk.verified(name)
        desk.write(E.HANDLED, name, verb="accept", result="ok")
    assert batch(desk) == ("a", "b")
    desk.write(E.LANDING_HELD, why="red on the target too")
    for name in ("a", "b"):
        desk.write(E.LANDING_REFUSED, name, generation=1, again=True, hold=True)
    assert decided(desk) == []
    assert is_over(desk)
    assert desk.board.runs[RUN].landing_held == "red on the target too"
    desk.write(E.HANDLED, "b", verb="accept", result="ok")
    assert batch(desk) == ("b",)
    desk.land("b")
    assert desk.board.runs[RUN].landing_held == ""


def test_a_held_run_lands_nothing_more() -> None:
    desk = begun(order("a"), settings={"land": "auto"})
    desk.verified("a")
    assert batch(desk) == ("a",)
    desk.write(E.LANDING_HELD, why="red")
    desk.write(E.LANDING_REFUSED, "a", generation=1, again=True, hold=True)
    assert decided(desk) == []
    assert is_over(desk)


def test_a_batch_has_a_limit() -> None:
    desk = begun(*(order(f"o{n}") for n in range(3)), policy=Policy(batch=2))
    for n in range(3):
        desk.verified(f"o{n}")
    assert decided(desk, Capacity(landing=True)) == [Land(("wo-o0", "wo-o1"))]
    assert decided(desk, Capacity(landing=True)) == [Land(("wo-o2",))]


@pytest.mark.parametrize("late", [E.AGENT_USAGE, E.HANDLED, E.REQUEST])
def test_no_decision_is_handed_out_twice_while_its_fact_is_on_the_way(late: E) -> None:
    desk = begun(order("a", files=("x",)), order("b", files=("x",)))

    def nothing_new() -> None:
        desk.write(late, "a", verb="accept", result="ok")
        assert decided(desk) == []

    assert started(desk) == ["wo-a"]
    nothing_new()
    desk.claim("a")
    nothing_new()
    desk.end("a")
    assert decided(desk) == [Verify("wo-a")]
    nothing_new()
    desk.write(E.VERIFY_STARTED, "a")
    nothing_new()
    desk.write(E.VERIFY_VERDICT, "a", verdict="UNSURE")
    assert decided(desk) == [Verify("wo-a")]
    desk.write(E.VERIFY_STARTED, "a")
    nothing_new()
    desk.write(E.VERIFY_VERDICT, "a", verdict="PASS", commit="c")
    assert decided(desk) == [Land(("wo-a",))]
    nothing_new()
    desk.write(E.LANDING_STARTED, "a")
    nothing_new()
    desk.write(E.LANDING_REFUSED, "a", again=True)
    assert decided(desk) == [Land(("wo-a",))]
    desk.write(E.LANDING_STARTED, "a")
    desk.write(E.LANDING_REFUSED, "a", reason="conflict", message="both")
    assert decided(desk) == [Retry("wo-a", "rework", 0.0, "both", "both")]
    nothing_new()


def test_two_facts_before_a_decision_make_one_decision() -> None:
    desk = begun(order("a", deliverable=Deliverable.ANSWER))
    desk.claim("a")
    desk.end("a")
    desk.write(E.AGENT_USAGE, "a", cost_usd=0.1)
    assert [type(d) for d in decided(desk)] == [Settle]


def test_dependants_wait_and_fail_with_what_they_need() -> None:
    desk = begun(order("c", needs=["b"]), order("b", needs=["a"]), order("a"))
    assert started(desk) == ["wo-a"]
    desk.claim("a")
    desk.settle("a")  # nobody ends an order whose agent is alive
    assert started(desk) == []
    desk.end("a", outcome="timeout")
    assert [type(d) for d in decided(desk)] == [Settle]
    desk.settle("a", "failed", reason="timeout")
    assert not is_over(desk)
    text = "'a' failed, and this order needs it"
    assert decided(desk) == [Settle("wo-b", State.FAILED, Reason.DEPENDENCY, text)]
    assert not is_over(desk)
    desk.settle("b", "cancelled")
    text = "'b' was cancelled, and this order needs it"
    assert decided(desk) == [Settle("wo-c", State.FAILED, Reason.DEPENDENCY, text)]
    assert decided(desk) == []


def test_dependants_are_spared_when_the_cause_is_tried_again_before_anything_was_decided() -> None:
    desk = begun(order("b", needs=["a"]), order("a"))
    desk.settle("a", "failed")
    desk.write(E.RETRIED, "a", kind="manual")
    assert decided(desk) == [Start("wo-a", 1)]
    desk.settle("a")
    assert started(desk) == ["wo-b"]


def test_a_retry_of_all_in_any_order_dooms_nobody() -> None:
    desk = begun(order("c", needs=["b"]), order("b", needs=["a"]), order("a"))
    for name in "abc":
        desk.settle(name, "failed")
    assert decided(desk) == []
    for name in "acb":
        desk.write(E.RETRIED, name, kind="manual")
    assert decided(desk) == [Start("wo-a", 1)]


def test_a_dependant_tried_again_alone_fails_again() -> None:
    desk = begun(order("b", needs=["a"]), order("a"))
    desk.settle("a", "failed")
    assert len(decided(desk)) == 1
    desk.settle("b", "failed", reason="dependency")
    desk.write(E.RETRIED, "b", kind="manual")
    assert [type(d) for d in decided(desk)] == [Settle]


def test_what_was_verified_and_then_sent_back_holds_its_dependants_again() -> None:
    desk = begun(order("a"), order("b", needs=["a"]), settings={"land": "off"})
    desk.verified("a")
    assert situation(desk.floor, desk.board.records["wo-b"]) == (State.READY, "")
    desk.write(E.RETRIED, "a", kind="manual")
    assert started(desk) == ["wo-a"]
    desk.claim("a", 2)
    desk.end("a", 2)
    desk.check("a", generation=2)
    assert started(desk) == ["wo-b"]


def test_an_order_that_is_named_before_it_exists_is_waited_for_once_it_does() -> None:
    desk = begun()
    desk.take(desk.log.create(order("b", needs=["a"])))
    desk.take(desk.log.create(order("a")))
    assert started(desk) == ["wo-a"]


def test_what_nobody_ever_created_is_not_waited_for() -> None:
    assert started(begun(order("b", needs=["nobody"]))) == ["wo-b"]


def test_what_was_delivered_before_is_not_waited_for() -> None:
    desk = begun()
    desk.take(desk.log.create(order("x", run="")))
    desk.settle("x")
    desk.take(desk.log.create(order("b", needs=["x"])))
    assert started(desk) == ["wo-b"]
    desk.floor.open(RUN, desk.log.now)
    desk.take(desk.log.create(order("c", needs=["x"])))
    assert started(desk) == ["wo-b", "wo-c"]


def test_a_run_is_not_over_while_a_check_is_still_to_be_made() -> None:
    desk = begun(order("a"), order("b", needs=["a"]), settings={"land": "off"})
    desk.verified("a")
    desk.claim("b")
    desk.write(E.RETRIED, "a", kind="manual")
    desk.settle("a", "failed")
    desk.end("b")
    assert decided(desk, Capacity()) == []
    assert not is_over(desk)
    assert decided(desk) == [Verify("wo-b")]


def test_urgent_orders_start_first_then_those_created_first() -> None:
    desk = begun(order("c"), order("b"), order("z", priority=0), order("a"))
    assert started(desk) == ["wo-z", "wo-c", "wo-b", "wo-a"]


def test_a_check_that_was_begun_anew_is_no_book_entry() -> None:
    desk = begun(order("a"))
    desk.claim("a")
    desk.end("a")
    desk.check("a", "FAIL")
    desk.write(E.VERIFY_STARTED, "a", generation=1)
    assert decided(desk, Capacity()) == []
    assert decided(desk) == [Verify("wo-a")]


def test_orders_of_another_run_release_and_doom_too() -> None:
    desk = begun()
    for name in ("x", "y"):
        desk.take(desk.log.create(order(name, run="")))
    desk.take(desk.log.create(order("b", needs=["x"])))
    desk.take(desk.log.create(order("c", needs=["y"])))
    assert decided(desk) == []
    assert is_over(desk)
    desk.settle("x")
    desk.settle("y", "failed")
    assert [d.order for d in decided(desk) if isinstance(d, Start | Settle)] == ["wo-c", "wo-b"]


def test_a_circle_is_named() -> None:
    with pytest.raises(UsageError, match=r"'a' waits for 'b' waits for 'a'|'b' waits for 'a' waits for 'b'"):
        begun(order("a", needs=["b"]), order("b", needs=["a"]))


# -- money ------------------------------------------------------------------------------------------------------------


def test_a_spent_budget_stops_what_runs_and_starts_nothing() -> None:
    desk = begun(order("a"), order("b"), order("c", needs=["b"]), settings={"budget_usd": 0.3})
    desk.claim("a")
    for cost in (0.1, 0.2, 0.2):
        desk.write(E.AGENT_USAGE, "a", cost_usd=cost)
    assert not is_spent(desk)
    assert desk.floor.spent_usd == 0.2
    desk.write(E.AGENT_USAGE, "a", cost_usd=0.1 + 0.2)
    assert is_spent(desk)
    text = "the budget of 0.3 USD is spent (0.3 USD)"
    assert decided(desk) == [Stop("wo-a", Reason.BUDGET), Settle("wo-b", State.FAILED, Reason.BUDGET, text)]
    desk.write(E.AGENT_USAGE, "a", steps=1)
    desk.write(E.HANDLED, "b", verb="stop", result="ok")
    assert decided(desk) == []
    desk.end("a", outcome="budget", commit="")
    assert decided(desk) == [Settle("wo-a", State.FAILED, Reason.BUDGET, "")]


def test_costs_of_many_attempts_add_up_exactly() -> None:
    desk = begun(*(order(f"o{n}") for n in range(10)), settings={"budget_usd": 1.0})
    for n in range(10):
        assert not is_spent(desk)
        desk.claim(f"o{n}")
        desk.write(E.AGENT_USAGE, f"o{n}", cost_usd=0.1)
    assert is_spent(desk)
    assert desk.floor.spent_usd == 1.0


# -- clocks -----------------------------------------------------------------------------------------------------------


def failed_once(policy: Policy) -> tuple[Desk, float]:
    desk = begun(order("a"), policy=policy)
    desk.claim("a")
    desk.end("a", outcome="error", transient=True)
    (retry,) = decided(desk)
    assert isinstance(retry, Retry)
    desk.write(E.RETRIED, "a", kind="transient", delay_s=retry.delay_s)
    return desk, retry.delay_s


def test_a_back_off_is_waited_for_on_the_awake_clock() -> None:
    policy = Policy(backoff_s=60.0)
    desk, delay = failed_once(policy)
    assert delay == backoff(policy, "wo-a", 1)
    assert desk.floor.next_timer() == pytest.approx(delay)
    assert not is_over(desk)
    assert situation(desk.floor, desk.board.records["wo-a"]) == (State.WAITING, "waits before it is tried again")
    desk.log.pass_time(delay - 1.0)
    assert decided(desk) == []
    due = desk.floor.next_timer()
    assert due is not None
    desk.log.awake = due
    assert decided(desk, Capacity()) == []
    desk.write(E.AGENT_USAGE, "a", steps=1)
    assert desk.floor.next_timer() is None
    assert decided(desk) == [Start("wo-a", 2)]


@pytest.mark.parametrize("jump", [HOURS_6, -HOURS_6])
def test_a_jump_of_the_wall_clock_neither_lengthens_nor_shortens_a_back_off_that_has_begun(jump: float) -> None:
    desk, delay = failed_once(Policy(backoff_s=60.0))
    desk.log.pass_time(delay - 1.0)
    desk.log.wall += jump
    desk.write(E.AGENT_USAGE, "a", cost_usd=0.1)
    assert decided(desk) == []
    desk.log.pass_time(1.001)
    desk.log.wall -= 2 * jump
    desk.write(E.AGENT_USAGE, "a", cost_usd=0.1)
    assert decided(desk) == [Start("wo-a", 2)]


@pytest.mark.parametrize(("jump", "left"), [(0.0, 1.0), (HOURS_6, 0.0), (-HOURS_6, 1.0)])
def test_after_a_restart_at_most_the_whole_back_off_is_waited_for(jump: float, left: float) -> None:
    desk, delay = failed_once(Policy(backoff_s=60.0))
    again = Floor(desk.floor.policy)
    again.load(desk.log.events)
    again.open(RUN, Now(desk.log.wall + jump, 5.0))
    due = again.next_timer()
    assert (due or 5.0) == pytest.approx(5.0 + left * delay, abs=0.01)


def test_a_person_does_not_wait_for_a_back_off() -> None:
    desk, _ = failed_once(Policy(backoff_s=60.0))
    desk.write(E.RETRIED, "a", kind="manual")
    assert decided(desk) == [Start("wo-a", 2)]


def test_an_old_timer_wakes_nobody() -> None:
    desk, delay = failed_once(Policy(backoff_s=60.0))
    desk.claim("a", 2)
    desk.end("a", 2, outcome="error", transient=True)
    desk.write(E.RETRIED, "a", kind="transient", delay_s=500.0)
    desk.log.pass_time(delay)
    assert decided(desk) == []
    assert desk.floor.next_timer() == pytest.approx(500.0)


def test_a_cancelled_order_holds_the_run_up_no_longer() -> None:
    desk, _ = failed_once(Policy(backoff_s=60.0))
    desk.settle("a", "cancelled")
    assert is_over(desk)
    assert desk.floor.next_timer() is None


# -- words and restarts -----------------------------------------------------------------------------------------------


def test_what_an_order_waits_for_is_said() -> None:
    desk = begun(order("a", files=("src",)), order("b", needs=["a"]), order("c", files=("src/x",)), order("d"))
    assert len(started(desk)) == 2
    desk.claim("a")
    words = {r.order.name: situation(desk.floor, r) for r in desk.board.records.values()}
    assert words == {
        "a": (State.RUNNING, ""),
        "b": (State.WAITING, "waits for a"),
        "c": (State.WAITING, "waits for a file that a works on"),
        "d": (State.READY, ""),
    }


def test_of_orders_of_one_age_the_one_with_more_behind_it_starts_first() -> None:
    desk = begun(order("x"), order("a"), order("b", needs=["a"]))
    assert started(desk) == ["wo-a", "wo-x"]


def test_an_order_that_comes_back_after_a_restart_keeps_its_place() -> None:
    desk = begun(order("a"), order("b"))
    desk.settle("a", "failed")
    desk.floor.open(RUN, desk.log.now)
    desk.write(E.RETRIED, "a", kind="manual")
    assert started(desk) == ["wo-a", "wo-b"]


def test_a_floor_can_be_opened_again() -> None:
    desk = begun(order("a"), order("b"), settings={"budget_usd": 1.0})
    assert started(desk) == ["wo-a", "wo-b"]
    desk.claim("a")
    desk.write(E.AGENT_USAGE, "a", cost_usd=0.4)
    desk.floor.open(RUN, desk.log.now)
    assert desk.floor.spent_usd == 0.4
    assert desk.floor.live == {"wo-a"}
    assert started(desk) == ["wo-b"]


def test_a_restart_keeps_the_files_of_what_is_at_work() -> None:
    desk = begun(order("b", files=("x",)), order("a", files=("x",), priority=0))
    assert started(desk) == ["wo-a"]
    desk.claim("a")
    again = Floor()
    again.load(desk.log.events)
    again.open(RUN, desk.log.now)
    assert again.decide(desk.log.now, ROOM) == []
    assert again.plan.held_by("wo-b") == "wo-a"
