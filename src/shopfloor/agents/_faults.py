"""Why a model call failed, as far as the words and numbers that an agent passes on can tell.

Agents tell errors of their own by the same means, so a number or a word counts only where it stands as in an answer.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any, NamedTuple

_BUDGET = re.compile(
    r"budget_exceeded|budget\b.{0,80}\b(?:spent|exceeded|exhausted|reached|allow)"
    r"|(?:exceed\w*|reached|over|out of)\b.{0,40}\bbudget",
    re.IGNORECASE,
)
_QUOTA = re.compile(
    r"rate.?limit|too many requests|(?<!disk )quota|usage limit|insufficient.{0,10}(credit|fund|balance)|billing"
    r"|credit balance|nothing left",
    re.IGNORECASE,
)
_BUSY = re.compile(r"overloaded", re.IGNORECASE)
"""of a server, not of an account, where a 503 says so"""
_AUTH = re.compile(
    r"unauthori[sz]ed|authenticat|api.?key|log ?in\b|logged in|permission_?error|permission_?denied_?error|forbidden"
    r"|credentials",
    re.IGNORECASE,
)
_STATUS = re.compile(
    r"(?:^|\(|(?:error|status|code|rejected|http\S{0,8})\W{1,4}(?:code\W{1,4})?)([45]\d\d)(?!\.?\d)", re.IGNORECASE
)
_AT = re.compile(r"reset\w*[^\d\n]{1,24}(\d{10})(?:\d{3})?\b", re.IGNORECASE)
_AFTER = re.compile(
    r"(?:retry.?after|try again in|retry in|resets? in|reset.?after)[^\d\n]{0,12}(\d+(?:\.\d+)?)\s*(ms|s|m|h|d)?",
    re.IGNORECASE,
)
_PATH = re.compile(r"(?<![\w:/.~-])(?:~|\.{1,2})?/[^\s\"'`()<>:,]+")
"""of a file: the folder of a project may be called anything"""
_SECONDS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
_MOST_TEXT = 20_000
_MOST_PIECES = 100
_FAR_S = 40 * 86400.0


class Fault(NamedTuple):
    """``status``: ``quota``, ``auth``, ``budget``, or the class of the error; ``reset_at``: wall seconds, if told."""

    status: str
    reset_at: float | None = None
    http: int = 0


def classify(text: str, *, code: object = None, data: Any = None, name: str = "error", now_s: float = 0.0) -> Fault:
    """What kind of failure this is. ``code`` is a number that may be an HTTP status; ``data`` whatever came with it."""
    pieces = list(_pieces(data))
    words = _PATH.sub("", "\n".join([text, *(f"{key}: {value}" for key, value in pieces)])[:_MOST_TEXT])
    http = _http(code, pieces, text)
    if _BUDGET.search(words):
        return Fault("budget", None, http)
    if (
        http in (402, 429, 529)
        or (http in (0, 400, 403, 503) and _QUOTA.search(words))
        or (http in (0, 400, 403) and _BUSY.search(words))
    ):
        return Fault("quota", _reset(words, now_s), http)
    if http in (401, 403) or (http in (0, 400) and _AUTH.search(words)):
        return Fault("auth", None, http)
    return Fault(_name(pieces) or name, None, http)


def _pieces(data: Any, depth: int = 0) -> Iterator[tuple[str, Any]]:
    """The texts and numbers inside, with their keys; not too many."""
    if depth > 4 or not isinstance(data, dict):  # noqa: PLR2004
        return
    for key, value in list(data.items())[:_MOST_PIECES]:
        if isinstance(value, dict):
            yield from _pieces(value, depth + 1)
        elif isinstance(value, str | int | float) and not isinstance(value, bool):
            yield str(key)[:100], value if not isinstance(value, str) else value[:2000]


def _http(code: object, pieces: list[tuple[str, Any]], text: str) -> int:
    told = [code, *(value for key, value in pieces if "status" in key.lower() or key.lower() in ("code", "httpcode"))]
    for value in told:
        if isinstance(value, int) and 400 <= value < 600:  # noqa: PLR2004
            return value
    found = _STATUS.search(text[:500])
    return int(found[1]) if found else 0


def _name(pieces: list[tuple[str, Any]]) -> str:
    named = (
        str(v) for k, v in pieces if k.lower() in ("errorkind", "errorname", "type", "name") and isinstance(v, str)
    )
    return next((value[:60] for value in named if value), "")


def _reset(words: str, now_s: float) -> float | None:
    if at := _AT.search(words):
        return float(at[1])
    if after := _AFTER.search(words):
        wait_s = float(after[1][:12]) * _SECONDS[(after[2] or "s").lower()]
        return now_s + wait_s if wait_s < _FAR_S else None
    return None
