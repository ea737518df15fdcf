"""Numbers and foreign texts as people read them. Imports nothing new: the fast start uses it too."""

import os
from collections.abc import Sequence

_MINUTE, _HOUR, _DAY = 60, 3600, 86400
_TENTHS_BELOW = 9.95  # seconds: from there on whole ones
_KILO = 1000


def clean(text: str, limit: int = 0) -> str:
    """One line that cannot move a cursor or forge another line; cut to ``limit`` columns when given."""
    line = " ".join(text.split())
    if not line.isprintable():
        from shopfloor.domain.names import printable

        line = printable(line)
    return fit(line, limit) if limit else line


def block(text: str) -> str:
    """Several lines, each harmless."""
    from shopfloor.domain.names import printable

    return printable(text)


def columns(text: str) -> int:
    """The columns that a text takes in a terminal."""
    if text.isascii():
        return len(text)
    from unicodedata import combining, east_asian_width

    return sum(0 if combining(char) else 2 if east_asian_width(char) in "WF" else 1 for char in text)


def fit(text: str, width: int) -> str:
    """The text in at most ``width`` columns; what is cut off shows as ``…``."""
    if columns(text) <= width:
        return text
    if width < 1:
        return ""
    if text.isascii():
        return f"{text[: width - 1]}…"
    used, end = 0, 0
    for end, char in enumerate(text):  # noqa: B007 - where it ends is what is looked for
        used += columns(char)
        if used >= width:
            break
    return f"{text[:end]}…"


def pad(text: str, width: int) -> str:
    """The text filled with blanks to ``width`` columns."""
    return text + " " * (width - columns(text))


def duration(seconds: float) -> str:
    """``0.4s``, ``12s``, ``3m05s``, ``2h10m``, ``3d04h``."""
    if seconds < _TENTHS_BELOW:
        return f"{max(0.0, seconds):.1f}s"
    whole = round(seconds)
    if whole < _MINUTE:
        return f"{whole}s"
    if whole < _HOUR:
        return f"{whole // _MINUTE}m{whole % _MINUTE:02d}s"
    if whole < _DAY:
        return f"{whole // _HOUR}h{whole % _HOUR // _MINUTE:02d}m"
    return f"{whole // _DAY}d{whole % _DAY // _HOUR:02d}h"


def money(usd: float) -> str:
    """USD with two digits, below one dollar with four."""
    return f"{usd:.2f} USD" if usd >= 1 or usd == 0 else f"{usd:.4f} USD"


def size(number: int) -> str:
    """Bytes with a decimal unit."""
    amount = float(number)
    for unit in ("B", "kB", "MB", "GB"):
        if amount < _KILO:
            return f"{amount:.0f} {unit}" if unit == "B" else f"{amount:.1f} {unit}"
        amount /= _KILO
    return f"{amount:.1f} TB"


def count(number: int, one: str, many: str = "") -> str:
    """``1 order``, ``2 orders``."""
    return f"{number} {one if number == 1 else many or one + 's'}"


def screen() -> tuple[int, int]:
    """Columns and lines of the terminal on stdout, (0, 0) when it is none.

    COLUMNS and LINES are not asked: where a shell exports them, they are as old as its last prompt.
    """
    try:
        size = os.get_terminal_size(1)
    except OSError:
        return 0, 0
    return size.columns or 80, size.lines or 24


def few(words: list[str], most: int) -> str:
    """The first ``most`` of them in one line, and how many more there are."""
    more = f" and {len(words) - most} more" if len(words) > most else ""
    return ", ".join(words[:most]) + more


def table(rows: Sequence[tuple[str, ...]], *, width: int = 0, indent: str = "  ", gap: str = "  ") -> list[str]:
    """Rows as aligned lines; the last column is not padded, and cut where ``width`` (columns) is given."""
    if not rows:
        return []
    wide = [max(columns(row[n]) for row in rows) for n in range(len(rows[0]) - 1)]
    lines = [indent + gap.join([*map(pad, row, wide), row[-1]]).rstrip() for row in rows]
    return [fit(line, width) for line in lines] if width else lines
