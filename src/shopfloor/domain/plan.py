"""What may start now: dependencies counted down, files held by one order at a time, oldest and most urgent first.

Everything is kept in indexes, so a change costs work in proportion to what changed: a ready heap, the missing needs of
each order, a line of waiting orders for each held path. Ageing is a static key: priority moves an order's birthday, and
since all grow older at the same rate the heap never has to be re-sorted.

An order stands in one line at a time. Only the first of a line is woken; whoever leaves the queue, or finds itself
barred by something else, passes the wake on. So a hot file costs one wake for each start, and nobody sleeps on.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable
from heapq import heappop, heappush

from shopfloor.domain.paths import folders_above, plain_path

AGEING_S = 1200.0
"""An order of one priority lower overtakes after it has waited this much longer, in seconds."""

Key = tuple[float, int, int]
_Line = dict[str, list[tuple[Key, str]]]
"""path -> heap of the orders that wait there"""


def ageing_key(created_at: float, priority: int, below: int, sequence: int) -> Key:
    """The static key: smaller starts earlier. ``below`` is the length of the chain that waits behind the order."""
    return (created_at + priority * AGEING_S, -below, sequence)


class Plan:
    """The orders that have not ended, and the files of those at work."""

    def __init__(self) -> None:
        self._key: dict[str, Key] = {}
        self._needs: dict[str, set[str]] = {}
        self._behind: dict[str, dict[str, None]] = {}
        self._delivered: set[str] = set()
        self._files: dict[str, tuple[str, ...]] = {}
        self._folders: dict[str, tuple[str, ...]] = {}
        """path -> all folders above it"""
        self._ready: dict[str, list[tuple[Key, str]]] = {}
        """lane -> heap: what takes another kind of slot stands in a heap of its own"""
        self._lane: dict[str, str] = {}
        """the lane of each order that is not in the common one"""
        self._queued: set[str] = set()
        """in the ready heap or in a line"""
        self._parked: set[str] = set()
        """not to be queued even when nothing is missing: it is at work, or waits for a time"""
        self._held: dict[str, str] = {}
        """path -> the order that holds it"""
        self._holding: set[str] = set()
        self._below: dict[str, int] = {}
        """folder -> how many held paths lie below it"""
        self._until_free: _Line = {}
        """lines for a path that is held"""
        self._until_empty: _Line = {}
        """lines for a folder with held paths below it"""
        self._missed: dict[str, dict[str, None]] = {}
        """held folder -> lines below it that are woken when it is free, because waking them sooner would help nobody"""

    def add(self, order: str, key: Key, needs: Iterable[str], files: Collection[str], lane: str = "") -> None:
        """Take an order in; it becomes ready when everything in ``needs`` was delivered.

        ``lane``: the kind of slot that it takes; orders of different lanes do not wait for each other's slots.
        """
        self._key[order] = key
        if lane:
            self._lane[order] = lane
        self._files[order] = self._declared(files) if files else ()
        missing = self._needs[order] = set()
        for need in needs:
            self._behind.setdefault(need, {})[order] = None
            if need not in self._delivered:
                missing.add(need)
        self.queue(order)

    def queue(self, order: str) -> None:
        """Let a known order start as soon as nothing that it needs is missing."""
        self._parked.discard(order)
        if order in self._key and order not in self._queued and not self._needs[order]:
            self._queued.add(order)
            self._make_ready(self._key[order], order)

    def unqueue(self, order: str) -> None:
        """Keep a known order from starting until it is queued again: it waits for a time, or is at work."""
        if order in self._key and order not in self._parked:
            self._parked.add(order)
            self._leave(order)

    def awaited(self, order: str) -> bool:
        """Whether any order was ever added that needs this one: else nobody has to be told what became of it."""
        return order in self._behind

    def deliver(self, order: str) -> None:
        """What ``order`` promised is there: count down those behind it."""
        if order in self._delivered:
            return
        self._delivered.add(order)
        for follower in self._behind.get(order, ()):
            needs = self._needs.get(follower, ())
            if order in needs:
                self._needs[follower].discard(order)
                if follower not in self._parked:
                    self.queue(follower)

    def withdraw(self, order: str) -> None:
        """What ``order`` had delivered does not count any more: those behind it that have not started wait again."""
        if order not in self._delivered:
            return
        self._delivered.discard(order)
        for follower in self._behind.get(order, ()):
            if follower in self._needs:
                self._needs[follower].add(order)
                self._leave(follower)

    def behind(self, order: str) -> list[str]:
        """The orders that wait for this one directly and have not ended."""
        return [f for f in self._behind.get(order, ()) if order in self._needs.get(f, ())]

    def drop(self, order: str) -> None:
        """Forget an order that will never (again) start; its files become free."""
        if order in self._key:
            self.free(order)
            self._leave(order)
            self._parked.discard(order)
            del self._needs[order], self._key[order], self._files[order]
            self._lane.pop(order, None)

    def pop(self, fits: Callable[[str], bool] | None = None, *, lane: str | None = None) -> str | None:
        """The next order that may start (and ``fits``), now parked and its files held; None when nothing may.

        ``lane``: only of this one; None: of all.
        """
        passed_over: list[tuple[Key, str]] = []
        found = self._pop(fits, lane, passed_over)
        for key, order in passed_over:
            self._make_ready(key, order)
        return found

    def _pop(
        self, fits: Callable[[str], bool] | None, lane: str | None, passed_over: list[tuple[Key, str]]
    ) -> str | None:
        while heap := self._foremost() if lane is None else self._ready.get(lane):
            key, order = heappop(heap)
            if order not in self._queued:
                continue
            if fits is not None and not fits(order):
                passed_over.append((key, order))
                continue
            barred = self._barred(order)
            if barred is None:
                self._parked.add(order)
                self._hold(order)
                self._leave(order)
                return order
            line, place = barred
            heappush(line.setdefault(place, []), (key, order))
            self._pass_on(order)
        return None

    def hold(self, order: str) -> None:
        """Mark the files of an order that is already at work (after a restart)."""
        if order not in self._holding and self._barred(order) is None:
            self._hold(order)

    def free(self, order: str) -> None:
        """The order is at rest: give its files back and wake who waits for them."""
        if order not in self._holding:
            return
        self._holding.discard(order)
        for path in self._files[order]:
            del self._held[path]
            for place in (path, *self._missed.pop(path, ())):
                self._wake(self._until_free, place)
                self._wake(self._until_empty, place)
            for folder in self._above(path):
                self._below[folder] -= 1
                if not self._below[folder]:
                    del self._below[folder]
                    self._wake(self._until_empty, folder)

    def waits_for(self, order: str) -> frozenset[str]:
        """The orders it still waits for."""
        return frozenset(self._needs.get(order, ()))

    def held_by(self, order: str) -> str | None:
        """Another order that holds a file this one needs, if so."""
        barred = self._barred(order)
        if barred is None:
            return None
        line, place = barred
        if line is self._until_free:
            return self._held[place]
        return next(who for held, who in self._held.items() if place in self._above(held))

    def is_queued(self, order: str) -> bool:
        """True when its dependencies are delivered and it only waits for files or a slot."""
        return order in self._queued

    def lane_of(self, order: str) -> str:
        """The lane of a known order, the common one for any other."""
        return self._lane.get(order, "")

    def lacks(self, lane: str) -> bool:
        """True when nothing of a lane is ready, but for what may have left it."""
        return not self._ready.get(lane)

    def __contains__(self, order: str) -> bool:
        return order in self._key

    def __len__(self) -> int:
        """How many orders are known and not dropped."""
        return len(self._key)

    # -- inside -----------------------------------------------------------------------------------------------------

    def _make_ready(self, key: Key, order: str) -> None:
        heappush(self._ready.setdefault(self._lane.get(order, ""), []), (key, order))

    def _foremost(self) -> list[tuple[Key, str]]:
        """The heap whose first order comes before those of all others; an empty one when there is none."""
        return min(filter(None, self._ready.values()), key=lambda heap: heap[0], default=[])

    def _declared(self, files: Iterable[str]) -> tuple[str, ...]:
        """Paths as they are compared; what lies below another path of the same order adds nothing."""
        paths = dict.fromkeys(path for path in map(plain_path, files) if path)
        return tuple(path for path in paths if not any(folder in paths for folder in self._above(path)))

    def _above(self, path: str) -> tuple[str, ...]:
        folders = self._folders.get(path)
        if folders is None:
            folders = self._folders[path] = folders_above(path)
        return folders

    def _barred(self, order: str) -> tuple[_Line, str] | None:
        """The line that an order has to stand in, if any."""
        for path in self._files.get(order, ()):
            if self._held.get(path, order) != order:
                return self._until_free, path
            if path in self._below:
                return self._until_empty, path
            for folder in self._above(path):
                if folder in self._held:
                    return self._until_free, folder
        return None

    def _hold(self, order: str) -> None:
        self._holding.add(order)
        for path in self._files[order]:
            self._held[path] = order
            for folder in self._above(path):
                self._below[folder] = self._below.get(folder, 0) + 1

    def _leave(self, order: str) -> None:
        if order in self._queued:
            self._queued.discard(order)
            self._pass_on(order)

    def _wake(self, line: _Line, place: str) -> None:
        waiting = line.get(place)
        if waiting is None:
            return
        while waiting:
            key, order = heappop(waiting)
            if order in self._queued:
                self._make_ready(key, order)
                break
        if not waiting:
            del line[place]

    def _pass_on(self, order: str) -> None:
        """Wake the next one in each line that this order may have been woken from."""
        if not (self._until_free or self._until_empty):
            return
        for path in self._files[order]:
            places = (path, *self._above(path))
            barrier = next((n for n, place in enumerate(places) if place in self._held), -1)
            for n, place in enumerate(places):
                if n > barrier:
                    self._wake(self._until_free, place)
                elif n < barrier and (place in self._until_free or place in self._until_empty):
                    self._missed.setdefault(places[barrier], {})[place] = None
            if barrier < 0 and path not in self._below:
                self._wake(self._until_empty, path)
