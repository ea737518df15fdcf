"""What another program may change in an order, and when: one rule for the import of an edit and for the fold.

Words (title, description, dependencies) change while nothing was begun or after it failed or was cancelled: an agent
works from them, and a verdict is about them. Priority, type, labels and keys of others change at any time. A status may
take an order that has not begun, give it back, close what has not begun or has failed, and open again what was
cancelled or has failed. Closing is giving up: it never means done, because only evidence does.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import msgspec

from shopfloor.domain import values
from shopfloor.domain.events import Event
from shopfloor.domain.order import Collision, Reason, Record, State

FIXED = frozenset({"id", "created_at", "created_by", "updated_at"})
"""Keys that nobody changes."""

WORDS = frozenset({"title", "description", "dependencies"})
"""What an agent is told, and what it waits for."""

FENCED = WORDS | {"status", "assignee"}
"""A change of these raises the generation, so that a claim that was decided before it is refused."""

MOST_COLLISIONS = 50
"""of one order that are told; a program that goes on is no news"""

_NOT_BEGUN = frozenset({State.READY, State.FAILED, State.CANCELLED})
_REOPENED = frozenset({State.FAILED, State.CANCELLED})


def refusals(record: Record, changes: Mapping[str, Any]) -> dict[str, str]:
    """Why some of these changes are not taken over, by field; those that are not named are."""
    found = {}
    for field, value in changes.items():
        why = _malformed(record, field, value) or _untimely(record, field, value, changes)
        if why:
            found[field] = why
    return found


def fenced(record: Record, changes: Mapping[str, Any]) -> bool:
    """True when these changes matter to a start; what an order is merely related to does not."""
    return any(field in FENCED and not _same_needs(record, field, value) for field, value in changes.items())


def fold_update(record: Record, event: Event, at: float) -> bool:
    """Take in what the rules allow and remember the rest; False when nothing changed.

    ``dependencies`` count only in a line of our own programs, which look for circles first.
    """
    changes = event.data.get("changes")
    generation = values.count(event.data, "generation")
    if not isinstance(changes, dict) or (generation and generation != record.generation + 1):
        return False
    if event.sf is None:
        changes = _canonical(record, changes)
    bad = refusals(record, changes)
    good = {field: value for field, value in changes.items() if field not in bad}
    if generation and event.sf is not None:
        record.generation = generation
    _apply(record, good, at)
    for field in bad:
        remember(record, field, changes[field])
    return bool(changes)


def fold_collision(record: Record, data: Mapping[str, Any], _at: float) -> bool:
    """Remember what was told of this order."""
    refused = data.get("refused")
    told = False
    for one in refused if isinstance(refused, list) else []:
        if isinstance(one, dict) and isinstance(one.get("field"), str):
            told |= remember(record, one["field"], one.get("theirs"))
    return told


def remember(record: Record, field: str, value: object) -> bool:
    """Note a wish that was not followed; False when it was noted before, or there are too many."""
    one = collision(field, value)
    if one in record.collisions or len(record.collisions) >= MOST_COLLISIONS:
        return False
    record.collisions.append(one)
    return True


def told(record: Record, field: str, value: object) -> bool:
    """True when it would not be noted again."""
    return collision(field, value) in record.collisions or len(record.collisions) >= MOST_COLLISIONS


def collision(field: str, value: object) -> Collision:
    """The note of a wish; long values are cut."""
    return Collision(field, msgspec.json.encode(value).decode()[:200])


def reopen(record: Record, at: float, findings: str = "", delay_s: float = 0.0) -> None:
    """Back to the beginning, ready to be tried again."""
    r = record
    r.state, r.reason, r.settled_at, r.accepted = State.READY, None, None, False
    r.message = r.question = r.answer = r.elsewhere = r.assignee = r.sent_back = ""
    r.permission = False
    r.verdict, r.commit, r.tree, r.merge, r.passed, r.verifications = "", "", "", "", (), 0
    r.findings = findings
    r.retry_at, r.retry_delay_s = at, delay_s


def reset(record: Record) -> None:
    """A person sends it back: counters start anew, and what was told before may be told again."""
    record.failures = record.reworks = record.lost = 0
    record.stopping = False
    record.collisions.clear()


def needs_of(entries: Iterable[Any]) -> tuple[str, ...]:
    """The ids that a list of dependencies makes an order wait for; only ``blocks`` does."""
    found: dict[str, None] = {}
    for entry in entries:
        if isinstance(entry, str):
            found[entry] = None
        elif entry.get("type") in (None, "", "blocks"):
            found[entry["depends_on_id"]] = None
    return tuple(found)


def _canonical(record: Record, changes: Mapping[str, Any]) -> dict[str, Any]:
    """Another program's own line: ``type`` for ``issue_type``, null for nothing, and when it changed it."""
    left_out = ("updated_at", "dependencies")
    found = {field: value for field, value in changes.items() if value is not None and field not in left_out}
    if "type" in found:
        found.setdefault("issue_type", found.pop("type"))
    if record.assignee and "assignee" in changes:
        found.setdefault("assignee", "")
    return found


# -- the rules --------------------------------------------------------------------------------------------------


def _malformed(record: Record, field: str, value: Any) -> str:
    if field in FIXED:
        return "cannot be changed"
    known = _SHAPES.get(field)
    if known is None or known[0](value):
        if field == "dependencies" and record.order.id in needs_of(value):
            return "an order cannot wait for itself"
        return ""
    return known[1]


def _untimely(record: Record, field: str, value: Any, changes: Mapping[str, Any]) -> str:
    state = record.state
    if _same_needs(record, field, value):
        return ""
    if field in WORDS and state not in _NOT_BEGUN:
        return f"the order is {state}: {_WHY.get(state, 'an agent works from what it said before')}"
    opened = state in _REOPENED and changes.get("status") == "open"
    if field not in ("status", "assignee") or state is State.READY or opened:
        return ""
    if field == "status" and value == "closed" and state is State.FAILED:
        return ""
    return f"the order is {state}: {_WHY.get(state, 'it is at work here')}"


def _same_needs(record: Record, field: str, value: Any) -> bool:
    """True for dependencies that leave what it waits for as it is."""
    return field == "dependencies" and needs_of(value) == record.order.depends_on


_WHY = {
    State.DONE: "that is final",
    State.CANCELLED: "it has to be opened first",
    State.FAILED: "it waits for a person",
    State.VERIFIED: "its work was verified as it is",
}


def _is_text(value: Any) -> bool:
    return isinstance(value, str)


def _is_word(value: Any) -> bool:
    return isinstance(value, str) and bool(value.strip())


def _is_priority(value: Any) -> bool:
    return type(value) is int and 0 <= value <= 4  # noqa: PLR2004 - the contract's range


def _are_texts(value: Any) -> bool:
    return isinstance(value, list | tuple) and all(isinstance(one, str) for one in value)


def _are_needs(value: Any) -> bool:
    return isinstance(value, list) and all(
        _is_word(one) or (isinstance(one, dict) and _is_word(one.get("depends_on_id"))) for one in value
    )


_SHAPES: dict[str, tuple[Callable[[Any], bool], str]] = {
    "title": (_is_word, "a title is a text that is not empty"),
    "description": (_is_text, "a description is a text"),
    "priority": (_is_priority, "a priority is a whole number from 0 to 4"),
    "issue_type": (_is_word, "an issue_type is a word"),
    "status": (_is_word, "a status is a word"),
    "assignee": (_is_text, "an assignee is a text"),
    "labels": (_are_texts, "labels are a list of texts"),
    "dependencies": (_are_needs, "dependencies are a list of objects with a depends_on_id"),
    "metadata": (lambda value: isinstance(value, dict), "metadata is an object"),
}


# -- taking in --------------------------------------------------------------------------------------------------


def _apply(record: Record, changes: Mapping[str, Any], at: float) -> None:
    if "status" in changes:
        _take_status(record, changes["status"], at)
    if "assignee" in changes:
        record.assignee = changes["assignee"]
    order, extra = record.order, dict(record.order.extra)
    fields: dict[str, Any] = {}
    for field, value in changes.items():
        if field == "description":
            fields["instruction"] = value
        elif field in ("title", "priority", "issue_type"):
            fields[field] = value
        elif field == "labels":
            fields["labels"] = tuple(value)
        elif field == "metadata":
            extra["metadata"] = {**extra.get("metadata", {}), **{k: v for k, v in value.items() if k != "shopfloor"}}
        elif field == "dependencies":
            extra["dependencies"] = value
            fields["depends_on"] = needs_of(value)
        elif field not in ("status", "assignee"):
            extra[field] = value
    record.order = msgspec.structs.replace(order, **fields, extra=extra)


def _take_status(record: Record, status: str, at: float) -> None:
    if status == "open":
        if record.state in _REOPENED:
            reset(record)
            reopen(record, at)
        record.elsewhere = ""
    elif status == "closed":
        record.state, record.reason, record.settled_at = State.CANCELLED, Reason.CLOSED, at
        record.message = "closed by another program; that gives it up, it does not make it done"
        record.question = record.answer = record.elsewhere = ""
    else:
        record.elsewhere = status
