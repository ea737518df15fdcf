"""The foreman's usage block over sessions of ``amplifier-core`` itself, where that is installed.

Its kernel, loader, coordinator and hooks are the real ones; the modules that it loads, and the model, are written here.
"""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from amplifier_orchestrator_foreman_worker import ForemanWorkerOrchestrator, WorkerConfig
from shopfloor import Shopfloor
from shopfloor.faces.foreman.tasks import Tasks

core: Any = pytest.importorskip("amplifier_core", reason="amplifier-core is not installed: pip install amplifier-core")

CONTEXT = """
class Context:
    def __init__(self):
        self.messages = []
    async def add_message(self, message):
        self.messages.append(message)
    async def get_messages(self):
        return list(self.messages)
    async def get_messages_for_request(self, token_budget=None, provider=None):
        return list(self.messages)
    async def set_messages(self, messages):
        self.messages = list(messages)
    async def clear(self):
        self.messages.clear()
__amplifier_module_type__ = "context"
async def mount(coordinator, config=None):
    await coordinator.mount("context", Context())
"""
LOOP = """
import json
from pathlib import Path
class Loop:
    async def execute(self, prompt, context, providers, tools, hooks, coordinator=None, **more):
        system = "\\n".join(m["content"] for m in await context.get_messages() if m["role"] == "system")
        await context.add_message({"role": "user", "content": prompt})
        said = {"prompt": prompt, "system": system, "tools": sorted(tools), "providers": sorted(providers),
                "folder": coordinator.get_capability("session.working_dir")}
        with Path("LOG").open("a") as log:
            log.write(json.dumps(said) + "\\n")
        if prompt.startswith("Issue "):
            return "built it"
        call = {"operation": "create", "title": prompt, "metadata": {"category": "coding"}}
        result = await tools["issue_manager"].execute(call)
        assert result.success, result
        return "I have asked the crew: " + json.loads(result.get_serialized_output())["issue"]["title"]
__amplifier_module_type__ = "orchestrator"
async def mount(coordinator, config=None):
    await coordinator.mount("orchestrator", Loop())
"""
PROVIDER = """
from amplifier_core import ProviderInfo
class Provider:
    name = "anthropic"
    def __init__(self, config):
        self.config = config
    def get_info(self):
        return ProviderInfo(id="anthropic", display_name="scripted")
    async def list_models(self):
        return []
    async def complete(self, request, **more):
        raise AssertionError("nobody asks the model here")
    def parse_tool_calls(self, response):
        return []
__amplifier_module_type__ = "provider"
async def mount(coordinator, config=None):
    await coordinator.mount("providers", Provider(config), name="anthropic")
"""
BASH = """
from amplifier_core import ToolResult
class Bash:
    name, description, input_schema = "bash", "runs a command", {"type": "object", "properties": {}}
    async def execute(self, input):
        return ToolResult(success=True, output="")
__amplifier_module_type__ = "tool"
async def mount(coordinator, config=None):
    await coordinator.mount("tools", Bash(), name="bash")
"""
FOREMAN = {"system_prompt": "You are the foreman of this shop.", "provider": "anthropic", "model": "claude-x",
           "tools": ["bash", "issue"]}  # fmt: skip
WORKER = {"system_prompt": "You write code.", "provider": "anthropic", "model": "claude-x", "tools": ["bash"]}


@pytest.fixture
def modules(tmp_path: Path) -> Iterator[Path]:
    folder, log = tmp_path / "modules", tmp_path / "said.jsonl"
    texts = {"loop-streaming": LOOP.replace("LOG", str(log)), "context-simple": CONTEXT,
             "provider-anthropic": PROVIDER, "tool-bash": BASH}  # fmt: skip
    for name, text in texts.items():
        package = folder / f"amplifier-module-{name}" / f"amplifier_module_{name.replace('-', '_')}"
        package.mkdir(parents=True)
        (package / "__init__.py").write_text(text)
    path = list(sys.path)
    sys.path += map(str, folder.iterdir())  # as installed ones are: the kernel imports them
    yield folder
    sys.path[:] = path
    for name in [name for name in sys.modules if name.startswith("amplifier_module_")]:
        del sys.modules[name]


async def test_the_usage_block_over_sessions_of_amplifier_core(tmp_path: Path, modules: Path) -> None:
    plans, workspace = tmp_path / "plans", tmp_path / "workspace"
    for folder in (plans, workspace):
        folder.mkdir()
    (plans / "foreman.json").write_text(json.dumps({"mounts": FOREMAN}))
    (plans / "coding-worker.json").write_text(json.dumps({"mounts": WORKER}))
    loader = core.ModuleLoader(search_paths=[modules])
    async with (
        ForemanWorkerOrchestrator(
            loader=loader,
            mount_plans_dir=plans,
            foreman_profile="foreman",
            worker_configs=[WorkerConfig(profile="coding-worker", count=2)],
            workspace_root=workspace,
        ) as orchestrator,
        Shopfloor.open(workspace, without_git=True) as floor,
    ):
        tasks = Tasks(floor, "looker")
        assert await orchestrator.execute_user_message("Build a door") == "I have asked the crew: Build a door"
        assert isinstance(orchestrator.foreman_session, core.AmplifierSession)

        position = 0
        async with asyncio.timeout(20):
            while [task.status for task in await tasks.all()] != ["completed"]:
                position = await tasks.changed(position, 1.0)
        [task] = await tasks.all()
        assert (task.title, task.result) == ("Build a door", "built it")
        assert task.assignee.startswith("coding-worker-")
        ids = {orchestrator.foreman_session.session_id, *orchestrator.worker_session_ids.values()}
        assert len(ids) == 3
    said = [json.loads(line) for line in (tmp_path / "said.jsonl").read_text().splitlines()]
    foreman, worker = said
    assert foreman["tools"] == ["bash", "issue_manager"]
    assert (foreman["providers"], foreman["folder"]) == (["anthropic"], str(workspace.resolve()))
    assert FOREMAN["system_prompt"] in foreman["system"]
    assert "You are the Foreman of a crew" in foreman["system"]
    assert WORKER["system_prompt"] in worker["system"]
    assert worker["prompt"].startswith(f"Issue {task.id}")
    assert worker["folder"] == str(workspace.resolve())
