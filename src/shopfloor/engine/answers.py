"""One attempt that is a call: no workspace, no folder, no process; one fact, at its end.

The call's own clock is its driver's, because only that knows when a server was free for it. What ends it from here is a
person, the end of the run, or the end of this process.
"""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import Any, Protocol

import msgspec

from shopfloor.domain.errors import ShopfloorError
from shopfloor.domain.order import Reason
from shopfloor.engine.control import Control, Emit
from shopfloor.engine.facts import MOST_ANSWER_CHARS, said
from shopfloor.ports import Answered, Answering, Call, Fact, Job, Phase

MOST_DATA = 2 * MOST_ANSWER_CHARS
"""bytes as JSON of what an agent tells beside its answer"""


class Masking(Protocol):
    """Knows what nobody may read in the log."""

    def __bool__(self) -> bool:
        """Whether there is anything."""
        ...

    def text(self, text: str) -> str:
        """The same without it."""
        ...

    def data(self, data: bytes) -> bytes:
        """The same of bytes."""
        ...


async def execute(job: Job, control: Control, emit: Emit, agent: Answering, masker: Masking) -> None:
    """Make one call. Emits exactly one ENDED, whatever happens."""
    ended: Fact | None = None
    try:
        found = await _called(job, control, agent)
        ended = _masked(found, masker) if masker else found
    finally:
        if ended is None:
            ended = _fact(job, outcome=Reason.LOST, text="the controller was stopped while it ran")
        await emit(ended)


async def _called(job: Job, control: Control, agent: Answering) -> Fact:
    task = asyncio.current_task()
    if control.reason or task is None:
        return _fact(job, outcome=control.reason, text="stopped before it was asked")
    call = Call(
        order=job.order, attempt=job.attempt, generation=job.generation, profile=job.profile, timeout_s=job.timeout_s
    )  # fmt: skip
    control.interrupt = task.cancel
    try:
        answered = await agent.answer(call)
    except asyncio.CancelledError:
        if not control.stopped:
            raise
        task.uncancel()
        return _fact(job, outcome=control.reason, text=_STOPPED.get(control.reason, control.reason))
    except (ShopfloorError, OSError) as problem:
        return _fact(job, outcome=Reason.ERROR, text=f"{job.profile.name}: {said(problem)}", transient=True)
    finally:
        control.interrupt = None
    return _judged(job, answered)


def _judged(job: Job, answered: Answered) -> Fact:
    known: dict[str, Any] = {
        "cost_usd": answered.cost_usd, "tokens_in": answered.tokens_in, "tokens_out": answered.tokens_out,
        "data": answered.data if _small(answered.data) else {},
    }  # fmt: skip
    if answered.failed:
        reason = Reason.TIMEOUT if answered.timed_out else Reason.ERROR
        return _fact(job, outcome=reason, text=answered.failed, transient=not answered.final, **known)
    if (size := len(answered.text)) > MOST_ANSWER_CHARS:  # half an answer is none
        why = f"its answer has {size} characters, and {MOST_ANSWER_CHARS} are the most that are kept"
        return _fact(job, outcome=Reason.ERROR, text=why, **known)
    return _fact(job, outcome="completed", text=answered.text, **known)


def _small(data: dict[str, Any]) -> bool:
    """Whether an agent's facts have a place in the log: it must not be the end of all others that they have none."""
    try:
        return not data or len(msgspec.json.encode(data)) <= MOST_DATA
    except (TypeError, ValueError, OverflowError, RecursionError):
        return False


def _masked(fact: Fact, masker: Masking) -> Fact:
    data: dict[str, Any] = {}
    with suppress(msgspec.DecodeError):  # a secret may be made of what JSON is made of: then nothing is left of it
        data = msgspec.json.decode(masker.data(msgspec.json.encode(fact.data)))
    return msgspec.structs.replace(fact, text=masker.text(fact.text), data=data)


def _fact(job: Job, **fields: Any) -> Fact:
    return Fact(phase=_ENDED, order=job.order.id, attempt=job.attempt, generation=job.generation, **fields)


_ENDED = Phase.ENDED  # once: on CPython 3.11 naming a member of an enumeration takes longer than to compare it
_STOPPED: dict[str, str] = {Reason.STOPPED: "stopped by a person", Reason.BUDGET: "the budget is spent"}
