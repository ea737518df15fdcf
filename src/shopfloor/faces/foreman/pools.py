"""Which pool of workers an issue is for: rules without any I/O."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

import msgspec

from shopfloor import UsageError
from shopfloor.faces.foreman.config import MOST_WORKERS, listed

MOST_RETRIES = 3
"""How often an issue is tried again after its worker failed, before it is set aside for a person."""

AFTER_FAILURE = "blocked"
"""The status that a rule's ``if_status`` sees when an issue's worker has just failed."""

TYPES_OF = {"coding": ("task", "feature", "bug"), "research": ("epic",), "testing": ("chore",)}
"""What a pool takes that says nothing about it, by its name."""


class Facts(Protocol):
    """What routing looks at."""

    @property
    def issue_type(self) -> str:
        """What kind of issue it is, e.g. ``task`` or ``bug``."""
        ...

    @property
    def status(self) -> str:
        """Where it stands, e.g. ``open`` or ``blocked``."""
        ...

    @property
    def retries(self) -> int:
        """How often its worker failed."""
        ...

    @property
    def metadata(self) -> dict[str, Any]:
        """Its ``type`` and ``category`` count here."""
        ...


class Pool(msgspec.Struct, frozen=True, kw_only=True):
    """Workers of one kind; ``max_concurrent`` of them at most are at work at the same time in one process."""

    name: str
    worker: str = ""
    """the mount plan of its workers; empty: that of the pool's name"""
    max_concurrent: int = 1
    route_types: tuple[str, ...] = ()
    """issue types that it takes"""

    @property
    def profile(self) -> str:
        """The mount plan of its workers."""
        return self.worker or self.name

    @property
    def types(self) -> tuple[str, ...]:
        """Issue types that it takes."""
        return self.route_types or TYPES_OF.get(self.name, ())


class Rule(msgspec.Struct, frozen=True, kw_only=True):
    """One line of the routing; all of its conditions have to hold, those left empty do."""

    then_pool: str
    if_metadata_type: str = ""
    if_status: str = ""
    and_retry_count_gte: int = 0

    def fits(self, issue: Facts, *, failed: bool = False) -> bool:
        """Whether it applies; ``failed``: its worker has just failed."""
        kind = issue.metadata.get("type") or issue.issue_type
        status = (AFTER_FAILURE, issue.status) if failed else (issue.status,)
        return (
            self.if_metadata_type in ("", kind)
            and (not self.if_status or self.if_status in status)
            and issue.retries >= self.and_retry_count_gte
        )


class Routing(msgspec.Struct, frozen=True, kw_only=True):
    """All pools, and who is for which."""

    pools: tuple[Pool, ...] = ()
    rules: tuple[Rule, ...] = ()
    default_pool: str = ""
    max_retries: int = MOST_RETRIES

    def pool_for(self, issue: Facts, *, failed: bool = False) -> str:
        """The name of the pool that takes an issue; empty when there are no pools.

        The first rule that fits decides; else its category, when a pool has that name; else its type; else the default
        pool; else the first one.
        """
        for rule in self.rules:
            if rule.fits(issue, failed=failed):
                return rule.then_pool
        category = issue.metadata.get("category")
        for pool in self.pools:
            if pool.name == category:
                return pool.name
        for pool in self.pools:
            if issue.issue_type in pool.types:
                return pool.name
        return self.default_pool or next((pool.name for pool in self.pools), "")

    def gives_up(self, issue: Facts) -> bool:
        """True when an issue has failed too often to be tried again."""
        return issue.retries > self.max_retries


_ROUTING = ("default_pool", "rules", "max_retries")


def routing_of(config: Mapping[str, Any]) -> Routing:
    """``worker_pools`` and ``routing`` of a configuration. Raises UsageError that names the key and its value."""
    pools = listed(config, "worker_pools", Pool, worker_bundle="worker")
    given = config.get("routing") or {}
    if not isinstance(given, Mapping):
        raise UsageError(f"routing is {given!r}", hint='it has "default_pool" and "rules"')
    if odd := [key for key in given if key not in _ROUTING]:
        raise UsageError(f"routing has a key {odd[0]!r}", hint=f"there are {', '.join(_ROUTING)}")
    rules = listed(given, "rules", Rule, where="routing.rules")
    default, retries = given.get("default_pool") or "", given.get("max_retries", MOST_RETRIES)
    if type(retries) is not int or retries < 0:
        raise UsageError(f"routing.max_retries is {retries!r}", hint="give a whole number from 0 on")
    names = [pool.name for pool in pools]
    if len(set(names)) < len(names):
        raise UsageError(f"two pools have one name: {', '.join(names)}")
    for pool in pools:
        if not 1 <= pool.max_concurrent <= MOST_WORKERS:
            text = f"max_concurrent of pool {pool.name!r} is {pool.max_concurrent}"
            raise UsageError(text, hint=f"give 1 to {MOST_WORKERS}")
    for word, name in [("default_pool", default), *(("then_pool", rule.then_pool) for rule in rules)]:
        if name and name not in names:
            raise UsageError(f"{word} is {name!r}, and there is no such pool", hint=f"there are {', '.join(names)}")
    return Routing(pools=pools, rules=rules, default_pool=default, max_retries=retries)
