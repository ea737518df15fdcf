"""Reading the settings: flags before environment before repository before user before defaults."""

from __future__ import annotations

import os
import re
import tomllib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from shopfloor.config import IDENTITY
from shopfloor.config import environment as whole_environment
from shopfloor.config.accounts import GatewaySettings
from shopfloor.config.settings import (
    BY_KEY,
    FILE,
    PREFIX,
    SCRIPTED,
    SETTINGS,
    Setting,
    Settings,
    default_parallel,
    shown,
)
from shopfloor.config.values import closest
from shopfloor.domain.errors import UsageError
from shopfloor.ports import Profile

_LARGEST_BYTES = 1_000_000
_NOT_SETTINGS = {*IDENTITY, f"{PREFIX}ATTEMPT_DIR", f"{PREFIX}WORKSPACE"}


class _Source:
    """Values from one place; ``where`` names the place of a key for a message."""

    def __init__(self, name: str, values: Mapping[str, object], text: str = "") -> None:
        self.name = name
        self.values = values
        self.text = text

    def where(self, key: str) -> str:
        found = re.search(rf"^[ \t]*\[*[\"']?{re.escape(key)}\b", self.text, re.MULTILINE)
        return f"{self.name}:{self.text.count(chr(10), 0, found.end()) + 1}" if found else self.name


def load(
    root: Path, *, flags: Mapping[str, object] | None = None, environment: Mapping[str, str] | None = None
) -> Settings:
    """The settings of the repository at ``root``.

    ``flags`` are values by key, typed or as text; None means that a flag was not given. ``environment`` is the whole
    environment, by default that of this process. Raises UsageError that names every place, key and value that is off.
    """
    env = whole_environment() if environment is None else environment
    problems: list[str] = []
    sources = [
        _file(user_file(env), problems),
        _file(root / FILE, problems),
        *_variables(env, problems),
        *(
            _Source(f"--{key.replace('_', '-')}", {key: value})
            for key, value in (flags or {}).items()
            if value is not None
        ),
    ]
    found, origins = _merge(sources, problems)
    agents = found.get("agents", {})
    if (name := found.get("agent")) and name not in {**agents, SCRIPTED.name: SCRIPTED}:
        known = ", ".join(map(repr, sorted({*agents, SCRIPTED.name})))
        near = closest(name, [*agents, SCRIPTED.name])
        problems.append(f"{origins['agent']}: agent = {shown(name)}: there is no such agent, only {known}{near}")
    if problems:
        raise UsageError(_sentence(problems), hint="type shopfloor doctor to see where every setting comes from")
    fields = {BY_KEY[key].field: value for key, value in found.items() if key != "checks"}
    if "checks" in found:
        fields["checks"] = found["checks"]
    fields["agents"] = {SCRIPTED.name: SCRIPTED, **agents}
    fields.setdefault("max_parallel", default_parallel())
    return Settings(**fields, origins=origins)


def user_file(environment: Mapping[str, str]) -> Path | None:
    """The settings of a person: ``$XDG_CONFIG_HOME/shopfloor/config.toml``, or None without any home."""
    if base := environment.get("XDG_CONFIG_HOME"):
        return Path(base, "shopfloor", "config.toml")
    home = environment.get("HOME")
    return Path(home, ".config", "shopfloor", "config.toml") if home else None


def _sentence(problems: list[str]) -> str:
    if len(problems) == 1:
        return problems[0]
    return f"{len(problems)} settings are off:\n" + "\n".join(f"  {problem}" for problem in problems)


def _file(path: Path | None, problems: list[str]) -> _Source:
    """What a file sets; a file that is not there sets nothing."""
    if path is None:
        return _Source("", {})
    try:
        with path.open("rb") as file:
            raw = file.read(_LARGEST_BYTES + 1)
        if len(raw) > _LARGEST_BYTES:
            problems.append(f"{path}: has more than {_LARGEST_BYTES // 1_000_000} MB; that is no settings file")
            return _Source(str(path), {})
        text = raw.decode()
        return _Source(str(path), tomllib.loads(text), text)
    except (FileNotFoundError, NotADirectoryError):
        pass
    except OSError as error:
        problems.append(f"{path}: cannot be read: {os.strerror(error.errno or 0).lower()}")
    except UnicodeDecodeError as error:
        problems.append(f"{path}: is not UTF-8 at byte {error.start}")
    except (ValueError, RecursionError) as error:  # not only TOMLDecodeError: a number may have too many digits
        problems.append(f"{path}: is not TOML: {str(error) or 'nested too deeply'}")
    return _Source(str(path), {})


def _variables(env: Mapping[str, str], problems: list[str]) -> Iterator[_Source]:
    """The settings that variables carry; an empty variable sets nothing."""
    by_name = {setting.environment: setting for setting in SETTINGS if setting.example}
    for name in sorted(name for name in env if name.startswith(PREFIX)):
        setting = by_name.get(name)
        if setting is None:
            # Others may use the prefix for their own ends: only what looks like a slip of the pen is refused.
            near = "" if name in _NOT_SETTINGS else closest(name, by_name, likeness=0.9)
            if near:
                problems.append(f"{name}: there is no such setting{near}")
        elif env[name].strip():
            yield _Source(name, {setting.key: _from_text(setting, env[name])})


def _from_text(setting: Setting, text: str) -> object:
    """The text of a variable, split or parsed where the setting is an array."""
    if setting.separator:
        return [part for part in text.split(setting.separator) if part.strip()]
    if setting.key == "caches":
        try:
            return tomllib.loads(f"value = {text}")["value"]
        except (ValueError, RecursionError):
            return text
    return text


def _merge(sources: list[_Source], problems: list[str]) -> tuple[dict[str, Any], dict[str, str]]:
    """Values by key, later sources first, and where each came from."""
    found: dict[str, Any] = {}
    origins: dict[str, str] = {}
    for source in sources:
        if "check" in source.values and "checks" in source.values:
            problems.append(f"{source.where('checks')}: has check and checks: write all commands into checks")
            continue
        for key, value in source.values.items():
            setting = BY_KEY.get(key)
            if setting is None:
                known = ", ".join(map(repr, sorted(BY_KEY)))
                near = closest(key, BY_KEY)
                problems.append(f"{source.where(key)}: there is no setting {shown(key)}{near} (there are {known})")
                continue
            try:
                read = setting.read(value)
            except ValueError as error:
                told = (
                    "" if key in ("agents", "gateway") else f" = {shown(value)}"
                )  # they may hold keys; the error says which field
                problems.append(f"{source.where(key)}: {key}{told}: it must be {error}")
                continue
            _take(found, origins, key, read, source.name)
    return found, origins


def _take(found: dict[str, Any], origins: dict[str, str], key: str, value: Any, name: str) -> None:
    """Keep one value; agents, accounts and prices are joined by name, ``check`` is ``checks`` with one command."""
    if key == "agents":
        agents: dict[str, Profile] = found.get("agents", {})
        found["agents"] = {**agents, **value}
        origins[key] = f"{origins[key]}, {name}" if key in origins else name
        return
    if key == "gateway":
        before: GatewaySettings = found.get(key, GatewaySettings())
        found[key] = GatewaySettings(
            accounts={**before.accounts, **value.accounts}, prices={**before.prices, **value.prices}
        )
        origins[key] = f"{origins[key]}, {name}" if key in origins else name
        return
    if key == "check":
        found["checks"], origins["checks"] = (value,), name
    else:
        found[key] = value
    origins[key] = name
