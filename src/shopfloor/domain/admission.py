"""How many agents the machine can bear: lowered at once under pressure, raised again step by step."""

from __future__ import annotations

import msgspec


class Load(msgspec.Struct, frozen=True, kw_only=True):
    """A sample of the machine, as fractions: 0.9 memory used; load of the last minute per core."""

    memory_used: float = 0.0
    cpu_per_core: float = 0.0


class Limits(msgspec.Struct, frozen=True, kw_only=True):
    """Where pressure begins and where it is over; in between nothing changes."""

    memory_high: float = 0.92
    memory_low: float = 0.85
    cpu_high: float = 4.0
    cpu_low: float = 3.0


SETTLES_S = 60.0
"""The load is an average over the last minute: so long it still speaks of the agents that ended since."""


def admit(
    limit: int, most: int, load: Load, limits: Limits, *, lowered_s: float = SETTLES_S, storm_s: float = SETTLES_S
) -> tuple[int, str]:
    """The new limit (1 … ``most``) and why it changed; an empty reason means that it did not.

    ``lowered_s`` is how long ago the limit was lowered: it is not lowered again for a load that is older than that.
    ``storm_s`` is how long ago a model last answered that it is asked too much: for so long the limit is not raised.
    """
    if load.memory_used >= limits.memory_high:
        return _changed(limit, 1, f"memory {load.memory_used:.0%} used")
    if load.cpu_per_core >= limits.cpu_high:
        if lowered_s < SETTLES_S:
            return limit, ""
        return _changed(limit, max(1, limit // 2), f"load {load.cpu_per_core:.1f} per core")
    if storm_s < SETTLES_S:
        if lowered_s < SETTLES_S:
            return limit, ""
        return _changed(limit, max(1, limit // 2), "a model answers that it is asked too much")
    if load.memory_used <= limits.memory_low and load.cpu_per_core <= limits.cpu_low:
        why = f"memory {load.memory_used:.0%} used, load {load.cpu_per_core:.1f} per core"
        return _changed(limit, min(most, limit * 2), why)
    return limit, ""


def _changed(old: int, new: int, why: str) -> tuple[int, str]:
    return new, why if new != old else ""
