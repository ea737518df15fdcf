"""What a crew is made of: its workers, and the mount plans that say what each of them is given.

A mount plan is a JSON object in ``<folder>/<profile>.json``, in one of three shapes:

- short: ``{"mounts": {"system_prompt", "provider", "model", "tools": [names]}}``;
- whole: ``session`` with ``orchestrator`` and ``context``, ``providers``, ``tools`` as lists of
  ``{"module", "source", "config"}``;
- by behaviour: ``{"behaviors": {"context": {"provider", "config"}}, "tools": {name: {"provider"}}}``.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import msgspec

from shopfloor import UsageError

_VARIABLE = re.compile(r"\$\{(\w+)\}")
_PREFIXES = ("provider-", "context-", "tool-", "amplifier-module-")
_HANDS = {
    "bash": ("bash",), "shell": ("bash",), "filesystem": ("read", "edit"), "read": ("read",), "edit": ("edit",),
    "write": ("edit",),
}  # fmt: skip
PROVIDERS = ("anthropic", "openai")
ISSUES = "issue"


MOST_WORKERS = 1000
"""of one kind, in one process"""
T = TypeVar("T", bound=msgspec.Struct)


@dataclass
class WorkerConfig:
    """``count`` workers of one kind: by ``profile``, the name of a mount plan, or by ``name`` and the plan itself."""

    profile: str = ""
    count: int = 1
    name: str = ""
    config: dict[str, Any] | None = field(default=None)

    def __post_init__(self) -> None:
        """Raise TypeError for one that says neither."""
        if not self.profile and not self.name:
            raise TypeError("WorkerConfig needs profile=, the name of a mount plan, or name= and config=")

    @property
    def label(self) -> str:
        """What its workers are called by."""
        return self.name or self.profile


class Plan(msgspec.Struct, frozen=True, kw_only=True):
    """What a mount plan comes to, for a session of our own."""

    system_prompt: str = ""
    model: str = ""
    """``provider/name``; empty: the plan names none"""
    tools: tuple[str, ...] = ()
    """of bash, read, edit and issue"""
    unknown: tuple[str, ...] = ()
    """tools that it names and that are not there"""
    access: dict[str, str] = {}
    """address and key of the model, as variables, where the plan says them"""


def load_mount_plan(mount_plans_dir: Path, profile: str) -> dict[str, Any]:
    """The plan of that name, as it stands in its file.

    Raises FileNotFoundError ``Mount plan not found: …`` and ValueError ``Invalid JSON in …``.
    """
    path = Path(mount_plans_dir) / f"{profile}.json"
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise FileNotFoundError(f"Mount plan not found: {path}") from None
    except UnicodeDecodeError as problem:
        raise ValueError(f"Invalid JSON in {path}: {problem}") from None
    try:
        plan = json.loads(text)
    except ValueError as problem:
        raise ValueError(f"Invalid JSON in {path}: {problem}") from None
    if isinstance(plan, dict):
        return plan
    raise ValueError(f"Invalid JSON in {path}: a mount plan is an object, not a {type(plan).__name__}")


def read_plan(plan: Mapping[str, Any], environment: Mapping[str, str]) -> Plan:
    """What a plan of any of the three shapes says; ``${NAME}`` in it is taken from the environment."""
    mounts = _object(plan.get("mounts"))
    if mounts:
        provider, config, tools = mounts.get("provider"), mounts, _names(mounts.get("tools"))
        prompt = str(mounts.get("system_prompt") or "")
    else:
        provider, config = _provider(plan)
        tools = _names(plan.get("tools"))
        prompt = str(_object(plan.get("session")).get("system_prompt") or plan.get("system_prompt") or "")
    config = {key: _filled(value, environment) for key, value in config.items()}
    known, unknown = _tools(tools)
    return Plan(
        system_prompt=prompt, model=_model(_plain(str(provider or "")), config), tools=known, unknown=unknown,
        access=_access(config),
    )  # fmt: skip


def whole_plan(plan: Mapping[str, Any]) -> dict[str, Any]:
    """A plan as ``amplifier-core`` wants it: the short shape is written out, any other is left as it is."""
    mounts = _object(plan.get("mounts"))
    if not mounts:
        return dict(plan)
    model = {"default_model": mounts["model"]} if mounts.get("model") else {}
    return {
        "session": {
            "orchestrator": {"module": "loop-streaming", "source": "local", "config": {}},
            "context": {"module": "context-simple", "source": "local", "config": {}},
        },
        "providers": [{"module": f"provider-{mounts['provider']}", "source": "local", "config": model}]
        if mounts.get("provider")
        else [],
        "tools": [
            {"module": f"tool-{_plain(name)}", "source": "local", "config": {}}
            for name in _names(mounts.get("tools"))
            if ISSUES not in _plain(name)  # ours is mounted
        ],
    }


def category_of(label: str) -> str:
    """What kind of work a worker of that name does: ``coding``, ``research``, or ``general`` for everything else."""
    return next((kind for kind in ("coding", "research") if kind in label), "general")


def listed(config: Mapping[str, Any], key: str, kind: type[T], *, where: str = "", **others: str) -> tuple[T, ...]:
    """The objects under a key of a crew's file, each as ``kind``; ``others`` are keys of other crews, and ours.

    Raises UsageError that says ``where`` (by default at the key) what is off: a key that is none is refused, as nobody
    would miss what it was to do. Names are not empty.
    """
    found, where = config.get(key) or [], where or key
    if not isinstance(found, list | tuple):
        raise UsageError(f"{where} is {found!r}", hint="it is a list of objects")
    return tuple(_struct(entry, kind, where, others) for entry in found)


def _struct(entry: Any, kind: type[T], where: str, others: Mapping[str, str]) -> T:
    if not isinstance(entry, Mapping):
        raise UsageError(f"{where} has {entry!r}", hint="each entry is an object")
    plain = {others.get(key, key): value for key, value in entry.items() if value is not None}
    known = [field.name for field in msgspec.structs.fields(kind)]
    if odd := [key for key in plain if key not in known]:
        raise UsageError(f"{where} has a key {odd[0]!r}", hint=f"there are {', '.join(known)}")
    if plain.get("name") == "":
        raise UsageError(f"{where} has an entry whose name is empty", hint="give it a name")
    try:
        return msgspec.convert(plain, kind)
    except msgspec.ValidationError as problem:
        raise UsageError(f"{where} has {dict(entry)!r}: {problem}") from None


# -- inside -----------------------------------------------------------------------------------------------------


def _provider(plan: Mapping[str, Any]) -> tuple[str, dict[str, Any]]:
    listed = plan.get("providers")
    for entry in listed if isinstance(listed, list) else []:
        if isinstance(entry, dict) and entry.get("module"):
            return str(entry["module"]), _object(entry.get("config"))
    context = _object(_object(plan.get("behaviors")).get("context"))
    return str(context.get("provider") or ""), _object(context.get("config"))


def _model(provider: str, config: Mapping[str, Any]) -> str:
    name = str(config.get("default_model") or config.get("model") or "")
    if not name or "/" in name or not provider:
        return name
    return f"{provider}/{name}"


def _access(config: Mapping[str, Any]) -> dict[str, str]:
    wanted = {"MINI_API_BASE": ("base_url", "api_base", "url"), "MINI_API_KEY": ("api_key",)}
    found = {name: next((str(config[key]) for key in keys if config.get(key)), "") for name, keys in wanted.items()}
    return {name: value for name, value in found.items() if value}


def _names(tools: Any) -> list[str]:
    if isinstance(tools, Mapping):
        return [str(name) for name in tools]
    found = []
    for entry in tools if isinstance(tools, list) else []:
        name = entry.get("module") or entry.get("name") if isinstance(entry, Mapping) else entry
        if isinstance(name, str) and name:
            found.append(name)
    return found


def _tools(names: Iterable[str]) -> tuple[tuple[str, ...], tuple[str, ...]]:
    known: dict[str, None] = {}
    unknown = []
    for name in names:
        plain = _plain(name)
        found = next((tools for word, tools in _HANDS.items() if word in plain), ())
        if ISSUES in plain:
            found = (ISSUES,)
        known |= dict.fromkeys(found)
        if not found:
            unknown.append(name)
    return tuple(known), tuple(unknown)


def _plain(name: str) -> str:
    for prefix in _PREFIXES:
        name = name.removeprefix(prefix)
    return name.replace("_", "-")


def _object(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def _filled(value: Any, environment: Mapping[str, str]) -> Any:
    if not isinstance(value, str):
        return value
    return _VARIABLE.sub(lambda found: environment.get(found[1], ""), value)
