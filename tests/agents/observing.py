"""Which agents are observed, by which drivers, and how a run that observes one is made."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec

from shopfloor._version import __version__
from shopfloor.agents import DRIVERS
from shopfloor.agents.observed import Observed
from shopfloor.ports import Profile
from tests.agents.lab import Lab
from tests.agents.observer import Seen, Task
from tests.agents.recipes import WAITS
from tools.agents import agent

OBSERVER = Path(__file__).with_name("observer.py")
SECONDS = 800


@dataclass(frozen=True)
class Subject:
    """One agent, by one driver."""

    driver: str
    preset: str
    agent: str
    """in ``tools/agents.py``; empty: it comes with us"""
    program: str
    model: str = ""
    env: dict[str, str] = field(default_factory=dict)
    refused: str = "refused"
    """the script in which it asks whether it may"""
    own_version: str = ""
    """of its program, where that is not the agent itself"""

    @property
    def name(self) -> str:
        """For people, and for tests."""
        return "-".join(filter(None, [self.driver, self.preset, self.version]))

    @property
    def version(self) -> str:
        """Of its program."""
        return self.own_version or (agent(self.agent).version if self.agent else __version__)

    @property
    def key(self) -> tuple[str, str, str, str]:
        """What names its row."""
        return self.driver, self.preset, self.program, self.version

    def row(self, seen: Seen, date: str) -> Observed:
        """What is written down of it."""
        return Observed(
            driver=self.driver, preset=self.preset, program=self.program, version=self.version, date=date,
            model=self.model, capabilities=seen.observed,
        )  # fmt: skip


ROOT_MAY = {"IS_SANDBOX": "1"}
"""for Claude Code, which else refuses to let root skip permissions"""

ALL = (
    Subject("acp", "claude", "claude-acp", "claude-agent-acp", env=ROOT_MAY),
    # What its sandbox forbids it does not ask for; and for newer models it hides the tools of servers.
    Subject("acp", "codex", "codex", "codex-acp", model="gpt-5", refused="refused-tool", own_version="2.6.0"),
    Subject("acp", "gemini", "gemini", "gemini", model="gemini-2.5-flash"),
    Subject("acp", "goose", "goose", "goose"),
    Subject("acp", "opencode", "opencode", "opencode"),
    Subject("claude_code", "", "claude", "claude", env=ROOT_MAY),
    Subject("claude_code", "", "claude-old", "claude", env=ROOT_MAY),
    Subject("mini", "mini", "mini", "mini", model="openai/gpt-4o"),
    Subject("muscle", "", "", "shopfloor", model="openai/gpt-5"),
)
SUBJECTS = tuple(subject for subject in ALL if subject.driver in DRIVERS)

_SHORT = "import time; time.sleep(4)"
_ENDS = {"say": "THOUGHT: finished.", "bash": "echo COMPLETE_TASK_AND_SUBMIT_FINAL_OUTPUT"}
"""one agent ends by this; for the others it is one more command"""

SCRIPTS: dict[str, list[dict[str, Any]]] = {
    "seen": [
        {"say": "THOUGHT: write.", "bash": "echo seen > a.txt && git add -A && git commit -qm seen"},
        _ENDS,
        {"text": "Done."},
    ],
    "again": [_ENDS, {"text": "Done again."}],
    "refused": [{"bash": "echo no > a.txt"}, {"text": "It was refused."}],
    "refused-tool": [{"call": {"name": "take_note", "input": {"text": "no"}}}, {"text": "It was refused."}],
    "busy": [{"bash": f"python3 -c '{_SHORT}'"}, {"text": "Done."}, {"text": "Done."}],
    "hangs": [{"bash": f"python3 -c '{WAITS}'"}, {"text": "It ended."}],
}


def observe(lab: Lab, subject: Subject) -> Seen:
    """What an agent is seen to do, where there is no way out. The lab keeps whole requests, and has our scripts."""
    profile = Profile(name="seen", driver=subject.driver, preset=subject.preset, model=subject.model, env=subject.env)
    folder = lab.folder / "seen"
    folder.mkdir()
    env = {**lab.variables("seen", agent(subject.agent) if subject.agent else None), "LANG": "C.UTF-8", **subject.env}
    task = Task(profile=profile, url=lab.url, log=str(lab.log), folder=str(folder), env=env, refused=subject.refused)
    done = subprocess.run(
        [*lab.inside, sys.executable, str(OBSERVER)], input=msgspec.json.encode(task), env=lab.env, cwd=folder,
        capture_output=True, check=False, timeout=SECONDS,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr.decode()[-3000:]
    return msgspec.json.decode(done.stdout, type=Seen)
