"""What agents say in the Agent Client Protocol: whole talks, odd messages in the middle, anything at all."""

from __future__ import annotations

import json
from typing import Any

from campaigns.fuzz import corpus
from campaigns.fuzz.mutate import Mutator, cut
from campaigns.fuzz.streams import harmless
from campaigns.fuzz.target import READ, REFUSED, Target, chance, holds
from shopfloor.agents._acp_presets import PRESETS
from shopfloor.agents._acp_talk import Talk
from shopfloor.agents._lines import Lines
from shopfloor.agents._run import _line
from shopfloor.domain.order import Order
from shopfloor.masking import Masker
from shopfloor.ports import Kind, Launch, Profile, Report

LIMIT = 1 << 16
SECRETS = (corpus.SECRET, "another-secret")
FORMS = tuple(Masker(SECRETS)._forms)
WORDS = {"type": "text", "text": f"hm, {corpus.SECRET}"}
OPTIONS = [{"optionId": kind, "name": kind, "kind": kind} for kind in ("allow_always", "reject_once", "allow_once")]
CALL = {"toolCallId": "t1", "title": f"echo {corpus.SECRET}", "status": "pending"}

ASKED = {"sessionId": "s1", "toolCall": CALL, "options": OPTIONS}


def _update(kind: str, **fields: Any) -> dict[str, Any]:
    params = {"sessionId": "s1", "update": {"sessionUpdate": kind, **fields}}
    return {"jsonrpc": "2.0", "method": "session/update", "params": params}


OPENING: tuple[dict[str, Any], ...] = (
    {"id": 1, "result": {"protocolVersion": 1, "agentInfo": {"name": "a", "version": "1"}, "agentCapabilities": {}}},
    {"id": 2, "result": {"sessionId": "s1", "modes": {"currentModeId": "m", "availableModes": []}}},
)
MIDDLE: tuple[dict[str, Any], ...] = (
    _update("agent_message_chunk", content=WORDS),
    _update("agent_thought_chunk", content=WORDS),
    _update("tool_call", **CALL, rawInput={"command": corpus.SECRET, "deep": [[1.5, None]]}),
    _update("tool_call_update", toolCallId="t1", status="completed"),
    _update("tool_call_update", toolCallId="t2", status="failed", title="other"),
    _update("usage_update", used=1, size=2, cost={"amount": 0.25, "currency": "USD"}),
    _update("plan", entries=[{"content": "x", "priority": "high", "status": "pending"}]),
    _update("of_tomorrow", x=corpus.SECRET),
    {"id": "q1", "method": "session/request_permission", "params": ASKED},
    {"id": 7, "method": "fs/read_text_file", "params": {"sessionId": "s1", "path": "/proc/1/environ"}},
    {"id": 8, "method": "fs/write_text_file", "params": {"sessionId": "s1", "path": "/nowhere/x", "content": "x"}},
    {"id": 9, "method": "terminal/create", "params": {}},
    {"method": "_x/status", "params": {"a": corpus.SECRET}},
)
ENDS: tuple[dict[str, Any], ...] = (
    {"id": 3, "result": {"stopReason": "end_turn", "usage": {"inputTokens": 3, "outputTokens": 1, "totalTokens": 4}}},
    {"id": 3, "result": {"stopReason": "refusal"}},
    {"id": 3, "error": {"code": 429, "message": f"too many, {corpus.SECRET}", "data": {"retry-after": "3"}}},
)


def _talk(m: Mutator) -> bytes:
    """A talk that may be whole, or have anything odd in it."""
    said: list[dict[str, Any]] = [*OPENING, *(m.random.choice(MIDDLE) for _ in range(m.random.randint(0, 6)))]
    said.append(m.random.choice(ENDS))
    odd = m.random.random() < 0.8
    lines = [m.json(one) if odd and m.random.random() < 0.3 else json.dumps(one).encode() for one in said]
    if odd and m.random.random() < 0.3:
        m.random.shuffle(lines)
    if odd and m.random.random() < 0.2:
        lines.insert(m.random.randint(0, len(lines)), m.data(lines[0], corpus.TALKS))
    return b"\n".join(lines) + b"\n"


def _heard(pieces: list[bytes], preset: str, rule: Any) -> tuple[list[Report], list[bytes]]:
    launch = Launch(
        order=Order(id="wo-f.1", name="f", title="f"),
        attempt="wo-f.1.a1",
        profile=Profile(name="f", driver="acp", preset=preset, permissions=rule),
        prompt="do",
        workspace="/nowhere",
        branch="b",
        directory="/nowhere/a",
        env={},
        secrets=SECRETS,
    )
    talk = Talk(launch, PRESETS[preset], wall=lambda: 0.0, hello_s=1.0)
    lines = Lines(LIMIT)
    reports = list(talk.started())
    for line in [line for piece in pieces for line in lines.feed(piece)] + lines.close():
        reports += talk.heard("stdout", line)
    return [*reports, talk.ended(0)], talk.taken().splitlines()


def _check(data: bytes) -> str:
    """Nothing it says ends the reader; what it is answered is JSON; nothing is a success without its word for it."""
    random = chance(data)
    preset, rule = random.choice(("", "codex", "goose", "opencode")), random.choice(("allow", "deny", "ask"))
    reports, said = _heard([data], preset, rule)
    again, _ = _heard(cut(data, random), preset, rule)
    holds(reports == again, "reports depend on how they came")
    for report in reports:
        harmless(_line(report, 0.0), FORMS)
    for line in said:
        holds(json.loads(line)["jsonrpc"] == "2.0", "no message", line)
        holds(b"/proc/1/environ" not in line or b"error" in line, "a file outside was read", line)
    spent = [report.cost_usd for report in reports if report.cost_usd is not None]
    holds(spent == sorted(spent), "what was spent fell", spent)
    last = reports[-1]
    holds(last.kind is Kind.EXITED, "the end is not the last")
    ends = [report for report in reports if report.kind in (Kind.TURN_END, Kind.ERROR)]
    well = bool(ends) and ends[-1].kind is Kind.TURN_END and ends[-1].status == "success"
    holds((last.status == "completed") == well, "a success that nobody reported", last)
    holds(not well or b"end_turn" in data, "a success without the end of a turn", last)
    return READ if well else REFUSED


TARGETS = (Target("acp-talk", _talk, _check, 2),)
