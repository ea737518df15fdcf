"""The driver of Claude Code with the real programs of both families, without a network."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import pytest

from shopfloor.agents.claude_code import ClaudeCodeAgent
from shopfloor.domain.order import Order
from shopfloor.ports import Delivery, Handle, Kind, Launch, Profile, Report, Route, Server
from shopfloor.spawn import Guard
from tests.agents.lab import Lab
from tools.agents import Agent

SERVER = Path(__file__).parents[1] / "integration" / "mcp_server.py"
SLEEPS = "python3 -c 'import time; time.sleep(300)'"
SCRIPTS: dict[str, list[dict[str, Any]]] = {
    "edit": [
        {"write": {"path": "{cwd}/{file}", "content": "made by {file}\n"}},
        {"bash": "git add -A && git commit -qm 'add {file}'"},
        {"text": "Done: {file} is written and committed."},
    ],
    "pause": [{"bash": "python3 -c 'import time; time.sleep(2)'"}, {"text": "Paused."}],
    "sleep": [{"bash": SLEEPS}, {"text": "Slept."}],
    "costly": [{"bash": "true", "usage": {"in": 400_000, "out": 20_000}}] * 3 + [{"text": "End."}],
    "board": [{"call": {"name": "mcp__board__claim", "input": {}}}, {"text": "Claimed."}],
    "limited": [{"text": "never", "fail": {"status": 429, "headers": {"retry-after": "1"}}}],
    "locked": [{"text": "never", "fail": {"status": 401, "message": "invalid x-api-key"}}],
    "long": [{"write": {"path": "{cwd}/big", "content": "x" * 300_000}}, {"text": "Done."}],
}

On = Callable[[ClaudeCodeAgent, Handle, Report], Awaitable[None]]


@pytest.fixture
def lab(namespace: None, tmp_path: Path) -> Iterator[Lab]:
    with Lab(tmp_path, SCRIPTS) as opened:
        yield opened


@dataclass
class Runs:
    """Attempts of one program, each in a repository of its own unless one is given."""

    lab: Lab
    agent: Agent
    count: int = 0
    launches: list[Launch] = field(default_factory=list)

    def launch(
        self, prompt: str, *, permissions: Literal["allow", "deny", "ask"] = "allow", args: tuple[str, ...] = (),
        workspace: Path | None = None, **changes: Any,
    ) -> Launch:  # fmt: skip
        self.count += 1
        workspace = workspace or self.repository()
        command = (*self.lab.inside, str(self.agent.bin / "claude"))
        own = {"CLAUDE_CONFIG_DIR": str(self.lab.home("claude")), "CLAUDE_CODE_MAX_RETRIES": "1"}
        made = Launch(
            order=Order(id=f"wo-{self.count}", name="n", title="t"),
            attempt=f"wo-{self.count}.a1",
            profile=Profile(name="c", driver="claude_code", command=command, permissions=permissions, args=args),
            prompt=f"Do what you are told. [[script {prompt} cwd={workspace}]]",
            workspace=str(workspace),
            branch="b",
            directory=str(self.lab.folder / f"attempt{self.count}"),
            env={**self.lab.variables("claude", self.agent), **own, "PWD": str(workspace)},
            route=Route(url=self.lab.url, token="throw-away-token"),
            **changes,
        )
        self.launches.append(made)
        return made

    def repository(self) -> Path:
        folder = self.lab.folder / f"repository{self.count}"
        folder.mkdir()
        self.git(folder, "init", "-q", "-b", "main")
        self.git(folder, "config", "user.name", "t")
        self.git(folder, "config", "user.email", "t@localhost")
        self.git(folder, "commit", "-q", "--allow-empty", "-m", "begin")
        return folder

    def git(self, folder: Path, *words: str) -> str:
        return subprocess.run(["git", *words], cwd=folder, check=True, capture_output=True, text=True).stdout

    async def run(self, what: Launch, on: On | None = None) -> list[Report]:
        async with Guard() as guard:
            subject = ClaudeCodeAgent(guard)
            handle = await subject.start(what)
            reports = []
            async for report in subject.follow(handle):
                reports.append(report)
                if on is not None:
                    await on(subject, handle, report)
        return reports


@pytest.fixture(params=["claude", "claude-old"])
def runs(request: pytest.FixtureRequest, lab: Lab, installed: Callable[[str], Agent]) -> Runs:
    return Runs(lab, installed(request.param))


def those(reports: list[Report], kind: Kind) -> list[tuple[str, str]]:
    return [(report.status, report.text) for report in reports if report.kind is kind]


async def test_it_edits_and_commits_and_says_what_it_cost(runs: Runs) -> None:
    what = runs.launch("edit file=a.txt")
    reports = await runs.run(what)
    end = reports[-1]
    assert (end.status, end.exit_code) == ("completed", 0), end.text
    assert runs.git(Path(what.workspace), "show", "main:a.txt") == "made by a.txt\n"
    assert (end.tokens_in, end.tokens_out, end.steps) == (3000, 150, 3)
    assert end.cost_usd
    assert end.session
    assert those(reports, Kind.PERMISSION) == [("allowed", "Write"), ("allowed", "Bash")]
    assert {request.credential for request in runs.lab.requests("edit")} == {"…-token"}
    assert runs.git(Path(what.workspace), "status", "--porcelain") == "", "nothing of it is left in the repository"
    assert runs.lab.processes() == []


async def test_denied_it_is_no_success_whatever_it_says(runs: Runs) -> None:
    what = runs.launch("edit file=a.txt", permissions="deny")
    end = (await runs.run(what))[-1]
    assert (end.status, end.exit_code) == ("error", 0)
    assert "Write, Bash" in end.text
    assert not Path(what.workspace, "a.txt").exists()


async def test_a_person_is_asked_and_answers(runs: Runs) -> None:
    async def answer(subject: ClaudeCodeAgent, handle: Handle, report: Report) -> None:
        if report.kind is Kind.PERMISSION and report.status == "asked":
            await subject.send(handle, "yes" if report.text == "Write" else "no")

    what = runs.launch("edit file=a.txt", permissions="ask")
    reports = await runs.run(what, answer)
    assert those(reports, Kind.PERMISSION) == [
        *(("asked", "Write"), ("allowed", "Write")),
        *(("asked", "Bash"), ("denied", "Bash")),
    ]
    assert reports[-1].status == "completed"
    assert Path(what.workspace, "a.txt").exists()


async def test_words_reach_it_between_two_steps(runs: Runs) -> None:
    sent: list[Delivery] = []

    async def speak(subject: ClaudeCodeAgent, handle: Handle, report: Report) -> None:
        if report.kind is Kind.PERMISSION and not sent:
            words = f"[[script edit file=b.txt cwd={runs.launches[0].workspace}]]"
            sent.append(await subject.send(handle, words))

    reports = await runs.run(runs.launch("pause"), speak)
    assert reports[-1].status == "completed"
    assert Path(runs.launches[0].workspace, "b.txt").exists()
    assert [status for status, _ in those(reports, Kind.LOG)] == ["seen"]
    assert sent[0] in (Delivery.DELIVERED, Delivery.SEEN)


async def test_stopped_in_a_command_it_ends_by_itself_and_leaves_nothing(runs: Runs) -> None:
    async def stop(subject: ClaudeCodeAgent, handle: Handle, report: Report) -> None:
        if report.kind is Kind.PERMISSION:
            await subject.stop(handle)

    end = (await runs.run(runs.launch("sleep"), stop))[-1]
    assert end.status == "killed"
    assert end.exit_code in (0, 1), "no signal was needed"
    assert end.cost_usd
    assert runs.lab.processes() == []


async def test_a_session_goes_on_and_is_not_paid_for_again(runs: Runs) -> None:
    first = runs.launch("edit file=a.txt")
    begun = (await runs.run(first))[-1]
    second = runs.launch("edit file=b.txt", workspace=Path(first.workspace), session=begun.session)
    end = (await runs.run(second))[-1]
    assert (end.status, end.session) == ("completed", begun.session)
    assert end.cost_usd == pytest.approx(begun.cost_usd)
    assert end.tokens_in == begun.tokens_in
    unknown = runs.launch("edit file=c.txt", session="00000000-0000-4000-8000-000000000000")
    assert [status for status, _ in those(await runs.run(unknown), Kind.ERROR)] == ["session"]


async def test_its_limits_end_it(runs: Runs) -> None:
    costly = await runs.run(runs.launch("costly", budget_usd=1.0))
    assert [status for status, _ in those(costly, Kind.ERROR)] == ["budget"]
    assert costly[-1].status == "error"
    turns = await runs.run(runs.launch("costly", args=("--max-turns", "2")))
    assert [status for status, _ in those(turns, Kind.TURN_END)] == ["limit"]


async def test_its_servers_are_offered_and_a_dead_one_is_told(runs: Runs) -> None:
    servers = (
        Server(name="board", command=("python3", str(SERVER)), env={"WHO": "w1"}),
        Server(name="dead", command=("false",)),
    )
    reports = await runs.run(runs.launch("board", permissions="deny", servers=servers))
    assert ("warning", "it has no tools of MCP server 'dead': failed") in those(reports, Kind.LOG)
    assert ("allowed", "mcp__board__claim") in those(reports, Kind.PERMISSION)


async def test_what_the_model_refuses_has_a_name(runs: Runs) -> None:
    for script, status in (("limited", "quota"), ("locked", "auth")):
        reports = await runs.run(runs.launch(script))
        assert [found for found, _ in those(reports, Kind.ERROR)] == [status]
        assert those(reports, Kind.RETRYING)
        assert reports[-1].status == "error"


async def test_a_line_of_300_kilobytes(runs: Runs) -> None:
    what = runs.launch("long")
    assert (await runs.run(what))[-1].status == "completed"
    assert Path(what.workspace, "big").stat().st_size == 300_000


@pytest.mark.skipif(os.geteuid() != 0, reason="only root needs the variable")
async def test_root_may_bypass_permissions_when_that_is_asked(runs: Runs) -> None:
    what = runs.launch("edit file=a.txt", permissions="deny", args=("--dangerously-skip-permissions",))
    reports = await runs.run(what)
    assert reports[-1].status == "completed", reports[-1].text
    assert not those(reports, Kind.PERMISSION)
