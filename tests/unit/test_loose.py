"""Orders of no run while a run goes on: sessions take them, no agent of ours does, the run does not wait for them."""

from typing import Any

import msgspec
import pytest

from shopfloor.domain.events import E, Stamp
from shopfloor.domain.holder import Holder, Wanted
from shopfloor.domain.order import Deliverable, Order

from .events_of import Desk, begun, decided, is_over, order, started

ANN = Holder(name="ann", pid=11, start_time=5, host="here", boot="b1")


def loose(name: str, **fields: Any) -> Order:
    return order(name, run="", deliverable=Deliverable.ANSWER, **fields)


def desk_with(*orders: Order) -> Desk:
    desk = begun(order("ours"))
    assert started(desk) == ["wo-ours"]
    for one in orders:
        desk.take(desk.log.create(one))
    return desk


def claim(desk: Desk, limit: int = 9, types: tuple[str, ...] = ()) -> list[str]:
    starts = desk.floor.loose.claim(limit, Wanted(types=types), desk.log.now)
    return [f"{start.order}:{start.generation}" for start in starts]


def take(desk: Desk, name: str, generation: int = 1) -> None:
    desk.write(E.ASSIGNED, name, generation=generation, attempt=f"wo-{name}.a{generation}", handle=ANN.handle())


def say(desk: Desk, kind: E, name: str, **data: Any) -> None:
    event = desk.log.write(kind, f"wo-{name}", stamped=False, handle=ANN.handle(), **data)
    desk.log.events[-1] = event = msgspec.structs.replace(event, sf=Stamp(0, len(desk.log.events)))
    desk.take(event)


def test_no_agent_is_started_on_them_and_sessions_get_them_by_priority() -> None:
    desk = desk_with(loose("a", priority=3), loose("b", priority=0), loose("c", issue_type="bug"))
    assert started(desk) == []
    assert claim(desk, types=("bug",)) == ["wo-c:1"]
    assert claim(desk, 1) == ["wo-b:1"]
    assert claim(desk) == ["wo-a:1"]
    assert claim(desk) == [], "each is offered once until something becomes of it"


def test_the_run_does_not_wait_for_what_a_session_holds_of_them() -> None:
    desk = desk_with(loose("a"))
    assert claim(desk) == ["wo-a:1"]
    take(desk, "a")
    assert desk.floor.held == {"wo-a": ANN}
    assert desk.floor.live == set()
    desk.claim("ours")
    desk.end("ours", outcome="error")
    assert len(decided(desk)) == 1
    desk.settle("ours", "failed")
    assert is_over(desk)


def test_what_was_given_back_or_not_written_is_offered_again() -> None:
    desk = desk_with(loose("a"))
    starts = desk.floor.loose.claim(1, Wanted(), desk.log.now)
    desk.floor.loose.unclaim(starts, desk.log.now)
    assert claim(desk) == ["wo-a:1"]
    take(desk, "a")
    say(desk, E.RELEASED, "a", generation=1, reason="released")
    assert desk.floor.held == {}
    assert claim(desk) == ["wo-a:2"]


def test_who_waits_for_another_is_offered_when_that_is_done() -> None:
    desk = desk_with(loose("a"), loose("b", needs=["a"]))
    assert claim(desk) == ["wo-a:1"]
    take(desk, "a")
    assert claim(desk) == []
    say(desk, E.AGENT_STOPPED, "a", generation=1, outcome="completed", message="42")
    assert claim(desk) == ["wo-b:1"]


def test_who_waits_for_an_order_of_the_run_is_offered_when_that_is_done() -> None:
    desk = desk_with(loose("a", needs=["ours"]))
    assert claim(desk) == []
    desk.verified("ours")
    desk.land("ours")
    desk.settle("ours")
    assert claim(desk) == ["wo-a:1"]


def test_what_is_set_aside_is_not_offered_until_it_is_open_again() -> None:
    desk = desk_with(loose("a"))
    desk.write(E.UPDATED, "a", changes={"status": "pending_user_input"}, generation=1)
    assert claim(desk) == []
    desk.write(E.UPDATED, "a", changes={"status": "open"}, generation=2)
    assert claim(desk) == ["wo-a:3"]
    desk.write(E.UPDATED, "a", changes={"status": "closed"}, generation=3)
    assert claim(desk) == []


def test_a_pause_is_one_for_them_too() -> None:
    desk = desk_with(loose("a"))
    desk.write(E.HANDLED, verb="pause", result="ok")
    assert claim(desk) == []
    desk.write(E.HANDLED, verb="resume", result="ok")
    assert claim(desk) == ["wo-a:1"]


@pytest.mark.parametrize("delay_s", [0.0, 60.0])
def test_who_is_to_wait_a_while_is_offered_after_it(delay_s: float) -> None:
    desk = desk_with(loose("a"))
    take(desk, "a")
    say(desk, E.RELEASED, "a", generation=1, reason="released", delay_s=delay_s)
    assert claim(desk) == ([] if delay_s else ["wo-a:2"])
    desk.log.pass_time(61.0)
    assert claim(desk) == (["wo-a:2"] if delay_s else [])


def test_those_that_were_there_before_the_run_are_offered_too() -> None:
    desk = Desk()
    desk.take(desk.log.create(loose("a")))
    desk.write(E.RUN_STARTED, run_id="run-1", branch="main")
    desk.floor.open("run-1", desk.log.now)
    assert claim(desk) == ["wo-a:1"]
