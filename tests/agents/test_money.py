"""Real agents through the gateway: a budget ends them, a used-up quota parks them until it is there again."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from shopfloor.domain.events import read_time
from tests.acceptance.crew import data_of
from tests.agents.lab import Lab
from tests.agents.recipes import DRIVEN, driven
from tools.agents import Agent

ENDS = {"say": "THOUGHT: finished.", "bash": "echo COMPLETE_TASK_AND_SUBMIT_FINAL_OUTPUT"}
WRITES = "echo '{file}' > {file}.txt"
MEETS = "until ls {meet}-* | wc -l | grep -q 3; do sleep 0.1; done"
USAGE = {"in": 10_000, "out": 100}
PRICE = {"input": 0.1, "output": 1.0}
USD_A_CALL = (USAGE["in"] * PRICE["input"] + USAGE["out"] * PRICE["output"]) / 1e6
BUDGET_USD = 0.02
MOST_REFUSED = 8
"""calls that an agent makes before it takes a refusal for an answer: one makes six, within a fifth of a second"""

USED_UP = {
    "status": 429, "for_s": 8, "message": "You have reached your usage limit", "type": "usage_limit_reached",
    "code": "insufficient_quota",
    "headers": {"anthropic-ratelimit-unified-status": "rejected", "anthropic-ratelimit-unified-reset": "{reset}",
                "retry-after": "{wait}"},
}  # fmt: skip
SCRIPTS: dict[str, list[dict[str, Any]]] = {
    "endless": [
        # None goes on before all have begun: the fastest would have spent everything.
        {"say": "THOUGHT: begin.", "bash": f"{WRITES} && touch {{meet}}-{{file}} && {MEETS}", "usage": USAGE},
        # Some end their turn when they do the same again and again.
        *[{"say": "THOUGHT: go on.", "bash": f"echo {number}", "usage": USAGE} for number in range(100)],
    ],
    "easy": [{"say": "THOUGHT: do it.", "bash": WRITES}, ENDS, {"text": "Done."}],
    # Some count the answer that failed as a turn of the model's when they go on in their session.
    "asks": [
        {"say": "THOUGHT: do it.", "bash": WRITES, "fail": USED_UP},
        {"say": "THOUGHT: do it.", "bash": WRITES},
        ENDS,
        {"text": "Done."},
    ],
}
MODELS = {
    "claude": ("anthropic", "claude-sonnet-4-5"),
    "claude-acp": ("anthropic", "claude-sonnet-4-5"),
    "codex-acp": ("openai", "gpt-5"),
    "gemini-acp": ("gemini", "gemini-2.5-flash"),
    "goose-acp": ("openai", "gpt-5"),
    "mini": ("openai", "openai/gpt-4o"),
    "opencode-acp": ("openai", "gpt-5"),
}
"""The dialect that each speaks, and the model that it is told to use."""
PAID = {("claude",): 20, ("codex-acp", "goose-acp", "mini"): 20, ("gemini-acp",): 8, ("opencode-acp",): 6}
"""Agents for which one account pays, and the number of orders in their run: 20, but for those that take long."""
TRIOS = (("claude", "codex-acp", "goose-acp"), ("claude-acp", "gemini-acp", "opencode-acp"))


@pytest.fixture
def lab(namespace: None, tmp_path: Path) -> Iterator[Lab]:
    with Lab(tmp_path, SCRIPTS) as opened:
        yield opened


def through_the_gateway(lab: Lab, installed: Callable[[str], Agent], names: Sequence[str], **settings: Any) -> None:
    """Agents that know nothing of a model but what the driver tells them; one account for each dialect."""
    for name in names:
        installed(DRIVEN[name].agent)
    for name in names:
        dialect, model = MODELS[name]
        driven(lab, name, env={"IS_SANDBOX": "1"}, model=model, account=dialect)
    for dialect in {MODELS[name][0] for name in names}:
        lab.tables.append(f'[gateway.accounts.{dialect}]\ndialect = "{dialect}"\nurl = "{lab.url}"')
    for model in {MODELS[name][1].rpartition("/")[2] for name in names}:
        prices = "\n".join(f"{key} = {usd}" for key, usd in PRICE.items())
        lab.tables.append(f'[gateway.prices."{model}"]\n{prices}')
    lab.settle(check="true", more="\n".join(f"{key} = {value}" for key, value in settings.items()))


def ledger(lab: Lab) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (lab.root / ".work" / "ledger.jsonl").read_text().splitlines()]


@pytest.mark.parametrize("trio", TRIOS, ids="-".join)
def test_three_endless_agents_stop_at_their_budget(
    lab: Lab, installed: Callable[[str], Agent], trio: Sequence[str]
) -> None:
    through_the_gateway(lab, installed, trio, max_parallel=3)
    endless = [lab.scripted(name, "endless", agent=name, file=name, meet=str(lab.folder / "begun")) for name in trio]
    queued = [lab.scripted(f"queued-{name}", "easy", agent=name, file=name) for name in trio]
    said = lab("run", *endless, *queued, "--budget", str(BUDGET_USD), "--json")
    forwarded = [request for request in lab.requests() if request.model]
    assert said.code == 1, said
    orders = {row["name"]: row for row in said.json["orders"]}
    assert {row["reason"] for row in orders.values()} == {"budget"}, said
    assert {name: row["attempts"] for name, row in orders.items()} == {
        **dict.fromkeys(trio, 1), **{f"queued-{name}": 0 for name in trio}
    }  # fmt: skip
    calls = ledger(lab)
    sent = [call for call in calls if not call.get("refused")]
    refused = [call for call in calls if call.get("refused") == "budget"]
    assert len(sent) == len(forwarded)
    first = min(call["at"] for call in refused)
    assert not [call for call in sent if call["at"] > first], "a call was forwarded after the limit"
    assert sum(call["cost_usd"] for call in sent) <= BUDGET_USD + len(trio) * USD_A_CALL
    for name in trio:
        assert lab.git("show", f"{orders[name]['branch']}:{name}.txt") == name, "its work was not kept"
        tries = [call for call in refused if call["attempt"].startswith(orders[name]["order"])]
        assert len(tries) <= MOST_REFUSED, f"{name} did not take no for an answer: {len(tries)} calls were refused"
    assert lab.processes() == []


@pytest.mark.parametrize(("crew", "size"), [pytest.param(*paid, id="-".join(paid[0])) for paid in PAID.items()])
def test_a_used_up_quota_parks_a_run_until_the_stated_time(
    lab: Lab, installed: Callable[[str], Agent], crew: Sequence[str], size: int
) -> None:
    through_the_gateway(lab, installed, crew, max_parallel=4)
    # Several of one kind that start for the first time at the same moment may break what they set up for themselves.
    first = lab("run", *(lab.scripted(f"first-{name}", "easy", agent=name, file=f"first-{name}") for name in crew))
    assert first.code == 0, first
    names = [f"o{number:02}" for number in range(size)]
    easy = names[: max(4, size // 4)]
    prompts = [
        lab.scripted(one, "easy" if one in easy else "asks", agent=crew[number % len(crew)], file=one)
        for number, one in enumerate(names)
    ]
    said = lab("run", *prompts, "--json")
    assert said.code == 0, said
    assert said.json["counts"]["landed"] == size
    log = list(map(json.loads, (lab.root / ".work" / "events.jsonl").read_text().splitlines()))
    kinds = [event["event_type"] for event in log]
    (closed,) = data_of(lab, "account.closed")
    closing, last = kinds.index("account.closed"), kinds.index("account.opened")
    assert "work_order.assigned" not in kinds[closing:last], "something was started on a closed account"
    begun = next(event for event in log[last:] if event["event_type"] == "work_order.assigned")
    assert 0 <= read_time(begun["timestamp"]) - read_time(closed["reset_at"]) <= 5.0
    assert {data["kind"] for data in data_of(lab, "work_order.retried")} == {"quota"}
    assert kinds.count("work_order.retried") <= 4, "no more than were at work can have met with it"
    tries = {order["order"]: order["attempts"] for order in said.json["orders"]}
    finished = {event["data"]["work_order_id"] for event in log[:closing] if event["event_type"] == "verify.started"}
    assert len(finished) > len(crew)
    assert {tries[one] for one in finished & tries.keys()} == {1}, "finished work was done again"
    assert sum(tries.values()) == size + kinds.count("work_order.retried")
    assert lab.processes() == []
