"""What an agent is told to do in the conformance suite of the Agent port, and the bench it does it on."""

from __future__ import annotations

import os
import sys
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from shopfloor.domain.order import Order
from shopfloor.ports import Agent, Handle, Kind, Launch, Profile, Report
from shopfloor.spawn import Guard

SECRET = "sk-conformance-4711"
SECRET_NAME = "CONFORMANCE_API_KEY"
LAST = "hangs until it is stopped"
"""What a hanging agent says last, in a report's text or somewhere in its data."""
SCRIPTED = (sys.executable, "-I", "-S", str(Path(__file__).with_name("scripted_agent.py")))
SCRIPTED_CLAUDE = (sys.executable, "-I", str(Path(__file__).with_name("scripted_claude.py")))
TERMINAL = (sys.executable, "-I", "-S", str(Path(__file__).with_name("scripted_terminal.py")))
"""The same for a terminal: it is typed its prompt, or reads it from the file that is named"""

LONG_CHARS = 300_000
"""More than the pipes, buffers and line limits that agents are usually read with."""

BEHAVIOURS = {
    "works": "writes hello.txt ('hello\\n') into its workspace, spends 0.01 USD, and succeeds",
    "fails": "ends properly, with exit code 1",
    "crashes": "exits with code 7 at once, without last words",
    "dies": "is ended by SIGKILL",
    "silent": "says nothing at all and ends with exit code 0",
    "hangs": f"says {LAST!r} and then nothing",
    "stubborn": f"ignores SIGINT and SIGTERM, has a child in a session of its own that does too, and says {LAST!r}",
    "orphans": "starts a process in a session of its own, writes its id to orphan.pid, and succeeds",
    "binary": "prints the bytes FF FE 00 on stdout, and succeeds",
    "long line": "prints one line of 3,000,000 characters on stdout, and succeeds",
    "many lines": "prints the numbers 1 to 20000 on stdout, and succeeds",
    "tells": f"prints the value of {SECRET_NAME} on stdout and on stderr, and succeeds",
    "saves": "writes the prompt as it came to prompt.txt, and succeeds",
    "banner": "prints lines on stdout that are no events, one of them nearly, and then works",
    "long word": f"says one word of {LONG_CHARS} characters, and succeeds",
    "quits": "says something and ends with exit code 0, without a word on how it went",
}
_SCRIPTS = {
    "works": '[[do]]\nwrite = "hello.txt"\ncontent = "hello\\n"\n[[do]]\ncost = 0.01\n',
    "fails": "[[do]]\nexit = 1\n",
    "crashes": "[[do]]\ncrash = 7\n",
    "dies": '[[do]]\ncrash = "SIGKILL"\n',
    "silent": "silent = true\n[[do]]\nnothing = true\n",
    "hangs": "[[do]]\nhang = true\n",
    "stubborn": "[[do]]\nhang = true\nstubborn = true\ngrandchild = true\n",
    "orphans": '[[do]]\nrun = "setsid sleep 86400 >/dev/null 2>&1 & echo $! > orphan.pid"\n',
    "binary": "[[do]]\nrun = 'printf \"\\377\\376\\000\\n\"'\nraw = true\n",
    "long line": "[[do]]\nrun = \"head -c 3000000 /dev/zero | tr '\\\\0' x; echo\"\nraw = true\n",
    "many lines": '[[do]]\nrun = "seq 1 20000"\nraw = true\n',
    "tells": f'[[do]]\nrun = "echo ${SECRET_NAME}; echo ${SECRET_NAME} >&2"\nraw = true\n'
    f'[[do]]\nrun = "printf %s ${SECRET_NAME}"\n',
    "saves": '[[do]]\nsave_prompt = "prompt.txt"\n',
    "banner": '[[do]]\nrun = \'echo "Welcome!"; echo "{"; echo "[]"; echo "7"\'\nraw = true\n'
    '[[do]]\nwrite = "hello.txt"\ncontent = "hello\\n"\n',
    "long word": f'[[do]]\nsay = "{"x" * LONG_CHARS}"\n',
    "quits": '[[do]]\nsay = "so far"\n[[do]]\ncrash = 0\n',
}


def _told(reports: list[Report]) -> str:
    return "\n".join(f"  {r.kind} {r.status} {r.text[:200]!r} {r.exit_code}" for r in reports[-8:])


def check_end(reports: list[Report], status: str) -> Report:
    """The one EXITED at the end, with this status."""
    ends = [report for report in reports if report.kind is Kind.EXITED]
    assert len(ends) == 1, f"EXITED came {len(ends)} times:\n{_told(reports)}"
    assert reports[-1] is ends[0], f"something came after EXITED:\n{_told(reports)}"
    assert ends[0].status == status, f"status is {ends[0].status!r}, not {status!r}:\n{_told(reports)}"
    return ends[0]


def scripted_prompt(behaviour: str) -> str:
    """The behaviour as a prompt for the scripted agent."""
    return f"# {behaviour}\n\n```script\n{_SCRIPTS[behaviour]}```\n"


@dataclass(frozen=True, kw_only=True)
class Subject:
    """The driver to be held to the port."""

    make: Callable[[Guard], Agent]
    profile: Profile
    prompt: Callable[[str], str] = scripted_prompt
    success_needs_words: bool = False
    """True: an agent that says nothing has not succeeded, whatever its exit code"""
    program: bool = True
    """False: its agents are servers somewhere else, so there is no process of ours, and no exit code"""
    missing: dict[str, Any] = field(default_factory=lambda: {"command": ("no-such-agent-4711", "x")})
    """fields of a profile that cannot be used"""
    missing_word: str = "no-such-agent-4711"
    """what a message says of it"""
    sets: frozenset[str] = frozenset()
    """variables that the driver gives its agents beside those of the launch"""
    outlives: bool = False
    """True: its agents live outside of the guard, and another driver object takes them up by their handle"""


@dataclass
class Bench:
    """One case at work: a driver, a guard, a folder."""

    subject: Subject
    guard: Guard
    agent: Agent
    folder: Path
    count: int = 0
    launches: list[Launch] = field(default_factory=list)

    def launch(self, behaviour: str = "", *, prompt: str = "", **changes: Any) -> Launch:
        """Everything for one more attempt in a workspace of its own."""
        self.count += 1
        workspace = self.folder / f"workspace{self.count}"
        workspace.mkdir(parents=True)
        order = Order(id=f"wo-case.{self.count}", name="case", title="a case")
        env = {"PATH": os.defpath, "HOME": str(self.folder), SECRET_NAME: SECRET, "PWD": str(workspace)}
        values: dict[str, Any] = {
            "order": order,
            "attempt": f"{order.id}.a1",
            "profile": self.subject.profile,
            "prompt": prompt or self.subject.prompt(behaviour),
            "workspace": str(workspace),
            "branch": "shopfloor/case",
            "directory": str(self.folder / "attempts" / f"{order.id}.a1"),
            "env": env,
            "secrets": (SECRET,),
        }
        made = Launch(**{**values, **changes})
        self.launches.append(made)
        return made

    async def run(self, behaviour: str = "", **changes: Any) -> list[Report]:
        """One attempt from start to end."""
        handle = await self.agent.start(self.launch(behaviour, **changes))
        return [report async for report in self.agent.follow(handle)]

    async def until_it_hangs(self, behaviour: str) -> tuple[Handle, AsyncIterator[Report]]:
        """An attempt that has said its last; what follows can be taken from the iterator."""
        handle = await self.agent.start(self.launch(behaviour))
        reports = self.agent.follow(handle)
        async for report in reports:
            if LAST in report.text or LAST in repr(report.data):
                return handle, reports
        raise AssertionError(f"{behaviour!r} ended without saying {LAST!r}")

    @property
    def last(self) -> Launch:
        return self.launches[-1]
