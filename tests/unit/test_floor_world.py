"""Whole runs in a scripted world: whatever happens in whatever order, a run ends, and it ends as it should."""

from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from shopfloor.domain.board import at_rest
from shopfloor.domain.floor import Floor
from shopfloor.domain.order import FINAL, Deliverable, Order, Reason, State
from shopfloor.domain.report import build

from .events_of import order
from .world import ENDS, Plot, World

FILES = ["src", "src/a.py", "src/b/c.py", "docs/x.md", "README.md"]


@st.composite
def plots(draw: st.DrawFn, /, land: str = "auto", *, late: int = 0, **fixed: Any) -> Plot:
    number = draw(st.integers(1, 8))
    orders: list[Order] = []
    for n in range(number):
        needs = draw(st.lists(st.sampled_from([f"o{m}" for m in range(n)]), max_size=2)) if n else []
        deliverable = draw(st.sampled_from([Deliverable.CHANGE, Deliverable.CHANGE, Deliverable.ANSWER]))
        files = tuple(draw(st.lists(st.sampled_from(FILES), max_size=2)))
        more = {"priority": draw(st.integers(0, 4)), "allow_no_changes": draw(st.booleans())}
        orders.append(order(f"o{n}", needs=needs, files=files, deliverable=deliverable, **more))
    orders = draw(st.permutations(orders))
    cut = max(1, number - late)
    script = {o.id: draw(st.lists(st.sampled_from(ENDS), max_size=5)) for o in orders}
    return Plot(
        orders=orders[:cut], late=orders[cut:], script=script, land=land, seed=draw(st.integers(0, 10**6)), **fixed
    )


def played(plot: Plot) -> Floor:
    floor = World(plot).play()
    run, board = floor.run, floor.board
    assert run is not None
    report = build(board, run)
    assert sum(report.counts.values()) == len(run.orders) == len(plot.orders) + len(plot.late)
    assert not run.busy
    assert report.wall_s >= 0
    assert report.overhead_s <= report.wall_s + 1e-6
    for one in run.orders:
        record = board.records[one]
        needs = [board.records[need] for need in record.order.depends_on]
        if record.state is State.READY:
            assert any(at_rest(n, run) or n.state is State.READY for n in needs)
            assert report.counts["waiting"]
        else:
            assert at_rest(record, run)
        if any(n.state in (State.FAILED, State.CANCELLED) for n in needs) and not record.attempts:
            assert record.state in FINAL
            assert record.reason in (Reason.DEPENDENCY, Reason.STOPPED, Reason.BUDGET)
    return floor


@settings(max_examples=60)
@given(plots())
def test_a_run_ends_with_every_order_in_one_outcome(plot: Plot) -> None:
    floor = played(plot)
    assert all(r.state in FINAL for r in floor.board.records.values())


@settings(max_examples=60)
@given(plots(people=6, restarts=3, jumps=3))
def test_people_restarts_and_jumps_of_the_wall_clock(plot: Plot) -> None:
    floor = played(plot)
    assert all(r.state in FINAL for r in floor.board.records.values())


@settings(max_examples=60)
@given(plots(late=3, people=3, restarts=2))
def test_orders_that_are_created_while_the_run_goes_on(plot: Plot) -> None:
    floor = played(plot)
    assert all(r.state in FINAL for r in floor.board.records.values())


@settings(max_examples=60)
@given(plots("review", people=8, restarts=2))
def test_review_leaves_verified_ones_for_a_person(plot: Plot) -> None:
    floor = played(plot)
    for record in floor.board.records.values():
        assert record.state in FINAL | {State.VERIFIED, State.READY}


@settings(max_examples=60)
@given(plots("off", people=6, restarts=2))
def test_without_landing_dependants_start_from_what_is_verified(plot: Plot) -> None:
    floor = played(plot)
    for record in floor.board.records.values():
        assert record.state in FINAL | {State.VERIFIED}
        assert not record.merge or record.state is State.DONE


@settings(max_examples=60)
@given(plots(budget_usd=0.5, people=3, restarts=2))
def test_a_spent_budget_ends_the_run(plot: Plot) -> None:
    floor = played(plot)
    assert all(r.state in FINAL for r in floor.board.records.values())
