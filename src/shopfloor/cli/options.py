"""What ``run``, ``plan`` and ``retry`` may be told: settings as options, and who the agent is."""

from __future__ import annotations

import re
import shutil
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import click
import msgspec

from shopfloor import Profile, Settings, Shopfloor
from shopfloor.cli.edge import Edge
from shopfloor.config import values
from shopfloor.domain.errors import NotFound, UsageError

DRIVERS = ("acp", "claude_code", "command", "http", "jsonlines", "mini", "muscle", "scripted")
_OPTIONS = (
    click.option("--agent", metavar="'CMD …'", help="A command line, or the name of a configured agent."),
    click.option("--driver", type=click.Choice(DRIVERS), help="How that command speaks; default: command."),
    click.option("--max-parallel", metavar="N", help="Agents side by side."),
    click.option("--check", "checks", multiple=True, metavar="CMD", help="Must exit 0 on every result. Repeatable."),
    click.option("--setup", metavar="CMD", help="Prepares a fresh checkout."),
    click.option("--land/--no-land", "land", default=None, help="Land verified work, or leave it on branches."),
    click.option("--review", is_flag=True, help="Land only what a person accepts."),
    click.option("--timeout", metavar="30m", help="An attempt may take so long."),
    click.option("--silence", metavar="10m", help="Stop an attempt that says nothing for so long."),
    click.option("--budget", metavar="5", help="USD that the run may spend."),
    click.option("--record", metavar="FILE", help="Take down every model call, to be played again."),
    click.option("--replay", metavar="FILE", help="Answer model calls from such a file instead of a model."),
    click.option("--no-check", is_flag=True, help="Work without any check: nothing is verified then."),
    click.option("--allow-red-base", is_flag=True, help="Work although the checks fail before anything was changed."),
)


def work_options(function: Callable[..., Any]) -> Callable[..., Any]:
    """The options of everything that starts work."""
    for option in reversed(_OPTIONS):
        function = option(function)
    return function


class Wanted(msgspec.Struct, frozen=True, kw_only=True):
    """What the options said; None and empty: nothing."""

    agent: str | None = None
    driver: str | None = None
    max_parallel: str | None = None
    checks: tuple[str, ...] = ()
    setup: str | None = None
    land: bool | None = None
    review: bool = False
    timeout: str | None = None
    silence: str | None = None
    budget: str | None = None
    record: str | None = None
    replay: str | None = None
    no_check: bool = False
    allow_red_base: bool = False

    def flags(self) -> dict[str, object]:
        """The settings by key, but for the agent. Raises UsageError for options that exclude each other."""
        if self.review and self.land is not None:
            raise UsageError("--review lands what is accepted: leave --land and --no-land out")
        if self.checks and self.no_check:
            raise UsageError("--check and --no-check exclude each other: leave one of them out")
        if self.record and self.replay:
            raise UsageError("--record and --replay exclude each other: leave one of them out")
        land = "review" if self.review else {None: None, True: "auto", False: "off"}[self.land]
        found = {
            "max_parallel": self.max_parallel,
            "checks": list(self.checks) or None,
            "setup": self.setup,
            "land": land,
            "timeout": self.timeout,
            "silence": self.silence,
            "budget": self.budget,
            "record": str(Path(self.record).absolute()) if self.record else None,
            "replay": str(Path(self.replay).absolute()) if self.replay else None,
            "no_check": self.no_check or None,
            "allow_red_base": self.allow_red_base or None,
        }
        return {key: value for key, value in found.items() if value is not None}


def open_floor(edge: Edge, wanted: Wanted) -> Shopfloor:
    """The floor with these settings."""
    edge.flags = wanted.flags()
    floor = edge.floor()
    if wanted.agent is None and wanted.driver is None:
        return floor
    settings = with_agent(floor.settings, wanted)
    return Shopfloor.open(floor.root, settings=settings)


def with_agent(settings: Settings, wanted: Wanted) -> Settings:
    """The settings with the agent that was asked for as the default one. Raises NotFound, UsageError."""
    profile = chosen(settings, wanted)
    return msgspec.structs.replace(
        settings,
        agents={**settings.agents, profile.name: profile},
        agent=profile.name,
        origins={**settings.origins, "agent": "--agent"},
    )


def chosen(settings: Settings, wanted: Wanted) -> Profile:
    """The profile of that name, or one made of a command line."""
    text, driver = (wanted.agent or "").strip(), wanted.driver
    if wanted.agent is not None and not text:
        raise UsageError("--agent is empty", hint="name a configured agent, or give a command line")
    if not text and driver == "scripted":
        return settings.agents["scripted"]
    if not text or text in settings.agents:
        known = settings.profile(text)
        return msgspec.structs.replace(known, driver=driver) if driver else known
    try:
        words = values.words(text)
    except ValueError as problem:
        raise UsageError(f"--agent {text!r}: it must be {problem}") from None
    near = values.closest(text, settings.agents)
    if len(words) == 1 and near and shutil.which(words[0]) is None:
        raise NotFound(f"there is no agent {text!r}{near}", hint=f"there are: {', '.join(sorted(settings.agents))}")
    name = free_name(words[0], settings.agents)
    return msgspec.convert({"name": name, "driver": driver or "command", "command": words}, Profile)


def free_name(program: str, taken: Mapping[str, object]) -> str:
    """A profile name after the program; numbered where a configured agent has it, whose keys it must not inherit."""
    base = re.sub(r"[^A-Za-z0-9._-]+", "-", Path(program).name).strip("-._")[:50] or "agent"
    name, number = base, 1
    while name in taken:
        number += 1
        name = f"{base}-{number}"
    return name


def prompts(words: Sequence[str]) -> list[Path | str]:
    """What the arguments name: files, or ``-`` for a prompt on stdin."""
    if words.count("-") > 1:
        raise UsageError("stdin can be read once: '-' is given twice")
    return [sys.stdin.buffer.read().decode(errors="replace") if word == "-" else Path(word) for word in words]
