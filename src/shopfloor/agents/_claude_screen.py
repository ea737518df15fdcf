"""Claude Code in a terminal: no dialog before its prompt, and hooks that say what it does.

Everything it needs lies in the attempt's folder, never in the repository. With a key or a gateway it gets a
configuration of its own there; without, it is somebody's own login and stays where that is.
"""

from __future__ import annotations

import json
import os
import re
import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from shopfloor.agents._process import write_private
from shopfloor.agents._screen import HOOKS
from shopfloor.ports import Launch

PROGRAM = "claude"
HOOK_S = 10
_KEYS = ("ANTHROPIC_API_KEY", "ANTHROPIC_AUTH_TOKEN", "CLAUDE_CODE_OAUTH_TOKEN")
_QUIET = (
    *("CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC", "DISABLE_TELEMETRY", "DISABLE_ERROR_REPORTING"),
    *("DISABLE_AUTOUPDATER", "CLAUDE_CODE_DISABLE_OFFICIAL_MARKETPLACE_AUTOINSTALL"),
    "CLAUDE_CODE_SANDBOXED",  # it does not ask whether the folder is trusted: whoever starts it here has decided
)
_PERMISSIONS = {
    "allow": ["--dangerously-skip-permissions"],
    "deny": ["--permission-mode", "dontAsk"],
    "ask": ["--permission-mode", "default"],  # newer versions call it manual, and still know this name
}
_KEY_TAIL = 20
"""characters by which it remembers that a key was accepted"""


def environment(launch: Launch) -> dict[str, str]:
    """The given one, and what keeps it quiet and takes it to its models."""
    env = {**dict.fromkeys(_QUIET, "1"), **launch.env}
    if launch.route is not None:
        env |= {"ANTHROPIC_BASE_URL": launch.route.url, "ANTHROPIC_AUTH_TOKEN": launch.route.token}
        env.pop("ANTHROPIC_API_KEY", None)
    if any(name in env for name in _KEYS):
        env.setdefault("CLAUDE_CONFIG_DIR", str(Path(launch.directory) / "claude"))
    if launch.profile.permissions == "allow" and os.geteuid() == 0:
        env.setdefault("IS_SANDBOX", "1")  # as root it refuses otherwise to work without asking
    return env


def arguments(launch: Launch) -> tuple[str, ...]:
    """Its words, but for the prompt, which is typed."""
    folder, profile = Path(launch.directory), launch.profile
    words = ["--settings", str(folder / "settings.json")]
    if profile.model:
        words += ["--model", profile.model]
    words += _PERMISSIONS[profile.permissions]
    if launch.servers:
        words += ["--mcp-config", str(folder / "mcp.json"), "--strict-mcp-config"]
    if launch.session:
        words += ["--resume", launch.session]
    return tuple(words)


def prepare(launch: Launch, hook: Sequence[str]) -> None:
    """Write its files. ``hook`` is the command that notes a hook. Raises OSError."""
    folder = Path(launch.directory)
    command = {"type": "command", "command": f"exec {shlex.join(hook)}", "timeout": HOOK_S}
    settings = {"hooks": {name: [{"hooks": [command]}] for name in HOOKS}, "skipDangerousModePermissionPrompt": True}
    write_private(folder / "settings.json", json.dumps(settings))
    if launch.servers:
        servers = {
            s.name: {"command": s.command[0], "args": list(s.command[1:]), "env": s.env, "alwaysLoad": True}
            for s in launch.servers
        }
        write_private(folder / "mcp.json", json.dumps({"mcpServers": servers}))
    env = environment(launch)
    config = folder / "claude"
    if env.get("CLAUDE_CONFIG_DIR") == str(config):
        config.mkdir(mode=0o700, exist_ok=True)
        trust = {"hasTrustDialogAccepted": True, "hasCompletedProjectOnboarding": True}
        known: dict[str, Any] = {
            "hasCompletedOnboarding": True, "theme": "dark", "bypassPermissionsModeAccepted": True,
            "projects": {launch.workspace: trust},
        }  # fmt: skip
        if key := env.get("ANTHROPIC_API_KEY"):
            known["customApiKeyResponses"] = {"approved": [key[-_KEY_TAIL:]], "rejected": []}
        write_private(config / ".claude.json", json.dumps(known))
        if launch.session:
            _bring_session(launch, config)


def _bring_session(launch: Launch, config: Path) -> None:
    """Copy the session of an earlier attempt to where it is looked for now: by the name of the workspace."""
    target = config / "projects" / re.sub(r"[^A-Za-z0-9]", "-", launch.workspace)
    attempts = Path(launch.directory).parent
    for found in attempts.glob(f"{launch.order.id}.a*/claude/projects/*/{launch.session}.jsonl"):
        target.mkdir(parents=True, exist_ok=True)
        (target / found.name).write_bytes(found.read_bytes())
        return
