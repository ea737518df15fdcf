"""A work order as other programs read it: one object of ``work_orders.jsonl`` in the key order of the VerMAS contract.

Our exact state stands under ``metadata.shopfloor``, with a ``seal``: a digest of the rest of the object. An object
whose seal fits is an echo of something we published, whatever program wrote it back and however it spelled its times;
one whose seal does not fit was edited.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Any

import msgspec

from shopfloor.domain.events import VERMAS_STATUS, read_ms, stamp_time
from shopfloor.domain.order import Record, State

TITLE_LIMIT = 100
"""Characters of a title that the contract allows; the whole title stands in the log."""

OPERATIONS = "operations"
"""Who a failed order is assigned to, so that no other program starts it again."""

OWN_KEYS = frozenset(
    {
        *("id", "title", "description", "status", "priority", "issue_type", "created_at", "updated_at", "created_by"),
        *("assignee", "dependencies", "labels", "metadata"),
    }
)
"""Keys that mean something here; all others are kept as somebody wrote them."""

_TIMES = ("created_at", "updated_at")
_NOTHING: tuple[object, ...] = (None, [], {}, "")


def work_order(record: Record) -> dict[str, Any]:
    """The object for a record.

    Keys come in the order id, title, description, status, priority, issue_type, created_at, updated_at, created_by,
    [assignee], [dependencies], [labels], metadata, then those that only other programs know.
    """
    order = record.order
    created_at = stamp_time(order.created_at)
    line: dict[str, Any] = {
        "id": order.id,
        "title": order.title[:TITLE_LIMIT],
        "description": order.instruction,
        "status": record.elsewhere or VERMAS_STATUS[record.state],
        "priority": max(0, min(4, order.priority)),
        "issue_type": order.issue_type,
        "created_at": created_at,
        "updated_at": stamp_time(max(record.updated_at, order.created_at)),
        "created_by": order.created_by,
    }
    assignee = _assignee(record)
    if assignee:
        line["assignee"] = assignee
    if "dependencies" in order.extra:
        line["dependencies"] = order.extra["dependencies"]
    elif order.depends_on:
        entry = {"type": "blocks", "created_at": created_at, "created_by": order.created_by}
        line["dependencies"] = [{"depends_on_id": need, **entry} for need in order.depends_on]
    if order.labels:
        line["labels"] = list(order.labels)
    metadata = order.extra.get("metadata")
    line["metadata"] = {**metadata} if isinstance(metadata, dict) else {}
    exact = line["metadata"]["shopfloor"] = _exact(record)
    line.update({key: value for key, value in order.extra.items() if key not in line and key not in OWN_KEYS})
    exact["seal"] = seal(line)
    return line


def sealed(line: Mapping[str, Any]) -> bool:
    """True when this object is one that we published, at any time."""
    metadata = line.get("metadata")
    ours = metadata.get("shopfloor") if isinstance(metadata, dict) else None
    return isinstance(ours, dict) and ours.get("seal") == seal(line)


def seal(line: Mapping[str, Any]) -> str:
    """Sixteen hex digits over everything but the seal itself; spelling of times and empty values do not matter."""
    plain = _plain(line)
    metadata = plain.get("metadata")
    if isinstance(metadata, dict) and isinstance(ours := metadata.get("shopfloor"), dict) and "seal" in ours:
        plain["metadata"] = {**metadata, "shopfloor": {key: ours[key] for key in ours if key != "seal"}}
    return hashlib.blake2b(msgspec.json.encode(plain, order="sorted"), digest_size=8).hexdigest()


def _plain(line: Mapping[str, Any]) -> dict[str, Any]:
    """The object without empty values, its times as numbers."""
    plain = {key: value for key, value in line.items() if value or value not in _NOTHING}
    for key in _TIMES:
        if key in plain:
            plain[key] = _moment(plain[key])
    needs = plain.get("dependencies")
    if isinstance(needs, list):
        plain["dependencies"] = [_dated(need) if isinstance(need, dict) else need for need in needs]
    return plain


def _dated(need: Mapping[str, Any]) -> dict[str, Any]:
    return {key: _moment(value) if key == "created_at" else value for key, value in need.items()}


def _moment(value: Any) -> Any:
    """Milliseconds since the epoch, or the value itself when it is no time."""
    at = read_ms(value)
    return value if at is None else at


def _assignee(record: Record) -> str:
    if record.state is _FAILED:
        return OPERATIONS
    if record.state is _READY or record.state is _WAITING or record.attempt is None:
        return record.assignee
    return record.attempt.agent


def _exact(record: Record) -> dict[str, Any]:
    """What the four statuses cannot say; empty values are left out."""
    attempt = record.attempt
    exact = {
        "state": str(record.state),
        "reason": str(record.reason or ""),
        "message": record.message,
        "name": record.order.name,
        "run": record.order.run,
        "generation": record.generation,
        "attempt": attempt.id if attempt else "",
        "branch": attempt.branch if attempt else "",
        "commit": record.commit,
        "merge": record.merge,
        "cost_usd": record.cost_usd,
        "question": record.question,
    }
    return {key: value for key, value in exact.items() if value is not None and value != ""}


# Named here once: on CPython 3.11 naming a member of an enumeration takes longer than to compare it.
_FAILED, _READY, _WAITING = State.FAILED, State.READY, State.WAITING
