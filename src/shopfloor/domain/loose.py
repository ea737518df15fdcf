"""Orders of no run, while a run is performed: sessions take them, nothing is started on them, no run waits for them."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from shopfloor.domain.board import Board
from shopfloor.domain.holder import Holder, Wanted, held
from shopfloor.domain.judge import Start
from shopfloor.domain.order import Record, State
from shopfloor.domain.plan import Plan, ageing_key
from shopfloor.domain.policy import remaining
from shopfloor.domain.timers import Now, Timers


class Loose:
    """What may be claimed of them now. ``holders``: who holds what, kept for all orders in one place."""

    def __init__(self, board: Board, holders: dict[str, Holder], delivered: Callable[[Record], bool]) -> None:
        self._board = board
        self._held = holders
        self._delivered = delivered
        self._plan = Plan()
        self._timers = Timers()
        self._places: dict[str, int] = {}
        """the age of each, by how many were known before it"""

    def begin(self, now: Now) -> None:
        """Take in all that the board knows."""
        for record in self._board.records.values():
            self.note(record, now)

    def note(self, record: Record, now: Now) -> None:
        """Something became of an order, of whatever run."""
        order = record.order
        if self._plan.awaited(order.id):
            (self._plan.deliver if self._delivered(record) else self._plan.withdraw)(order.id)
        if order.run:
            return
        holder = held(record)
        if holder is not None:
            self._held[order.id] = holder
        else:
            self._held.pop(order.id, None)
        self._plan.drop(order.id)
        if record.state is not State.READY or record.taken or record.stopping:
            self._timers.forget(order.id)
            return
        key = ageing_key(order.created_at, order.priority, 0, self._places.setdefault(order.id, len(self._places)))
        needs = [need for need in order.depends_on if need in self._board.records]
        for need in needs:
            if self._delivered(self._board.records[need]):
                self._plan.deliver(need)
        self._plan.add(order.id, key, needs, order.files)
        if self._sleeps(record, now):
            self._plan.unqueue(order.id)

    def claim(self, limit: int, wanted: Wanted, now: Now) -> list[Start]:
        """Up to so many for a session, the next ones first; none while the floor is paused."""
        for order in self._timers.wake(now.awake):
            self._plan.queue(order)
        found: list[Start] = []
        records = self._board.records
        while len(found) < limit and not self._board.paused:
            ready = self._plan.pop(lambda order: wanted.fits(records[order].order))
            if ready is None:
                break
            found.append(Start(ready, records[ready].generation + 1))
        return found

    def unclaim(self, starts: Iterable[Start], now: Now) -> None:
        """What was to be claimed could not be written: everything is as before."""
        for start in starts:
            self.note(self._board.records[start.order], now)

    def _sleeps(self, record: Record, now: Now) -> bool:
        if record.retry_at is None:
            return False
        delay = remaining(record.retry_delay_s, record.retry_at, now.wall)
        return self._timers.sleeps(record.order.id, (record.retry_at, record.retry_delay_s), delay, now.awake)
