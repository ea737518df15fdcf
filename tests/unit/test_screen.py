"""What Claude Code in a terminal says by its hooks: recorded ones, and what their ends are worth."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import msgspec
import pytest

from shopfloor.agents._screen import HookedScreen
from shopfloor.masking import Masker
from shopfloor.ports import Kind, Report

GOLDEN = Path(__file__).parents[1] / "golden" / "tmux"
PLAIN = msgspec.structs.asdict(Report(kind=Kind.LOG))


def told(report: Report) -> dict[str, Any]:
    fields = msgspec.structs.asdict(report)
    return {name: value for name, value in fields.items() if name == "kind" or value != PLAIN[name]}


@pytest.mark.parametrize("name", sorted(path.stem for path in GOLDEN.glob("*.hooks")))
def test_golden(name: str) -> None:
    screen = HookedScreen(Masker(()))
    events = map(json.loads, (GOLDEN / f"{name}.hooks").read_text().splitlines())
    reports = [report for event in events for report in screen.hook(event)]
    found = [told(report) for report in (*reports, screen.ended(0))]
    assert json.loads(json.dumps(found)) == json.loads((GOLDEN / f"{name}.json").read_text())


def hook(name: str, tool: str = "", **fields: Any) -> dict[str, Any]:
    return {"hook_event_name": name, "session_id": "s1", **({"tool_name": tool} if tool else {}), **fields}


STOP = hook("Stop", last_assistant_message="Done!")


@pytest.mark.parametrize("how", ["PermissionDenied", "PermissionRequest"])
@pytest.mark.parametrize(("worked", "status"), [("", "error"), ("Read", "error"), ("Bash", "completed")])
def test_a_denied_run_that_looks_like_success_is_none(how: str, worked: str, status: str) -> None:
    """Denied by a rule, or by a person who refused what it asked for."""
    screen = HookedScreen(Masker(()))
    events = [hook("SessionStart"), hook("UserPromptSubmit", prompt="do it"), hook(how, "Write")]
    events += [hook("PostToolUse", worked)] if worked and how == "PermissionDenied" else []
    if worked and how == "PermissionRequest":
        events += [hook("UserPromptSubmit", prompt="That was not allowed."), hook("PostToolUse", worked)]
    reports = [report for event in [*events, STOP] for report in screen.hook(event)]
    assert reports[-1].kind is Kind.TURN_END
    assert reports[-1].status == ("success" if status == "completed" else "failed")
    end = screen.ended(0)
    assert end.status == status
    assert status == "completed" or ("Write" in end.text and "Done!" in end.text)


def test_what_begins_and_never_ends_was_denied() -> None:
    """By a rule of its own: of that it tells nothing else."""
    screen = HookedScreen(Masker(()))
    for event in (hook("PreToolUse", "Read", tool_use_id="1"), hook("PostToolUse", "Read", tool_use_id="1")):
        screen.hook(event)
    begun = [hook("PreToolUse", "Write", tool_use_id="2"), hook("PreToolUse", "Bash", tool_use_id="3")]
    reports = [report for event in [*begun, STOP] for report in screen.hook(event)]
    assert [(r.text.strip(), r.status) for r in reports if r.kind is Kind.TOOL and r.status] == [
        ("Write", "denied"), ("Bash", "denied"),
    ]  # fmt: skip
    assert screen.ended(0).status == "error"


def test_who_works_after_all_has_worked() -> None:
    screen = HookedScreen(Masker(()))
    events = [hook("PermissionDenied", "Write"), STOP, hook("UserPromptSubmit", prompt="now you may")]
    for event in [*events, hook("PostToolUse", "Write"), STOP]:
        screen.hook(event)
    assert screen.ended(0).status == "completed"
