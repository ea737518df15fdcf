"""What Claude Code's ``result`` events say of a turn, and what it has spent: for both known families of versions."""

from __future__ import annotations

import re
from typing import Any, NamedTuple

from shopfloor.agents import _claude_wire as wire
from shopfloor.agents._faults import Fault, classify

MOST_USD = 1e9
"""More is a mistake of the agent and not counted."""
_AT = re.compile(r"\|(\d{10})\b")
_LIMITS = {"error_max_turns": "it reached its limit of turns", "error_max_budget_usd": "it reached its budget"}


class Verdict(NamedTuple):
    """``status``: success, limit or failed; ``why``: its last words, or what went wrong; ``fault``: for an ERROR."""

    status: str
    why: str
    fault: Fault | None = None


def judge(event: dict[str, Any], *, now_s: float, reset_at: float | None) -> Verdict:
    """What a result means. An error may call itself a success, so both fields have to agree.

    ``reset_at`` is what the agent said before of its rate limit, in wall seconds.
    """
    subtype, said = wire.text(event, "subtype"), wire.text(event, "result")
    if event.get("is_error") is False and subtype == "success":
        return Verdict("success", said)
    errors = event.get("errors")
    why = "; ".join(error for error in errors if isinstance(error, str)) if isinstance(errors, list) else ""
    why = why or said or subtype or "it does not say why"
    if subtype in _LIMITS:
        fault = Fault("budget") if subtype == "error_max_budget_usd" else None
        return Verdict("limit", f"{_LIMITS[subtype]}: {why}", fault)
    if "No conversation found" in why:
        return Verdict("failed", why, Fault("session"))
    told = {"type": wire.text(event, "api_error_type")}
    name = wire.text(event, "terminal_reason") or "error"
    fault = classify(why, code=event.get("api_error_status"), data=told, name=name, now_s=now_s)
    if fault.status == "quota":
        at = _AT.search(why)
        fault = fault._replace(reset_at=fault.reset_at or (float(at[1]) if at else reset_at))
    return Verdict("failed", why, fault)


class Spent:
    """Sums for the attempt, whatever a version counts: since the last result, the process, or all of the session."""

    def __init__(self) -> None:
        self.usd: float | None = None
        self.tokens_in = self.tokens_out = 0

    def add(self, event: dict[str, Any]) -> None:
        """Count one result."""
        newer = event.get("model_usage_since_last_result")
        models = newer if isinstance(newer, dict) else wire.table(event, "modelUsage")
        used = [one for one in models.values() if isinstance(one, dict)]
        into = int(sum(wire.number(one.get(key)) for one in used for key in _INTO))
        out = int(sum(wire.number(one.get("outputTokens")) for one in used))
        if isinstance(newer, dict):
            # Its total is of the whole session, earlier processes included.
            usd = sum(wire.number(one.get("costUSD"), MOST_USD) for one in used)
            self.usd = (self.usd or 0.0) + usd
            self.tokens_in, self.tokens_out = self.tokens_in + into, self.tokens_out + out
            return
        total = event.get("total_cost_usd")
        if isinstance(total, int | float):
            self.usd = max(self.usd or 0.0, wire.number(total, MOST_USD))
        self.tokens_in, self.tokens_out = max(self.tokens_in, into), max(self.tokens_out, out)


_INTO = ("inputTokens", "cacheReadInputTokens", "cacheCreationInputTokens")
