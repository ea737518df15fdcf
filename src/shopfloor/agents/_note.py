"""Takes notes of what goes on in a terminal, also while no engine lives: a program of two verbs.

    python -I -S _note.py record SPEC    what the terminal shows, from stdin, masked and bounded
    python -I -S _note.py hook FILE      one hook's input, from stdin, as one masked line

SPEC is a JSON file with ``log``, ``end``, ``mark``, ``limit``, ``note`` and ``secrets``; it is removed once it was
read. The recorder ends at ``mark`` or at the end of its input, and makes the file ``end``.
"""

import json
import os
import sys
import time
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[2]))

from shopfloor.config import environment, secrets_in
from shopfloor.masking import Masker

CHUNK = 1 << 16
WORDS_CHARS = 64_000
"""of one field of a hook's input"""
FILE_BYTES = 64 << 20
"""of a file of hooks; beyond that only their names are noted"""
KEPT = frozenset(
    {
        *("hook_event_name", "session_id", "transcript_path", "source", "reason", "message", "notification_type"),
        *("tool_name", "tool_use_id", "prompt", "last_assistant_message", "error", "stop_hook_active", "is_interrupt"),
    }
)
"""The fields of a hook's input that are noted whole; ``tool_input`` is noted as a line of words."""


def append(path: Path, data: bytes) -> None:
    """Add to a private file by one write, so that lines of hooks that run side by side do not mix."""
    file = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    try:
        os.write(file, data)
    finally:
        os.close(file)


def open_end(data: bytes, mark: bytes) -> int:
    """How many bytes at the end of ``data`` may be the beginning of the mark."""
    return next((size for size in range(min(len(mark) - 1, len(data)), 0, -1) if mark.startswith(data[-size:])), 0)


def record(spec: dict[str, Any]) -> None:
    """Keep stdin up to the mark."""
    masked = Masker(spec["secrets"]).stream()
    mark, room = spec["mark"].encode(), int(spec["limit"])
    file = os.open(spec["log"], os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    held, ended = b"", False
    while not ended:
        piece = os.read(0, CHUNK)
        before, found, _ = (held + piece).partition(mark)
        ended = bool(found) or not piece
        keep = 0 if ended else open_end(before, mark)
        held = before[len(before) - keep :]
        safe = masked.feed(before[: len(before) - keep]) + (masked.close() if ended else b"")
        if 0 <= room < len(safe):
            safe, room = safe[:room] + spec["note"].encode(), -1
        elif room >= 0:
            room -= len(safe)
        else:
            safe = b""
        while safe:
            safe = safe[os.write(file, safe) :]
    Path(spec["end"]).touch(mode=0o600)


def hook(path: Path) -> None:
    """Note one hook's input. Whatever is wrong with it, the agent goes on."""
    try:
        told = json.loads(sys.stdin.buffer.read().decode(errors="replace"))
    except (ValueError, RecursionError):
        told = {}
    if not isinstance(told, dict):
        told = {}
    masker = Masker(secrets_in(environment()))
    full = path.exists() and path.stat().st_size > FILE_BYTES
    kept: dict[str, Any] = {"t": round(time.time(), 3)}
    for key, value in told.items():
        if key in KEPT and (not full or key == "hook_event_name"):
            kept[key] = masker.text(value)[:WORDS_CHARS] if isinstance(value, str) else value
    if isinstance(told.get("tool_input"), dict) and not full:
        kept["tool_input"] = masker.text(json.dumps(told["tool_input"], ensure_ascii=False))[:2_000]
    append(path, json.dumps(kept).encode() + b"\n")


def main() -> int:
    """Do what the first word says."""
    verb, path = sys.argv[1], Path(sys.argv[2])
    if verb == "hook":
        hook(path)
        return 0
    spec = json.loads(path.read_text())
    path.unlink()
    record(spec)
    return 0


if __name__ == "__main__":
    sys.exit(main())
