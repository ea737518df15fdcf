"""What became of orders since the index was last written: enough to publish them, while the index stays behind.

A controller that writes thousands of events a second knows them already. To fold them for the views costs a third of
what it costs to write the index, which is left to whoever asks next.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import groupby, islice
from typing import Any

import msgspec

from shopfloor.domain.board import Board
from shopfloor.domain.events import E
from shopfloor.domain.order import FINAL, Record
from shopfloor.stores.index import Index
from shopfloor.stores.news import News
from shopfloor.stores.sheet import render

MOST_OPEN = 2_000
"""Orders that have not ended, kept as they are; with more of them the index is sooner written."""
_RUN = E.RUN_STARTED

_decode = msgspec.json.Decoder(Record).decode


class Ahead:
    """The orders that an index does not know as they are now. One thread uses it."""

    def __init__(self, index: Index) -> None:
        """``index`` knows everything up to where what is taken in begins, and perhaps more."""
        self.position = 0
        """how far the log was taken in"""
        self.since = 0
        """up to where that is published, and told no more"""
        self._index = index
        self._board = Board()
        self._board.controller = index.mark().controller
        self._known: dict[str, int] = {}
        """orders that the index has: the position behind the last event that it knows"""
        self._lines: dict[str, bytes] = {}
        """of orders that changed and are not published; empty: not rendered, as it is open"""
        self._ended: set[str] = set()
        self._taken = 0

    def take(self, news: News, position: int) -> bool:
        """Fold in what has come to these news; False when that cannot be told without the index: let go of this."""
        found = list(islice(news.found, self._taken, None))
        self._taken, self.position = len(news.found), position
        records, lines, ended = self._board.records, self._lines, self._ended
        spoken_of = {event.order_id for _, _, event in found}
        if not ended.isdisjoint(spoken_of):
            return False  # somebody speaks of what was over, and is not kept
        self._look_up(spoken_of - records.keys())
        changed: dict[str, None] = {}
        for _start, end, event in found:
            known = self._known.get(event.order_id, 0) if self._known else 0
            if end > known and event.event_type != _RUN and (order := self._board.apply(event)):
                changed[order] = None
        for order in changed:
            record = records[order]
            lines[order] = b""
            if record.state in FINAL:
                lines[order] = render(record)
                ended.add(order)
                del records[order]
        return len(records) <= MOST_OPEN

    def let_go(self) -> None:
        """The news that were taken in are gone, and others begin."""
        self._taken = 0

    def __iter__(self) -> Iterator[str]:
        """The orders that changed and are not published, in the order in which they were first spoken of."""
        return iter(self._lines)

    def __contains__(self, order: str) -> bool:
        """Whether it is one of them."""
        return order in self._lines

    def line(self, order: str) -> bytes:
        """The line of one of them."""
        return self._lines[order] or render(self._board.records[order])

    def told(self) -> None:
        """All of that is published."""
        self.since = self.position
        self._lines.clear()

    def _look_up(self, orders: set[str]) -> None:
        orders.discard("")
        for order, blob, changed in self._index.kept_of(orders):
            self._known[order] = changed
            self._board.records[order] = _decode(blob)


class Newest:
    """The orders as the log has them: from the index, and from who knows what that lacks."""

    def __init__(self, index: Index, ahead: Ahead | None) -> None:
        self.index = index
        self._ahead = ahead

    def changed_after(self, position: int) -> list[str]:
        """Ids of the orders that changed after a position; new ones in the order of their creation."""
        return [*self.index.changed_after(position), *(self._ahead or ())]

    def lines(self, orders: Sequence[str]) -> Iterator[tuple[str, bytes]]:
        """These orders and their lines."""
        ahead = self._ahead
        for newer, some in groupby(orders, key=lambda order: ahead is not None and order in ahead):
            if newer and ahead is not None:
                yield from ((order, ahead.line(order)) for order in some)
            else:
                yield from ((record.order.id, render(record)) for record in self.index.records(list(some)))

    def beyond(self) -> Iterator[tuple[str, bytes]]:
        """The same of those that changed since the index was written."""
        return self.lines([*(self._ahead or ())])

    def told(self, **values: Any) -> None:
        """All of that is published, and this is known of the file."""
        self.index.put(view=self._ahead.position if self._ahead else self.index.mark().offset, **values)
        if self._ahead:
            self._ahead.told()
