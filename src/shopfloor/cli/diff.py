"""``diff``: what an order changed."""

from __future__ import annotations

import os
import re
import sys

import click

from shopfloor import Shopfloor
from shopfloor.cli.edge import Edge, verb
from shopfloor.cli.orders import find
from shopfloor.cli.words import block, clean, count, table

_HEADER = re.compile(r"diff --git (?:\"?a/.*?\"?) (\"?b/.*\"?)")


@verb(example="shopfloor diff fix-login --stat")
@click.argument("order")
@click.option("--stat", is_flag=True, help="Only which files, and how many lines.")
def diff(edge: Edge, *, order: str, stat: bool) -> None:
    """Show what the newest work of an order changed, against what it started from."""

    async def work(floor: Shopfloor) -> tuple[str, str]:
        _, record = await find(floor, order)
        return record.order.id, await floor.diff(record.order.id)

    order_id, patch = edge.call(work)
    told = os.fsencode(patch).decode(errors="backslashreplace")
    changed = stats(told)
    if edge.json:
        files = [{"path": path, "added": added, "removed": removed} for path, added, removed in changed]
        edge.put_json({"order": order_id, "files": files, **({} if stat else {"patch": told})})
    elif stat:
        edge.put("\n".join(_summary(changed)))
    elif sys.stdout.isatty():
        edge.put("\n".join(map(_colored, block(told).split("\n"))))
    else:
        sys.stdout.buffer.write(os.fsencode(patch))  # a patch is for programs too: not a byte of it is changed
        sys.stdout.buffer.flush()


def stats(patch: str) -> list[tuple[str, int, int]]:
    """Path, added and removed lines of each file."""
    found: list[tuple[str, int, int]] = []
    body = False
    for line in patch.split("\n"):  # a line of a file may hold what others take for the end of one
        header = _HEADER.fullmatch(line)
        if header:
            found.append((header[1].strip('"').removeprefix("b/"), 0, 0))
            body = False
        elif line.startswith("@@"):
            body = True
        elif body and found and line[:1] in ("+", "-"):
            path, added, removed = found[-1]
            found[-1] = (path, added + (line[0] == "+"), removed + (line[0] == "-"))
    return found


def _summary(changed: list[tuple[str, int, int]]) -> list[str]:
    rows = [(clean(path), f"+{added}", f"-{removed}") for path, added, removed in changed]
    return [*table(rows, indent=""), count(len(changed), "file") + " changed"]


def _colored(line: str) -> str:
    if line.startswith(("+++", "---", "diff ", "index ")):
        return click.style(line, bold=True)
    color = {"+": "green", "-": "red", "@": "cyan"}.get(line[:1])
    return click.style(line, fg=color) if color else line
