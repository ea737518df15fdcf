"""Words on the way to an agent that listens while it runs: steering, answers, permissions."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from pathlib import Path

import msgspec
import pytest

from shopfloor.agents.scripted import ScriptedAgent
from shopfloor.app import Shopfloor, wiring
from shopfloor.app.wiring import Place
from shopfloor.domain.errors import Refused
from shopfloor.domain.events import E
from shopfloor.domain.order import Record, State
from shopfloor.ports import Agent, Delivery, Handle, Kind, Launch, Report
from shopfloor.spawn import Guard

from .engine_lab import Watch, records
from .lab import Lab, git, row, script, write

MAY = "may: "
"""Before what the agent asks for a permission for, in a thought of it."""


class ListeningAgent(ScriptedAgent):
    """The scripted agent with a channel back: what is sent to it becomes a line of a file that it waits for."""

    def __init__(self, guard: Guard, **more: object) -> None:
        super().__init__(guard, **more)  # type: ignore[arg-type]
        self.folders: dict[str, Path] = {}

    async def start(self, launch: Launch) -> Handle:
        self.folders[launch.attempt] = Path(launch.directory)
        return await super().start(launch)

    async def follow(self, handle: Handle) -> AsyncIterator[Report]:
        async for report in super().follow(handle):
            if report.kind is Kind.TEXT and report.text.startswith(MAY):
                wanted = {"input": {"command": report.text.removeprefix(MAY)}}
                yield msgspec.structs.replace(report, kind=Kind.PERMISSION, status="asked", text="Bash", data=wanted)
            else:
                yield report

    async def send(self, handle: Handle, text: str) -> Delivery:
        with (self.folders[handle.attempt] / "heard").open("a") as file:
            file.write(text + "\n")
        return Delivery.SEEN


@pytest.fixture
def lab(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Lab:
    real = wiring.agents

    def agents(place: Place, guard: Guard) -> Mapping[str, Agent]:
        return {**real(place, guard), "scripted": ListeningAgent(guard, environment=place.environment)}

    monkeypatch.setattr("shopfloor.app.wiring.agents", agents)
    return Lab(tmp_path)


HEARS = {
    "run": "while [ ! -e $SHOPFLOOR_ATTEMPT_DIR/heard ]; do sleep 0.02; done; cp $SHOPFLOOR_ATTEMPT_DIR/heard h.txt"
}


async def running(lab: Lab, prompt: Path, until: E, act: Callable[[Shopfloor, Record], Awaitable[None]]) -> None:
    async with lab.floor() as floor:
        watch = Watch(floor)
        run = asyncio.create_task(floor.run([prompt]))
        await watch.until(until)
        await act(floor, next(iter(records(await floor.board()).values())))
        report = await asyncio.wait_for(run, 30)
    assert report.counts["landed"] == 1
    assert row(report, prompt.stem).attempts == 1


def transcript(lab: Lab, attempt: str) -> list[dict[str, object]]:
    path = lab.repo / ".work/attempts" / attempt / "transcript.jsonl"
    return [json.loads(line) for line in path.read_text().splitlines()]


async def test_a_running_agent_is_steered_and_it_is_said_what_became_of_it(lab: Lab) -> None:
    async def act(floor: Shopfloor, record: Record) -> None:
        with pytest.raises(Refused, match="there are no words"):
            await floor.steer(record.order.id, "  ")
        assert await floor.steer(record.order.id, "leave b alone") == "seen: it said that it has your words"

    await running(lab, lab.prompt("works", script(HEARS)), E.AGENT_STARTED, act)
    assert git(lab.repo, "show", "main:h.txt") == "leave b alone"
    (steered,) = lab.seen(E.AGENT_STEERED)
    assert (steered.data["text"], steered.data["delivery"]) == ("leave b alone", "seen")
    said = [line for line in transcript(lab, f"{steered.order_id}.a1") if line["kind"] == "said"]
    assert [(line["text"], line["status"]) for line in said] == [("leave b alone", "seen")]
    async with lab.floor() as floor:
        (talk,) = next(iter(records(await floor.board()).values())).talk
        assert (talk.kind, talk.text) == ("steered", "leave b alone")
        with pytest.raises(Refused, match="no agent works on 'works'"):
            await floor.steer(steered.order_id, "too late")


async def test_an_answer_reaches_an_agent_that_goes_on(lab: Lab) -> None:
    async def act(floor: Shopfloor, record: Record) -> None:
        assert "it said that it has your words" in await floor.answer(record.order.id, "the second")

    question = {"run": 'echo \'{"type": "ask", "data": {"question": "Which?"}}\'', "raw": True}
    await running(lab, lab.prompt("works", script(question, HEARS)), E.AGENT_ASKED, act)
    assert git(lab.repo, "show", "main:h.txt") == "the second"
    (answered,) = lab.seen(E.AGENT_ANSWERED)
    assert (answered.data["question"], answered.data["delivery"]) == ("Which?", "seen")


@pytest.mark.parametrize(("said", "told"), [("yes", "yes"), ("NO", "no")])
async def test_a_permission_is_shown_and_answered_by_yes_or_no(lab: Lab, said: str, told: str) -> None:
    async def act(floor: Shopfloor, record: Record) -> None:
        assert (record.state, record.permission) == (State.ASKING, True)
        assert record.question == 'may it use Bash: {"command": "rm -r build"}'
        with pytest.raises(Refused, match="is neither yes nor no"):
            await floor.answer(record.order.id, "perhaps")
        with pytest.raises(Refused, match="waits for a yes or no"):
            await floor.steer(record.order.id, "hurry")
        await floor.answer(record.order.id, said)

    await running(lab, lab.prompt("works", script({"say": f"{MAY}rm -r build"}, HEARS)), E.AGENT_ASKED, act)
    assert git(lab.repo, "show", "main:h.txt") == told


async def test_a_permission_does_not_outlive_its_attempt(lab: Lab) -> None:
    async with lab.floor() as floor:
        watch = Watch(floor)
        run = asyncio.create_task(
            floor.run([lab.prompt("works", script({"say": f"{MAY}x"}, {"crash_once": "x"}, write("w")))])
        )
        await watch.until(E.AGENT_ASKED)
        report = await asyncio.wait_for(run, 30)
    # The second attempt asks again, nobody answers, and it ends all the same.
    assert row(report, "works").attempts == 2
    assert report.counts["landed"] == 1


async def test_secrets_among_the_words_are_masked(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SERVICE_API_KEY", "s3cr3t-value-17")

    async def act(floor: Shopfloor, record: Record) -> None:
        await floor.steer(record.order.id, "use s3cr3t-value-17")

    await running(lab, lab.prompt("works", script(HEARS, {"run": "echo x > h.txt"})), E.AGENT_STARTED, act)
    (steered,) = lab.seen(E.AGENT_STEERED)
    text = (lab.repo / ".work/attempts" / f"{steered.order_id}.a1" / "transcript.jsonl").read_text()
    assert "use " in text
    assert "s3cr3t" not in text + (lab.repo / ".work/events.jsonl").read_text()
