"""Who is in a crew, and which tasks are for whom."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import count

import msgspec

from shopfloor.faces.foreman.config import WorkerConfig, category_of
from shopfloor.faces.foreman.pools import Routing
from shopfloor.faces.foreman.task import Wish

KINDS = ("coding", "research", "general")
GENERAL = "general"


class Job(msgspec.Struct, frozen=True, kw_only=True):
    """One worker to be."""

    name: str
    category: str
    config: WorkerConfig
    wish: Wish


def team_of(configs: Sequence[WorkerConfig], routing: Routing) -> list[Job]:
    """Its workers, named ``<profile>-<n>`` with one counter over all; those of pools come after the others."""
    numbers = count()
    served = {category_of(config.label) for config in configs if config.count > 0}
    jobs = [
        Job(
            name=f"{config.label}-{next(numbers)}", category=category_of(config.label), config=config,
            wish=wish_of(category_of(config.label), served, pooled=bool(routing.pools)),
        )
        for config in configs
        for _ in range(config.count)
    ]  # fmt: skip
    for pool in routing.pools:
        config = WorkerConfig(profile=pool.profile, count=pool.max_concurrent)
        wish = Wish(metadata={"pool": (pool.name,)})
        jobs += [
            Job(name=f"{pool.name}-{next(numbers)}", category=pool.name, config=config, wish=wish)
            for _ in range(config.count)
        ]
    return jobs


def wish_of(category: str, served: set[str], *, pooled: bool) -> Wish:
    """A specialist takes what is of its kind; a general worker what no specialist is there for.

    Without general workers, what is of no known kind is for anybody.
    """
    loose: dict[str, tuple[str, ...]] = {"pool": ("",)} if pooled else {}
    if category != GENERAL and GENERAL in served:
        return Wish(metadata={"category": (category,), **loose})
    others = tuple(
        kind for kind in KINDS if kind not in (category, GENERAL) and (category != GENERAL or kind in served)
    )
    return Wish(metadata=loose, without={"category": others})
