"""Whether more events come in than is worth while to bring up piece by piece."""

from __future__ import annotations

RUSH = 400
"""Events from one look to the next, while which nothing is brought up that nobody asks for."""
CALM = 4
"""Looks with fewer of them, after which a rush is over."""


class Rush:
    """To be looked at four times a second. Written by one thread, and read by another."""

    def __init__(self) -> None:
        self._events = 0
        self._calm = CALM

    def look(self, events: int) -> bool:
        """True while it lasts; ``events`` is how many there have been at all."""
        new, self._events = events - self._events, events
        self._calm = 0 if new >= RUSH else self._calm + 1
        return bool(self)

    def __bool__(self) -> bool:
        """Whether it lasted when it was last looked at."""
        return self._calm < CALM
