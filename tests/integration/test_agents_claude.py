"""The driver of Claude Code with a real process that speaks its dialect, in both families of versions."""

import asyncio
import os
import signal
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Literal

import pytest

from shopfloor.agents import _claude_talk, driver
from shopfloor.agents.claude_code import ClaudeCodeAgent
from shopfloor.domain.order import Order
from shopfloor.ports import Delivery, Handle, Kind, Launch, Profile, Report, Server
from shopfloor.spawn import Guard, Step
from shopfloor.testing.agent import SCRIPTED_CLAUDE

FAMILIES = {"2.1.329": (), "2.1.197": ("--old",)}
LADDER = (Step(signal.SIGINT, 0.5), Step(signal.SIGTERM, 0.5), Step(signal.SIGKILL, 30.0))
MCP_SERVER = Path(__file__).with_name("mcp_server.py")


@pytest.fixture(params=FAMILIES)
def family(request: pytest.FixtureRequest) -> tuple[str, ...]:
    return FAMILIES[request.param]


@asynccontextmanager
async def agent(polite_s: float = 30.0) -> AsyncIterator[ClaudeCodeAgent]:
    async with Guard() as guard:
        yield ClaudeCodeAgent(guard, ladder=LADDER, polite_s=polite_s)


def launch(
    folder: Path, script: str, *args: str, permissions: Literal["allow", "deny", "ask"] = "allow", **changes: Any
) -> Launch:
    workspace = folder / "workspace"
    workspace.mkdir(exist_ok=True)
    values: dict[str, Any] = {
        "order": Order(id="wo-abc", name="n", title="t"),
        "attempt": "wo-abc.a1",
        "profile": Profile(name="c", driver="claude_code", command=(*SCRIPTED_CLAUDE, *args), permissions=permissions),
        "prompt": f"```script\n{script}\n```\n",
        "workspace": str(workspace),
        "branch": "b",
        "directory": str(folder / "attempt"),
        "env": {"PATH": os.defpath},
    }
    return Launch(**{**values, **changes})


async def run(what: Launch, on: Callable[[ClaudeCodeAgent, Handle, Report], Any] | None = None) -> list[Report]:
    async with agent() as subject:
        handle = await subject.start(what)
        reports = []
        async for report in subject.follow(handle):
            reports.append(report)
            if on:
                await on(subject, handle, report)
        return reports


def those(reports: list[Report], kind: Kind) -> list[tuple[str, str]]:
    return [(report.status, report.text) for report in reports if report.kind is kind]


WRITES = '[[do]]\npermit_write = "a.txt"\n[[do]]\npermit_run = "touch b.txt"'


async def test_allowed_it_works(family: tuple[str, ...], tmp_path: Path) -> None:
    reports = await run(launch(tmp_path, WRITES, *family))
    assert reports[-1].status == "completed"
    assert sorted(path.name for path in (tmp_path / "workspace").iterdir()) == ["a.txt", "b.txt"]
    assert those(reports, Kind.PERMISSION) == [("allowed", "Write"), ("allowed", "Bash")]
    assert not (tmp_path / "attempt" / "scratch").exists()


async def test_a_denied_run_that_looks_like_success_is_none(family: tuple[str, ...], tmp_path: Path) -> None:
    reports = await run(launch(tmp_path, WRITES, *family, permissions="deny"))
    end = reports[-1]
    assert (end.status, end.exit_code) == ("error", 0)
    assert "Write, Bash" in end.text
    assert not list((tmp_path / "workspace").iterdir())


async def test_a_person_decides_while_it_waits(tmp_path: Path) -> None:
    deliveries: list[Delivery] = []

    async def answer(subject: ClaudeCodeAgent, handle: Handle, report: Report) -> None:
        if report.kind is Kind.PERMISSION and report.status == "asked":
            word = "yes" if report.text == "Write" else "no: not that"
            deliveries.append(await subject.send(handle, word))

    reports = await run(launch(tmp_path, WRITES, permissions="ask"), answer)
    assert reports[-1].status == "completed"
    assert [path.name for path in (tmp_path / "workspace").iterdir()] == ["a.txt"]
    assert deliveries == [Delivery.DELIVERED] * 2
    assert ("warning", "it was denied: Bash") in those(reports, Kind.LOG)


async def test_its_question_is_answered(tmp_path: Path) -> None:
    async def answer(subject: ClaudeCodeAgent, handle: Handle, report: Report) -> None:
        if report.kind is Kind.ASKED:
            await subject.send(handle, "port 80")

    reports = await run(launch(tmp_path, '[[do]]\nquestion = "Which?"'), answer)
    assert ("", "answered: port 80") in those(reports, Kind.TEXT)


async def test_words_reach_it_while_it_works(tmp_path: Path) -> None:
    deliveries: list[Delivery] = []

    async def speak(subject: ClaudeCodeAgent, handle: Handle, report: Report) -> None:
        if report.kind is Kind.TOOL and not deliveries:
            deliveries.append(await subject.send(handle, "look here"))

    reports = await run(launch(tmp_path, "[[do]]\nsteps = 40"), speak)
    assert deliveries == [Delivery.SEEN]
    assert ("seen", "look here") in those(reports, Kind.LOG)
    assert reports[-1].status == "completed"


async def test_words_after_its_last_step_are_a_turn_of_their_own(tmp_path: Path) -> None:
    script = '[[do]]\npermit_run = "true"\n[[do]]\nwait_s = 0.2'
    more = "```script\n[[do]]\nwrite = 'more.txt'\n```"
    sent: list[asyncio.Task[Delivery]] = []

    async def speak(subject: ClaudeCodeAgent, handle: Handle, report: Report) -> None:
        if report.kind is Kind.PERMISSION and not sent:
            sent.append(asyncio.create_task(subject.send(handle, more)))

    reports = await run(launch(tmp_path, script), speak)
    assert await sent[0] is Delivery.SEEN
    assert reports[-1].status == "completed"


async def test_two_results_in_one_run_and_the_last_one_counts(family: tuple[str, ...], tmp_path: Path) -> None:
    script = "[[do]]\ncost = 0.5\n[[do]]\nbackground = 0.3"
    reports = await run(launch(tmp_path, script, *family))
    assert those(reports, Kind.TURN_END) == [("success", "Done, all of it."), ("success", "after the background")]
    assert (reports[-1].status, reports[-1].text, reports[-1].cost_usd) == ("completed", "after the background", 0.5)


async def test_a_command_that_stays_in_the_background_is_ended(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_claude_talk, "BACKGROUND_S", 0.2)
    reports = await run(launch(tmp_path, "[[do]]\nbackground = 86400"))
    assert reports[-1].status == "completed", "what it did is done"
    assert [status for status, _ in those(reports, Kind.LOG)] == ["warning"]


async def test_a_line_of_300_kilobytes(family: tuple[str, ...], tmp_path: Path) -> None:
    reports = await run(launch(tmp_path, f'[[do]]\nwrite = "big"\n[[do]]\nsay = "{"x" * 300_000}"', *family))
    assert ("", "x" * 300_000) in those(reports, Kind.TEXT)
    assert reports[-1].status == "completed"


async def test_a_banner_before_the_events(tmp_path: Path) -> None:
    reports = await run(launch(tmp_path, '[[do]]\nwrite = "a"', "--banner"))
    assert reports[0].kind is Kind.NOISE
    assert reports[-1].status == "completed"


@pytest.mark.parametrize("deed", ["crash = 0", "crash = 7", 'crash = "SIGTERM"'])
async def test_an_end_without_a_result_is_no_success(deed: str, tmp_path: Path) -> None:
    reports = await run(launch(tmp_path, f'[[do]]\nwrite = "a"\n[[do]]\n{deed}'))
    assert reports[-1].status == "error"
    assert reports[-1].text
    assert reports[-1].cost_usd is None


async def test_exit_code_0_after_sigterm_is_no_success(tmp_path: Path) -> None:
    async def end(_: ClaudeCodeAgent, handle: Handle, report: Report) -> None:
        if report.kind is Kind.TEXT:
            os.kill(handle.pid, signal.SIGTERM)

    reports = await run(launch(tmp_path, "[[do]]\nhang = true", "--deaf"), end)
    assert (reports[-1].status, reports[-1].exit_code) == ("error", 0)
    assert "without a result" in reports[-1].text


async def test_a_tool_that_it_leaves_behind_is_ended(tmp_path: Path) -> None:
    reports = await run(launch(tmp_path, "[[do]]\nspawn_orphan = true"))
    assert (reports[-1].status, reports[-1].leftovers) == ("completed", 1)


async def test_stop_interrupts_before_it_kills(family: tuple[str, ...], tmp_path: Path) -> None:
    async def end(subject: ClaudeCodeAgent, handle: Handle, report: Report) -> None:
        if report.kind is Kind.TEXT:
            await subject.stop(handle)

    reports = await run(launch(tmp_path, "[[do]]\ncost = 0.5\n[[do]]\nhang = true", *family), end)
    assert reports[-1].status == "killed"
    assert reports[-1].cost_usd == 0.5, "its last result was heard"


async def test_a_hung_one_is_killed_in_time(tmp_path: Path) -> None:
    async with agent(polite_s=0.3) as subject:
        handle = await subject.start(launch(tmp_path, "[[do]]\nhang = true\nstubborn = true"))
        reports = subject.follow(handle)
        async for report in reports:
            if report.kind is Kind.TEXT:
                break
        async with asyncio.timeout(20):
            await subject.stop(handle)
        assert [report.status async for report in reports][-1] == "killed"


async def test_one_that_never_speaks_is_given_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_claude_talk, "HELLO_S", 0.5)
    reports = await run(launch(tmp_path, "[[do]]\nnothing = true", "--mute"))
    assert [status for status, _ in those(reports, Kind.ERROR)] == ["timeout"]
    assert reports[-1].status == "error"


async def test_a_storm_of_429(family: tuple[str, ...], tmp_path: Path) -> None:
    script = "[[do]]\nretry = 429\n" * 50 + "[[do]]\nfail = 429"
    reports = await run(launch(tmp_path, script, *family))
    assert those(reports, Kind.RETRYING) == [("429", "rate_limit")] * 50
    assert those(reports, Kind.ERROR) == [("quota", "API Error: 429 no")]
    assert reports[-1].status == "error"


@pytest.mark.parametrize(
    ("deed", "errors", "end"),
    [
        ("fail = 401", ["auth"], "failed"),
        ('limit = "max_budget_usd"', ["budget"], "limit"),
        ('limit = "max_turns"', [], "limit"),
    ],
)
async def test_how_a_turn_can_fail(deed: str, errors: list[str], end: str, tmp_path: Path) -> None:
    reports = await run(launch(tmp_path, f"[[do]]\n{deed}"))
    assert [status for status, _ in those(reports, Kind.ERROR)] == errors
    assert [status for status, _ in those(reports, Kind.TURN_END)] == [end]
    assert reports[-1].status == "error"


async def test_a_resumed_session_pays_only_for_itself(family: tuple[str, ...], tmp_path: Path) -> None:
    script = "[[do]]\ncost = 0.25\ntokens_in = 10\n[[do]]\nsay_session = true"
    reports = await run(launch(tmp_path, script, *family, session="scripted-old"))
    assert ("", "session scripted-old") in those(reports, Kind.TEXT)
    assert (reports[-1].cost_usd, reports[-1].tokens_in, reports[-1].session) == (0.25, 10, "scripted-old")
    gone = await run(launch(tmp_path, script, *family, session="gone", directory=str(tmp_path / "second")))
    assert [status for status, _ in those(gone, Kind.ERROR)] == ["session"]


async def test_its_servers_are_offered_and_allowed(tmp_path: Path) -> None:
    servers = (
        Server(name="board", command=(sys.executable, str(MCP_SERVER)), env={}),
        Server(name="dead", command=("no-such-program-4711",)),
    )
    what = launch(tmp_path, '[[do]]\ncall = "claim"', permissions="deny", servers=servers)
    reports = await run(what)
    assert reports[-1].status == "completed", reports[-1].text
    assert ("warning", "it has no tools of MCP server 'dead': failed") in those(reports, Kind.LOG)
    assert ("ok", "mcp__board__claim") in those(reports, Kind.TOOL)


async def test_a_mute_mcp_server_holds_nothing_up_for_ever(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_claude_talk, "HELLO_S", 0.5)
    mute = Server(name="mute", command=("sleep", "86400"), env={"PATH": os.defpath})
    reports = await run(launch(tmp_path, '[[do]]\nwrite = "a"', servers=(mute,)))
    assert [status for status, _ in those(reports, Kind.ERROR)] == ["timeout"]
    assert reports[-1].status == "error"


async def test_the_registry_and_its_hint(tmp_path: Path) -> None:
    async with Guard() as guard:
        found = driver("claude_code", guard, {"PATH": str(tmp_path)})
        probe = await found.probe(Profile(name="claude", driver="claude_code"))
        assert not probe.found
        assert "'claude'" in probe.problem
        assert "npm install -g @anthropic-ai/claude-code" in probe.hint
        program = tmp_path / "claude"
        program.write_text("")
        program.chmod(0o755)
        probe = await found.probe(Profile(name="claude", driver="claude_code"))
    assert probe.found
    assert probe.capabilities.resume
