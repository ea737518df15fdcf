"""Conversations with a scripted model: what is remembered, what it may call, what it costs, and which way it goes."""

import asyncio
import json
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from shopfloor import NotFound, Refused, Shopfloor, ShopfloorError, Talks, UsageError
from shopfloor.testing.model import Model

SONNET = "anthropic/claude-sonnet-4-6"
SCRIPTS: dict[str, Any] = {
    "look": [{"bash": "cat {file}"}, {"text": "Looked at {file}."}],
    "read": [{"call": {"name": "read", "input": {"path": "{file}"}}}, {"text": "Read."}],
    "count": [{"call": {"name": "tally", "input": {"by": 2}}}, {"text": "Counted."}],
    "endless": [{"bash": "true"}] * 9,
    "slow": [{"bash": "while [ ! -e go ]; do sleep 0.02; done"}, {"text": "Slow."}],
    "no": [{"fail": {"status": 400, "message": "no such thing"}}],
}


@pytest.fixture(scope="module")
def model() -> Iterator[Model]:
    with Model(SCRIPTS) as running:
        yield running


@asynccontextmanager
async def talks_in(folder: Path, model: Model, **flags: object) -> AsyncIterator[Talks]:
    env = {"PATH": "/usr/bin:/bin", "ANTHROPIC_BASE_URL": model.url, "ANTHROPIC_API_KEY": "sesame-sesame"}
    async with Shopfloor.open(folder, without_git=True, environment=env, flags=flags) as floor:
        talks = Talks(floor)
        try:
            yield talks
        finally:
            await talks.close()


class Tally:
    name, description = "tally", "Counts."
    input_schema: Mapping[str, Any] = {"type": "object", "properties": {"by": {"type": "integer"}}}

    def __init__(self) -> None:
        self.sum = 0

    async def answer(self, call: Mapping[str, Any]) -> Any:
        self.sum += call["by"]
        return {"sum": self.sum}


def sent(model: Model) -> list[dict[str, Any]]:
    """The messages of the newest request."""
    found: list[dict[str, Any]] = model.requests()[-1].body["messages"]
    return found


async def test_it_calls_its_tools_and_counts_what_it_costs(model: Model, tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("the first line\n")
    tally = Tally()
    async with talks_in(tmp_path, model) as talks:
        talk = await talks.open(SONNET, folder=tmp_path, only=["read"], extras=[tally], words=lambda: "Be short.")
        async with talk:
            assert await talk.turn("[[script count]]") == "Counted."
            assert await talk.turn("[[script read file=a.txt]]") == "Read."
            assert "the first line" in json.dumps(sent(model))
            assert {tool["name"] for tool in model.requests()[-1].body["tools"]} == {"read", "tally"}
            assert "Be short." in json.dumps(model.requests()[-1].body["system"])
        assert (talk.spent.calls, tally.sum) == (4, 2)
        assert talk.spent.usd == pytest.approx(4 * (1000 * 3e-6 + 50 * 15e-6))
        assert talks.spent == talk.spent, "also when it has ended"


async def test_what_is_remembered_is_bounded(model: Model, tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("x" * 5000)
    async with talks_in(tmp_path, model) as talks:
        async with await talks.open(SONNET, folder=tmp_path, remembered=8) as talk:
            sizes = []
            for number in range(14):
                await talk.turn(f"Turn {number}. [[script look file=a.txt]]")
                sizes.append(len(json.dumps(sent(model))))
            assert "Turn 4." not in json.dumps(sent(model))
            assert "Turn 5." in json.dumps(sent(model))
            # Of older turns only the words are kept: not what the tools printed.
            assert json.dumps(sent(model)).count("x" * 5000) == 5
        assert max(sizes) <= sizes[8] * 1.01
        async with await talks.open(SONNET, folder=tmp_path, remembered=0) as fresh:
            for _ in range(3):
                await fresh.turn("[[script look file=a.txt]]")
            assert len(sent(model)) == 3, "each turn begins afresh"


async def test_turns_overlap(model: Model, tmp_path: Path) -> None:
    async with talks_in(tmp_path, model) as talks, await talks.open(SONNET, folder=tmp_path) as talk:
        slow = asyncio.create_task(talk.turn("[[script slow]]"))
        assert await talk.turn("Quick") == "ok"
        assert not slow.done()
        (tmp_path / "go").touch()
        assert await slow == "Slow."


async def test_what_goes_wrong_is_said(model: Model, tmp_path: Path) -> None:
    async with talks_in(tmp_path, model) as talks:
        async with await talks.open(SONNET, folder=tmp_path, steps=3) as talk:
            with pytest.raises(Refused, match=r"the model answered with HTTP 400: .*no such thing"):
                await talk.turn("[[script no]]")
            with pytest.raises(ShopfloorError, match="3 model calls without an end"):
                await talk.turn("[[script endless]]")
            assert await talk.turn("Still there?") == "ok"
        with pytest.raises(UsageError, match="no provider that is known"):
            await talks.open("nowhere/x", folder=tmp_path)
        with pytest.raises(NotFound, match="no key for 'openai'"):
            await talks.open("openai/gpt-x", folder=tmp_path)


async def test_its_commands_do_not_see_the_key(model: Model, tmp_path: Path) -> None:
    model.scripts["env"] = [{"bash": "env"}, {"text": "Looked."}]
    async with talks_in(tmp_path, model) as talks, await talks.open(SONNET, folder=tmp_path) as talk:
        await talk.turn("[[script env]]")
        assert "PATH=" in json.dumps(sent(model))
        assert "sesame" not in json.dumps(sent(model))


async def test_through_the_gateway_where_there_is_a_budget(model: Model, tmp_path: Path) -> None:
    """It keeps the limit, and no key leaves it."""
    async with talks_in(tmp_path, model, use_gateway="always", budget="0.008") as talks:
        talk = await talks.open(SONNET, folder=tmp_path)
        async with talk:
            assert await talk.turn("Hello") == "ok"
            assert await talk.turn("Again") == "ok"
            with pytest.raises(Refused, match="budget_exceeded"):
                await talk.turn("And again")
        ledger = (tmp_path / ".work" / "ledger.jsonl").read_text()
    assert ledger.count('"attempt":"talks-') > 1
    assert "sesame" not in ledger
