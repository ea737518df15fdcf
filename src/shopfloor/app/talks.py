"""Conversations with models for programs: through the floor's gateway where it is set up, else with a person's key."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Awaitable, Callable, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Protocol, Self

import msgspec

from shopfloor.app import gateway
from shopfloor.app.floor import Shopfloor
from shopfloor.app.money import routed, trouble
from shopfloor.config import worker_environment
from shopfloor.muscle.events import Spent
from shopfloor.muscle.program import COMMAND_S, endpoint_of, load
from shopfloor.muscle.tools import Tools
from shopfloor.ports import Capabilities, Gateway, Limit, Profile
from shopfloor.spawn import Guard

BUDGET = "talks"
"""whose limit the run's budget is: all conversations of one program together"""
_CAN = Capabilities(cost=True, tokens=True, gateway=True)


class Talk(Protocol):
    """A conversation; use it as an async context manager."""

    spent: Spent

    async def turn(self, prompt: str) -> str:
        """The model's answer, after as many tool calls as it makes. Raises ShopfloorError."""
        ...

    async def __aenter__(self) -> Self: ...

    async def __aexit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None: ...


class Talks:
    """All conversations of one program: ``talk = await talks.open("anthropic/…", folder=…)``; ``close`` ends them."""

    def __init__(self, floor: Shopfloor) -> None:
        self._place = floor.place
        self._guard: Guard | None = None
        self._gateway: Gateway | None = None
        self._draining: asyncio.Task[None] | None = None
        self._live: list[Talk] = []
        self._past = Spent()
        """by the talks that have ended"""

    @property
    def spent(self) -> Spent:
        """What all of them have come to so far."""
        found = msgspec.structs.replace(self._past)
        for talk in self._live:
            _add(found, talk.spent)
        return found

    async def open(
        self,
        model: str,
        *,
        folder: Path,
        only: Sequence[str] = ("bash", "edit"),
        extras: Sequence[Any] = (),
        words: Callable[[], str] = str,
        remembered: int = 30,
        steps: int = 0,
        account: str = "",
        environment: Mapping[str, str] | None = None,
    ) -> Talk:
        """A new one with ``provider/name``; its tools work in ``folder``, see ``muscle/conversation.py`` for the rest.

        ``environment`` goes before the floor's own where address and key of the model are looked for. Raises
        UsageError for an unknown provider, NotFound without a key or without the extra ``muscle``, Refused where it is
        to go through the gateway and cannot.
        """
        await asyncio.to_thread(load, model)  # others go on meanwhile
        from shopfloor.muscle.conversation import Conversation
        from shopfloor.muscle.models import Endpoint

        place = self._place
        guard = self._guard = self._guard or Guard()
        access, ended = await self._way(guard, model, account, {**place.environment, **(environment or {})})
        commands = worker_environment(place.environment, workspace=str(folder))

        async def over() -> None:
            self._live.remove(talk)
            _add(self._past, talk.spent)
            if ended is not None:
                await ended()

        talk = Conversation(
            Endpoint(**endpoint_of(model, access)), tools=Tools(guard, folder, commands, timeout_s=COMMAND_S),
            only=only, extras=extras, words=words, remembered=remembered, steps=steps, ended=over,
        )  # fmt: skip
        self._live.append(talk)
        return talk

    async def close(self) -> None:
        """End what the tools of all of them left running, and the gateway. May be called again."""
        gate, self._gateway = self._gateway, None
        if gate is not None:
            await gate.close()
        if self._draining is not None:
            await asyncio.wait({self._draining})
        guard, self._guard = self._guard, None
        if guard is not None:
            await guard.close()

    async def _way(
        self, guard: Guard, model: str, account: str, env: Mapping[str, str]
    ) -> tuple[Mapping[str, str], Callable[[], Awaitable[None]] | None]:
        """Where the model is found, and what is to be called at the end."""
        place, profile = self._place, Profile(name=BUDGET, driver="muscle", model=model, account=account)
        usd = place.settings.budget_usd
        if not routed(place.settings, env, profile, _CAN, limited=usd is not None):
            return env, None
        if (problem := trouble(place.settings, env, profile)) is not None:
            raise problem
        gate, name = self._gate(guard, env), f"{BUDGET}-{secrets.token_hex(6)}"
        limits = () if usd is None else (Limit(key=BUDGET, usd=usd),)
        route = await gate.open(name, order="", run="", account=account, limits=limits)
        url = route.url + ("" if model.startswith("anthropic/") else "/v1")

        async def ended() -> None:
            await gate.shut(name)

        return {**env, "MINI_API_BASE": url, "MINI_API_KEY": route.token}, ended

    def _gate(self, guard: Guard, env: Mapping[str, str]) -> Gateway:
        if self._gateway is None:
            place = self._place
            self._gateway = gateway.process(place.settings, env, guard, root=place.work.parent, work=place.work)
            self._draining = asyncio.create_task(_drain(self._gateway))
        return self._gateway


def _add(total: Spent, more: Spent) -> None:
    """A price that is not known makes the whole unknown."""
    total.usd = None if total.usd is None or more.usd is None else total.usd + more.usd
    total.calls += more.calls
    total.tokens_in += more.tokens_in
    total.tokens_out += more.tokens_out


async def _drain(gate: Gateway) -> None:
    """Its ledger keeps what it tells; nobody here listens."""
    async for _told in gate.heard():
        pass
