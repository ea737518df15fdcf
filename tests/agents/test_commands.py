"""Every agent as the plain command that it is: it edits, commits, is checked and landed. No driver, no network."""

from collections.abc import Callable

import pytest

from tests.agents.lab import Lab
from tests.agents.recipes import KEY, RECIPES, plain
from tools.agents import Agent


def test_there_is_no_way_out(lab: Lab) -> None:
    assert lab.links() == ["lo"]


@pytest.mark.parametrize("name", RECIPES)
def test_an_agent_edits_and_its_change_lands(lab: Lab, installed: Callable[[str], Agent], name: str) -> None:
    recipe = RECIPES[name]
    installed(recipe.agent)
    plain(lab, name)
    lab.settle(check="test ! -e bad.txt")
    said = lab("run", lab.scripted("one", recipe.script, file="a.txt"), "--agent", name, "--json")
    assert said.code == 0, (said, lab("log", "one"))
    assert said.json["counts"]["landed"] == 1
    assert lab.git("show", "main:a.txt") == "made by a.txt"
    steps = [request.step for request in lab.requests(recipe.script) if request.tools]
    assert steps == list(range(len(steps)))
    assert len(steps) >= 2
    assert {request.credential for request in lab.requests(recipe.script)} == {f"…{KEY[-6:]}"}
    assert lab.processes() == []
