"""What is said between agents and people: who reads what, and what a question does to its order."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from shopfloor.domain.board import Board
from shopfloor.domain.events import E
from shopfloor.domain.judge import Retry, Settle, Verify, step
from shopfloor.domain.order import Reason, Record, State
from shopfloor.domain.policy import Policy
from shopfloor.domain.prompt import render
from shopfloor.domain.talk import MOST_SAID, MOST_WAITING, Message, answered, declined, inbox, is_address, is_for

from .events_of import Desk, Log, begun, order


def message(to: str, name: str = "m", about: str = "", **fields: Any) -> Message:
    metadata = {"work_order_id": about} if about else {}
    return Message(id=name, sender="human", to=to, metadata=metadata, **fields)


def at_work(name: str = "a", policy: Policy | None = None) -> Desk:
    desk = begun(order(name, instruction="Mend it."), policy=policy)
    desk.claim(name)
    return desk


def record_of(desk: Desk) -> Record:
    return desk.board.records["wo-a"]


def asking(**data: Any) -> Desk:
    desk = at_work()
    desk.write(E.AGENT_ASKED, "a", generation=1, question="Which?", **data)
    return desk


def next_step(desk: Desk, policy: Policy | None = None) -> object:
    record = record_of(desk)
    run = desk.board.run_of(record)
    assert run is not None
    return step(record, run, policy or Policy())


# -- addresses ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("to", "reader", "order", "found"),
    [
        ("human", "human:ann", "", True),
        ("human:ann", "human:ann", "", True),
        ("human:ann", "human:bob", "", False),
        ("human:an", "human:ann", "", False),
        ("office", "office/workers/ann", "", True),
        ("office", "officer/workers/ann", "", False),
        ("office/workers/ann", "office", "", False),
        ("shopfloor/workers/a", "shopfloor/workers/a", "wo-a", True),
        ("shopfloor/workers/a", "shopfloor/workers/a", "wo-b", False),
        ("shopfloor/workers/b", "shopfloor/workers/a", "wo-a", False),
    ],
)
def test_who_finds_it_in_the_inbox(to: str, reader: str, order: str, found: bool) -> None:
    about = "wo-a" if to == "shopfloor/workers/a" else "wo-b" if to.startswith("shopfloor") else ""
    assert is_for(message(to, about=about), reader, order) is found


def test_what_an_agent_wrote_to_people_is_not_in_its_own_inbox() -> None:
    assert not is_for(message("human", about="wo-a"), "shopfloor/workers/a", "wo-a")


def test_the_urgent_come_first_then_the_older() -> None:
    mail = [
        message("human", n, priority=p) for n, p in (("1", "low"), ("2", "normal"), ("3", "urgent"), ("4", "urgent"))
    ]
    assert [m.id for m in inbox(mail, "human:x")] == ["3", "4", "2", "1"]


@pytest.mark.parametrize(("text", "is_one"), [("human", True), ("human:x", True), ("office/qa", True), ("a", False),
                                              ("shopfloor/workers/a", False), ("humans", False)])  # fmt: skip
def test_an_order_is_no_address_by_itself(text: str, is_one: bool) -> None:
    assert is_address(text) is is_one


def test_mail_is_kept_until_it_was_read_and_counts_once() -> None:
    board, log = Board(), Log()
    sent = log.write(
        E.MAIL_SENT, "wo-a", stamped=False, message_id="m-1", to="human", subject="s", body="b", priority="?"
    )
    for event in (
        sent,
        sent,
        log.write(E.MAIL_SENT, stamped=False, to="human"),
        log.write(E.MAIL_SENT, message_id="m-2"),
    ):
        board.apply(event)
    (kept,) = board.mail.values()
    assert (kept.id, kept.priority, kept.order, kept.sender) == ("m-1", "normal", "wo-a", "somebody")
    line = msgspec.to_builtins(kept)
    assert list(line) == [
        "id",
        "from",
        "to",
        "subject",
        "body",
        "message_type",
        "timestamp",
        "read_at",
        "priority",
        "metadata",
    ]
    board.apply(log.write(E.MAIL_READ, stamped=False, message_id="m-1", reader="human"))
    assert not board.mail


def test_a_flood_of_mail_is_bounded() -> None:
    board, log = Board(), Log()
    for number in range(MOST_WAITING + 5):
        board.apply(log.write(E.MAIL_SENT, stamped=False, message_id=f"m-{number}", to="human", body="b"))
    assert len(board.mail) == MOST_WAITING
    assert next(iter(board.mail)) == "m-5"


# -- questions ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("outcome", ["completed", Reason.LOST, Reason.STOPPED])
def test_a_question_outlives_an_attempt_that_ended_without_fault(outcome: str) -> None:
    desk = asking()
    desk.end("a", outcome=outcome)
    assert (record_of(desk).state, record_of(desk).question) == (State.ASKING, "Which?")
    assert next_step(desk) is None, "it waits for a person"
    assert desk.floor.finished


@pytest.mark.parametrize("outcome", [Reason.ERROR, Reason.TIMEOUT, Reason.BUDGET])
def test_a_question_does_not_outlive_a_failure(outcome: str) -> None:
    desk = asking()
    desk.end("a", outcome=outcome)
    assert (record_of(desk).state, record_of(desk).question) == (State.RUNNING, "")


@pytest.mark.parametrize("outcome", ["completed", Reason.LOST])
def test_a_permission_does_not_outlive_its_attempt(outcome: str) -> None:
    desk = asking(permission=True)
    assert record_of(desk).permission
    desk.end("a", outcome=outcome)
    assert (record_of(desk).state, record_of(desk).permission) == (State.RUNNING, False)


def test_an_answer_that_was_not_heard_starts_the_agent_again() -> None:
    desk = asking()
    desk.write(E.AGENT_ANSWERED, "a", generation=1, answer="This.", delivery="waits", by="human:x")
    assert record_of(desk).state is State.ASKING
    desk.end("a")
    assert next_step(desk) == Retry("wo-a", "answered", 0.0, "its question was answered", answered("Which?", "This."))
    desk.write(E.RETRIED, "a", generation=1, kind="answered", findings=answered("Which?", "This."))
    record = record_of(desk)
    assert (record.state, record.answer, record.reworks, record.failures, record.lost) == (State.READY, "", 0, 0, 0)


@pytest.mark.parametrize("delivery", ["seen", "delivered", "shown"])
def test_an_answer_that_was_heard_lets_it_go_on(delivery: str) -> None:
    desk = asking()
    desk.write(E.AGENT_ANSWERED, "a", generation=1, answer="This.", delivery=delivery, by="human:x")
    assert record_of(desk).state is State.RUNNING
    desk.end("a")
    assert next_step(desk) == Verify("wo-a")


def test_where_nobody_answers_it_is_told_so_and_not_for_ever() -> None:
    policy = Policy(on_question="decline", reworks=1)
    desk = asking()
    desk.end("a")
    again = next_step(desk, policy)
    assert again == Retry("wo-a", "rework", 0.0, "nobody answers questions in this run", declined("Which?"))
    desk.write(E.RETRIED, "a", generation=1, kind="rework", findings=declined("Which?"))
    desk.claim("a", 2)
    desk.write(E.AGENT_ASKED, "a", generation=2, question="Which?")
    desk.end("a", 2)
    settled = next_step(desk, policy)
    assert isinstance(settled, Settle)
    assert "it goes on asking" in settled.message


def test_done_makes_nothing_done() -> None:
    desk = asking()
    desk.write(E.AGENT_DONE, "a", generation=1, text="all is well")
    record = record_of(desk)
    assert (record.state, record.attempts[0].done, record.attempts[0].outcome) == (State.RUNNING, "all is well", "")
    desk.end("a", commit="b0")
    settled = next_step(desk)
    assert isinstance(settled, Settle)
    assert settled.reason is Reason.NO_CHANGES


def test_talk_is_kept_in_order_and_bounded() -> None:
    desk = at_work()
    for number in range(MOST_SAID + 3):
        desk.write(E.AGENT_STEERED, "a", generation=1, text=f"{number}", by="human:x", delivery="seen")
    texts = [said.text for said in record_of(desk).talk]
    assert texts == [str(number) for number in range(3, MOST_SAID + 3)]


# -- prompts --------------------------------------------------------------------------------------------------------


def test_the_answer_to_a_question_is_no_finding() -> None:
    record = Record(order=order("a", instruction="Mend it."), findings=answered("Which?", "This."))
    told = render(record)
    assert told.startswith("Mend it.")
    assert "The answer is: This." in told
    assert "not accepted" not in told
    record.findings = ""
    assert render(record) == "Mend it."
