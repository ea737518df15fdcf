"""Orders for answers by an agent without a process: in any folder, told one by one, stopped, resumed, killed."""

from __future__ import annotations

import asyncio
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Any

import msgspec
import pytest

from shopfloor import NotFound, Outcome, PromptOrder, Refused, Shopfloor, State, UsageError
from shopfloor.app import intake, leading
from shopfloor.domain.events import E
from shopfloor.engine import clerk
from shopfloor.masking import MASK
from shopfloor.stores.views import ORDERS

from .answering import Scripted, flags, wish
from .lab import Lab

CHILD = Path(__file__).with_name("answering.py")
ORDERS_TO_KILL = 1200


@pytest.fixture(autouse=True)
def agent() -> type[Scripted]:
    return Scripted.fresh()


def at(folder: Path, **more: object) -> Shopfloor:
    return Shopfloor.open(folder, without_git=True, flags=flags(**more))


async def perform(folder: Path, *wishes: PromptOrder, **more: Any) -> list[Outcome]:
    async with at(folder) as floor:
        return [outcome async for outcome in floor.outcomes(wishes, **more)]


def log_of(folder: Path) -> list[dict[str, Any]]:
    lines = (folder / ".work/events.jsonl").read_bytes().splitlines()
    return [msgspec.json.decode(line, type=dict[str, Any]) for line in lines]


async def test_answers_are_told_with_their_text_and_data_in_a_plain_folder(
    tmp_path: Path, agent: type[Scripted]
) -> None:
    outcomes = await perform(tmp_path, *(wish(f"spec-{n}", timeout_s=2.5) for n in range(30)))
    assert {o.order.name: o.text for o in outcomes} == {f"spec-{n}": f"spec-{n}"[::-1] for n in range(30)}
    assert all(o.ok and o.tries == 1 and o.cost_usd == 0.01 for o in outcomes)
    assert outcomes[0].data == {"url": "here", "timeout_s": 2.5}
    assert outcomes[0].order.metadata["spec"] == {"id": outcomes[0].order.name}
    assert 1 < agent.most <= agent.room, "the agent says how many it takes"
    assert agent.closed == 1
    assert sorted(p.name for p in tmp_path.iterdir()) == [".work"]
    assert not (tmp_path / ".work/attempts").exists()


SECRET = 'k3y-"of\\nobody'


@pytest.mark.parametrize("how", [
    {"text": f"use {SECRET}!", "data": {"tests": [{"deep": SECRET}]}},
    {"failed": f"answered 401: {SECRET}", "final": True, "data": {"code": SECRET}},
    {"failed": f"answered 500: {SECRET}", "data": {}},
    {"raises": f"no server at {SECRET}"},
])  # fmt: skip
async def test_no_secret_of_an_answer_gets_into_the_log(tmp_path: Path, how: dict[str, Any]) -> None:
    env = {"PATH": "", "SOME_API_KEY": SECRET}
    async with Shopfloor.open(tmp_path, without_git=True, flags=flags(retries=1), environment=env) as floor:
        (outcome,) = [outcome async for outcome in floor.outcomes([wish("a", how, how, how)])]
    what_came_of_it = [event for event in log_of(tmp_path) if event["event_type"] != E.CREATED]
    told = repr([what_came_of_it, outcome.text, outcome.message, outcome.data])
    assert MASK in told
    assert "nobody" not in told


async def test_an_answer_is_kept_whole_or_it_is_none(tmp_path: Path) -> None:
    long, tests = "x" * 64_000, ["t" * 60_000]
    outcomes = await perform(
        tmp_path, wish("whole", {"text": long, "data": {"tests": tests}}), wish("more", {"text": f"{long}y"})
    )
    assert [(o.order.name, o.ok, len(o.text)) for o in sorted(outcomes, key=lambda o: not o.ok)] == [
        ("whole", True, 64_000), ("more", False, 0),
    ]  # fmt: skip
    assert [o.data["tests"] for o in outcomes if o.ok] == [tests]
    assert [o.message for o in outcomes if not o.ok] == [
        "its answer has 64001 characters, and 64000 are the most that are kept"
    ]
    assert [o.tries for o in outcomes] == [1, 1], "the next answer would be as long"


async def test_what_other_programs_read_tells_the_same(tmp_path: Path) -> None:
    await perform(tmp_path, wish("good"), wish("bad", {"failed": "Invalid specification", "final": True}))
    lines = [msgspec.json.decode(line) for line in (tmp_path / ".work" / ORDERS).read_bytes().splitlines()]
    found = {line["metadata"]["shopfloor"]["name"]: line for line in lines}
    assert (found["good"]["status"], found["bad"]["status"]) == ("closed", "in_progress")
    assert found["bad"]["assignee"] == "operations"
    assert found["good"]["metadata"]["spec"] == {"id": "good"}
    last = {e["data"]["work_order_id"]: e["data"]["to_status"] for e in log_of(tmp_path) if e["event_type"] == E.STATUS}
    assert sorted(last.values()) == ["closed", "in_progress"]
    async with at(tmp_path) as floor:
        report = await floor.report()
        again = await floor.answers()
    assert (report.counts["answered"], report.counts["failed"], report.peak_parallel) == (1, 1, 2)
    assert [(o.order.name, o.text, o.message) for o in again] == [
        ("good", "doog", ""), ("bad", "", "Invalid specification"),
    ]  # fmt: skip


async def test_a_floor_without_git_is_found_again_and_refuses_a_change(tmp_path: Path) -> None:
    with pytest.raises(NotFound):
        Shopfloor.open(tmp_path, flags=flags())
    (tmp_path / "file").touch()
    with pytest.raises(NotFound):
        Shopfloor.open(tmp_path / "file", without_git=True)
    with pytest.raises(Refused, match="is not there"):
        await perform(tmp_path / "nowhere", wish("one"))
    with pytest.raises(Refused, match=r"tidy must hand back a change.*in no git repository") as refused:
        await perform(tmp_path, wish("tidy", deliverable="change", checks=("true",)))
    assert "git init" in refused.value.hint
    with pytest.raises(Refused, match="agent 'scripted' works in a checkout"):
        await perform(tmp_path, wish("one", agent="scripted"))
    assert not (tmp_path / ".work").exists()
    await perform(tmp_path, wish("one"))
    async with Shopfloor.open(tmp_path, flags=flags()) as floor:
        assert (await floor.report()).counts["answered"] == 1
        with pytest.raises(NotFound, match="not a git repository"):
            _ = floor.repository
        assert any("in no git repository" in finding.what for finding in await floor.doctor())


async def test_a_failure_is_tried_again_and_ends_with_its_reason(tmp_path: Path, agent: type[Scripted]) -> None:
    fails = {"failed": "500 Internal Server Error", "data": {"url": "b"}}
    outcomes = await perform(
        tmp_path,
        wish("twice", fails, {"raises": "connection refused"}),
        wish("never", *[fails] * 9),
        wish("late", *[{"failed": "no answer in 2 s", "timed_out": True}] * 9),
        wish("wrong", {"failed": "Stack effect mismatch", "final": True}),
        wish("odd", {"text": "ok", "data": {"much": "x" * 200_000}}),
    )
    found = {o.order.name: (str(o.state), o.reason, o.text or o.message, o.tries) for o in outcomes}
    assert found == {
        "twice": ("done", "", "eciwt", 3),
        "never": ("failed", "error", "500 Internal Server Error (4 tries)", 4),
        "late": ("failed", "timeout", "no answer in 2 s (4 tries)", 4),
        "wrong": ("failed", "error", "Stack effect mismatch", 1),
        "odd": ("done", "", "ok", 1),
    }
    by_name = {o.order.name: o for o in outcomes}
    assert (by_name["never"].data, by_name["odd"].data) == ({"url": "b"}, {})
    assert len(agent.calls) == 3 + 4 + 4 + 1 + 1


async def test_leaving_the_loop_stops_what_is_under_way_and_it_can_be_resumed(
    tmp_path: Path, agent: type[Scripted]
) -> None:
    wishes = [wish("quick"), wish("hangs", {"hangs": True}), wish("too", {"hangs": True})]
    async with at(tmp_path) as floor:
        outcomes = floor.outcomes(wishes)
        assert (await anext(outcomes)).order.name == "quick"
        await outcomes.aclose()
        assert sorted(a.partition(".")[2] for a in agent.cancelled) == ["a1", "a1"]
    with pytest.raises(Refused, match="unfinished"):
        await perform(tmp_path, wish("other"))
    more = [*wishes, wish("new")]
    assert [o.order.name for o in await perform(tmp_path, *more, resume=True)] == ["hangs", "too", "new"]
    assert Counter(a.partition(".")[0] for a in agent.calls).most_common(1)[0][1] == 2
    with pytest.raises(NotFound):
        await perform(tmp_path, resume=True)


async def test_one_order_is_stopped_by_a_person_and_the_others_go_on(tmp_path: Path, agent: type[Scripted]) -> None:
    agent.began = asyncio.Event()
    async with at(tmp_path) as floor:

        async def stop_it() -> str:
            await agent.began.wait() if agent.began else None
            assert floor.floor is not None
            (record,) = floor.floor.board.find("hangs")
            return await floor.ask("stop", record.order.id)

        stopping = asyncio.create_task(stop_it())
        outcomes = [o async for o in floor.outcomes([wish("hangs", {"hangs": True}), wish("fine")])]
        assert "is stopped" in await stopping
    assert {o.order.name: (str(o.state), o.reason) for o in outcomes} == {
        "hangs": ("cancelled", "stopped"), "fine": ("done", ""),
    }  # fmt: skip


async def test_a_stream_is_asked_for_more_when_what_it_gave_is_durable(tmp_path: Path) -> None:
    durable: list[int] = []

    async def stream() -> AsyncIterator[Sequence[PromptOrder]]:
        for piece in range(4):
            yield [wish(f"s{piece}-{n}") for n in range(3)]
            durable.append(sum(e["event_type"] == E.CREATED for e in log_of(tmp_path)))

    async with at(tmp_path) as floor:
        outcomes = [o.order.name async for o in floor.outcomes(stream())]
    assert sorted(outcomes) == [f"s{piece}-{n}" for piece in range(4) for n in range(3)]
    assert durable == [3, 6, 9, 12]


@pytest.mark.parametrize("endless", [False, True])
async def test_a_stream_is_left_when_nothing_more_is_started_with_its_agent(tmp_path: Path, *, endless: bool) -> None:
    nothing = [{"failed": "connection refused"}] * 9

    async def stream() -> AsyncIterator[Sequence[PromptOrder]]:
        yield [wish(f"s{n}", *nothing) for n in range(300)]
        if endless:  # more may come at any time
            await asyncio.Event().wait()
        yield [wish(f"t{n}", *nothing) for n in range(2000)]
        yield [wish("last")]

    async with at(tmp_path) as floor, asyncio.timeout(30):
        ended = [outcome async for outcome in floor.outcomes(stream())]
        report = await floor.report()
    assert "connection refused" in report.held["scripted-answers"]
    assert len(ended) < 128
    assert (await unfinished(tmp_path)) == (300 if endless else 2300)


async def unfinished(folder: Path) -> int:
    """How many orders the unfinished run of a folder has."""
    async with at(folder) as floor:
        run = (await floor.board(state="open")).unfinished()
    return len(run.orders) if run else 0


async def test_what_was_told_leaves_memory_and_can_still_be_asked_about(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module, name, value in ((clerk, "SHED_AFTER", 20), (leading, "MOST_WAITING", 40), (intake, "AT_ONCE", 20)):
        monkeypatch.setattr(module, name, value)
    ends: list[Outcome] = []
    most = 0
    async with at(tmp_path) as floor:
        async for outcome in floor.outcomes([wish(f"spec-{n}") for n in range(400)]):
            ends.append(outcome)
            assert floor.floor is not None
            if not 200 <= len(ends) < 300:  # who asks for one has all on the board for a while
                most = max(most, len(floor.floor.board.records))
            if len(ends) == 200:
                with pytest.raises(Refused, match="'spec-0' has not failed: it is done"):
                    await floor.ask("retry", next(o.order.id for o in ends if o.order.name == "spec-0"))
        assert len(await floor.answers()) == 400
    assert Counter(o.order.name for o in ends) == Counter(f"spec-{n}" for n in range(400))
    assert all(o.ok for o in ends)
    assert most <= 120, "those that are open, those that were told of lately, and a piece of new ones"


async def test_an_empty_list_and_a_stream_that_fails(tmp_path: Path) -> None:
    with pytest.raises(UsageError):
        await perform(tmp_path)

    async def stream() -> AsyncIterator[Sequence[PromptOrder]]:
        yield [wish("one")]
        raise Refused("the queue is gone", hint="start it")

    async with at(tmp_path) as floor:
        with pytest.raises(Refused, match="the queue is gone"):
            _ = [o async for o in floor.outcomes(stream())]
    assert [o.order.name for o in await perform(tmp_path, resume=True)] in ([], ["one"])


async def test_answers_and_changes_side_by_side_in_a_repository(tmp_path: Path, agent: type[Scripted]) -> None:
    lab = Lab(tmp_path)
    prompt = lab.prompt("write", '```script\n[[do]]\nwrite = "x.txt"\n```\n', agent="scripted")
    more = flags(check="true", max_parallel=1, load_per_core=100.0)
    async with Shopfloor.open(lab.repo, flags=more) as floor:
        report = await floor.run([prompt, wish("asks", depends_on=("write",)), *(wish(f"q{n}") for n in range(5))])
    assert (report.counts["landed"], report.counts["answered"]) == (1, 6)
    assert agent.most > 1, "calls take no slot of the machine"


def test_killed_in_the_middle_nothing_is_lost_and_nothing_that_was_told_is_done_again(tmp_path: Path) -> None:
    folder, told = tmp_path / "floor", tmp_path / "told"
    folder.mkdir()
    words = [sys.executable, str(CHILD), str(folder), str(ORDERS_TO_KILL), str(told)]
    for least in (100, 500):
        child = subprocess.Popen(words)
        try:
            while child.poll() is None and (not told.exists() or told.read_text().count("\n") < least):
                pass
        finally:
            child.send_signal(signal.SIGKILL)
            child.wait()
        assert child.returncode == -signal.SIGKILL, "it was over before it could be killed"
    subprocess.run(words, check=True, timeout=50)
    events = log_of(folder)
    names = {e["data"]["work_order_id"]: e["data"]["shopfloor"]["name"] for e in events if e["event_type"] == E.CREATED}
    assert sorted(names.values()) == [f"spec-{n:04d}" for n in range(ORDERS_TO_KILL)], "each is an order, once"
    done = Counter(names[e["data"]["work_order_id"]] for e in events if e["event_type"] == E.CLOSED)
    assert set(done) == set(names.values())
    assert set(done.values()) == {1}
    lines = told.read_text().splitlines()
    assert all(line.split() == [line.split()[0], line.split()[0][::-1]] for line in lines)
    assert len({line.split()[0] for line in lines}) == len(lines), "what was told once is not told again"
    last_claim: dict[str, int] = {}
    for place, event in enumerate(events):
        order = event["data"].get("work_order_id", "")
        if event["event_type"] == E.CLOSED:
            last_claim[order] = place
        elif event["event_type"] == E.ASSIGNED:
            assert order not in last_claim, "an order that had ended was claimed again"


async def test_the_end_is_durable_before_it_is_told(tmp_path: Path) -> None:
    async with at(tmp_path) as floor:
        async for outcome in floor.outcomes([wish(f"d{n}") for n in range(5)]):
            ended = {e["data"]["work_order_id"] for e in log_of(tmp_path) if e["event_type"] == E.CLOSED}
            assert outcome.order.id in ended
            assert outcome.state is State.DONE
