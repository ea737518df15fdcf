"""A whole run with a real agent, recorded and played again in another clone, where no model server is left."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from shopfloor.testing.model import Model

from .shop import Said, Shop

KEY = "sk-real-key-of-lab-4711"
# The dialect whose client is the quicker one to import: each attempt is a process of its own.
FLOOR = """agent = "worker"
check = "test ! -e bad.txt"
max_parallel = 2

[agents.worker]
driver = "muscle"
model = "openai/gpt-4o"
account = "lab"

[gateway.accounts.lab]
dialect = "openai"
url = "{url}"
key = "LAB_KEY"
"""
# What differs from run to run is printed, so that it is part of the next request.
LOOKS = "pwd; date; date +%s.%N; ls -l; git log -1; git branch --show-current; env | sort"
KEEPS = "printf %s $SHOPFLOOR_TOKEN > $HOME/token"
SCRIPTS: dict[str, list[dict[str, Any]]] = {
    "good": [
        {"say": "I look around.", "bash": f"{LOOKS}; {KEEPS}"},
        {"call": {"name": "edit", "input": {"path": "good.txt", "old": "", "new": "good\n"}}},
        {"text": "Done."},
    ],
    "again": [
        {"bash": "echo x > again.txt; if [ $SHOPFLOOR_GENERATION = 1 ]; then echo x > bad.txt; fi"},
        {"text": "Done, I think."},
    ],
    "lazy": [{"text": "There is nothing to do."}],
}
ORDERS = tuple(SCRIPTS)


class Recorded:
    """A shop with the cassette of a run, its model server gone, and what the run came to."""

    def __init__(self, shop: Shop) -> None:
        self.shop = shop
        self.tape = shop.root.parent / "run.cassette"
        for name in ORDERS:
            shop.plain(name, text=f"[[script {name}]]")
        with Model(SCRIPTS) as model:
            shop.write(".shopfloor.toml", FLOOR.format(url=model.url))
            shop.commit("settings")
            self.said = self.run("--record", str(self.tape), env={"LAB_KEY": KEY})
            self.asked = len(model.requests())

    def run(self, *words: str, env: dict[str, str] | None = None) -> Said:
        prompts = [str(self.shop.prompts / f"{name}.md") for name in ORDERS]
        return self.shop("run", *prompts, "--budget", "1", "--json", *words, env=env)

    def clone(self) -> None:
        """Go on in another clone of what the run began with."""
        first = self.shop.git("rev-list", "--max-parents=0", "main")
        settings = self.shop.git("rev-list", "--reverse", f"{first}..main").split()[0]
        other = self.shop.root.parent / "elsewhere" / "clone"
        self.shop.git("clone", "-q", str(self.shop.root), str(other))
        self.shop.root = other
        self.shop.git("checkout", "-q", "-B", "main", settings)


@pytest.fixture(scope="module")
def recorded(tmp_path_factory: pytest.TempPathFactory) -> Recorded:
    return Recorded(Shop(tmp_path_factory.mktemp("recorded")))


def ends(said: Said) -> dict[str, tuple[object, ...]]:
    return {row["name"]: (row["outcome"], row["reason"], row["attempts"]) for row in said.json["orders"]}


def ledger(shop: Shop) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (shop.root / ".work/ledger.jsonl").read_text().splitlines()]


def test_a_run_is_repeated_from_its_cassette_in_another_clone(recorded: Recorded) -> None:
    shop, first = recorded.shop, recorded.said
    assert ends(first) == {
        "good": ("landed", "", 1), "again": ("landed", "", 2), "lazy": ("failed", "no_changes", 1),
    }, first  # fmt: skip
    assert first.json["cost_usd"] == pytest.approx(recorded.asked * (1000 * 2.5e-6 + 50 * 10e-6))
    assert first.json["replay"] == ""
    tokens = (Path(shop.env["HOME"]) / "token").read_text()
    tape = recorded.tape.read_text()
    assert len(tokens) > 20
    for secret in (KEY, tokens, str(shop.root)):
        assert secret not in tape
    recorded.clone()
    # No key, and nobody where the account points to: whatever left this machine's gateway would fail.
    again = recorded.run("--replay", str(recorded.tape))
    assert ends(again) == ends(first), again
    assert (again.json["cost_usd"], again.json["replay"]) == (0, str(recorded.tape))
    assert not [row["notes"] for row in again.json["orders"] if any("spent" in note for note in row["notes"])]
    calls = ledger(shop)
    assert len(calls) == recorded.asked
    assert {(call["replayed"], call["cost_usd"]) for call in calls} == {(True, 0)}
    assert {call["tokens_in"] for call in calls} == {1000}
    for name in ("good", "again"):
        assert shop.git("show", f"main:{name}.txt")
    assert "0.00 USD of 1.00 USD" in shop("status", "--all").out


def test_a_request_that_is_not_there_is_refused_and_says_what_to_type(recorded: Recorded) -> None:
    shop = recorded.shop
    (prompt,) = shop.plain("other", text="[[script good]], and something else.")
    said = shop("run", prompt, "--replay", str(recorded.tape), "--json")
    assert said.code == 1
    (row,) = said.json["orders"]
    assert (row["outcome"], row["reason"], row["attempts"]) == ("failed", "error", 1), said
    assert f"'{recorded.tape}' has no answer to this request" in row["message"]
    assert "record it anew, with --record FILE" in row["message"]
    assert said.json["cost_usd"] == 0


def test_two_runs_are_not_mixed_in_one_cassette(recorded: Recorded) -> None:
    before = recorded.tape.read_bytes()
    said = recorded.run("--record", str(recorded.tape), env={"LAB_KEY": KEY})
    assert said.code == 4
    assert "holds a recording already" in said.err
    assert "rm " in said.err
    assert recorded.tape.read_bytes() == before


def test_who_replays_and_records_is_told_so(recorded: Recorded) -> None:
    said = recorded.run("--record", "a", "--replay", "b")
    assert said.code == 2
    assert "exclude each other" in said.err
