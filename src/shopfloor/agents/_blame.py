"""What an agent's error means for the next attempt."""

from __future__ import annotations

_AUTH = frozenset({"AuthenticationError", "PermissionDeniedError", "authentication_error", "permission_error"})
_MARKS = {"budget_exceeded": "budget", "insufficient_quota": "quota"}


def blame(name: str, text: str) -> str:
    """The ``status`` of an ERROR: ``budget``, ``quota`` or ``auth``, where that is the reason, else its class name."""
    for mark, status in _MARKS.items():
        if mark in text or mark == name:
            return status
    return "auth" if name in _AUTH else name
