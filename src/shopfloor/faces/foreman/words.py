"""How a model's words for an issue are read: statuses, priorities, types of dependencies, parameters of the tool."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from shopfloor import UsageError
from shopfloor.faces.foreman.task import KINDS, STATUSES

TYPES = ("bug", "feature", "task", "epic", "chore")
PRIORITIES = {"critical": 0, "high": 1, "medium": 2, "normal": 2, "low": 3, "deferred": 4}

_STATUS_ALIASES = {
    "done": "completed", "complete": "completed", "waiting": "pending_user_input", "in-progress": "in_progress",
    "pending-user-input": "pending_user_input", "in progress": "in_progress",
}  # fmt: skip


def short(text: str, limit: int) -> str:
    """A text as one line of so many characters at the most."""
    line = " ".join(text.split())
    return line if len(line) <= limit else f"{line[: limit - 1]}…"


def status_of(value: object) -> str:
    """A status as we write it. Raises UsageError."""
    word = value.strip().lower() if isinstance(value, str) else ""
    word = _STATUS_ALIASES.get(word, word)
    if word not in STATUSES:
        raise UsageError(f"status is {value!r}", hint=f"there are {', '.join(STATUSES)}, done, waiting")
    return word


def priority_of(value: object) -> int:
    """0 (highest) to 4, from a number, digits, or a name. Raises UsageError."""
    if isinstance(value, str):
        word = value.strip().lower()
        value = PRIORITIES.get(word, int(word) if word.isascii() and word.isdigit() else value)
    if type(value) is not int or not 0 <= value <= 4:  # noqa: PLR2004 - the contract's range
        raise UsageError(f"priority is {value!r}", hint=f"0 to 4, or one of {', '.join(PRIORITIES)}")
    return value


def type_of(value: object) -> str:
    """An issue type. Raises UsageError."""
    word = value.strip().lower() if isinstance(value, str) else ""
    if word not in TYPES:
        raise UsageError(f"issue_type is {value!r}", hint=f"there are {', '.join(TYPES)}")
    return word


def kind_of(value: object) -> str:
    """A type of dependency. Raises UsageError."""
    word = value.strip().lower().replace("_", "-") if isinstance(value, str) else ""
    if word not in KINDS:
        raise UsageError(f"dependency type is {value!r}", hint=f"there are {', '.join(KINDS)}")
    return word


class Parameters:
    """The parameters of one call: under ``params`` or beside it, with the names that other crews have for them."""

    def __init__(self, call: Mapping[str, Any], known: Iterable[str]) -> None:
        nested = call.get("params")
        if nested is not None and not isinstance(nested, Mapping):
            raise UsageError(f"params is {nested!r}", hint="it is an object")
        flat = {key: value for key, value in call.items() if key not in ("operation", "params")}
        self._given = {
            _SHORT.get(key, key): value for key, value in {**flat, **(nested or {})}.items() if value is not None
        }
        if odd := sorted(self._given.keys() - known):
            raise UsageError(f"there is no parameter {odd[0]!r}", hint=f"there are {', '.join(sorted(known))}")

    def has(self, key: str) -> bool:
        """Whether it is given, and not null."""
        return key in self._given

    def any(self, *keys: str) -> str:
        """The first of these that has a text in it, else nothing."""
        return next((text for key in keys if (text := self.text(key))), "")

    def text(self, key: str) -> str:
        """A text, stripped; empty when it is not given. Raises UsageError for anything else."""
        value = self._given.get(key, "")
        if not isinstance(value, str):
            raise UsageError(f"{key} is {value!r}", hint="it is a text")
        return value.strip()

    def needed(self, key: str) -> str:
        """A text with something in it. Raises UsageError."""
        if not (text := self.text(key)):
            raise UsageError(f"{key} is missing, or is empty")
        return text

    def mapping(self, key: str) -> dict[str, Any]:
        """An object; empty when it is not given. Raises UsageError for anything else."""
        value = self._given.get(key, {})
        if not isinstance(value, Mapping):
            raise UsageError(f"{key} is {value!r}", hint="it is an object")
        return dict(value)

    def texts(self, key: str) -> list[str]:
        """A list of texts, or one text. Raises UsageError for anything else."""
        value = self._given.get(key, [])
        value = [value] if isinstance(value, str) else value
        if not isinstance(value, list | tuple) or not all(isinstance(one, str) for one in value):
            raise UsageError(f"{key} is {value!r}", hint="it is a list of ids")
        return list(value)

    def whole(self, key: str, default: int) -> int:
        """A number of things, at least 1. Raises UsageError for anything else."""
        value = self._given.get(key, default)
        if type(value) is not int or value < 1:
            raise UsageError(f"{key} is {value!r}", hint="it is a whole number from 1 on")
        return value

    def yes(self, key: str) -> bool:
        """True or false; false when it is not given. Raises UsageError for anything else."""
        value = self._given.get(key, False)
        if not isinstance(value, bool):
            raise UsageError(f"{key} is {value!r}", hint="it is true or false")
        return value

    def value(self, key: str) -> object:
        """As it was given."""
        return self._given.get(key)


_SHORT = {
    "id": "issue_id", "type": "issue_type", "dep_type": "dependency_type", "blocked_reason": "block_reason",
    "question": "reason", "answer": "info",
}  # fmt: skip
"""Other names of a parameter."""
