"""Agents: drive one kind of agent, and what it reports."""

from __future__ import annotations

from collections.abc import AsyncIterator
from enum import StrEnum
from typing import Any, Literal, Protocol

import msgspec

from shopfloor.domain.order import Order


class Profile(msgspec.Struct, frozen=True, kw_only=True):
    """A named agent: which driver, which command, what it may see."""

    name: str
    driver: Literal["command", "jsonlines", "scripted"] = "command"
    command: tuple[str, ...] = ()
    """argv; ``{prompt_file}``, ``{workspace}``, ``{branch}``, ``{order}`` and ``{title}`` are replaced inside a word;
    the prompt goes to stdin unless ``{prompt_file}`` or ``{prompt}`` is used"""
    pass_env: tuple[str, ...] = ()
    env: dict[str, str] = msgspec.field(default_factory=dict)
    memory_limit_bytes: int | None = None


class Probe(msgspec.Struct, frozen=True, kw_only=True):
    """What a look at an agent told, without spending anything."""

    found: bool
    version: str = ""
    reports_cost: bool = False
    """False: what it spends cannot be seen, so a budget for it is refused"""
    problem: str = ""
    hint: str = ""


class Launch(msgspec.Struct, frozen=True, kw_only=True):
    """Everything a driver needs to start one attempt."""

    order: Order
    attempt: str
    profile: Profile
    prompt: str
    workspace: str
    branch: str
    directory: str
    """the attempt's own folder, which takes ``prompt.md``, ``stdout.log``, ``stderr.log``, ``transcript.jsonl``"""
    env: dict[str, str]
    """the whole environment, already reduced to the allow-list"""
    secrets: tuple[str, ...] = ()
    """values masked in everything that is kept"""
    session: str = ""
    """the agent's own session to resume, when it has one"""


class Handle(msgspec.Struct, frozen=True, kw_only=True):
    """How to find a running agent again: data in the log, not an object."""

    driver: str
    attempt: str
    pid: int = 0
    start_time: int = 0
    """kernel clock ticks: with the pid it names one process for ever"""
    detail: dict[str, str] = msgspec.field(default_factory=dict)


class Kind(StrEnum):
    """What an agent's report speaks of."""

    STARTED = "started"
    TEXT = "text"
    TOOL = "tool"
    USAGE = "usage"
    ASKED = "asked"
    LOG = "log"
    TURN_END = "turn_end"
    ERROR = "error"
    NOISE = "noise"
    EXITED = "exited"


class Report(msgspec.Struct, frozen=True, kw_only=True):
    """One thing an agent did, in the order it did it; ``EXITED`` is always the last and comes exactly once."""

    kind: Kind
    text: str = ""
    status: str = ""
    """TURN_END: success, limit or failed; ERROR: the error's class name; EXITED: completed, error, lost or killed"""
    session: str = ""
    cost_usd: float | None = None
    """cumulative for the attempt; None: it did not say"""
    tokens_in: int = 0
    tokens_out: int = 0
    steps: int = 0
    exit_code: int | None = None
    leftovers: int = 0
    """EXITED: processes it had left behind, ended with it"""
    data: dict[str, Any] = msgspec.field(default_factory=dict)


class Agent(Protocol):
    """Drives one kind of agent."""

    async def probe(self, profile: Profile) -> Probe:
        """Look whether it can be used here; never raises, never spends."""
        ...

    async def start(self, launch: Launch) -> Handle:
        """Start it. Raises Refused when the program cannot be started (the message names it)."""
        ...

    def follow(self, handle: Handle) -> AsyncIterator[Report]:
        """Everything it reports until it has ended and all it started has ended too."""
        ...

    async def send(self, handle: Handle, text: str) -> None:
        """Say something to it while it runs. Raises Refused where the driver has no channel back."""
        ...

    async def stop(self, handle: Handle) -> None:
        """Interrupt, terminate, kill: returns when it and its descendants are gone. Harmless when it has ended."""
        ...
