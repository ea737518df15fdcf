"""How the words of a model are read: statuses, priorities, parameters, flat and nested."""

from typing import Any

import pytest

from shopfloor import UsageError
from shopfloor.faces.foreman.history import changes_of
from shopfloor.faces.foreman.words import Parameters, kind_of, priority_of, status_of, type_of

from .events_of import Log

KNOWN = {"issue_id", "title", "limit", "metadata", "depends_on", "force", "reason", "info", "issue_type"}


@pytest.mark.parametrize(
    ("word", "status"),
    [
        ("open", "open"), ("done", "completed"), ("waiting", "pending_user_input"), (" In_Progress ", "in_progress"),
        ("in-progress", "in_progress"), ("closed", "closed"), ("completed", "completed"), ("blocked", "blocked"),
    ],
)  # fmt: skip
def test_statuses_and_their_other_names(word: str, status: str) -> None:
    assert status_of(word) == status


@pytest.mark.parametrize(
    ("word", "number"),
    [(0, 0), (4, 4), ("3", 3), ("critical", 0), ("High", 1), ("medium", 2), ("normal", 2), ("low", 3), ("deferred", 4)],
)
def test_priorities_by_number_and_by_name(word: object, number: int) -> None:
    assert priority_of(word) == number


@pytest.mark.parametrize(
    ("read", "word"),
    [
        (status_of, "ready"), (status_of, None), (status_of, 3), (priority_of, 5), (priority_of, -1),
        (priority_of, True), (priority_of, 1.0), (priority_of, "urgent"), (priority_of, "²"), (priority_of, None),
        (type_of, "poem"), (type_of, []), (kind_of, "needs"), (kind_of, 1),
    ],
)  # fmt: skip
def test_words_that_are_none_are_named(read: Any, word: object) -> None:
    with pytest.raises(UsageError) as told:
        read(word)
    assert repr(word) in told.value.message


def test_parameters_are_flat_or_nested() -> None:
    flat = Parameters({"operation": "get", "id": "wo-a", "title": " t "}, KNOWN)
    nested = Parameters({"operation": "get", "params": {"issue_id": "wo-a", "title": "t"}}, KNOWN)
    assert [flat.needed("issue_id"), flat.text("title")] == [nested.needed("issue_id"), nested.text("title")]
    assert Parameters({"title": "flat", "params": {"title": "nested", "info": None}}, KNOWN).text("title") == "nested"
    assert not Parameters({"params": {"info": None}}, KNOWN).has("info"), "null is nothing"


@pytest.mark.parametrize(
    ("call", "ask"),
    [
        ({"colour": 1}, lambda p: p),
        ({"params": "x"}, lambda p: p),
        ({"title": 5}, lambda p: p.text("title")),
        ({"title": "  "}, lambda p: p.needed("title")),
        ({}, lambda p: p.needed("title")),
        ({"metadata": []}, lambda p: p.mapping("metadata")),
        ({"depends_on": [1]}, lambda p: p.texts("depends_on")),
        ({"limit": 0}, lambda p: p.whole("limit", 1)),
        ({"limit": True}, lambda p: p.whole("limit", 1)),
        ({"force": "yes"}, lambda p: p.yes("force")),
    ],
)
def test_parameters_that_are_off_are_named(call: dict[str, Any], ask: Any) -> None:
    with pytest.raises(UsageError) as told:
        ask(Parameters(call, KNOWN))
    assert next(iter(call), "title") in told.value.message


def test_the_history_of_an_issue_says_what_was_and_what_is() -> None:
    log = Log()
    about: dict[str, Any] = {"stamped": False}
    log.write("work_order.created", "wo-a", title="t", description="d", priority=2, issue_type="bug", **about)
    log.write("work_order.updated", "wo-a", changes={"priority": 0, "metadata": {"comment": "now"}}, **about)
    log.write("work_order.assigned", "wo-a", agent="session/coder-0", attempt="wo-a.a1", **about)
    log.write("work_order.released", "wo-a", message="too hard", **about)
    log.write("work_order.updated", "wo-a", changes={"dependencies": [{"depends_on_id": "wo-b"}]}, **about)
    log.write("work_order.updated", "wo-a", changes={"dependencies": []}, **about)
    log.write("agent.stopped", "wo-a", message="42", **about)
    log.write("mail.sent", "wo-a", body="hello", **about)
    told = changes_of("wo-a", log.events)
    assert [event["event_type"] for event in told] == [
        "created", "updated", "updated", "session_ended", "dependency_added", "dependency_removed", "closed",
    ]  # fmt: skip
    assert told[1]["changes"] == {"priority": {"old": 2, "new": 0}, "comment": {"old": None, "new": "now"}}
    assert told[2]["changes"] == {
        "status": {"old": "open", "new": "in_progress"}, "assignee": {"old": None, "new": "coder-0"},
    }  # fmt: skip
    assert told[6]["changes"]["status"] == {"old": "open", "new": "completed"}
    assert set(told[0]) == {"id", "issue_id", "event_type", "actor", "changes", "timestamp", "session_id"}
