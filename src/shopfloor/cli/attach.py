"""``attach``: see the terminal that an agent works in, and type in it."""

from __future__ import annotations

import sys

import click

from shopfloor import Shopfloor
from shopfloor.app import attaching
from shopfloor.cli.edge import Edge, verb
from shopfloor.cli.orders import find
from shopfloor.domain.errors import Refused


@verb(example="shopfloor attach fix-login")
@click.argument("order")
@click.option("--write", is_flag=True, help="Type in it too; without this you only look.")
def attach(edge: Edge, *, order: str, write: bool) -> None:
    """See the terminal that an agent works in. Leave it with C-b d (inside tmux: C-b C-b d); the agent goes on.

    Only agents of driver tmux have one, and sessions that claimed their order inside tmux. While somebody is attached
    with --write, the agent is not ended when it is done: leave, or end it yourself.
    """

    async def look(floor: Shopfloor) -> attaching.Door:
        _, record = await find(floor, order)
        return attaching.door(floor.place, record, write=write)

    place = edge.floor().place
    door = edge.call(look)
    if edge.json:
        edge.put_json({"session": door.session, "command": list(door.argv), "folder": door.cwd})
        return
    if not (sys.stdin.isatty() and sys.stdout.isatty()):
        raise Refused("there is no terminal here to attach", hint=f"shopfloor log {order} --follow")
    nested = "C-b C-b d" if "TMUX" in place.environment else "C-b d"
    edge.put(f"{'typing in' if write else 'looking at'} {door.session}; leave with {nested}", err=True)
    attaching.go(place, door)
