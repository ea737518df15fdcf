"""What became of an issue, told from the log in the words of issues: who changed which field from what to what."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from shopfloor import Event

_PREFIX = "session/"


def changes_of(issue: str, events: Sequence[Event]) -> list[dict[str, Any]]:
    """The events of an issue, oldest first.

    Each has ``id, issue_id, event_type, actor, changes {field: {old, new}}, timestamp, session_id``; the types are
    created, updated, closed, dependency_added, dependency_removed and session_ended.
    """
    now: dict[str, Any] = {}
    found = []
    for event in events:
        what = _told(event, now)
        if what is None:
            continue
        kind, news = what
        changes = {key: {"old": now.get(key), "new": value} for key, value in news.items() if now.get(key) != value}
        now |= news
        found.append(
            {
                "id": event.event_id, "issue_id": issue, "event_type": kind,
                "actor": event.actor.removeprefix(_PREFIX), "changes": changes, "timestamp": event.timestamp,
                "session_id": event.data.get("attempt") or now.get("session_id"),
            }
        )  # fmt: skip
        if kind == "updated" and "session_id" in event.data:
            now["session_id"] = event.data["session_id"]
    return found


def _told(event: Event, now: dict[str, Any]) -> tuple[str, dict[str, Any]] | None:
    """What an event is called here, and the fields that it sets; None: it says nothing of an issue."""
    data = event.data
    if event.event_type == "work_order.created":
        fields = ("title", "description", "priority", "issue_type")
        return "created", {"status": "open", **{key: data.get(key) for key in fields}}
    if event.event_type == "work_order.assigned":
        return "updated", {"status": "in_progress", "assignee": str(data.get("agent", "")).removeprefix(_PREFIX)}
    if event.event_type == "work_order.released":
        return "session_ended", {"status": "open", "assignee": None}
    if event.event_type == "agent.stopped":
        return "closed", {"status": "completed", "result": data.get("message")}
    if event.event_type == "work_order.updated" and isinstance(data.get("changes"), dict):
        return _updated(data["changes"], now)
    return None


def _updated(changes: dict[str, Any], now: dict[str, Any]) -> tuple[str, dict[str, Any]]:
    news = {key: value for key, value in changes.items() if key not in ("updated_at", "metadata")}
    if isinstance(changes.get("metadata"), dict):
        news |= changes["metadata"]
    if "dependencies" in changes:
        fewer = len(changes["dependencies"] or []) < len(now.get("dependencies") or [])
        return ("dependency_removed" if fewer else "dependency_added"), news
    return ("closed" if changes.get("status") == "closed" else "updated"), news
