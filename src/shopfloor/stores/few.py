"""A few orders as they are now: what the index has of them, and what was said of them since.

Who asks about one order, changes it and asks again need not have the index written each time. Only what no controller
has spoken of, and what depends on nothing else, can be told so; the rest needs an index that is as new as the log.
"""

from __future__ import annotations

from typing import Any

import msgspec

from shopfloor.domain.board import Board
from shopfloor.domain.events import Event
from shopfloor.domain.order import Record
from shopfloor.ports import Query
from shopfloor.stores.index import Index
from shopfloor.stores.news import News
from shopfloor.stores.ready import BoardSource, held_rows, ready_rows
from shopfloor.stores.rows import order_row

MOST = 8
"""ids in one question"""

_record = msgspec.json.Decoder(Record)


def rows(index: Index, query: Query, news: News, *, now: float, controller: int) -> list[dict[str, Any]] | None:
    """The answer to a question about ids, or None: it has to be asked of the whole index.

    ``news`` reach from where the index stands, or from before that, up to the end of the log.
    """
    named = (query.order,) if query.order else query.wanted.orders
    if query.what not in ("orders", "held", "ready") or not 0 < len(named) <= MOST or query.run or query.state:
        return None
    board = Board()
    for order in named:
        record = _now(index, order, news, board)
        if record is None or record.order.run or (query.what == "ready" and not _alone(record)):
            return None
    source = BoardSource(board)
    if query.what == "held":
        return held_rows(source, order=query.order, controller=controller)
    if query.what == "ready":
        return ready_rows(source, query, now=now, controller=controller)
    return [
        {**order_row(one), "record": msgspec.json.decode(msgspec.json.encode(one))} for one in board.records.values()
    ]


def _now(index: Index, order: str, news: News, board: Board) -> Record | None:
    blob, changed = index.kept(order)
    if blob is not None:
        board.records[order] = _record.decode(blob)
    for end, event in news.about(order):
        if _by_controller(event):
            return None
        if end > changed:  # another process may have brought the index further
            board.apply(event)
    return board.records.get(order)


def _by_controller(event: Event) -> bool:
    """What it says counts only as long as no newer controller has started."""
    return event.sf is not None and event.sf.controller > 0


def _alone(record: Record) -> bool:
    """Whether it may be claimed follows from its record alone."""
    return not record.order.depends_on and not record.order.files
