"""``claim``, ``finish`` and ``release``: work on orders with a process of your own, from a shell or a script."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click
import msgspec

from shopfloor import Shopfloor
from shopfloor.app.sessions import WorkSession
from shopfloor.cli.edge import Edge, verb
from shopfloor.cli.orders import one
from shopfloor.cli.words import clean, count
from shopfloor.config import speaker
from shopfloor.domain.errors import NotFound, UsageError
from shopfloor.domain.values import count as count_in


def holder_options(function: Callable[..., Any]) -> Callable[..., Any]:
    """Who holds what is claimed: by default the agent that calls this command, or the process, such as a shell."""
    named = click.option("--as", "name", default="", metavar="NAME", help="What the session is called.")
    pid = click.option(
        "--holder", type=int, default=0, metavar="PID", help="The process that holds; default: the caller."
    )
    return named(pid(function))


@verb(example="shopfloor claim --limit 3 --as my-script")
@click.option("--limit", type=click.IntRange(1, 1000), default=1, metavar="N", help="At most so many orders.")
@click.option("--order", "orders", multiple=True, metavar="ORDER", help="Only this one; may be repeated.")
@click.option("--type", "types", multiple=True, metavar="TYPE", help="Only orders of this type; may be repeated.")
@holder_options
def claim(edge: Edge, *, limit: int, orders: tuple[str, ...], types: tuple[str, ...], name: str, holder: int) -> int:
    """Take orders that are ready, to work on them yourself. Says the names of those that are yours now.

    They stay yours until you finish or release them, or until the process that called this command ends. Ends with 1
    when there was none to take.
    """

    async def work(floor: Shopfloor) -> list[Any]:
        board = await floor.board() if orders else None
        ids = [one(board, order).order.id for order in orders] if board else []
        async with await _session(floor, name, holder) as session:
            return await session.claim(limit, orders=ids, types=types)

    claimed = edge.call(work)
    if edge.json:
        edge.put_json({"orders": msgspec.to_builtins(claimed)})
    elif claimed:
        for found in claimed:
            start = f"  from {found.base[:12]}" if found.base else ""
            named = "  ".join(dict.fromkeys((clean(found.name), found.id)))
            edge.put(f"{named}{start}  {clean(found.title)}".rstrip())
    else:
        edge.put("no order is ready", err=True)
    return 0 if claimed else 1


@verb(example="shopfloor finish fix-login --commit HEAD")
@click.argument("order")
@click.option("--commit", default="", metavar="COMMIT", help="The change: it is verified, then landed.")
@click.option("--answer", default="", metavar="TEXT", help="The answer, for an order that asks for one.")
@click.option(
    "--answer-file", metavar="FILE", type=click.Path(path_type=Path), help="The same from a file, or - for stdin."
)
@holder_options
def finish(
    edge: Edge, *, order: str, commit: str, answer: str, answer_file: Path | None, name: str, holder: int
) -> None:
    """Hand in the work on an order that you hold. Whether it is done, the checks say and not you."""
    if answer and answer_file is not None:
        raise UsageError("--answer and --answer-file exclude each other: leave one of them out")
    text = _read(answer_file) if answer_file is not None else answer

    async def work(floor: Shopfloor) -> str:
        record = one(await floor.board(), order)
        async with await _session(floor, name, holder) as session:
            await session.finish(record.order.id, text=text, commit=commit)
        led = floor.controller() is not None
        return f"{record.order.name!r} is handed in" + ("" if led else "; it is checked with: shopfloor run --resume")

    edge.answer(edge.call(work))


@verb(example="shopfloor release fix-login -m 'needs somebody who knows the old format'")
@click.argument("order", required=False, default="")
@click.option("--all", "everything", is_flag=True, help="Everything that you hold.")
@click.option("--force", is_flag=True, help="Also when another session holds it.")
@click.option("-m", "--message", default="", metavar="TEXT", help="Why, for whoever takes it next.")
@holder_options
def release(edge: Edge, *, order: str, everything: bool, force: bool, message: str, name: str, holder: int) -> None:
    """Give an order back that you hold, so that others can take it."""
    if bool(order) == everything:
        raise UsageError("name one ORDER, or say --all")

    async def work(floor: Shopfloor) -> str:
        async with await _session(floor, name, holder) as session:
            named = [one(await floor.board(), order).order.id] if order else []
            ids = named or [row.id for row in await session.held()]
            for which in ids:
                await session.release(which, message, force=force)
        return f"{count(len(ids), 'order')} given back"

    edge.answer(edge.call(work))


async def _session(floor: Shopfloor, name: str, pid: int) -> WorkSession:
    """The one that is named, else the agent that this command was called by, else the process that called it."""
    who = speaker(floor.environment)
    if not pid and who is not None and Path(who[0]) == floor.work:
        own = (await floor.board(order=who[1]["order"])).records.get(who[1]["order"])
        attempt = own.attempt if own is not None and own.live else None
        if own is not None and attempt is not None and attempt.id == who[1]["attempt"]:
            pid, name = count_in(attempt.handle, "pid"), name or own.order.name
    return floor.session(name, pid=pid or os.getppid())


def _read(path: Path) -> str:
    if str(path) == "-":
        return sys.stdin.buffer.read().decode(errors="replace")
    try:
        return path.read_text(errors="replace")
    except FileNotFoundError:
        raise NotFound(f"there is no file {str(path)!r}") from None
