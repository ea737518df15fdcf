"""Real agents by the Agent Client Protocol: each edits and is landed, and is refused what it may not do."""

from collections.abc import Callable

import pytest

from tests.agents.lab import Lab
from tests.agents.recipes import RECIPES
from tools.agents import Agent

AGENTS = {"claude": "claude-acp", "codex": "codex", "gemini": "gemini", "goose": "goose", "opencode": "opencode"}
"""Presets, and what is installed for each."""
MODELS = {"gemini": "gemini-2.5-flash"}
ASKS = [preset for preset in AGENTS if preset not in ("codex", "opencode")]
"""Of codex the sandbox refuses, and opencode asks only where its settings say so, which are the recipe's here."""


def add(lab: Lab, installed: Callable[[str], Agent], preset: str, permissions: str) -> None:
    wanted = installed(AGENTS[preset])
    profile = {"driver": "acp", "preset": preset, "permissions": permissions, "model": MODELS.get(preset, "")}
    env = {name: value for name, value in RECIPES[preset].env(lab).items() if name != "GOOSE_MODE"}
    lab.add(preset, wanted, env, **{key: value for key, value in profile.items() if value})
    lab.settle(check="test ! -e bad.txt", more="retries = 0")


@pytest.mark.parametrize("preset", AGENTS)
def test_an_agent_edits_and_its_change_lands(lab: Lab, installed: Callable[[str], Agent], preset: str) -> None:
    add(lab, installed, preset, "allow")
    said = lab("run", lab.scripted("one", "edit", file="a.txt"), "--agent", preset, "--json")
    assert said.code == 0, (said, lab("log", "one"))
    assert said.json["counts"]["landed"] == 1
    assert lab.git("show", "main:a.txt") == "made by a.txt"
    steps = [request.step for request in lab.requests("edit") if request.tools]
    assert steps == list(range(len(steps)))
    assert lab.processes() == []


@pytest.mark.parametrize("preset", ASKS)
def test_an_agent_that_is_refused_everything_has_not_succeeded(
    lab: Lab, installed: Callable[[str], Agent], preset: str
) -> None:
    add(lab, installed, preset, "deny")
    said = lab("run", lab.scripted("one", "edit", file="a.txt"), "--agent", preset, "--json")
    assert said.code == 1, (said, lab("log", "one"))
    assert said.json["counts"].get("landed", 0) == 0
    assert "denied" in lab("log", "one").out
    assert lab.processes() == []
