"""The façade: one repository's floor, for programs and for the command line."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, Self

import msgspec

from shopfloor import git
from shopfloor.app import doctor as doctor_module
from shopfloor.app import holders, housekeeping, intake
from shopfloor.app.leading import Leading, new_event_id, person, random_name
from shopfloor.app.mail import Mail
from shopfloor.app.orders import Orders
from shopfloor.app.sessions import WorkSession
from shopfloor.app.wiring import Place, SystemClock
from shopfloor.config import environment as whole_environment
from shopfloor.config.load import load as load_settings
from shopfloor.config.settings import Settings
from shopfloor.domain import report
from shopfloor.domain.board import Board
from shopfloor.domain.errors import NotFound, Refused
from shopfloor.domain.events import E, Event
from shopfloor.domain.floor import Floor
from shopfloor.domain.order import Record
from shopfloor.domain.report import Report
from shopfloor.domain.runs import Run
from shopfloor.engine.direct import AHEAD
from shopfloor.engine.journal import Draft, Journal
from shopfloor.engine.requests import CANCEL, NO_ANSWER, REPLY_S
from shopfloor.masking import Masker
from shopfloor.ports import Query
from shopfloor.prompts import PromptOrder
from shopfloor.stores.workdir import controller_alive
from shopfloor.wire.client import HungUp, Wire

NO_RUN = "start one with `shopfloor run prompts/*.md`"


class Shopfloor(Leading):
    """``async with Shopfloor.open(repo) as floor: report = await floor.run(orders)``.

    Reading (``board``, ``plan``, ``report``) and asking (``ask``) work beside a running controller; ``run`` and
    ``resume`` become the controller and raise Conflict when another one is alive.
    """

    @classmethod
    def open(
        cls,
        repo: str | Path = ".",
        *,
        settings: Settings | None = None,
        flags: Mapping[str, object] | None = None,
        environment: Mapping[str, str] | None = None,
        without_git: bool = False,
    ) -> Self:
        """Find the repository and its settings; writes nothing. ``flags`` are settings by key; they win over files.

        ``without_git``: a folder that is in no repository, or will only be made, does for orders that hand back
        answers; the first of them makes ``.work/`` there, and it is a floor from then on. Raises NotFound
        for a folder without a repository, Refused for a bare one or a git that is too old, and UsageError for settings
        that are off.
        """
        env = whole_environment() if environment is None else environment
        repository: git.Repository | None = None
        try:
            repository = git.discover(Path(repo), env, ready=False)
        except (NotFound, Refused) as problem:
            known = isinstance(problem, NotFound) and Path(repo, ".work", "events.jsonl").exists()
            if not (without_git or known) or (Path(repo).exists() and not Path(repo).is_dir()):
                raise
        root = repository.root if repository is not None else Path(repo).resolve()
        found = settings or load_settings(root, flags=flags, environment=env)
        return cls(Place(root=root, repository=repository, settings=found, environment=dict(env), clock=SystemClock()))

    def with_settings(self, settings: Settings) -> Self:
        """The same floor with other settings, of which nothing is asked yet."""
        return type(self)(msgspec.structs.replace(self.place, settings=settings))

    @property
    def repository(self) -> git.Repository:
        """The repository. Raises NotFound where there is none."""
        return self.place.needed()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_exc: object) -> None:
        await self.store.close()

    # -- reading and asking -----------------------------------------------------------------------------------------

    async def report(self, run: str = "") -> Report:
        """The report of a run, by default of the newest. Raises NotFound."""
        board = await (self.board(run=run) if run else self.board(state="open"))
        found = board.runs.get(run) if run else next(reversed(board.runs.values()), None)
        if found is None:
            raise NotFound(f"there is no run {run!r}" if run else "there has been no run here yet", hint=NO_RUN)
        return report.build(board, found)

    def controller(self) -> dict[str, Any] | None:
        """The living controller, or None: told by its lock, not by the log."""
        return controller_alive(self.work)

    def taken_over(self, run: Run) -> bool:
        """True when the user's branch holds all that the run has landed, whoever brought it there."""
        head = self.place.git().read_ref(f"refs/heads/{run.branch}")
        return bool(head and run.tip) and self.place.git().is_ancestor(run.tip, head)

    def wishes(self, what: Sequence[intake.Wish]) -> list[PromptOrder]:
        """Prompt files and texts, read. Raises UsageError that lists everything that is off."""
        return intake.read(what)

    async def plan(self, wishes: Sequence[intake.Wish]) -> intake.PlanView:
        """What a run of these would look like; starts and writes nothing."""
        wanted = self.wishes(wishes)
        orders = intake.make_orders(wanted, run="", now=0.0, ids=[f"wo-{n}" for n in range(len(wanted))])
        return intake.plan_view(orders, self.settings, (await self._looked_at(orders))[0])

    async def ask(self, verb: str, order: str = "", text: str = "") -> str:
        """Ask the controller for something (the verbs of ``engine.requests``) and return its answer.

        Without a living controller this process becomes it for as long as that takes; nothing new is started then.
        Raises Refused with the reason, or when no answer comes within 10 s.
        """
        told = Masker(self.place.secrets).text(text)
        draft = Draft(E.REQUEST, {"verb": verb, "work_order_id": order, "text": told}, person())
        if self._session is not None:
            return answer_of(await self._session.ask(draft))
        if self.controller() is None:
            return await self._by_hand(draft)
        if wire := await Wire.connect(self.work):
            return await self._by_socket(wire, draft)
        journal = self._aside()
        (meta,) = await self.store.query(Query(what="meta"))
        (request,) = await self.store.append([journal.event(draft, None)])
        position, deadline = int(meta["position"]), self.clock.awake() + REPLY_S
        while (left := deadline - self.clock.awake()) > 0:
            alive = self.controller() is not None
            async for after, event in self.store.read(position):
                position = after
                if event.event_type == E.HANDLED and event.caused_by == request.event_id:
                    return answer_of(event)
            if not alive:
                raise Refused("the controller ended before it could answer", hint="ask again")
            await self.store.wait(position, min(left, 1.0))
        raise Refused(NO_ANSWER, hint="it will; look with `shopfloor status`")

    async def answer(self, order: str, text: str) -> str:
        """Answer the question of an order's agent (``yes`` or ``no`` where it asks whether it may); what came of it."""
        return await self.ask("answer", order, text)

    async def steer(self, order: str, text: str) -> str:
        """Say something to a running agent; whether it was seen, delivered or only shown. Raises Refused."""
        return await self.ask("steer", order, text)

    async def ready(self, limit: int = 50) -> list[dict[str, Any]]:
        """Orders that may be claimed now, the next ones first: ``id``, ``name``, ``title``, ``priority``."""
        if not (self.work / "events.jsonl").exists():
            return []
        rows = await self.store.query(Query(what="ready", limit=limit))
        orders = [msgspec.json.decode(row["record"], type=Record).order for row in rows]
        return [{"id": o.id, "name": o.name, "title": o.title, "priority": o.priority} for o in orders]

    @property
    def mail(self) -> Mail:
        """Messages to and from agents and people; works with and without a controller."""
        return Mail(self.work, self._aside(), person(), masked=Masker(self.place.secrets).text)

    @cached_property
    def orders(self) -> Orders:
        """Orders of no run: made, changed and looked at, with and without a controller."""
        return Orders(self._aside(), person(), new_name=random_name, masked=Masker(self.place.secrets).text)

    def _aside(self) -> Journal:
        """Writes beside whoever leads."""
        return Journal(self.store, Floor(), self.clock, new_event_id)

    async def _by_socket(self, wire: Wire, draft: Draft) -> str:
        verb, order, text = (draft.data[key] for key in ("verb", "work_order_id", "text"))
        request = {"verb": "ask", "what": verb, "order": order, "text": text, "actor": draft.actor}
        try:
            async with asyncio.timeout(REPLY_S):
                return words_of(await wire.ask(request))
        except HungUp:
            raise Refused("the controller ended before it could answer", hint="ask again") from None
        except TimeoutError:
            raise Refused(NO_ANSWER, hint="it will; look with `shopfloor status`") from None
        finally:
            await wire.close()

    def session(self, name: str = "", *, pid: int = 0, ahead: int = AHEAD) -> WorkSession:
        """Work on orders with a process of your own: claim some, hand in work, give some back.

        ``pid`` holds what is claimed, by default this process; ``ahead`` orders are looked up at once and kept for the
        next claims: fewer where many sessions share a process. Raises NotFound when there is no such process.
        """
        return WorkSession(self.place, self._aside(), holders.holder(name, pid), ahead=ahead)

    async def _by_hand(self, draft: Draft) -> str:
        verb, order, text = (str(draft.data[k]) for k in ("verb", "work_order_id", "text"))
        if verb in ("pause", "resume") or (verb == "stop" and not order and text != CANCEL):
            raise Refused("no run is going on here", hint=NO_RUN)
        board = await self.board(order=order) if order else Board()
        run = board.run_of(board.records[order]) if order in board.records else None
        if run is None and order in board.records:
            hint = f"shopfloor claim --order {order}; a crew's is answered in shopfloor chat: /answer {order} WORDS"
            raise Refused(f"{order!r} belongs to no run: only sessions work on it", hint=hint)
        if run is None:
            board = await self.board(state="open")
            run = board.unfinished() or next(reversed(board.runs.values()), None)
        if run is None:
            raise NotFound("there has been no run here yet", hint=NO_RUN)
        self._adopt(run)
        async with self._leading(hands_only=True) as session:
            answers: asyncio.Queue[Event] = asyncio.Queue()
            session.journal.observers.append(_handled_into(answers))
            (request,) = await session.journal.commit(draft, run=run.id)
            await session.attend(run.id)
            while not answers.empty():
                event = answers.get_nowait()
                if event.caused_by == request.event_id:
                    return answer_of(event)
            raise Refused("stopped before it was answered", hint="ask again")

    # -- housekeeping -----------------------------------------------------------------------------------------------

    async def doctor(self) -> list[doctor_module.Finding]:
        """What is in order here and what is not, with what to type."""
        return await doctor_module.examine(self.place, self.store)

    async def gc(self, *, apply: bool) -> list[housekeeping.Dropped]:
        """What is not needed any more; dropped only with ``apply``. Raises Conflict while a controller is alive."""
        return await housekeeping.collect(self.place, await self.board(state="open"), apply=apply)

    async def diff(self, order: str) -> str:
        """The newest work of an order against what it started from, as a patch. Raises NotFound when there is none.

        Bytes that are no UTF-8 are as ``os.fsdecode`` makes them: ``os.fsencode`` gives the patch that git takes.
        """
        record = (await self.board(order=order)).records[order]
        attempt = record.attempt
        if attempt is None or not attempt.commit:
            raise NotFound(f"{record.order.name!r} has no work yet", hint=f"shopfloor show {record.order.name}")
        words = ("--no-ext-diff", "--no-textconv", "--end-of-options", attempt.base, attempt.commit)
        return os.fsdecode(self.place.git().call("diff", *words).stdout)


def _handled_into(answers: asyncio.Queue[Event]) -> Callable[[Event], None]:
    return lambda event: answers.put_nowait(event) if event.event_type == E.HANDLED else None


def answer_of(event: Event) -> str:
    """The words of an answer. Raises Refused when the request was refused."""
    return words_of(event.data)


def words_of(answer: Mapping[str, Any]) -> str:
    """The same of an answer's data."""
    text = str(answer.get("text", ""))
    if answer.get("result") != "ok":
        raise Refused(text or "refused", hint=str(answer.get("hint", "")))
    return text
