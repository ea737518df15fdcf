"""The settings: what there is, what each may be, where each value came from."""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from typing import Literal, get_args

import msgspec

from shopfloor.config import values as v
from shopfloor.config.accounts import GatewaySettings, gateway_settings
from shopfloor.domain.errors import NotFound, UsageError
from shopfloor.domain.names import printable
from shopfloor.domain.servers import MOST, SpreadPolicy
from shopfloor.ports import Profile

FILE = ".shopfloor.toml"
PREFIX = "SHOPFLOOR_"
SHOWN_CHARS = 80
SCRIPTED = Profile(name="scripted", driver="scripted")
"""Always there: follows the script in its prompt, for tests and demonstrations."""


class Cache(msgspec.Struct, frozen=True, kw_only=True):
    """A folder that later checkouts may reuse as long as the file ``key`` has the same content."""

    path: str
    key: str = ""
    """e.g. a lock file; empty: the folder is always reused"""


class Setting(msgspec.Struct, frozen=True, kw_only=True):
    """One setting: ``read`` turns what is written into a value, or raises ValueError saying what is allowed."""

    key: str
    field: str
    read: Callable[[object], object]
    example: str
    """as TOML; what ``init`` writes behind a ``#``"""
    about: str
    separator: str = ""
    """splits the text of a variable; empty: it is one value"""
    variable: str = ""

    @property
    def environment(self) -> str:
        """The variable that sets it."""
        return self.variable or f"{PREFIX}{self.key.upper()}"


class Settings(msgspec.Struct, frozen=True, kw_only=True):
    """What a run works with. Durations are seconds, sizes bytes, money USD; None: no limit."""

    agent: str = ""
    agents: dict[str, Profile] = msgspec.field(default_factory=lambda: {SCRIPTED.name: SCRIPTED})
    checks: tuple[str, ...] = ()
    setup: str = ""
    max_parallel: int = 2
    max_checks: int = 1
    timeout_s: float | None = 1800.0
    silence_s: float | None = None
    budget_usd: float | None = None
    attempt_budget_usd: float | None = None
    use_gateway: Literal["auto", "always", "never"] = "auto"
    first_report_s: float = 30.0
    land: Literal["auto", "review", "off"] = "auto"
    target: str = ""
    """branch; empty: the one that is checked out"""
    workspace: Literal["worktree", "clone"] = "worktree"
    worktrees: str = ".worktrees"
    copies: tuple[str, ...] = ()
    caches: tuple[Cache, ...] = ()
    retries: int = 3
    backoff_s: float = 1.0
    rework: int = 1
    on_question: Literal["ask", "decline"] = "ask"
    talk: Literal["off", "mcp", "all"] = "mcp"
    load_per_core: float = 2.0
    memory_free: float = 0.1
    allow_red_base: bool = False
    no_check: bool = False
    gateway: GatewaySettings = GatewaySettings()
    record: str = ""
    """file that takes down the model calls of a run; empty: none"""
    replay: str = ""
    """file that answers them instead of a model"""
    origins: dict[str, str] = msgspec.field(default_factory=dict)
    """where each value that is no default came from, by key"""

    def sources(self) -> dict[str, str]:
        """Where the value of every setting came from: a file, a variable, a flag, or ``default``."""
        return {s.key: self.origins.get(s.key, "default") for s in SETTINGS if s.key != "check"}

    def profile(self, name: str = "") -> Profile:
        """The agent with this name; without a name the default one.

        Raises NotFound for an unknown name, and UsageError when there is no default.
        """
        wanted = name or self.agent
        own = [profile for profile in self.agents.values() if profile != SCRIPTED]
        if not wanted and len(own) == 1:
            return own[0]
        if not wanted:
            known = ", ".join(map(repr, sorted(self.agents)))
            hint = f'write agent = "…" into {FILE}, or choose one with --agent'
            raise UsageError(f"no agent is chosen; there are {known}", hint=hint)
        if wanted not in self.agents:
            known = ", ".join(map(repr, sorted(self.agents)))
            hint = f"choose one of {known}, or add [agents.{wanted}] to {FILE}"
            raise NotFound(f"there is no agent {wanted!r}{v.closest(wanted, self.agents)}", hint=hint)
        return self.agents[wanted]


def default_parallel() -> int:
    """One agent for each processor that this process may use, and never less than two."""
    count = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(2, count)


# -- tables inside the settings -----------------------------------------------------------------------------------

DRIVERS = ("acp", "claude_code", "command", "http", "jsonlines", "mini", "muscle", "scripted", "specs", "tmux")
"""The names that ``agents.DRIVERS`` has: the settings do not import what they configure."""

_OWN_DRIVER = re.compile(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)*:[A-Za-z_]\w*")


def driver_name(value: object) -> str:
    """The name of a driver that comes with the package, or ``module:Class`` of one's own."""
    if isinstance(value, str) and _OWN_DRIVER.fullmatch(value):
        return value
    try:
        return v.choice(*DRIVERS)(value)
    except ValueError as problem:
        raise ValueError(f"{problem}, or module:Class of a driver of your own") from None


NEED_COMMAND = frozenset({"acp", "command", "jsonlines", "tmux"})
"""Drivers that know no program of their own; a preset brings one."""


def step_paths(value: object) -> dict[str, str]:
    """Where servers are asked for each step. Which steps there are, the driver knows."""
    try:
        found = v.table(value)
    except ValueError:
        found = {"": ""}
    if all(_PATH.fullmatch(path) for path in found.values()):
        return found
    raise ValueError("a table of steps and paths, e.g. { validate = '/validate' }")


PROFILE_KEYS: dict[str, tuple[str, Callable[[object], object]]] = {
    "driver": ("driver", driver_name),
    "preset": ("preset", v.line),
    "command": ("command", v.words),
    "args": ("args", v.words),
    "model": ("model", v.line),
    "permissions": ("permissions", v.choice("allow", "deny", "ask")),
    "urls": ("urls", v.many(v.line)),
    "policy": ("policy", v.choice(*get_args(SpreadPolicy))),
    "in_flight": ("in_flight", v.whole(0, MOST)),
    "paths": ("paths", step_paths),
    "account": ("account", v.line),
    "pass_env": ("pass_env", v.many(v.variable)),
    "env": ("env", v.table),
    "memory_limit": ("memory_limit_bytes", v.size),
}
CACHE_KEYS = ("path", "key")
_PATH = re.compile(r"/[!-~]*")
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")


def agent_profiles(value: object) -> dict[str, Profile]:
    """``[agents.<name>]`` tables as profiles."""
    if not isinstance(value, dict):
        raise ValueError("tables such as [agents.claude]")  # noqa: TRY004 - a reader raises nothing else
    return {name: _profile(name, fields) for name, fields in value.items()}


def _profile(name: str, fields: object) -> Profile:
    where = f"agents.{name}"
    if not _NAME.fullmatch(name):
        raise ValueError(f"tables whose names are letters, digits, '.', '_' and '-'; {shown(name)} is not")
    if not isinstance(fields, dict):
        raise ValueError(f"a table [{where}]")  # noqa: TRY004
    found: dict[str, object] = {}
    for key, value in fields.items():
        if key not in PROFILE_KEYS:
            known = ", ".join(map(repr, PROFILE_KEYS))
            near = v.closest(key, PROFILE_KEYS)
            raise ValueError(f"tables with the keys {known}; {where}.{printable(key, 60)} is none{near}")
        field, read = PROFILE_KEYS[key]
        try:
            found[field] = read(value)
        except ValueError as error:
            told = "…" if key == "env" else shown(value)  # variables may be keys
            raise ValueError(f"right in every table; {where}.{key} = {told} must be {error}") from None
    profile = msgspec.convert({"name": name, **found}, Profile)
    if profile.driver in NEED_COMMAND and not (profile.command or profile.preset):
        raise ValueError(f'complete in every table; {where} has no command: write command = "…" there')
    if profile.driver in ("http", "specs") and not profile.urls:
        raise ValueError(f'complete in every table; {where} has no urls: write urls = ["http://127.0.0.1:8080"] there')
    return profile


def caches(value: object) -> tuple[Cache, ...]:
    """``[{ path = …, key = … }]`` as caches."""
    if not isinstance(value, list) or not all(
        isinstance(item, dict) and item.keys() <= set(CACHE_KEYS) and "path" in item for item in value
    ):
        raise ValueError("an array of tables such as { path = '.venv', key = 'uv.lock' }")
    return tuple(Cache(**{key: v.inside(text) for key, text in item.items()}) for item in value)


def shown(value: object) -> str:
    """A value as people wrote it, short enough for a message."""
    try:
        text = repr(value)
    except (ValueError, RecursionError):  # a number of thousands of digits, a list of thousands of lists
        text = f"a {type(value).__name__} that is too long to show"
    return text if len(text) <= SHOWN_CHARS else f"{text[: SHOWN_CHARS - 1]}…"


# -- the list -----------------------------------------------------------------------------------------------------


def _setting(key: str, read: Callable[[object], object], example: str, about: str, **more: str) -> Setting:
    return Setting(key=key, field=more.pop("field", key), read=read, example=example, about=about, **more)


_PATHS = {"separator": os.pathsep}

SETTINGS: tuple[Setting, ...] = (
    _setting("agent", v.line, '"claude"', "the agent that works when an order names none"),
    _setting("check", v.shell, '"make test"', "a command that must exit 0 on every result", field="checks"),
    _setting("checks", v.many(v.shell), '["make lint", "make test"]', "the same, several", separator="\n"),
    _setting("setup", v.shell, '"uv sync"', "a command that prepares a fresh checkout"),
    _setting("max_parallel", v.whole(1, 1000), "4", "agents side by side; default: one for each processor, at least 2"),
    _setting("max_checks", v.whole(1, 1000), "1", "check runs side by side"),
    _setting("timeout", v.limit_of(v.duration), '"30m"', 'an attempt may take so long, or "none"', field="timeout_s"),
    _setting(
        "silence",
        v.limit_of(v.duration),
        '"10m"',
        'stop an attempt that says nothing for so long; default: "none"',
        field="silence_s",
    ),
    _setting("budget", v.limit_of(v.money), "5.00", 'USD for one run; default: "none"', field="budget_usd"),
    _setting(
        "attempt_budget",
        v.limit_of(v.money),
        "1.00",
        'USD for one attempt; default: "none"',
        field="attempt_budget_usd",
    ),
    _setting(
        "use_gateway",
        v.choice("auto", "always", "never"),
        '"auto"',
        "model calls through the gateway; auto: when a budget or an account asks for it, and there is a key for it",
    ),
    _setting(
        "first_report",
        v.duration,
        '"30s"',
        "say so when an agent has reported nothing for so long after its start",
        field="first_report_s",
    ),
    _setting(
        "land", v.choice("auto", "review", "off"), '"auto"', "land verified work: by itself, after a review, or not"
    ),
    _setting("target", v.ref, '"main"', "the branch to land on; default: the one that is checked out"),
    _setting(
        "workspace",
        v.choice("worktree", "clone"),
        '"worktree"',
        "how an attempt is kept apart",
        variable=f"{PREFIX}WORKSPACE_KIND",  # a worker finds its own folder in the plain name
    ),
    _setting("worktrees", v.folder, '".worktrees"', "the folder of the workspaces"),
    _setting(
        "copies", v.many(v.inside), '[".env.test"]', "untracked files that each workspace gets a copy of", **_PATHS
    ),
    _setting(
        "caches", caches, '[{ path = ".venv", key = "uv.lock" }]', "folders kept while the file behind key is the same"
    ),
    _setting("retries", v.whole(0, 100), "3", "further attempts after a failure that may pass"),
    _setting(
        "backoff",
        v.duration,
        '"1s"',
        "the wait before the first of them; doubled before each other one",
        field="backoff_s",
    ),
    _setting("rework", v.whole(0, 100), "1", "times that work goes back with what the checks found"),
    _setting(
        "on_question",
        v.choice("ask", "decline"),
        '"ask"',
        'an agent\'s question waits for a person, or is answered at once: "decide it yourself"',
    ),
    _setting(
        "talk",
        v.choice("off", "mcp", "all"),
        '"mcp"',
        "agents are offered our MCP server, or all of them are told in their prompt how to report, ask and mail",
    ),
    _setting(
        "load_per_core", v.number(0.1, 100), "2.0", "start nothing while the load of each processor is above this"
    ),
    _setting("memory_free", v.number(0, 0.95), "0.1", "start nothing while less than this share of memory is free"),
    _setting("allow_red_base", v.boolean, "false", "work although the checks fail before anything was changed"),
    _setting("no_check", v.boolean, "false", "work without any check: nothing is verified then"),
    _setting("record", v.line, '"run.cassette"', "a file that takes down every model call, to be played again"),
    _setting("replay", v.line, '"run.cassette"', "a file that answers model calls instead of a model"),
    _setting("gateway", gateway_settings, "", "who pays for model calls, and prices that only you know"),
    _setting("agents", agent_profiles, "", "the agents by name"),
)
BY_KEY = {setting.key: setting for setting in SETTINGS}
