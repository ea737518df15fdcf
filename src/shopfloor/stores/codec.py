"""One event as one line of JSON: exact key order out, nothing believed on the way in."""

from __future__ import annotations

from typing import Any

import msgspec

from shopfloor.domain.errors import Refused
from shopfloor.domain.events import Event, Stamp

LINE_LIMIT = 16 << 20
"""Bytes of the longest line that counts; anything longer is skipped unread."""

MAX_COUNTER = 1 << 62
"""A stamp with a number above this is damage, and would leave no room for the next one."""

CANCEL = b"\x18\n"
"""Closes a torn line of ours that was refused: with this byte in it the line can never become valid."""

UNREADABLE = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)
"""What decoding a foreign document raises."""

UNWRITABLE = (TypeError, ValueError, OverflowError, RecursionError)
"""What encoding raises for values that have no place in JSON; a lone surrogate is a ValueError."""


class _Line(msgspec.Struct, gc=False):
    """The wire order of the keys; ``caused_by`` and ``sf`` are left out when they are not set."""

    event_id: str
    event_type: str
    timestamp: str
    actor: str
    correlation_id: str | None
    caused_by: str | msgspec.UnsetType
    data: dict[str, Any]
    sf: Stamp | msgspec.UnsetType


_encoder = msgspec.json.Encoder()
_decoder = msgspec.json.Decoder(Event)
_loose = msgspec.json.Decoder(dict[str, Any])


def encode(event: Event) -> bytes:
    """The line of an event, with its newline. Raises Refused for values that have no place in JSON, or too many."""
    unset = msgspec.UNSET
    line = _Line(
        event.event_id,
        event.event_type,
        event.timestamp,
        event.actor,
        event.correlation_id,
        event.caused_by or unset,
        event.data,
        event.sf or unset,
    )
    try:
        text = _encoder.encode(line)
    except UNWRITABLE as problem:
        raise Refused(
            f"event {event.event_id!r} ({event.event_type}) cannot be written as JSON: {problem}",
            hint="pass plain values in its data: text, numbers, lists, objects",
        ) from problem
    if len(text) >= LINE_LIMIT:
        raise Refused(
            f"event {event.event_id!r} ({event.event_type}) is {len(text)} bytes long, at most {LINE_LIMIT} count",
            hint="keep the long text in a file of the attempt and its path in the event",
        )
    return text + b"\n"


def decode(line: bytes) -> Event:
    """The event in a line without its newline. Raises ValueError that says what is wrong with it."""
    try:
        event = _decoder.decode(line)
    except UNREADABLE as problem:
        event = _tolerant(line, problem)
    stamp = event.sf
    if stamp is not None and not possible(stamp):
        raise ValueError(f"impossible stamp {list(msgspec.structs.astuple(stamp))}")
    return event


def decode_all(lines: bytes, number: int) -> list[Event] | None:
    """The events of so many whole lines, their stamps not looked at; None: they have to be decoded one by one."""
    # Between two braces no JSON goes on from one line to the next, so that as many events as lines are one a line.
    if not lines.startswith(b"{") or not lines.endswith(b"}\n") or lines.count(b"}\n{") != number - 1:
        return None
    try:
        events = _decoder.decode_lines(lines)
    except UNREADABLE:
        return None
    return events if len(events) == number else None


def possible(stamp: Stamp) -> bool:
    """False for a stamp that is damage."""
    return (
        0 <= stamp.controller < MAX_COUNTER
        and 0 < stamp.sequence < MAX_COUNTER
        and 0 <= stamp.index < stamp.size < MAX_COUNTER
    )


def _tolerant(line: bytes, problem: Exception) -> Event:
    """Other programs write ``null`` for an empty object and a byte-order mark at the start."""
    try:
        fields = _loose.decode(line.removeprefix(b"\xef\xbb\xbf"))
        fields = {key: value for key, value in fields.items() if value is not None}
        return msgspec.convert(fields, Event)
    except UNREADABLE:
        raise ValueError(str(problem)) from None
