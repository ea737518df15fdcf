"""The event: its envelope, its names, and who may say what.

Envelope and names follow the VerMAS contract wherever one exists (``work_order.*``, ``agent.*``, ``verify.*``); ours
stand beside them. The extra key ``sf`` carries the controller's generation, the sequence of the logical change, and the
place of the line in its group; readers that do not know it ignore it.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from enum import StrEnum
from functools import lru_cache
from typing import Any

import msgspec

SCHEMA = 1

LATEST_S = 253_402_300_800.0 - 2 * 86_400
"""Times end two days before the year 10000, so that every one of them can be written down in every time zone."""


class E(StrEnum):
    """Every event type that Shopfloor writes."""

    LOG_OPENED = "log.opened"
    CONTROLLER_STARTED = "controller.started"
    CONTROLLER_STOPPED = "controller.stopped"
    RUN_STARTED = "run.started"
    RUN_FINISHED = "run.finished"
    CREATED = "work_order.created"
    UPDATED = "work_order.updated"
    ASSIGNED = "work_order.assigned"
    STATUS = "work_order.status_changed"
    RELEASED = "work_order.released"
    RETRIED = "work_order.retried"
    SETTLED = "work_order.settled"
    CLOSED = "work_order.closed"
    WORKSPACE = "workspace.acquired"
    SNAPSHOT = "workspace.snapshotted"
    AGENT_STARTED = "agent.started"
    AGENT_USAGE = "agent.usage"
    AGENT_IDLE = "agent.idle"
    AGENT_WORKING = "agent.working"
    AGENT_PROGRESS = "agent.progress"
    AGENT_ASKED = "agent.asked"
    AGENT_ADOPTED = "agent.adopted"
    AGENT_ANSWERED = "agent.answered"
    AGENT_STEERED = "agent.steered"
    AGENT_DONE = "agent.done"
    AGENT_STOPPED = "agent.stopped"
    AGENT_HELD = "agent.held"
    AGENT_RETRYING = "agent.retrying"
    ACCOUNT_CLOSED = "account.closed"
    ACCOUNT_OPENED = "account.opened"
    VERIFY_STARTED = "verify.started"
    VERIFY_TEST = "verify.test_executed"
    VERIFY_VERDICT = "verify.verdict"
    LANDING_STARTED = "landing.started"
    LANDING_TESTED = "landing.tested"
    LANDING_PLANNED = "landing.planned"
    LANDING_LANDED = "landing.landed"
    LANDING_REFUSED = "landing.refused"
    LANDING_HELD = "landing.held"
    TARGET_MOVED = "target.moved"
    MIRROR_PLANNED = "mirror.planned"
    MIRROR_ADVANCED = "mirror.advanced"
    MIRROR_HELD = "mirror.held"
    MAIL_SENT = "mail.sent"
    MAIL_READ = "mail.read"
    REQUEST = "request.made"
    HANDLED = "request.handled"
    ADMISSION = "admission.changed"
    VIEW_COLLISION = "view.collision"
    PROBLEM = "problem.reported"


OPEN_TO_ALL = frozenset(
    {E.LOG_OPENED, E.CREATED, E.UPDATED, E.MAIL_SENT, E.MAIL_READ, E.REQUEST, E.VIEW_COLLISION, E.PROBLEM}
)
"""Types that count whoever wrote them. Every other type of ours counts only with a controller's stamp."""

SESSIONS_MAY = frozenset({E.ASSIGNED, E.RELEASED, E.AGENT_STOPPED})
"""Types that a session may write by itself through our store while no controller leads: it claims an order, gives one
back, hands in work. Verdicts, landings and ends are never among them."""


ENDINGS = frozenset({E.AGENT_STOPPED, E.SETTLED, E.CLOSED})
"""Types that tell how an attempt ended."""


class Stamp(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """Who wrote a line and where it belongs: ``[controller, sequence, index, size]``.

    ``controller`` is the controller's generation (0: not a controller), ``sequence`` numbers logical changes and only
    grows, ``index`` and ``size`` place the line in its group; a group counts only when all its lines are there.
    """

    controller: int
    sequence: int
    index: int = 0
    size: int = 1


class Event(msgspec.Struct, frozen=True, omit_defaults=False, gc=False):
    """A fact: one line of the log. ``timestamp`` is RFC 3339 in UTC with milliseconds and ``Z``."""

    event_id: str
    event_type: str
    timestamp: str
    actor: str
    correlation_id: str | None = None
    data: dict[str, Any] = msgspec.field(default_factory=dict)
    caused_by: str | None = None
    sf: Stamp | None = None

    @property
    def order_id(self) -> str:
        """The work order it speaks of, or an empty string."""
        value = self.data.get("work_order_id", "")
        return value if isinstance(value, str) else ""


_SETTLED, _CLOSED = E.SETTLED, E.CLOSED


def tells_end(event: Event) -> bool:
    """Whether it tells how an order ended. One that a call has answered is closed with that, and with the call's end.

    (Logs that were begun earlier have ``work_order.settled`` there too, with ``end`` in it.)
    """
    return event.event_type == _SETTLED or (event.event_type == _CLOSED and "end" in event.data)


@lru_cache(maxsize=64)
def stamp_time(wall_s: float) -> str:
    """Wall seconds since the epoch as the log writes them, e.g. ``2026-01-06T12:00:00.000Z``.

    Remembered, as the many that are made at one moment are all written with it.
    """
    moment = datetime.fromtimestamp(wall_s, UTC)
    return f"{moment:%Y-%m-%dT%H:%M:%S}.{moment.microsecond // 1000:03d}Z"


def read_time(text: object, default: float = 0.0) -> float:
    """A logged time as wall seconds; ``default`` for anything that is not a zoned RFC 3339 time from 1970 on."""
    seconds = _seconds(text) if isinstance(text, str) else None
    return default if seconds is None else seconds


@lru_cache(maxsize=16)
def _seconds(text: str) -> float | None:
    """Remembered, as one line is asked for its time again and again, and the lines of a change share it."""
    moment = _moment(text)
    return None if moment is None else moment.timestamp()


def read_ms(text: object) -> int | None:
    """The same as whole milliseconds since the epoch, cut as ``stamp_time`` cuts them; None for anything else."""
    return _milliseconds(text) if isinstance(text, str) else None


@lru_cache(maxsize=64)
def _milliseconds(text: str) -> int | None:
    moment = _moment(text)
    return None if moment is None else (moment - _EPOCH) // timedelta(milliseconds=1)


_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def _moment(text: object) -> datetime | None:
    if not isinstance(text, str):
        return None
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        try:
            moment = datetime.fromisoformat(text.upper())  # RFC 3339 allows a small t and z
        except ValueError:
            return None
    at = moment.timestamp() if moment.tzinfo is not None else -1.0
    return moment if 0 <= at < LATEST_S else None


VERMAS_STATUS = {
    "waiting": "open",
    "ready": "open",
    "running": "in_progress",
    "asking": "in_progress",
    "checking": "in_progress",
    "verified": "in_progress",
    "landing": "in_progress",
    "failed": "in_progress",
    "done": "closed",
    "cancelled": "closed",
}
"""Our exact states as the four statuses that other programs know. A failed order stays ``in_progress`` with assignee
``operations``, so that no other tool starts it again or counts it as done."""
