"""What a question to the store of a ``.work`` folder is answered with: rows of the index, and of the log behind it."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from shopfloor.ports import Query
from shopfloor.stores.codec import decode
from shopfloor.stores.follow import Follower
from shopfloor.stores.index import Index
from shopfloor.stores.lead import controller_alive
from shopfloor.stores.log import Log
from shopfloor.stores.news import Mark
from shopfloor.stores.ready import IndexSource, held_rows, holder_rows, ready_rows
from shopfloor.stores.rows import event_row
from shopfloor.stores.views import Note


def rows(index: Index, query: Query, log: Log, mark: Mark, *, now: float) -> list[dict[str, Any]]:
    """The rows of every question but ``meta``; ``now`` is wall seconds."""
    if query.what == "orders":
        return index.orders(query)
    if query.what == "runs":
        return index.runs(query)
    if query.what == "ready":
        return ready_rows(IndexSource(index), query, now=now, controller=mark.controller)
    if query.what == "holders":
        return holder_rows(IndexSource(index))
    if query.what == "held":
        return held_rows(IndexSource(index), order=query.order, controller=mark.controller)
    if query.what == "loose":
        return [index.loose(query) | {"log": log.inode()}]
    if query.what == "board":
        return [{"position": mark.last, "board": index.board(query)}]
    return [event_row(start + size, decode(log.read(start, size))) for start, size in index.events(query)]


def meta_row(index: Index, follower: Follower, notes: Iterable[Note]) -> dict[str, Any]:
    """How far everything is, who leads, and what is wrong with the files."""
    mark, scanner, log = follower.mark, follower.scanner, follower.log
    name = log.path.name
    problems = [{"file": name, **p._asdict()} for p in index.problems()]
    if scanner.torn:
        what = "has no newline at its end; it counts or is closed when the next event is written"
        problems.append({"file": name, "offset": scanner.offset, "line": scanner.line + 1, "what": what, "piece": ""})
    problems += [{"offset": 0, "line": 0, "piece": "", **note._asdict()} for note in notes]
    return {
        "schema": mark.schema,
        "position": mark.last,
        "events": mark.events,
        "sequence": mark.sequence,
        "controller": mark.controller,
        "alive": controller_alive(log.folder),
        "orders": index.count(),
        "problems": problems,
    }
