"""Agent drivers: one file for each kind of agent."""

from __future__ import annotations

from collections.abc import Mapping
from importlib import import_module
from pathlib import Path

from shopfloor.domain.errors import NotFound
from shopfloor.ports import Agent
from shopfloor.spawn import Guard

DRIVERS: dict[str, str] = {
    "acp": "shopfloor.agents.acp:AcpAgent",
    "claude_code": "shopfloor.agents.claude_code:ClaudeCodeAgent",
    "command": "shopfloor.agents.command:CommandAgent",
    "http": "shopfloor.agents.http:HttpAgent",
    "jsonlines": "shopfloor.agents.jsonlines:JsonLinesAgent",
    "mini": "shopfloor.agents.mini:MiniAgent",
    "muscle": "shopfloor.agents.muscle:MuscleAgent",
    "scripted": "shopfloor.agents.scripted:ScriptedAgent",
    "specs": "shopfloor.agents.specs:SpecsAgent",
    "tmux": "shopfloor.agents.tmux:TmuxAgent",
}
"""Driver names, and where each is."""


def drivers(
    guard: Guard, environment: Mapping[str, str] | None = None, *, root: Path | None = None
) -> dict[str, Agent]:
    """Every driver by name; ``environment`` and ``root`` as for :func:`driver`."""
    return {name: driver(name, guard, environment, root=root) for name in DRIVERS}


def driver(name: str, guard: Guard, environment: Mapping[str, str] | None = None, *, root: Path | None = None) -> Agent:
    """A driver by name, or by ``module:Class`` where it is somebody's own: made with the same arguments as ours.

    ``environment`` is where ``probe`` looks for programs, ``root`` where relative ones are. Raises NotFound for a name
    that is not in ``DRIVERS``, and for a module or class that is not there.
    """
    if name not in DRIVERS and ":" not in name:
        hint = f"choose one of {', '.join(DRIVERS)}, or name your own: module:Class"
        raise NotFound(f"there is no agent driver {name!r}", hint=hint)
    module, _, attribute = DRIVERS.get(name, name).partition(":")
    try:
        kind = getattr(import_module(module), attribute)
    except (ImportError, AttributeError) as problem:
        if name in DRIVERS:
            raise
        hint = "install it into this environment, or mend the name"
        raise NotFound(f"agent driver {name!r} cannot be loaded: {problem}", hint=hint) from problem
    made: Agent = kind(guard, environment=environment, root=root)
    return made
