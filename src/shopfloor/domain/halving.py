"""Which height of a stack to test next, until it is known how far from the bottom it is good.

The whole stack first; when that is red, halving between the highest that is good and the lowest that is red. The lowest
red one is blamed only when it is red again: what is green then was red for nothing, and the search goes on above it.
"""

from __future__ import annotations

from typing import NamedTuple


class Probe(NamedTuple):
    """Test the lowest ``height`` layers together; ``again``: they were red, and nobody was blamed for it yet."""

    height: int
    again: bool = False


class Halving:
    """The search through one stack of ``height`` layers, told of one result after the other."""

    def __init__(self, height: int) -> None:
        self.good = 0
        """everything up to here is good together"""
        self.blamed = 0
        """the layer that makes it red; 0: none was found"""
        self._reds: list[int] = []
        """heights that were red once, the lowest last"""
        self._next: Probe | None = Probe(height)

    def next(self) -> Probe | None:
        """What to find out now; None when the search is over."""
        return self._next

    def told(self, *, green: bool) -> None:
        """How the test that was asked for went."""
        if self._next is None:
            return
        height, again = self._next
        if green:
            self.good = height
            self._reds = [red for red in self._reds if red > height]
        elif again:
            self.blamed = height
        else:
            self._reds.append(height)
        self._next = self._following() if self._reds and not self.blamed else None

    def _following(self) -> Probe:
        red = self._reds[-1]
        return Probe(red, again=True) if red - self.good == 1 else Probe((self.good + red) // 2)
