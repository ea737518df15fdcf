"""What running agents say about their own attempt, and ask, by the controller's socket; and mail, for everybody.

Who speaks is told by what the controller gave that attempt when it was started: a token that no other attempt has. What
an attempt says that is not the newest one any more changes nothing, and it is told so.
"""

from __future__ import annotations

import asyncio
import hmac
from collections.abc import Awaitable, Callable, Coroutine, Mapping, Sequence
from contextlib import suppress
from itertools import islice
from typing import Any

import msgspec

from shopfloor.domain import talk, values
from shopfloor.domain.errors import Conflict, NotFound, Refused, UsageError
from shopfloor.domain.events import E, stamp_time
from shopfloor.domain.holder import Holder, Wanted
from shopfloor.domain.names import one_line
from shopfloor.domain.order import Attempt, Record, State
from shopfloor.domain.prompt import render
from shopfloor.domain.talk import Message
from shopfloor.engine.facts import bounded
from shopfloor.engine.hands import Claimed
from shopfloor.engine.journal import Draft, Journal
from shopfloor.engine.requests import Desk
from shopfloor.ports import Callers

MOST_WAIT_S = 20.0
"""How long one request may wait for an answer: who wants to wait longer asks again."""
MOST_LISTED = 50
DONE = (
    "noted. End your turn now: your work is kept as it stands and verified in a clean checkout; what the checks say "
    "decides whether it is done"
)
ASKED = "your question is put to a person. There is no answer yet"
WAITS = "end your turn now, or go on with what does not depend on it: you are started again with the answer"

Take = Callable[[Holder, int, Wanted], Awaitable[Sequence[Claimed]]]
Spawn = Callable[[Coroutine[Any, Any, None]], object]


class Speaker(msgspec.Struct, frozen=True, kw_only=True):
    """What an agent shows of itself: all of it comes from the environment that it was started with."""

    order: str
    attempt: str
    generation: int = 0
    token: str = ""


class _Agent(msgspec.Struct, frozen=True, kw_only=True):
    """Who has shown that it is the newest attempt of an order, which goes on."""

    record: Record
    attempt: Attempt

    @property
    def address(self) -> str:
        return talk.address_of(self.record)

    def data(self, **more: Any) -> dict[str, Any]:
        order, generation = self.record.order.id, self.attempt.generation
        return {"work_order_id": order, "generation": generation, "agent": self.address, **more}


class Talk:
    """Answers one request after the other; each of its verbs is a method."""

    def __init__(self, journal: Journal, desk: Desk, *, callers: Callers, claim: Take, spawn: Spawn) -> None:
        self._journal = journal
        self._floor = journal.floor
        self._desk = desk
        self._callers = callers
        self._take = claim
        self._spawn = spawn
        self._own: dict[str, Callable[[_Agent, Mapping[str, Any]], Awaitable[dict[str, Any]]]] = {
            "assignment": self._assignment, "claim": self._claim, "progress": self._progress, "done": self._done,
            "ask": self._ask,
        }  # fmt: skip
        self._all: dict[str, Callable[[_Agent | None, Mapping[str, Any]], Awaitable[dict[str, Any]]]] = {
            "ready": self._ready, "show": self._show, "inbox": self._inbox, "send": self._send,
        }  # fmt: skip

    async def answer(self, request: Mapping[str, Any]) -> Mapping[str, Any]:
        """Do what is asked. Raises Refused for who is not whom it says, Conflict for whose time is over."""
        what = values.text(request, "what")
        request = {k: self._callers.masked(v) if isinstance(v, str) else v for k, v in request.items()}
        speaker = self._speaker(request) if request.get("speaker") is not None else None
        if what in self._all:
            return await self._all[what](speaker, request)
        if what not in self._own:
            raise UsageError(f"there is no verb {what!r}", hint=f"there are {', '.join([*self._own, *self._all])}")
        if speaker is None:
            raise Refused(f"{what!r} is for an agent about its own attempt", hint="people type: shopfloor status")
        return await self._own[what](speaker, request)

    # -- who speaks -------------------------------------------------------------------------------------------------

    def _speaker(self, request: Mapping[str, Any]) -> _Agent:
        try:
            who = msgspec.convert(request["speaker"], Speaker)
        except msgspec.ValidationError as problem:
            raise UsageError(f"the speaker of the request is off: {problem}") from None
        if not hmac.compare_digest(self._callers.token(who.attempt).encode(), who.token.encode(errors="replace")):
            raise Refused(
                f"this is not attempt {who.attempt!r}: its token is another one",
                hint="speak from the environment that you were started with, unchanged",
            )
        record = self._floor.board.records.get(who.order)
        attempt = record.attempt if record is not None else None
        own = next((a for a in record.attempts if a.id == who.attempt), None) if record is not None else None
        if record is None or attempt is None or own is None:
            text = f"attempt {who.attempt!r} is none of order {who.order!r}"
            raise Refused(text, hint="speak from the environment that you were started with, unchanged")
        if attempt.id != own.id or not record.live or who.generation != own.generation:
            now = f"attempt {attempt.generation} is the newest" if attempt.id != own.id else f"it is {record.state}"
            text = f"attempt {own.generation} of {record.order.name!r} is over: {now}; nothing was changed"
            raise Conflict(text, hint="end your turn")
        return _Agent(record=record, attempt=attempt)

    async def _say(self, who: _Agent, *drafts: Draft) -> None:
        """Into the log, unless the attempt is over in that very moment."""
        actor = who.address
        await self._journal.commit(
            *(draft._replace(actor=actor) for draft in drafts),
            expect={who.record.order.id: who.attempt.generation},
        )

    # -- about its own attempt --------------------------------------------------------------------------------------

    async def _assignment(self, who: _Agent, _request: Mapping[str, Any]) -> dict[str, Any]:
        order, attempt = who.record.order, who.attempt
        return {
            "text": f"ASSIGNED: {order.id}", "id": order.id, "name": order.name, "title": order.title,
            "prompt": render(who.record), "checks": list(order.checks), "files": list(order.files),
            "attempt": attempt.generation, "branch": attempt.branch, "base": attempt.base, "address": who.address,
            "unread": len(self._mail(who, "")),
        }  # fmt: skip

    async def _claim(self, who: _Agent, request: Mapping[str, Any]) -> dict[str, Any]:
        pid = who.attempt.handle.get("pid")
        if not isinstance(pid, int) or pid <= 0:
            raise Refused("your own start is not in the log yet", hint="try again in a moment")
        wanted = self._find(values.text(request, "order")).order.id if request.get("order") else ""
        holder = self._callers.holder(who.record.order.name, pid)
        taken = await self._take(holder, 1, Wanted(orders=(wanted,) if wanted else ()))
        if not taken:
            return {"text": "there is nothing to claim", "orders": []}
        hand_in = f"hand it in with: shopfloor finish {taken[0].name} --commit COMMIT"
        return {"text": f"{taken[0].name} ({taken[0].id}) is yours; {hand_in}\n\n{taken[0].prompt}", "orders": taken}

    async def _progress(self, who: _Agent, request: Mapping[str, Any]) -> dict[str, Any]:
        text = one_line(_needed(request, "text"), talk.MOST_PROGRESS_CHARS)
        if text != who.attempt.progress:
            await self._say(who, Draft(E.AGENT_PROGRESS, who.data(text=text)))
        return {"text": "noted"}

    async def _done(self, who: _Agent, request: Mapping[str, Any]) -> dict[str, Any]:
        await self._say(who, Draft(E.AGENT_DONE, who.data(text=bounded(values.text(request, "text")))))
        self._spawn(self._dismiss(who.attempt.id, who.record))
        return {"text": DONE}

    async def _dismiss(self, attempt: str, record: Record) -> None:
        """End an agent that does not end by itself after it said that it is done. Its work is verified all the same."""
        await asyncio.sleep(self._floor.policy.done_grace_s)
        own = record.attempt
        if own is not None and own.id == attempt and record.live and own.done is not None:
            await self._desk.runner.cancel(attempt, "completed")

    async def _ask(self, who: _Agent, request: Mapping[str, Any]) -> dict[str, Any]:
        question = bounded(_needed(request, "question"))
        asked = Draft(E.AGENT_ASKED, who.data(question=question))
        if self._floor.policy.on_question == "decline":
            told = {"answer": talk.NOBODY, "delivery": "seen", "by": "shopfloor"}
            await self._say(who, asked, Draft(E.AGENT_ANSWERED, who.data(**told)))
            return {"text": talk.NOBODY, "answer": talk.NOBODY}
        await self._say(who, asked)
        return {"text": f"{ASKED}: {WAITS}", "answer": ""}

    # -- for everybody ----------------------------------------------------------------------------------------------

    async def _ready(self, _who: _Agent | None, _request: Mapping[str, Any]) -> dict[str, Any]:
        run, plan = self._floor.run, self._floor.plan
        records = (self._floor.board.records[order] for order in run.orders) if run else iter(())
        free = (
            r for r in records
            if r.state is State.READY and plan.is_queued(r.order.id) and not plan.waits_for(r.order.id)
            and plan.held_by(r.order.id) is None
        )  # fmt: skip
        found = [
            {"id": r.order.id, "name": r.order.name, "title": r.order.title, "priority": r.order.priority}
            for r in islice(free, MOST_LISTED)
        ]
        lines = [f"{one['name']}  {one['id']}  {one['title']}" for one in found]
        return {"text": "\n".join(lines) or "no order is ready", "orders": found}

    async def _show(self, who: _Agent | None, request: Mapping[str, Any]) -> dict[str, Any]:
        name = values.text(request, "order")
        record = who.record if who is not None and not name else self._find(name)
        order, attempt, records = record.order, record.attempt, self._floor.board.records
        needs = [records[need].order.name if need in records else need for need in order.depends_on]
        shown = {
            "id": order.id, "name": order.name, "title": order.title, "state": record.state.value,
            "reason": record.reason or "", "message": record.message, "question": record.question,
            "depends_on": needs, "files": list(order.files), "checks": list(order.checks),
            "attempts": len(record.attempts), "progress": attempt.progress if attempt else "",
            "branch": attempt.branch if attempt else "", "merge": record.merge, "findings": record.findings,
            "instruction": order.instruction,
        }  # fmt: skip
        lines = [f"{key}: {value}" for key, value in shown.items() if value and key not in ("findings", "instruction")]
        return {"text": "\n".join(lines), "order": shown}

    async def _send(self, who: _Agent | None, request: Mapping[str, Any]) -> dict[str, Any]:
        sender = who.address if who is not None else values.text(request, "actor") or talk.ANYBODY
        name = f"msg-{self._journal.new_id().removeprefix('evt-')}"
        about = who.record if who is not None else None
        data, order = mail_data(request, sender=sender, name=name, find=self._find, about=about)
        waiting = [m for m in self._floor.board.mail.values() if (m.to, m.order) == (data["to"], order)]
        if len(waiting) >= talk.MOST_UNREAD:
            raise Refused(f"{data['to']!r} has {len(waiting)} unread messages", hint="wait until some are read")
        await self._journal.commit(Draft(E.MAIL_SENT, data, sender))
        self._desk.heard.set()
        return {"text": f"sent to {data['to']}", "id": data["message_id"]}

    async def _inbox(self, who: _Agent | None, request: Mapping[str, Any]) -> dict[str, Any]:
        """Read once: what is handed out here is read. ``wait_s``: how long to wait while there is nothing."""
        reader = who.address if who is not None else values.text(request, "actor") or talk.ANYBODY
        wait_s = min(values.amount(request, "wait_s") or 0.0, MOST_WAIT_S)
        if wait_s > 0:
            await self._listen(who, reader, wait_s)
        if who is not None:  # while it waited, its time may have gone by
            who = self._speaker(request)
        found = self._mail(who, reader)
        answer = who.record.answer if who is not None and who.record.state is State.ASKING else ""
        now = stamp_time(self._journal.clock.wall())
        read = [Draft(E.MAIL_READ, {"message_id": m.id, "reader": reader, "read_at": now}, reader) for m in found]
        question = who.record.question if who is not None else ""
        if who is not None and answer:
            read.append(Draft(E.AGENT_ANSWERED, who.data(answer="", delivery="seen", by="")))
        if read:
            await self._journal.commit(*read)
        told = [msgspec.structs.replace(message, read_at=now) for message in found]
        return {"text": _letters(told, question, answer), "answer": answer, "messages": told}

    async def _listen(self, who: _Agent | None, reader: str, wait_s: float) -> None:
        attempt = who.attempt.id if who is not None else ""
        self._desk.listening[attempt] += 1
        try:
            with suppress(TimeoutError):
                async with asyncio.timeout(wait_s):
                    while not self._mail(who, reader) and not (who is not None and who.record.answer):
                        self._desk.heard.clear()
                        await self._desk.heard.wait()
        finally:
            self._desk.listening[attempt] -= 1

    def _mail(self, who: _Agent | None, reader: str) -> list[Message]:
        mail = self._floor.board.mail.values()
        return talk.inbox(mail, who.address, who.record.order.id) if who is not None else talk.inbox(mail, reader)

    def _find(self, name: str) -> Record:
        return find(self._floor.board.find(name) if name else [], name)


def find(found: Sequence[Record], name: str) -> Record:
    """The one order of this name. Raises NotFound."""
    if len(found) != 1:
        what = f"{name!r} is the beginning of {len(found)} orders" if found else f"there is no order {name!r}"
        raise NotFound(what, hint="type: shopfloor status")
    return found[0]


def mail_data(
    request: Mapping[str, Any], *, sender: str, name: str, find: Callable[[str], Record], about: Record | None
) -> tuple[dict[str, Any], str]:
    """The data of a ``mail.sent``, and the order that it is to or about. Raises NotFound for an unknown address."""
    to, body = _needed(request, "to"), bounded(_needed(request, "body"), talk.MOST_BODY_CHARS)
    subject = one_line(values.text(request, "subject"), talk.MOST_SUBJECT_CHARS)
    priority = values.text(request, "priority") or "normal"
    if priority not in talk.PRIORITIES:
        raise UsageError(f"priority is {priority!r}", hint=f"choose one of {', '.join(talk.PRIORITIES)}")
    order = about.order.id if about is not None else ""
    if not talk.is_address(to):
        try:
            record = find(to.removeprefix(talk.WORKERS))
        except NotFound as problem:
            raise NotFound(problem.message, hint=f"people are {talk.ANYBODY}, or {talk.ANYBODY}:NAME") from None
        to, order = talk.address_of(record), record.order.id
    data = {
        "message_id": name, "from": sender, "to": one_line(to, talk.MOST_SUBJECT_CHARS),
        "subject": subject or one_line(body, 60), "message_type": "", "body": body, "priority": priority,
        "metadata": {},
    }  # fmt: skip
    return {**data, **({"work_order_id": order} if order else {})}, order


def _letters(messages: Sequence[Message], question: str, answer: str) -> str:
    told = [talk.answered(question, answer)] if answer else []
    told += [f"From: {m.sender}\nSubject: {m.subject}\n\n{m.body}" for m in messages]
    return "\n\n---\n\n".join(told) or "no new messages"


def _needed(request: Mapping[str, Any], key: str) -> str:
    text = values.text(request, key).strip()
    if not text:
        raise UsageError(f"{key!r} is missing, or is no text with something in it")
    return text
