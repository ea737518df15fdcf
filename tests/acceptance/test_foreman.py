"""The foreman and its crew, by what programs written for it rely on: their sessions are scripted, all else is real."""

import ast
import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Self

import amplifier_orchestrator_foreman_worker.orchestrator as contract
import pytest
from amplifier_orchestrator_foreman_worker import ForemanWorkerOrchestrator, WorkerConfig

from shopfloor import Shopfloor
from shopfloor.faces.foreman.tasks import Task, Tasks
from shopfloor.testing.model import Model

USAGE = """
from amplifier_orchestrator_foreman_worker import (
    ForemanWorkerOrchestrator,
    WorkerConfig
)

# Configure workers
workers = [
    WorkerConfig(profile="coding-worker", count=2),
    WorkerConfig(profile="research-worker", count=1),
]

# Create orchestrator
async with ForemanWorkerOrchestrator(
    loader=module_loader,
    mount_plans_dir=Path("registry/profiles"),
    foreman_profile="foreman-profile",
    worker_configs=workers,
    workspace_root=Path("workspace")
) as orchestrator:
    # Send user messages to foreman
    response = await orchestrator.execute_user_message(
        "Build me a web scraper"
    )
    print(response)

    # Workers continue in background
    await asyncio.sleep(60)

# Automatic shutdown on exit
"""
FOREMAN = {
    "mounts": {
        "system_prompt": "You are the Foreman...", "provider": "anthropic", "model": "claude-sonnet-4-20250514",
        "tools": ["bash", "issue"],
    }
}  # fmt: skip
CODING = {
    "mounts": {
        "system_prompt": "You are a coding worker...", "provider": "anthropic", "model": "claude-sonnet-4-20250514",
        "tools": ["bash"],
    }
}  # fmt: skip
BY_BEHAVIOUR = {
    "behaviors": {"context": {"provider": "context-anthropic"}},
    "tools": {"issue_manager": {"provider": "tool-issue"}},
}
TEAM = [WorkerConfig(profile="coding-worker", count=2), WorkerConfig(profile="research-worker", count=1)]
SOON = 20.0


class Scripted:
    """Makes sessions as programs make them: the first is the foreman's; ``do`` answers the prompts of workers."""

    def __init__(self, do: Callable[["Fake", str], Awaitable[str]] | None = None) -> None:
        self.made: list[Fake] = []
        self.do = do
        self.foreman: Callable[[str], Awaitable[str]] | None = None

    def __call__(self, config: dict[str, Any], **given: Any) -> "Fake":
        self.made.append(Fake(self, len(self.made), config, given))
        return self.made[-1]

    @property
    def open(self) -> list["Fake"]:
        return [session for session in self.made if session.entered and not session.left]


class Fake:
    def __init__(self, crew: Scripted, number: int, config: dict[str, Any], given: dict[str, Any]) -> None:
        self.crew, self.number, self.config, self.given = crew, number, config, given
        self.session_id = f"fake-{number}"
        self.entered = self.left = False
        self.messages: list[dict[str, str]] = []
        self.prompts: list[str] = []
        self.coordinator: Any = SimpleNamespace(get=lambda name: self if name == "context" else None)

    async def __aenter__(self) -> Self:
        self.entered = True
        return self

    async def __aexit__(self, *_error: object) -> None:
        self.left = True

    async def add_message(self, message: dict[str, str]) -> None:
        self.messages.append(message)

    async def execute(self, prompt: str) -> str:
        self.prompts.append(prompt)
        if self.number == 0:
            return await self.crew.foreman(prompt) if self.crew.foreman else f"You said: {prompt}"
        return await self.crew.do(self, prompt) if self.crew.do else "no work"

    @property
    def name(self) -> str:
        """What its standing orders call it."""
        return self.messages[0]["content"].split(",")[0].rsplit(" ", 1)[1]


@pytest.fixture
def plans(tmp_path: Path) -> Path:
    folder = tmp_path / "registry" / "profiles"
    folder.mkdir(parents=True)
    for name, plan in {"foreman-profile": FOREMAN, "coding-worker": CODING, "research-worker": CODING}.items():
        (folder / f"{name}.json").write_text(json.dumps(plan))
    return folder


def use(monkeypatch: pytest.MonkeyPatch, crew: Scripted) -> Scripted:
    monkeypatch.setattr(contract, "AmplifierSession", crew)
    return crew


def orchestrator(plans: Path, workspace: Path, **given: Any) -> ForemanWorkerOrchestrator:
    given = {"worker_configs": TEAM, "pause_s": 0.05, **given}
    return ForemanWorkerOrchestrator(
        loader=object(), mount_plans_dir=plans, foreman_profile="foreman-profile", workspace_root=workspace, **given
    )


@asynccontextmanager
async def board(workspace: Path) -> AsyncIterator[Tasks]:
    """The tasks, as another program sees them."""
    workspace.mkdir(exist_ok=True)
    async with Shopfloor.open(workspace, without_git=True) as floor:
        yield Tasks(floor, "somebody")


async def until(true: Callable[[], Any]) -> Any:
    async with asyncio.timeout(SOON):
        while True:
            found = true()
            if isinstance(found, Awaitable):
                found = await found
            if found:
                return found
            await asyncio.sleep(0.01)


async def all_are(tasks: Tasks, status: str, count: int) -> list[Task]:
    """As soon as there are so many."""

    async def found() -> list[Task]:
        there = await tasks.all(status=status)
        return there if len(there) >= count else []

    return await until(found)


def left_over() -> list[asyncio.Task[Any]]:
    return [task for task in asyncio.all_tasks() if task is not asyncio.current_task()]


# -- 1: the usage block, unchanged --------------------------------------------------------------------------------


@pytest.fixture
def model(monkeypatch: pytest.MonkeyPatch) -> Iterator[Model]:
    scripts: dict[str, Any] = {
        "foreman": [
            {
                "call": {
                    "name": "issue_manager",
                    "input": {
                        "operation": "create", "title": "Fetch pages", "description": "[[script work]]",
                        "metadata": {"category": "coding"},
                    },
                }
            },
            {"text": "The crew is at it."},
        ],
        "work": [{"bash": "pwd > where.txt"}, {"text": "Pages are fetched."}],
    }  # fmt: skip
    with Model(scripts) as running:
        monkeypatch.setenv("ANTHROPIC_BASE_URL", running.url)
        monkeypatch.setenv("ANTHROPIC_API_KEY", "throw-away")
        yield running


async def test_the_usage_block_runs_unchanged(
    plans: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, model: Model, capsys: pytest.CaptureFixture[str]
) -> None:
    (plans / "foreman-profile.json").write_text(
        json.dumps({"mounts": FOREMAN["mounts"] | {"system_prompt": "You are the Foreman... [[script foreman]]"}})
    )
    monkeypatch.chdir(tmp_path)
    seen: list[Any] = []

    async def sleep(_seconds: float) -> None:
        """Until the crew has done what there is, instead of a minute."""
        seen.extend(task.get_name() for task in names["orchestrator"].worker_tasks)
        async with board(tmp_path / "workspace") as tasks:
            seen.append(await all_are(tasks, "completed", 1))

    names: dict[str, Any] = {"module_loader": None, "Path": Path, "asyncio": SimpleNamespace(sleep=sleep)}
    code = compile(USAGE, "usage", "exec", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)
    await eval(code, names)
    assert capsys.readouterr().out == "The crew is at it.\n"
    assert seen[:3] == ["coding-worker-0", "coding-worker-1", "research-worker-2"]
    (done,) = seen[3]
    assert (done.title, done.result, done.assignee[:-1]) == ("Fetch pages", "Pages are fetched.", "coding-worker-")
    assert (tmp_path / "workspace" / "where.txt").read_text().strip() == str(tmp_path / "workspace")
    assert left_over() == []
