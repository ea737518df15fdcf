"""Being the controller: a run is begun or gone on with, and what it needs is put together for as long as that takes."""

from __future__ import annotations

import gc
import getpass
import os
import secrets
import socket
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager, suppress
from pathlib import Path

import msgspec

from shopfloor._version import __version__
from shopfloor.app import carry, intake
from shopfloor.app.gateway import refuse_to_mix
from shopfloor.app.outcomes import Outcome, outcome_of, told
from shopfloor.app.trouble import disk_trouble
from shopfloor.app.wiring import Place, agents, build, open_store, policy, prepare
from shopfloor.app.wiring import answering as calls_of
from shopfloor.domain import names
from shopfloor.domain.board import Board
from shopfloor.domain.errors import Conflict, NotFound, ShopfloorError, UsageError
from shopfloor.domain.events import E, Event
from shopfloor.domain.floor import Floor
from shopfloor.domain.order import Order
from shopfloor.domain.report import Report
from shopfloor.domain.runs import Run
from shopfloor.engine.controller import More
from shopfloor.engine.journal import Draft, Journal
from shopfloor.engine.session import Session, Start
from shopfloor.ports import Clock, Query, Target
from shopfloor.prompts import PromptOrder
from shopfloor.spawn import Guard

COLLECT_AFTER = (50_000, 20, 20)
FEW = 100
"""Up to so many orders of one call have short ids."""
MOST_WAITING = 1_000
"""Orders that have not ended while more are taken in."""


@contextmanager
def seldom_collected() -> Iterator[None]:
    """Look for circles of references less often: with tens of thousands of orders that takes a third of the time.

    A floor makes next to none, and what is kept by the ten thousand is not looked through at all.
    """
    before = gc.get_threshold()
    gc.set_threshold(*COLLECT_AFTER)
    try:
        yield
    finally:
        gc.set_threshold(*before)


class Leading:
    """What a floor does as the controller."""

    def __init__(self, place: Place) -> None:
        self.place = place
        self.settings = place.settings
        self.environment = place.environment
        self.root: Path = place.root
        self.work = place.work
        self.clock: Clock = place.clock
        self.observers: list[Callable[[Event], None]] = []
        """called with every event that this process makes or sees while it is the controller"""
        self.say: Callable[[str], None] = lambda _text: None
        """told what goes on before there are events, e.g. that the base is being checked"""
        self.store = open_store(place)
        self.floor: Floor | None = None
        """the live state while this process is the controller"""
        self._session: Session | None = None
        self._stop = ""

    @property
    def leads(self) -> bool:
        """True while this object is the controller."""
        return self._session is not None

    async def board(self, *, order: str = "", run: str = "", state: str = "") -> Board:
        """The state as the log has it now: whole, or what belongs to an order, to a run, or to all ``open`` runs.

        A part takes a moment however long the log is; :class:`shopfloor.ports.Query` says what is in it.
        """
        if not (self.work / "events.jsonl").exists():
            return Board()
        (row,) = await self.store.query(Query(what="board", order=order, run=run, state=state))
        board: Board = row["board"]
        return board

    async def run(self, wishes: Sequence[intake.Wish]) -> Report:
        """Perform these orders: work, verify, land. Returns when nothing is left to do, or after ``stop``.

        Raises UsageError, Refused or Conflict before anything is started; afterwards every order ends in one outcome.
        """
        wanted = intake.read(wishes)
        if not wanted:
            raise UsageError("there is nothing to do: no orders were given", hint="shopfloor run prompts/*.md")
        return await self._run(intake.Stream([wanted]))

    async def resume(self) -> Report:
        """Go on with the unfinished run. What is finished is not done again. Raises NotFound when there is none."""
        return await self._resume(None)

    def outcomes(self, wishes: intake.Wishes = (), *, resume: bool = False) -> AsyncGenerator[Outcome, None]:
        """Perform these orders and tell of each as it ends; ``report`` tells of all when it is over.

        The wishes are taken piece by piece: an iterable of them, or an asynchronous one of sequences, whose next
        sequence is asked for when the last one is durable and the floor has not much left to do. With ``resume`` the
        unfinished run goes on: those of the wishes whose names it has are its own, the others are added; without one
        NotFound is raised. Who leaves the loop early stops the run, and can go on with it later. Raises as ``run``.
        """
        stream = intake.stream(wishes)
        return told(self, lambda: (self._resume if resume else self._run)(stream, told=True))

    async def answers(self, run: str = "") -> list[Outcome]:
        """The ends of a run's orders that have one, by default of the newest run, in the order of their creation."""
        board = await (self.board(run=run) if run else self.board(state="open"))
        found = board.runs.get(run) if run else next(reversed(board.runs.values()), None)
        if found is None and run:
            raise NotFound(f"there is no run {run!r}", hint="shopfloor status")
        records = [board.records[order] for order in found.orders] if found is not None else []
        return [outcome_of(record) for record in records if record.settled_at is not None]

    async def _run(self, stream: intake.Stream, *, told: bool = False) -> Report:
        refuse_to_mix(self.settings, self.root)
        run = f"run-{random_name(5)}"
        first = await stream.first()
        orders = self._orders(first, run, stream)
        answering = await self._refuse(orders)
        bare = not intake.without_calls(orders, self.settings, answering, self.root)
        target, head = (None, "") if bare else self._target()
        start = Start(
            run=run, target=target, head=head, orders=orders, allow_red=self.settings.allow_red_base,
            options=carry.options(self.settings, self.place.secrets) | ({"land": "off", "checks": []} if bare else {}),
        )  # fmt: skip
        async with self._leading(bare=bare) as session:
            return await session.begin(start, self._more(stream, run, answering if bare else None, told=told))

    async def _resume(self, stream: intake.Stream | None, *, told: bool = False) -> Report:
        changes = carry.changes(self.settings)
        board = await self.board(state="open")
        run, more = board.unfinished(), None
        bare = run is not None and not run.ref
        if run is not None:
            carry.refuse_other_checks(self.settings, run)
            self._adopt(run)
            answering = await self._refuse([r.order for r in board.open_orders(run)])
            if stream is not None:
                stream.skip({board.records[order].order.name: order for order in run.orders})
                more = self._more(stream, run.id, answering if bare else None, told=told)
        async with self._leading(bare=bare) as session:
            return await session.resume(None, changes, more)

    def _more(self, stream: intake.Stream, run: str, answering: frozenset[str] | None, *, told: bool) -> More:
        """The rest of the wishes as orders of a run; ``answering``: it has no target, and these agents need none."""

        async def orders() -> AsyncIterator[Sequence[Order]]:
            async for some in stream.rest():
                found = self._orders(some, run, stream)
                if answering is not None and (
                    wrong := intake.without_calls(found, self.settings, answering, self.root)
                ):
                    raise wrong[0]
                yield found

        return More(orders=orders(), most_waiting=MOST_WAITING, told=told)

    def _orders(self, wanted: Sequence[PromptOrder], run: str, stream: intake.Stream) -> tuple[Order, ...]:
        # Short ids are for people; of many, two would be the same sooner or later.
        length = 5 if len(wanted) + len(stream.known) <= FEW else 8
        chars = names.letters(secrets.token_bytes(length * len(wanted)))
        ids = [f"wo-{chars[n : n + length]}" for n in range(0, len(chars), length)]
        return intake.make_orders(wanted, run=run, now=self.clock.wall(), ids=ids, known=stream.known)

    def _target(self) -> tuple[Target, str]:
        """Where a run lands, and where the user's branch stands. Raises NotFound, Refused."""
        repository = self.place.needed()
        repository.ensure_ready()
        branch = self.settings.target or repository.branch
        target = Target(branch=branch, ref=f"refs/shopfloor/target/{branch}")
        return target, self.place.git().rev_parse(f"refs/heads/{branch}")

    def _adopt(self, run: Run) -> None:
        """Work with what the run was started with."""
        self.settings = carry.carried(self.settings, run)
        self.place = msgspec.structs.replace(self.place, settings=self.settings)

    def stop(self, why: str = "") -> None:
        """Let ``run`` or ``resume`` end early: agents are stopped, their work is kept, ``resume`` goes on later."""
        self._stop = why or "stopped"
        if self._session is not None:
            self._session.stop(self._stop)

    @asynccontextmanager
    async def _leading(self, *, hands_only: bool = False, bare: bool = False) -> AsyncIterator[Session]:
        """``bare``: for calls alone, which need no repository."""
        if self._session is not None:
            raise Conflict("this program performs a run here already", hint="await it, or end it with stop()")
        floor = Floor(policy(self.settings))
        journal = Journal(self.store, floor, self.clock, EventIds())
        journal.observers.extend(self.observers)
        info = {"pid": os.getpid(), "host": socket.gethostname(), "version": __version__}
        with disk_trouble(self.work, lambda: floor.board.unfinished() is not None), seldom_collected():
            prepare(self.place, ready=not (bare or (hands_only and self.place.repository is None)))
            async with Guard() as guard:
                if not bare:
                    guard.start()
                tools, settings = build(self.place, guard, say=self._tell, hands_only=hands_only)
                session = self._session = Session(journal, tools, settings)
                if self._stop:
                    session.stop(self._stop)
                try:
                    await session.lead(info)
                    self.floor = floor
                    yield session
                finally:
                    await tools.runner.close()
                    await tools.toll.close()
                    for agent in {id(agent): agent for agent in settings.answering.values()}.values():
                        await agent.close()
                    await self._leave(journal)

    async def _leave(self, journal: Journal) -> None:
        """Say that this controller has ended, and let another one lead, in this process or elsewhere."""
        self._session, self._stop = None, ""
        if not journal.generation:
            return
        try:
            # After a full disk or a newer controller nothing can be said any more, and something else is raised.
            with suppress(ShopfloorError):
                await journal.commit(Draft(E.CONTROLLER_STOPPED, {"generation": journal.generation}))
        finally:
            journal.floor.board.forget_answered()  # the store needs room now to bring everything up to date
            led, self.store = self.store, open_store(self.place)
            await led.close()

    def _tell(self, text: str) -> None:
        self.say(text)

    async def _refuse(self, orders: Sequence[Order]) -> frozenset[str]:
        """Raise for what cannot be performed here; returns the agents whose attempts at an answer are calls."""
        found, answering = await self._looked_at(orders)
        if found:
            raise found[0]
        return answering

    async def _looked_at(self, orders: Sequence[Order]) -> tuple[list[ShopfloorError], frozenset[str]]:
        """Everything for which a run of these would be refused, and the agents whose attempts are calls."""
        async with Guard() as guard:
            known = agents(self.place, guard)
            found = await intake.problems(orders, self.settings, known, self.environment)
            answering = frozenset(calls_of(self.place, known))
        if self.place.repository is None and not found:
            found += intake.without_calls(orders, self.settings, answering, self.root)
        return found, answering


def random_name(length: int) -> str:
    """Random base 36."""
    return names.base36(secrets.token_bytes(16), length)


class EventIds:
    """Makes ids of events, each ``evt-`` and twelve random characters. Randomness is asked for many at once."""

    def __init__(self) -> None:
        self._left: list[str] = []

    def __call__(self) -> str:
        """A new one."""
        if not self._left:
            chars = names.letters(secrets.token_bytes(12 * 256))
            self._left = [f"evt-{chars[n : n + 12]}" for n in range(0, len(chars), 12)]
        return self._left.pop()


def new_event_id() -> str:
    """``evt-`` and twelve random characters."""
    return f"evt-{names.base36(secrets.token_bytes(8), 12)}"


def person() -> str:
    """Who asks, for the log."""
    try:
        return f"human:{getpass.getuser()}"
    except (KeyError, OSError):
        return "human"
