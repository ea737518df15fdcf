"""What other programs may change, and what it does to the fold, to the plan, and to a replay."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shopfloor.domain import edits, foreign
from shopfloor.domain.events import E
from shopfloor.domain.floor import Floor
from shopfloor.domain.graph import reaches
from shopfloor.domain.judge import Settle, Start
from shopfloor.domain.order import Order, Reason, Record, State
from shopfloor.domain.records import work_order
from shopfloor.domain.situation import situation

from .events_of import Desk, begun, decided, is_over, order, started


def update(desk: Desk, name: str, generation: int = 0, **changes: Any) -> None:
    fence: dict[str, Any] = {"generation": generation} if generation else {}
    event = desk.log.write(E.UPDATED, f"wo-{name}", changes=changes, **fence)
    desk.take(event)


def record_of(desk: Desk, name: str = "a") -> Record:
    return desk.board.records[f"wo-{name}"]


def replayed(desk: Desk) -> Floor:
    floor = Floor()
    floor.load(desk.log.events)
    return floor


def test_a_closed_order_never_starts_and_who_needs_it_is_told() -> None:
    desk = begun(order("a"), order("b", needs=["a"]), order("c"))
    update(desk, "a", 1, status="closed")
    assert (record_of(desk).state, record_of(desk).reason) == (State.CANCELLED, Reason.CLOSED)
    found = decided(desk)
    assert [d.order for d in found if isinstance(d, Start)] == ["wo-c"]
    assert [(d.order, d.reason) for d in found if isinstance(d, Settle)] == [("wo-b", Reason.DEPENDENCY)]
    desk.settle("b", "failed", reason="dependency")
    update(desk, "a", 2, status="open")
    update(desk, "b", 1, status="open")
    assert started(desk) == ["wo-a"]
    assert replayed(desk).board.records == desk.board.records


def test_a_decision_that_an_edit_overtook_is_taken_anew() -> None:
    desk = begun(order("a"), order("b"))
    assert started(desk) == ["wo-a", "wo-b"]
    update(desk, "a", 1, description="new words")
    update(desk, "b", 1, status="closed")
    [start] = decided(desk)
    assert start == Start("wo-a", 2)
    desk.claim("a", 2)
    desk.end("a", 2)
    desk.settle("a")
    assert is_over(desk)


def test_an_edit_of_what_is_at_work_decides_nothing_twice() -> None:
    desk = begun(order("a"))
    desk.claim("a")
    desk.end("a")
    assert len(decided(desk)) == 1, "it is verified"
    update(desk, "a", priority=0, labels=["x"], status="closed")
    assert decided(desk) == []
    assert record_of(desk).order.priority == 0
    assert [one.field for one in record_of(desk).collisions] == ["status"]


def test_what_another_program_has_is_left_to_it() -> None:
    desk = begun(order("a"), order("b"))
    update(desk, "a", 1, status="in_progress", assignee="slot1")
    assert started(desk) == ["wo-b"]
    assert situation(desk.floor, record_of(desk)) == (State.WAITING, "is worked on in another program: slot1")
    desk.claim("b")
    desk.settle("b")
    desk.end("b")
    desk.settle("b")
    assert is_over(desk), "what another program has keeps no run open"
    update(desk, "a", 2, status="open", assignee="")
    assert started(desk) == ["wo-a"]
    update(desk, "a", 3, status="assigned")
    desk.claim("a", 3)
    assert record_of(desk).elsewhere == "assigned", "a claim of an older generation comes too late"
    desk.claim("a", 4)
    assert (record_of(desk).state, record_of(desk).taken) == (State.RUNNING, False)


def test_urgency_and_needs_are_planned_anew() -> None:
    desk = begun(order("a"), order("b"), order("c", needs=["a"]))
    update(desk, "b", priority=0)
    update(desk, "c", 1, dependencies=[])
    update(desk, "a", 1, dependencies=[{"depends_on_id": "wo-b"}, {"depends_on_id": "wo-x", "type": "related"}])
    assert started(desk) == ["wo-b", "wo-c"]
    assert situation(desk.floor, record_of(desk)) == (State.WAITING, "waits for b")
    desk.verified("b")
    desk.land("b")
    desk.settle("b")
    assert started(desk) == ["wo-a"]


def test_what_an_order_is_related_to_changes_while_it_is_at_work() -> None:
    desk = begun(order("a"))
    desk.claim("a")
    related = [{"depends_on_id": "wo-x", "type": "related"}]
    assert not edits.fenced(record_of(desk), {"dependencies": related})
    assert edits.fenced(record_of(desk), {"dependencies": ["wo-x"]})
    update(desk, "a", dependencies=related)
    assert record_of(desk).order.extra["dependencies"] == related
    update(desk, "a", dependencies=["wo-x"])
    assert record_of(desk).order.depends_on == ()
    desk.end("a")
    assert record_of(desk).attempts[0].outcome == "completed", "its attempt is not a stale one for that"


def test_a_strangers_line_brings_no_circle() -> None:
    desk = begun(order("a"), order("b", needs=["a"]))
    event = desk.log.write(E.UPDATED, "wo-a", stamped=False, changes={"dependencies": ["wo-b"], "priority": 1})
    desk.take(event)
    assert record_of(desk).order.depends_on == ()
    assert record_of(desk).order.priority == 1
    assert reaches(["wo-b"], "wo-a", {"wo-b": ["wo-c"], "wo-c": ["wo-a"]}.__getitem__)
    assert not reaches(["wo-b"], "wo-a", {"wo-b": ["wo-c"], "wo-c": ["wo-b"]}.__getitem__)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("title", ""),
        ("title", 3),
        ("description", None),
        ("priority", 5),
        ("priority", True),
        ("priority", 2.0),
        ("issue_type", " "),
        ("status", []),
        ("assignee", 7),
        ("labels", "x"),
        ("labels", [1]),
        ("dependencies", {}),
        ("dependencies", [{"id": "wo-b"}]),
        ("dependencies", [{"depends_on_id": "wo-a"}]),
        ("metadata", []),
        ("created_at", "2026-01-06T12:00:00Z"),
        ("created_by", "me"),
    ],
)
def test_a_value_that_cannot_be_is_refused(field: str, value: object) -> None:
    record = Record(order=order("a"))
    assert edits.refusals(record, {field: value}).keys() == {field}


def test_a_wish_is_noted_once_and_not_without_end() -> None:
    desk = begun(order("a"))
    desk.claim("a")
    for number in range(3 * edits.MOST_COLLISIONS):
        refused = [{"field": "title", "theirs": f"t{number // 2}"}, {"field": 3}, "nonsense"]
        desk.write(E.VIEW_COLLISION, "a", refused=refused)
    assert len(record_of(desk).collisions) == edits.MOST_COLLISIONS
    before = record_of(desk).updated_at
    desk.log.pass_time(5.0)
    desk.write(E.VIEW_COLLISION, "a", refused=None)
    assert record_of(desk).updated_at == before


def published(*records: Record) -> list[foreign.Version]:
    return [foreign.version(work_order(record)) for record in records]


def test_a_line_without_our_seal_is_measured_by_its_time_and_state() -> None:
    wish = Order(id="wo-a", name="a", title="t", created_at=1_767_700_800.0)
    first = Record(order=wish, updated_at=1_767_700_801.0)
    second = Record(order=wish, state=State.RUNNING, updated_at=1_767_700_802.0)
    line = {key: value for key, value in work_order(first).items() if key != "metadata"}
    assert foreign.merge(line, published(first, second)) == ({}, {})
    edited = {**line, "title": "other", "updated_at": "2030-01-01T00:00:00Z"}
    assert foreign.merge(edited, published(first, second)).changes == {"title": "other"}
    back = {**line, "updated_at": "2030-01-01T00:00:00Z"}
    assert foreign.merge(back, published(first, second)).changes == {"status": "open"}


VALUES = (
    st.none() | st.booleans() | st.integers(-9, 9) | st.text(max_size=4) | st.lists(st.text(max_size=3), max_size=2)
)
KEYS = st.sampled_from(
    ["id", "title", "description", "status", "priority", "issue_type", "type", "created_at", "updated_at", "created_by",
     "assignee", "dependencies", "labels", "metadata", "x_team"]
)  # fmt: skip
THINGS = st.dictionaries(KEYS, VALUES | st.dictionaries(st.text(max_size=3), VALUES, max_size=2), max_size=8)


@given(st.lists(THINGS, max_size=4), st.booleans())
def test_no_line_however_malformed_breaks_the_merge(lines: list[dict[str, Any]], stamped: bool) -> None:
    desk = begun(order("a"))
    for line in lines:
        wanted = foreign.merge(line, published(record_of(desk)))
        bad = edits.refusals(record_of(desk), wanted.changes)
        good = {field: value for field, value in wanted.changes.items() if field not in bad}
        desk.take(desk.log.write(E.UPDATED, "wo-a", stamped=stamped, changes=good))
        desk.take(desk.log.write(E.UPDATED, "wo-a", stamped=stamped, changes=line))
        again = foreign.merge(work_order(record_of(desk)), published(record_of(desk)))
        assert again == ({}, {}), "what was taken in is no wish any more"
        if foreign.complaint({**line, "id": "wo-b"}) is None:
            data, state = foreign.creation_of({**line, "id": "wo-b"})
            desk.take(desk.log.write(E.CREATED, stamped=False, of_run=None, **data))
            assert "wo-b" in desk.board.records
            assert "id" not in state
    assert replayed(desk).board.records == desk.board.records
