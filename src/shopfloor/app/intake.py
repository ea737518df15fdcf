"""From wishes to orders: names become ids, what cannot work is refused before anything is spent."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterable, AsyncIterator, Iterable, Mapping, Sequence
from contextlib import aclosing
from itertools import islice
from operator import attrgetter
from pathlib import Path

import msgspec

from shopfloor.app.carry import default_agent
from shopfloor.app.money import routed, trouble
from shopfloor.config.settings import Settings
from shopfloor.domain.errors import NotFound, Refused, ShopfloorError, UsageError
from shopfloor.domain.graph import check_acyclic, collisions, critical_path, depth_below, waves
from shopfloor.domain.names import few
from shopfloor.domain.order import Order
from shopfloor.domain.plan import ageing_key
from shopfloor.ports import Agent, Capabilities, Probe, Profile
from shopfloor.prompts import PromptOrder, order_from_text, read_prompts
from shopfloor.workspaces.nowhere import no_git

Wish = PromptOrder | Path | str
"""A prompt file that was read, the path of one, or the text itself."""
Wishes = Iterable[Wish] | AsyncIterable[Sequence[Wish]]
AT_ONCE = 250
"""Wishes that become orders in one change."""


class Stream:
    """Wishes that are taken piece by piece."""

    def __init__(self, pieces: Iterable[Sequence[PromptOrder]] | AsyncIterable[Sequence[PromptOrder]]) -> None:
        self.known: dict[str, str] = {}
        """orders by name that others of the stream may wait for"""
        self._pieces = pieces if isinstance(pieces, AsyncIterable) else _later(pieces)
        self._there: frozenset[str] = frozenset()

    def skip(self, names: Mapping[str, str]) -> None:
        """Those with these names are orders already."""
        self.known |= names
        self._there = frozenset(names)

    async def first(self) -> Sequence[PromptOrder]:
        """The first piece with something in it. Raises UsageError when there is none."""
        async with aclosing(self.rest()) as pieces:
            async for piece in pieces:
                return piece
        raise UsageError("there is nothing to do: no orders were given", hint="shopfloor run prompts/*.md")

    async def rest(self) -> AsyncGenerator[Sequence[PromptOrder], None]:
        """The pieces that are left, without what is there already."""
        async for piece in self._pieces:
            if wanted := [wish for wish in piece if wish.name not in self._there]:
                yield wanted


async def _later(pieces: Iterable[Sequence[PromptOrder]]) -> AsyncIterator[Sequence[PromptOrder]]:
    for piece in pieces:
        yield piece


async def _read_later(pieces: AsyncIterable[Sequence[Wish]]) -> AsyncIterator[Sequence[PromptOrder]]:
    async for piece in pieces:
        yield read(piece)


def stream(wishes: Wishes) -> Stream:
    """Wishes as they come. What is off in one of them is raised when it is taken."""
    if isinstance(wishes, AsyncIterable):
        return Stream(_read_later(wishes))
    left = iter(wishes)
    return Stream(read(piece) for piece in iter(lambda: list(islice(left, AT_ONCE)), []))


class PlanView(msgspec.Struct, frozen=True, kw_only=True):
    """A dry run: everything by order name."""

    waves: list[list[str]]
    """what could start together at the earliest"""
    collisions: list[tuple[str, str, list[str]]]
    """pairs that will not run side by side, and the declared paths they share"""
    critical_path: list[str]
    start_order: list[str]
    max_parallel: int
    agents: dict[str, str]
    checks: dict[str, list[str]]
    depends_on: dict[str, list[str]]
    problems: list[str]
    """why a run of these would be refused"""


def read(wishes: Sequence[Wish]) -> list[PromptOrder]:
    """All wishes in the order given. Raises UsageError that lists everything that is off in any of them."""
    paths = [w for w in wishes if isinstance(w, Path)]
    by_file = iter(read_prompts(paths) if paths else [])
    found = []
    for wish in wishes:
        if isinstance(wish, Path):
            found.append(next(by_file))
        else:
            found.append(order_from_text(wish) if isinstance(wish, str) else wish)
    return found


def make_orders(
    wanted: Sequence[PromptOrder], *, run: str, now: float, ids: Sequence[str], known: dict[str, str] | None = None
) -> tuple[Order, ...]:
    """Orders with ids; dependencies by name become dependencies by id. Raises UsageError for doubles and circles.

    ``known`` are orders that are there already, by name, and may be waited for; the new ones are added to it.
    """
    by_name: dict[str, str] = {} if known is None else known
    here: set[str] = set()
    for wish, order_id in zip(wanted, ids, strict=False):
        if wish.name in here:
            raise UsageError(f"two orders are named {wish.name!r}", hint="rename one of the files")
        here.add(wish.name)
        by_name[wish.name] = order_id
    orders = tuple(_order(wish, by_name, run, now) for wish in wanted)
    if any(o.depends_on for o in orders):
        check_acyclic({o.id: o.depends_on for o in orders}, {o.id: o.name for o in orders})
    return orders


def _order(wish: PromptOrder, by_name: Mapping[str, str], run: str, now: float) -> Order:
    if missing := [need for need in wish.depends_on if need not in by_name]:
        raise UsageError(
            f"{wish.name!r} depends on {missing[0]!r}, which is not among these orders",
            hint=f"give that prompt file too, or take it out of depends_on (there are: {', '.join(sorted(by_name))})",
        )
    fields = dict(zip(_SHARED, _shared(wish), strict=True))
    fields |= {"id": by_name[wish.name], "depends_on": tuple([by_name[n] for n in wish.depends_on])}
    return Order(**fields, run=run, created_at=now, extra={"metadata": wish.metadata} if wish.metadata else {})


_SHARED = tuple(f for f in PromptOrder.__struct_fields__ if f in Order.__struct_fields__)
_shared = attrgetter(*_SHARED)


async def probe(
    orders: Sequence[Order], settings: Settings, agents: Mapping[str, Agent]
) -> dict[str, tuple[Profile, Probe]]:
    """A look at every agent that these orders need, by profile name. Raises for an unknown profile."""
    found: dict[str, tuple[Profile, Probe]] = {}
    for name in dict.fromkeys(order.agent for order in orders):
        profile = settings.profile(name)
        if profile.name not in found:
            found[profile.name] = (profile, await agents[profile.driver].probe(profile))
    return found


async def problems(
    orders: Sequence[Order], settings: Settings, agents: Mapping[str, Agent], environment: Mapping[str, str]
) -> list[ShopfloorError]:
    """Everything for which a run of these orders would be refused, worst first."""
    found: list[ShopfloorError] = []
    try:
        for profile, seen in (await probe(orders, settings, agents)).values():
            if not seen.found:
                found.append(NotFound(seen.problem or f"agent {profile.name!r} cannot be used here", hint=seen.hint))
                continue
            limit, can = _limit(profile, orders, settings), seen.capabilities
            through = routed(settings, environment, profile, can, limited=limit is not None)
            if through and (problem := trouble(settings, environment, profile)) is not None:
                found.append(problem)
            if limit is not None and not (can.cost or through):
                found.append(_unseen_cost(profile, limit, can))
    except ShopfloorError as error:
        found.append(error)
    bare = [o.name for o in orders if not o.checks and o.deliverable == "change"]
    if bare and not settings.checks and not settings.no_check:
        found.append(
            Refused(
                f"there is no check, so nothing would show whether the work is good: {few(bare)}",
                hint="give one with --check 'COMMAND', write it into .shopfloor.toml, or say --no-check",
            )
        )
    return found


def without_calls(
    orders: Sequence[Order], settings: Settings, answering: frozenset[str], root: Path
) -> list[ShopfloorError]:
    """Why these orders cannot be performed without a repository; nothing when each is one call of an agent."""
    bare = [o.name for o in orders if o.deliverable == "change"]
    others = {settings.profile(o.agent).name for o in orders} - answering
    if bare:
        return [no_git(root, f"{few(bare)} must hand back a change")]
    return [no_git(root, f"agent {name!r} works in a checkout") for name in sorted(others)]


def _limit(profile: Profile, orders: Sequence[Order], settings: Settings) -> float | None:
    """The narrowest limit for what this agent spends, None: there is none."""
    own = [o.budget_usd for o in orders if settings.profile(o.agent).name == profile.name]
    limits = [limit for limit in (settings.budget_usd, settings.attempt_budget_usd, *own) if limit is not None]
    return min(limits, default=None)


def _unseen_cost(profile: Profile, budget: float, can: Capabilities) -> Refused:
    hint = "leave --budget out, or use an agent that reports its cost (--driver jsonlines)"
    if can.gateway:
        hint = f'write account = "…" under [agents.{profile.name}], so that it goes through the gateway'
    return Refused(
        f"a budget of {budget:g} USD cannot be kept: what agent {profile.name!r} spends cannot be seen", hint=hint
    )


def plan_view(orders: Sequence[Order], settings: Settings, refused: Sequence[ShopfloorError]) -> PlanView:
    """The dry run of these orders."""
    names = {o.id: o.name for o in orders}
    edges = {o.id: o.depends_on for o in orders}
    below = depth_below(edges)
    position = {o.id: n for n, o in enumerate(orders)}
    key = {o.id: ageing_key(0.0, o.priority, below[o.id], position[o.id]) for o in orders}
    layers = [sorted(layer, key=key.__getitem__) for layer in waves(edges)]
    return PlanView(
        waves=[[names[i] for i in layer] for layer in layers],
        collisions=collisions(orders),
        critical_path=[names[i] for i in critical_path(edges)],
        start_order=[names[i] for layer in layers for i in layer],
        max_parallel=settings.max_parallel,
        agents={o.name: o.agent or default_agent(settings) for o in orders},
        checks={o.name: [*o.checks, *(c for c in settings.checks if c not in o.checks)] for o in orders},
        depends_on={o.name: [names[i] for i in o.depends_on] for o in orders},
        problems=[f"{p.message} ({p.hint})" if p.hint else p.message for p in refused],
    )
