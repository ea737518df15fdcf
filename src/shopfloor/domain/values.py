"""Values of a logged line. What is not of the right kind reads as the default, so that no line can break the fold."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

Data = Mapping[str, Any]

LARGEST = 2**53
"""Beyond it no whole number survives every JSON reader, and nothing that is counted here gets there."""


def text(data: Data, key: str) -> str:
    """A string, else an empty one."""
    value = data.get(key)
    return value if isinstance(value, str) else ""


def texts(data: Data, key: str) -> tuple[str, ...]:
    """The strings of a list; anything else in it is left out."""
    value = data.get(key)
    return tuple(v for v in value if isinstance(v, str)) if isinstance(value, list | tuple) else ()


def whole(data: Data, key: str) -> int | None:
    """A whole number of either sign, else None."""
    value = data.get(key)
    return value if type(value) is int and -LARGEST <= value <= LARGEST else None


def count(data: Data, key: str) -> int:
    """A whole number that is not negative, else 0."""
    value = data.get(key)
    return value if type(value) is int and 0 <= value <= LARGEST else 0


def amount(data: Data, key: str) -> float | None:
    """A finite number that is not negative (money in USD, a duration in seconds), else None."""
    value = data.get(key)
    if type(value) is not int and type(value) is not float:
        return None
    return float(value) if 0 <= value <= LARGEST else None
