"""Agents that speak the Agent Client Protocol on stdin and stdout: codex, gemini, opencode, goose, claude and others.

``preset`` names one of them; without one, ``command`` starts any agent of that kind. The types of the protocol come
from its official package, the extra ``acp``; the process is ours, so that nothing of it outlives us.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from importlib import import_module
from importlib.util import find_spec

import msgspec

from shopfloor.agents._acp_presets import PRESETS, Preset, environment
from shopfloor.agents._process import ProcessAgent, find_program
from shopfloor.agents._run import Reader
from shopfloor.domain.errors import Refused
from shopfloor.ports import Handle, Launch, Probe, Profile

MISSING = "the package 'agent-client-protocol' is not installed"
INSTALL = "pip install 'shopfloor[acp]'"
HELLO_S = 60.0
"""for each step until the prompt is sent; an MCP server that stays mute holds up the session"""


class AcpAgent(ProcessAgent):
    """Starts the agent, and speaks the protocol with it."""

    driver = "acp"
    polite_s = 5.0  # the slowest takes two seconds to cancel a turn on a machine at work
    hello_s = HELLO_S

    def command(self, profile: Profile) -> tuple[str, ...]:
        """The profile's, or that of its preset."""
        return profile.command or _preset(profile).command

    def arguments(self, launch: Launch) -> tuple[str, ...]:
        """The model, for an agent that takes it as an argument."""
        model = launch.profile.model
        return tuple(word.replace("{model}", model) for word in _preset(launch.profile).model_args) if model else ()

    def environment(self, launch: Launch) -> Mapping[str, str]:
        """That of the launch, with what the preset needs and what leads to the route."""
        return environment(_preset(launch.profile), launch)

    def reader(self, launch: Launch) -> Reader:
        """The talk of this attempt."""
        from shopfloor.agents._acp_talk import Talk

        path = launch.env.get("PATH", self._path)
        servers = []
        for server in launch.servers:  # the protocol wants absolute paths
            program = find_program(server.command[0], path, self._root)
            command = (program or server.command[0], *server.command[1:])
            servers.append(msgspec.structs.replace(server, command=command))
        launch = msgspec.structs.replace(launch, servers=tuple(servers))
        return Talk(launch, _preset(launch.profile), wall=self._wall, hello_s=self.hello_s)

    async def probe(self, profile: Profile) -> Probe:
        """Look for the package and the program; nothing is run."""
        if profile.preset not in PRESETS:
            return Probe(found=False, problem=_unknown(profile), hint=_choose(profile))
        if find_spec("acp") is None:
            return Probe(found=False, problem=MISSING, hint=INSTALL)
        probe = await super().probe(profile)
        preset = _preset(profile)
        if not probe.found:
            hint = f"{preset.install}; or {probe.hint}" if preset.install and not profile.command else probe.hint
            return msgspec.structs.replace(probe, hint=hint)
        return msgspec.structs.replace(probe, capabilities=preset.capabilities)

    async def start(self, launch: Launch) -> Handle:
        """As every program. Raises Refused without the package, and for a preset that is not known."""
        if launch.profile.preset not in PRESETS:
            raise Refused(_unknown(launch.profile), hint=_choose(launch.profile))
        if find_spec("acp") is None:
            raise Refused(f"agent {launch.profile.name!r} cannot be started: {MISSING}", hint=INSTALL)
        # Half a second of imports, once, that nobody else has to wait for.
        await asyncio.to_thread(import_module, "shopfloor.agents._acp_talk")
        return await super().start(launch)


def _preset(profile: Profile) -> Preset:
    return PRESETS.get(profile.preset, PRESETS[""])


def _unknown(profile: Profile) -> str:
    return f"agent {profile.name!r}: driver 'acp' knows no preset {profile.preset!r}"


def _choose(profile: Profile) -> str:
    known = ", ".join(sorted(filter(None, PRESETS)))
    return f"choose one of {known}, or none and a command, under [agents.{profile.name}]"
