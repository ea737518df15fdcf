"""The driver for the Agent Client Protocol with a real program, and with all that such programs do wrong."""

import asyncio
import json
import signal
import sys
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest

from shopfloor.agents._acp_presets import PRESETS
from shopfloor.agents.acp import AcpAgent
from shopfloor.domain.errors import Refused
from shopfloor.ports import Delivery, Handle, Kind, Profile, Report, Server
from shopfloor.spawn import Guard, Step, descendants
from shopfloor.testing.behaviours import Bench, Subject

LADDER = (Step(signal.SIGINT, 0.3), Step(signal.SIGTERM, 0.5), Step(signal.SIGKILL, 30.0))
PROFILE = Profile(name="acp", driver="acp", preset="scripted")
MCP = Path(__file__).with_name("mcp_server.py")


def agent(guard: Guard) -> AcpAgent:
    return AcpAgent(guard, ladder=LADDER, polite_s=1.0)


async def with_bench(work: Callable[[Bench], Any], folder: Path) -> None:
    async with Guard() as guard:
        subject = Subject(make=agent, profile=PROFILE)
        await work(Bench(subject, guard, subject.make(guard), folder))


def script(*deeds: str) -> str:
    return "```script\n" + "".join(f"[[do]]\n{deed}\n" for deed in deeds) + "```\n"


def options(*words: str, **changes: Any) -> Profile:
    """The scripted agent with more words behind its command."""
    command = (*PRESETS["scripted"].command, *words) if words else ()
    return msgspec.structs.replace(PROFILE, command=command, **changes)


async def until(reports: AsyncIterator[Report], wanted: Callable[[Report], bool]) -> list[Report]:
    found = []
    async for report in reports:
        found.append(report)
        if wanted(report):
            return found
    raise AssertionError(f"it ended before: {found[-1]}")


def last(reports: list[Report], kind: Kind) -> Report:
    return [report for report in reports if report.kind is kind][-1]


async def test_a_run_whose_every_tool_was_denied_is_no_success(tmp_path: Path) -> None:
    async def work(bench: Bench) -> None:
        prompt = script('permit_write = "no.txt"', 'say = "Done!"')
        reports = await bench.run(prompt=prompt, profile=options(permissions="deny"))
        assert last(reports, Kind.PERMISSION).status == "denied"
        assert last(reports, Kind.TOOL).status == "denied"
        assert last(reports, Kind.TURN_END).status == "failed"
        assert reports[-1].status == "error"
        assert reports[-1].exit_code == 0
        assert not Path(bench.last.workspace, "no.txt").exists()

    await with_bench(work, tmp_path)


@pytest.mark.parametrize(("answer", "there"), [("allow", True), ("no", False)])
async def test_a_person_is_asked_and_answers(answer: str, there: bool, tmp_path: Path) -> None:
    async def work(bench: Bench) -> None:
        launch = bench.launch(prompt=script('permit_write = "x.txt"'), profile=options(permissions="ask"))
        handle = await bench.agent.start(launch)
        reports = bench.agent.follow(handle)
        asked = (await until(reports, lambda report: report.kind is Kind.PERMISSION))[-1]
        assert (asked.status, asked.text) == ("asked", "write x.txt")
        assert await bench.agent.send(handle, answer) is Delivery.DELIVERED
        rest = [report async for report in reports]
        assert last(rest, Kind.PERMISSION).status == ("allowed" if there else "denied")
        assert Path(launch.workspace, "x.txt").exists() is there

    await with_bench(work, tmp_path)


async def test_words_are_the_next_prompt(tmp_path: Path) -> None:
    async def work(bench: Bench) -> None:
        first = script('permit = "x"', "cost = 0.25\ntokens_in = 10\ntokens_out = 1")
        handle = await bench.agent.start(bench.launch(prompt=first, profile=options(permissions="ask")))
        reports = bench.agent.follow(handle)
        await until(reports, lambda report: report.kind is Kind.PERMISSION)
        more = script('write = "more.txt"', "cost = 0.25\ntokens_in = 10\ntokens_out = 1")
        assert await bench.agent.send(handle, more) is Delivery.QUEUED
        assert await bench.agent.send(handle, "yes") is Delivery.DELIVERED
        rest = [report async for report in reports]
        assert [report.status for report in rest if report.kind is Kind.TURN_END] == ["success", "success"]
        assert Path(bench.last.workspace, "more.txt").exists()
        end = rest[-1]
        assert (end.status, end.cost_usd, end.tokens_in, end.tokens_out) == ("completed", 0.5, 20, 2)

    await with_bench(work, tmp_path)


async def test_a_session_is_taken_up(tmp_path: Path) -> None:
    async def work(bench: Bench) -> None:
        session = (await bench.run("works"))[0].session
        reports = await bench.run(prompt=script("say_session = true", "cost = 0.5"), session=session)
        assert last(reports, Kind.STARTED).session == session
        assert f"session {session}" in [report.text for report in reports]
        assert "replayed" not in [report.text for report in reports]
        assert reports[-1].cost_usd == 0.5

        gone = await bench.run("works", session="of-another-life")
        assert gone[0].status == "warning"
        assert gone[-1].status == "completed"

    await with_bench(work, tmp_path)


async def test_files_through_the_protocol_stay_in_the_workspace(tmp_path: Path) -> None:
    async def work(bench: Bench) -> None:
        (tmp_path / "secret.txt").write_text("not for agents")
        prompt = script(
            'permit_write = "in.txt"', 'read = "in.txt"', 'read = "../secret.txt"', 'permit_write = "../out.txt"'
        )
        reports = await bench.run(prompt=prompt)
        texts = [report.text for report in reports if report.kind is Kind.TEXT]
        assert "hello\n" in texts
        assert not [text for text in texts if "not for agents" in text]
        refused = [r.text for r in reports if r.kind is Kind.LOG and r.status == "warning"]
        assert len(refused) == 2
        assert not (tmp_path / "out.txt").exists()

    await with_bench(work, tmp_path)


async def test_an_mcp_server_is_offered_with_its_environment(tmp_path: Path) -> None:
    async def work(bench: Bench) -> None:
        server = Server(name="board", command=(sys.executable, str(MCP)), env={"WHO": "w1"})
        reports = await bench.run(prompt=script('call = "who"'), servers=(server,))
        assert reports[-1].status == "completed", reports[-1]
        assert "w1" in last(reports, Kind.TEXT).text

    await with_bench(work, tmp_path)


async def test_a_mute_mcp_server_holds_nothing_up_for_ever(tmp_path: Path) -> None:
    async def work(bench: Bench) -> None:
        assert isinstance(bench.agent, AcpAgent)
        bench.agent.hello_s = 0.5
        server = Server(name="mute", command=("sleep", "1000"))
        reports = await bench.run("works", servers=(server,))
        assert last(reports, Kind.ERROR).status == "timeout"
        assert reports[-1].status == "error"
        assert "session/new" in reports[-1].text

    await with_bench(work, tmp_path)


async def test_a_banner_is_noise(tmp_path: Path) -> None:
    async def work(bench: Bench) -> None:
        reports = await bench.run("works", profile=options("--banner"))
        assert reports[0].kind is Kind.NOISE
        assert reports[-1].status == "completed"

    await with_bench(work, tmp_path)


async def test_a_line_of_300_kb_is_one_message(tmp_path: Path) -> None:
    async def work(bench: Bench) -> None:
        text = "x" * 300_000
        reports = await bench.run(prompt=script(f'say = "{text}"'))
        assert text in [report.text for report in reports]
        assert reports[-1].status == "completed"

    await with_bench(work, tmp_path)


async def test_an_end_without_a_result_is_an_error(tmp_path: Path) -> None:
    async def work(bench: Bench) -> None:
        reports = await bench.run(prompt=script('say = "Done"', "crash = 0"))
        assert (reports[-1].status, reports[-1].exit_code) == ("error", 0)
        assert last(reports, Kind.TEXT).text == "Done"

    await with_bench(work, tmp_path)


async def test_exit_code_0_after_sigterm_is_no_success(tmp_path: Path) -> None:
    async def work(bench: Bench) -> None:
        launch = bench.launch(prompt=script("hang = true\nstubborn = false"), profile=options("--deaf"))
        handle = await bench.agent.start(launch)
        reports = bench.agent.follow(handle)
        await until(reports, lambda report: report.kind is Kind.TEXT)
        _terminate(handle)
        rest = [report async for report in reports]
        assert (rest[-1].status, rest[-1].exit_code) == ("error", 0)

    await with_bench(work, tmp_path)


def _terminate(handle: Handle) -> None:
    import os

    os.kill(handle.pid, signal.SIGTERM)


async def test_cancelling_comes_before_the_signals_and_leaves_no_tool(tmp_path: Path) -> None:
    async def work(bench: Bench) -> None:
        launch = bench.launch(prompt=script("hang = true\ngrandchild = true"))
        handle = await bench.agent.start(launch)
        reports = bench.agent.follow(handle)
        await until(reports, lambda report: "hangs" in report.text)
        assert descendants(handle.pid)
        await bench.agent.stop(handle)
        rest = [report async for report in reports]
        assert last(rest, Kind.TURN_END).data["reason"] == "cancelled"
        assert rest[-1].status == "killed"
        assert rest[-1].exit_code == 0, "a signal was needed"
        assert rest[-1].leftovers == 1

    await with_bench(work, tmp_path)


async def test_one_that_stays_when_stdin_is_closed_is_ended(tmp_path: Path) -> None:
    async def work(bench: Bench) -> None:
        reports = await bench.run("works", profile=options("--stays"))
        assert (reports[-1].status, reports[-1].exit_code) == ("completed", 128 + signal.SIGTERM)

    await with_bench(work, tmp_path)


async def test_a_storm_of_429_says_when_it_is_over(tmp_path: Path) -> None:
    async def work(bench: Bench) -> None:
        reports = await bench.run(prompt=script("fail = 429"))
        error = last(reports, Kind.ERROR)
        assert error.status == "quota"
        assert error.data["http_status"] == 429
        assert error.data["reset_at"] > 1_000_000_000
        assert reports[-1].status == "error"

    await with_bench(work, tmp_path)


@pytest.mark.parametrize("reason", ["refusal", "max_tokens"])
async def test_other_ends_are_no_success(reason: str, tmp_path: Path) -> None:
    async def work(bench: Bench) -> None:
        reports = await bench.run(prompt=script('say = "All done."', f'stop = "{reason}"'))
        assert reports[-1].status == "error"

    await with_bench(work, tmp_path)


async def test_steps_can_be_interrupted(tmp_path: Path) -> None:
    async def work(bench: Bench) -> None:
        handle = await bench.agent.start(bench.launch(prompt=script("steps = 1000")))
        reports = bench.agent.follow(handle)
        await until(reports, lambda report: report.kind is Kind.TOOL)
        await asyncio.gather(bench.agent.stop(handle), bench.agent.stop(handle))
        rest = [report async for report in reports]
        assert (rest[-1].status, rest[-1].exit_code) == ("killed", 0)

    await with_bench(work, tmp_path)


async def test_an_unknown_preset_is_refused_by_name(tmp_path: Path) -> None:
    async def work(bench: Bench) -> None:
        profile = msgspec.structs.replace(PROFILE, preset="gosling")
        probe = await bench.agent.probe(profile)
        assert not probe.found
        assert "gosling" in probe.problem
        assert "goose" in probe.hint
        with pytest.raises(Refused, match="gosling"):
            await bench.agent.start(bench.launch("works", profile=profile))

    await with_bench(work, tmp_path)


async def test_a_missing_agent_names_what_installs_it(tmp_path: Path) -> None:
    async def work(bench: Bench) -> None:
        for name, preset in PRESETS.items():
            profile = Profile(name=name, driver="acp", preset=name, env={"PATH": str(tmp_path)})
            if preset.install:
                probe = await bench.agent.probe(profile)
                assert not probe.found
                assert preset.install in probe.hint

    await with_bench(work, tmp_path)


def test_the_raw_words_are_kept(tmp_path: Path) -> None:
    async def work(bench: Bench) -> None:
        await bench.run("works")
        lines = Path(bench.last.directory, "stdout.log").read_text().splitlines()
        assert json.loads(lines[-1])["result"]["stopReason"] == "end_turn"

    asyncio.run(with_bench(work, tmp_path))
