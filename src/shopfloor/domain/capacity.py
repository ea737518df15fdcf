"""What the floor decides within: the time, and the room that there is."""

from __future__ import annotations

from typing import NamedTuple

import msgspec


class Now(NamedTuple):
    """Both clocks, in seconds: wall time since the epoch, and awake time, which stands still during sleep."""

    wall: float
    awake: float


class Capacity(msgspec.Struct, frozen=True, kw_only=True):
    """What the machine has room for now."""

    starts: int = 0
    checks: int = 0
    landing: bool = False
    """True while no landing is under way"""
