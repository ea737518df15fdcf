"""What each kind of agent was seen to do: rows of ``observed.toml``, written by runs against the real programs."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path

import msgspec

from shopfloor.ports import Capabilities

FILE = Path(__file__).with_name("observed.toml")
NAMES: tuple[str, ...] = Capabilities.__struct_fields__
"""of all capabilities"""
HEAD = """\
# What each agent was seen to do, by which driver, in which version, on which day. Written by runs against the real
# programs (`python tools/agents.py observe`); a row that is edited by hand is found out by `make agents`. Where
# there is no one program to run, `stand_in` says what was run, and the version is that of Shopfloor.
"""


class Observed(msgspec.Struct, frozen=True, kw_only=True):
    """One agent, as one driver was seen to drive it."""

    driver: str
    preset: str = ""
    program: str = ""
    """its name on PATH, and ``PROGRAM --version`` says which one is there; empty: whatever a profile names"""
    version: str
    """that was observed"""
    date: str
    """``2026-01-31``"""
    model: str = ""
    """that it was told to use, where it has to be told"""
    stand_in: str = ""
    """what was run in place of a program that cannot be had, or of any that a profile may name"""
    capabilities: tuple[str, ...] = ()
    """those that were seen, as :class:`Capabilities` names them"""


class _Table(msgspec.Struct, forbid_unknown_fields=True):
    agent: list[Observed] = []


def read_observed(text: str | None = None) -> list[Observed]:
    """The rows of a text, or of the file that comes with the package. Raises msgspec.ValidationError."""
    return msgspec.toml.decode(FILE.read_text(encoding="utf-8") if text is None else text, type=_Table).agent


def written(rows: Iterable[Observed]) -> str:
    """Rows as the file has them, in order."""
    blocks = [HEAD]
    for row in sorted(rows, key=lambda row: (row.driver, row.preset, row.program, row.version)):
        fields = msgspec.to_builtins(row)
        lines = [f"{name} = {json.dumps(value, ensure_ascii=False)}" for name, value in fields.items()]
        blocks.append("\n".join(["[[agent]]", *lines, ""]))
    return "\n".join(blocks)


def names(capabilities: Capabilities) -> tuple[str, ...]:
    """The names of those that are claimed."""
    return tuple(name for name in NAMES if getattr(capabilities, name))
