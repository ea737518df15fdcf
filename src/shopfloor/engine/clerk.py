"""What only has to be written down, written down together: many small changes share one write and one sync.

A batch is one logical change. Where somebody was faster with one of its orders, nothing of it was written, and each of
its changes is tried alone: so one conflict costs the others nothing but time.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence

import msgspec

from shopfloor.domain.errors import Conflict, Led
from shopfloor.domain.events import E
from shopfloor.domain.floor import Floor
from shopfloor.domain.judge import Decision, Retry, Settle, Start, certain
from shopfloor.domain.order import Reason, Record, State
from shopfloor.engine.facts import answer, closings, drafts, settlement, status_change
from shopfloor.engine.journal import Draft, Journal
from shopfloor.engine.outset import Outset, claim_of
from shopfloor.ports import Fact, Job, Phase, Runner

MOST_TOGETHER = 500
"""Changes in one batch."""
SHED_AFTER = 250
"""Answers that are kept in memory at the most, where nobody asks for them again."""


# Named here once: on CPython 3.11 naming a member of an enumeration takes longer than to compare it.
_READY, _ENDED, _QUOTA, _ALL_SPENT = State.READY, Phase.ENDED, Phase.QUOTA, Reason.QUOTA


class _Change(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """One change: about one order."""

    order: str
    drafts: Sequence[Draft]
    expect: Mapping[str, int] | None = None
    job: Job | None = None
    """what is started once it is durable"""
    settles: bool = False


class Clerk:
    """Writes down decisions and facts."""

    def __init__(
        self,
        journal: Journal,
        *,
        outset: Outset,
        runner: Runner,
        catch_up: Callable[[], Awaitable[None]],
        settled: Callable[[str], None],
    ) -> None:
        """``catch_up`` takes in what others have written; ``settled`` is told of every order that was ended."""
        self._journal = journal
        self._floor: Floor = journal.floor
        self._outset = outset
        self._runner = runner
        self._catch_up = catch_up
        self._settled = settled
        self.sheds = False
        """orders that calls have answered are let go of: they were told of, and the log has them"""
        self._answered = 0

    async def write(self, decisions: Sequence[Decision]) -> list[Decision]:
        """Perform those decisions that only write, or start a call; returns the others."""
        changes: list[_Change] = []
        others: list[Decision] = []
        for decision in decisions:
            match decision:
                case Retry():
                    changes.append(self._retry(decision))
                case Settle(order, outcome, reason, message):
                    what = settlement(self._record(order), outcome, reason or "", message)
                    changes.append(_Change(order=order, drafts=what, settles=True))
                case Start(order) if self._outset.is_call(record := self._record(order)):
                    changes += self._claims(record, decision)
                case _:
                    others.append(decision)
        for change, problem in await self._commit(changes):
            await self._follow(change, problem)
        return others

    async def start(self, decision: Start) -> None:
        """Claim an order and start an agent on it."""
        record = self._record(decision.order)
        if _moved_on(record, decision):
            return
        job = await self._outset.job(record, decision.generation)
        if job is not None and self._floor.entry.kept_out(record):
            self._floor.unclaim([decision], self._journal.now())  # its account was closed meanwhile
        elif job is not None:
            for change, problem in await self._commit([_claim(record, job)]):
                await self._follow(change, problem)

    async def take(self, facts: Sequence[Fact], wall: float) -> None:
        """Write down what came of attempts; what is not about the newest attempt of its order says nothing any more."""
        for some in _rounds(facts):
            changes: list[_Change] = []
            for fact in some:
                record = self._record(fact.order)
                if record.generation == fact.generation and record.live:
                    changes += self._told(fact, record, wall)
            answered = []
            for change, problem in await self._commit(changes):
                if problem is not None:
                    raise problem
                if change.settles:
                    answered.append(change.order)
            self._let_go(answered)

    # -- inside -----------------------------------------------------------------------------------------------------

    def _record(self, order: str) -> Record:
        return self._floor.board.records[order]

    def _told(self, fact: Fact, record: Record, wall: float) -> Iterator[_Change]:
        expect = {fact.order: fact.generation}
        settle = certain(record, fact.outcome) if fact.phase is _ENDED else None
        if settle is not None:
            yield _Change(order=fact.order, drafts=answer(fact, record, settle), expect=expect, settles=True)
        elif told := [*drafts(fact, record), *closings(fact, record, self._floor.board.accounts, wall)]:
            yield _Change(order=fact.order, drafts=told, expect=expect)

    def _let_go(self, answered: Sequence[str]) -> None:
        """Nobody asks for what an answered call was asked any more. The log has it; memory is for what is to come."""
        for order in answered if not self.sheds else ():
            record = self._record(order)
            record.order = msgspec.structs.replace(record.order, extra={})
        self._answered += len(answered)
        if self.sheds and self._answered >= SHED_AFTER:
            self._answered = 0
            self._floor.board.forget_answered()

    def _retry(self, decision: Retry) -> _Change:
        record = self._record(decision.order)
        data = {
            "work_order_id": decision.order, "generation": record.generation, "kind": decision.kind,
            "delay_s": decision.delay_s, "why": decision.why, "findings": decision.findings,
        }  # fmt: skip
        return _Change(order=decision.order, drafts=[Draft(E.RETRIED, data)])

    def _claims(self, record: Record, decision: Start) -> Iterator[_Change]:
        if not _moved_on(record, decision):
            yield _claim(record, self._outset.call(record, decision.generation))

    async def _commit(self, changes: Sequence[_Change]) -> list[tuple[_Change, Conflict | None]]:
        """Each change, and what was in the way where it could not be made. Raises Led once another controller leads."""
        found: list[tuple[_Change, Conflict | None]] = []
        for first in range(0, len(changes), MOST_TOGETHER):
            some = changes[first : first + MOST_TOGETHER]
            try:
                await self._commit_all(some)
                found += [(change, None) for change in some]
            except Led:
                raise
            except Conflict as problem:
                found += [(some[0], problem)] if len(some) == 1 else [await self._commit_one(change) for change in some]
        return found

    async def _commit_one(self, change: _Change) -> tuple[_Change, Conflict | None]:
        try:
            await self._commit_all([change])
        except Led:
            raise
        except Conflict as problem:
            return change, problem
        return change, None

    async def _commit_all(self, changes: Sequence[_Change]) -> None:
        expect: dict[str, int] = {}
        for change in changes:
            expect |= change.expect or {}
        await self._journal.commit(*(draft for change in changes for draft in change.drafts), expect=expect)

    async def _follow(self, change: _Change, problem: Conflict | None) -> None:
        """What comes after a change was made, or could not be made."""
        if problem is not None and change.job is not None:
            await self._lost(change.job, problem)
        elif problem is not None:
            raise problem
        elif change.job is not None:
            await self._runner.submit(change.job)
        elif change.settles:
            self._settled(change.order)

    async def _lost(self, job: Job, problem: Conflict) -> None:
        """An order that was to be claimed has moved on."""
        await self._catch_up()
        record = self._record(job.order.id)
        if record.generation != job.generation - 1:
            return  # another program changed it: it was planned anew
        # Somebody else claimed it first: it is theirs, and must not keep this run open.
        await self._journal.commit(*settlement(record, State.FAILED, Reason.LOST, problem.message))


def _moved_on(record: Record, decision: Start) -> bool:
    """True when another program changed an order since; what follows from that was planned anew."""
    return record.state is not _READY or record.taken or decision.generation != record.generation + 1


def _claim(record: Record, job: Job) -> _Change:
    order, first = record.order, record.generation == 0
    status = [] if job.call else status_change(record, "open" if first else "in_progress", "assigned")
    claim = Draft(E.ASSIGNED, claim_of(job))
    return _Change(order=order.id, drafts=[claim, *status], expect={order.id: record.generation}, job=job)


def _rounds(facts: Sequence[Fact]) -> Iterator[list[Fact]]:
    """Facts that do not build on each other: of no order two, and what may close an account by itself."""
    some: list[Fact] = []
    orders: set[str] = set()
    for fact in facts:
        alone = fact.phase is _QUOTA or fact.outcome == _ALL_SPENT
        if some and (alone or fact.order in orders):
            yield some
            some, orders = [], set()
        some.append(fact)
        orders.add(fact.order)
        if alone:
            yield some
            some, orders = [], set()
    if some:
        yield some
