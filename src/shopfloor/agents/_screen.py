"""What programs in a terminal say about themselves: by hooks, or by nothing but lines and their end. Pure, no I/O."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import msgspec

from shopfloor.agents._claude_wire import LOOKING
from shopfloor.agents._lines import Line
from shopfloor.agents._run import Reader
from shopfloor.masking import Masker
from shopfloor.ports import Capabilities, Kind, Report

LAST_CHARS = 300
TEXT_CHARS = 1 << 20
LINE_BYTES = 1 << 20
_SEQUENCE = re.compile(
    r"\x1b(?:\[[0-?]*[ -/]*[@-~]|[\]PX^_][^\x07\x1b]*(?:\x07|\x1b\\)?|[ -/]*[0-~])|[\x00-\x08\x0b\x0c\x0e-\x1a\x7f]"
)


class Screen(Reader, Protocol):
    """Understands one kind of program in a terminal. It is given masked lines, and masks what hooks say."""

    hooked: bool
    """it says by hooks when it is ready, busy, done, and when it needs somebody"""
    interrupt: Sequence[str]
    """keys that end what it does now"""
    leave: str
    """what is typed to end it; empty: there is no such word"""
    ready: bool
    took: int
    """how many prompts it has taken"""
    asked: Report | None
    """what it waits for, while it waits for a person"""
    finished: bool
    """its turn is over, well or not, and it waits for more"""

    def hook(self, event: Mapping[str, Any]) -> Sequence[Report]:
        """What one hook means."""
        ...


class PlainScreen:
    """Any program: lines are text, it is done when it ends, and exit code 0 is success."""

    line_bytes = LINE_BYTES
    masked = True
    hooked = False
    interrupt: Sequence[str] = ("C-c",)
    leave = ""
    ready = True
    asked: Report | None = None
    finished = False
    capabilities = Capabilities(attach=True, interrupt=True, steer=True)

    def __init__(self, name: str) -> None:
        self._name = name
        self._last = ""
        self.took = 0

    def started(self) -> list[Report]:
        return [Report(kind=Kind.STARTED, text=self._name)]

    def heard(self, stream: str, line: Line) -> list[Report]:
        """One TEXT without what moves the cursor; of a line that was drawn several times, what it said last."""
        whole = _SEQUENCE.sub("", line.data.decode(errors="replace")).rstrip("\r")
        text = whole.rpartition("\r")[2]
        if text.strip():
            self._last = text.strip()[:LAST_CHARS]
        data: dict[str, Any] = {"cut": True} if line.cut else {}
        return [Report(kind=Kind.TEXT, text=text, data=data)] if text or not line.data.strip(b"\r") else []

    def hook(self, event: Mapping[str, Any]) -> list[Report]:
        return []

    def ended(self, code: int | None) -> Report:
        if code == 0:
            return Report(kind=Kind.EXITED, status="completed")
        return Report(kind=Kind.EXITED, status="error", text=self._last)


class HookedScreen:
    """Claude Code, whose hooks say what it does; what it draws is for people."""

    line_bytes = LINE_BYTES
    masked = True
    hooked = True
    interrupt: Sequence[str] = ("Escape",)
    leave = "/exit"
    capabilities = Capabilities(
        attach=True, resume=True, interrupt=True, steer=True, permissions=True, mcp=True, gateway=True, commits=True
    )  # fmt: skip

    def __init__(self, masker: Masker) -> None:
        self._masker = masker
        self.ready = self.finished = False
        self.took = 0
        self.asked: Report | None = None
        self.failure = ""
        self.result = ""
        self.session = ""
        self._steps = 0
        self._denied: dict[str, None] = {}
        """names of tools, each once"""
        self._begun: dict[str, Report] = {}
        """tools that have not ended, by their use: of what a rule denies it tells no more than that"""
        self._worked = False

    def started(self) -> list[Report]:
        return []

    def heard(self, stream: str, line: Line) -> list[Report]:
        """Nothing: what it draws cannot be read."""
        return []

    def hook(self, event: Mapping[str, Any]) -> list[Report]:
        """Its reports, masked; unknown hooks are told as logs."""
        name = self._text(event, "hook_event_name")
        self.session = self._text(event, "session_id") or self.session
        act = _HOOKS.get(name)
        if act is None:
            words = self._text(event, "message") or name
            return [self._report(Kind.LOG, words, status="unknown" if name != "Notification" else "")]
        return [*act(self, event)]

    def ended(self, code: int | None) -> Report:
        """Completed when it said so, or when somebody who looked at it left it in good order."""
        well = not self.failure and (self.finished or (code == 0 and self.took > 0))
        text = self.result if well else self.failure or ("" if self.took else "it ended before it took the prompt")
        return self._report(Kind.EXITED, text, status="completed" if well else "error")

    def _report(self, kind: Kind, text: str = "", *, status: str = "", **data: Any) -> Report:
        return Report(kind=kind, text=text, status=status, session=self.session, steps=self._steps, data=data)

    def _text(self, event: Mapping[str, Any], key: str) -> str:
        value = event.get(key)
        return self._masker.text(value)[:TEXT_CHARS] if isinstance(value, str) else ""

    def _answered(self, status: str) -> list[Report]:
        """What it had asked for was decided, whoever did."""
        if self.asked is None:
            return []
        text, self.asked = self.asked.text, None
        if status == "denied":
            self._denied[text.partition(" ")[0]] = None
        return [self._report(Kind.PERMISSION, text, status=status)]

    # -- one for each hook ------------------------------------------------------------------------------------------

    def _session_start(self, event: Mapping[str, Any]) -> list[Report]:
        self.ready = True
        return [self._report(Kind.STARTED, self._text(event, "source"))]

    def _submitted(self, event: Mapping[str, Any]) -> list[Report]:
        found = self._answered("denied")
        self.took += 1
        self.finished, self.failure = False, ""
        return [*found, self._report(Kind.LOG, self._text(event, "prompt")[:LAST_CHARS], status="prompt")]

    def _before_tool(self, event: Mapping[str, Any]) -> list[Report]:
        self._steps += 1
        self._begun[self._text(event, "tool_use_id")] = tool = self._tool(event, "")
        return [tool]

    def _after_tool(self, event: Mapping[str, Any]) -> list[Report]:
        self._begun.pop(self._text(event, "tool_use_id"), None)
        self._worked = self._worked or self._text(event, "tool_name") not in LOOKING
        return [*self._answered("allowed"), self._tool(event, "ok")]

    def _tool_failed(self, event: Mapping[str, Any]) -> list[Report]:
        self._begun.pop(self._text(event, "tool_use_id"), None)
        return [*self._answered("allowed"), self._tool(event, "error")]

    def _refused(self, event: Mapping[str, Any]) -> list[Report]:
        self._begun.pop(self._text(event, "tool_use_id"), None)
        self._denied[self._text(event, "tool_name")] = None
        return [*self._answered("denied"), self._tool(event, "denied")]

    def _tool(self, event: Mapping[str, Any], status: str) -> Report:
        words = f"{self._text(event, 'tool_name')} {self._text(event, 'tool_input')}".strip()
        return self._report(Kind.TOOL, words, status=status)

    def _wants(self, event: Mapping[str, Any]) -> list[Report]:
        what = f"{self._text(event, 'tool_name')} {self._text(event, 'tool_input')}".strip()
        self.asked = self._report(Kind.PERMISSION, what, status="asked")
        return [self.asked]

    def _stop(self, event: Mapping[str, Any]) -> list[Report]:
        self.finished, self.failure = True, ""
        self.result = self._text(event, "last_assistant_message")
        found = self._answered("denied")
        for tool in self._begun.values():
            self._denied[tool.text.partition(" ")[0]] = None
            found.append(msgspec.structs.replace(tool, status="denied", steps=self._steps))
        self._begun.clear()
        if self._denied and not self._worked:  # it calls that a success all the same
            denied = ", ".join(self._denied)
            self.failure = f"it was denied all that it wanted to do ({denied}), whatever it says: {self.result}"
            return [*found, self._report(Kind.TURN_END, self.failure, status="failed")]
        return [*found, self._report(Kind.TURN_END, self.result, status="success")]

    def _stop_failure(self, event: Mapping[str, Any]) -> list[Report]:
        self.finished = True
        self.failure = (
            self._text(event, "last_assistant_message") or self._text(event, "error") or "a model call failed"
        )
        status = _STATUS.get(self._text(event, "error"), self._text(event, "error"))
        failed = self._report(Kind.TURN_END, self.failure, status="failed")
        return [*self._answered("denied"), self._report(Kind.ERROR, self.failure, status=status), failed]

    def _session_end(self, event: Mapping[str, Any]) -> list[Report]:
        return [self._report(Kind.LOG, self._text(event, "reason"), status="session ended")]


_STATUS = {"rate_limit": "quota", "authentication_failed": "auth", "billing_error": "quota"}
_HOOKS = {
    "SessionStart": HookedScreen._session_start,
    "UserPromptSubmit": HookedScreen._submitted,
    "PreToolUse": HookedScreen._before_tool,
    "PostToolUse": HookedScreen._after_tool,
    "PostToolUseFailure": HookedScreen._tool_failed,
    "PermissionRequest": HookedScreen._wants,
    "PermissionDenied": HookedScreen._refused,
    "Stop": HookedScreen._stop,
    "StopFailure": HookedScreen._stop_failure,
    "SessionEnd": HookedScreen._session_end,
}
HOOKS = (*_HOOKS, "Notification", "PreCompact")
"""What is asked of it to be told of."""
