"""``gateway``: model calls of any tool through one address, counted, priced and kept within a budget."""

from __future__ import annotations

import sys
from functools import partial
from pathlib import Path

import click
import msgspec

from shopfloor.app.gateway import Standing, stand
from shopfloor.cli.edge import Edge, verb
from shopfloor.cli.stopper import signalled
from shopfloor.cli.words import clean, count
from shopfloor.config.values import whole
from shopfloor.domain.errors import UsageError
from shopfloor.ports import Bill, ModelCall, Quota, Route

PORT = 8045
ENDING = "ending (again: {key} ends it at once)"
_HIGHEST = 65535


@verb(example="shopfloor gateway --budget 5")
@click.option("--port", metavar="N", default=str(PORT), help=f"Where to listen; default: {PORT}, 0: any that is free.")
@click.option("--account", metavar="NAME", default="", help="Who pays; default: the first of each dialect.")
@click.option("--budget", metavar="5", help="USD that may be spent.")
@click.option("--record", metavar="FILE", help="Take down every call, to be played again.")
@click.option("--replay", metavar="FILE", help="Answer from such a file instead of a model.")
def gateway(edge: Edge, *, port: str, account: str, budget: str | None, record: str | None, replay: str | None) -> None:
    """Let any tool reach its models through one address of this machine, until Ctrl-C.

    The real keys stay in this process. A run starts a gateway of its own when it needs one.
    """
    try:
        number = whole(0, _HIGHEST)(port)
    except ValueError as problem:
        raise UsageError(f"--port {port!r} must be {problem}") from None
    flags = {"budget": budget, "record": record, "replay": replay}
    edge.flags = {
        key: str(Path(value).absolute()) if key != "budget" else value for key, value in flags.items() if value
    }
    floor = edge.floor()
    spent = edge.perform(
        stand(
            floor.settings,
            floor.environment,
            floor.clock,
            root=floor.root,
            work=floor.work,
            port=number,
            account=account,
            ready=lambda standing: _ready(edge, standing),
            told=lambda fact: _told(edge, fact),
            until=partial(signalled, partial(edge.put, err=True), ENDING),
        )
    )
    if not edge.json:
        edge.put(_bill(spent))


def variables(route: Route) -> dict[str, str]:
    """What tools of each dialect read, so that they take this way."""
    return {
        "ANTHROPIC_BASE_URL": route.url,
        "ANTHROPIC_AUTH_TOKEN": route.token,
        "OPENAI_BASE_URL": f"{route.url}/v1",
        "OPENAI_API_KEY": route.token,
        "GOOGLE_GEMINI_BASE_URL": route.url,
        "GEMINI_API_KEY": route.token,
    }


def _ready(edge: Edge, standing: Standing) -> None:
    found = variables(standing.route)
    if edge.json:
        _line(edge, {"address": standing.address, "token": standing.token, "variables": found})
        return
    edge.put(f"the gateway listens at {standing.address}; let tools reach their models through it with:\n")
    edge.put("\n".join(f"  export {name}={value}" for name, value in found.items()))
    edge.put(f"\nwhat was spent: curl -H 'authorization: Bearer {standing.token}' {standing.address}/costs")
    edge.put("Ctrl-C ends it")
    sys.stdout.flush()


def _told(edge: Edge, fact: ModelCall | Quota) -> None:
    if edge.json:
        kind = "call" if isinstance(fact, ModelCall) else "quota"
        _line(edge, {kind: msgspec.to_builtins(fact)})
    elif isinstance(fact, Quota):
        edge.put(f"account {clean(fact.account or 'by default')}: nothing is left for now: {clean(fact.why)}")
    elif fact.refused:
        edge.put(f"{clean(fact.model)}: refused ({fact.refused})")
    else:
        tokens = f"{fact.tokens_in} tokens in, {fact.tokens_out} out"
        price = "from the cassette" if fact.replayed else _price(fact.cost_usd)
        edge.put(f"{clean(fact.model)}: {fact.status}, {tokens}, {price}, {fact.took_s:.1f} s")
    sys.stdout.flush()


def _line(edge: Edge, value: object) -> None:
    """One JSON document a line: they come for as long as it runs."""
    edge.put(msgspec.json.encode(value).decode())
    sys.stdout.flush()


def _price(cost_usd: float | None) -> str:
    return "unpriced" if cost_usd is None else f"{cost_usd:.4f} USD"


def _bill(bill: Bill) -> str:
    also = f" and {count(bill.unpriced, 'call')} unpriced" if bill.unpriced else ""
    return f"{count(bill.calls, 'call')}, {_price(bill.cost_usd if bill.calls else 0.0)}{also}"
