"""What a worker says on standard output: JSON Lines, seven types, in a fixed order.

``start``, then any mix of ``step``, ``thought`` and ``log``, then exactly one ``finish`` or ``error``, then ``cost``.
Every line has ``type``, ``data``, ``v``, ``run_id``, ``seq`` (without gaps, from 1) and ``timestamp`` (RFC 3339, UTC).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgspec

from shopfloor.domain.events import stamp_time

VERSION = 1
MOST_OUTPUT_CHARS = 50_000
MOST_ACTION_CHARS = 4_000


class Spent(msgspec.Struct, kw_only=True):
    """What the model calls came to; ``usd`` is None as soon as one of them has no known price."""

    usd: float | None = 0.0
    calls: int = 0
    tokens_in: int = 0
    tokens_out: int = 0


class Speaker:
    """Says one event a line, through ``write``; whatever it was given after the end is dropped."""

    def __init__(self, write: Callable[[bytes], None], *, run_id: str, wall: Callable[[], float]) -> None:
        self._write = write
        self._run_id = run_id
        self._wall = wall
        self._seq = 0
        self._ended = False
        self._steps = 0
        self.spent = Spent()

    def start(self, task: str, model: str, workdir: str) -> None:
        """The first line."""
        self._say("start", {"task": task, "model": model, "workdir": workdir})

    def thought(self, content: str) -> None:
        """What the model says beside its tool calls."""
        if content.strip():
            self._say("thought", {"content": content.strip()})

    def log(self, level: str, content: str) -> None:
        """What a person may want to know."""
        self._say("log", {"level": level, "content": content})

    def step(self, action: str, output: str, *, returncode: int | None, duration_ms: int) -> None:
        """One tool call and what came of it; ``returncode`` is None for a tool that runs no command."""
        self._steps += 1
        cut = len(output) > MOST_OUTPUT_CHARS
        self._say(
            "step",
            {
                "step": self._steps, "action": action[:MOST_ACTION_CHARS], "output": output[:MOST_OUTPUT_CHARS],
                "cost_so_far": self.spent.usd, "returncode": returncode, "duration_ms": duration_ms, "truncated": cut,
            },
        )  # fmt: skip

    def finish(self, status: str, result: str, duration_s: float) -> None:
        """The end by its own choice; ``status``: success, limit or failed."""
        self._end("finish", {"status": status, "result": result, "steps": self._steps, "duration_s": duration_s})

    def error(self, error: str, kind: str, traceback: str = "", **more: Any) -> None:
        """The end by what went wrong; ``kind`` is a class name, or ``auth``, ``budget``, ``quota``."""
        self._end("error", {"error": error, "type": kind, "traceback": traceback, **more})

    def _end(self, kind: str, data: dict[str, Any]) -> None:
        if self._ended:
            return
        self._say(kind, data)
        spent = self.spent
        cost = {
            "total": spent.usd, "calls": spent.calls, "source": "worker", "tokens_in": spent.tokens_in,
            "tokens_out": spent.tokens_out,
        }  # fmt: skip
        self._say("cost", cost)
        self._ended = True

    def _say(self, kind: str, data: dict[str, Any]) -> None:
        if self._ended:
            return
        self._seq += 1
        line = {
            "type": kind, "data": data, "v": VERSION, "run_id": self._run_id, "seq": self._seq,
            "timestamp": stamp_time(self._wall()),
        }  # fmt: skip
        self._write(msgspec.json.encode(line) + b"\n")
