"""Attempts that are calls: which orders they are for, and how many are under way. They take no slot of the machine."""

from __future__ import annotations

from shopfloor.domain.order import Deliverable, Order, Record, State
from shopfloor.domain.runs import Run


def answered(record: Record) -> bool:
    """Whether a call has done it: the end of the call and that of the order are told at once."""
    return record.state is _DONE and bool(record.attempts) and record.attempts[-1].call


# Named here once: on CPython 3.11 naming a member of an enumeration takes longer than to compare it.
_DONE, _ANSWER = State.DONE, Deliverable.ANSWER


class Calls:
    """The calls of one run."""

    def __init__(self, profiles: frozenset[str] = frozenset()) -> None:
        """``profiles``: the agents that answer without a process."""
        self.profiles = profiles
        self._under_way: dict[str, set[str]] = {}

    def lane(self, order: Order, run: Run) -> str:
        """The kind of slot that an attempt of an order takes: its agent where it is a call, else empty."""
        if not self.profiles or order.deliverable is not _ANSWER:
            return ""
        agent = order.agent or run.agent
        return agent if agent in self.profiles else ""

    def note(self, record: Record) -> None:
        """Take in whether an order has a call under way now."""
        attempt = record.attempt
        if attempt is not None and attempt.call:
            orders = self._under_way.setdefault(attempt.profile, set())
            (orders.discard if attempt.outcome else orders.add)(record.order.id)

    def under_way(self, agent: str) -> int:
        """How many calls of one agent."""
        return len(self._under_way.get(agent, ()))

    def __len__(self) -> int:
        """How many, of all agents."""
        return sum(map(len, self._under_way.values()))
