"""An agent that fails whatever it is given is found out with a few starts, not with one for each order."""

from typing import Any

import pytest

from shopfloor.domain.events import E
from shopfloor.domain.floor import Capacity
from shopfloor.domain.judge import Hold, Retry
from shopfloor.domain.order import State
from shopfloor.domain.report import build
from shopfloor.domain.situation import situation

from .events_of import RUN, Desk, begun, decided, order, started

NOTHING = {"outcome": "error", "commit": "b0", "base": "b0", "transient": True, "message": "x: exit 1: sign in"}


def fails(desk: Desk, name: str, generation: int = 1, **data: Any) -> list[object]:
    """Its attempt ends with nothing done; what the floor decides, with retries made facts."""
    desk.claim(name, generation)
    desk.end(name, generation, **{**NOTHING, **data})
    found = decided(desk, Capacity())
    for retry in found:
        if isinstance(retry, Retry):
            desk.write(E.RETRIED, name, generation=generation, kind=retry.kind, delay_s=retry.delay_s)
    return found


def holds(found: list[object]) -> list[Hold]:
    return [d for d in found if isinstance(d, Hold)]


def hold(desk: Desk, found: list[object]) -> None:
    for one in holds(found):
        desk.write(E.AGENT_HELD, profile=one.agent, why=one.why)


def doubtful() -> Desk:
    """Three of nine orders have failed with nothing done."""
    desk = begun(*(order(f"o{n}") for n in range(9)), settings={"agent": "cli"})
    for name in ("o0", "o1", "o2"):
        assert not holds(fails(desk, name))
    return desk


def test_a_doubtful_agent_is_tried_again_with_one_order_alone() -> None:
    desk = doubtful()
    assert started(desk) == []
    assert not desk.floor.finished
    desk.log.pass_time(60.0)
    assert started(desk) == ["wo-o2"]
    assert situation(desk.floor, desk.board.records["wo-o5"])[0] is State.WAITING


def test_an_agent_that_goes_on_failing_is_held_and_the_rest_waits_for_a_person() -> None:
    desk = doubtful()
    desk.log.pass_time(60.0)
    assert started(desk) == ["wo-o2"]
    assert not holds(fails(desk, "o2", 2))
    desk.log.pass_time(60.0)
    assert started(desk) == ["wo-o2"]
    found = fails(desk, "o2", 3)
    assert [h.agent for h in holds(found)] == ["cli"]
    assert "3 orders one after the other" in holds(found)[0].why
    assert "x: exit 1: sign in" in holds(found)[0].why
    hold(desk, found)
    desk.log.pass_time(600.0)
    assert decided(desk) == []
    assert desk.floor.finished
    assert "nothing more is started" in situation(desk.floor, desk.board.records["wo-o7"])[1]


def test_a_new_session_begins_without_prejudice() -> None:
    desk = doubtful()
    desk.write(E.AGENT_HELD, profile="cli", why="it is dead")
    assert desk.floor.finished
    desk.write(E.RUN_STARTED, run_id=RUN)
    desk.floor.open(RUN, desk.log.now)
    assert len(started(desk)) == 6


ENDS = [{"commit": "c1"}, {"outcome": "completed"}, {"outcome": "timeout"}, {"exit_code": -9}]


@pytest.mark.parametrize("how", ENDS)
def test_a_probe_that_ends_otherwise_lets_the_others_start(how: dict[str, Any]) -> None:
    desk = doubtful()
    desk.log.pass_time(60.0)
    assert started(desk) == ["wo-o2"]
    desk.claim("o2", 2)
    desk.end("o2", 2, **{**NOTHING, **how})
    assert len(started(desk)) == 8


def test_a_probe_that_a_person_stops_lets_the_others_start() -> None:
    desk = doubtful()
    desk.settle("o2", "cancelled")
    desk.log.pass_time(60.0)
    assert len(started(desk)) == 8


def test_one_order_that_always_fails_says_nothing_about_its_agent() -> None:
    desk = begun(order("bad"), order("good"), settings={"agent": "cli"})
    for generation in (1, 2, 3, 4):
        assert not holds(fails(desk, "bad", generation))
        desk.log.pass_time(60.0)


def test_who_is_killed_from_outside_says_nothing_about_its_agent() -> None:
    desk = begun(*(order(f"o{n}") for n in range(6)), settings={"agent": "cli"})
    for name in ("o0", "o1", "o2", "o3"):
        fails(desk, name, exit_code=-9)
    desk.log.pass_time(60.0)
    assert len(started(desk)) == 6


def test_work_that_was_done_in_between_counts() -> None:
    desk = begun(*(order(f"o{n}") for n in range(6)), settings={"agent": "cli"})
    for name in ("o0", "o1"):
        fails(desk, name)
    desk.verified("o2")
    for name in ("o3", "o4"):
        fails(desk, name)
    desk.log.pass_time(60.0)
    assert len(started(desk)) == 5


def test_other_agents_go_on() -> None:
    desk = begun(*(order(f"o{n}") for n in range(3)), order("other", agent="second"), settings={"agent": "cli"})
    for name in ("o0", "o1", "o2"):
        fails(desk, name)
    assert started(desk) == ["wo-other"]
    desk.write(E.AGENT_HELD, profile="cli", why="it is dead")
    assert not desk.floor.finished


def test_a_strangers_line_holds_nobody() -> None:
    desk = begun(order("a"), settings={"agent": "cli"})
    desk.take(desk.log.write(E.AGENT_HELD, stamped=False, profile="cli", why="because"))
    assert started(desk) == ["wo-a"]


def test_the_report_says_why_orders_wait() -> None:
    desk = doubtful()
    desk.write(E.AGENT_HELD, profile="cli", why="it is dead")
    report = build(desk.board, desk.board.runs[RUN])
    assert report.held == {"cli": "it is dead"}
    assert report.counts["waiting"] == 9
    rows = {row.name: row for row in report.orders}
    assert rows["o0"].message == "x: exit 1: sign in"
    assert rows["o5"].message == ""
    assert rows["o0"].commit == "", "it has no work of its own"
