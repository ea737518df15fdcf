"""The checks of an order's newest verification, read from its evidence."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import msgspec

from shopfloor.domain.order import Record


class Checked(NamedTuple):
    """One check that ran. ``exit_code`` None: it was ended; ``log``: the path of its output."""

    command: str
    passed: bool
    required: bool
    exit_code: int | None
    duration_s: float
    log: str


class _Evidence(msgspec.Struct):
    exit_code: int | None = None


class _Criterion(msgspec.Struct):
    command: str
    passed: bool
    required: bool = True
    log: str = ""
    duration_ms: float = 0.0
    evidence: _Evidence = msgspec.field(default_factory=_Evidence)


class _Verdict(msgspec.Struct):
    criteria: list[_Criterion] = msgspec.field(default_factory=list)


def checked(record: Record) -> list[Checked]:
    """Its checks in the order they ran; none when there is no evidence, or it cannot be read."""
    if not record.evidence:
        return []
    folder = Path(record.evidence)
    try:
        found = msgspec.json.decode((folder / "verdict.json").read_bytes(), type=_Verdict)
    except (OSError, msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return []
    return [
        Checked(c.command, c.passed, c.required, c.evidence.exit_code, c.duration_ms / 1000, str(folder / c.log))
        for c in found.criteria
    ]
