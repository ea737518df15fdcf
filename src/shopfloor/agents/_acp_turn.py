"""What happened in one turn of an agent that speaks the Agent Client Protocol, and what that is worth.

The reason that such an agent gives for its end says little: several end a turn properly whose model call failed, or in
which everything that they tried was refused.
"""

from __future__ import annotations

from typing import NamedTuple

from shopfloor.agents._acp_presets import Preset

LAST_CHARS = 4000

_REASONS = {
    "end_turn": "success",
    "max_tokens": "limit",
    "max_turn_requests": "limit",
    "refusal": "failed",
    "cancelled": "failed",
}


class Verdict(NamedTuple):
    """``status`` as TURN_END has it; ``why`` when that is not success; ``fault``: a model call failed."""

    status: str
    why: str = ""
    fault: bool = False


class Turn:
    """One turn: what it said last, and how its tools ended."""

    def __init__(self, preset: Preset) -> None:
        self._preset = preset
        self.said = ""
        """the last message, its beginning"""
        self.titles: dict[str, str] = {}
        self.broken = False
        """it told that its model cannot be used"""
        self._denied: set[str] = set()
        self._ended: set[str] = set()
        self._last = ""
        self._last_denied = False

    def says(self, text: str) -> None:
        self.said = (self.said + text)[:LAST_CHARS]

    def begins(self, tool: str, title: str) -> bool:
        """True when this tool was not known yet."""
        new = tool not in self.titles
        if new:
            self.said = ""
        if title or new:
            self.titles[tool] = title
        return new

    def denies(self, tool: str) -> None:
        self._denied.add(tool)
        self._last, self._last_denied = "denied", True

    def ends(self, tool: str, *, failed: bool) -> str:
        """How it ended: ok, error or denied; empty when that was told before."""
        if tool in self._ended:
            return ""
        self._ended.add(tool)
        if tool in self._denied:
            return "denied"
        self._last = "error" if failed else "ok"
        self._last_denied = self._last_denied and failed
        return self._last

    def judged(self, reason: str, *, usage: bool) -> Verdict:
        """What the turn is worth, now that it ended for this reason; ``usage``: tokens came with it."""
        status = _REASONS.get(reason, "failed")
        if status != "success":
            return Verdict(status, f"it ended its turn with {reason!r}")
        begins = self._preset.failure_begins
        if begins and self.said.lstrip().startswith(begins):
            return Verdict("failed", self.said.strip(), fault=True)
        if self.broken or (self._preset.success_has_usage and not usage):
            return Verdict("failed", self.said.strip() or "its model call failed", fault=True)
        if self._last_denied:
            return Verdict("failed", "it did nothing more after it was refused")
        if self._preset.last_tool_decides and self._last == "error":
            return Verdict("failed", "it stopped after a tool failed")
        return Verdict("success")
