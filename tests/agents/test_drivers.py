"""Every agent by its driver: it edits, is checked and landed; what it told of itself is kept."""

import json
from collections.abc import Callable

import pytest

from tests.agents.lab import Lab
from tests.agents.recipes import DRIVEN, driven, works_and_lands
from tools.agents import Agent


@pytest.mark.parametrize("name", DRIVEN)
def test_an_agent_edits_and_its_change_lands(lab: Lab, installed: Callable[[str], Agent], name: str) -> None:
    one = DRIVEN[name]
    if one.agent:
        installed(one.agent)
    driven(lab, name)
    works_and_lands(lab, name, one.script, tools=one.tools)
    kinds = [entry["kind"] for entry in json.loads(lab("log", "one", "--json").out)["entries"]]
    assert "tool" in kinds or not one.tools
    assert kinds[-1] == "exited"
