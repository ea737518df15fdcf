"""What a worker can do: run a command, read and edit files, and speak with the floor that has started it."""

from __future__ import annotations

import asyncio
import math
import shutil
import signal
import threading
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from pathlib import Path
from typing import Any, NamedTuple

from shopfloor.config import speaker
from shopfloor.domain.errors import ShopfloorError
from shopfloor.mcp.verbs import VERBS, Verb, speak
from shopfloor.spawn import Guard, SpawnError, Step

MOST_BYTES = 200_000
"""of a command's output that are kept: its beginning and its end"""
LADDER = (Step(signal.SIGTERM, 2.0), Step(signal.SIGKILL, math.inf))


class Done(NamedTuple):
    """What came of a tool call: what the model is told, and a command's exit code."""

    text: str
    code: int | None = None


class Tools:
    """The tools, bound to one folder. A refusal is a text for the model, never an exception."""

    def __init__(self, guard: Guard, folder: Path, env: Mapping[str, str], *, timeout_s: float) -> None:
        self._guard = guard
        self._folder = folder.resolve()
        self._env = dict(env)
        self._timeout_s = timeout_s

    async def bash(self, command: str) -> Done:
        """Run a command in the shell; stdout and stderr together, and its exit code (None: ended by a signal).

        It is ended, with everything that it started, after the time limit or when the call is cancelled; what it left
        behind in the background ends with it.
        """
        shell = "bash" if shutil.which("bash", path=self._env.get("PATH")) else "sh"
        argv = [shell, "-c", 'exec "$0" -c "$1" 2>&1', shell, command]
        try:
            process = await self._guard.spawn(argv, cwd=self._folder, env=self._env)
        except SpawnError as problem:
            return Done(f"the command was not started: {problem.message}", 126)
        assert process.stdout is not None
        output, note = _Kept(), ""
        try:
            async with asyncio.timeout(self._timeout_s):
                while data := await process.stdout.read(1 << 16):
                    output.add(data)
                await process.wait()
        except TimeoutError:
            note = f"\n[ended: it took longer than {self._timeout_s:g} s]"
        finally:
            ended, _ = await process.stop(LADDER)
        return Done(output.text() + note, 124 if note else ended.code)

    def edit(self, path: str, old: str, new: str) -> Done:
        """Replace ``old``, which must occur exactly once, by ``new``; with an empty ``old`` write the whole file."""
        try:
            place = (self._folder / path).resolve()
            if not place.is_relative_to(self._folder):
                return Done(f"{path!r} lies outside of {str(self._folder)!r}: edit files in there only")
            if not old:
                place.parent.mkdir(parents=True, exist_ok=True)
                place.write_text(new, encoding="utf-8", newline="")
                return Done(f"wrote {len(new)} characters to {path}")
            with place.open(encoding="utf-8", newline="") as file:
                text = file.read()
            count = text.count(old)
            if count != 1:
                what = "is not there" if not count else f"is there {count} times: give more of what surrounds it"
                return Done(f"{path} was not changed: what is to be replaced {what}")
            place.write_text(text.replace(old, new), encoding="utf-8", newline="")
        except (OSError, UnicodeError, ValueError) as problem:
            return Done(f"{path} was not changed: {problem}")
        return Done(f"changed {path}")

    def read(self, path: str) -> Done:
        """The text of a file, its beginning and its end where it is too long."""
        try:
            place = (self._folder / path).resolve()
            if not place.is_relative_to(self._folder):
                return Done(f"{path!r} lies outside of {str(self._folder)!r}: read files in there only")
            kept = _Kept()
            with place.open("rb") as file:
                while data := file.read(1 << 16):
                    kept.add(data)
        except (OSError, ValueError) as problem:
            return Done(f"{path} was not read: {problem}")
        return Done(kept.text())

    @property
    def verbs(self) -> Mapping[str, Verb]:
        """What can be said to the floor; nothing where this worker was not started by one, or is not to speak."""
        return VERBS if speaker(self._env) is not None else {}

    async def say(self, what: str, arguments: Mapping[str, Any]) -> Done:
        """One of its verbs, as `shopfloor mcp` says it: who speaks is told by the environment alone."""
        try:
            reply = await _aside(lambda: speak(what, arguments, self._env))
        except ShopfloorError as problem:
            return Done(problem.message + (f" ({problem.hint})" if problem.hint else ""))
        except OSError as problem:
            return Done(f"the floor cannot be reached: {problem}")
        return Done(str(reply.get("text", "")))


async def _aside(call: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    """What it returns or raises, in a thread that holds up no end: a signal may come minutes before an answer does."""
    outcome: Future[dict[str, Any]] = Future()
    outcome.set_running_or_notify_cancel()

    def work() -> None:
        try:
            outcome.set_result(call())
        except (ShopfloorError, OSError) as problem:
            outcome.set_exception(problem)

    threading.Thread(target=work, daemon=True).start()
    return await asyncio.wrap_future(outcome)


class _Kept:
    """The beginning and the end of an output of any size."""

    def __init__(self) -> None:
        self._head, self._tail, self._dropped = bytearray(), bytearray(), 0

    def add(self, data: bytes) -> None:
        room = MOST_BYTES // 2 - len(self._head)
        self._head += data[:room]
        self._tail += data[room:] if room > 0 else data
        surplus = len(self._tail) - MOST_BYTES // 2
        if surplus > 0:
            del self._tail[:surplus]
            self._dropped += surplus

    def text(self) -> str:
        between = f"\n[{self._dropped} bytes are left out here]\n".encode() if self._dropped else b""
        return (bytes(self._head) + between + bytes(self._tail)).decode(errors="replace")
