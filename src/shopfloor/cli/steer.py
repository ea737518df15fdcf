"""``pause``, ``resume``, ``stop`` and ``steer``: the run and its agents, steered from another terminal."""

from __future__ import annotations

import click

from shopfloor.app import Shopfloor
from shopfloor.cli.edge import Edge, verb
from shopfloor.cli.orders import find

CANCEL = "cancel"
"""The text of a ``stop`` that gives up every unfinished order."""


@verb(example="shopfloor pause")
def pause(edge: Edge) -> None:
    """Start nothing new; what runs goes on. Undone by resume."""
    edge.answer(edge.call(lambda floor: floor.ask("pause")))


@verb(example="shopfloor resume")
def resume(edge: Edge) -> None:
    """Start orders again after pause. A run that was stopped goes on with: shopfloor run --resume."""
    edge.answer(edge.call(lambda floor: floor.ask("resume")))


@verb(example="shopfloor stop fix-login")
@click.argument("order", required=False, default="")
@click.option("--cancel", is_flag=True, help="Give up every unfinished order instead of keeping it for later.")
def stop(edge: Edge, *, order: str, cancel: bool) -> None:
    """End an order, or without ORDER the whole run. Work that was begun is kept on its branches.

    A run that was stopped goes on with: shopfloor run --resume.
    """
    if order and cancel:
        raise click.UsageError("--cancel gives up the whole run: leave ORDER out, or leave --cancel out")

    async def work(floor: Shopfloor) -> str:
        which = (await find(floor, order))[1].order.id if order else ""
        return await floor.ask("stop", which, CANCEL if cancel else "")

    edge.answer(edge.call(work))


@verb(example="shopfloor steer fix-login 'Leave the old option alone.'")
@click.argument("order")
@click.argument("text")
def steer(edge: Edge, *, order: str, text: str) -> None:
    """Say something to the agent that works on an order. Tells whether it was seen, delivered or only shown."""

    async def work(floor: Shopfloor) -> str:
        return await floor.steer((await find(floor, order))[1].order.id, text)

    edge.answer(edge.call(work))
