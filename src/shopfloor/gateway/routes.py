"""The ways that are open: each belongs to one attempt, and nobody can guess one."""

from __future__ import annotations

import asyncio
import hmac
from collections.abc import Iterable, Sequence

from shopfloor.domain.budget import Budget, Hold, Over
from shopfloor.ports import Bill, Limit, ModelCall


class Way:
    """One attempt's way to its models."""

    def __init__(
        self, *, secret: str, token: str, attempt: str, order: str, run: str, account: str, secrets: Sequence[str] = ()
    ) -> None:
        self.secret, self.token, self.secrets = secret, token, (secret, token, *secrets)
        self.attempt, self.order, self.run, self.account = attempt, order, run, account
        self.keys: tuple[str, ...] = ()
        self.bill = Bill()
        self.calls: set[asyncio.Task[object]] = set()
        """that are under way"""
        self.newest: dict[str, float] = {}
        """what its newest call cost, by model"""

    def shows(self, token: str) -> bool:
        """Whether this is its token."""
        return hmac.compare_digest(self.token.encode(), token.encode(errors="replace"))


class Routes:
    """All of them, and the money they share."""

    def __init__(self) -> None:
        self.budget = Budget()
        self._first: dict[tuple[str, str], float] = {}
        """what the newest first call of an attempt cost, by run and model"""
        self._guessed: dict[tuple[str, str], set[Hold]] = {}
        """for first calls in flight, by run and model, whose cost nobody knows from another one"""
        self._by_secret: dict[str, Way] = {}
        self._by_attempt: dict[str, Way] = {}
        self._settled = asyncio.Event()

    def open(self, way: Way, limits: Sequence[Limit]) -> None:
        """Open a way; what the same attempt had before goes on with a new address, and one bill."""
        if (before := self._by_attempt.get(way.attempt)) is not None:
            self._by_secret.pop(before.secret, None)
            way.bill, way.newest = before.bill, before.newest
        for limit in limits:
            self.budget.know(limit.key, limit.usd, limit.spent_usd)
        way.keys = tuple(limit.key for limit in limits)
        self._by_secret[way.secret] = self._by_attempt[way.attempt] = way

    def find(self, secret: str) -> Way | None:
        """The way with this secret."""
        return self._by_secret.get(secret)

    def ways(self) -> Iterable[Way]:
        """All that are open."""
        return self._by_attempt.values()

    def secrets(self) -> Iterable[str]:
        """Everything that only an agent of theirs knows."""
        return (secret for way in self._by_attempt.values() for secret in way.secrets)

    async def shut(self, attempt: str) -> Bill:
        """Close an attempt's way, end its calls, and say what it has spent."""
        way = self._by_attempt.pop(attempt, None)
        if way is None:
            return Bill()
        self._by_secret.pop(way.secret, None)
        await end(way.calls)
        return way.bill

    async def close(self) -> None:
        """Close all of them."""
        for attempt in list(self._by_attempt):
            await self.shut(attempt)

    async def reserve(self, way: Way, model: str, guess_usd: float | None) -> Hold | Over:
        """Money for a call; waits while only calls in flight stand in the way.

        As much as its attempt's newest call did cost, or the first one of another attempt; else what is guessed.
        """
        while True:
            known = way.newest.get(model, self._first.get((way.run, model)))
            found = self.budget.reserve(way.keys, guess_usd if known is None else known)
            if found is not None:
                break
            await self._settled.wait()
        if known is None and isinstance(found, Hold):
            self._guessed.setdefault((way.run, model), set()).add(found)
        return found

    def learn(self, way: Way, model: str, cost_usd: float) -> None:
        """Take in what a call did cost. What is in flight on a guess is then likely to cost as much."""
        if model not in way.newest:
            self._first[way.run, model] = cost_usd
            for hold in self._guessed.pop((way.run, model), ()):
                self.budget.keep_more(hold, cost_usd)
        way.newest[model] = cost_usd

    def settle(self, hold: Hold, cost_usd: float | None) -> None:
        """Take a call's cost, once; whoever waits looks again."""
        self.budget.settle(hold, cost_usd)
        for guessed in self._guessed.values():
            guessed.discard(hold)
        self._settled.set()
        self._settled = asyncio.Event()

    def count(self, way: Way, call: ModelCall) -> None:
        """Put a call on the bill of its attempt."""
        way.bill = way.bill.plus(call)


async def end(tasks: Iterable[asyncio.Task[object]]) -> None:
    """Cancel them and wait for their ends."""
    ended = [task for task in tasks if task is not asyncio.current_task()]
    for task in ended:
        task.cancel()
    if ended:
        await asyncio.wait(ended)
