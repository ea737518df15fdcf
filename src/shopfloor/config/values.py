"""Words as values: durations, sizes, money, names, paths. Each reader raises ValueError saying what is allowed.

A reader takes what TOML gives (str, int, float, bool, list, dict) and the text that a flag or a variable holds.
"""

from __future__ import annotations

import math
import re
import shlex
from collections.abc import Callable, Iterable
from typing import TypeVar

T = TypeVar("T")

NONE = "none"
"""What stands for "no limit" where TOML has no word for it."""

_DURATION = re.compile(r"([0-9]+(?:\.[0-9]+)?) ?(ms|s|m|h|d)")
_SECONDS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
_SIZE = re.compile(r"([0-9]+(?:\.[0-9]+)?) ?([KMGT]?)(i?B|B|)", re.IGNORECASE)
VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,254}")
_TRUE = {"true", "yes", "on", "1"}
_FALSE = {"false", "no", "off", "0"}
_LONGEST_S = 366 * 86400.0
_HUGE = 1e15
_HUGE_USD = 1e9
_SHORT, _LINE = 40, 4096  # characters
_CONTROLS = re.compile(r"[\x00-\x1f\x7f-\x9f\ud800-\udfff]")
_DIGITS = r"[0-9]{1,9}(?:\.[0-9]{1,9})?"


def closest(word: str, known: Iterable[str], *, likeness: float = 0.6) -> str:
    """``; did you mean 'x'?`` for the most similar known word, empty when none is similar."""
    import difflib

    lower = {name.lower(): name for name in sorted(known)}
    found = difflib.get_close_matches(word.lower()[:200], lower, 1, likeness)
    return f"; did you mean {lower[found[0]]!r}?" if found else ""


def _as_float(value: object, pattern: str) -> float:
    """The number it is, or the number that text of this pattern spells; NaN for everything else."""
    if isinstance(value, bool):
        return math.nan
    if isinstance(value, int | float):
        return float(value) if abs(value) < _HUGE else math.inf
    if isinstance(value, str) and (found := re.fullmatch(pattern, value.strip())):
        return float(found[1])
    return math.nan


def duration(value: object) -> float:
    """Seconds from ``"90s"``, ``"30m"``, ``"1h30m"``, ``"2 h"``, or a plain number of seconds; more than 0."""
    seconds = _as_float(value, f"({_DIGITS})")
    if isinstance(value, str) and len(value) <= _SHORT and re.fullmatch(rf"(?:{_DURATION.pattern} ?)+", value.strip()):
        seconds = sum(float(number) * _SECONDS[unit] for number, unit in _DURATION.findall(value))
    if not 0 < seconds <= _LONGEST_S:
        raise ValueError("a duration such as '90s', '30m' or '1h30m', more than 0 and at most 366 days")
    return seconds


def limit_of(reader: Callable[[object], float]) -> Callable[[object], float | None]:
    """The same reader, but ``"none"`` means that there is no limit."""

    def read(value: object) -> float | None:
        if isinstance(value, str) and value.strip().lower() == NONE:
            return None
        try:
            return reader(value)
        except ValueError as error:
            raise ValueError(f"{error}; or {NONE!r}") from None

    return read


def size(value: object) -> int:
    """Bytes from ``"512MB"`` (decimal), ``"2GiB"`` or ``"2G"`` (binary), or a plain number; more than 0."""
    amount = 0.0
    if isinstance(value, int) and not isinstance(value, bool):
        amount = float(value) if abs(value) < 2**60 else 0.0
    elif isinstance(value, str) and len(value) <= _SHORT and (match := _SIZE.fullmatch(value.strip())):
        base = 1000 if match[3].upper() == "B" else 1024
        amount = float(match[1]) * base ** " KMGT".index(match[2].upper() or " ")
    if not 1 <= amount < 2**60:
        raise ValueError("a size such as '512MB', '2GB' or '2GiB', at least 1 byte")
    return int(amount)


def money(value: object) -> float:
    """US dollars, more than 0: a number, or text such as ``"2.50"`` or ``"$2.50"``."""
    amount = _as_float(value, rf"\$?({_DIGITS})")
    if not 0 < amount < _HUGE_USD:
        raise ValueError("an amount in USD such as 2.50, more than 0")
    return amount


def number(low: float, high: float) -> Callable[[object], float]:
    """A finite number from ``low`` to ``high``, both included."""

    def read(value: object) -> float:
        found = _as_float(value, f"(-?{_DIGITS})")
        if not low <= found <= high:
            raise ValueError(f"a number from {low:g} to {high:g}")
        return found

    return read


def whole(low: int, high: int) -> Callable[[object], int]:
    """A whole number from ``low`` to ``high``, both included."""

    def read(value: object) -> int:
        found = value
        if isinstance(value, str) and re.fullmatch(r"-?[0-9]{1,9}", value.strip()):
            found = int(value)
        if not isinstance(found, int) or isinstance(found, bool) or not low <= found <= high:
            raise ValueError(f"a whole number from {low} to {high}")
        return found

    return read


def boolean(value: object) -> bool:
    """``true`` or ``false``; as text also yes, no, on, off, 1, 0."""
    if isinstance(value, bool):
        return value
    if isinstance(value, str) and value.strip().lower() in _TRUE | _FALSE:
        return value.strip().lower() in _TRUE
    raise ValueError("true or false")


def choice(*allowed: str) -> Callable[[object], str]:
    """One of these words."""

    def read(value: object) -> str:
        if isinstance(value, str) and value in allowed:
            return value
        similar = closest(value, allowed) if isinstance(value, str) else ""
        raise ValueError(f"one of {', '.join(map(repr, allowed))}{similar}")

    return read


def line(value: object) -> str:
    """One line of text without control characters, not blank."""
    if isinstance(value, str) and value.strip() and len(value) <= _LINE and not has_controls(value):
        return value.strip()
    raise ValueError("one line of text, not empty, without control characters")


def has_controls(text: str) -> bool:
    """True when the text could move a cursor, forge a line, or cannot be written as UTF-8."""
    return _CONTROLS.search(text) is not None


def shell(value: object) -> str:
    """A shell command: text that is not blank; several lines are a small script."""
    if isinstance(value, str) and value.strip() and "\0" not in value:
        return value.strip()
    raise ValueError("a shell command, not empty")


def ref(value: object) -> str:
    """The name of a branch, as far as it can be judged without git."""
    text = line(value)
    if text.startswith("-") or re.search(r"[\s~^:?*\[\\]|\.\.|@\{|//|/$|\.lock$|\.$", text):
        raise ValueError("the name of a branch, e.g. 'main'")
    return text


def inside(value: object) -> str:
    """A path relative to the repository that stays in it, without ``.`` and doubled slashes."""
    parts = [part for part in line(value).split("/") if part not in ("", ".")]
    if line(value).startswith(("/", "~")) or ".." in parts or not parts or parts[0] == ".git":
        raise ValueError("a path relative to the repository, inside it, e.g. '.venv'")
    return "/".join(parts)


def folder(value: object) -> str:
    """A folder: relative to the repository, or absolute."""
    text = line(value)
    if text.startswith("/") and ".." not in text.split("/"):
        return text.rstrip("/") or "/"
    try:
        return inside(value)
    except ValueError:
        raise ValueError("a folder relative to the repository, e.g. '.worktrees', or an absolute path") from None


def words(value: object) -> tuple[str, ...]:
    """A command: text is split as a shell splits it, an array is taken word by word."""
    if isinstance(value, list | tuple) and value and all(isinstance(word, str) and "\0" not in word for word in value):
        found = tuple(str(word) for word in value)
    elif isinstance(value, str) and "\0" not in value:
        try:
            found = tuple(shlex.split(value))
        except ValueError as error:
            raise ValueError(f"a command; this one cannot be split into words ({error})") from None
    else:
        found = ()
    if not found or not found[0].strip():
        raise ValueError("a command: text such as 'claude -p', or an array of words")
    return found


def many(reader: Callable[[object], T]) -> Callable[[object], tuple[T, ...]]:
    """An array of such values, each kept once; a single one counts as an array of one."""

    def read(value: object) -> tuple[T, ...]:
        items = value if isinstance(value, list | tuple) else [value]
        try:
            return tuple(dict.fromkeys(reader(item) for item in items))
        except ValueError as error:
            raise ValueError(f"an array; each item {error}") from None

    return read


def table(value: object) -> dict[str, str]:
    """Variables for an environment: names without ``=``, values without NUL."""
    if isinstance(value, dict) and all(
        isinstance(key, str) and VARIABLE.fullmatch(key) and isinstance(text, str) and "\0" not in text
        for key, text in value.items()
    ):
        return dict(value)
    raise ValueError("a table of variables and their text, e.g. { CI = 'true' }")


def variable(value: object) -> str:
    """The name of an environment variable."""
    if isinstance(value, str) and VARIABLE.fullmatch(value):
        return value
    raise ValueError("the name of a variable, e.g. 'ANTHROPIC_API_KEY' (no value, no pattern)")
