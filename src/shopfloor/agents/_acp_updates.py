"""What an agent tells while it works, as reports, and the sums of what it spent."""

from __future__ import annotations

import math
from typing import Any

from acp import schema

from shopfloor.agents import _acp_wire as wire
from shopfloor.agents._acp_presets import Preset
from shopfloor.agents._acp_turn import Turn
from shopfloor.agents._tidy import Tidy
from shopfloor.ports import Kind, Report

MOST_USD = 1e9
MOST_TOKENS = 10**12
INPUT_CHARS = 2000
HELD_CHARS = 2000
"""of words that wait for more of them"""
_QUIET = (
    schema.AvailableCommandsUpdate,
    schema.ConfigOptionUpdate,
    schema.UserMessageChunk,
    schema.AgentPlanRemovedUpdate,
)


class Updates:
    """Reports of one attempt. Cost, tokens and steps are sums for the attempt and never fall."""

    def __init__(self, preset: Preset, tidy: Tidy) -> None:
        self._preset, self._tidy = preset, tidy
        self.turn: Turn | None = None
        """the turn that runs; before the first, what comes is a replay of an earlier attempt"""
        self._cost: float | None = None
        self._cost_before = 0.0
        self._tokens_in = self._tokens_out = self._steps = 0
        self._words: list[str] = []
        self._words_chars = 0

    @property
    def holds(self) -> bool:
        """Whether it has words that were not reported yet: models speak a word at a time."""
        return bool(self._words)

    def flushed(self) -> list[Report]:
        """The words that it holds, as one TEXT."""
        words, self._words, self._words_chars = "".join(self._words), [], 0
        return [self._plain(Kind.TEXT, words)] if words else []

    def begin(self) -> None:
        """A turn begins."""
        self.turn = Turn(self._preset)

    def sums(self, kind: Kind, *, status: str = "", text: str = "", session: str = "") -> Report:
        """A report with what was spent so far."""
        return Report(
            kind=kind,
            status=status,
            text=text,
            session=session,
            cost_usd=self._cost,
            tokens_in=self._tokens_in,
            tokens_out=self._tokens_out,
            steps=self._steps,
        )

    def heard(self, params: Any) -> list[Report]:
        """What one ``session/update`` means; words are held until there are many, or something else comes."""
        found = wire.read(schema.SessionNotification, params)
        update = found.update if found else None
        if self.turn and isinstance(update, schema.AgentMessageChunk):
            return self._says(self.turn, update.content)
        return [*self.flushed(), *self._means(update, params)]

    def _means(self, update: Any, params: Any) -> list[Report]:
        if isinstance(update, schema.UsageUpdate):
            return self._spent(update)
        turn = self.turn
        if turn is None:
            return []
        match update:
            case schema.AgentThoughtChunk():
                text = getattr(update.content, "text", "")
                return [self._plain(Kind.TEXT, str(text), thought=True)] if text else []
            case schema.ToolCallStart() | schema.ToolCallProgress():
                return self._tool(turn, update)
            case schema.AgentPlanUpdate():
                plan = "\n".join(f"{entry.status}: {entry.content}" for entry in update.entries)
                return [self._plain(Kind.LOG, plan, status="plan")]
            case schema.CurrentModeUpdate():
                return [self._plain(Kind.LOG, f"mode {update.current_mode_id}", status="mode")]
            case schema.SessionInfoUpdate():
                turn.broken = turn.broken or _broken(update.field_meta)
                return []
            case None:
                return [self._unknown(params)]
        return [] if isinstance(update, _QUIET) else [self._unknown(params)]

    def asks(self, call: schema.ToolCallUpdate) -> list[Report]:
        """It wants to use a tool, which may not have been told of otherwise."""
        return self._tool(self.turn, call) if self.turn else []

    def title(self, call: schema.ToolCallUpdate) -> str:
        known = self.turn.titles.get(call.tool_call_id, "") if self.turn else ""
        return self._tidy.text(call.title or known or call.tool_call_id)

    def counted(self, found: schema.PromptResponse) -> list[Report]:
        """One USAGE when the end of a turn says how many tokens it took in all."""
        into: Any = None
        out: Any = None
        if found.usage:
            usage = found.usage
            out = usage.output_tokens + (usage.thought_tokens or 0)
            # Some count what was cached as input, some beside it.
            into = max(usage.input_tokens, usage.total_tokens - out)
        else:
            quota = (found.field_meta or {}).get("quota")
            told = quota.get("token_count") if isinstance(quota, dict) else None
            into, out = (
                (told.get("input_tokens"), told.get("output_tokens")) if isinstance(told, dict) else (None, None)
            )
        if not (isinstance(into, int) and isinstance(out, int) and into >= 0 and out >= 0 and into + out < MOST_TOKENS):
            return []
        if self._preset.usage_is_last_step or not into + out:
            return []
        self._tokens_in += into
        self._tokens_out += out
        return [self.sums(Kind.USAGE)]

    # -- kinds of updates ---------------------------------------------------------------------------------------------

    def _spent(self, update: schema.UsageUpdate) -> list[Report]:
        cost = update.cost
        if cost is None or cost.currency.upper() != "USD" or not math.isfinite(cost.amount):
            return []
        if not 0 <= cost.amount < MOST_USD:
            return []
        if self.turn is None and self._cost is None:
            self._cost_before = max(self._cost_before, cost.amount)  # what earlier attempts spent
            return []
        spent = max(self._cost or 0.0, cost.amount - self._cost_before)
        if spent == self._cost:
            return []
        self._cost = spent
        return [self.sums(Kind.USAGE)]

    def _says(self, turn: Turn, content: Any) -> list[Report]:
        if not isinstance(content, schema.TextContentBlock):
            return [*self.flushed(), self._plain(Kind.LOG, f"a message of type {content.type}", status="unknown")]
        turn.says(content.text)
        if content.text:
            self._words.append(content.text)
            self._words_chars += len(content.text)
        return self.flushed() if self._words_chars >= HELD_CHARS else []

    def _tool(
        self, turn: Turn, call: schema.ToolCallStart | schema.ToolCallProgress | schema.ToolCallUpdate
    ) -> list[Report]:
        """TOOL when it begins, and when it ends."""
        told: dict[str, Any] = {"id": call.tool_call_id, **({"kind": call.kind} if call.kind else {})}
        reports = []
        if turn.begins(call.tool_call_id, call.title or ""):
            self._steps += 1
            if call.raw_input is not None:
                told["input"] = repr(self._tidy.value(call.raw_input))[:INPUT_CHARS]
            reports.append(self._plain(Kind.TOOL, self._name(turn, call.tool_call_id), steps=self._steps, **told))
        if call.status in ("completed", "failed"):
            status = turn.ends(call.tool_call_id, failed=call.status == "failed")
            if status:
                name = self._name(turn, call.tool_call_id)
                reports.append(self._plain(Kind.TOOL, name, status=status, steps=self._steps, id=call.tool_call_id))
        return reports

    def _name(self, turn: Turn, tool: str) -> str:
        return turn.titles.get(tool) or tool

    def _unknown(self, params: Any) -> Report:
        update = params.get("update") if isinstance(params, dict) else None
        kind = update.get("sessionUpdate") if isinstance(update, dict) else None
        return self._plain(Kind.LOG, str(kind or "update"), status="unknown", update=update)

    def _plain(self, of: Kind, text: str, /, *, status: str = "", steps: int = 0, **data: Any) -> Report:
        told = self._tidy.value(data)
        return Report(kind=of, text=self._tidy.text(text), status=status, steps=steps, data=told)


def _broken(meta: dict[str, Any] | None) -> bool:
    """One agent tells only here that its model cannot be used."""
    value: Any = meta
    for key in ("codex", "threadStatus", "type"):
        value = value.get(key) if isinstance(value, dict) else None
    return bool(value == "systemError")
