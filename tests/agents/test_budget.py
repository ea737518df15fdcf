"""The budget that is spent stops every real agent: its call is not forwarded, and it does not ask for ever."""

from __future__ import annotations

import json
from collections.abc import Callable

import pytest

from tests.agents.lab import Lab
from tests.agents.recipes import DRIVEN
from tools.agents import Agent, agent

DIALECTS = {"claude": "anthropic", "gemini": "gemini"}
"""of the program; the others speak that of OpenAI"""
ROOT_MAY = {"IS_SANDBOX": "1"}
"""for Claude Code, which else refuses to let root skip permissions"""
MOST_REFUSED = 8
"""calls of one attempt: its prompt, a title for its session, and the like; who asks again for minutes passes that"""


@pytest.mark.parametrize("name", DRIVEN)
def test_a_refused_call_ends_it_with_the_reason(lab: Lab, installed: Callable[[str], Agent], name: str) -> None:
    one = DRIVEN[name]
    installed(one.agent)
    words = {"preset": one.preset, "model": one.model}
    lab.add(
        name, agent(one.agent), ROOT_MAY, driver=one.driver, account="lab",
        **{key: word for key, word in words.items() if word},
    )  # fmt: skip
    dialect = DIALECTS.get(one.agent.partition("-")[0], "openai")
    account = f'[gateway.accounts.lab]\ndialect = "{dialect}"\nurl = "{lab.url}"'
    lab.settle(check="test ! -e bad.txt", more=account)
    prompt = lab.scripted("one", one.script, file="a.txt")
    said = lab("run", prompt, "--agent", name, "--budget", "0.000001", "--json")
    assert said.code == 1, (said, lab("log", "one"))
    (row,) = said.json["orders"]
    assert (row["reason"], row["attempts"]) == ("budget", 1), (row, lab("log", "one"))
    assert lab.requests(one.script) == [], "a call was forwarded"
    calls = list(map(json.loads, (lab.root / ".work" / "ledger.jsonl").read_text().splitlines()))
    refused = [call["at"] for call in calls if call.get("refused") == "budget"]
    assert 1 <= len(refused) <= MOST_REFUSED, f"it asked {len(refused)} times"
    print(f"{name}: {len(refused)} refused calls in {max(refused) - min(refused):.1f} s")  # noqa: T201 - a figure
    assert lab.processes() == []
