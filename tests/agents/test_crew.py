"""Four agents of four makers in one run, and what happens when one of them is killed in the middle of a command."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Callable, Sequence
from typing import Any

import pytest

from tests.acceptance.shop import until
from tests.agents.lab import Lab
from tests.agents.recipes import DRIVEN, KEY, RECIPES, WAITS, driven, plain
from tools.agents import Agent

PLAIN = (("claude", "codex", "goose", "mini"), ("claude-old", "gemini", "goose", "opencode"))
CREWS = (("claude", "codex-acp", "goose-acp", "mini"), ("opencode-acp", "gemini-acp", "codex-acp", "claude-acp"))
KILLED = [name for name, one in DRIVEN.items() if one.agent and one.tools]


def test_there_is_no_way_out(lab: Lab) -> None:
    assert lab.links() == ["lo"]


def hired(lab: Lab, installed: Callable[[str], Agent], crew: Sequence[str]) -> None:
    """All of them, each by its driver; nobody where one is not here."""
    for name in crew:
        installed(DRIVEN[name].agent)
    for name in crew:
        driven(lab, name)


def started(lab: Lab) -> list[dict[str, Any]]:
    """What the log says of every start of an agent."""
    lines = map(json.loads, (lab.root / ".work" / "events.jsonl").read_text().splitlines())
    return [line["data"] for line in lines if line["event_type"] == "agent.started"]


def waiting(lab: Lab) -> list[str]:
    return [line for line in lab.processes() if WAITS in line]


def holds(lab: Lab, ref: str, file: str) -> bool:
    return lab.git("ls-tree", "--name-only", ref, file) == file


def all_landed(lab: Lab, attempts: dict[str, int]) -> None:
    """By name of the orders, each of which added a file of that name."""
    rows = {row["name"]: row for row in lab("status", "--all", "--json").json["orders"]}
    assert {name: (row["state"], row["attempts"]) for name, row in rows.items()} == {
        name: ("landed", count) for name, count in attempts.items()
    }
    assert {f"{name}.txt" for name in attempts} <= set(lab.git("ls-tree", "--name-only", "main").split())
    assert lab.processes() == []


def four_land(lab: Lab, scripts: dict[str, str]) -> None:
    """One order for each agent, all at once: all of them land, at the first try."""
    lab.settle(check="test ! -e bad.txt", more="max_parallel = 4")
    said = lab("run", *(lab.scripted(name, script, agent=name, file=f"{name}.txt") for name, script in scripts.items()))
    assert said.code == 0, said
    all_landed(lab, dict.fromkeys(scripts, 1))
    assert {request.credential for request in lab.requests() if request.script} == {f"…{KEY[-6:]}"}


@pytest.mark.parametrize("crew", PLAIN, ids="-".join)
def test_four_agents_land_four_orders_in_one_run(
    lab: Lab, installed: Callable[[str], Agent], crew: Sequence[str]
) -> None:
    for name in crew:
        installed(RECIPES[name].agent)
    for name in crew:
        plain(lab, name)
    four_land(lab, {name: RECIPES[name].script for name in crew})


@pytest.mark.parametrize("crew", CREWS, ids="-".join)
def test_four_agents_by_their_drivers_land_four_orders_in_one_run(
    lab: Lab, installed: Callable[[str], Agent], crew: Sequence[str]
) -> None:
    hired(lab, installed, crew)
    four_land(lab, {name: DRIVEN[name].script for name in crew})


def killed_and_done(lab: Lab, name: str, script: str, others: Sequence[str] = ()) -> None:
    """An agent dies in the middle of a command; its order is done all the same, and ``others`` know nothing of it."""
    lab.settle(check="test ! -e bad.txt", more="max_parallel = 4")
    prompts = [lab.scripted(name, script, agent=name, file=f"{name}.txt", once=str(lab.folder / "once"))]
    prompts += [lab.scripted(other, DRIVEN[other].script, agent=other, file=f"{other}.txt") for other in others]
    with lab.start("run", "--plain", *prompts) as run:
        until(lambda: bool(waiting(lab)), "it is in the middle of a command", longest_s=lab.longest_s)
        (first,) = [one for one in started(lab) if one["agent"].endswith(f"/{name}")]
        os.kill(first["handle"]["pid"], signal.SIGKILL)
        until(lambda: len(started(lab)) == 2 + len(others), "it is started again", longest_s=lab.longest_s)
        # What the first one had started has ended before the second one is let in.
        assert waiting(lab) == []
        said = run.end()
    assert said.code == 0, said
    all_landed(lab, {name: 2, **dict.fromkeys(others, 1)})
    assert lab.git("show", f"main:{name}.txt") == f"made by {name}.txt"
    kept = [ref for ref in lab.git("for-each-ref", "--format=%(refname)").split() if holds(lab, ref, "partial.txt")]
    assert kept, "what it had written before it was killed"


def went_on(lab: Lab, name: str) -> None:
    """Where the agent can resume, its model has not been told everything from the beginning again."""
    one = DRIVEN[name]
    lengths = [request.turns for request in lab.requests(one.once) if request.tools]
    assert (lengths.count(lengths[0]) == 1) == one.resumes, f"{lengths} messages were told to the model"


@pytest.mark.parametrize("name", ["goose", "opencode"])
def test_a_plain_command_killed_in_a_command_leaves_nothing_running_and_its_order_is_done(
    lab: Lab, installed: Callable[[str], Agent], name: str
) -> None:
    installed(RECIPES[name].agent)
    plain(lab, name)
    killed_and_done(lab, name, "once")


@pytest.mark.parametrize("name", KILLED)
def test_an_agent_killed_in_a_command_leaves_nothing_running_and_goes_on_where_it_can(
    lab: Lab, installed: Callable[[str], Agent], name: str
) -> None:
    hired(lab, installed, [name])
    killed_and_done(lab, name, DRIVEN[name].once)
    went_on(lab, name)


@pytest.mark.parametrize("crew", CREWS, ids="-".join)
def test_one_of_four_killed_in_a_command_goes_on_and_all_land(
    lab: Lab, installed: Callable[[str], Agent], crew: Sequence[str]
) -> None:
    hired(lab, installed, crew)
    killed_and_done(lab, crew[0], DRIVEN[crew[0]].once, crew[1:])
    went_on(lab, crew[0])
