"""The real mini-swe-agent, by its driver, where there is no way out: its trajectory is what we know of it."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from shopfloor.agents._preset import LONGEST_TASK
from tests.agents.lab import Lab
from tools.agents import Agent


def settled(lab: Lab, agent: Agent, *args: str) -> None:
    env = {
        "OPENAI_API_BASE": f"{lab.url}/v1",
        "OPENAI_API_KEY": "tok-0123456789",
        "MSWEA_COST_TRACKING": "ignore_errors",
    }
    more = {"args": list(args)} if args else {}
    lab.add("mini", agent, env, driver="mini", model="openai/gpt-4o", **more)
    lab.settle(check="true", more="retries = 0")


def transcript(lab: Lab) -> list[dict[str, Any]]:
    (path,) = lab.root.glob(".work/attempts/*/transcript.jsonl")
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_it_lands_and_its_trajectory_is_told(lab: Lab, installed: Callable[[str], Agent]) -> None:
    settled(lab, installed("mini"))
    prompt = lab.scripted("one", "mini", file="a.txt")
    with Path(prompt).open("a", encoding="utf-8") as file:
        file.write("\U0001f527 \u2028 \\ \" '" + "x" * LONGEST_TASK)  # so that it goes by file
    said = lab("run", "--plain", "--agent", "mini", prompt)
    assert said.code == 0, said
    assert lab.git("show", "main:a.txt") == "made by a.txt"
    told = transcript(lab)
    assert [one["text"] for one in told if one["kind"] == "tool" and one["text"]][-1].startswith("echo COMPLETE_TASK")
    end = told[-1]
    assert (end["kind"], end["status"], end["tokens_in"], end["steps"]) == ("exited", "completed", 2000, 2)
    assert end["cost_usd"] > 0
    assert lab.processes() == []


def test_a_limit_of_its_own_is_told(lab: Lab, installed: Callable[[str], Agent]) -> None:
    settled(lab, installed("mini"), "-c", "agent.step_limit=1")
    said = lab("run", "--plain", "--agent", "mini", lab.scripted("one", "mini", file="a.txt"))
    assert said.code == 1, said
    assert [one["status"] for one in transcript(lab) if one["kind"] == "turn_end"] == ["limit"]
