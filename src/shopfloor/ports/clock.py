"""Time is a parameter."""

from __future__ import annotations

from typing import Protocol

class Clock(Protocol):
    """Two clocks: wall time for records, awake time (stands still while the machine sleeps) for silence and time-outs."""

    def wall(self) -> float: ...

    def awake(self) -> float: ...
