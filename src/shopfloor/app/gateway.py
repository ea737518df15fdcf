"""The gateway, put together: as a floor's own process, or in this one for a person who asked for it."""

from __future__ import annotations

import secrets
import shlex
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path

import msgspec

from shopfloor.config.accounts import gateway_environment
from shopfloor.config.settings import Settings
from shopfloor.domain.errors import Refused, UsageError
from shopfloor.gateway.client import GatewayProcess, require
from shopfloor.gateway.words import Start
from shopfloor.ports import Bill, Clock, Limit, ModelCall, Quota, Route
from shopfloor.spawn import Guard

LEDGER = "ledger.jsonl"
PERSON = "person"
"""whose way it is when the gateway was started by hand"""


def start(settings: Settings, root: Path, work: Path, *, port: int = 0) -> Start:
    """What a gateway of this floor is to be. Raises UsageError when it is to record and to replay."""
    if settings.record and settings.replay:
        raise UsageError("record and replay exclude each other: leave one of them out")
    return Start(
        settings=settings.gateway,
        ledger=str(work / LEDGER),
        record=str(root / settings.record) if settings.record else "",
        replay=str(root / settings.replay) if settings.replay else "",
        port=port,
    )


def refuse_to_mix(settings: Settings, root: Path) -> None:
    """Raises Refused when a new run would be recorded behind another one, whose answers would be played first."""
    path = root / settings.record
    if settings.record and path.exists() and path.stat().st_size:
        hint = f"name another file, or type: rm {shlex.quote(settings.record)}"
        raise Refused(f"{settings.record!r} holds a recording already", hint=hint)


def process(
    settings: Settings, environment: Mapping[str, str], guard: Guard, *, root: Path, work: Path
) -> GatewayProcess:
    """A gateway that starts with the first way that is opened, and ends with its guard at the latest.

    Raises UsageError, and Refused when what it needs is not installed.
    """
    require()
    work.mkdir(parents=True, exist_ok=True)
    kept = gateway_environment(settings.gateway, environment)
    return GatewayProcess(guard, start(settings, root, work), environment=kept, folder=work)


class Standing(msgspec.Struct, frozen=True, kw_only=True):
    """A gateway that a person has started."""

    address: str
    """``GET /health``; ``GET /costs`` asks for the token"""
    token: str
    route: Route


async def stand(
    settings: Settings,
    environment: Mapping[str, str],
    clock: Clock,
    *,
    root: Path,
    work: Path,
    port: int,
    account: str = "",
    ready: Callable[[Standing], None],
    told: Callable[[ModelCall | Quota], None],
    until: Callable[[], Awaitable[object]],
) -> Bill:
    """Be a gateway with one way until ``until`` returns; returns what was spent. Raises Refused, NotFound, UsageError.

    The budget of a run, when there is one, is the budget of this way.
    """
    require()
    # Only who asks for a gateway loads the libraries that it is built on.
    from shopfloor.gateway.control import Gatehouse
    from shopfloor.gateway.words import Open

    house = Gatehouse(start(settings, root, work, port=port), environment, clock)
    try:
        await house.open(told)
        assert house.server is not None
        limits = () if settings.budget_usd is None else (Limit(key=PERSON, usd=settings.budget_usd),)
        wish = Open(
            id=0, secret=secrets.token_urlsafe(24), token=f"sf-{secrets.token_urlsafe(24)}", attempt=PERSON,
            order="", run="", account=account, limits=limits,
        )  # fmt: skip
        house.let_in(wish)
        address = house.server.address
        route = Route(url=f"{address}/w/{wish.secret}", token=wish.token)
        ready(Standing(address=address, token=house.token, route=route))
        await until()
    finally:
        await house.close()
    return house.ledger.total if house.ledger else Bill()
