"""Agents: drive one kind of agent, and what it reports."""

from __future__ import annotations

from collections.abc import AsyncIterator
from enum import StrEnum
from typing import Any, Literal, Protocol, runtime_checkable

import msgspec

from shopfloor.domain.addresses import expanded
from shopfloor.domain.order import Order
from shopfloor.domain.servers import SpreadPolicy


class Profile(msgspec.Struct, frozen=True, kw_only=True):
    """A named agent: which driver, which command, what it may see."""

    name: str
    driver: str = "command"
    preset: str = ""
    """which of the agents that the driver knows, e.g. ``codex`` of ``acp``; empty: the command says it all"""
    command: tuple[str, ...] = ()
    """argv; ``{prompt_file}``, ``{workspace}``, ``{branch}``, ``{order}`` and ``{title}`` are replaced inside a word;
    the prompt goes to stdin unless ``{prompt_file}`` or ``{prompt}`` is used. Empty: the driver's own"""
    args: tuple[str, ...] = ()
    """words behind those of the driver or preset"""
    model: str = ""
    """as the agent names it; empty: the agent's own choice"""
    permissions: Literal["allow", "deny", "ask"] = "allow"
    """what it is answered when it asks whether it may; ``ask``: a person decides"""
    urls: tuple[str, ...] = ()
    """where its servers listen, for agents that are servers"""
    policy: SpreadPolicy = "round-robin"
    """which of its servers gets a call, for those that take many at once"""
    in_flight: int = 0
    """calls under way at one server; 0: as many as turn out to be good for it"""
    paths: dict[str, str] = msgspec.field(default_factory=dict)
    """where its servers are asked for each step, where that is not the usual place"""
    account: str = ""
    """who pays for its model calls, by a name of the gateway's; empty: the default one"""
    pass_env: tuple[str, ...] = ()
    env: dict[str, str] = msgspec.field(default_factory=dict)
    memory_limit_bytes: int | None = None

    @property
    def addresses(self) -> list[str]:
        """``urls`` with their ranges of ports written out. Raises ValueError that names the one that is off."""
        return expanded(self.urls)


class Capabilities(msgspec.Struct, frozen=True, kw_only=True):
    """What a driver can do with one kind of agent. Each is observed in a conformance run before it is claimed."""

    resume: bool = False
    """an ended session goes on in a new attempt; one that it does not know any more ends that attempt as a failure"""
    interrupt: bool = False
    """a turn can be ended without ending the agent"""
    steer: bool = False
    """words reach it while it works"""
    permissions: bool = False
    """it asks, and waits for the answer"""
    mcp: bool = False
    """it takes the servers of :class:`Launch`"""
    attach: bool = False
    """a person can look at it and type"""
    cost: bool = False
    """it says what it spent"""
    tokens: bool = False
    """it says how many tokens went in and out"""
    gateway: bool = False
    """its model calls can be sent through the gateway"""
    commits: bool = False
    """it commits by itself"""


class Probe(msgspec.Struct, frozen=True, kw_only=True):
    """What a look at an agent told, without spending anything."""

    found: bool
    version: str = ""
    capabilities: Capabilities = Capabilities()
    """without ``cost`` and ``gateway`` what it spends cannot be seen, so a budget for it is refused"""
    problem: str = ""
    hint: str = ""


class Route(msgspec.Struct, frozen=True, kw_only=True):
    """The way of one attempt to its models, and no other attempt's: where, and what it shows there instead of a key."""

    url: str
    """``http://127.0.0.1:…/…`` without a slash at its end; the paths of every dialect begin behind it"""
    token: str


class Server(msgspec.Struct, frozen=True, kw_only=True):
    """An MCP server that an agent is to start for itself: by stdio."""

    name: str
    command: tuple[str, ...]
    env: dict[str, str] = msgspec.field(default_factory=dict)
    """holds a token: it goes into a file that only its owner may read, or into an environment, never into an argv"""


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
    route: Route | None = None
    """through the gateway; None: the agent reaches its models as it would without us"""
    servers: tuple[Server, ...] = ()
    """offered to an agent that speaks MCP"""
    budget_usd: float | None = None
    """what this attempt may spend, for agents that can keep a limit themselves; we do not rely on it. None with a
    ``route``: the gateway keeps limits by its own prices"""


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
    """it begins or ends to use a tool; ``status``: empty, ``ok``, ``error`` or ``denied``"""
    USAGE = "usage"
    PERMISSION = "permission"
    """it asked whether it may; ``status``: ``allowed``, ``denied`` or ``asked``; ``text`` names the tool,
    ``data["input"]`` is what it wants to do with it"""
    RETRYING = "retrying"
    """a model call failed and it tries again by itself; ``status``: the HTTP status; ``data``: ``delay_s``"""
    ASKED = "asked"
    LOG = "log"
    TURN_END = "turn_end"
    ERROR = "error"
    NOISE = "noise"
    EXITED = "exited"


class Delivery(StrEnum):
    """What became of words that were sent to a running agent."""

    SEEN = "seen"
    """the agent said that it has them"""
    DELIVERED = "delivered"
    """they are where it will read them"""
    QUEUED = "queued"
    """kept for it here: it is told them when its present turn ends, should it have a next one"""
    SHOWN = "shown"
    """they stand on its screen; whether it took them cannot be told"""


class Report(msgspec.Struct, frozen=True, kw_only=True):
    """One thing an agent did, in the order it did it; ``EXITED`` is always the last and comes exactly once."""

    kind: Kind
    text: str = ""
    status: str = ""
    """TURN_END: success, limit or failed; EXITED: completed, error, lost or killed; ERROR: its class name, or ``quota``
    (``data``: ``reset_at`` in wall seconds, where it was told), ``auth`` or ``budget``, which no new try mends: who
    goes on after one of these is ended"""
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

    driver: str
    """its name, as profiles and handles have it"""

    async def probe(self, profile: Profile) -> Probe:
        """Look whether it can be used here; never raises, never spends."""
        ...

    async def start(self, launch: Launch) -> Handle:
        """Start it. Raises Refused when the program cannot be started (the message names it)."""
        ...

    def follow(self, handle: Handle) -> AsyncIterator[Report]:
        """Everything it reports until it has ended and all it started has ended too."""
        ...

    async def send(self, handle: Handle, text: str) -> Delivery:
        """Say something to it while it runs. Raises Refused where the driver has no channel back.

        While a permission waits that was reported as ``asked``, exactly ``yes`` or ``no`` is its answer. A driver
        reports one after the other, so that it is known which one is answered.
        """
        ...

    async def stop(self, handle: Handle) -> None:
        """Interrupt, terminate, kill: returns when it and its descendants are gone. Harmless when it has ended."""
        ...


@runtime_checkable
class Outliving(Agent, Protocol):
    """An Agent whose agents go on when their controller dies: ``follow`` takes up a handle that the log has."""

    async def living(self, handle: Handle) -> bool:
        """Whether it can be followed and comes to an end that counts; also when it has ended since."""
        ...

    async def route(self, handle: Handle) -> Route | None:
        """The way to its models that it was started with, None: it had none. Raises Refused when that is not known."""
        ...


class Call(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """One attempt that is a call: no process, no workspace, no folder. What is asked is in ``order.metadata``."""

    order: Order
    attempt: str
    generation: int
    """1 for the first attempt"""
    profile: Profile
    timeout_s: float | None
    """of the call itself: its clock starts when a server is free for it, so the driver counts it; None: no limit"""


class Answered(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """What came of a call."""

    text: str = ""
    """the answer, which the log keeps"""
    failed: str = ""
    """why there is none; empty: there is one"""
    timed_out: bool = False
    """it failed because it took longer than its limit"""
    final: bool = False
    """it failed and no new try would do better: the order fails at once"""
    cost_usd: float | None = None
    """None: it is not known"""
    tokens_in: int = 0
    tokens_out: int = 0
    data: dict[str, Any] = {}
    """small facts for the log: which server, how long each step took"""


@runtime_checkable
class Answering(Agent, Protocol):
    """An Agent that answers without a process of its own: an order for an answer is one call of it."""

    async def answer(self, call: Call) -> Answered:
        """What came of it. Raises Refused when it cannot be tried at all; cancelled when the attempt is stopped."""
        ...

    def capacity(self, profile: Profile) -> int:
        """How many calls may be under way now, those that wait for a server included; may change at any time."""
        ...

    async def close(self) -> None:
        """Let go of what is kept between calls, such as connections; harmless when repeated. No call comes after it."""
        ...
