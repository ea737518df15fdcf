"""The scripted agent that comes along: deterministic, without a model, for tests and demonstrations."""

from __future__ import annotations

import sys
from pathlib import Path

import msgspec

from shopfloor.agents.jsonlines import JsonLinesAgent
from shopfloor.ports import Capabilities, Handle, Launch, Profile

PROGRAM = Path(__file__).parents[1] / "testing" / "scripted_agent.py"
"""Run as a file, so that nothing in a workspace can take its place and no package has to be found."""


class ScriptedAgent(JsonLinesAgent):
    """Runs the scripted agent, or the profile's command where it has one."""

    driver = "scripted"
    capabilities = Capabilities(cost=True, tokens=True, resume=True, gateway=True)

    async def start(self, launch: Launch) -> Handle:
        """As every program, told by its environment which session it goes on with, and where its models are."""
        told = {"SCRIPTED_SESSION": launch.session} if launch.session else {}
        if launch.route is not None:
            told |= {"SCRIPTED_MODEL_URL": launch.route.url, "SCRIPTED_MODEL_KEY": launch.route.token}
        return await super().start(msgspec.structs.replace(launch, env={**launch.env, **told}))

    def command(self, profile: Profile) -> tuple[str, ...]:
        """The interpreter that runs us, isolated from the workspace."""
        return profile.command or (sys.executable, "-I", "-S", str(PROGRAM))
