"""Which agents are observed, by which drivers, and how a run that observes one is made."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec

from shopfloor._version import __version__
from shopfloor.agents.observed import Observed
from shopfloor.ports import Profile
from shopfloor.testing.behaviours import SCRIPTED
from tests.agents.lab import Lab
from tests.agents.observer import Seen, Task
from tests.agents.recipes import AIDER_WRITES, WAITS
from tools.agents import agent

OBSERVER = Path(__file__).with_name("observer.py")
LIKE_GOCORE = Path(__file__).parents[1] / "conformance" / "like_gocore.py"
PAGE = Path(__file__).parents[2] / "docs" / "reference" / "agents.md"
SECONDS = 800
WORDS = "think-of-elephants"
SHORT = "import time; time.sleep(4)"


# -- how an agent is told what to do ------------------------------------------------------------------------------


@dataclass(frozen=True)
class Telling:
    """What an agent is told in each look of the observer."""

    prompts: Mapping[str, str]
    words: str = WORDS
    heard: str = WORDS
    asks: bool = False


def by_model(**other: str) -> Telling:
    """By its model, which follows a script; ``other`` are looks with another script than the usual."""
    usual = {"work": "seen", "resume": "again", "permissions": "refused", "steer": "busy", "attach": "typed"}
    scripts = {**usual, "interrupt": "hangs", **other}
    told = "Do what you are told. [[script {name} cwd={{workspace}}]]"
    return Telling({look: told.format(name=name) for look, name in scripts.items()}, asks=True)


def deeds(*tables: str) -> str:
    """A prompt for the scripted agent, which follows it without a model."""
    script = "\n".join(f"[[do]]\n{table}" for table in tables)
    return f'# Seen\n\n```script\nsession = "known"\n{script}\n```\n'


_SLEEPS = f"run = \"python3 -c '{SHORT}'\""
_EDITS = ('write = "a.txt"\ncontent = "seen\\n"', 'commit = "seen"', "cost = 0.01\ntokens_in = 10\ntokens_out = 5")
_ASKS = 'model_call = 1\ntext = "[[script seen]]"'


def by_deeds(*more: str, **other: str) -> Telling:
    """By its script; ``more`` are deeds of the first look, ``other`` whole prompts of some."""
    idle, sleeps = deeds("nothing = true"), deeds(_SLEEPS)
    prompts = {
        "work": deeds(*_EDITS, *more),
        "resume": deeds("run = 'echo \"session $SCRIPTED_SESSION\"'"),
        "permissions": idle,
        "steer": sleeps,
        "attach": sleeps,
        "interrupt": deeds("hang = true"),
        **other,
    }
    return Telling(prompts, words=deeds(f'say = "{WORDS}"'))


BY_ACP_DEEDS = by_deeds(
    'call = "take_note"', resume=deeds("say_session = true"), permissions=deeds('permit_write = "a.txt"')
)

# A shell has neither session nor permissions; what it is typed while a command runs, it does afterwards.
BY_SHELL = Telling(
    {
        "work": "echo seen > a.txt && git add -A && git commit -qm seen; exit",
        "resume": "exit",
        "permissions": "exit",
        "steer": f"python3 -c '{SHORT}'",
        "attach": f"python3 -c '{SHORT}'",
        "interrupt": f"python3 -c '{WAITS}'",
    },
    words="echo think-of-$((6 * 7)) elephants; exit",
    heard="think-of-42 elephants",
)


# -- who is observed ----------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Subject:
    """One agent, by one driver."""

    driver: str
    preset: str = ""
    agent: str = ""
    """in ``tools/agents.py``; empty: it comes with us"""
    program: str = ""
    model: str = ""
    env: dict[str, str] = field(default_factory=dict)
    telling: Telling = field(default_factory=by_model)
    own_version: str = ""
    """of its program, where that is not the agent itself"""
    command: tuple[str, ...] = ()
    """in place of the preset's, or where there is none"""
    stand_in: str = ""
    """what that is, as people are told"""
    alive: str = ""
    """what it still says when its turn was ended, where it does not say that its turn has ended"""
    tools: bool = True
    by_word: bool = False
    served: bool = False

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
            model=self.model, stand_in=self.stand_in, capabilities=seen.observed,
        )  # fmt: skip


ROOT_MAY = {"IS_SANDBOX": "1"}
"""for Claude Code, which else refuses to let root skip permissions"""
LEFT = "prompt_input_exit"
"""Interrupted, it does not say so by a hook; that it left when it was told to shows that it listened again."""

ALL = (
    Subject("acp", "claude", "claude-acp", "claude-agent-acp", env=ROOT_MAY),
    # What its sandbox forbids it does not ask for; and for newer models it hides the tools of servers.
    Subject(
        *("acp", "codex", "codex", "codex-acp", "gpt-5"),
        telling=by_model(permissions="refused-tool"), own_version="2.6.0",
    ),
    Subject("acp", "gemini", "gemini", "gemini", "gemini-2.5-flash"),
    Subject("acp", "goose", "goose", "goose"),
    Subject("acp", "opencode", "opencode", "opencode"),
    Subject("acp", "scripted", program="shopfloor", telling=BY_ACP_DEEDS),
    Subject("claude_code", "", "claude", "claude", env=ROOT_MAY),
    Subject("claude_code", "", "claude-old", "claude", env=ROOT_MAY),
    # It has no tools: it writes what its model says.
    Subject("command", "aider", "aider", "aider", "openai/gpt-4o", telling=by_model(work="seen-aider"), tools=False),
    Subject("http", telling=by_deeds(), stand_in="the scripted server of shopfloor.testing", served=True),
    Subject("jsonlines", telling=by_deeds(), command=SCRIPTED, stand_in="the scripted agent of shopfloor.testing"),
    Subject(
        *("jsonlines", "gocore", "", "mini", "anthropic/claude-sonnet-4-5"),
        telling=by_deeds(_ASKS), command=(sys.executable, "-I", "-S", str(LIKE_GOCORE)), tools=False,
        stand_in="a program with its command line, variables and events, as no registry has GOCore itself",
    ),
    Subject("mini", "mini", "mini", "mini", "openai/gpt-4o"),
    Subject("muscle", program="shopfloor", model="openai/gpt-5"),
    Subject("scripted", program="shopfloor", telling=by_deeds(_ASKS), tools=False),
    Subject(
        "tmux", telling=BY_SHELL, command=("bash", "--norc", "--noprofile", "-i"), stand_in="bash",
        env={"PROMPT_COMMAND": "echo it goes on"}, alive="it goes on",
    ),
    Subject("tmux", "claude", "claude", "claude", alive=LEFT, by_word=True),
    Subject("tmux", "claude", "claude-old", "claude", alive=LEFT, by_word=True),
)  # fmt: skip

_ENDS = {"say": "THOUGHT: finished.", "bash": "echo COMPLETE_TASK_AND_SUBMIT_FINAL_OUTPUT"}
"""one agent ends by this; for the others it is one more command"""

SCRIPTS: dict[str, list[dict[str, Any]]] = {
    "seen": [
        {"say": "THOUGHT: write.", "bash": "echo seen > a.txt && git add -A && git commit -qm seen"},
        _ENDS,
        {"text": "Done."},
    ],
    "seen-aider": [{"text": AIDER_WRITES.format(file="a.txt")}],
    "again": [_ENDS, {"text": "Done again."}],
    "refused": [{"bash": "echo no > a.txt"}, {"text": "It was refused."}],
    "refused-tool": [{"call": {"name": "take_note", "input": {"text": "no"}}}, {"text": "It was refused."}],
    "busy": [{"bash": f"python3 -c '{SHORT}'"}, {"text": "Done."}, {"text": "Done."}],
    "typed": [{"bash": f"python3 -c '{SHORT}'"}, {"text": "Done."}, {"text": "Done."}],
    "hangs": [{"bash": f"python3 -c '{WAITS}'"}, {"text": "It ended."}],
}


def observe(lab: Lab, subject: Subject) -> Seen:
    """What an agent is seen to do, where there is no way out. The lab keeps whole requests, and has our scripts.

    Of a stand-in only what the driver claims counts: what it does beyond that is its own.
    """
    profile = Profile(
        name="seen", driver=subject.driver, preset=subject.preset, model=subject.model, env=subject.env,
        command=subject.command,
    )  # fmt: skip
    folder = lab.folder / "seen"
    folder.mkdir()
    env = {**lab.variables("seen", agent(subject.agent) if subject.agent else None), "LANG": "C.UTF-8", **subject.env}
    telling = subject.telling
    task = Task(
        profile=profile, url=lab.url, log=str(lab.log), folder=str(folder), env=env, prompts=dict(telling.prompts),
        words=telling.words, heard=telling.heard, asks=telling.asks, alive=subject.alive, tools=subject.tools,
        commands=(SHORT, WAITS), by_word=subject.by_word, served=subject.served,
    )  # fmt: skip
    done = subprocess.run(
        [*lab.inside, sys.executable, str(OBSERVER)], input=msgspec.json.encode(task), env=lab.env, cwd=folder,
        capture_output=True, check=False, timeout=SECONDS,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr.decode()[-3000:]
    seen = msgspec.json.decode(done.stdout, type=Seen)
    if subject.stand_in:
        seen.observed = tuple(name for name in seen.observed if name in seen.declared)
    return seen


def page(rows: Iterable[Observed]) -> str:
    """The page that shows the rows, with these."""
    before, begin, rest = PAGE.read_text(encoding="utf-8").partition("observe` -->\n")
    _, end, after = rest.partition("<!-- end -->")
    assert begin, PAGE
    assert end, PAGE
    lines = ["", "| driver | preset | seen with | on | was seen to |", "|---|---|---|---|---|"]
    for row in rows:
        what = f"{row.stand_in} (stand-in)" if row.stand_in else f"`{row.program}` {row.version}"
        can = ", ".join(row.capabilities) or "nothing beyond its work"
        lines.append(f"| {row.driver} | {row.preset or '-'} | {what} | {row.date} | {can} |")
    return "\n".join([before + begin.rstrip(), *lines, "", end + after])
