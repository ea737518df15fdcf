"""What agents and people say to each other: questions and answers, progress, words on the way, mail.

Nothing that is said here makes anything done: an agent that says it is done asks for its verification.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import msgspec

from shopfloor.domain import values
from shopfloor.domain.events import E, Event
from shopfloor.domain.names import one_line
from shopfloor.domain.order import Reason, Record, Said, State

WORKERS = "shopfloor/workers/"
"""Before an order's name in the address of its agent, whichever attempt that is."""
ANYBODY = "human"
"""The address of people: who looks first gets it. One person is ``human:NAME``."""
PRIORITIES = ("urgent", "normal", "low")
"""In the order in which mail is read."""

MOST_SAID = 20
"""pieces of talk that a record keeps; the log has them all"""
MOST_SAID_CHARS = 600
MOST_PROGRESS_CHARS = 200
MOST_BODY_CHARS = 16_000
MOST_SUBJECT_CHARS = 200
MOST_UNREAD = 200
"""messages that wait for one reader; then no more are taken"""
MOST_WAITING = 2_000
"""messages that wait for anybody; beyond it the oldest are in the log only"""


class Message(msgspec.Struct, frozen=True, kw_only=True, rename={"sender": "from"}):
    """A piece of mail, with the fields of the VerMAS contract. ``timestamp`` and ``read_at`` are as in the log."""

    id: str
    sender: str
    to: str
    subject: str = ""
    body: str = ""
    message_type: str = ""
    timestamp: str = ""
    read_at: str | None = None
    priority: str = "normal"
    metadata: dict[str, Any] = msgspec.field(default_factory=dict)
    """``work_order_id``: the order that it is to, or, to a person, that it is about"""

    @property
    def order(self) -> str:
        """The order that it is to or about, or an empty string."""
        return values.text(self.metadata, "work_order_id")


def sent(event: Event) -> Message | None:
    """The message that a ``mail.sent`` speaks of; None when nobody could read it."""
    data = event.data
    name, to = values.text(data, "message_id"), values.text(data, "to")
    if not name or not to:
        return None
    metadata = data.get("metadata")
    about = {"work_order_id": event.order_id} if event.order_id else {}
    priority = values.text(data, "priority")
    return Message(
        id=name, sender=values.text(data, "from") or event.actor, to=to, subject=values.text(data, "subject"),
        body=values.text(data, "body"), message_type=values.text(data, "message_type"), timestamp=event.timestamp,
        priority=priority if priority in PRIORITIES else "normal",
        metadata={**(metadata if isinstance(metadata, dict) else {}), **about},
    )  # fmt: skip


def fold_mail(mail: dict[str, Message], event: Event) -> None:
    """Keep what nobody has read yet, the oldest first."""
    if event.event_type == E.MAIL_READ:
        mail.pop(values.text(event.data, "message_id"), None)
        return
    message = sent(event)
    if message is None or message.id in mail:
        return
    mail[message.id] = message
    while len(mail) > MOST_WAITING:
        del mail[next(iter(mail))]


def is_for(message: Message, reader: str, order: str = "") -> bool:
    """True when a reader finds it in the inbox; ``order``: whose agent the reader is, which its address may not tell.

    An address is also that of everybody below it, by whole parts: ``office`` of ``office/workers/ann``, not of
    ``officer``.
    """
    if order and message.to.startswith(WORKERS):
        return message.order == order
    if message.to == ANYBODY:
        return reader == ANYBODY or reader.startswith(f"{ANYBODY}:")
    return message.to == reader or reader.startswith(f"{message.to}/")


def for_people(message: Message) -> bool:
    """True for what is written to a person, whoever that is."""
    return message.to == ANYBODY or message.to.startswith(f"{ANYBODY}:")


def inbox(mail: Iterable[Message], reader: str, order: str = "") -> list[Message]:
    """What waits for a reader: the urgent first, then by age."""
    found = [message for message in mail if is_for(message, reader, order)]
    return sorted(found, key=lambda message: PRIORITIES.index(message.priority))


def address_of(record: Record) -> str:
    """The address of an order's agent."""
    return f"{WORKERS}{record.order.name}"


def is_address(text: str) -> bool:
    """True for what names a reader by itself: a person, or an agent of another office. An order's name does not."""
    return text == ANYBODY or text.startswith(f"{ANYBODY}:") or ("/" in text and not text.startswith(WORKERS))


def answered(question: str, answer: str) -> str:
    """A question and its answer, for an agent that is started again."""
    return f"You asked: {question}\nThe answer is: {answer}"


def declined(question: str) -> str:
    """The same where nobody answers."""
    return f"You asked: {question}\n{NOBODY}"


def is_reply(findings: str) -> bool:
    """True for what :func:`answered` or :func:`declined` made."""
    return findings.startswith("You asked: ")


NOBODY = "Nobody answers questions in this run: decide it yourself, and say at the end what you decided."


# -- what it means for a record: True when it changed it --------------------------------------------------------


# Named here once: on CPython 3.11 naming a member of an enumeration takes longer than to compare it.
_ASKING = State.ASKING


def settle_question(r: Record, outcome: str) -> None:
    """An attempt has ended: what was asked outlives one that ended well, or through no fault of its agent.

    A permission does not: the next attempt asks for its own.
    """
    if r.state is not _ASKING:
        return
    if r.permission or outcome not in ("completed", Reason.LOST, Reason.STOPPED):
        forget_question(r)
        r.state = State.RUNNING


def forget_question(r: Record) -> None:
    """Nothing is asked any more."""
    r.question, r.answer, r.permission = "", "", False


def _asked(r: Record, d: dict[str, Any], at: float) -> bool:
    if not r.live:
        return False
    forget_question(r)
    r.state, r.question, r.permission = State.ASKING, values.text(d, "question"), d.get("permission") is True
    r.attempts[-1].done = None
    _keep(r, at, "asked", "its agent", r.question)
    return True


def _answered(r: Record, d: dict[str, Any], at: float) -> bool:
    if r.state is not State.ASKING:
        return False
    answer = values.text(d, "answer")
    if answer:
        _keep(r, at, "answered", values.text(d, "by"), answer)
    if d.get("delivery") == "waits":
        r.answer = answer
    elif r.live:
        forget_question(r)
        r.state = State.RUNNING
    return True


def _steered(r: Record, d: dict[str, Any], at: float) -> bool:
    if not r.live:
        return False
    _keep(r, at, "steered", values.text(d, "by"), values.text(d, "text"))
    return True


def _progress(r: Record, d: dict[str, Any], _at: float) -> bool:
    if not r.live:
        return False
    r.attempts[-1].progress = one_line(values.text(d, "text"), MOST_PROGRESS_CHARS)
    return True


def _done(r: Record, d: dict[str, Any], _at: float) -> bool:
    if not r.live:
        return False
    r.attempts[-1].done = values.text(d, "text")
    if r.state is State.ASKING:  # it does not wait for the answer any more
        forget_question(r)
        r.state = State.RUNNING
    return True


def _mail(r: Record, d: dict[str, Any], at: float) -> bool:
    text = f"{values.text(d, 'subject')}\n{values.text(d, 'body')}".strip()
    _keep(r, at, "mail", f"{values.text(d, 'from')} to {values.text(d, 'to')}", text)
    return True


def _keep(r: Record, at: float, kind: str, who: str, text: str) -> None:
    short = text if len(text) <= MOST_SAID_CHARS else f"{text[: MOST_SAID_CHARS - 1]}…"
    said = Said(at, kind, one_line(who, MOST_SUBJECT_CHARS), short)
    if said not in r.talk:
        r.talk.append(said)
    del r.talk[:-MOST_SAID]


HANDLERS: Mapping[str, Callable[[Record, dict[str, Any], float], bool]] = {
    E.AGENT_ASKED: _asked,
    E.AGENT_ANSWERED: _answered,
    E.AGENT_STEERED: _steered,
    E.AGENT_PROGRESS: _progress,
    E.AGENT_DONE: _done,
    E.MAIL_SENT: _mail,
}
"""As those of the fold."""
