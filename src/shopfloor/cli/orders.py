"""Which order is meant: by id, by name, or by a beginning that only one has."""

from __future__ import annotations

from shopfloor import Shopfloor
from shopfloor.cli.words import clean
from shopfloor.domain.board import Board
from shopfloor.domain.errors import NotFound, UsageError
from shopfloor.domain.order import Record

SEVERAL = 10
COMPARED = 5_000
"""The newest orders: with more, finding what comes near takes seconds."""


async def find(floor: Shopfloor, name: str) -> tuple[Board, Record]:
    """The order that is meant, on a board with what belongs to it. Raises as :func:`one`."""
    board = await floor.board(order=name) if name else Board()
    if not board.find(name):
        board = await floor.board()  # to say what comes near
    return board, one(board, name)


def one(board: Board, name: str) -> Record:
    """The one record that is meant. Raises UsageError when several may be, NotFound when none is."""
    found = board.find(name) if name else []
    if len(found) == 1:
        return found[0]
    if found:
        listed = "".join(f"\n  {r.order.id}  {clean(r.order.name)}  {r.state}" for r in found[:SEVERAL])
        more = f"\n  and {len(found) - SEVERAL} more" if len(found) > SEVERAL else ""
        raise UsageError(
            f"{name!r} may be {len(found)} orders:{listed}{more}", hint="write more of the name, or the id"
        )
    if not board.records:
        raise NotFound(
            f"there is no order {name!r}: there has been no run here yet",
            hint="start one with: shopfloor run prompts/*.md",
        )
    import difflib

    newest = list(board.records.values())[-COMPARED:]
    known = [key for record in newest for key in (record.order.name, record.order.id)]
    near = difflib.get_close_matches(name[:200], dict.fromkeys(known), 3, 0.5)
    also = f"; did you mean {', '.join(map(repr, near))}?" if near else ""
    raise NotFound(f"there is no order {name!r}{also}", hint="shopfloor status --all lists all of the newest run")
