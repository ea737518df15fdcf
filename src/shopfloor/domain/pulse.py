"""Whether an agent can work at all: many orders that end at once with nothing done are one failure, not many."""

from __future__ import annotations

from shopfloor.domain.judge import Hold
from shopfloor.domain.names import few
from shopfloor.domain.order import Reason, Record
from shopfloor.domain.policy import Policy

BARREN = frozenset({Reason.ERROR, Reason.SPAWN})
FROM_OUTSIDE = frozenset({-1, -2, -9, -15})
"""Exit codes of what was ended by SIGHUP, SIGINT, SIGKILL or SIGTERM: somebody did that, it is no sign of the agent."""
PROBES = 2
"""Times that a doubtful agent is tried again, each after its back-off, before nothing more is started with it."""


class Pulse:
    """Counts, for each agent, the orders that it failed one after the other without having changed anything.

    An agent that asks for consent, has no key left, or cannot be reached fails every order in the same way. When
    ``policy.barren`` orders have met with that, one of them alone is tried again: a hiccup is over by then, and a
    failure that stays is not paid for with every order there is.
    """

    def __init__(self, policy: Policy) -> None:
        self._most = policy.barren
        self._most_calls = policy.barren_calls
        self._probes = min(PROBES, policy.retries)
        self._barren: dict[str, dict[str, str]] = {}
        self.probes: dict[str, str] = {}
        """doubtful agents, and the order that each of them is tried with"""

    def feel(self, agent: str, record: Record) -> Hold | None:
        """Take in the end of an order's newest attempt."""
        attempt = record.attempts[-1]
        if attempt.outcome == Reason.AUTH:
            return Hold(agent, f"agent {agent!r} was refused by its models: {attempt.message}")
        if attempt.commit not in ("", attempt.base) or (attempt.call and attempt.outcome == "completed"):
            self._barren.pop(agent, None)
            self.probes.pop(agent, None)
        elif (
            attempt.outcome not in BARREN
            or attempt.exit_code in FROM_OUTSIDE
            or (attempt.call and not attempt.transient)
        ):
            # It was stopped, or ended well with nothing to do, or was told what is wrong with what it was asked: that
            # says nothing about the agent.
            self.forget(record.order.id)
        elif most := self._most_calls if attempt.call else self._most:
            return self._failed(agent, record, most)
        return None

    def forget(self, order: str) -> None:
        """Nothing is tried with this order any more."""
        for agent in [agent for agent, probe in self.probes.items() if probe == order]:
            del self.probes[agent]

    def _failed(self, agent: str, record: Record, most: int) -> Hold | None:
        row = self._barren.setdefault(agent, {})
        row[record.order.id] = record.order.name
        if len(row) < most:
            return None
        if record.failures < self._probes:
            self.probes.setdefault(agent, record.order.id)
            return None
        self.forget(record.order.id)
        return Hold(
            agent,
            f"{len(row)} orders one after the other came to nothing with agent {agent!r} "
            f"({few(list(row.values()))}); the last time it was: {record.attempts[-1].message}",
        )
