"""Which agents go through the gateway, and what may be used of each."""

from __future__ import annotations

from collections.abc import Mapping

from shopfloor.config.accounts import Account
from shopfloor.config.settings import Settings
from shopfloor.domain.errors import NotFound, Refused, ShopfloorError
from shopfloor.engine.outset import Means
from shopfloor.gateway.client import require
from shopfloor.ports import Agent, Capabilities, Profile


def routed(
    settings: Settings, environment: Mapping[str, str], profile: Profile, can: Capabilities, *, limited: bool
) -> bool:
    """Whether an agent's model calls go through the gateway; ``limited``: there is a limit for what it spends.

    By itself an agent keeps its own login, and nothing changes. An account of its own asks for the gateway, a cassette
    does, and so does a limit, where accounts are set up, or where nobody else could tell what it spends and there is a
    key that pays for it.
    """
    if not can.gateway or settings.use_gateway == "never":
        return False
    if settings.use_gateway == "always" or profile.account or settings.record or settings.replay:
        return True
    if not limited or (can.cost and not settings.gateway.accounts):
        return False
    return any(pays(account, environment) for account in settings.gateway.known(environment).values())


def pays(account: Account, environment: Mapping[str, str]) -> bool:
    """Whether an account can be used: it has a key, or needs none."""
    try:
        return bool(account.secret(environment)) or account.local
    except Refused:
        return False


def trouble(settings: Settings, environment: Mapping[str, str], profile: Profile) -> ShopfloorError | None:
    """Why an agent that is to go through the gateway cannot, or None."""
    known = settings.gateway.known(environment)
    try:
        require()
        if settings.replay:
            return None
        if profile.account and profile.account not in known:
            hint = f"add [gateway.accounts.{profile.account}], or name one of {', '.join(map(repr, sorted(known)))}"
            return NotFound(f"agent {profile.name!r} has account {profile.account!r}, which is not set up", hint=hint)
        if profile.account:
            known[profile.account].secret(environment)
        elif not any(pays(account, environment) for account in known.values()):
            hint = "export the key of one, or write [gateway.accounts.NAME] into .shopfloor.toml"
            return Refused(f"agent {profile.name!r} is to go through the gateway, which has no key", hint=hint)
    except Refused as problem:
        return problem
    return None


class Looks:
    """What may be used of each agent; each is looked at once."""

    def __init__(self, settings: Settings, environment: Mapping[str, str], agents: Mapping[str, Agent]) -> None:
        self._settings = settings
        self._environment = environment
        self._agents = agents
        self._seen: dict[str, Capabilities] = {}

    async def __call__(self, profile: Profile, limited: bool) -> Means:  # noqa: FBT001 - a plain question
        """What the engine asks before it starts one of them."""
        can = self._seen.get(profile.name)
        if can is None:
            can = self._seen[profile.name] = (await self._agents[profile.driver].probe(profile)).capabilities
        through = routed(self._settings, self._environment, profile, can, limited=limited)
        return Means(resume=can.resume, gateway=through)
