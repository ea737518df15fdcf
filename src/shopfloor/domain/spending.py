"""What is spent, and what may be: by a run, an order, an attempt."""

from __future__ import annotations

from shopfloor.domain.order import Record
from shopfloor.domain.runs import Run


class Spending:
    """The sum of what the attempts of a run have cost, kept up to date order by order."""

    def __init__(self) -> None:
        self._cost: dict[str, int] = {}
        self._spent = 0
        """nano-USD: whole numbers add up to the same in every order"""

    def note(self, record: Record) -> None:
        """Take in what an order has cost by now."""
        order, usd = record.order.id, record.cost_usd
        if usd is None and order not in self._cost:
            return
        cost = round((usd or 0.0) * 1e9)
        self._spent += cost - self._cost.get(order, 0)
        self._cost[order] = cost

    @property
    def spent_usd(self) -> float:
        """What the run's attempts cost so far; unpriced attempts do not count."""
        return self._spent / 1e9

    def over(self, run: Run | None) -> bool:
        """True when as much is spent as the run may spend, or the gateway has refused it more."""
        if run is None or run.budget_usd is None:
            return False
        return run.exhausted or self.spent_usd >= run.budget_usd

    def word(self, run: Run) -> str:
        """That the run's budget is spent, and how much of it."""
        return f"the budget of {run.budget_usd:g} USD is spent ({self.spent_usd:.4g} USD)"


def order_spent(record: Record) -> str:
    """That an order has spent what it may, in words; empty while it has not."""
    limit = record.order.budget_usd
    if limit is None or (record.cost_usd or 0.0) < limit:
        return ""
    return f"the order's budget of {limit:g} USD is spent ({record.cost_usd or 0.0:.4g} USD)"


def attempt_spent(record: Record, run: Run) -> str:
    """The same of its newest attempt."""
    limit, attempt = run.attempt_budget_usd, record.attempt
    if limit is None or attempt is None or (attempt.cost_usd or 0.0) < limit:
        return ""
    return f"an attempt may spend {limit:g} USD, and this one did ({attempt.cost_usd or 0.0:.4g} USD)"
