"""Rows that a query answers with, the same from every store."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec

from shopfloor.domain import values
from shopfloor.domain.board import Run, counts
from shopfloor.domain.events import E, Event
from shopfloor.domain.order import Record

_INT64 = (1 << 63) - 1


def order_row(record: Record) -> dict[str, Any]:
    """One order; texts are empty and ``cost_usd`` is None where there is nothing to say."""
    order, attempt = record.order, record.attempt
    return {
        "id": order.id,
        "name": order.name,
        "title": order.title,
        "state": str(record.state),
        "reason": str(record.reason or ""),
        "message": record.message,
        "priority": bounded(order.priority),
        "run": order.run,
        "agent": attempt.agent if attempt else order.agent,
        "generation": bounded(record.generation),
        "attempts": len(record.attempts),
        "cost_usd": _cost(record),
        "updated_at": record.updated_at,
        "commit": record.commit,
        "merge": record.merge,
    }


def run_row(run: Run, states: Mapping[str, int]) -> dict[str, Any]:
    """One run: its fields, ``state`` (running, finished), and under ``orders`` how many orders are in which state."""
    row: dict[str, Any] = msgspec.to_builtins(run)
    row["state"] = "running" if run.finished_at is None else "finished"
    row["orders"] = dict(sorted(states.items()))
    return row


def event_row(position: int, event: Event) -> dict[str, Any]:
    """One event as it stands in the log, with the ``position`` behind it."""
    row: dict[str, Any] = msgspec.to_builtins(event)
    return {"position": position, **row}


def run_of_event(event: Event) -> str:
    """The run that an event belongs to, or an empty string."""
    return event.correlation_id or values.text(event.data, "run_id")


def claimed_generation(event: Event, controller: int) -> int:
    """The generation that an event gives its order, 0 for none.

    Lines that change nothing in the fold raise no generation either: else a stray one would lock the order for ever.
    """
    value = event.data.get("generation")
    stamp = event.sf
    if type(value) is not int or stamp is None or not 0 < value <= _INT64:
        return 0
    if stamp.controller == 0:
        return value if counts(event) else 0
    return value if stamp.controller >= controller else 0


def started_controller(event: Event) -> int:
    """The generation of the controller that an event announces, 0 for none."""
    if event.event_type != E.CONTROLLER_STARTED or event.sf is None:
        return 0
    return event.sf.controller


def opened_schema(event: Event) -> int:
    """The schema that the opening event of a log names, 0 for any other event."""
    schema = event.data.get("schema")
    return schema if event.event_type == E.LOG_OPENED and event.sf is not None and type(schema) is int else 0


def bounded(number: int) -> int:
    """A number as SQLite can hold it."""
    return max(-_INT64, min(_INT64, number))


def _cost(record: Record) -> float | None:
    try:
        cost = record.cost_usd
        return None if cost is None else float(cost)
    except TypeError:  # a damaged line put something else there
        return None
