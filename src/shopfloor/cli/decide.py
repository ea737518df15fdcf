"""``answer``, ``accept``, ``reject``, ``land``, ``retry``: what only a person decides."""

from __future__ import annotations

from typing import Any

import click

from shopfloor import Shopfloor
from shopfloor.cli.edge import Edge, verb
from shopfloor.cli.options import work_options
from shopfloor.cli.orders import find

GO_ON = "go on with: shopfloor run --resume"


def _again(edge: Edge, what: str, order: str, text: str) -> None:
    """Ask for what starts a new attempt; nobody starts one where no run is going on."""
    alive = edge.floor().controller() is not None
    edge.answer(_ask(edge, what, order, text))
    if not alive and not edge.json:
        edge.put(GO_ON)


def _ask(edge: Edge, what: str, order: str, text: str = "") -> str:
    async def work(floor: Shopfloor) -> str:
        _, record = await find(floor, order)
        return await floor.ask(what, record.order.id, text)

    return edge.call(work)


@verb(example='shopfloor answer fix-login "Use the second one."')
@click.argument("order")
@click.argument("text")
def answer(edge: Edge, *, order: str, text: str) -> None:
    """Answer the question that an agent asked."""
    _again(edge, "answer", order, text)


@verb(example="shopfloor accept fix-login")
@click.argument("order")
def accept(edge: Edge, *, order: str) -> None:
    """Land an order that is verified and waits for a person."""
    edge.answer(_ask(edge, "accept", order))


@verb(example="shopfloor reject fix-login -m 'Keep the old name of the option.'")
@click.argument("order")
@click.option("-m", "--message", default="", metavar="TEXT", help="Send it back with these words; without: drop it.")
def reject(edge: Edge, *, order: str, message: str) -> None:
    """Send a verified order back to its agent with your words, or drop it. Its work is kept on its branch."""
    if message:
        _again(edge, "reject", order, message)
    else:
        edge.answer(_ask(edge, "reject", order))


@verb(example="shopfloor land")
def land(edge: Edge) -> None:
    """Land every order that is verified and waits for a person."""
    edge.answer(edge.call(lambda floor: floor.ask("land")))


@verb(example="shopfloor retry fix-login")
@click.argument("order")
@click.option("-m", "--message", default="", metavar="TEXT", help="Words for the next attempt.")
@click.option("--plain", is_flag=True, help="One line for each event, also in a terminal.")
@work_options
def retry(edge: Edge, *, order: str, message: str, plain: bool, **options: Any) -> int:
    """Try an order that failed again, and those that failed with it.

    When no run is going on, it is resumed here and now.
    """
    from shopfloor.cli.options import Wanted, open_floor
    from shopfloor.cli.run import go_on

    alive = edge.floor().controller() is not None
    said = _ask(edge, "retry", order, message)
    if alive:
        edge.answer(said)
        return 0
    if not edge.json:
        edge.put(said)
    return go_on(edge, open_floor(edge, Wanted(**options)), plain=plain)
