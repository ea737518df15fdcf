"""What a run was started with, when somebody goes on with it: flags of the first call need not be typed again."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec

from shopfloor.config.settings import Settings
from shopfloor.domain.errors import ShopfloorError, UsageError
from shopfloor.domain.runs import Run
from shopfloor.ports import Profile

KEY_OF = {
    "timeout_s": "timeout", "silence_s": "silence", "budget_usd": "budget", "attempt_budget_usd": "attempt_budget",
}  # fmt: skip
"""Fields whose setting has another name."""
CHANGEABLE = (
    "land", "agent", "max_parallel", "timeout_s", "silence_s", "budget_usd", "attempt_budget_usd", "record", "replay",
)  # fmt: skip
_OTHER = {"record": "replay", "replay": "record"}
"""Each excludes the other: one that is given now takes the other's place."""


def default_agent(settings: Settings) -> str:
    """The profile for orders that name none; empty when none was chosen and there is not exactly one."""
    try:
        return settings.profile().name
    except ShopfloorError:
        return ""


def options(settings: Settings, secrets: Sequence[str]) -> dict[str, Any]:
    """The settings that a new run keeps in the log.

    Secrets stay out: no variables of agents, and no agent at all whose command has a key in it.
    """
    open_ones = [p for p in settings.agents.values() if not _tells(p, secrets)]
    return {
        **_changeable(settings), "checks": list(settings.checks), "setup": settings.setup,
        "skipped_checks": settings.no_check, "profiles": {p.name: _described(p) for p in open_ones},
        "accounts": payers(settings),
    }  # fmt: skip


def payers(settings: Settings) -> dict[str, str]:
    """Agent -> who pays for its model calls, for those that name an account: they share what is left of it."""
    return {p.name: p.account for p in settings.agents.values() if p.account}


def _tells(p: Profile, secrets: Sequence[str]) -> bool:
    return any(secret in word for secret in secrets for word in (*p.command, *p.args, *p.urls))


def _described(p: Profile) -> dict[str, Any]:
    return {
        "driver": p.driver, "command": list(p.command), "pass_env": list(p.pass_env),
        "memory_limit_bytes": p.memory_limit_bytes, "preset": p.preset, "args": list(p.args), "model": p.model,
        "permissions": p.permissions, "urls": list(p.urls), "account": p.account,
        "policy": p.policy, "in_flight": p.in_flight, "paths": p.paths,
    }  # fmt: skip


def changes(settings: Settings) -> dict[str, Any]:
    """What a flag of now changes in a run that is gone on with, and who pays for its agents now."""
    given = _flags(settings)
    wanted = {name: value for name, value in _changeable(settings).items() if KEY_OF.get(name, name) in given}
    wanted |= {other: "" for name, other in _OTHER.items() if name in given}
    return wanted | {"accounts": payers(settings)}


def refuse_other_checks(settings: Settings, run: Run) -> None:
    """Raise UsageError for a flag that would change what the run's orders were measured by until now."""
    if "checks" in _flags(settings) and settings.checks != tuple(run.checks):
        hint = "leave --check out, or give the run up with `shopfloor stop --cancel` and start another"
        raise UsageError(f"run {run.id} keeps the checks that it was started with", hint=hint)


def carried(settings: Settings, run: Run) -> Settings:
    """The settings for going on with a run: its own, but for what a flag of now says."""
    given = _flags(settings)
    kept = {name: getattr(run, name) for name in CHANGEABLE if KEY_OF.get(name, name) not in given}
    kept |= {other: "" for name, other in _OTHER.items() if name in given}
    if not kept.get("agent", "x"):
        del kept["agent"]
    profiles = {name: msgspec.convert({"name": name, **fields}, Profile) for name, fields in run.profiles.items()}
    return msgspec.structs.replace(
        settings, **kept, agents={**profiles, **settings.agents}, checks=tuple(run.checks), no_check=run.skipped_checks,
        setup=settings.setup if "setup" in given else run.setup,
    )  # fmt: skip


def _changeable(settings: Settings) -> dict[str, Any]:
    return {**{name: getattr(settings, name) for name in CHANGEABLE}, "agent": default_agent(settings)}


def _flags(settings: Settings) -> set[str]:
    return {key for key, source in settings.sources().items() if source.startswith("--")}
