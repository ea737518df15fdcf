"""What a campaign is told, and what it hands back."""

from __future__ import annotations

import msgspec

from benchmarks.figures import Figure


class Options(msgspec.Struct, frozen=True, kw_only=True):
    """How a campaign is to run. The same options give the same faults and inputs, not the same timing."""

    seed: int = 1
    size: float = 1.0
    """1: the whole campaign; 0.02: a fiftieth of its rounds, inputs or seconds"""


class Outcome(msgspec.Struct, frozen=True, kw_only=True):
    """What was found. A figure whose ``ok`` is False is a promise that did not hold."""

    figures: list[Figure]
    untested: list[str] = msgspec.field(default_factory=list)
    """what a reader may take for covered and is not, a sentence each"""
