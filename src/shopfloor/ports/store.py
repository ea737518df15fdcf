"""The log, and what is derived from it."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from typing import Any, Literal, Protocol

import msgspec

from shopfloor.domain.events import Event
from shopfloor.domain.holder import Wanted

CONTROLLER = "controller"
"""The key of ``expect`` that stands for how many controllers have led: nothing of a newer one was overlooked."""


class Query(msgspec.Struct, frozen=True, kw_only=True):
    """A question to the store's index; conditions are joined by *and*, empty ones do not count.

    ``board`` is answered with one row: ``board``, the fold of the log up to ``position``. Without conditions it is
    whole. With ``order`` it has at least the orders that are meant, what they wait for and what is at work in their
    runs; with ``run`` all of that run; with ``state`` ``open`` all runs that are not at rest, and the newest one. Runs
    that are not whole then are named in ``board.absent``. The board is the caller's own.

    ``loose`` is answered with one row: ``records``, as JSON, of the orders of no run that changed behind the position
    ``after``, the oldest first; ``ages``, a number for each by which they come in that order, and ``newest``, the
    greatest of any; ``position``, the end of the log; ``log``, a number that tells it from another log; ``states``, how
    many orders of no run are in which. ``state`` is ``finished`` for those that are done or cancelled, ``unfinished``
    for the others, or one of the states. With ``limit`` the first so many come by when they last changed, and unless
    there are fewer, ``position`` is behind the last of them: whoever goes on from there misses none. With ``urgent``
    too they are the first by priority and age.
    """

    what: Literal["orders", "events", "runs", "meta", "board", "loose", "ready", "held", "holders"] = "orders"
    order: str = ""
    """id, name or unique beginning of an id; for ``held`` an id"""
    run: str = ""
    state: str = ""
    limit: int = 0
    wanted: Wanted = Wanted()
    """``ready`` only: which orders would be taken"""
    after: int = 0
    """``loose`` only: a position of the log"""
    urgent: bool = False
    """``loose`` only: the first so many by priority"""


class Store(Protocol):
    """The log, and what is derived from it."""

    async def append(
        self, events: Sequence[Event], *, expect: Mapping[str, int] | None = None, at_most: int = 0
    ) -> list[Event]:
        """Make one logical change durable: all of the events count, or none. Returns them as stamped.

        With ``at_most`` each event is a change of its own, and the first so many whose order is as expected are
        written and returned, perhaps fewer: who claims one of many orders need not try them one after the other. The
        event at a place is about the order at that place in ``expect``, and only asked for when it may be written.
        An order that somebody speaks of at this moment may be passed over where another one is free.

        ``expect`` maps an order's id to the generation it must have now, and ``CONTROLLER`` to how many controllers
        have led; else Conflict, and nothing is written. A store that leads refuses with Conflict once a newer
        controller has started. What a session says by itself (``fold.by_session``) is refused with Conflict while a
        controller is alive, in the same moment in which it would be written. Raises Refused when the disk is full or
        read-only (nothing counts then).
        """
        ...

    def read(self, after: int = 0, *, others: bool = False) -> AsyncIterator[tuple[int, Event]]:
        """All events after a position (0: the beginning) up to now, oldest first, each with the position behind it.

        Incomplete groups and malformed lines are left out and reported by ``query(what="meta")``. ``others``: what this
        store wrote itself as the leading one may be left out.
        """
        ...

    async def wait(self, after: int, timeout_s: float, *, others: bool = False) -> bool:
        """True as soon as the log is longer than ``after``; False when the time is over.

        ``others``: not by what this store wrote itself as the leading one.
        """
        ...

    async def query(self, query: Query) -> list[dict[str, Any]]:
        """Rows of the derived index, always as new as the log."""
        ...

    async def lead(self, info: Mapping[str, Any]) -> int:
        """Become the one controller and return the new generation (1, 2, …). Raises Conflict when one is alive."""
        ...
