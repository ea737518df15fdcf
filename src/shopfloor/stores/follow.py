"""Follows the log: knows at once what the next change needs, and folds the rest into the index when there is time."""

from __future__ import annotations

import contextlib
import sqlite3
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, TypeVar

import msgspec

from shopfloor.domain.errors import Conflict
from shopfloor.domain.events import Event
from shopfloor.ports import CONTROLLER, Query
from shopfloor.stores import database, few
from shopfloor.stores.ahead import Ahead, Newest
from shopfloor.stores.files import Lock
from shopfloor.stores.glance import spoken_of
from shopfloor.stores.index import Index
from shopfloor.stores.log import Log, Written
from shopfloor.stores.news import Mark, News
from shopfloor.stores.own import Own
from shopfloor.stores.rush import Rush
from shopfloor.stores.scan import Found, Scanner

_DAMAGED = (sqlite3.SQLITE_ERROR, sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_SCHEMA)
_REBUILDS = 3

T = TypeVar("T")

BATCH, LET_GO = 3_000, 500
"""Events that are folded into the index in one transaction, and that are kept where they need not be folded at all."""

NEAR = 1 << 12
"""Bytes that are sooner read than asked for whether the index has them."""

MUCH = 1 << 16
"""Bytes that are not read by every process that comes to them at the same moment."""

LEAP = 1 << 22
"""Bytes from which on what is missing may be taken in at once."""

MOST_AT_ONCE = 2_000_000
"""Events that are, in one transaction: each time all is indexed anew, and others wait for it, half a minute at most."""

FAR = 1 << 20
"""Bytes beyond which all is followed instead of glanced at."""

_ANY_AT = (
    "SELECT 1 FROM json_each(?) AS wanted LEFT JOIN generations ON generations.id = wanted.key"
    " WHERE coalesce(generation, 0) = wanted.value LIMIT 1"
)


class Follower:
    """One reader of the log from where the index stands. Every method blocks; one thread uses it."""

    def __init__(self, log: Log) -> None:
        self.mark = Mark()
        self.scanner = Scanner()
        self.log = log
        self._index: Index | None = None
        self._turn = Lock(log.folder / ".index.lock")
        self._has_turn = False
        self._news = News()
        self.own = Own()
        """what this store wrote while it led"""
        self._gap = False
        """what lies between the index and ``_news`` was let go of; ``ahead`` may know what that was"""
        self.ahead: Ahead | None = None
        self.rush = Rush()
        self._use_file = True
        self._rebuilt = 0
        self.told: set[str] = set()
        """orders that lines speak of which were glanced at and not followed yet"""
        self._glanced = (-1, -1, 0)
        """from where to where that is, and the sequence there"""

    @property
    def behind(self) -> bool:
        """True when the index lacks something."""
        return self._gap or bool(self._news)

    def generation(self, order: str) -> int:
        """The greatest generation claimed for an order so far."""
        known = self._trying(lambda: self._opened().generation(order))
        return max(known, self._news.claims.get(order, 0))

    def generations(self, expect: Mapping[str, int]) -> dict[str, int]:
        """The same for all that something is expected of, asked for at once."""
        news = self._news.claims  # what came later than the index is the greatest
        asked = [order for order in expect if order not in news]
        found = self._trying(lambda: self._opened().generations(asked)) if asked else {}
        return {order: news.get(order) or found.get(order, 0) for order in expect}

    def stands_at(self, order: str, generation: int) -> bool:
        """True for the greatest generation claimed so far; the index is only asked where it may be that."""
        return self._news.claims.get(order, 0) <= generation == self.generation(order)

    def any_at(self, expect: Mapping[str, int]) -> bool:
        """True when one of these orders is at its generation."""
        orders = msgspec.json.encode({order: known for order, known in expect.items() if order != CONTROLLER}).decode()
        return self.ask(lambda index: any(index.rows(_ANY_AT, [orders])))

    def follow(self, *, alone: bool, may_restart: bool) -> None:
        """Take in what was appended. ``alone``: nobody writes now, so that an unfinished group will stay so.

        Raises Conflict when the log was replaced or cut, unless it ``may_restart``.
        """
        self.told.clear()
        self._glanced = (-1, -1, 0)
        size = self._size(may_restart=may_restart)
        self._trying(self._opened)
        if size - self.scanner.seen > NEAR:
            self._trying(self._jump)
        while self._far(size):
            self._trying(lambda: self._leap(size))
        scanner = self.scanner
        if size != scanner.seen:
            for found in self.log.scan(scanner, size, settle=False):
                self._take(found)
                if len(self._news.found) >= BATCH:
                    self.flush()
                    if self.scanner is not scanner:  # the index was begun anew, and all was followed again
                        break
        if alone and self.scanner.undecided:
            self._take(self.scanner.settle())

    def take_own(self, written: Written, lines: bytes, events: Sequence[Event]) -> bool:
        """Take in what we have just written, without reading it; False when it has to be read all the same."""
        scanner, start = self.scanner, written.start
        clean = scanner.seen == start and not (scanner.torn or scanner.undecided or self.told)
        whole = written.end - start == len(lines) == written.size
        if not (clean and whole and events) or lines.count(b"\n") != len(events):
            return False
        self.own.add(start, written.end)
        found, begin = [], 0
        for event in events:
            end = lines.index(b"\n", begin) + 1
            found.append(Found(start + begin, start + end, event))
            begin = end
        stamp = events[-1].sf
        scanner.pass_over(lines, stamp.sequence if stamp is not None else 0)
        self._take(found)
        if len(self._news.found) >= (BATCH if self.ahead is None else LET_GO):
            self._let_go()
        return True

    def _let_go(self) -> None:
        """Keep no more of what the index lacks than is needed to write on: it is read again when somebody asks.

        Where much is written at once that is cheaper than to fold it in piece by piece, and memory stays as it is.
        """
        if not self._gap and self._index is not None:
            self.ahead = Ahead(self._index)
        if self.ahead is not None and self._fold_ahead(self.ahead):
            self.ahead.let_go()
        claims, self._news = self._news.claims, News(self.mark.offset)
        self._news.claims = claims
        self._gap = True

    def _fold_ahead(self, ahead: Ahead) -> bool:
        """Have it know all that was followed; where it cannot, nobody does."""
        try:
            known = ahead.take(self._news, self.mark.offset)
        except sqlite3.Error:
            known = False
        self.ahead = ahead if known else None
        return known

    def follow_in_turn(self, *, may_restart: bool) -> None:
        """The same, for many processes at one moment: where much is unread, one reads and folds it for all of them."""
        if self._size(may_restart=may_restart) - self.scanner.seen > MUCH:
            with self._turn_held():
                self.follow(alone=False, may_restart=may_restart)
                self.flush()

    @contextlib.contextmanager
    def _turn_held(self) -> Iterator[None]:
        if self._has_turn or not self._use_file:
            yield
            return
        with self._turn.held():
            self._has_turn = True
            try:
                yield
            finally:
                self._has_turn = False

    def glance(self) -> int | None:
        """The newest sequence, read without decoding what was not followed yet; ``told`` are the orders in that.

        None: there is more in it than claims and the like, and all has to be followed. Many processes that claim beside
        each other would otherwise each decode every claim of all the others. Nobody writes now: we hold the lock.
        """
        scanner = self.scanner
        if not scanner.seen or scanner.torn or scanner.undecided:
            return None
        if self._glanced[0] != scanner.seen:
            self._glanced = (scanner.seen, scanner.seen, self.mark.sequence)
            self.told.clear()
        start, end, sequence = self._glanced
        size = self.log.size(at_least=end)
        if size == end:
            return sequence
        if size - start > FAR:
            return None
        seen = spoken_of(self.log.read(end, size - end))
        if seen is None:
            return None
        self.told |= seen[0]
        self._glanced = (start, size, seen[1])
        return seen[1]

    def published(self) -> int:
        """How far the log was when the views were last brought up to it, by whoever did."""
        return self._trying(lambda: int(self._opened().get("view", 0)))

    def flush(self) -> None:
        """Bring the index up to what was followed."""
        self.ask(Index.mark)

    def ask(self, question: Callable[[Index], T]) -> T:
        """The answer of the index, brought up to what was followed."""

        def flushed() -> T:
            index = self._opened()
            while self.behind:
                self._flush_in_turn(index)
                index = self._opened()
            return question(index)

        return self._trying(flushed)

    def newest(self, since: int, question: Callable[[Newest], T]) -> T:
        """The same, or the answer of an index that stays behind and of who knows what changed after ``since``."""

        def known() -> T:
            index, ahead = self._opened(), self.ahead
            if ahead is None or ahead.since > since or not self._fold_ahead(ahead):
                return self.ask(lambda index: question(Newest(index, None)))
            return question(Newest(index, ahead))

        return self._trying(known)

    def glimpse(self, question: Callable[[Index], T]) -> T:
        """The answer of the index as it is, whatever it lacks."""
        return self._trying(lambda: question(self._opened()))

    def few(self, query: Query, now: float) -> list[dict[str, Any]] | None:
        """The answer to a question about a few ids without writing the index; None: :meth:`ask`."""
        if self._gap:
            return None
        return self.glimpse(lambda index: few.rows(index, query, self._news, now=now, controller=self.mark.controller))

    def close(self) -> None:
        """Let go of everything."""
        self._close_index()
        self._turn.close()

    def _close_index(self) -> None:
        if self._index is not None:
            self._index.close()
            self._index = None

    def _trying(self, work: Callable[[], T]) -> T:
        while True:
            try:
                return work()
            except sqlite3.Error as problem:
                self._give_up(problem)

    def _jump(self) -> None:
        """What another process has folded into the index already need not be read once more."""
        index = self._opened()
        if self.scanner.seen < index.offset():
            self._stand_at(index.mark())

    def _flush_in_turn(self, index: Index) -> None:
        """One process at a time, and what it has done the others need not do: they would wait much longer in SQLite."""
        if index.path is None:
            self._flush(index)
            return
        with self._turn_held():
            self._jump()
            if self.behind:
                self._flush(self._opened())

    def _flush(self, index: Index) -> None:
        with index.transaction():
            mark = index.mark()
            if self._news.begin <= mark.offset <= self.mark.offset:
                identity = self.log.identity(self.mark.offset)
                index.advance(self._news, self.mark, identity)
        if mark.offset >= self._news.begin:  # or another process was faster
            self._news = News(self.mark.offset)
            self._gap, self.ahead = False, None
        else:  # another process began it anew
            self._stand_at(mark)
            self.follow(alone=False, may_restart=False)

    def _far(self, size: int) -> bool:
        """So much is missing that it is sooner taken in without indexes, and all indexed anew."""
        return size - self.scanner.seen > max(LEAP, self.scanner.seen // 4)

    def _leap(self, size: int) -> None:
        """Take much in at once, and keep it: what comes later builds on that, also when this process ends.

        Where there is nothing yet it is made beside what is there, which is sooner done than in the place of that.
        """
        index = self._opened()
        with self._turn_held() if index.path is not None else contextlib.nullcontext():
            self._jump()
            if not self._far(size) or self.behind or self._index is not index:
                return
            done = False
            try:
                if index.path is not None and not self.mark.offset:
                    with database.beside(index.path) as db:
                        self._fill(Index(index.path, db), size)
                else:
                    self._fill(index, size)
                    done = True
                index.rows("PRAGMA shrink_memory")  # what comes next, the views, needs room too
            finally:
                if not done:  # what was followed is not in the index, or in another one
                    self._close_index()

    @database.uncollected()
    def _fill(self, index: Index, size: int) -> None:
        with index.transaction():
            if index.mark().offset == self.mark.offset:
                to = lambda: (self.mark, self.log.identity(self.mark.offset))  # noqa: E731
                index.advance_far(self._pieces(size), to, self._turn.busy)

    def _pieces(self, size: int) -> Iterator[News]:
        begin = self.mark.events
        for found in self.log.scan(self.scanner, size, settle=False):
            self._take(found)
            news, self._news = self._news, News(self.mark.offset)
            yield news
            if self.mark.events - begin > MOST_AT_ONCE:
                return

    def _size(self, *, may_restart: bool) -> int:
        try:
            return self.log.size(at_least=self.scanner.seen)
        except Conflict:
            if not may_restart:
                raise
        self.log.forget()
        self._close_index()
        self._stand_at(Mark())
        return self.log.size()

    def _opened(self) -> Index:
        if self._index is not None and self._use_file and self._index.path is not None and not self._index.lost():
            return self._index
        # A folder that is not there is not created by looking at it.
        path = self.log.folder / database.FILES[0] if self._use_file and self.log.folder.is_dir() else None
        if self._index is not None and self._index.path == path and not self._index.lost():
            return self._index
        self._close_index()
        index = self._index = Index(path)
        if not self._same(index):  # only then: another process may be writing for seconds
            with index.transaction():
                if not self._same(index):
                    index.clear()
                    index.put(identity=self.log.identity(0))
        self._stand_at(index.mark())
        self.follow(alone=False, may_restart=False)
        return index

    def _same(self, index: Index) -> bool:
        """True when it is the index of this log."""
        mark = index.mark()
        return mark.offset <= self.log.size() and index.get("identity", "") == self.log.identity(mark.offset)

    def _give_up(self, problem: sqlite3.Error) -> None:
        """A damaged index is thrown away and made anew; where a file cannot be written, one in memory does."""
        self._close_index()
        if not self._use_file:
            raise problem
        code = getattr(problem, "sqlite_errorcode", sqlite3.SQLITE_ERROR) & 0xFF
        self._use_file = code in _DAMAGED and self._rebuilt < _REBUILDS
        self._rebuilt += 1
        if self._use_file:
            try:
                database.remove(self.log.folder)
            except OSError:
                self._use_file = False

    def _stand_at(self, mark: Mark) -> None:
        self.mark = mark
        self._gap, self.ahead = False, None
        self.scanner = Scanner(mark.offset, mark.line)
        self._news = News(mark.offset)

    def _take(self, found: list[Found]) -> None:
        self.mark = self._news.take(found, self.scanner, self.mark)
