"""The gateway as the engine uses it: started when the first attempt needs it.

What an attempt costs is what its answers said, not what its agent says. Both are kept, and a difference is told.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from typing import NamedTuple

from shopfloor.domain.errors import ShopfloorError
from shopfloor.domain.order import Reason
from shopfloor.ports import Bill, Gateway, Job, ModelCall, Quota, Route

FAILED = 400
"""HTTP statuses from here on are no answers."""
REFUSING = frozenset({400, 402, 403, 429})
"""Statuses that tell that an account has nothing left, among other things."""
TOLERANCE_USD = 0.001
TOLERANCE = 0.01
"""More than either, and it is told that agent and gateway disagree."""

Told = ModelCall | Quota
"""What an attempt hears of the gateway."""


class Verdict(NamedTuple):
    """Why an attempt could not go on, as the gateway saw it."""

    reason: Reason
    text: str
    reset_at: float | None = None
    limit: str = ""


class Trip:
    """One attempt's way to its models, and what went over it so far."""

    def __init__(self, job: Job, route: Route, tell: Callable[[Told], Awaitable[None]]) -> None:
        self.job = job
        self.route = route
        self.tell = tell
        self.seen = job.spent or Bill()
        self.newest: ModelCall | None = None
        self.quota: Quota | None = None
        self.settled = False
        """the gateway itself has told what went over it"""
        self.replayed = False
        """its answers come from a cassette"""
        self.broken = False
        """the gateway died under it"""

    def take(self, call: ModelCall) -> None:
        """Count a call."""
        self.newest = call
        self.replayed = self.replayed or call.replayed
        self.seen = self.seen.plus(call)

    @property
    def failed(self) -> bool:
        """True when its newest call came to nothing."""
        return self.newest is not None and (self.newest.status >= FAILED or bool(self.newest.refused))

    @property
    def unrecorded(self) -> str:
        """Why its newest call had no answer, when that is because the cassette has none; empty: it had, or other."""
        newest = self.newest
        return newest.why if newest is not None and newest.refused == "cassette" else ""

    def settle(self, bill: Bill | None) -> None:
        """The gateway's own sums are final; None: it could not be asked, and what was heard counts."""
        if bill is not None:
            self.seen, self.settled = bill, True

    def verdict(self) -> Verdict | None:
        """Why its newest call came to nothing, when that is for want of money; None: it did not."""
        seen, newest = self.seen, self.newest
        refused = seen.refused or (newest.refused if newest is not None else "")
        if refused == "budget":
            limits = self.job.limits
            limit = seen.limit or (limits[0].key if len(limits) == 1 else "")
            text = f"the gateway refused a model call: the budget of {limit or 'one of its limits'} is spent"
            return Verdict(Reason.BUDGET, text, limit=limit)
        if refused != "quota" and not (self.failed and self.quota is not None):
            return None
        if self.quota is None:
            return Verdict(Reason.QUOTA, "the gateway refused a model call: its account has nothing left")
        reset_at = self.quota.reset_at if self.quota.told else None
        return Verdict(Reason.QUOTA, f"its account has nothing left: {self.quota.why}", reset_at)

    def sums(self, said_usd: float | None) -> dict[str, object]:
        """Cost and tokens for a fact: those of the gateway. What unpriced calls cost is not known, which is not 0."""
        seen = self.seen
        cost = seen.cost_usd
        if not seen.calls:  # it may have gone around the gateway: then there is only its word
            cost = said_usd if said_usd is not None or not self.settled else 0.0
        return {
            "cost_usd": cost, "said_usd": said_usd, "tokens_in": seen.tokens_in, "tokens_out": seen.tokens_out,
        }  # fmt: skip

    def notes(self, said_usd: float | None) -> tuple[str, ...]:
        """What a person should know of the bill."""
        found = unpriced(self.seen)
        seen = self.seen.cost_usd if self.seen.calls else 0.0
        if said_usd is not None and seen is not None and not self.replayed:
            apart = abs(said_usd - seen)
            if apart > TOLERANCE_USD or apart > TOLERANCE * max(said_usd, seen):
                found.append(f"its agent says that it spent {said_usd:.6g} USD; the gateway has seen {seen:.6g} USD")
        return tuple(found)


class Toll:
    """The gateway of one session of the controller."""

    def __init__(self, start: Callable[[], Awaitable[Gateway]]) -> None:
        """``start`` makes a gateway that runs; it raises Refused when it cannot."""
        self._start = start
        self._gateway: Gateway | None = None
        self._starting = asyncio.Lock()
        self._listening: asyncio.Task[None] | None = None
        self._trips: dict[str, Trip] = {}
        self._quotas: dict[str, Quota] = {}
        """the newest by the account that was asked to pay"""
        self._payers: dict[tuple[str, str], set[str]] = {}
        """the account that was asked to pay, and the one that did -> as the floor calls them"""

    async def open(
        self,
        job: Job,
        tell: Callable[[Told], Awaitable[None]],
        *,
        secrets: Sequence[str] = (),
        again: Route | None = None,
    ) -> Trip:
        """A way for one attempt, or ``again`` the one it had; ``tell`` hears of its calls. Raises Refused."""
        async with self._starting:
            gateway = self._gateway
            if gateway is None:
                gateway = self._gateway = await self._start()
                self._listening = asyncio.create_task(self._listen(gateway))
        # Before it is opened, so that nothing is missed: the first call may come before this one returns.
        trip = self._trips[job.attempt] = Trip(job, Route(url="", token=""), tell)
        try:
            trip.route = await gateway.open(
                job.attempt, order=job.order.id, run=job.order.run, account=job.profile.account, limits=job.limits,
                secrets=secrets, again=again, spent=job.spent,
            )  # fmt: skip
        finally:
            if not trip.route.url:
                del self._trips[job.attempt]
        return trip

    async def shut(self, trip: Trip) -> None:
        """Take the way back and settle the bill; nothing is raised where the gateway is gone."""
        gateway, bill = self._gateway, None
        if gateway is not None:
            with suppress(ShopfloorError, OSError):
                bill = await gateway.shut(trip.job.attempt)
        self._trips.pop(trip.job.attempt, None)
        trip.settle(bill)

    async def close(self) -> None:
        """End the gateway, if there is one."""
        gateway, self._gateway = self._gateway, None
        if gateway is not None:
            await gateway.close()
        if self._listening is not None:
            self._listening.cancel()
            await asyncio.wait({self._listening})

    def payers(self, trip: Trip) -> tuple[str, ...]:
        """All accounts, as the floor calls them, that are the one which has nothing left for this attempt."""
        return tuple(sorted(self._payers.get(_paid(trip), ()))) if trip.quota is not None else ()

    # -- listening --------------------------------------------------------------------------------------------------

    async def _listen(self, gateway: Gateway) -> None:
        while self._gateway is gateway:
            async for told in gateway.heard():
                await self._pass_on(told)
            # It has died, or was closed. It starts again by itself, but calls that were under way came to nothing.
            for trip in self._trips.values():
                trip.broken = True

    async def _pass_on(self, told: ModelCall | Quota) -> None:
        if isinstance(told, Quota):
            self._quotas[told.account] = told
            asked = [trip for trip in self._trips.values() if trip.job.profile.account == told.account]
        else:
            asked = [trip for trip in (self._trips.get(told.attempt),) if trip is not None]
        for trip in asked:
            if isinstance(told, ModelCall):
                trip.take(told)
                self._payers.setdefault(_paid(trip), set()).add(trip.job.account)
                await trip.tell(told)
            await self._look_for_quota(trip)

    async def _look_for_quota(self, trip: Trip) -> None:
        """A call failed for it. Where another account has taken over none did, and nobody is told."""
        call, quota = trip.newest, self._quotas.get(trip.job.profile.account)
        if call is None or quota is None or trip.quota == quota or quota.reset_at <= call.at:
            return
        if call.refused == "quota" or (not call.refused and call.status in REFUSING):
            trip.quota = quota
            await trip.tell(quota)


def _paid(trip: Trip) -> tuple[str, str]:
    return trip.job.profile.account, trip.newest.account if trip.newest is not None else ""


def unpriced(bill: Bill) -> list[str]:
    """That some calls have no known price, where some have none."""
    if not bill.unpriced:
        return []
    return [f"the price of {bill.unpriced} of {bill.calls} model calls is not known; they are not counted"]
