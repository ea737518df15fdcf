"""What a session gets and hands in, and the events that this amounts to, whoever writes them."""

from __future__ import annotations

from typing import Any, Self

import msgspec

from shopfloor.domain import names
from shopfloor.domain.errors import Refused
from shopfloor.domain.holder import Holder
from shopfloor.domain.order import Deliverable, Order, Reason
from shopfloor.engine.facts import MOST_ANSWER_CHARS, bounded, bounded_names

PREFIX = "session/"
"""Before a session's name where other programs read an agent's."""


class Claimed(msgspec.Struct, frozen=True, kw_only=True):
    """An order that a session holds, with what it needs to know to work on it."""

    id: str
    name: str
    title: str
    prompt: str
    """the instruction, and what became of the attempt before"""
    deliverable: Deliverable
    generation: int
    attempt: str
    branch: str
    """where the work is kept once it was handed in"""
    base: str
    """the commit to start from; empty: the order belongs to no run"""
    run: str = ""
    issue_type: str = "task"
    priority: int = 2
    files: tuple[str, ...] = ()
    checks: tuple[str, ...] = ()

    @classmethod
    def of(cls, order: Order, data: dict[str, Any], prompt: str) -> Self:
        """From an order and the ``data`` of its claim."""
        return cls(
            id=order.id, name=order.name, title=order.title, prompt=prompt, deliverable=order.deliverable,
            generation=data["generation"], attempt=data["attempt"], branch=data["branch"], base=data["base"],
            run=order.run, issue_type=order.issue_type, priority=order.priority, files=order.files,
            checks=order.checks,
        )  # fmt: skip


class Work(msgspec.Struct, frozen=True, kw_only=True):
    """What a session hands in: the words of an answer, or a commit that is to be verified."""

    text: str = ""
    commit: str = ""
    tree: str = ""
    base: str = ""
    """the commit that it was made on"""
    files: tuple[str, ...] = ()


def claim_data(order: Order, generation: int, base: str, holder: Holder) -> dict[str, Any]:
    """Of the event by which a session takes an order."""
    return {
        "work_order_id": order.id, "agent": f"{PREFIX}{holder.name}", "assignment_path": "", "generation": generation,
        "attempt": names.attempt_id(order.id, generation), "base": base,
        "branch": names.branch_name(order.name, order.id, generation), "profile": "", "handle": holder.handle(),
    }  # fmt: skip


class Back(msgspec.Struct, frozen=True, kw_only=True):
    """How a session gives an order back."""

    why: str = ""
    failed: bool = False
    """its attempt came to nothing: that is counted, and the next one is told why"""
    delay_s: float = 0.0
    """before anybody may claim it again"""
    aside: str = ""
    """a status such as ``blocked``: nobody claims it before somebody gives it the status ``open``"""


def release_data(order: str, generation: int, holder: Holder, back: Back, *, lost: bool = False) -> dict[str, Any]:
    """Of the event by which an order is free again."""
    reason = Reason.LOST.value if lost else Reason.ERROR.value if back.failed else "released"
    data = {
        "work_order_id": order, "generation": generation, "handle": holder.handle(), "message": bounded(back.why),
        "reason": reason,
    }  # fmt: skip
    more = {"delay_s": back.delay_s, "aside": back.aside}
    return data | {key: value for key, value in more.items() if value}


def finish_data(order: str, generation: int, holder: Holder, work: Work) -> dict[str, Any]:
    """Of the event by which a session hands in its work: what an agent's end says, without any verdict."""
    return {
        "work_order_id": order, "generation": generation, "agent": f"{PREFIX}{holder.name}",
        "handle": holder.handle(), "reason": "completed", "outcome": "completed", "exit_code": None,
        "message": bounded(work.text, MOST_ANSWER_CHARS), "commit": work.commit, "tree": work.tree, "base": work.base,
        "files": bounded_names(work.files), "started": True,
    }  # fmt: skip


def not_yours(name: str, holder: Holder | None) -> str:
    """Why a session may not speak for an order."""
    if holder is None:
        return f"no session holds {name!r}"
    return f"{name!r} is held by {holder.name!r} (pid {holder.pid}), not by you"


def refuse_unfit(order: Order, work: Work) -> None:
    """Raise Refused for work that is not what the order is to hand back."""
    if order.deliverable is Deliverable.CHANGE and not work.commit:
        raise Refused(f"{order.name!r} hands back a change: name the commit", hint="--commit COMMIT")
    if order.deliverable is Deliverable.ANSWER and not work.text:
        raise Refused(f"{order.name!r} hands back an answer: give its text", hint="--answer-file FILE")
