"""Orders of no run: made, changed and looked at by programs; sessions work on them, controller or not."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from operator import itemgetter
from typing import Any, NamedTuple, TypeVar

import msgspec

from shopfloor.app import holders
from shopfloor.domain import edits
from shopfloor.domain.creating import creation
from shopfloor.domain.errors import Conflict, NotFound, Refused, UsageError
from shopfloor.domain.events import E, Event
from shopfloor.domain.fold import fold
from shopfloor.domain.graph import check_acyclic, reaches
from shopfloor.domain.order import FINISHED, Order, Record
from shopfloor.engine.journal import Draft, Journal
from shopfloor.ports import Query, Store

TRIES = 8
"""How often a change is made again that somebody else was faster with."""

RANDOM_CHARS = 10
"""of a new id: many are made over the years, and nobody looks whether one was there before"""

AT_ONCE = 250
"""records in one piece: some milliseconds of work"""

_record = msgspec.json.Decoder(Record)
T = TypeVar("T")

Change = Callable[[Record], Mapping[str, Any]]
"""Says from what an order is now what is to be changed; raises what keeps it from being changed."""


class _Kept(NamedTuple):
    age: int
    record: Record


class Orders:
    """``await floor.orders.create([Order(id="", name="", title="…")])``, for sessions that claim them."""

    def __init__(
        self, journal: Journal, person: str, *, new_name: Callable[[int], str], masked: Callable[[str], str]
    ) -> None:
        self._journal = journal
        self._store = journal.store
        self._person = person
        self._new_name = new_name
        self._masked = masked
        self._handle = {"handle": holders.holder().handle()}
        """which process says it"""
        self._known: dict[str, _Kept] = {}
        """those that are not finished: what is finished would grow without end"""
        self._looks: dict[Callable[[Record], Any], dict[str, Any]] = {}
        """what was made of the known ones, by whom"""
        self._newest = 0
        """the greatest age of any of them so far"""
        self._mixed = False
        """they are not in the order of their age"""
        self._states: dict[str, int] = {}
        self._position = 0
        self._log = 0
        """which log that is, and how far it is known"""
        self._following = asyncio.Lock()

    async def create(self, orders: Sequence[Order], *, actor: str = "") -> list[Order]:
        """Make them, all or none; an empty id gets a new one, an empty name the id.

        Raises NotFound for one that is waited for and unknown, UsageError when they wait for each other in a circle.
        """
        made = [self._made(order, actor) for order in orders]
        own = {order.id for order in made}
        for need in {need for order in made for need in order.depends_on} - own:
            await self.get(need)
        check_acyclic({o.id: [n for n in o.depends_on if n in own] for o in made}, {o.id: o.title for o in made})
        drafts = [Draft(E.CREATED, creation(order) | self._handle, order.created_by) for order in made]
        await self._store.append(
            [self._journal.event(draft, None) for draft in drafts], expect={order.id: 0 for order in made}
        )
        return made

    async def get(self, name: str) -> Record:
        """The one order that an id, a name or the unique beginning of an id means. Raises NotFound, UsageError."""
        rows = await self._store.query(Query(order=name)) if name else []
        if not rows:
            raise NotFound(f"there is no order {name!r}")
        if len(rows) > 1:
            raise UsageError(f"{name!r} may be {len(rows)} orders: {', '.join(row['id'] for row in rows[:3])}, …")
        return msgspec.convert(rows[0]["record"], Record)

    async def all(self) -> list[Record]:
        """All orders of no run, the oldest first, as many as there are: :meth:`finished` gives those in pieces."""
        return await self.all_seen(_itself)

    async def all_seen(self, look: Callable[[Record], T]) -> list[T]:
        """What ``look`` makes of all of them, the oldest first; for the unfinished it is only asked as by ``seen``."""
        seen = await self.seen(look)
        if not any(state in FINISHED for state in self._states):
            return seen
        known = self._known.items()
        found = {order: (kept.age, one) for (order, kept), one in zip(known, seen, strict=True)}
        async for kept in self._finished():
            found[kept.record.order.id] = kept.age, look(kept.record)
        return [one for _, one in sorted(found.values(), key=itemgetter(0))]

    async def unfinished(self) -> list[Record]:
        """Those that are neither done nor cancelled, the oldest first.

        They are kept and given to whoever asks next: change nothing.
        """
        await self._unfinished()
        return [kept.record for kept in self._known.values()]

    async def seen(self, look: Callable[[Record], T]) -> list[T]:
        """What ``look`` makes of each of the unfinished; it is only asked again about those that have changed."""
        await self._unfinished()
        looks = self._looks.setdefault(look, {})
        for order in self._known.keys() - looks.keys():
            looks[order] = look(self._known[order].record)
        return [looks[order] for order in self._known]

    async def finished(self) -> AsyncIterator[Record]:
        """Those that are done or cancelled, by when they last changed; not all of them are in memory at a time."""
        async for kept in self._finished():
            yield kept.record

    async def urgent(self, most: int, state: str = "finished") -> list[Record]:
        """The first so many of the ``finished``, ``unfinished``, or those in one state, by priority and age."""
        if most <= 0:
            return []
        (row,) = await self._store.query(Query(what="loose", state=state, limit=most, urgent=True))
        return [kept.record for kept in _kept(row)]

    async def states(self) -> dict[str, int]:
        """How many orders of no run are in which state."""
        await self._unfinished()
        return dict(self._states)

    def ends(self) -> Ends:
        """What ends from now on, as far as nobody else is told of it here."""
        return Ends(self._store)

    async def _unfinished(self) -> None:
        """Have those known that are unfinished now, in their order."""
        async with self._following:
            await self._follow()
        if self._mixed:
            self._known = dict(sorted(self._known.items(), key=lambda item: item[1].age))
            self._mixed = False

    async def _finished(self) -> AsyncIterator[_Kept]:
        async for row in _pieces(self._store, Query(what="loose", state="finished", limit=AT_ONCE)):
            for kept in _kept(row):
                yield kept

    async def _follow(self) -> None:
        """Bring what is known up to the log; what nobody changed is neither read nor decoded again."""
        while self._position:
            query = Query(what="loose", after=self._position, limit=AT_ONCE)
            async for row in _pieces(self._store, query):
                if row["log"] != self._log or row["position"] < self._position:
                    break  # it is another log, or was begun anew
                self._take(row)
            else:
                return
            self._known.clear()
            self._looks.clear()
            self._position = self._newest = 0
        (row,) = await self._store.query(Query(what="loose", state="unfinished"))
        self._take(row)

    def _take(self, row: Mapping[str, Any]) -> None:
        for kept in _kept(row):
            order = kept.record.order.id
            if kept.record.state in FINISHED:
                self._known.pop(order, None)
            else:
                self._mixed |= order not in self._known and kept.age < self._newest
                self._newest = max(self._newest, kept.age)
                self._known[order] = kept
            for looks in self._looks.values():
                looks.pop(order, None)
        self._log, self._position, self._states = row["log"], row["position"], row["states"]

    async def events(self, order: str, limit: int = 0) -> list[Event]:
        """What happened to an order, the oldest first; ``limit`` keeps the newest."""
        rows = await self._store.query(Query(what="events", order=order, limit=limit))
        return [msgspec.convert({k: v for k, v in row.items() if k != "position"}, Event) for row in rows]

    async def change(self, name: str, change: Change, *, actor: str = "") -> Record:
        """Change an order as other programs may; who was faster is heard first. Returns what it is then.

        Raises Refused, by the rules of ``domain/edits.py``, for what cannot be changed now, UsageError for a circle.
        """
        for _ in range(TRIES):
            record = await self.get(name)
            changes = dict(change(record))
            if not changes:
                return record
            await self._refuse(record, changes)
            fenced = edits.fenced(record, changes)
            data: dict[str, Any] = {"work_order_id": record.order.id, "changes": changes, **self._handle}
            if fenced:
                data["generation"] = record.generation + 1
            event = self._journal.event(Draft(E.UPDATED, data, actor or self._person), None)
            try:
                (said,) = await self._store.append(
                    [event], expect={record.order.id: record.generation} if fenced else None
                )
            except Conflict:
                continue
            fold(record, said)
            return record
        raise Conflict(f"{name!r} goes on being changed by others", hint="try again")

    async def changed(self, after: int, timeout_s: float) -> int:
        """Where the log ends, as soon as that is behind ``after`` or the time is over; 0 is the beginning."""
        await self._store.wait(after, timeout_s)
        (meta,) = await self._store.query(Query(what="meta"))
        return int(meta["position"])

    def _made(self, order: Order, actor: str) -> Order:
        name = order.id or f"wo-{self._new_name(RANDOM_CHARS)}"
        return msgspec.structs.replace(
            order, id=name, name=order.name or name, title=self._masked(order.title),
            instruction=self._masked(order.instruction), created_at=self._journal.clock.wall(), run="",
            created_by=actor or self._person,
        )  # fmt: skip

    async def _refuse(self, record: Record, changes: Mapping[str, Any]) -> None:
        bad = edits.refusals(record, changes)
        for field, why in bad.items():
            raise Refused(f"the {field} of {record.order.name!r} cannot be changed: {why}")
        if "dependencies" not in changes:
            return
        needs = edits.needs_of(changes["dependencies"])
        above: dict[str, tuple[str, ...]] = {}
        left = [(await self.get(one)).order.id for one in needs]
        while left:  # only what these wait for is looked at, however many orders there are
            one = left.pop()
            rows = [] if one in above else await self._store.query(Query(order=one))
            above |= {row["id"]: tuple(row["record"]["order"].get("depends_on", ())) for row in rows}
            left += above.get(one, ()) if rows else ()
        if reaches(needs, record.order.id, lambda one: above.get(one, ())):
            raise UsageError(f"{record.order.name!r} would wait for itself: one of {', '.join(needs)} waits for it")


class Ends:
    """``floor.orders.ends()`` tells which have ended since it was last asked: each once, whatever is said of it later.

    Only what has not ended is remembered, and how far the log was.
    """

    def __init__(self, store: Store) -> None:
        self._store = store
        self._begun = False
        self._open: set[str] = set()
        """what had not ended when it was last asked"""
        self._newest = 0
        """orders up to this age were there then"""
        self._told: set[str] = set()
        """newer ones that ended while it was being told"""
        self._position = self._log = 0

    async def begin(self) -> None:
        """What has ended by now is no news; only the first call counts."""
        if self._begun:
            return
        (row,) = await self._store.query(Query(what="loose", state="unfinished"))
        self._open = {kept.record.order.id for kept in _kept(row)}
        self._newest, self._log, self._position = row["newest"], row["log"], row["position"]
        self._told.clear()
        self._begun = True

    async def new(self) -> AsyncIterator[Record]:
        """Those that have ended since, by when they last changed. What was begun in another log is no news either."""
        await self.begin()
        newest = self._newest
        async for row in _pieces(self._store, Query(what="loose", after=self._position, limit=AT_ONCE)):
            if self._position and (row["log"] != self._log or row["position"] < self._position):
                self._begun = False
                return
            for kept in _kept(row):
                order = kept.record.order.id
                if kept.record.state not in FINISHED:
                    self._open.add(order)
                elif order in self._open or (kept.age > self._newest and order not in self._told):
                    self._open.discard(order)
                    self._told.add(order)
                    yield kept.record
            newest, self._log, self._position = row["newest"], row["log"], row["position"]
        self._newest = newest
        self._told.clear()


async def _pieces(store: Store, query: Query) -> AsyncIterator[dict[str, Any]]:
    """The rows that a question with a limit is answered with one after the other; the last one has fewer records."""
    while True:
        (row,) = await store.query(query)
        yield row
        if len(row["records"]) < query.limit:
            return
        query = msgspec.structs.replace(query, after=row["position"])


def _kept(row: Mapping[str, Any]) -> Iterator[_Kept]:
    return (_Kept(age, _record.decode(text)) for age, text in zip(row["ages"], row["records"], strict=True))


def _itself(record: Record) -> Record:
    return record
