"""The end of what an agent or a check has written so far: a few kilobytes are read, whatever the file's size."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import msgspec

from shopfloor.cli.words import clean

TAIL_BYTES = 8192
SPEAKING = frozenset({"text", "tool", "log", "asked", "error", "turn_end", "noise"})
_SHOWN = 300


def last_words(transcript: Path) -> str:
    """The newest thing that an agent said or did, as one line; empty when there is nothing yet."""
    for report in reversed(list(_reports(_end_of(transcript)))):
        text = clean(str(report.get("text") or ""), _SHOWN)
        kind = report.get("kind")
        if text and isinstance(kind, str) and kind in SPEAKING:
            return text
    return ""


def running_check(folder: Path, commands: Sequence[str]) -> str:
    """The check whose log is the newest in an evidence folder, in words."""
    try:
        names = [entry.name for entry in os.scandir(folder)]
    except OSError:
        return ""
    numbers = [int(head) for name in names if (head := name.partition("-")[0]).isdigit()]
    if not numbers:
        return "preparing a clean checkout"
    on_base = any(name.startswith("base-") for name in names)
    number = max(numbers)
    what = clean(commands[number - 1]) if 0 < number <= len(commands) else f"check {number}"
    return f"{what} again on the base" if on_base else what


def _end_of(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            size = file.seek(0, os.SEEK_END)
            start = max(0, size - TAIL_BYTES)
            file.seek(start)
            data = file.read(TAIL_BYTES)
    except OSError:
        return b""
    return data.partition(b"\n")[2] if start else data


def _reports(data: bytes) -> Iterator[dict[str, Any]]:
    for line in data.splitlines():
        try:
            found = msgspec.json.decode(line)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            continue
        if isinstance(found, dict):
            yield found
