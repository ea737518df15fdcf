"""What may be spent under a name, and what is kept aside for calls that are under way.

Money is whole nano-USD, so that sums are the same in every order. A call keeps aside what it is likely to cost before
it is made and settles with what it did cost. It is made only when spent, kept aside and likely cost together pass no
limit; so what is spent passes a limit by no more than the calls in flight cost beyond what was kept aside for them.
"""

from __future__ import annotations

from collections.abc import Iterable

import msgspec

NANO = 1_000_000_000
MOST_USD = 1e9
CHARS_A_TOKEN = 4
FIRST_ANSWER = 256
"""tokens that the first answer to an attempt is taken to have, where it is allowed so many"""


class Purse(msgspec.Struct):
    """Nano-USD under one name."""

    limit: int
    spent: int = 0
    held: int = 0
    """kept aside for calls in flight"""

    def room(self) -> int:
        """What a new call may cost."""
        return self.limit - self.spent - self.held


class Hold(msgspec.Struct, eq=False):
    """Money kept aside for one call; :meth:`Budget.keep_more` changes it."""

    keys: tuple[str, ...]
    amount: int


class Over(msgspec.Struct, frozen=True):
    """A call must not be made. Amounts are nano-USD."""

    key: str
    limit: int
    spent: int
    likely: int | None
    """None: nobody knows what the call would cost"""

    def told(self, model: str) -> str:
        """One sentence for a person and for the agent."""
        limit, spent = usd(self.limit), usd(self.spent)
        if self.likely is None:
            return (
                f"the price of model {model!r} is not known, so {self.key!r} with its limit of {limit:g} USD cannot "
                f"pay for it: add [gateway.prices.{model!r}] with input and output to .shopfloor.toml"
            )
        rest = max(0.0, usd(self.limit - self.spent))
        return (
            f"the budget of {self.key!r} does not allow this call: {spent:.6g} of {limit:g} USD are spent, "
            f"the call is likely to cost {usd(self.likely):.6g} USD and {rest:.6g} USD are left"
        )


class Budget:
    """All purses of a gateway."""

    def __init__(self) -> None:
        self.purses: dict[str, Purse] = {}

    def know(self, key: str, limit_usd: float, spent_usd: float = 0.0) -> None:
        """Take in a limit. A purse that is known keeps what it has spent; the newest limit counts."""
        purse = self.purses.get(key)
        if purse is None:
            self.purses[key] = Purse(limit=nano(limit_usd), spent=nano(spent_usd))
        else:
            purse.limit = nano(limit_usd)

    def reserve(self, keys: Iterable[str], likely_usd: float | None) -> Hold | Over | None:
        """Keep money aside in every purse, or in none.

        None: only calls in flight stand in the way; ask again when one of them has settled. A call of unknown price is
        refused where there is any limit.
        """
        names = tuple(key for key in dict.fromkeys(keys) if key in self.purses)
        amount = None if likely_usd is None else nano(likely_usd)
        for key in names:
            purse = self.purses[key]
            if amount is None or purse.spent + amount > purse.limit or purse.spent >= purse.limit:
                return Over(key, purse.limit, purse.spent, amount)
        if amount is None:
            return Hold((), 0)
        if any(amount > self.purses[key].room() for key in names):
            return None
        for key in names:
            self.purses[key].held += amount
        return Hold(names, amount)

    def keep_more(self, hold: Hold, likely_usd: float) -> None:
        """Keep as much aside for a call in flight as it is now known to be likely to cost; never less than before."""
        more = max(0, nano(likely_usd) - hold.amount)
        for key in hold.keys:
            self.purses[key].held += more
        hold.amount += more

    def settle(self, hold: Hold, cost_usd: float | None) -> None:
        """Take what the call cost out of its purses; once for each hold. None, not known: what was kept aside."""
        cost = hold.amount if cost_usd is None else nano(cost_usd)
        for key in hold.keys:
            purse = self.purses[key]
            purse.held -= hold.amount
            purse.spent += cost


def nano(amount_usd: float) -> int:
    """Whole nano-USD; what is no amount of money counts as none, what is absurd as the most there is."""
    return round(min(amount_usd, MOST_USD) * NANO) if amount_usd > 0 else 0


def usd(amount: int) -> float:
    """As people read it."""
    return amount / NANO


def likely_tokens(chars: int, most_out: int | None) -> tuple[int, int]:
    """Tokens in and out that the first call of an attempt is likely to use: all of its text, and a short answer."""
    return -(-chars // CHARS_A_TOKEN), FIRST_ANSWER if most_out is None else min(FIRST_ANSWER, most_out)
