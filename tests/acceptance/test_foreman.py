"""The foreman and its crew, by what programs written for it rely on: their sessions are scripted, all else is real."""

import ast
import asyncio
import json
import logging
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Self

import pytest

from amplifier_orchestrator_foreman_worker import ForemanWorkerOrchestrator, WorkerConfig, load_mount_plan
from amplifier_orchestrator_foreman_worker import orchestrator as contract
from campaigns._crews import Crew, crews
from shopfloor import Deliverable, Order, Shopfloor
from shopfloor.faces.foreman.task import Task
from shopfloor.faces.foreman.tasks import Tasks
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
TURN_S = 0.1
"""the longest that a worker takes for a task where it is to be found at work"""


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
        if "parent_id" not in self.given:
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
        return await tasks.all(status=status) if (await tasks.counts())[status] >= count else []

    tasks_found: list[Task] = await until(found)
    return tasks_found


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


# -- 2, 3: mount plans ----------------------------------------------------------------------------------------------


async def test_nothing_is_loaded_before_the_first_message(
    plans: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    crew = use(monkeypatch, Scripted())
    (plans / "foreman-profile.json").unlink()
    async with orchestrator(plans, tmp_path / "workspace") as one:
        assert (one.foreman_session, one.worker_tasks, one._initialized, crew.made) == (None, [], False, [])
        with pytest.raises(FileNotFoundError, match=r"Mount plan not found: .*foreman-profile\.json"):
            await one.execute_user_message("Anybody there?")
        assert (one.foreman_session, one.worker_tasks, crew.made) == (None, [], [])
        (plans / "foreman-profile.json").write_text(json.dumps(BY_BEHAVIOUR))
        assert await one.execute_user_message("And now?") == "You said: And now?"
        assert crew.made[0].config == BY_BEHAVIOUR, "what is handed to a session of others is never changed"
    assert not (tmp_path / "workspace").exists()


async def test_the_mount_plans_give_what_they_say(plans: Path, tmp_path: Path, model: Model) -> None:
    async with board(tmp_path / "workspace") as tasks:
        await tasks.create("Look", "[[script work]]", category="coding")
        async with orchestrator(plans, tmp_path / "workspace") as one:
            assert await one.execute_user_message("Hello") == "ok"
            await all_are(tasks, "completed", 1)
    for prompt, system, tools in (
        ("Hello", "You are the Foreman...", {"bash", "issue_manager"}),
        ("claimed for you", "You are a coding worker...", {"bash"}),
    ):
        asked = next(r for r in model.requests() if prompt in json.dumps(r.body["messages"][0]))
        assert asked.body["model"] == "claude-sonnet-4-20250514"
        assert json.dumps(asked.body["system"]).startswith((f'[{{"text": "{system}', f'"{system}', '[{"type"')), asked
        assert system in json.dumps(asked.body["system"])
        assert {tool["name"] for tool in asked.body["tools"]} == tools


# -- 4: work in the background --------------------------------------------------------------------------------------


async def test_each_task_is_done_once_by_the_right_kind_while_the_foreman_thinks(
    plans: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    crew = use(monkeypatch, Scripted())
    thinking = asyncio.Event()
    worked: list[tuple[str, str]] = []

    async def think(prompt: str) -> str:
        if prompt.endswith("Think hard"):
            await thinking.wait()
        return prompt[-10:]

    async def do(session: Fake, prompt: str) -> str:
        worked.append((session.name, prompt.split()[1].rstrip(",")))
        return f"done by {session.name}"

    crew.foreman, crew.do = think, do
    async with board(tmp_path / "workspace") as tasks:
        for number in range(12):
            await tasks.create(f"Task {number}", category=("coding", "research")[number % 2])
        async with orchestrator(plans, tmp_path / "workspace") as one:
            first = asyncio.create_task(one.execute_user_message("Think hard"))
            done = await all_are(tasks, "completed", 12)
            assert not first.done()
            assert await one.execute_user_message("Still there") == "till there"
            thinking.set()
            assert await first == "Think hard"
            assert set(one.worker_session_ids) == {"coding-worker-0", "coding-worker-1", "research-worker-2"}
    assert sorted(task for _, task in worked) == sorted(task.id for task in done)
    assert all(task.result == f"done by {task.assignee}" for task in done)
    assert all(task.assignee.startswith(task.category) for task in done)
    assert crew.open == []
    assert left_over() == []


# -- 5, 6: errors ---------------------------------------------------------------------------------------------------


async def test_a_worker_that_fails_waits_and_tries_again_while_others_go_on(
    plans: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    assert ForemanWorkerOrchestrator(worker_configs=[]).pause_s == 2.0
    failures = 2
    crew = use(monkeypatch, Scripted())

    async def do(session: Fake, prompt: str) -> str:
        nonlocal failures
        if "Fragile" in prompt and failures:
            failures -= 1
            raise RuntimeError("it broke")
        return "done"

    crew.do = do
    async with board(tmp_path / "workspace") as tasks:
        fragile = await tasks.create("Fragile", category="coding")
        await tasks.create("Sturdy", category="research")
        async with orchestrator(plans, tmp_path / "workspace") as one:
            await one.execute_user_message("Go")
            await all_are(tasks, "completed", 2)
            assert not any(task.done() for task in one.worker_tasks)
            told = await one.execute_user_message("And?")
        found = await tasks.get(fragile.id)
        events = [(e.event_type, e.data.get("delay_s")) for e in await tasks.events(fragile.id)]
    assert found.retries == 2
    assert [delay for kind, delay in events if kind == "work_order.released"] == [0.05, 0.1]
    assert [r.levelno for r in caplog.records if "failed on" in r.message] == [logging.ERROR] * 2
    assert "completed since you were last told: 2" in told


async def test_an_error_of_the_foreman_reaches_the_caller_and_it_goes_on(
    plans: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    crew = use(monkeypatch, Scripted())

    async def answer(prompt: str) -> str:
        if prompt == "Break":
            raise ValueError("no such thing")
        return "fine"

    crew.foreman = answer
    async with orchestrator(plans, tmp_path / "workspace") as one:
        with pytest.raises(RuntimeError, match="Foreman execution failed: no such thing") as caught:
            await one.execute_user_message("Break")
        assert isinstance(caught.value.__cause__, ValueError)
        assert await one.execute_user_message("Go on") == "fine"


# -- 7: programs of either generation -------------------------------------------------------------------------------


async def test_both_ways_to_make_a_crew(plans: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    crew = use(monkeypatch, Scripted())
    worker = {"tools": {"issue_manager": {"provider": "tool-issue"}}}
    one = ForemanWorkerOrchestrator(
        loader="loader", foreman_config={"who": "foreman"},
        worker_configs=[WorkerConfig(name="coding-worker", config=worker, count=2)], workspace_root=tmp_path,
        approval_system="approval", display_system="display",
    )  # fmt: skip
    assert (one.loader, one.approval_system, one.display_system) == ("loader", "approval", "display")
    async with one as same:
        assert same is one
        assert await one.execute_user_message("Hello") == "You said: Hello"
        await until(lambda: len(crew.made) == 3 and all(s.prompts for s in crew.made))
        assert one._initialized
        assert not one._shutdown_event.is_set()
        assert [task.get_name() for task in one.worker_tasks] == ["coding-worker-0", "coding-worker-1"]
        assert one.worker_session_ids == {"coding-worker-0": "fake-1", "coding-worker-1": "fake-2"}
    assert one._shutdown_event.is_set()
    foreman, *others = crew.made
    given = {"loader": "loader", "approval_system": "approval", "display_system": "display"}
    assert (foreman.config, foreman.given) == ({"who": "foreman"}, given)
    assert all((s.config, s.given) == (worker, {**given, "parent_id": "fake-0"}) for s in others)
    assert [m["role"] for m in foreman.messages] == ["system"]
    assert "Foreman" in foreman.messages[0]["content"]
    assert "{{" not in foreman.messages[0]["content"]
    assert "issue_manager" in foreman.messages[0]["content"]
    assert "worker" in others[0].messages[0]["content"]
    # Without any tasks in sight their sessions look for work themselves.
    assert all('category "coding"' in s.prompts[0] for s in others)


async def test_a_session_without_a_place_for_words(
    plans: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    crew = Scripted()

    def mute(config: dict[str, Any], **given: Any) -> Fake:
        made = crew(config, **given)
        made.coordinator = SimpleNamespace(get=lambda _name: None)
        return made

    monkeypatch.setattr(contract, "AmplifierSession", mute)
    one = orchestrator(plans, tmp_path / "workspace")
    with pytest.raises(RuntimeError, match="Foreman: No context manager mounted"):
        await one.execute_user_message("Hello")
    assert (one.foreman_session, one._initialized, crew.open) == (None, False, [])


async def test_a_missing_plan_of_a_worker_is_told_and_its_worker_comes_when_it_is_there(
    plans: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG, "shopfloor.faces.foreman")
    use(monkeypatch, Scripted())
    (plans / "research-worker.json").unlink()
    async with board(tmp_path / "workspace") as tasks, orchestrator(plans, tmp_path / "workspace") as one:
        await tasks.create("Find out", category="research")
        told = await one.execute_user_message("Go")
        async with asyncio.timeout(SOON):
            while "worker trouble" not in told:
                await tasks.changed(0, 0.01)
                told = await one.execute_user_message("And?")
        assert "research-worker-2: FileNotFoundError: Mount plan not found" in told
        assert "research-worker.json" in told
        tries = len(caplog.records)
        await until(lambda: sum("cannot work" in r.message for r in caplog.records[tries:]) >= 3)
        assert "worker trouble" not in await one.execute_user_message("And now?"), "it is told once"
        (plans / "research-worker.json").write_text(json.dumps(CODING))
        await all_are(tasks, "completed", 1)


def test_plans_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="Mount plan not found"):
        load_mount_plan(tmp_path, "none")
    for name, text in {"broken": "{ off", "list": "[]"}.items():
        (tmp_path / f"{name}.json").write_text(text)
        with pytest.raises(ValueError, match=r"Invalid JSON in .*json"):
            load_mount_plan(tmp_path, name)
    (tmp_path / "empty.json").write_text("{}")
    assert load_mount_plan(tmp_path, "empty") == {}


# -- 8: the end -----------------------------------------------------------------------------------------------------


async def test_an_idle_team_ends_at_once(plans: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    crew = use(monkeypatch, Scripted())
    async with board(tmp_path / "workspace") as tasks:
        await tasks.create("First", category="coding")
        one = orchestrator(plans, tmp_path / "workspace", pause_s=60.0)
        await one.execute_user_message("Go")
        await all_are(tasks, "completed", 1)
        seen: list[int] = []

        def at_rest() -> bool:
            """Nobody was woken for a while, and everybody has found nothing."""
            assert one._queue is not None
            seen.append(one._queue._news)
            return len(seen) > 20 and len({*seen[-20:], *one._queue._nothing.values()}) == 1

        await until(at_rest)
        began = asyncio.get_running_loop().time()
        await one.shutdown()
        assert asyncio.get_running_loop().time() - began < 0.3
    assert (crew.open, left_over(), one.worker_tasks) == ([], [], [])
    await one.shutdown()


async def test_a_hung_worker_is_cancelled_and_its_task_is_open_again(
    plans: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    crew = use(monkeypatch, Scripted())
    begun = asyncio.Event()

    async def hang(_session: Fake, _prompt: str) -> str:
        begun.set()
        await asyncio.Event().wait()
        return "never"

    crew.do = hang
    assert ForemanWorkerOrchestrator(worker_configs=[]).grace_s == 10.0
    async with board(tmp_path / "workspace") as tasks:
        made = await tasks.create("Endless", category="coding")
        one = orchestrator(plans, tmp_path / "workspace", grace_s=0.1)
        await one.execute_user_message("Go")
        async with asyncio.timeout(SOON):
            await begun.wait()
        assert (await tasks.get(made.id)).status == "in_progress"
        assert await one.get_worker_status() == {made.id: "running"}
        await one.shutdown()
        found = await tasks.get(made.id)
        assert (found.status, found.assignee, found.retries) == ("open", "", 0)
        assert (crew.open, left_over()) == ([], [])

        async def work(_session: Fake, _prompt: str) -> str:
            return "done after all"

        crew.do = work
        assert await one.execute_user_message("Again") == "You said: Again"  # a new team
        (done,) = await all_are(tasks, "completed", 1)
        assert done.result == "done after all"
        await one.shutdown()
    assert (crew.open, left_over()) == ([], [])


async def test_first_messages_that_come_together_make_one_team(
    plans: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    crew = use(monkeypatch, Scripted())
    async with orchestrator(plans, tmp_path / "workspace") as one:
        answers = await asyncio.gather(*(one.execute_user_message(str(n)) for n in range(3)))
        assert answers == ["You said: 0", "You said: 1", "You said: 2"]
        await until(lambda: len(crew.made) == 4)
        assert len(one.worker_tasks) == 3
    assert len(crew.made) == 4
    assert (crew.open, left_over()) == ([], [])


async def test_a_caller_that_goes_away_takes_the_turn_with_it(
    plans: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    crew = use(monkeypatch, Scripted())
    ended: list[str] = []

    async def think(_prompt: str) -> str:
        try:
            await asyncio.Event().wait()
        finally:
            ended.append("turn")
        return "never"

    crew.foreman = think
    async with orchestrator(plans, tmp_path / "workspace", worker_configs=[]) as one:
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.2):
                await one.execute_user_message("Go")
        assert ended == ["turn"]


# -- 9: many ----------------------------------------------------------------------------------------------------------


@pytest.mark.timeout(120)
async def test_fifty_workers_in_three_processes_and_one_is_killed(tmp_path: Path) -> None:
    """A thousand tasks: each is completed exactly once, and what the dead one held comes back."""
    async with board(tmp_path / "workspace") as tasks:
        made = [Order(id="", name="", title=f"Task {n}", deliverable=Deliverable.ANSWER) for n in range(1000)]
        made = await tasks.floor.orders.create(made)
        with crews() as running:
            victim = Crew(tmp_path, "worker-0", workers=17, longest_s=TURN_S)  # it has something in its hands, always
            others = [Crew(tmp_path, f"worker-{n}", workers=w) for n, w in enumerate((17, 16), 1)]
            running += [victim, *others]
            await until(lambda: len(victim.lines()) > 50)
            await asyncio.to_thread(victim.kill)
            done = await all_are(tasks, "completed", 1000)
            codes = [await asyncio.to_thread(crew.end) for crew in others]
            ends = [crew.lines()[-1] for crew in others]
        assert {task.id for task in done} == {order.id for order in made}
        events = [event async for _, event in tasks.floor.store.read()]
    ended = Counter(event.order_id for event in events if event.event_type == "agent.stopped")
    claims = Counter((e.order_id, e.data["generation"]) for e in events if e.event_type == "work_order.assigned")
    assert set(ended.values()) == {1}
    assert set(claims.values()) == {1}
    assert sum(task.lost for task in done) > 0, "it was killed with something in its hands"
    assert len({task.assignee for task in done}) == 50
    assert codes == [0, 0]
    assert ends == [{"sessions": 0, "tasks": 0}] * 2
