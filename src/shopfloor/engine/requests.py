"""The desk: what people ask for from other terminals, read from the log and answered in it."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable

from shopfloor.domain.board import Request, at_rest
from shopfloor.domain.errors import Conflict, Refused, ShopfloorError
from shopfloor.domain.events import E, Event
from shopfloor.domain.holder import held
from shopfloor.domain.order import FINAL, Attempt, Reason, Record, State
from shopfloor.domain.talk import answered
from shopfloor.engine.facts import settlement
from shopfloor.engine.journal import Draft, Journal
from shopfloor.ports import Delivery, Runner

LOOK_EVERY_S = 5.0
REPLY_S = 10.0
NO_ANSWER = f"the controller did not answer within {REPLY_S:g} s"
CANCEL = "cancel"
"""The text of a ``stop`` request that gives up every unfinished order instead of keeping them to be resumed."""


class Desk:
    """Answers requests one after the other, each exactly once."""

    def __init__(self, journal: Journal, *, runner: Runner, stop: Callable[[str], None]) -> None:
        self.journal = journal
        self.runner = runner
        self._stop = stop
        self.heard = asyncio.Event()
        """set when something was said to an agent that may be waiting for it"""
        self.listening: Counter[str] = Counter()
        """attempts that wait for words at the socket now"""
        self._one = asyncio.Lock()
        self._verbs: dict[str, Callable[[Request], Awaitable[None]]] = {
            "pause": self._pause, "resume": self._go_on, "stop": self._end, "land": self._land,
        }  # fmt: skip
        self._verbs_of_an_order: dict[str, Callable[[Request, Record], Awaitable[None]]] = {
            "retry": self._retry, "accept": self._accept, "reject": self._reject, "answer": self._answer,
            "steer": self._steer,
        }  # fmt: skip

    async def attend(self) -> None:
        """Follow the log for lines of others, until cancelled."""
        store = self.journal.store
        while True:
            await self.catch_up()
            await store.wait(self.journal.position, LOOK_EVERY_S, others=True)

    async def catch_up(self) -> None:
        """Take in what others have written since, and answer what waits."""
        async with self._one:
            async for position, event in self.journal.store.read(self.journal.position, others=True):
                self.journal.position = position
                ours = event.sf is not None and event.sf.controller == self.journal.generation
                if not ours:
                    await self.journal.know(event.order_id, position)
                    self.journal.take(event)
            self._still_leads()
            for request in list(self.journal.floor.board.requests.values()):
                await self.answer(request)

    async def ask(self, verb: str, order: str, text: str, actor: str) -> Event:
        """Put a request into the log and return its answer: ``request.handled``. Raises Refused after 10 s without."""
        if order not in self.journal.floor.board.records:
            await self.catch_up()
            await self.journal.know(order, self.journal.position)
        draft = Draft(E.REQUEST, {"verb": verb, "work_order_id": order, "text": text}, actor)
        return await answer_to(self.journal, draft, self.serve)

    async def serve(self) -> None:
        """Answer what this process asked for."""
        async with self._one:
            for request in list(self.journal.floor.board.requests.values()):
                await self.answer(request)

    def _still_leads(self) -> None:
        newest, own = self.journal.floor.board.controller, self.journal.generation
        if newest > own:
            raise Conflict(f"controller {newest} has taken over from controller {own}", hint="shopfloor status")

    async def answer(self, request: Request) -> None:
        """Do what was asked, or say why not."""
        act, on = self._verbs.get(request.verb), self._verbs_of_an_order.get(request.verb)
        if act is not None:
            await act(request)
        elif on is None:
            await self._reply(request, "refused", f"there is no request {request.verb!r}")
        elif (record := await self._find(request)) is not None:
            await on(request, record)

    async def _reply(self, request: Request, result: str, text: str = "", *more: Draft, hint: str = "") -> None:
        data = {"verb": request.verb, "work_order_id": request.order, "result": result, "text": text}
        if hint:
            data["hint"] = hint
        await self.journal.commit(Draft(E.HANDLED, data, caused_by=request.event_id), *more)

    async def _find(self, request: Request) -> Record | None:
        await self.journal.know(request.order, self.journal.position)
        record = self.journal.floor.board.records.get(request.order)
        if record is None:
            await self._reply(request, "refused", f"there is no order {request.order!r}")
        return record

    async def _pause(self, request: Request) -> None:
        await self._reply(request, "ok", "nothing new is started; what runs goes on")

    async def _go_on(self, request: Request) -> None:
        await self._reply(request, "ok", "orders are started again")

    async def _end(self, request: Request) -> None:
        if not request.order and request.text == CANCEL:
            run = self.journal.floor.run
            still = self.journal.floor.board.open_orders(run) if run else []
            ended = [_done("stop", r) for r in still]
            await self._reply(request, "ok", f"{len(still)} orders are given up; their work is kept", *ended)
            return
        if not request.order:
            await self._reply(request, "ok", "the run stops; `shopfloor run --resume` goes on with it")
            self._stop("stopped by a person")
            return
        record = await self._find(request)
        if record is None:
            return
        if record.state in FINAL:
            await self._reply(request, "refused", f"{record.order.name!r} has ended already: {record.state}")
        else:
            await self._reply(request, "ok", f"{record.order.name!r} is stopped; its work is kept")

    async def _retry(self, request: Request, record: Record) -> None:
        if record.state not in (State.FAILED, State.CANCELLED):
            starts = "it is started as soon as it can be; " if record.state is State.READY else ""
            text, look = f"{record.order.name!r} has not failed: it is {record.state}", "see where it stands with"
            await self._reply(request, "refused", text, hint=f"{starts}{look}: shopfloor show {record.order.name}")
            return
        again = [record, *self._failed_with(record)]
        names = ", ".join(r.order.name for r in again)
        await self._reply(
            request, "ok", f"to be tried again: {names}", retried(record, request.text),
            *(retried(r, "") for r in again[1:]),
        )  # fmt: skip

    def _failed_with(self, record: Record) -> list[Record]:
        """The orders that failed only because this one did, directly or through others, in order."""
        found: dict[str, Record] = {record.order.id: record}
        board = self.journal.floor.board
        run = board.run_of(record)
        for order in run.orders if run else []:
            other = board.records[order]
            if other.reason is Reason.DEPENDENCY and found.keys() & set(other.order.depends_on):
                found[order] = other
        return list(found.values())[1:]

    async def _accept(self, request: Request, record: Record) -> None:
        if not self._waits_for_a_person(record):
            text = f"{record.order.name!r} is {record.state}; only a verified order that waits for a person can land"
            await self._reply(request, "refused", text)
        else:
            await self._reply(request, "ok", f"{record.order.name!r} is landed next")

    async def _reject(self, request: Request, record: Record) -> None:
        if not self._waits_for_a_person(record):
            text = f"{record.order.name!r} is {record.state}; there is nothing to reject"
            await self._reply(request, "refused", text)
        elif request.text:
            await self._reply(
                request, "ok", f"{record.order.name!r} goes back with your words", retried(record, request.text)
            )
        else:
            text = f"rejected by {request.actor}"
            more = settlement(record, State.CANCELLED, Reason.REJECTED, text)
            await self._reply(request, "ok", f"{record.order.name!r} is {text}; its work is kept", *more)

    async def _land(self, request: Request) -> None:
        board, run = self.journal.floor.board, self.journal.floor.run
        waiting = [board.records[o] for o in run.orders] if run else []
        waiting = [r for r in waiting if self._waits_for_a_person(r)]
        accepted = [_done("accept", r) for r in waiting]
        await self._reply(request, "ok", f"{len(waiting)} verified orders are landed next", *accepted)

    async def _answer(self, request: Request, record: Record) -> None:
        attempt = record.attempt
        if record.state is not State.ASKING or attempt is None:
            text = f"{record.order.name!r} has no open question: it is {record.state}"
            await self._reply(request, "refused", text)
            return
        wrong = _no_answer(record, request.text)
        if wrong:
            await self._reply(request, "refused", wrong, hint=f"type: shopfloor answer {record.order.name} yes, or: no")
            return
        if not record.live:
            words = answered(record.question, request.text)
            told = _told(E.AGENT_ANSWERED, request, record, "restart")
            text = "the agent starts again with your answer"
            await self._reply(request, "ok", text, told, retried(record, words))
            return
        try:
            text, delivery = await self._hand_over(record, attempt, request.text)
        except ShopfloorError as problem:
            hint = f"shopfloor stop {record.order.name}, then: shopfloor retry {record.order.name}"
            await self._reply(request, "refused", problem.message, hint=hint)
            return
        await self._reply(request, "ok", text, _told(E.AGENT_ANSWERED, request, record, delivery))
        self.heard.set()

    async def _hand_over(self, record: Record, attempt: Attempt, text: str) -> tuple[str, str]:
        """An answer, to an agent that still runs: what to say about that, and what has become of it.

        Raises what its driver refuses a yes or no with: nobody else could use that.
        """
        if record.permission:
            delivery = await self.runner.send(attempt.id, YES_NO[text.strip().lower()])
            return f"the agent has your answer: {HOW[delivery]}", delivery.value
        if self.listening[attempt.id]:
            return "the agent is waiting for your answer, and gets it now", WAITS
        try:
            delivery = await self.runner.send(attempt.id, text)
        except ShopfloorError:
            return "its agent cannot be interrupted: it gets your answer when it looks, or starts again with it", WAITS
        return f"the agent has your answer: {HOW[delivery]}", delivery.value

    async def _steer(self, request: Request, record: Record) -> None:
        attempt, name = record.attempt, record.order.name
        otherwise = f"shopfloor stop {name}, then: shopfloor retry {name} -m WORDS"
        if not request.text.strip():
            await self._reply(request, "refused", "there are no words to pass on")
        elif attempt is None or not record.live:
            text = f"no agent works on {name!r}: it is {record.state}"
            await self._reply(request, "refused", text, hint=f"see where it stands: shopfloor show {name}")
        elif held(record) is not None:
            text, hint = f"{name!r} is held by a session, not by an agent of ours", f"shopfloor send {name} WORDS"
            await self._reply(request, "refused", text, hint=hint)
        elif record.permission:
            text = f"{name!r} waits for a yes or no: {record.question}"
            await self._reply(request, "refused", text, hint=f"shopfloor answer {name} yes, or: no")
        else:
            try:
                delivery = await self.runner.send(attempt.id, request.text)
            except ShopfloorError as problem:
                await self._reply(request, "refused", problem.message, hint=otherwise)
                return
            text = f"{delivery.value}: {HOW[delivery]}"
            await self._reply(request, "ok", text, _told(E.AGENT_STEERED, request, record, delivery.value))

    def _waits_for_a_person(self, record: Record) -> bool:
        return record.state is State.VERIFIED and at_rest(record, self.journal.floor.board.run_of(record))


WAITS = "waits"
"""``delivery`` of an answer that its agent has not got yet."""

HOW = {
    Delivery.SEEN: "it said that it has your words",
    Delivery.DELIVERED: "your words are where it reads them next; whether it has is not known yet",
    Delivery.SHOWN: "your words stand on its screen; whether it took them cannot be told",
}

YES_NO = {**dict.fromkeys(("yes", "y", "allow", "ok"), "yes"), **dict.fromkeys(("no", "n", "deny"), "no")}
"""What counts as an answer to an agent that asks whether it may, and what its driver is told."""


def _no_answer(record: Record, text: str) -> str:
    """Why a text is no answer to what is asked; empty when it is one."""
    if record.permission and text.strip().lower() not in YES_NO:
        return f"{record.order.name!r} asks whether it may: {text!r} is neither yes nor no"
    return "" if text.strip() else "an answer has words in it"


def _told(kind: E, request: Request, record: Record, delivery: str) -> Draft:
    """What a person said to an order's agent, and what became of it."""
    data = {"work_order_id": request.order, "generation": record.generation, "by": request.actor, "delivery": delivery}
    if kind == E.AGENT_ANSWERED:
        return Draft(kind, {**data, "question": record.question, "answer": request.text}, request.actor)
    return Draft(kind, {**data, "text": request.text}, request.actor)


async def answer_to(journal: Journal, draft: Draft, serve: Callable[[], Awaitable[None]] | None = None) -> Event:
    """Commit a request to a session of this process and wait for its answer; ``serve``: what may bring it on.

    Raises Refused when no answer comes within ``REPLY_S``.
    """
    answers: asyncio.Queue[Event] = asyncio.Queue()

    def see(event: Event) -> None:
        if event.event_type == E.HANDLED:
            answers.put_nowait(event)

    journal.observers.append(see)
    try:
        (request,) = await journal.commit(draft)
        if serve is not None:
            await serve()
        async with asyncio.timeout(REPLY_S):
            while (event := await answers.get()).caused_by != request.event_id:
                continue
    except TimeoutError:
        raise Refused(NO_ANSWER, hint="it will; look with `shopfloor status`") from None
    finally:
        journal.observers.remove(see)
    return event


async def turn_away(journal: Journal) -> None:
    """Answer what was asked of a session that ended before it could answer: it was not meant for the next one."""
    text = "the controller ended before it could answer; ask again if it still matters"
    for request in list(journal.floor.board.requests.values()):
        if not request.order:
            data = {"verb": request.verb, "work_order_id": "", "result": "refused", "text": text}
            await journal.commit(Draft(E.HANDLED, data, caused_by=request.event_id))


def _done(verb: str, record: Record) -> Draft:
    data = {"verb": verb, "work_order_id": record.order.id, "result": "ok", "text": ""}
    return Draft(E.HANDLED, data)


def retried(record: Record, findings: str) -> Draft:
    """A person sends an order back: counters start anew."""
    why = "sent back by a person" if findings else "tried again by a person"
    data = {
        "work_order_id": record.order.id, "generation": record.generation, "kind": "manual", "delay_s": 0.0,
        "why": why, "findings": findings,
    }  # fmt: skip
    return Draft(E.RETRIED, data)
