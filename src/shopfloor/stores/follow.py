"""Follows the log: knows at once what the next change needs, and folds the rest into the index when there is time."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from typing import TypeVar

from shopfloor.domain.errors import Conflict
from shopfloor.stores import index as files
from shopfloor.stores.index import Index, Mark, News
from shopfloor.stores.log import Log
from shopfloor.stores.rows import claimed_generation, opened_schema, started_controller
from shopfloor.stores.scan import Found, Scanner

_DAMAGED = (sqlite3.SQLITE_ERROR, sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_SCHEMA)
_REBUILDS = 3

T = TypeVar("T")

BATCH = 3_000
"""Events that are folded into the index in one transaction."""


class Follower:
    """One reader of the log from where the index stands. Every method blocks; one thread uses it."""

    def __init__(self, log: Log) -> None:
        self.mark = Mark()
        self.scanner = Scanner()
        self._log = log
        self._index: Index | None = None
        self._news = News()
        self._use_file = True
        self._rebuilt = 0

    @property
    def behind(self) -> bool:
        """True when the index lacks something."""
        return bool(self._news)

    def generation(self, order: str) -> int:
        """The greatest generation claimed for an order so far."""
        known = self._trying(lambda: self._opened().generation(order))
        return max(known, self._news.claims.get(order, 0))

    def follow(self, *, alone: bool, may_restart: bool) -> None:
        """Take in what was appended. ``alone``: nobody writes now, so that an unfinished group will stay so.

        Raises Conflict when the log was replaced or cut, unless it ``may_restart``.
        """
        size = self._size(may_restart=may_restart)
        self._trying(self._opened)
        scanner = self.scanner
        if size != scanner.seen:
            for found in self._log.scan(scanner, size, settle=False):
                self._take(found)
                if len(self._news.found) >= BATCH:
                    self.flush()
                    if self.scanner is not scanner:  # the index was begun anew, and all was followed again
                        break
        if alone and self.scanner.undecided:
            self._take(self.scanner.settle())

    def flush(self) -> None:
        """Bring the index up to what was followed."""
        self.ask(Index.mark)

    def ask(self, question: Callable[[Index], T]) -> T:
        """The answer of the index, brought up to what was followed."""

        def flushed() -> T:
            index = self._opened()
            while self.behind:
                self._flush(index)
                index = self._opened()
            return question(index)

        return self._trying(flushed)

    def close(self) -> None:
        """Let go of the index."""
        if self._index is not None:
            self._index.close()
            self._index = None

    def _trying(self, work: Callable[[], T]) -> T:
        while True:
            try:
                return work()
            except sqlite3.Error as problem:
                self._give_up(problem)

    def _flush(self, index: Index) -> None:
        with index.transaction():
            mark = index.mark()
            if self._news.begin <= mark.offset <= self.mark.offset:
                identity = self._log.identity(self.mark.offset)
                index.advance(self._news, self.mark, identity)
        if mark.offset >= self._news.begin:  # or another process was faster
            self._news = News(self.mark.offset)
        else:  # another process began it anew
            self._stand_at(mark)
            self.follow(alone=False, may_restart=False)

    def _size(self, *, may_restart: bool) -> int:
        try:
            return self._log.size(at_least=self.scanner.seen)
        except Conflict:
            if not may_restart:
                raise
        self._log.forget()
        self.close()
        self._stand_at(Mark())
        return self._log.size()

    def _opened(self) -> Index:
        # A folder that is not there is not created by looking at it.
        path = self._log.folder / files.FILES[0] if self._use_file and self._log.folder.is_dir() else None
        if self._index is not None and self._index.path == path and not self._index.lost():
            return self._index
        self.close()
        index = self._index = Index(path)
        with index.transaction():
            mark = index.mark()
            if mark.offset > self._log.size() or index.get("identity", "") != self._log.identity(mark.offset):
                index.clear()
                index.put(identity=self._log.identity(0))
        self._stand_at(index.mark())
        self.follow(alone=False, may_restart=False)
        return index

    def _give_up(self, problem: sqlite3.Error) -> None:
        """A damaged index is thrown away and made anew; where a file cannot be written, one in memory does."""
        self.close()
        if not self._use_file:
            raise problem
        code = getattr(problem, "sqlite_errorcode", sqlite3.SQLITE_ERROR) & 0xFF
        self._use_file = code in _DAMAGED and self._rebuilt < _REBUILDS
        self._rebuilt += 1
        if self._use_file:
            try:
                files.remove(self._log.folder)
            except OSError:
                self._use_file = False

    def _stand_at(self, mark: Mark) -> None:
        self.mark = mark
        self.scanner = Scanner(mark.offset, mark.line)
        self._news = News(mark.offset)

    def _take(self, found: list[Found]) -> None:
        mark, claims = self.mark, self._news.claims
        controller, last, schema = mark.controller, mark.last, mark.schema
        for _start, end, event in found:
            last = end
            controller = max(controller, started_controller(event))
            schema = max(schema, opened_schema(event))
            claimed = claimed_generation(event, controller)
            if claimed and claimed > claims.get(event.order_id, 0):
                claims[event.order_id] = claimed
        self._news.found += found
        self._news.problems += self.scanner.problems
        self.scanner.problems.clear()
        offset, line = self.scanner.clean
        sequence = max(mark.sequence, self.scanner.sequence)
        self.mark = Mark(offset, line, sequence, controller, mark.events + len(found), last, schema)
