"""The floor decides: given the state and the clocks, what to do next. No I/O; the engine performs what is decided here.

``apply`` folds one event and updates only what that event touched; ``decide`` takes the next decisions from the queues
that ``apply`` filled. Both cost work in proportion to what changed, not to how many orders there are.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable
from heapq import heappop, heappush

from shopfloor.domain.board import Board, Run, at_rest
from shopfloor.domain.calls import Calls, answered
from shopfloor.domain.entry import TELLING, Entry
from shopfloor.domain.events import ENDINGS, E, Event
from shopfloor.domain.graph import check_acyclic, depth_below
from shopfloor.domain.holder import Holder, Wanted, held, holder_of
from shopfloor.domain.judge import ENDS, Decision, Land, Settle, Start, Stop, Verify, step
from shopfloor.domain.loose import Loose
from shopfloor.domain.order import FINAL, Reason, Record, State
from shopfloor.domain.plan import Key, Plan, ageing_key
from shopfloor.domain.policy import Capacity, Policy, batch_size, remaining
from shopfloor.domain.spending import Spending
from shopfloor.domain.timers import Now, Timers

__all__ = ["Capacity", "Floor", "Now"]


class Floor:
    """The state of one run and the decisions that follow from it."""

    def __init__(self, policy: Policy | None = None) -> None:
        self.policy = policy or Policy()
        self.board = Board()
        self.run: Run | None = None
        self._begin(frozenset())

    def _begin(self, answering: frozenset[str]) -> None:
        self.calls = Calls(answering)
        self.plan = Plan()
        self.timers = Timers()
        self.landing: set[str] = set()
        self.checking: set[str] = set()
        self.live: set[str] = set()
        self.held: dict[str, Holder] = {}
        """what sessions hold: no agent of ours works on it"""
        self.loose = Loose(self.board, self.held, self._delivered)
        self._under_way: dict[str, type[Decision]] = {}
        """what was decided for an order and is not known to have been done"""
        self._keys: dict[str, Key] = {}
        self._aged = 0
        self._depth: dict[str, int] = {}
        self._spending = Spending()
        self._open: set[str] = set()
        self._holds: list[Decision] = []
        self._book: deque[str] = deque()
        self._doomed: deque[tuple[str, str]] = deque()
        self._verify: list[tuple[Key, str]] = []
        self._land: list[tuple[Key, str]] = []

    # -- taking facts in --------------------------------------------------------------------------------------------

    def load(self, events: Iterable[Event]) -> None:
        """Fold events of the past without planning anything."""
        for event in events:
            self.board.apply(event)

    def open(self, run_id: str, now: Now, answering: frozenset[str] = frozenset()) -> None:
        """Make a run the active one and plan all of its orders. Raises UsageError when they wait in a circle."""
        self._begin(answering)
        run = self.run = self.board.runs[run_id]
        self.entry = Entry(self.board, run, self.policy, self._busy)
        self.entry.follow(now)
        records = [self.board.records[o] for o in run.orders]
        edges = {r.order.id: [d for d in r.order.depends_on if d in self.board.records] for r in records}
        check_acyclic(edges, {r.order.id: r.order.name for r in records})
        self._depth = depth_below(edges)
        for record in records:
            self._key(record)
        for record in records:
            self._place(record, run, now)
        self.loose.begin(now)

    def apply(self, event: Event, now: Now) -> None:
        """Fold one event in and queue what follows from it."""
        run = self.run
        landing = run.land if run else ""
        changed = self.board.apply(event)
        if run is None:
            return
        if changed:
            self._settle_decision(changed, event.event_type)
            record = self.board.records[changed]
            if event.event_type == _UPDATED:
                self._plan_anew(record)
            if record.order.run == run.id:
                self._place(record, run, now)
                if event.event_type in ENDINGS:
                    self._feel(record, run, now)
            else:
                self._promise(record)
            self.loose.note(record, now)
        news = event.event_type in TELLING and self.entry.follow(now)
        if news or run.land != landing or event.event_type == _HELD:
            self._place_all(run, now)

    # -- deciding ---------------------------------------------------------------------------------------------------

    def decide(self, now: Now, capacity: Capacity) -> list[Decision]:
        """Everything to be done now within ``capacity``. Each decision is handed out once until its facts come back."""
        run = self.run
        if run is None:
            return []
        for order in self.timers.wake(now.awake):
            self.plan.queue(order)
        decisions: list[Decision] = [*self.entry.open(now), *self._bookkeeping(run), *self._dependants()]
        decisions += [*self._landings(run, capacity), *self._checks(run, capacity)]
        if self.over_budget:
            return decisions + self._over_budget(run)
        holds, self._holds = self._holds, []
        room = {} if holds else {"": capacity.starts, **capacity.calls}  # what may start is known when they are facts
        return decisions + holds + [start for lane, free in room.items() for start in self._starts(free, lane=lane)]

    def claim(self, limit: int, wanted: Wanted) -> list[Start]:
        """Orders for a session that asks for some, the next ones first, as ``decide`` would start them.

        Nothing while the floor is paused or over its budget: a session starts nothing that we would not.
        """
        if self.run is None or self.over_budget:
            return []
        return self._starts(limit, (lambda order: wanted.fits(self.board.records[order].order)) if wanted else None)

    def unclaim(self, starts: Iterable[Start], now: Now) -> None:
        """What was to be claimed could not be written: everything is as before."""
        for start in starts:
            if self._under_way.pop(start.order, None) is not None and self.run is not None:
                self._place(self.board.records[start.order], self.run, now)

    def next_timer(self) -> float | None:
        """Awake time at which a retry becomes due, or an account opens; None: no such time is known."""
        account = self.entry.next_timer() if self.run is not None else None
        return min((due for due in (self.timers.next(), account) if due is not None), default=None)

    @property
    def spent_usd(self) -> float:
        """What the run's attempts cost so far; unpriced attempts do not count."""
        return self._spending.spent_usd

    @property
    def over_budget(self) -> bool:
        """True when the attempts cost as much as the run may spend, or the gateway refused it more."""
        return self._spending.over(self.run)

    @property
    def finished(self) -> bool:
        """True when nothing more will happen in this run without a person."""
        # What is cheap to know comes first: the last line may have to look at every open order.
        if self.live or self._under_way or self._book or self._doomed or self._holds or self.timers.next() is not None:
            return False
        return all(self._waits(order) for order in self._open)

    # -- inside: after a fact ---------------------------------------------------------------------------------------

    def _settle_decision(self, order: str, fact: str) -> None:
        """Whatever was decided for an order is done once its fact is there."""
        kind = self._under_way.get(order)
        if fact in _OVER or kind is ENDS.get(fact) or (fact == _RETRIED and kind is not Settle):
            self._under_way.pop(order, None)
            self.checking.discard(order)
            self.landing.discard(order)

    def _plan_anew(self, record: Record) -> None:
        """Another program changed what it waits for, how urgent it is, or whether it is to start at all."""
        order, old = record.order, self._keys.get(record.order.id)
        if record.state in FINAL or self._under_way.get(order.id) is Start:
            self._under_way.pop(order.id, None)  # a claim that was decided before is refused or begins with what is new
        if record.state is not State.READY or order.id in self._under_way:
            return
        self.plan.drop(order.id)
        if old is not None:
            self._keys[order.id] = ageing_key(order.created_at, order.priority, -old[1], old[2])

    def _busy(self) -> set[str]:
        """Orders that an agent works on, or is about to."""
        return (self.live - self.held.keys()) | {o for o, kind in self._under_way.items() if kind is Start}

    def _place_all(self, run: Run, now: Now) -> None:
        for order in run.orders:
            self._place(self.board.records[order], run, now)

    def _place(self, record: Record, run: Run, now: Now) -> None:
        order, live = record.order.id, record.live
        (self._open.discard if at_rest(record, run) else self._open.add)(order)
        (self.live.add if live else self.live.discard)(order)
        if record.attempts:
            self._spending.note(record)
            self.calls.note(record)
        if live and (holder := held(record)) is not None:
            self.held[order] = holder
        elif self.held:
            self.held.pop(order, None)
        self._promise(record)
        if record.state is _READY:
            self._enlist(record, now)
        else:
            self._advance(record, run)

    def _promise(self, record: Record) -> None:
        """Tell those who wait for an order whether they still have to, and whether they ever will."""
        order = record.order.id
        if not self.plan.awaited(order):
            return
        if self._delivered(record):
            self.plan.deliver(order)
            return
        self.plan.withdraw(order)
        if record.state in _ENDED:
            self._doomed.extend((follower, order) for follower in self.plan.behind(order))

    def _enlist(self, record: Record, now: Now) -> None:
        order = record.order.id
        self._take_in(record)
        if order in self._under_way:
            return  # it is being started, or ended: its files stay taken
        self.plan.free(order)
        if record.stopping or record.taken:
            self.timers.forget(order)
            self.plan.unqueue(order)
            self._book.extend([order] if record.stopping else [])
            return
        for need in self.plan.waits_for(order) if record.order.depends_on else ():
            if self.board.records[need].state in _ENDED:
                self._doomed.append((order, need))
        if self.entry.bars(record):
            self.timers.forget(order)
            self.plan.unqueue(order)
        elif self._sleeps(record, now):
            self.plan.unqueue(order)
        else:
            self.plan.queue(order)

    def _sleeps(self, record: Record, now: Now) -> bool:
        if record.retry_at is None:
            return False
        delay = remaining(record.retry_delay_s, record.retry_at, now.wall)
        cause = (record.retry_at, record.retry_delay_s, record.generation)
        return self.timers.sleeps(record.order.id, cause, delay, now.awake)

    def _advance(self, record: Record, run: Run) -> None:
        order = record.order.id
        self.timers.forget(order)
        if record.state in FINAL:
            self.plan.drop(order)
            self._keys.pop(order if answered(record) else "", None)
            return
        self._take_in(record)
        self.plan.unqueue(order)
        if at_rest(record, run) or self._unanswered(record):
            self.plan.free(order)
        else:
            self.plan.hold(order)
        if not self._may_decide(record):
            return
        what = step(record, run, self.policy)
        if isinstance(what, Verify):
            heappush(self._verify, (self._key(record), order))
        elif isinstance(what, Land):
            heappush(self._land, (self._key(record), order))
        elif what is not None:
            self._book.append(order)

    def _take_in(self, record: Record) -> None:
        order = record.order
        if order.id in self.plan:
            return
        for need in order.depends_on:
            known = self.board.records.get(need)
            if known is None or self._delivered(known):
                self.plan.deliver(need)
        lane = "" if self.run is None else self.calls.lane(order, self.run)
        self.plan.add(order.id, self._key(record), order.depends_on, order.files, lane)

    def _key(self, record: Record) -> Key:
        order = record.order
        key = self._keys.get(order.id)
        if key is None:
            below = self._depth.get(order.id, 0)
            self._aged += 1
            key = self._keys[order.id] = ageing_key(order.created_at, order.priority, below, self._aged)
        return key

    def _delivered(self, record: Record) -> bool:
        run = self.board.run_of(record) if record.state is State.VERIFIED else None
        return record.state is State.DONE or (run is not None and run.land == "off")

    def _waits(self, order: str) -> bool:
        """Only waits for a person or another program, or for orders that do."""
        record = self.board.records[order]
        if record.state is State.READY:
            waits = record.taken or self.plan.waits_for(order)
            return bool(waits or self.entry.held(record) or self.entry.doubtful(record))
        return self._unanswered(record)

    def _feel(self, record: Record, run: Run, now: Now) -> None:
        if (record.state in FINAL and not answered(record)) or holder_of(record.attempt) is not None:
            changed = self.entry.forget(record)
        else:
            hold, changed = self.entry.feel(record)
            self._holds += [hold] if hold is not None else []
        if changed:
            self._place_all(run, now)

    def _unanswered(self, record: Record) -> bool:
        """Its agent ended with a question; the answer starts it anew, so its files are free until then."""
        return record.state is State.ASKING and not record.live

    # -- inside: decisions ------------------------------------------------------------------------------------------

    def _may_decide(self, record: Record) -> bool:
        # A check takes long and changes nothing: a person's stop does not wait for it.
        return self._under_way.get(record.order.id) in (None, Verify)

    def _bookkeeping(self, run: Run) -> list[Decision]:
        found: list[Decision] = []
        while self._book:
            record = self.board.records[self._book.popleft()]
            what = step(record, run, self.policy) if self._may_decide(record) else None
            if what is not None and not isinstance(what, Verify | Land):
                self._under_way[record.order.id] = type(what)
                found.append(what)
        return found

    def _dependants(self) -> list[Decision]:
        found: list[Decision] = []
        while self._doomed:
            order, need = self._doomed.popleft()
            record, cause = self.board.records[order], self.board.records[need]
            # Either may have been sent back by a person since.
            if record.state is State.READY and cause.state in _ENDED and order not in self._under_way:
                text = f"{cause.order.name!r} {_ENDED[cause.state]}, and this order needs it"
                self._under_way[order] = Settle
                found.append(Settle(order, State.FAILED, Reason.DEPENDENCY, text))
        return found

    def _checks(self, run: Run, capacity: Capacity) -> list[Decision]:
        found: list[Decision] = []
        while self._verify and len(found) < capacity.checks:
            order = heappop(self._verify)[1]
            if self._still(order, run, Verify):
                self._under_way[order] = Verify
                self.checking.add(order)
                found.append(Verify(order))
        return found

    def _landings(self, run: Run, capacity: Capacity) -> list[Decision]:
        """The oldest of what is verified. The first of them is always decided, and who queues again keeps its age."""
        most = batch_size(self.policy, run.red_batches) if capacity.landing else 0
        batch: list[str] = []
        while self._land and len(batch) < most:
            order = heappop(self._land)[1]
            if self._still(order, run, Land):
                self._under_way[order] = Land
                self.landing.add(order)
                batch.append(order)
        return [Land(tuple(batch))] if batch else []

    def _still(self, order: str, run: Run, kind: type[Verify | Land]) -> bool:
        if order in self._under_way:
            return False
        return isinstance(step(self.board.records[order], run, self.policy), kind)

    def _over_budget(self, run: Run) -> list[Decision]:
        """End what runs and what could start."""
        found: list[Decision] = []
        for order in sorted(self.live - self.held.keys() - self._under_way.keys()):
            self._under_way[order] = Stop
            found.append(Stop(order, Reason.BUDGET))
        text = self._spending.word(run)
        while (ready := self.plan.pop()) is not None:
            self._under_way[ready] = Settle
            found.append(Settle(ready, State.FAILED, Reason.BUDGET, text))
        return found

    def _starts(self, limit: int, fits: Callable[[str], bool] | None = None, *, lane: str | None = None) -> list[Start]:
        found: list[Start] = []
        while len(found) < limit and not self.board.paused and (ready := self.plan.pop(fits, lane=lane)) is not None:
            if self.entry.kept_out(self.board.records[ready]):
                self.plan.free(ready)  # it is placed anew when the one that tries its account has told
                continue
            self._under_way[ready] = Start
            found.append(Start(ready, self.board.records[ready].generation + 1))
        return found


_READY, _UPDATED, _RETRIED, _HELD = State.READY, E.UPDATED, E.RETRIED, E.AGENT_HELD
_OVER = frozenset({E.SETTLED, E.CLOSED})
_ENDED = {State.FAILED: "failed", State.CANCELLED: "was cancelled"}
