"""The real Claude Code in a terminal: it works by itself, outlives its controller, and waits for a person's word."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Callable
from typing import Any

import pytest

from tests.acceptance.shop import until

WHY = "the tier of real agents is not here"
recipes = pytest.importorskip("tests.agents.recipes", reason=WHY)
programs = pytest.importorskip("tools.agents", reason=WHY)

AGENTS = ("claude", "claude-old")


def typed(lab: Any, installed: Callable[[str], Any], name: str, **profile: Any) -> None:
    """Add it as an agent of driver tmux. Its configuration is the driver's matter, not that of the recipe."""
    installed(name)
    env = {
        key: value for key, value in recipes.claude(lab).items() if key.startswith(("ANTHROPIC_", "CLAUDE_CODE_MAX"))
    }
    lab.add(name, programs.agent(name), env, driver="tmux", preset="claude", **profile)
    lab.settle(check="test ! -e bad.txt")


def seen(lab: Any, kind: str) -> list[dict[str, Any]]:
    log = lab.root / ".work" / "events.jsonl"
    lines = map(json.loads, log.read_text().splitlines() if log.exists() else ())
    return [line["data"] for line in lines if line["event_type"] == kind]


def waiting(lab: Any) -> list[int]:
    """The command that goes on for ever."""
    return [
        int(line.split()[0]) for line in lab.processes() if recipes.WAITS in line and not line.split()[1].endswith("sh")
    ]


@pytest.mark.parametrize("name", AGENTS)
def test_its_change_lands(lab: Any, installed: Callable[[str], Any], name: str) -> None:
    typed(lab, installed, name)
    said = lab("run", lab.scripted("one", "edit", file="a.txt"), "--agent", name, "--json")
    assert said.code == 0, (said, lab("log", "one"))
    assert lab.git("show", "main:a.txt") == "made by a.txt"
    assert lab.git("ls-tree", "--name-only", "main").split() == [".shopfloor.toml", "README", "a.txt"]
    assert lab.processes() == []


@pytest.mark.parametrize("name", AGENTS)
def test_it_goes_on_when_its_controller_is_killed(lab: Any, installed: Callable[[str], Any], name: str) -> None:
    typed(lab, installed, name)
    prompt = lab.scripted("one", "once", file="a.txt", once=str(lab.folder / "once"))
    with lab.start("run", "--plain", "--agent", name, prompt) as run:
        until(lambda: bool(waiting(lab)), "it is in the middle of a command")
        run.signal(signal.SIGKILL)
        run.end()
    until(lambda: len(waiting(lab)) == 1, "its command goes on")
    (command,) = waiting(lab)
    with lab.start("run", "--resume", "--plain") as run:
        until(lambda: bool(seen(lab, "agent.adopted")), "it is taken up")
        os.kill(command, signal.SIGTERM)
        said = run.end()
    assert said.code == 0, said
    assert lab.git("show", "main:a.txt") == "made by a.txt"
    assert len(seen(lab, "agent.started")) == 1, "it was started twice"
    assert lab.processes() == []


@pytest.mark.parametrize("name", AGENTS)
def test_a_person_decides_from_another_terminal(lab: Any, installed: Callable[[str], Any], name: str) -> None:
    typed(lab, installed, name, permissions="ask")
    prompt = lab.scripted("one", "edit", file="a.txt")
    with lab.start("run", "--plain", "--agent", name, prompt) as run:
        until(lambda: len(seen(lab, "agent.asked")) == 1, "it asks whether it may write")
        assert lab("answer", "one", "yes").code == 0
        until(lambda: len(seen(lab, "agent.asked")) == 2, "it asks whether it may run a command")
        assert lab("answer", "one", "yes").code == 0
        said = run.end()
    assert said.code == 0, said
    assert lab.git("show", "main:a.txt") == "made by a.txt"
    assert lab.processes() == []
