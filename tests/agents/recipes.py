"""What each agent needs to work without a network and without asking: variables, a file of settings, a command line."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from tests.agents.lab import Lab
from tools.agents import agent

KEY = "throw-away"


@dataclass(frozen=True)
class Recipe:
    """One command line of one agent."""

    agent: str
    command: tuple[str, ...]
    """as the plain command that it is without a driver; the prompt is stdin or ``{prompt}``"""
    env: Callable[[Lab], dict[str, str]] = field(default=lambda lab: {})
    script: str = "edit"


def claude(lab: Lab) -> dict[str, str]:
    return {
        "ANTHROPIC_BASE_URL": lab.url,
        "ANTHROPIC_AUTH_TOKEN": KEY,
        "CLAUDE_CONFIG_DIR": str(lab.home("claude")),
        "CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC": "1",
        "CLAUDE_CODE_DISABLE_OFFICIAL_MARKETPLACE_AUTOINSTALL": "1",
        "CLAUDE_CODE_MAX_RETRIES": "1",
        "DISABLE_AUTOUPDATER": "1",
        "DISABLE_ERROR_REPORTING": "1",
        "DISABLE_TELEMETRY": "1",
        "IS_SANDBOX": "1",
    }


def codex(lab: Lab) -> dict[str, str]:
    home = lab.home("codex")
    (home / "config.toml").write_text(f"""
model = "gpt-5"
model_provider = "scripted"
approval_policy = "never"
check_for_update_on_startup = false
[analytics]
enabled = false
[model_providers.scripted]
name = "scripted"
base_url = "{lab.url}/v1"
env_key = "SCRIPTED_API_KEY"
wire_api = "responses"
request_max_retries = 1
stream_max_retries = 1
stream_idle_timeout_ms = 5000
""")
    return {"CODEX_HOME": str(home), "SCRIPTED_API_KEY": KEY}


def gemini(lab: Lab) -> dict[str, str]:
    settings = {
        "security": {"auth": {"selectedType": "gemini-api-key"}, "folderTrust": {"enabled": False}},
        "privacy": {"usageStatisticsEnabled": False},
        "telemetry": {"enabled": False},
        "general": {"enableAutoUpdate": False},
    }
    folder = lab.home("gemini") / ".gemini"
    folder.mkdir(exist_ok=True)
    (folder / "settings.json").write_text(json.dumps(settings))
    return {"GEMINI_API_KEY": KEY, "GOOGLE_GEMINI_BASE_URL": lab.url, "GEMINI_CLI_NO_RELAUNCH": "true"}


def goose(lab: Lab) -> dict[str, str]:
    return {
        "GOOSE_PROVIDER": "openai",
        "GOOSE_MODEL": "scripted",
        "GOOSE_MODE": "auto",
        "GOOSE_DISABLE_KEYRING": "1",
        "GOOSE_TELEMETRY_ENABLED": "false",
        "GOOSE_DISABLE_SESSION_NAMING": "true",
        "OPENAI_HOST": lab.url,
        "OPENAI_API_KEY": KEY,
    }


def goose_by_driver(lab: Lab) -> dict[str, str]:
    """Its mode is the driver's to set."""
    return {name: value for name, value in goose(lab).items() if name != "GOOSE_MODE"}


def opencode(lab: Lab) -> dict[str, str]:
    model = {"name": "scripted", "limit": {"context": 200000, "output": 8000}, "cost": {"input": 3, "output": 15}}
    provider = {
        "npm": "@ai-sdk/openai-compatible",
        "name": "scripted",
        "options": {"baseURL": f"{lab.url}/v1", "apiKey": KEY},
        "models": {"scripted": {**model, "tool_call": True}},
    }
    settings = {
        "autoupdate": False,
        "share": "disabled",
        "model": "scripted/scripted",
        "small_model": "scripted/scripted",
        "provider": {"scripted": provider},
        "permission": {"edit": "allow", "bash": "allow", "external_directory": "allow", "webfetch": "deny"},
    }
    file = lab.home("opencode") / "settings.json"
    file.write_text(json.dumps(settings))
    return {
        "OPENCODE_CONFIG": str(file),
        "OPENCODE_DISABLE_AUTOUPDATE": "1",
        "OPENCODE_DISABLE_MODELS_FETCH": "1",
        "OPENCODE_DISABLE_LSP_DOWNLOAD": "1",
        "OPENCODE_DISABLE_DEFAULT_PLUGINS": "1",
    }


def mini(lab: Lab) -> dict[str, str]:
    return {
        "MSWEA_CONFIGURED": "true",
        "MSWEA_GLOBAL_CONFIG_DIR": str(lab.home("mini")),
        "MSWEA_COST_TRACKING": "ignore_errors",
        "MSWEA_SILENT_STARTUP": "1",
        "MSWEA_MODEL_RETRY_STOP_AFTER_ATTEMPT": "2",
        "LITELLM_LOCAL_MODEL_COST_MAP": "True",
        "OPENAI_API_BASE": f"{lab.url}/v1",
        "OPENAI_API_KEY": KEY,
    }


def aider(lab: Lab) -> dict[str, str]:
    return {"OPENAI_API_BASE": f"{lab.url}/v1", "OPENAI_API_KEY": KEY}


def muscle(lab: Lab) -> dict[str, str]:
    return {"MINI_API_BASE": f"{lab.url}/v1", "MINI_API_KEY": KEY}


_CLAUDE = ("claude", "-p", "--output-format", "stream-json", "--verbose", "--permission-mode", "bypassPermissions")

RECIPES: dict[str, Recipe] = {
    "claude": Recipe("claude", _CLAUDE, claude),
    "claude-old": Recipe("claude-old", _CLAUDE, claude),
    "codex": Recipe(
        "codex",
        ("codex", "exec", "--json", "--dangerously-bypass-approvals-and-sandbox", "--disable", "plugins", "-"),
        codex,
    ),
    "gemini": Recipe(
        "gemini",
        *(("gemini", "-m", "gemini-2.5-flash", "--approval-mode", "yolo", "-p", "{prompt}"), gemini),
    ),
    "goose": Recipe("goose", ("goose", "run", "--with-builtin", "developer", "--no-session", "-t", "{prompt}"), goose),
    "mini": Recipe(
        "mini",
        (
            "mini",
            "-m",
            "openai/scripted",
            "-y",
            "--exit-immediately",
            "-o",
            "{workspace}/../mini.json",
            "-t",
            "{prompt}",
        ),
        mini,
        "mini",
    ),
    "opencode": Recipe("opencode", ("opencode", "run", "{prompt}"), opencode),
}

AIDER_WRITES = "{file}\n```\n<<<<<<< SEARCH\n=======\n\nmade by {file}\n>>>>>>> REPLACE\n```\n"
"""What a model says to one without tools, so that it writes a file; a first line that ends in its name is lost."""

WAITS = "import time; time.sleep(300)"
"""what the command does that an agent is killed in: some refuse to only sleep"""

_COMMITS = "echo 'made by {file}' > {file} && git add -A && git commit -qm 'add {file}'"
_SUBMITS = {"say": "THOUGHT: finished.", "bash": "echo COMPLETE_TASK_AND_SUBMIT_FINAL_OUTPUT"}

SCRIPTS: dict[str, list[dict[str, Any]]] = {
    "edit": [
        {"say": "I write it.", "write": {"path": "{cwd}/{file}", "content": "made by {file}\n"}},
        {"bash": "git add -A && git commit -qm 'add {file}' && git log --oneline | head -1"},
        {"text": "Done: {file} is written and committed."},
    ],
    # A command that goes on for ever, the first time.
    "once": [
        {"bash": "echo partial > partial.txt"},
        {"bash": f"mkdir {{once}} && python3 -c '{WAITS}'; true"},
        {"bash": "rm partial.txt; echo 'made by {file}' > {file}; git add -A; git commit -qm 'add {file}'"},
        {"text": "Done: {file} is written and committed."},
    ],
    # It has one tool, and ends by what a command prints.
    "mini": [
        {"say": "THOUGHT: write it.", "bash": _COMMITS},
        _SUBMITS,
    ],
    "once-mini": [
        {"say": "THOUGHT: begin.", "bash": "echo partial > partial.txt"},
        {"say": "THOUGHT: wait.", "bash": f"mkdir {{once}} && python3 -c '{WAITS}'; true"},
        {"say": "THOUGHT: write it.", "bash": f"rm partial.txt; {_COMMITS}"},
        _SUBMITS,
    ],
    # It has no tools.
    "aider": [{"text": AIDER_WRITES}],
}


@dataclass(frozen=True)
class Driven:
    """One agent by a driver of its own."""

    agent: str
    """in ``tools/agents.py``; empty: it comes with us"""
    driver: str
    env: Callable[[Lab], dict[str, str]]
    preset: str = ""
    model: str = ""
    script: str = "edit"
    once: str = "once"
    """the script in which it waits for ever, the first time"""
    tools: bool = True
    resumes: bool = False


DRIVEN: dict[str, Driven] = {
    "claude": Driven("claude", "claude_code", claude, resumes=True),
    "claude-old": Driven("claude-old", "claude_code", claude, resumes=True),
    "claude-acp": Driven("claude-acp", "acp", claude, "claude", resumes=True),
    "codex-acp": Driven("codex", "acp", codex, "codex", resumes=True),
    "gemini-acp": Driven("gemini", "acp", gemini, "gemini", "gemini-2.5-flash"),
    "goose-acp": Driven("goose", "acp", goose_by_driver, "goose", resumes=True),
    "opencode-acp": Driven("opencode", "acp", opencode, "opencode"),
    "mini": Driven("mini", "mini", mini, "mini", "openai/scripted", "mini", "once-mini"),
    "muscle": Driven("", "muscle", muscle, "", "openai/scripted"),
    "aider": Driven("aider", "command", aider, "aider", "openai/gpt-4o", "aider", tools=False),
}


def driven(lab: Lab, name: str, *, env: dict[str, str] | None = None, **more: str) -> None:
    """Add an agent by its driver; ``env`` in place of what leads it to the model directly."""
    one = DRIVEN[name]
    profile = {"driver": one.driver, "preset": one.preset, "model": one.model, **more}
    wanted = agent(one.agent) if one.agent else None
    lab.add(name, wanted, one.env(lab) if env is None else env, **{key: word for key, word in profile.items() if word})


def plain(lab: Lab, name: str) -> None:
    """Add the agent of a recipe as a plain command."""
    recipe = RECIPES[name]
    lab.add(name, agent(recipe.agent), recipe.env(lab), driver="command", command=list(recipe.command))


def works_and_lands(lab: Lab, name: str, script: str, *, tools: bool = True) -> None:
    """One order by one agent: done by its script step by step, with the key it was given, checked, landed.

    Who asks without ``tools`` makes titles, unless it has none.
    """
    lab.settle(check="test ! -e bad.txt")
    said = lab("run", lab.scripted("one", script, file="a.txt"), "--agent", name, "--json")
    assert said.code == 0, (said, lab("log", "one"))
    assert said.json["counts"]["landed"] == 1
    assert lab.git("show", "main:a.txt") == "made by a.txt"
    steps = [request.step for request in lab.requests(script) if request.tools or not tools]
    # One without tools asks a second time, for the message of its commit, and shows what was said.
    assert steps == (list(range(len(steps))) if tools else [0, 0])
    assert len(steps) >= 2
    assert {request.credential for request in lab.requests(script)} == {f"…{KEY[-6:]}"}
    assert lab.processes() == []
