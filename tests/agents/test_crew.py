"""Four agents of four makers in one run, and what happens when one of them is killed in the middle of a command."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Callable
from typing import Any

import pytest

from shopfloor.agents import DRIVERS
from tests.acceptance.shop import until
from tests.agents.lab import Lab
from tests.agents.recipes import DRIVEN, RECIPES, WAITS, driven, plain
from tools.agents import Agent

PLAIN = ("claude", "codex", "goose", "mini")
BY_DRIVER = ("claude", "codex-acp", "goose-acp", "mini")
MISSING = sorted({DRIVEN[name].driver for name in BY_DRIVER} - set(DRIVERS))


def four(lab: Lab, scripts: dict[str, str]) -> None:
    """One order for each agent, all at once: all of them land, at the first try."""
    lab.settle(check="test ! -e bad.txt", more="max_parallel = 4")
    prompts = [lab.scripted(name, script, agent=name, file=f"{name}.txt") for name, script in scripts.items()]
    said = lab("run", *prompts, "--json")
    assert said.code == 0, said
    assert said.json["counts"]["landed"] == len(scripts)
    assert {row["name"]: row["attempts"] for row in said.json["orders"]} == dict.fromkeys(scripts, 1)
    assert {f"{name}.txt" for name in scripts} <= set(lab.git("ls-tree", "--name-only", "main").split())
    assert lab.processes() == []


def test_four_agents_land_four_orders_in_one_run(lab: Lab, installed: Callable[[str], Agent]) -> None:
    for name in PLAIN:
        installed(RECIPES[name].agent)
        plain(lab, name)
    four(lab, {name: RECIPES[name].script for name in PLAIN})


@pytest.mark.skipif(bool(MISSING), reason=f"there is no driver {', '.join(MISSING)}")
def test_four_agents_by_four_drivers_land_four_orders_in_one_run(lab: Lab, installed: Callable[[str], Agent]) -> None:
    for name in BY_DRIVER:
        installed(DRIVEN[name].agent)
        driven(lab, name)
    four(lab, {name: DRIVEN[name].script for name in BY_DRIVER})


def started(lab: Lab) -> list[dict[str, Any]]:
    """What the log says of every start of an agent."""
    lines = map(json.loads, (lab.root / ".work" / "events.jsonl").read_text().splitlines())
    return [line["data"] for line in lines if line["event_type"] == "agent.started"]


def killed_and_done(lab: Lab, name: str) -> None:
    """The agent dies in the middle of a command; its order is done all the same."""
    lab.settle(check="test ! -e bad.txt")
    prompt = lab.scripted("one", "once", file="a.txt", once=str(lab.folder / "once"))
    with lab.start("run", "--plain", "--agent", name, prompt) as run:
        until(lambda: bool(waiting(lab)), "it is in the middle of a command", longest_s=lab.longest_s)
        (first,) = started(lab)
        os.kill(first["handle"]["pid"], signal.SIGKILL)
        until(lambda: len(started(lab)) == 2, "it is started again", longest_s=lab.longest_s)
        # What the first one had started has ended before the second one is let in.
        assert waiting(lab) == []
        said = run.end()
    assert said.code == 0, said
    assert lab.git("show", "main:a.txt") == "made by a.txt"
    (row,) = lab("status", "--json").json["orders"]
    assert (row["state"], row["attempts"]) == ("landed", 2)
    kept = [ref for ref in lab.git("for-each-ref", "--format=%(refname)").split() if holds(lab, ref, "partial.txt")]
    assert kept, "what it had written before it was killed"
    assert lab.processes() == []


@pytest.mark.parametrize("name", ["claude", "codex", "goose", "gemini", "opencode"])
def test_an_agent_killed_in_a_command_leaves_nothing_running_and_its_order_is_done(
    lab: Lab, installed: Callable[[str], Agent], name: str
) -> None:
    installed(RECIPES[name].agent)
    plain(lab, name)
    killed_and_done(lab, name)


@pytest.mark.parametrize("name", [n for n in ("claude", "codex-acp", "goose-acp") if DRIVEN[n].driver in DRIVERS])
def test_a_killed_agent_goes_on_where_it_was(lab: Lab, installed: Callable[[str], Agent], name: str) -> None:
    installed(DRIVEN[name].agent)
    driven(lab, name)
    killed_and_done(lab, name)
    lengths = [request.turns for request in lab.requests("once") if request.tools]
    assert lengths.count(lengths[0]) == 1, f"a conversation began anew: {lengths} messages were told to the model"


def waiting(lab: Lab) -> list[str]:
    return [line for line in lab.processes() if WAITS in line]


def holds(lab: Lab, ref: str, file: str) -> bool:
    return lab.git("ls-tree", "--name-only", ref, file) == file
