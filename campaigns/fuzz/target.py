"""What a fuzz target is: how its input is made, and what must hold for every input there is."""

from __future__ import annotations

import zlib
from collections.abc import Callable
from random import Random
from typing import NamedTuple

from campaigns.fuzz.mutate import Mutator
from shopfloor.domain.names import printable

READ, REFUSED = "read", "refused"
"""What a check answers: the input was taken, or it was refused as it should be. Everything else it raises."""


Check = Callable[[bytes], str]
"""Raises when a promise does not hold for an input; what it raises is the finding."""


class Target(NamedTuple):
    """One reader."""

    name: str
    make: Callable[[Mutator], bytes]
    check: Check
    share: int
    """parts of all inputs that it gets"""


def holds(condition: object, *facts: object) -> None:
    """Raise AssertionError with the facts, unless it holds. Unlike ``assert`` it stays under ``-O``."""
    if not condition:
        raise AssertionError(" | ".join(str(fact) if isinstance(fact, str) else repr(fact) for fact in facts))


def harmless(text: str, what: str, *, lines: bool = False) -> None:
    """Raise AssertionError for text that could move a cursor, turn the writing round, or forge a line."""
    holds(printable(text) == text and "\t" not in text and (lines or "\n" not in text), what, text)


def chance(data: bytes) -> Random:
    """Choices that follow from the input alone, so that it fails again when it is tried again."""
    return Random(zlib.crc32(data))
