"""Fields of what agents write, whatever they hold."""

from __future__ import annotations

from typing import Any, TypeGuard

from shopfloor.agents._tidy import json_object

MOST_USD = 1e9
"""More is a mistake of the agent and not counted."""


def decode(line: bytes) -> dict[str, Any] | None:
    """A line as an event, None for anything but a JSON object with a ``type`` that is text."""
    found = json_object(line)
    return found if found is not None and isinstance(found.get("type"), str) else None


def text_of(data: dict[str, Any], *keys: str) -> str:
    """The first of these fields that is text, or an empty string."""
    return next((data[key] for key in keys if isinstance(data.get(key), str) and data[key]), "")


def count(value: object) -> int:
    """A count that makes sense, else 0."""
    return value if isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 10**12 else 0


def is_usd(value: object) -> TypeGuard[float]:
    """Whether it is a sum of money that makes sense."""
    return isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value < MOST_USD
