"""Tasks: orders of no run whose deliverable is an answer, in the words of an issue tracker.

This is the one place that maps them.

| task | order |
|---|---|
| ``open`` | ready, or waiting for another |
| ``in_progress`` | a session holds it, or an agent works on it |
| ``blocked``, ``pending_user_input`` | ready, and set aside with that status; nobody claims it before ``unblock`` |
| ``completed`` | done: its session handed in an answer, which is the ``result`` |
| ``closed`` | cancelled: somebody gave it up |

``category``, ``pool``, ``blocking_notes``, ``parent_id``, ``discovered_from`` and ``comment`` are keys of the order's
metadata. What was said before stands in the log: :meth:`Tasks.events`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec

from shopfloor import Order, Record, State, stamp_time

FINISHED = frozenset({"closed", "completed"})
ASIDE = ("blocked", "pending_user_input")
STATUSES = ("open", "in_progress", *ASIDE, "closed", "completed")
KINDS = ("blocks", "related", "parent-child", "discovered-from")
"""Of a dependency; only the first makes a task wait."""
SESSION = "session/"
"""Before the name of a session where the log names who works on an order."""
ENDED = {State.DONE: "completed", State.CANCELLED: "closed"}
_AT_WORK = {State.ASKING: "pending_user_input", **ENDED}


class Task(msgspec.Struct, frozen=True, kw_only=True):
    """An order as an issue. Times are RFC 3339 in UTC, empty where there is none."""

    id: str
    title: str
    description: str = ""
    status: str = "open"
    priority: int = 2
    """0 highest … 4 lowest"""
    issue_type: str = "task"
    assignee: str = ""
    """the worker that has it, or had it last"""
    created_at: str = ""
    created_by: str = ""
    updated_at: str = ""
    closed_at: str = ""
    parent_id: str = ""
    discovered_from: str = ""
    blocking_notes: str = ""
    """why it is set aside: the question, or what is in the way"""
    result: str = ""
    category: str = ""
    retries: int = 0
    """attempts of workers that came to nothing"""
    failure: str = ""
    """why the newest attempt came to nothing"""
    lost: int = 0
    """attempts whose worker ended without a word"""
    depends_on: tuple[str, ...] = ()
    """ids of the tasks that block it"""
    dependencies: tuple[dict[str, str], ...] = ()
    """``depends_on_id`` and ``type`` of everything it is connected with"""
    metadata: dict[str, Any] = {}

    @property
    def finished(self) -> bool:
        """True when nothing more is done about it."""
        return self.status in FINISHED


class Wish(msgspec.Struct, frozen=True, kw_only=True):
    """Which tasks a worker takes: for each key of the metadata some texts; the empty one is for "no such key"."""

    metadata: dict[str, tuple[str, ...]] = {}
    without: dict[str, tuple[str, ...]] = {}


class Given(msgspec.Struct, frozen=True, kw_only=True):
    """A task that a worker has just claimed."""

    id: str
    title: str
    prompt: str
    """its description, and what became of the attempt before"""
    attempt: str
    generation: int


def task_of(record: Record) -> Task:
    """The order as a task."""
    order, attempt, meta = record.order, record.attempt, record.order.metadata
    status, last = status_of(record), attempt.message if attempt else ""
    held = attempt is not None and (record.live or status in FINISHED)
    notes = _text(meta, "blocking_notes")
    if status in ASIDE and not notes:
        notes = record.question or record.message or last
    return Task(
        id=order.id, title=order.title, description=order.instruction, status=status, priority=order.priority,
        issue_type=order.issue_type,
        assignee=attempt.agent.removeprefix(SESSION) if attempt is not None and held else record.assignee,
        created_at=stamp_time(order.created_at), created_by=order.created_by, updated_at=stamp_time(record.updated_at),
        closed_at="" if record.settled_at is None else stamp_time(record.settled_at),
        parent_id=_text(meta, "parent_id"), discovered_from=_text(meta, "discovered_from"),
        blocking_notes=notes if status in ASIDE else "", result=last if status == "completed" else "",
        category=_text(meta, "category"), retries=record.failures, depends_on=order.depends_on,
        failure=last if attempt is not None and attempt.outcome == "error" else "",
        lost=sum(a.outcome == "lost" for a in record.attempts),
        dependencies=tuple(dependencies_of(order)), metadata=dict(meta),
    )  # fmt: skip


def status_of(record: Record) -> str:
    """What an issue tracker calls the state of an order."""
    if record.state is State.READY:
        if record.elsewhere in ASIDE:
            return record.elsewhere
        return "in_progress" if record.taken else "open"
    if record.state is State.FAILED:
        return "blocked"
    return _AT_WORK.get(record.state, "in_progress")


def dependencies_of(order: Order) -> list[dict[str, str]]:
    """What an order is connected with, as other programs write it."""
    found: dict[tuple[str, str], None] = {}
    raw = order.extra.get("dependencies")
    for entry in raw if isinstance(raw, list) else []:
        if isinstance(entry, Mapping) and isinstance(entry.get("depends_on_id"), str):
            found[entry["depends_on_id"], str(entry.get("type") or "blocks")] = None
        elif isinstance(entry, str):
            found[entry, "blocks"] = None
    found |= {(need, "blocks"): None for need in order.depends_on}
    return [{"depends_on_id": other, "type": kind} for other, kind in found]


def fits(
    task: Task, *, status: str = "", category: str = "", assignee: str = "", metadata: Mapping[str, Any] | None = None
) -> bool:
    """Whether all of this holds that is given."""
    asked = ((status, task.status), (category, task.category), (assignee, task.assignee))
    return all(want in ("", have) for want, have in asked) and all(
        task.metadata.get(key) == value for key, value in (metadata or {}).items()
    )


def _text(data: Mapping[str, Any], key: str) -> str:
    value = data.get(key)
    return "" if value is None else str(value)
