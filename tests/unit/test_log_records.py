"""An order as other programs see it: exact keys, and what is an echo and what an edit."""

import json
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from shopfloor.domain.foreign import differences, version
from shopfloor.domain.order import Attempt, Order, Reason, Record, State
from shopfloor.domain.records import OWN_KEYS, seal, sealed, work_order

NINE = ["id", "title", "description", "status", "priority", "issue_type", "created_at", "updated_at", "created_by"]


def record(state: State = State.READY, **order: Any) -> Record:
    wish = Order(**{"id": "wo-a1", "name": "parser", "title": "Parse it", "created_at": 1_767_700_800.0, **order})
    attempts = [Attempt(id="wo-a1.a1", generation=1, agent="robot", claimed_at=0.0)]
    attempts = [] if state is State.READY else attempts
    return Record(order=wish, state=state, attempts=attempts, generation=len(attempts), updated_at=1_767_700_801.5)


def through_go(line: dict[str, Any]) -> dict[str, Any]:
    """As a program with the nine keys and the dependencies writes a line back: times trimmed, the rest dropped."""
    kept = {key: value for key, value in line.items() if key in [*NINE, "dependencies"]}
    for key in ("created_at", "updated_at"):
        kept[key] = kept[key].replace(".000Z", "Z").replace("00Z", "Z")
    return kept


def says_nothing_new(line: dict[str, Any], published: dict[str, Any]) -> bool:
    return not differences(version(line), version(published))


def test_keys_come_in_the_order_of_the_contract() -> None:
    extra = {"x_team": "infra", "metadata": {"their": 1}, "title": "old", "assignee": "x"}
    line = work_order(record(State.RUNNING, depends_on=("wo-b2",), labels=("l",), extra=extra))
    assert list(line) == [*NINE, "assignee", "dependencies", "labels", "metadata", "x_team"]
    assert line["title"] == "Parse it"
    assert (line["assignee"], line["labels"], line["x_team"]) == ("robot", ["l"], "infra")
    assert line["metadata"]["their"] == 1
    assert line["dependencies"] == [
        {
            "depends_on_id": "wo-b2",
            "type": "blocks",
            "created_at": "2026-01-06T12:00:00.000Z",
            "created_by": "human",
        }
    ]
    assert (line["created_at"], line["updated_at"]) == ("2026-01-06T12:00:00.000Z", "2026-01-06T12:00:01.500Z")


@pytest.mark.parametrize(
    ("state", "status", "assignee"),
    [
        (State.READY, "open", None),
        (State.RUNNING, "in_progress", "robot"),
        (State.LANDING, "in_progress", "robot"),
        (State.FAILED, "in_progress", "operations"),
        (State.DONE, "closed", "robot"),
        (State.CANCELLED, "closed", "robot"),
    ],
)
def test_four_statuses(state: State, status: str, assignee: str | None) -> None:
    line = work_order(record(state))
    assert (line["status"], line.get("assignee")) == (status, assignee)
    assert line["metadata"]["shopfloor"]["state"] == state


def test_limits_of_the_contract() -> None:
    line = work_order(record(title="x" * 300, priority=9))
    assert (len(line["title"]), line["priority"]) == (100, 4)
    assert work_order(record(priority=-3))["priority"] == 0


def test_exact_state_is_told() -> None:
    failed = record(State.FAILED)
    failed.reason, failed.message = Reason.CHECKS, "make test failed"
    exact = work_order(failed)["metadata"]["shopfloor"]
    assert (exact["state"], exact["reason"], exact["message"]) == ("failed", "checks", "make test failed")
    assert (exact["generation"], exact["attempt"]) == (1, "wo-a1.a1")


def test_what_we_published_is_an_echo_however_it_is_spelled() -> None:
    line = work_order(record(State.RUNNING, depends_on=("wo-b2",), instruction="a < b & ü"))
    assert sealed(json.loads(json.dumps(line)))
    respelled = {**dict(reversed(line.items())), "created_at": "2026-01-06T13:00:00+01:00", "labels": None}
    assert sealed(respelled)
    assert says_nothing_new(through_go(line), line)


@pytest.mark.parametrize(
    "edit",
    [
        {"status": "closed"},
        {"priority": 0},
        {"title": "Other"},
        {"labels": ["mine"]},
        {"x_team": "infra"},
        {"assignee": "me"},
        {"metadata": {"theirs": 1}},
        {"dependencies": [{"depends_on_id": "wo-z"}]},
    ],
)
def test_anything_else_is_an_edit(edit: dict[str, Any]) -> None:
    line = work_order(record())
    edited = {**line, **edit}
    assert not sealed(edited)
    assert not says_nothing_new(edited, line)
    assert not says_nothing_new({**through_go(line), **edit}, line)


def test_our_own_corner_is_nobody_elses() -> None:
    line = work_order(record())
    line["metadata"]["shopfloor"]["state"] = "done"
    assert not sealed(line)
    assert says_nothing_new(line, work_order(record()))


def test_an_object_without_our_part_has_a_seal_of_its_own_and_is_not_ours() -> None:
    line = {"id": "wo-a", "metadata": {"team": "x"}}
    assert len(seal(line)) == 16
    assert seal(line) != seal({"id": "wo-a"})
    assert not sealed(line)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)


@given(st.dictionaries(st.text(max_size=8) | st.sampled_from([*NINE, "metadata", "labels"]), json_values, max_size=6))
def test_any_foreign_object_can_stand_there(foreign: dict[str, Any]) -> None:
    ours = work_order(record())
    line = work_order(record(extra=foreign))
    assert sealed(msgspec.json.decode(msgspec.json.encode(line)))
    assert list(line)[:9] == NINE
    assert {key: line[key] for key in NINE} == {key: ours[key] for key in NINE}
    for key, value in foreign.items():
        if key not in OWN_KEYS:
            assert line[key] == value, "their keys are kept"
    assert sealed(foreign) is False
    assert says_nothing_new(foreign, ours) in (True, False)
