"""mini-swe-agent 2: what it prints is for people; what it did stands in its trajectory, a file written anew each step.

The file is read again whenever it has changed. A reading that comes while it is being written is of no use and is made
again. Cost, tokens and steps are those of the file, which starts anew with each attempt.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from shopfloor.agents._faults import classify
from shopfloor.agents._json import count, is_usd, text_of
from shopfloor.agents._lines import Line
from shopfloor.agents._preset import TASK_FILE, PresetAgent, is_word, trajectory
from shopfloor.agents._process import write_private
from shopfloor.agents._run import Reader
from shopfloor.agents._tidy import Tidy
from shopfloor.agents.jsonlines import meaning
from shopfloor.masking import Masker
from shopfloor.ports import Capabilities, Kind, Launch, Report

LARGEST_BYTES = 64 << 20
"""A larger trajectory is not read any more: its agent goes on, but is not understood."""
EVERY_S = 0.5
LINE_BYTES = 1 << 20


class MiniAgent(PresetAgent):
    """Runs ``mini`` and follows its trajectory."""

    driver = "mini"
    preset = "mini"
    capabilities = Capabilities(cost=True, tokens=True, gateway=True)

    def reader(self, launch: Launch) -> Reader:
        """The file's messages as reports, its streams as noise."""
        return TrajectoryReader(trajectory(launch), Masker(launch.secrets), launch.profile.name)

    def task(self, launch: Launch) -> tuple[str, ...]:
        """The prompt as a word; one that is too long goes into a configuration file of the attempt's own folder."""
        path = Path(launch.directory, TASK_FILE)
        if is_word(launch.prompt) or "=" in str(path):  # it would take such a path for a key and its value
            return super().task(launch)
        path.parent.mkdir(parents=True, exist_ok=True)
        write_private(path, f"run:\n  task: {quoted(launch.prompt)}\n")
        # The second word says nothing to it; it says to us that nothing has to go to its stdin.
        return ("--config", str(path), "--config", "run.prompt_file={prompt_file}")


def quoted(text: str) -> str:
    """A YAML scalar on one line, in ASCII; halves of surrogate pairs are no text and become ``?``."""
    return '"' + "".join(map(_escaped, text.encode(errors="replace").decode())) + '"'


def _escaped(sign: str) -> str:
    if " " <= sign <= "~":
        return f"\\{sign}" if sign in '"\\' else sign
    return f"\\u{ord(sign):04x}" if sign <= "\uffff" else f"\\U{ord(sign):08x}"


class _Seen(NamedTuple):
    """How a file was when it was last read."""

    changed_ns: int
    size: int


class TrajectoryReader:
    """A trajectory as reports. Told once each; sums never fall."""

    line_bytes = LINE_BYTES
    masked = True
    every_s = EVERY_S

    def __init__(self, path: Path, masker: Masker, name: str) -> None:
        self._path = path
        self._tidy = Tidy(masker)
        self._name = name
        self._seen = _Seen(0, 0)
        self._told = 0
        self._usage: tuple[float | None, int, int, int] = (None, 0, 0, 0)
        self._too_large = False
        self.status = ""
        """the exit status of the file; empty: it has not ended"""
        self.result = ""
        self._last_words = ""

    def started(self) -> list[Report]:
        return [Report(kind=Kind.STARTED, text=self._name)]

    def heard(self, stream: str, line: Line) -> list[Report]:
        """Every line is noise."""
        text = line.data.decode(errors="replace")
        if not text.strip():
            return []
        if stream == "stderr":
            self._last_words = text.strip()[:300]
        told: dict[str, Any] = {"stream": stream} if stream != "stdout" else {}
        if line.cut:
            told["cut"] = True
        return [Report(kind=Kind.NOISE, text=text, data=told)]

    async def look(self) -> Sequence[Report]:
        """What has come into the file since."""
        try:
            found = await asyncio.to_thread(read, self._path, self._seen)
        except OSError:
            return []  # not there yet
        if found is None:
            return []
        self._seen, document = found
        if self._seen.size > LARGEST_BYTES:
            if self._too_large:
                return []
            self._too_large = True
            what = f"{self._path.name} has more than {LARGEST_BYTES >> 20} MiB and is not read any more"
            return [Report(kind=Kind.LOG, status="warning", text=what)]
        return self.take(document)

    def take(self, document: Any) -> list[Report]:
        """What is new in a trajectory; nothing for anything that is none. Pure."""
        messages = document.get("messages") if isinstance(document, dict) else None
        if not isinstance(messages, list):
            return []
        reports = []
        for message in messages[self._told :]:
            if isinstance(message, dict):
                reports += self._message(self._tidy.value(message))
        self._told = max(self._told, len(messages))
        reports += self._spent(document, messages)
        return reports + self._end(document)

    def _message(self, message: dict[str, Any]) -> list[Report]:
        extra = message.get("extra")
        extra = extra if isinstance(extra, dict) else {}
        content = text_of(message, "content")
        match message.get("role"):
            case "assistant":
                said = [Report(kind=Kind.TEXT, text=content)] if content else []
                actions = extra.get("actions")
                listed = actions if isinstance(actions, list) else []
                return said + [Report(kind=Kind.TOOL, text=text_of(one, "command")) for one in listed if _is_dict(one)]
            case "tool":
                code = extra.get("returncode")
                data = {"output": extra.get("raw_output", ""), "returncode": code}
                return [Report(kind=Kind.TOOL, status="ok" if code == 0 else "error", data=data)]
            case "user" if "interrupt_type" in extra:
                return [Report(kind=Kind.LOG, status="warning", text=content)]
            case _:
                return []

    def _spent(self, document: dict[str, Any], messages: list[Any]) -> list[Report]:
        info = document.get("info")
        stats = info.get("model_stats") if isinstance(info, dict) else None
        stats = stats if isinstance(stats, dict) else {}
        used = [usage for one in messages if (usage := _usage_of(one))]
        usd = stats.get("instance_cost")
        cost, tokens_in, tokens_out, steps = self._usage
        # It writes 0 for a model whose price it does not know.
        if is_usd(usd) and usd > 0:
            cost = max(cost or 0.0, float(usd))
        tokens_in = max(tokens_in, sum(count(one.get("prompt_tokens")) for one in used))
        tokens_out = max(tokens_out, sum(count(one.get("completion_tokens")) for one in used))
        now = (cost, tokens_in, tokens_out, max(steps, count(stats.get("api_calls"))))
        if now == self._usage:
            return []
        self._usage = now
        return [self._report(Kind.USAGE)]

    def _end(self, document: dict[str, Any]) -> list[Report]:
        """Its end, told once."""
        info = self._tidy.value(document.get("info"))
        said = text_of(info, "exit_status") if isinstance(info, dict) else ""
        if not said or self.status:
            return []
        self.status = meaning(said)
        self.result = text_of(info, "submission")
        if self.status != "failed":
            return [Report(kind=Kind.TURN_END, status=self.status, text=self.result, data={"exit_status": said})]
        last = self._tidy.value(document["messages"][-1]) if document["messages"] else {}
        why = text_of(last, "content") if isinstance(last, dict) else ""
        self.result = f"{said}: {why}" if why and why != said else said
        return [Report(kind=Kind.ERROR, status=classify(why, data={"type": said}).status, text=self.result)]

    def ended(self, code: int | None) -> Report:
        """EXITED: completed only when the file says so and the exit code does not contradict."""
        completed = self.status == "success" and code == 0
        return self._report(
            Kind.EXITED,
            status="completed" if completed else "error",
            text=self.result if completed else self._why(code),
        )

    def _why(self, code: int | None) -> str:
        how = "ended by a signal" if code is None else f"exit {code}"
        match self.status:
            case "success":
                return f"{how} although it submitted its work"
            case "limit":
                return f"{how}: it reached a limit of its own"
            case "failed":
                return f"{how}: {self.result[:500]}"
            case _:
                said = f": {self._last_words}" if self._last_words else ""
                return f"{how} without an end in its trajectory{said}"

    def _report(self, kind: Kind, *, status: str = "", text: str = "") -> Report:
        cost, tokens_in, tokens_out, steps = self._usage
        return Report(
            kind=kind, status=status, text=text, cost_usd=cost, tokens_in=tokens_in, tokens_out=tokens_out, steps=steps
        )


def read(path: Path, seen: _Seen) -> tuple[_Seen, Any] | None:
    """The document in a file that has changed; None: it has not, or is being written. Raises OSError."""
    with path.open("rb") as file:
        facts = path.stat()
        now = _Seen(facts.st_mtime_ns, facts.st_size)
        if now == seen:
            return None
        if now.size > LARGEST_BYTES:
            return now, None
        data = file.read(LARGEST_BYTES + 1)
    try:
        return now, json.loads(data)
    except (ValueError, RecursionError):
        return None


def _is_dict(value: object) -> bool:
    return isinstance(value, dict)


def _usage_of(message: Any) -> dict[str, Any]:
    """What the model's answer in this message used; empty: it is none."""
    for key in ("extra", "response", "usage"):
        message = message.get(key) if isinstance(message, dict) else None
    return message if isinstance(message, dict) else {}
