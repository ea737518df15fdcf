"""The fold: only lines that count change anything, once, and a record read back from its line is the same order."""

from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from shopfloor.domain.board import Board, at_rest, counts, creation, fold
from shopfloor.domain.events import OPEN_TO_ALL, E, Event, Stamp, read_time, stamp_time
from shopfloor.domain.order import Deliverable, Order, Record, State

from .events_of import RUN, START_S, Desk, Log, begun, order, state_of

WORD = st.text(min_size=1, max_size=12)
ORDERS = st.builds(
    Order,
    id=WORD,
    name=WORD,
    title=st.text(max_size=12),
    instruction=st.text(max_size=12),
    deliverable=st.sampled_from(Deliverable),
    depends_on=st.lists(WORD, max_size=3).map(tuple),
    files=st.lists(st.text(max_size=5), max_size=3).map(tuple),
    checks=st.lists(WORD, max_size=3).map(tuple),
    priority=st.integers(-5, 9),
    agent=st.text(max_size=5),
    timeout_s=st.none() | st.floats(0, 1e6),
    allow_no_changes=st.booleans(),
    issue_type=WORD,
    source=st.text(max_size=5),
    run=st.text(max_size=5),
    created_at=st.integers(0, 4_000_000_000_000).map(lambda ms: ms / 1000),
    created_by=WORD,
    labels=st.lists(WORD, max_size=2).map(tuple),
    extra=st.dictionaries(WORD, WORD, max_size=2),
)


@given(ORDERS)
def test_an_order_comes_back_from_its_line_as_it_was(made: Order) -> None:
    log = Log()
    log.wall = made.created_at
    event = msgspec.json.decode(msgspec.json.encode(log.create(made)), type=Event)
    record = fold(None, event)
    assert record is not None
    assert record.order == made
    assert record.created_seq == 1


def test_a_line_of_another_program_creates_an_order() -> None:
    event = Log().write(E.CREATED, "wo-x", stamped=False, of_run=None, title="Mend it", type="bug", shopfloor=7)
    record = fold(None, event)
    assert record is not None
    assert (record.order.name, record.order.issue_type, record.order.created_by) == ("wo-x", "bug", "somebody")


def test_a_line_that_names_nothing_but_an_id_is_enough() -> None:
    record = fold(None, Log().write(E.CREATED, "wo-x", stamped=False, of_run=None))
    assert record is not None
    assert record.order == Order(id="wo-x", name="wo-x", title="", created_at=START_S, created_by="somebody")


def test_a_claim_that_does_not_count_changes_no_record() -> None:
    record = fold(None, Log().create(order("a")))
    assert fold(record, Log().write(E.SETTLED, "wo-a", stamped=False, outcome="done")) is record
    assert record is not None
    assert record.state is State.READY


@pytest.mark.parametrize(
    "data",
    [{}, {"work_order_id": 7}, {"work_order_id": "wo-x", "priority": "high"}, {"work_order_id": "wo-x", "title": 3}],
)
def test_a_creation_that_cannot_be_read_creates_nothing(data: dict[str, Any]) -> None:
    board = Board()
    assert board.apply(Log().write(E.CREATED, **data)) == ""
    assert not board.records


def test_a_line_about_nobody_changes_nothing() -> None:
    board = Board()
    assert board.apply(Log().write(E.SETTLED, "wo-x", outcome="done")) == ""
    assert fold(None, Log().write(E.SETTLED, "wo-x", outcome="done")) is None


CLAIMS = [e for e in E if e not in OPEN_TO_ALL]
LOUD: dict[str, Any] = {
    "outcome": "done", "verdict": "PASS", "commit": "x", "observed": "x", "to": "x", "kind": "manual", "verb": "pause",
    "result": "ok", "run_id": RUN, "land": "off", "limit": 9, "passed": ["x"], "cost_usd": 9.0,
}  # fmt: skip


@pytest.mark.parametrize("kind", CLAIMS)
def test_a_claim_without_a_controllers_stamp_changes_nothing(kind: E) -> None:
    desk = begun(order("a"))
    desk.verified("a")
    before = state_of(desk.board)
    event = desk.log.write(kind, "wo-a", stamped=False, generation=2, **LOUD)
    assert not counts(event)
    assert desk.board.apply(event) == ""
    assert desk.board.apply(msgspec.structs.replace(event, sf=Stamp(0, 9))) == ""
    assert state_of(desk.board) == before
    assert desk.board.uncounted == 2
    assert desk.board.last_event == event.event_id


@pytest.mark.parametrize("kind", CLAIMS)
def test_a_line_of_a_dead_controller_changes_nothing(kind: E) -> None:
    desk = begun(order("a"))
    desk.verified("a")
    desk.log.controller = 3
    desk.write(E.CONTROLLER_STARTED, generation=3, of_run=None)
    before = state_of(desk.board)
    desk.log.controller = 2
    assert desk.board.apply(desk.log.write(kind, "wo-a", generation=2, **LOUD)) == ""
    assert state_of(desk.board) == before


OF_AN_ATTEMPT = [
    *(E.WORKSPACE, E.AGENT_STARTED, E.AGENT_USAGE, E.AGENT_IDLE, E.AGENT_WORKING, E.AGENT_ASKED, E.AGENT_STOPPED),
    *(E.VERIFY_STARTED, E.VERIFY_VERDICT, E.LANDING_STARTED, E.LANDING_REFUSED, E.RETRIED, E.SETTLED, E.ASSIGNED),
]


@pytest.mark.parametrize("kind", OF_AN_ATTEMPT)
@pytest.mark.parametrize("generation", [1, "2", None])
def test_a_line_of_an_older_generation_changes_nothing(kind: E, generation: object) -> None:
    desk = begun(order("a"))
    desk.claim("a", 2)
    before = state_of(desk.board)
    assert desk.board.apply(desk.log.write(kind, "wo-a", generation=generation, outcome="done")) == ""
    assert state_of(desk.board) == before


@pytest.mark.parametrize("kind", ["somebody.elses", E.VIEW_COLLISION, E.PROBLEM, E.STATUS, E.CLOSED, E.VERIFY_TEST])
def test_types_that_mean_nothing_here_change_nothing(kind: str) -> None:
    desk = begun(order("a"))
    desk.claim("a")
    before = state_of(desk.board)
    assert desk.board.apply(desk.log.write(kind, "wo-a", stamped=kind in set(E))) == ""
    assert state_of(desk.board) == before
    assert desk.board.uncounted == 0


VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**60), 2**60)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=4),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.text(max_size=4), inner, max_size=2),
    max_leaves=4,
)
KEYS = [
    *("generation", "outcome", "verdict", "commit", "observed", "kind", "delay_s", "cost_usd", "tokens_in", "files"),
    *("notes", "run", "run_id", "verb", "result", "land", "orders", "checks", "limit", "passed", "to", "duration_s"),
    *("reason", "title", "priority", "shopfloor", "handle", "exit_code", "timestamp", "hold", "again", "text"),
]
LINES = st.lists(
    st.tuples(
        st.sampled_from(list(E)), st.sampled_from(["a", ""]), st.dictionaries(st.sampled_from(KEYS), VALUES, max_size=6)
    ),
    max_size=12,
)


@given(LINES)
def test_no_line_however_malformed_breaks_the_fold_or_the_floor(lines: list[tuple[E, str, dict[str, Any]]]) -> None:
    desk = begun(order("a"), order("b", needs=["a"]))
    desk.claim("a")
    for kind, name, data in lines:
        desk.write(kind, name, **data | {"generation": 1})
        desk.write(kind, name, **data)
    for record in desk.board.records.values():
        assert msgspec.json.decode(msgspec.json.encode(record), type=Record) == record
    for run in desk.board.runs.values():
        assert msgspec.json.decode(msgspec.json.encode(run), type=type(run)) == run


def record_of(desk: Desk) -> Record:
    return desk.board.records["wo-a"]


# -- requests, controllers, finding -----------------------------------------------------------------------------------


def test_requests_wait_until_they_are_handled() -> None:
    desk = begun(order("a"))
    request = desk.write(E.REQUEST, "a", stamped=False, verb="stop", text="please")
    assert [(r.verb, r.order, r.text, r.actor) for r in desk.board.requests.values()] == [
        ("stop", "wo-a", "please", "somebody")
    ]
    desk.write(E.HANDLED, "a", verb="stop", result="ok", caused_by=request.event_id)
    assert not desk.board.requests
    assert record_of(desk).stopping


def test_a_refused_pause_does_not_pause() -> None:
    desk = begun()
    desk.write(E.HANDLED, verb="pause", result="refused")
    assert not desk.board.paused


def test_the_generation_of_controllers_only_grows() -> None:
    desk = begun()
    desk.write(E.CONTROLLER_STARTED, generation=4, of_run=None, pid=7)
    assert desk.board.controller_info["pid"] == 7
    desk.log.controller = 4
    desk.write(E.CONTROLLER_STARTED, generation="x", of_run=None)
    assert desk.board.controller == 4


def test_a_record_is_changed_in_place() -> None:
    log = Log()
    record = fold(None, log.create(order("a")))
    assert record is not None
    assert fold(record, log.create(order("a", title="another"))) is record
    assert fold(record, log.write(E.ASSIGNED, "wo-a", generation=1)) is record
    assert (record.order.title, record.generation) == ("a", 1)


def test_an_order_is_found_by_id_by_name_and_by_how_they_begin() -> None:
    desk = begun(order("alpha"), order("beta"))
    desk.take(desk.log.create(Order(id="wo-2", name="alpha", title="")))

    def found(name: str) -> list[str]:
        return [r.order.id for r in desk.board.find(name)]

    assert found("wo-alpha") == ["wo-alpha"]
    assert found("alpha") == ["wo-2"]
    assert found("bet") == ["wo-beta"]
    assert found("wo-") == ["wo-2", "wo-beta", "wo-alpha"]
    assert found("gamma") == []


def test_a_run_is_unfinished_until_it_was_seen_to_finish_with_every_order_at_rest() -> None:
    desk = begun(order("a"), order("b"), settings={"land": "review"})
    run = desk.board.runs[RUN]
    assert desk.board.unfinished() is run
    desk.settle("b", "failed")
    desk.verified("a")
    assert desk.board.unfinished() is run
    desk.write(E.RUN_FINISHED, run_id=RUN)
    assert desk.board.unfinished() is None
    desk.write(E.RETRIED, "b", kind="manual")
    assert desk.board.unfinished() is run
    assert at_rest(record_of(desk), run)
    assert not at_rest(record_of(desk), None)
    desk.write(E.AGENT_USAGE, "a", cost_usd=0.25)
    assert desk.board.spent_usd(run) == 0.25


def test_creation_names_only_what_differs_from_the_default() -> None:
    assert creation(order("a", run=""))["shopfloor"] == {"name": "a"}


@given(st.integers(0, 4_000_000_000_000))
def test_times_survive_the_log_to_the_millisecond(ms: int) -> None:
    assert read_time(stamp_time(ms / 1000)) == ms / 1000


def test_a_strangers_order_is_known_but_joins_no_run() -> None:
    desk = begun(order("a"))
    wish = order("b", needs=["b"])
    line = Event("e", E.CREATED, "2026-01-01T00:00:00.000Z", "somebody", RUN, creation(wish))
    desk.board.apply(line)
    assert desk.board.records[wish.id].order.run == ""
    assert wish.id not in desk.board.runs[RUN].orders
