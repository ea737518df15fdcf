"""Presets: what an agent that is known by name is typed, finds in its environment, and leaves in the repository."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from shopfloor.agents._preset import LONGEST_TASK, PresetAgent
from shopfloor.agents.command import CommandAgent
from shopfloor.agents.jsonlines import JsonLinesAgent
from shopfloor.agents.mini import MiniAgent
from shopfloor.agents.presets import PRESETS
from shopfloor.domain.errors import Refused
from shopfloor.domain.order import Order
from shopfloor.ports import Launch, Profile, Route
from shopfloor.spawn import Guard

AGENTS: dict[str, type[PresetAgent]] = {"command": CommandAgent, "jsonlines": JsonLinesAgent, "mini": MiniAgent}
SHOWS = """
import json, os, sys
found = {"argv": sys.argv[1:], "env": dict(os.environ), "cwd": os.getcwd(), "stdin": sys.stdin.read()}
last = [word.rpartition(" ")[2] for word in sys.argv]
files = [word for word in last if word.endswith((".yaml", "prompt.md")) and os.path.isabs(word)]
found["files"] = {file: open(file, encoding="utf-8").read() for file in files}
json.dump(found, open(os.environ["SHOWN"], "w"))
"""
SECRET = "sk-integration-0123"


async def shown(folder: Path, profile: Profile, **changes: Any) -> dict[str, Any]:
    """What the program of this profile finds."""
    workspace = folder / "workspace"
    workspace.mkdir(exist_ok=True)
    command = profile.command or (sys.executable, "-I", "-c", SHOWS)
    values: dict[str, Any] = {
        "order": Order(id="wo-abc", name="n", title="A title"),
        "attempt": "wo-abc.a1",
        "profile": Profile(**{**{f: getattr(profile, f) for f in Profile.__struct_fields__}, "command": command}),
        "prompt": "the prompt {workspace}\n",
        "workspace": str(workspace),
        "branch": "shopfloor/n-abc",
        "directory": str(folder / "attempt"),
        "env": {"PATH": os.environ["PATH"], "SHOWN": str(folder / "shown"), **profile.env},
        "secrets": (SECRET,),
    }
    async with Guard() as guard:
        agent = AGENTS[profile.driver](guard)
        handle = await agent.start(Launch(**{**values, **changes}))
        async for _ in agent.follow(handle):
            pass
    found: dict[str, Any] = json.loads((folder / "shown").read_text())
    return found


def option(argv: list[str], name: str) -> str:
    return argv[argv.index(name) + 1]


ROUTE = Route(url="http://127.0.0.1:4711/w/x", token="tok-0123456789")


async def test_gocore_is_started_as_it_wants(tmp_path: Path) -> None:
    profile = Profile(
        name="g", driver="jsonlines", preset="gocore", model="anthropic/m", args=("-c", "x.yaml"),
        env={"task": "breaks its templates", "output": "too"},
    )  # fmt: skip
    found = await shown(tmp_path, profile, route=ROUTE, budget_usd=5.0)
    argv, env = found["argv"], found["env"]
    assert "--headless" in argv
    assert (argv[-2:], argv.count("-c")) == (["-c", "x.yaml"], 1)
    assert {name: option(argv, name) for name in ("--model", "--task", "--cost-limit", "--output")} == {
        "--model": "anthropic/m",
        "--task": "the prompt {workspace}\n",
        "--cost-limit": "5",
        "--output": str(tmp_path / "attempt" / "trajectory.json"),
    }
    seed = ("MINI_API_BASE", "MINI_API_KEY", "MINI_WORKDIR", "MINI_HEADLESS", "ANTHROPIC_API_KEY")
    assert {name: env[name] for name in seed} == {
        "MINI_API_BASE": ROUTE.url,
        "MINI_API_KEY": ROUTE.token,
        "MINI_WORKDIR": found["cwd"],
        "MINI_HEADLESS": "true",
        "ANTHROPIC_API_KEY": "sk-dummy",
    }
    assert not {"task", "output"} & env.keys()
    assert (found["stdin"], found["cwd"]) == ("", str(tmp_path / "workspace"))


async def test_a_preset_leaves_out_what_nobody_wants(tmp_path: Path) -> None:
    profile = Profile(name="g", driver="jsonlines", preset="gocore", env={"LITELLM_LOCAL_MODEL_COST_MAP": "no"})
    found = await shown(tmp_path, profile)
    assert not {"--model", "--cost-limit"} & set(found["argv"])
    assert not {"MINI_API_BASE", "MINI_API_KEY", "ANTHROPIC_API_KEY"} & found["env"].keys()
    assert found["env"]["LITELLM_LOCAL_MODEL_COST_MAP"] == "no"


@pytest.mark.parametrize(("model", "base"), [("openai/gpt-4o", "/v1"), ("anthropic/m", ""), ("", "")])
async def test_the_dialect_of_the_model_decides_where_its_paths_begin(model: str, base: str, tmp_path: Path) -> None:
    found = await shown(tmp_path, Profile(name="g", driver="jsonlines", preset="gocore", model=model), route=ROUTE)
    assert found["env"]["MINI_API_BASE"] == ROUTE.url + base


async def test_mini_is_started_as_it_wants(tmp_path: Path) -> None:
    found = await shown(tmp_path, Profile(name="m", driver="mini", model="openai/m"), route=ROUTE, budget_usd=0.25)
    argv, env = found["argv"], found["env"]
    assert {
        name: option(argv, name) for name in ("--model", "--task", "--cost-limit", "--agent-class", "--config")
    } == {
        "--model": "openai/m",
        "--task": "the prompt {workspace}\n",
        "--cost-limit": "0.25",
        "--agent-class": "default",
        "--config": "mini.yaml",
    }
    assert (env["OPENAI_API_BASE"], env["OPENAI_API_KEY"]) == (f"{ROUTE.url}/v1", ROUTE.token)
    assert env["ANTHROPIC_API_BASE"] == ROUTE.url
    assert env["MSWEA_GLOBAL_CONFIG_DIR"] == str(tmp_path / "attempt" / "mini")
    assert found["stdin"] == ""


@pytest.mark.parametrize(("driver", "preset"), [("jsonlines", "gocore"), ("mini", "mini")])
async def test_a_long_task_goes_by_file(driver: str, preset: str, tmp_path: Path) -> None:
    prompt = "x" * LONGEST_TASK + f" {SECRET} end"
    found = await shown(tmp_path, Profile(name="g", driver=driver, preset=preset), prompt=prompt)
    assert max(map(len, found["argv"])) < 1000
    assert any(prompt in text for text in found["files"].values())
    assert found["stdin"] == ""
    left = [path for path in (tmp_path / "attempt").rglob("*") if path.is_file() and SECRET in path.read_text()]
    assert left == []


@pytest.mark.parametrize(
    ("driver", "preset", "leaves"), [("jsonlines", "gocore", ".miniswe/x"), ("command", "aider", ".aider.chat.md")]
)
async def test_what_it_leaves_behind_is_not_committed(driver: str, preset: str, leaves: str, tmp_path: Path) -> None:
    workspace = tmp_path / "workspace"
    workspace.mkdir()
    git = ["git", "-C", str(workspace)]
    subprocess.run([*git, "init", "-q"], check=True)
    await shown(tmp_path, Profile(name="a", driver=driver, preset=preset, model="m"))
    (workspace / leaves).parent.mkdir(exist_ok=True)
    (workspace / leaves).write_text("x")
    (workspace / "work.txt").write_text("x")
    said = subprocess.run([*git, "status", "--porcelain", "-uall"], check=True, capture_output=True, text=True)
    assert said.stdout == "?? work.txt\n"


async def test_aider_is_given_its_prompt_as_a_file(tmp_path: Path) -> None:
    profile = Profile(name="a", driver="command", preset="aider", model="openai/m", args=("--edit-format", "diff"))
    found = await shown(tmp_path, profile, route=ROUTE)
    argv = found["argv"]
    assert option(argv, "--message-file") == str(tmp_path / "attempt" / "prompt.md")
    assert found["files"][option(argv, "--message-file")] == "the prompt {workspace}\n"
    assert option(argv, "--model") == "openai/m"
    assert argv[-2:] == ["--edit-format", "diff"]
    assert found["env"]["OPENAI_API_BASE"] == f"{ROUTE.url}/v1"


async def test_words_behind_a_plain_command(tmp_path: Path) -> None:
    profile = Profile(name="a", command=(sys.executable, "-I", "-c", SHOWS), args=("--order", "{order}"))
    found = await shown(tmp_path, profile)
    assert (found["argv"], found["stdin"]) == (["--order", "wo-abc"], "the prompt {workspace}\n")


async def test_a_preset_that_is_not_there_is_refused_with_those_that_are(tmp_path: Path) -> None:
    async with Guard() as guard:
        seen = await CommandAgent(guard).probe(Profile(name="a", preset="aidr"))
        other = await CommandAgent(guard).probe(Profile(name="a", preset="gocore"))
    assert seen.problem == "agent 'a': preset 'aidr' is not one of those that driver 'command' has: 'aider'"
    assert seen.hint == "choose one of 'aider'"
    assert other.hint == 'write driver = "jsonlines" under [agents.a]'
    with pytest.raises(Refused, match="preset 'aidr' is not one of"):
        await shown(tmp_path, Profile(name="a", preset="aidr"))


async def test_a_missing_program_is_named_with_how_to_get_it() -> None:
    async with Guard() as guard:
        for driver, presets in PRESETS.items():
            for name, preset in presets.items():
                seen = await AGENTS[driver](guard).probe(
                    Profile(name="a", driver=driver, preset=name, env={"PATH": "/"})
                )
                assert preset.program in seen.problem
                assert preset.install in seen.hint
