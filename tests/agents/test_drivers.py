"""Every agent by its driver: it edits, is checked and landed; what it told of itself is kept."""

import json
from collections.abc import Callable

import pytest

from shopfloor.agents import DRIVERS
from tests.agents.lab import Lab
from tests.agents.recipes import DRIVEN, KEY, driven
from tools.agents import Agent


@pytest.mark.parametrize("name", [name for name, one in DRIVEN.items() if one.driver in DRIVERS])
def test_an_agent_edits_and_its_change_lands(lab: Lab, installed: Callable[[str], Agent], name: str) -> None:
    one = DRIVEN[name]
    installed(one.agent)
    driven(lab, name)
    lab.settle(check="test ! -e bad.txt")
    said = lab("run", lab.scripted("one", one.script, file="a.txt"), "--agent", name, "--json")
    assert said.code == 0, (said, lab("log", "one"))
    assert said.json["counts"]["landed"] == 1
    assert lab.git("show", "main:a.txt") == "made by a.txt"
    steps = [request.step for request in lab.requests(one.script) if request.tools]
    assert steps == list(range(len(steps)))
    assert len(steps) >= 2
    assert {request.credential for request in lab.requests(one.script)} == {f"…{KEY[-6:]}"}
    kinds = [entry["kind"] for entry in json.loads(lab("log", "one", "--json").out)["entries"]]
    assert "tool" in kinds
    assert kinds[-1] == "exited"
    assert lab.processes() == []
