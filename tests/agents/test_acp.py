"""Real agents by the Agent Client Protocol are refused what they may not do, and that is no success."""

from collections.abc import Callable

import pytest

from tests.agents.lab import Lab
from tests.agents.recipes import DRIVEN, driven
from tools.agents import Agent

ASKS = ("claude-acp", "gemini-acp", "goose-acp")
"""Of codex the sandbox refuses, and opencode asks only where its settings say so, which are the recipe's here."""


@pytest.mark.parametrize("name", ASKS)
def test_an_agent_that_is_refused_everything_has_not_succeeded(
    lab: Lab, installed: Callable[[str], Agent], name: str
) -> None:
    installed(DRIVEN[name].agent)
    driven(lab, name, permissions="deny")
    lab.settle(check="test ! -e bad.txt", more="retries = 0")
    said = lab("run", lab.scripted("one", "edit", file="a.txt"), "--agent", name, "--json")
    assert said.code == 1, (said, lab("log", "one"))
    assert said.json["counts"].get("landed", 0) == 0
    assert "denied" in lab("log", "one").out
    assert lab.processes() == []
