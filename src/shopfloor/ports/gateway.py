"""The gateway: every model call of an attempt counted, priced, and refused before it costs more than it may."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from typing import Protocol

import msgspec

from shopfloor.ports.agents import Route


class Limit(msgspec.Struct, frozen=True, kw_only=True):
    """What may be spent under one name; attempts that share the name share the money."""

    key: str
    """e.g. ``run:run-7ab2c``, ``order:wo-x1``, ``attempt:wo-x1.a2``"""
    usd: float
    spent_usd: float = 0.0
    """before this gateway knew of it; counts only when it has not heard of ``key`` yet"""


class ModelCall(msgspec.Struct, frozen=True, kw_only=True):
    """One model call, as it stands in the ledger. Times are wall seconds, durations seconds."""

    at: float
    attempt: str
    order: str = ""
    run: str = ""
    account: str = ""
    dialect: str = ""
    """``anthropic``, ``openai-chat``, ``openai-responses`` or ``gemini``"""
    model: str = ""
    status: int = 0
    """HTTP status that the agent was answered with; 0: it hung up before there was one"""
    refused: str = ""
    """``budget`` or ``quota``: it was not forwarded; ``cassette``: it was not recorded; empty: it was answered"""
    why: str = ""
    """in words, where it was refused"""
    replayed: bool = False
    """it was answered from a cassette: nothing was spent"""
    limit: str = ""
    """the ``key`` of the limit that it was refused for"""
    tokens_in: int = 0
    """all that went in, those from the cache included"""
    tokens_out: int = 0
    tokens_cached: int = 0
    cost_usd: float | None = None
    """None: unpriced, which is not the same as 0"""
    estimated: bool = False
    """it ended before its answer said what it used: tokens and money are reckoned from what went by"""
    first_byte_s: float = 0.0
    took_s: float = 0.0


class Quota(msgspec.Struct, frozen=True, kw_only=True):
    """An account has nothing left for now."""

    account: str
    """as ``open`` was asked for it; empty: those that named none"""
    reset_at: float
    """wall seconds, as the answer told it, else a guess that grows"""
    why: str
    """what the answer said"""
    told: bool = True
    """the answer named the time; False: it is a guess"""


class Bill(msgspec.Struct, frozen=True, kw_only=True):
    """What an attempt has spent in all, by what the answers said."""

    calls: int = 0
    unpriced: int = 0
    """calls that were answered and have no known price"""
    cost_usd: float | None = None
    """of the priced ones; None: there is none"""
    tokens_in: int = 0
    tokens_out: int = 0
    refused: str = ""
    """why its newest call was not forwarded; empty: it was"""
    limit: str = ""
    """the ``key`` of the limit that its newest call was refused for"""

    def plus(self, call: ModelCall) -> Bill:
        """The bill with one more call."""
        cost = self.cost_usd if call.cost_usd is None else (self.cost_usd or 0.0) + call.cost_usd
        answered = not call.refused and bool(call.tokens_in or call.tokens_out)
        return Bill(
            calls=self.calls + (not call.refused),
            unpriced=self.unpriced + (answered and call.cost_usd is None),
            cost_usd=cost,
            tokens_in=self.tokens_in + call.tokens_in,
            tokens_out=self.tokens_out + call.tokens_out,
            refused=call.refused,
            limit=call.limit,
        )


class Gateway(Protocol):
    """Gives each attempt a way of its own to its models. Keys stay behind it."""

    async def open(
        self,
        attempt: str,
        *,
        order: str,
        run: str,
        account: str = "",
        limits: Sequence[Limit] = (),
        secrets: Sequence[str] = (),
        again: Route | None = None,
        spent: Bill | None = None,
    ) -> Route:
        """A new way; or ``again`` one that an earlier gateway gave, at the same address, over which ``spent`` has gone.

        What stands in ``secrets``, which its agent was given, is in no recording. Raises Refused when the gateway does
        not run, does not know the account, or cannot be had at that address.
        """
        ...

    async def shut(self, attempt: str) -> Bill:
        """Take it away: later calls are answered with 401. Harmless when there is none."""
        ...

    def heard(self) -> AsyncIterator[ModelCall | Quota]:
        """Calls and closed accounts as they happen, until its process dies or it is closed.

        One that died starts again by itself, with the ways that are open, and can be heard again.
        """
        ...

    async def close(self) -> None:
        """End it, and every call that is under way; harmless when repeated."""
        ...
