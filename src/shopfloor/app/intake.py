"""From wishes to orders: names become ids, what cannot work is refused before anything is spent."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
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

Wish = PromptOrder | Path | str
"""A prompt file that was read, the path of one, or the text itself."""


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


def make_orders(wanted: Sequence[PromptOrder], *, run: str, now: float, ids: Sequence[str]) -> tuple[Order, ...]:
    """Orders with ids; dependencies by name become dependencies by id. Raises UsageError for doubles and circles."""
    by_name: dict[str, str] = {}
    for wish, order_id in zip(wanted, ids, strict=False):
        if wish.name in by_name:
            raise UsageError(f"two orders are named {wish.name!r}", hint="rename one of the files")
        by_name[wish.name] = order_id
    orders = tuple(_order(wish, by_name, run, now) for wish in wanted)
    check_acyclic({o.id: o.depends_on for o in orders}, {o.id: o.name for o in orders})
    return orders


def _order(wish: PromptOrder, by_name: Mapping[str, str], run: str, now: float) -> Order:
    missing = [need for need in wish.depends_on if need not in by_name]
    if missing:
        raise UsageError(
            f"{wish.name!r} depends on {missing[0]!r}, which is not among these orders",
            hint=f"give that prompt file too, or take it out of depends_on (there are: {', '.join(sorted(by_name))})",
        )
    fields = {f: getattr(wish, f) for f in PromptOrder.__struct_fields__ if f in Order.__struct_fields__}
    return Order(
        **{**fields, "id": by_name[wish.name], "depends_on": tuple(by_name[n] for n in wish.depends_on)},
        run=run, created_at=now,
    )  # fmt: skip


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
