"""Claude Code, by its two-way stream-json: permissions answered live, words while it works, interrupt, resume, budget.

It runs with the person's own configuration and login. Nothing is written into the repository.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Mapping
from pathlib import Path

import msgspec

from shopfloor.agents._claude_talk import Talk
from shopfloor.agents._process import ProcessAgent
from shopfloor.agents._run import Reader, Run
from shopfloor.ports import Capabilities, Launch, Probe, Profile

COMMAND = ("claude",)
INSTALL = "npm install -g @anthropic-ai/claude-code"
TALK = (
    *("-p", "--input-format", "stream-json", "--output-format", "stream-json", "--verbose"),
    *("--permission-prompt-tool", "stdio", "--replay-user-messages", "--permission-mode", "default"),
)
BYPASS = ("--dangerously-skip-permissions", "bypassPermissions", "--permission-mode=bypassPermissions")
QUIET = {
    "CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC": "1",
    "DISABLE_AUTOUPDATER": "1",
    "DISABLE_ERROR_REPORTING": "1",
    "DISABLE_TELEMETRY": "1",
}
"""It calls nobody but its model, unless the profile's ``env`` says otherwise."""
OTHER_WAYS = (
    *("ANTHROPIC_API_KEY", "CLAUDE_CODE_OAUTH_TOKEN", "CLAUDE_CODE_USE_BEDROCK", "CLAUDE_CODE_USE_VERTEX"),
    *("CLAUDE_CODE_USE_FOUNDRY", "ANTHROPIC_CUSTOM_HEADERS"),
)
"""Variables that would lead its calls past the gateway, or give it a key."""


class ClaudeCodeAgent(ProcessAgent):
    """Drives ``claude`` in both known families of versions, 2.1.197 and 2.1.329."""

    driver = "claude_code"
    capabilities = Capabilities(
        resume=True,
        interrupt=True,
        steer=True,
        permissions=True,
        mcp=True,
        cost=True,
        tokens=True,
        gateway=True,
        commits=True,
    )

    def command(self, profile: Profile) -> tuple[str, ...]:
        """The profile's, or ``claude``."""
        return profile.command or COMMAND

    def arguments(self, launch: Launch) -> tuple[str, ...]:
        """The talk, and what this attempt has of model, budget, session and MCP servers."""
        words = [*TALK, "--strict-mcp-config"]
        if launch.profile.model:
            words += ["--model", launch.profile.model]
        if launch.budget_usd is not None:
            words += ["--max-budget-usd", f"{launch.budget_usd:.6f}"]
        if launch.session:
            words += ["--resume", launch.session]
        if launch.servers:
            words += ["--mcp-config", servers(launch)]
        return tuple(words)

    def environment(self, launch: Launch) -> Mapping[str, str]:
        """That of the launch, quiet, with a folder of its own for sockets and outputs, and the way to the gateway."""
        env = {**QUIET, **launch.env, "CLAUDE_CODE_TMPDIR": str(_scratch(launch))}
        if os.geteuid() == 0 and set(BYPASS) & {*self.command(launch.profile), *launch.profile.args}:
            env.setdefault("IS_SANDBOX", "1")  # else it refuses to run as root at all
        if launch.route is not None:
            env = {name: value for name, value in env.items() if name not in OTHER_WAYS}
            env |= {"ANTHROPIC_BASE_URL": launch.route.url, "ANTHROPIC_AUTH_TOKEN": launch.route.token}
        return env

    def reader(self, launch: Launch) -> Reader:
        """The talk of this attempt."""
        return Talk(launch, wall=self._wall)

    async def probe(self, profile: Profile) -> Probe:
        """Look for the program; nothing is run."""
        probe = await super().probe(profile)
        if probe.found or profile.command:
            return probe
        return msgspec.structs.replace(probe, hint=f"{INSTALL}; or {probe.hint}")

    async def _start(self, launch: Launch) -> Run:
        run = await super()._start(launch)
        # What commands printed lies there unmasked.
        run.task.add_done_callback(lambda _: shutil.rmtree(_scratch(launch), ignore_errors=True))
        return run


def servers(launch: Launch) -> str:
    """The MCP servers as the program wants them: their tools are offered at once, not behind a search."""
    listed = {
        server.name: {
            "type": "stdio",
            "command": server.command[0],
            "args": list(server.command[1:]),
            "env": server.env,
            "alwaysLoad": True,
        }
        for server in launch.servers
    }
    return json.dumps({"mcpServers": listed})


def _scratch(launch: Launch) -> Path:
    return Path(launch.directory).absolute() / "scratch"
