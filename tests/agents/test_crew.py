"""Four agents of four makers in one run, and what happens when one of them is killed in the middle of a command."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Callable
from typing import Any

import pytest

from tests.acceptance.shop import until
from tests.agents.lab import Lab
from tests.agents.recipes import RECIPES, WAITS, plain
from tools.agents import Agent

CREW = ("claude", "codex", "goose", "mini")


def test_four_agents_land_four_orders_in_one_run(lab: Lab, installed: Callable[[str], Agent]) -> None:
    for name in CREW:
        installed(RECIPES[name].agent)
        plain(lab, name)
    lab.settle(check="test ! -e bad.txt", more="max_parallel = 4")
    prompts = [lab.scripted(name, RECIPES[name].script, agent=name, file=f"{name}.txt") for name in CREW]
    said = lab("run", *prompts, "--json")
    assert said.code == 0, said
    assert said.json["counts"]["landed"] == 4
    assert {row["name"]: row["attempts"] for row in said.json["orders"]} == dict.fromkeys(CREW, 1)
    files = lab.git("ls-tree", "--name-only", "main").split()
    assert {f"{name}.txt" for name in CREW} <= set(files)
    assert lab.processes() == []


def started(lab: Lab) -> list[dict[str, Any]]:
    """What the log says of every start of an agent."""
    lines = map(json.loads, (lab.root / ".work" / "events.jsonl").read_text().splitlines())
    return [line["data"] for line in lines if line["event_type"] == "agent.started"]


@pytest.mark.parametrize("name", ["claude", "codex", "goose", "gemini", "opencode"])
def test_an_agent_killed_in_a_command_leaves_nothing_running_and_its_order_is_done(
    lab: Lab, installed: Callable[[str], Agent], name: str
) -> None:
    installed(RECIPES[name].agent)
    plain(lab, name)
    lab.settle(check="test ! -e bad.txt")
    once = lab.folder / "once"
    prompt = lab.scripted("one", "once", file="a.txt", once=str(once))
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


def waiting(lab: Lab) -> list[str]:
    return [line for line in lab.processes() if WAITS in line]


def holds(lab: Lab, ref: str, file: str) -> bool:
    return lab.git("ls-tree", "--name-only", ref, file) == file
