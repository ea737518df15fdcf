"""Every agent as the plain command that it is: it edits, commits, is checked and landed. No driver, no network."""

from collections.abc import Callable

import pytest

from tests.agents.lab import Lab
from tests.agents.recipes import RECIPES, plain, works_and_lands
from tools.agents import Agent


def test_there_is_no_way_out(lab: Lab) -> None:
    assert lab.links() == ["lo"]


@pytest.mark.parametrize("name", RECIPES)
def test_an_agent_edits_and_its_change_lands(lab: Lab, installed: Callable[[str], Agent], name: str) -> None:
    recipe = RECIPES[name]
    installed(recipe.agent)
    plain(lab, name)
    works_and_lands(lab, name, recipe.script)
