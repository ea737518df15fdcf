"""Agents that report in JSON Lines: start, step, thought, log, finish, error, cost, and whatever else they say.

The reader is tolerant: what is not a JSON object with a ``type`` is noise and never fatal, unknown types and fields are
kept. It is strict about success: a ``finish`` that says so, as the last terminal event, and exit code 0.
"""

from __future__ import annotations

from typing import Any

from shopfloor.agents._faults import classify
from shopfloor.agents._json import count, decode, is_usd, text_of
from shopfloor.agents._lines import Line
from shopfloor.agents._preset import PresetAgent
from shopfloor.agents._run import Reader
from shopfloor.agents._tidy import Tidy
from shopfloor.masking import Masker
from shopfloor.ports import Capabilities, Kind, Launch, Report

LINE_BYTES = 16 << 20
"""An event carries whole outputs: much more than a line of text may have."""
SUCCESS = frozenset({"success", "submitted", "completed"})
LIMIT = frozenset({"limit", "limitsexceeded", "timeexceeded", "cost_limit", "step_limit"})


class JsonLinesAgent(PresetAgent):
    """Runs the profile's command and reads its events."""

    driver = "jsonlines"
    capabilities = Capabilities(cost=True, tokens=True)

    def reader(self, launch: Launch) -> Reader:
        """Events on stdout, noise on stderr."""
        return EventReader(Masker(launch.secrets))


class EventReader:
    """Events as reports; pure, no I/O. Cost, tokens and steps are sums for the attempt and never fall."""

    line_bytes = LINE_BYTES
    masked = False

    def __init__(self, masker: Masker | None = None) -> None:
        self._tidy = Tidy(masker or Masker(()))
        self.cost_usd: float | None = None
        self.tokens_in = self.tokens_out = self.steps = 0
        self.terminal = ""
        """success, limit, failed or error: the last terminal event; empty: there was none"""
        self.result = ""
        self._session = ""

    def started(self) -> list[Report]:
        return []

    def heard(self, stream: str, line: Line) -> list[Report]:
        """What one line means; nothing for a blank one."""
        event = None if line.cut or stream != "stdout" else decode(line.data)
        if event is not None:
            return self.read(event)
        return self._tidy.noise(stream, line)

    def read(self, event: dict[str, Any]) -> list[Report]:
        """What one event means."""
        event = self._tidy.value(event)
        kind = event["type"]
        data = event.get("data")
        data = data if isinstance(data, dict) else {}
        match kind:
            case "start":
                self._session = text_of(data, "session_id", "session") or text_of(event, "session_id", "run_id")
                return [Report(kind=Kind.STARTED, text=text_of(data, "task"), session=self._session, data=event)]
            case "step":
                return self._step(data, event)
            case "thought":
                return [Report(kind=Kind.TEXT, text=text_of(data, "content"), data=event)]
            case "log":
                text = text_of(data, "content", "message")
                return [Report(kind=Kind.LOG, text=text, status=text_of(data, "level"), data=event)]
            case "ask":
                return [Report(kind=Kind.ASKED, text=text_of(data, "question", "content"), data=event)]
            case "finish":
                return [self._finish(data, event)]
            case "error":
                self.terminal, self.result = "error", text_of(data, "error")
                status = classify(self.result, data={"type": text_of(data, "type")}, name="").status
                told = {name: data[name] for name in ("reset_at",) if name in data}
                return [Report(kind=Kind.ERROR, text=self.result, status=status, data={**event, **told})]
            case "retrying":
                told = {**event, "delay_s": data.get("delay_s", 0.0)}
                return [
                    Report(kind=Kind.RETRYING, text=text_of(data, "error"), status=_word(data, "status"), data=told)
                ]
            case "cost":
                self._spend(data.get("total"))
                self.tokens_in = max(self.tokens_in, count(data.get("tokens_in")))
                self.tokens_out = max(self.tokens_out, count(data.get("tokens_out")))
                return [self._usage(event)]
            case _:
                return [Report(kind=Kind.LOG, text=str(kind), status="unknown", data=event)]

    def ended(self, code: int | None) -> Report:
        """EXITED: completed only when the agent said so and its exit code does not contradict."""
        completed = self.terminal == "success" and code == 0
        return Report(
            kind=Kind.EXITED,
            status="completed" if completed else "error",
            text=self.result if completed else self._why(code),
            session=self._session,
            cost_usd=self.cost_usd,
            tokens_in=self.tokens_in,
            tokens_out=self.tokens_out,
            steps=self.steps,
        )

    def _why(self, code: int | None) -> str:
        how = "ended by a signal" if code is None else f"exit {code}"
        match self.terminal:
            case "success":
                return f"{how} although it reported success"
            case "":
                return f"{how} without reporting an end"
            case "limit":
                return f"{how}: it reached a limit of its own"
            case _:
                return f"{how}: {self.result[:500]}" if self.result else how

    def _step(self, data: dict[str, Any], event: dict[str, Any]) -> list[Report]:
        self.steps = max(self.steps + 1, count(data.get("step")))
        self.tokens_in += count(data.get("tokens_in"))
        self.tokens_out += count(data.get("tokens_out"))
        tool = Report(kind=Kind.TOOL, text=text_of(data, "action"), steps=self.steps, data=event)
        priced = self._spend(data.get("cost_so_far"))
        return [tool, self._usage()] if priced or "tokens_in" in data or "tokens_out" in data else [tool]

    def _finish(self, data: dict[str, Any], event: dict[str, Any]) -> Report:
        said = text_of(data, "status")
        self.terminal = meaning(said)
        self.result = text_of(data, "result") or (f"finished as {said!r}" if self.terminal == "failed" else "")
        return Report(kind=Kind.TURN_END, status=self.terminal, text=text_of(data, "result"), data=event)

    def _spend(self, usd: object) -> bool:
        """Note a sum; True when it was one. A sum below an earlier one does not give anything back."""
        if not is_usd(usd):
            return False
        self.cost_usd = max(self.cost_usd or 0.0, float(usd))
        return True

    def _usage(self, event: dict[str, Any] | None = None) -> Report:
        return Report(
            kind=Kind.USAGE,
            data=event or {},
            cost_usd=self.cost_usd,
            tokens_in=self.tokens_in,
            tokens_out=self.tokens_out,
            steps=self.steps,
        )


def meaning(status: str) -> str:
    """``success``, ``limit`` or ``failed``, for the word an agent has for its end."""
    known = status.lower()
    return "success" if known in SUCCESS else "limit" if known in LIMIT else "failed"


def _word(data: dict[str, Any], key: str) -> str:
    """Text, or a whole number as text."""
    value = data.get(key)
    return str(value) if isinstance(value, str | int) and not isinstance(value, bool) else ""
