"""Where facts become events: stamped with time and id, made durable, then folded into the floor."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

from shopfloor.domain.events import E, Event, stamp_time
from shopfloor.domain.floor import Floor, Now
from shopfloor.ports import Clock, Query, Store

Observer = Callable[[Event], None]


class Draft(NamedTuple):
    """An event before it has an id and a time."""

    type: E
    data: dict[str, Any]
    actor: str = "shopfloor"
    caused_by: str | None = None


class Journal:
    """The only way of the engine to change the state."""

    def __init__(self, store: Store, floor: Floor, clock: Clock, new_id: Callable[[], str]) -> None:
        self.store = store
        self.floor = floor
        self.clock = clock
        self.new_id = new_id
        self.observers: list[Observer] = []
        self.taken: list[Callable[[], None]] = []
        """called once for events that were folded in together, before the observers see them"""
        self.generation = 0
        self.position = 0
        """how far the log was read for what others write"""

    def now(self) -> Now:
        """Both clocks."""
        return Now(self.clock.wall(), self.clock.awake())

    def event(self, draft: Draft, run: str | None, at: str = "") -> Event:
        """The draft as an event of now; ``at`` is what the log writes for that, where it is known."""
        at = at or stamp_time(self.clock.wall())
        return Event(self.new_id(), draft.type, at, draft.actor, run, draft.data, draft.caused_by)

    async def commit(
        self, *drafts: Draft, expect: Mapping[str, int] | None = None, run: str | None = None
    ) -> Sequence[Event]:
        """One logical change: durable when this returns, then folded in. Raises what ``Store.append`` raises."""
        active = run or (self.floor.run.id if self.floor.run else None)
        at = stamp_time(self.clock.wall())
        stamped = await self.store.append([self.event(d, active, at) for d in drafts], expect=expect)
        self.take(*stamped)
        return stamped

    async def take_stock(self) -> None:
        """Begin with what the log says: all runs that are not at rest, and the newest."""
        (row,) = await self.store.query(Query(what="board", state="open"))
        self.floor.board, self.position = row["board"], row["position"]

    async def join(self, run: str) -> None:
        """Have all orders of a run on the board."""
        if run in self.floor.board.absent:
            (row,) = await self.store.query(Query(what="board", run=run))
            self.floor.board.join(row["board"])

    async def know(self, order: str, position: int) -> None:
        """Have an order on the board that the log spoke of before this position: with its whole run."""
        board = self.floor.board
        if not order or order in board.records or not board.absent:
            return
        known = await self.store.query(Query(order=order, limit=1))
        if known and known[0]["id"] == order and known[0]["run"] in board.shed:
            await self.join(known[0]["run"])
        elif known and known[0]["id"] == order:
            history = await self.store.query(Query(what="events", order=order))
            if history[0]["position"] < position:
                await self.join(known[0]["run"])

    def take(self, *events: Event) -> None:
        """Fold in events that are durable already, then show them to the observers.

        What an observer raises is raised here, and ends the session; that observer is not called again, so that the
        session can still be ended in good order.
        """
        now = self.now()
        for event in events:
            self.floor.apply(event, now)
        for called in self.taken:
            called()
        for observer in tuple(self.observers):
            self.observers.remove(observer)
            for event in events:
                observer(event)
            self.observers.append(observer)
