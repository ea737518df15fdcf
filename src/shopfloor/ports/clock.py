"""Time is a parameter."""

from __future__ import annotations

from typing import Protocol


class Clock(Protocol):
    """Wall time for records; awake time, which stands still while the machine sleeps, for silence and time-outs."""

    def wall(self) -> float: ...

    def awake(self) -> float: ...
