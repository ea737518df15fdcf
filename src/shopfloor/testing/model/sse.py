"""Server-sent events."""

from __future__ import annotations

import json
import re
from typing import Any

_WORD = re.compile(r"\S+\s*|\s+")
PIECE = 40
"""characters of a tool's arguments in one event"""


def event(data: Any, kind: str = "", *, end: str = "\n\n") -> str:
    """One event, framed."""
    head = f"event: {kind}\n" if kind else ""
    return f"{head}data: {json.dumps(data)}{end}"


def words(text: str) -> list[str]:
    """A text in the pieces it is streamed in."""
    return _WORD.findall(text)


def pieces(text: str) -> list[str]:
    """Arguments in the pieces they are streamed in."""
    return [text[at : at + PIECE] for at in range(0, len(text), PIECE)]
