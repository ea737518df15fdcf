"""The scripted agent that comes along: deterministic, without a model, for tests and demonstrations."""

from __future__ import annotations

import sys
from pathlib import Path

from shopfloor.agents.jsonlines import JsonLinesAgent
from shopfloor.ports import Profile

PROGRAM = Path(__file__).parents[1] / "testing" / "scripted_agent.py"
"""Run as a file, so that nothing in a workspace can take its place and no package has to be found."""


class ScriptedAgent(JsonLinesAgent):
    """Runs the scripted agent, or the profile's command where it has one."""

    driver = "scripted"

    def command(self, profile: Profile) -> tuple[str, ...]:
        """The interpreter that runs us, isolated from the workspace."""
        return profile.command or (sys.executable, "-I", "-S", str(PROGRAM))
