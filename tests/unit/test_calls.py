"""Attempts that are calls: their own slots, their own patience, and an end that is told at once."""

from typing import Any

import pytest

from shopfloor.domain.board import Board
from shopfloor.domain.calls import Calls
from shopfloor.domain.events import E, tells_end
from shopfloor.domain.floor import Capacity, Floor
from shopfloor.domain.judge import Hold, Retry, Settle, Start, certain
from shopfloor.domain.order import Deliverable, Order, State
from shopfloor.domain.plan import Plan, ageing_key
from shopfloor.domain.policy import Policy, backoff

from .events_of import RUN, Log, order

POLICY = Policy(barren=2, barren_calls=3)
ROOM = Capacity(starts=1, calls={"specs": 2})


def answer(name: str, **fields: Any) -> Order:
    return order(name, deliverable=Deliverable.ANSWER, agent="specs", **fields)


def begun(*orders: Order) -> tuple[Floor, Log]:
    floor, log = Floor(POLICY), Log()
    log.write(E.CONTROLLER_STARTED, generation=1, of_run=None)
    log.write(E.RUN_STARTED, run_id=RUN, agent="coder")
    for one in orders:
        log.create(one)
    floor.load(log.events)
    floor.open(RUN, log.now, frozenset({"specs"}))
    return floor, log


def claim(floor: Floor, log: Log, start: Start) -> None:
    what: dict[str, Any] = {"attempt": f"{start.order}.a{start.generation}", "profile": "specs", "call": True}
    floor.apply(log.write(E.ASSIGNED, start.order, generation=start.generation, **what), log.now)


def end(floor: Floor, log: Log, name: str, **fields: Any) -> None:
    generation = floor.board.records[name].generation
    known: dict[str, Any] = {"outcome": "error", "message": "refused", "transient": True}
    floor.apply(log.write(E.AGENT_STOPPED, name, generation=generation, **(known | fields)), log.now)


def done(floor: Floor, log: Log, name: str, text: str = ": sq dup * ;", kind: E = E.CLOSED) -> None:
    generation = floor.board.records[name].generation
    told = {"outcome": "completed", "message": text, "cost_usd": 0.5, "data": {"url": "u"}}
    floor.apply(log.write(kind, name, generation=generation, outcome="done", reason="done", end=told), log.now)


def test_calls_and_processes_do_not_wait_for_each_other() -> None:
    orders = [*(order(f"c{n}") for n in range(3)), *(answer(f"a{n}") for n in range(3))]
    floor, log = begun(*orders)
    started = [d.order for d in floor.decide(log.now, ROOM) if isinstance(d, Start)]
    assert started == ["wo-c0", "wo-a0", "wo-a1"]
    assert floor.decide(log.now, Capacity()) == []
    assert floor.decide(log.now, Capacity(calls={"specs": 9})) == [Start("wo-a2", 1)]


def test_a_change_by_an_agent_that_answers_is_no_call() -> None:
    floor, log = begun(order("c", agent="specs"), answer("a"))
    assert floor.decide(log.now, Capacity(calls={"specs": 5})) == [Start("wo-a", 1)]
    assert floor.decide(log.now, Capacity(starts=5)) == [Start("wo-c", 1)]


def test_calls_are_counted_while_they_are_under_way() -> None:
    floor, log = begun(*(answer(f"a{n}") for n in range(2)))
    for start in floor.decide(log.now, ROOM):
        assert isinstance(start, Start)
        claim(floor, log, start)
    assert (floor.calls.under_way("specs"), len(floor.calls), len(floor.live)) == (2, 2, 2)
    done(floor, log, "wo-a0")
    end(floor, log, "wo-a1")
    assert (floor.calls.under_way("specs"), len(floor.calls), len(floor.live)) == (0, 0, 0)
    assert Calls().lane(answer("x"), floor.board.runs[RUN]) == ""


@pytest.mark.parametrize("kind", [E.CLOSED, E.SETTLED], ids=["now", "in earlier logs"])
def test_the_end_of_a_call_and_of_its_order_is_one_line(kind: E) -> None:
    floor, log = begun(answer("a"))
    claim(floor, log, Start("wo-a", 1))
    run = floor.board.runs[RUN]
    assert (run.busy, run.peak) == (True, 1), "it is at work from its claim on"
    done(floor, log, "wo-a", kind=kind)
    assert tells_end(log.events[-1])
    record = floor.board.records["wo-a"]
    assert (record.state, record.message, record.attempts[0].outcome) == (State.DONE, ": sq dup * ;", "completed")
    assert (record.cost_usd, record.attempts[0].data, run.busy) == (0.5, {"url": "u"}, False)
    assert floor.finished
    assert floor.spent_usd == 0.5


@pytest.mark.parametrize("kind", [E.CLOSED, E.SETTLED])
@pytest.mark.parametrize("spoil", ["no call", "an older generation", "no controller", "not an object"])
def test_such_a_line_says_nothing_of_what_is_no_call_under_way(spoil: str, kind: E) -> None:
    log = Log()
    log.write(E.RUN_STARTED, run_id=RUN)
    log.create(answer("a"))
    log.write(E.ASSIGNED, "wo-a", generation=2, attempt="wo-a.a2", call=spoil != "no call")
    told: Any = "completed" if spoil == "not an object" else {"outcome": "completed", "message": "42"}
    generation = 1 if spoil == "an older generation" else 2
    log.write(
        kind, "wo-a", generation=generation, outcome="done", end=told, stamped=spoil != "no controller"
    )  # fmt: skip
    board = Board()
    for event in log.events:
        board.apply(event)
    record = board.records["wo-a"]
    assert (record.state, record.live, record.message) == (State.RUNNING, True, "")


def test_what_follows_from_an_answer_is_certain_unless_a_person_wants_it_to_end() -> None:
    floor, log = begun(answer("a"), order("c"))
    claim(floor, log, Start("wo-a", 1))
    record = floor.board.records["wo-a"]
    assert certain(record, "completed") == Settle("wo-a", State.DONE, None, "")
    assert certain(record, "error") is None
    assert certain(floor.board.records["wo-c"], "completed") is None
    floor.apply(log.write(E.HANDLED, "wo-a", verb="stop", result="ok"), log.now)
    assert certain(record, "completed") is None


def test_a_call_is_tried_again_soon() -> None:
    floor, log = begun(answer("a"))
    claim(floor, log, Start("wo-a", 1))
    end(floor, log, "wo-a")
    (retry,) = floor.decide(log.now, ROOM)
    assert isinstance(retry, Retry)
    assert retry.delay_s == backoff(POLICY, "wo-a", 1, call=True) < 0.1 < backoff(POLICY, "wo-a", 1)


def test_what_no_new_try_mends_fails_at_once_and_says_nothing_of_the_agent() -> None:
    floor, log = begun(*(answer(f"a{n}") for n in range(5)))
    for n in range(4):
        claim(floor, log, Start(f"wo-a{n}", 1))
        end(floor, log, f"wo-a{n}", transient=False, message="Invalid specification")
        decided = floor.decide(log.now, Capacity())
        assert [(d.outcome, d.message) for d in decided if isinstance(d, Settle)] == [
            (State.FAILED, "Invalid specification")
        ]
    assert floor.decide(log.now, ROOM) == [Start("wo-a4", 1)]


def test_an_agent_that_fails_every_call_is_left_alone_and_one_answer_is_enough() -> None:
    floor, log = begun(*(answer(f"a{n}") for n in range(6)))
    tried = ["wo-a0", "wo-a1", "wo-a2"]
    for attempt in (1, 2, 3):
        for name in tried:
            claim(floor, log, Start(name, attempt))
            end(floor, log, name)
            if attempt == 1 and name == "wo-a1":
                claim(floor, log, Start("wo-a5", 1))
                done(floor, log, "wo-a5")  # so the next ones begin a new row
            decided = floor.decide(log.now, Capacity())
            held = [d for d in decided if isinstance(d, Hold)]
            assert bool(held) == (attempt == 3 and name == "wo-a0"), (attempt, name)
            if held:
                return
            for retry in decided:
                assert isinstance(retry, Retry)
                data: dict[str, Any] = {"generation": attempt, "kind": "transient", "delay_s": 0.0}
                floor.apply(log.write(E.RETRIED, retry.order, **data), log.now)


def test_a_board_that_shed_what_was_answered_takes_back_only_that() -> None:
    floor, log = begun(*(answer(f"a{n}") for n in range(3)))
    for name in ("wo-a0", "wo-a1"):
        claim(floor, log, Start(name, 1))
    done(floor, log, "wo-a0")
    board, run = floor.board, floor.board.runs[RUN]
    board.forget_answered()
    assert (list(board.records), run.orders, board.absent) == (["wo-a1", "wo-a2"], ["wo-a1", "wo-a2"], {RUN})
    # The whole board may know more: that is on its way to this one as an event, which has to be news here.
    log.create(answer("a3"))
    whole = Board()
    for event in log.events:
        whole.apply(event)
    board.join(whole)
    assert (sorted(board.records), board.absent) == (["wo-a0", "wo-a1", "wo-a2"], set())
    assert run.orders == ["wo-a0", "wo-a1", "wo-a2"]
    assert board.records["wo-a0"].state is State.DONE
    floor.apply(log.events[-1], log.now)
    assert floor.decide(log.now, ROOM) == [Start("wo-a2", 1), Start("wo-a3", 1)]


def test_a_lane_has_its_own_heap_and_all_have_one_order() -> None:
    plan = Plan()
    for n, lane in enumerate(["", "a", "", "b", "a"]):
        plan.add(f"o{n}", ageing_key(0.0, 2, 0, n), (), (), lane)
    assert plan.pop(lane="a") == "o1"
    assert not plan.lacks("a")
    assert plan.pop(lambda name: name == "o3") == "o3"
    assert [plan.pop(), plan.pop(), plan.pop(), plan.pop()] == ["o0", "o2", "o4", None]
    assert plan.lacks("a")
    assert plan.pop(lane="unheard of") is None
    plan.queue("o1")
    assert (plan.pop(lane=""), plan.pop(lane="a")) == (None, "o1"), "it comes back to its own lane"
