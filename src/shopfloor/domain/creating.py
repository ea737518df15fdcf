"""An order as the event that creates it tells of it: from one to the other and back."""

from __future__ import annotations

from operator import attrgetter
from typing import Any

import msgspec

from shopfloor.domain.events import Event, read_time
from shopfloor.domain.order import Order, Record


def created(event: Event) -> Record | None:
    """The record that an event begins, None for one that is malformed."""
    data = event.data
    extra = found if isinstance(found := data.get("shopfloor"), dict) else {}
    # Only a controller puts orders into a run: a stranger's line could otherwise make its plan impossible.
    run = event.correlation_id if event.sf is not None and event.sf.controller > 0 else None
    logged_at = read_time(event.timestamp)
    try:
        order = msgspec.convert(
            {
                **extra,
                "id": data["work_order_id"],
                "name": extra.get("name") or data["work_order_id"],
                "title": data.get("title") or "",
                "instruction": data.get("description") or "",
                "priority": data.get("priority", 2),
                "issue_type": data.get("issue_type") or data.get("type") or "task",
                "created_by": data.get("created_by") or event.actor,
                "created_at": read_time(data.get("created_at"), logged_at),
                "run": run or "",
            },
            Order,
        )
    except (KeyError, msgspec.ValidationError):
        return None
    sequence = event.sf.sequence if event.sf else 0
    return Record(order=order, created_seq=sequence, updated_at=logged_at)


def creation(order: Order) -> dict[str, Any]:
    """The ``data`` of the event that creates this order: the six known fields, and ours under ``shopfloor``."""
    ours = {name: value for name, value, usual in zip(_OURS, _ours(order), _USUAL, strict=True) if value != usual}
    return {
        "work_order_id": order.id,
        "title": order.title,
        "description": order.instruction,
        "issue_type": order.issue_type,
        "priority": order.priority,
        "created_by": order.created_by,
        "shopfloor": msgspec.to_builtins(ours),
    }


_KNOWN = frozenset({"id", "title", "instruction", "issue_type", "priority", "created_by", "created_at", "run"})
_OURS = tuple(name for name in Order.__struct_fields__ if name not in _KNOWN)
_ours = attrgetter(*_OURS)
_USUAL = _ours(Order(id="", name="", title=""))
"""what is left out because it is what it is anyway"""
