"""The tasks of a floor in the hands of one worker, or of the foreman: found, made, claimed, handed in."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from functools import partial
from typing import Any

import msgspec

from shopfloor import (
    Deliverable,
    Ends,
    Event,
    NotFound,
    Order,
    Record,
    Refused,
    Shopfloor,
    State,
    UsageError,
    stamp_time,
)
from shopfloor.faces.foreman.task import (
    ASIDE,
    ENDED,
    FINISHED,
    KINDS,
    SESSION,
    Given,
    Task,
    Wish,
    dependencies_of,
    fits,
    status_of,
    task_of,
)

LOWEST = 4
"""priority"""
AHEAD = 32
"""Tasks that a worker looks up at once: many workers share a process."""


class Found(msgspec.Struct, frozen=True):
    """What was looked for: the first of them, and how many there are."""

    tasks: list[Task]
    count: int


class Tasks:
    """The tasks of a floor, as one worker (or the foreman) sees and changes them.

    ``actor`` is who speaks: the id of the worker, or ``foreman``. What it claims it holds until it completes, releases
    or sets it aside; its process's end returns it.
    """

    def __init__(self, floor: Shopfloor, actor: str) -> None:
        self.actor = actor
        self.floor = floor
        self._orders = floor.orders
        self._session = floor.session(actor, ahead=AHEAD)

    # -- looking ----------------------------------------------------------------------------------------------------

    async def get(self, name: str) -> Task:
        """By id, or the unique beginning of one. Raises NotFound, UsageError."""
        return task_of(await self._orders.get(name))

    async def all(
        self, *, status: str = "", category: str = "", assignee: str = "", metadata: Mapping[str, Any] | None = None
    ) -> list[Task]:
        """Those that fit, by priority and age: as many as there are, all in memory. :meth:`find` gives the first."""
        open_ = status and status not in FINISHED
        found = await (self._orders.seen(task_of) if open_ else self._orders.all_seen(task_of))
        if status or category or assignee or metadata:
            those = partial(fits, status=status, category=category, assignee=assignee, metadata=metadata)
            found = list(filter(those, found))
        return sorted(found, key=_priority)

    async def find(self, those: Callable[[Task], bool] | None, most: int, *, status: str = "") -> Found:
        """The first ``most`` of those that fit: unfinished ones before others, by priority and age.

        However many are finished, no more than twice ``most`` of them are in memory. With ``those`` each of them is
        looked at; None: all fit that have this status, or any.
        """
        first = [] if status in FINISHED else [t for t in await self.unfinished() if status in ("", t.status)]
        first = first if those is None else list(filter(those, first))
        room = max(0, most - len(first))
        if status and status not in FINISHED:
            return Found(first[:most], len(first))
        if those is None:
            counts = await self.counts()
            count = counts[status] if status else counts.total()
            state = next((state for state, word in ENDED.items() if word == status), "finished")
            ended = [task_of(record) for record in await self._orders.urgent(room, state)]
            return Found([*first[:most], *ended], count)
        ended, count = await self._ended(those, room, status, {task.id for task in first})
        return Found([*first[:most], *ended], len(first) + count)

    async def _ended(
        self, those: Callable[[Task], bool], most: int, status: str, seen: set[str]
    ) -> tuple[list[Task], int]:
        """The first of the finished ones that fit, and how many there are; ``seen``: one may end while we look."""
        some: list[Task] = []
        count = 0
        async for record in self._orders.finished():
            task = task_of(record)
            if status in ("", task.status) and task.id not in seen and those(task):
                count += 1
                some.append(task)
                if len(some) > 2 * most:
                    some = sorted(some, key=_by_age)[:most]
        return sorted(some, key=_by_age)[:most], count

    async def unfinished(self) -> list[Task]:
        """Those that are neither completed nor closed, by priority and age."""
        return sorted(await self._orders.seen(task_of), key=_priority)

    async def ready(self) -> list[Task]:
        """Open or in progress, and not blocked by one that is unfinished; by priority and age."""
        tasks = await self.unfinished()
        ids = {task.id for task in tasks}
        return [task for task in tasks if task.status in ("open", "in_progress") and ids.isdisjoint(task.depends_on)]

    async def blocked(self) -> list[Task]:
        """Set aside, or waiting for one that is unfinished; by priority and age."""
        tasks = await self.unfinished()
        ids = {task.id for task in tasks}
        return [task for task in tasks if task.status in ASIDE or not ids.isdisjoint(task.depends_on)]

    async def counts(self) -> Counter[str]:
        """How many there are of each status."""
        states = await self._orders.states()
        ended = {status: states.get(state, 0) for state, status in ENDED.items()}
        return Counter(task.status for task in await self.unfinished()) + Counter(ended)

    def ends(self) -> Ends:
        """Tells of each that has ended, once, from the first call of its ``begin`` on; for :func:`task_of`."""
        return self._orders.ends()

    async def events(self, name: str) -> list[Event]:
        """All that happened to it, the oldest first."""
        return await self._orders.events((await self.get(name)).id)

    async def sessions(self, name: str) -> list[dict[str, Any]]:
        """Who worked on it: ``session_id, worker, started_at, ended_at, outcome, message`` of each attempt."""
        record = await self._orders.get(name)
        return [
            {
                "session_id": a.session or a.id, "worker": a.agent.removeprefix(SESSION),
                "started_at": stamp_time(a.claimed_at), "outcome": a.outcome, "message": a.message,
                "ended_at": "" if a.ended_at is None else stamp_time(a.ended_at),
            }
            for a in record.attempts
        ]  # fmt: skip

    async def changed(self, after: int, timeout_s: float) -> int:
        """Where the log ends, as soon as that is behind ``after`` or the time is over."""
        return await self._orders.changed(after, timeout_s)

    # -- making and changing ----------------------------------------------------------------------------------------

    async def create(
        self, title: str, description: str = "", *, priority: int = 2, issue_type: str = "task", category: str = "",
        depends_on: Iterable[str] = (), metadata: Mapping[str, Any] | None = None,
    ) -> Task:  # fmt: skip
        """A new one. Raises UsageError for a title that is empty or a priority that is none, NotFound for a blocker."""
        if not title.strip():
            raise UsageError("a task needs a title")
        if type(priority) is not int or not 0 <= priority <= LOWEST:
            raise UsageError(f"priority {priority!r} is no whole number from 0 (highest) to {LOWEST}")
        needs = tuple([(await self._orders.get(need)).order.id for need in depends_on])
        meta = {**(metadata or {}), **({"category": category} if category else {})}
        order = Order(
            id="", name="", title=title.strip(), instruction=description, deliverable=Deliverable.ANSWER,
            depends_on=needs, priority=priority, issue_type=issue_type, extra={"metadata": meta} if meta else {},
        )  # fmt: skip
        (made,) = await self._orders.create([order], actor=self.actor)
        return task_of(Record(order=made, updated_at=made.created_at))

    async def update(self, name: str, *, comment: str = "", **changes: Any) -> Task:
        """Change ``title, description, priority, issue_type`` or ``metadata``. Raises Refused for one at work."""
        allowed = {"title", "description", "priority", "issue_type", "metadata"}
        if unknown := sorted(changes.keys() - allowed):
            raise UsageError(f"{unknown[0]!r} is nothing that can be updated", hint=f"one of {', '.join(allowed)}")
        wanted = dict(changes)
        if comment:
            wanted["metadata"] = {**wanted.get("metadata", {}), "comment": comment}
        return await self._change(name, lambda _record: wanted)

    async def add_dependency(self, name: str, other: str, kind: str = "blocks") -> Task:
        """Connect it with another; ``blocks``: it waits until the other is finished. Raises UsageError for a circle."""
        if kind not in KINDS:
            raise UsageError(f"{kind!r} is no kind of dependency", hint=f"one of {', '.join(KINDS)}")
        found = {"depends_on_id": (await self.get(other)).id, "type": kind}

        def add(record: Record) -> Mapping[str, Any]:
            known = dependencies_of(record.order)
            return {} if found in known else {"dependencies": [*known, found]}

        return await self._change(name, add)

    async def remove_dependency(self, name: str, other: str, kind: str = "") -> Task:
        """Take a connection away, by default of every kind. Raises NotFound when there is none."""
        gone = (await self.get(other)).id

        def remove(record: Record) -> Mapping[str, Any]:
            known = dependencies_of(record.order)
            kept = [d for d in known if d["depends_on_id"] != gone or (kind and d["type"] != kind)]
            if len(kept) == len(known):
                raise NotFound(f"{record.order.id!r} has no such dependency on {gone!r}")
            return {"dependencies": kept}

        return await self._change(name, remove)

    async def unblock(self, name: str, info: str = "") -> Task:
        """Open again what was set aside; ``info`` is added to its description. Raises Refused for any other."""

        def open_again(record: Record) -> Mapping[str, Any]:
            task = task_of(record)
            if task.status not in ASIDE:
                raise Refused(f"{task.id!r} is {task.status}, not set aside: there is nothing to unblock")
            words = record.order.instruction
            if info:
                asked = f"{task.blocking_notes}\n\n" if task.blocking_notes else ""
                words = f"{words.rstrip()}\n\n---\n\n{asked}{info}\n".lstrip()
            meta = {"blocking_notes": ""}
            return {"status": "open", "description": words, "metadata": meta}

        return await self._change(name, open_again)

    async def close(self, name: str, reason: str = "", *, force: bool = False) -> Task:
        """Give it up: who waits for it waits no longer. Harmless when finished; ``force``: whoever works on it."""
        task = await self.get(name)
        if task.finished:
            return task
        if task.status == "in_progress":
            if not force:
                self._refuse_others(task)
            await self._session.release(task.id, reason or "closed", force=force, aside="blocked")
        meta = {"metadata": {"close_reason": reason}} if reason else {}
        closed = await self._change(task.id, lambda _record: {"status": "closed", **meta})
        for other in await self._orders.seen(task_of):
            if task.id in other.depends_on and not other.finished:
                await self.remove_dependency(other.id, task.id, "blocks")
        return closed

    # -- holding ----------------------------------------------------------------------------------------------------

    async def next(self, wish: Wish) -> Given | None:
        """Claim the next one that fits, or None: there is none now. Nobody else has it then."""
        for claim in await self._session.claim(1, metadata=wish.metadata, without=wish.without):
            return Given(
                id=claim.id, title=claim.title, prompt=claim.prompt, attempt=claim.attempt, generation=claim.generation
            )
        return None

    async def claim(self, name: str) -> Task:
        """Claim this one. Raises Refused when somebody has it, or it is blocked or finished."""
        task = await self.get(name)
        if task.status == "in_progress" and task.assignee == self.actor:
            return task
        if task.status != "open" or not await self._session.claim(1, orders=[task.id]):
            task = await self.get(task.id)
            who = f" by {task.assignee}" if task.assignee else ""
            what = f"is {task.status}{who}" if task.status != "open" else "waits for others, or for its next try"
            raise Refused(f"{task.id!r} was not claimed: it {what}")
        return msgspec.structs.replace(task, status="in_progress", assignee=self.actor)

    async def release(self, name: str, why: str = "", *, failed: bool = False, delay_s: float = 0.0) -> Task:
        """Give it back; see :meth:`WorkSession.release`. Raises Refused when it is not ours."""
        task = await self.get(name)
        self._refuse_others(task)
        return await self._now(task.id, await self._session.release(task.id, why, failed=failed, delay_s=delay_s))

    async def complete(self, name: str, result: str = "") -> Task:
        """Hand in what came of it; one that is free is claimed first. Harmless when it is completed already."""
        if name in self.held:
            with suppress(NotFound, Refused):  # it was taken back: how it stands now says why it cannot be done
                return await self._finish(name, result)
        task = await self.get(name)
        if task.status == "completed":
            return task
        if task.status == "open":
            task = await self.claim(task.id)
        self._refuse_others(task)
        return await self._finish(task.id, result)

    async def ask(self, name: str, question: str) -> Task:
        """Set it aside until the user has answered. Raises UsageError without a question, Refused when not ours."""
        return await self._set_aside(name, "pending_user_input", question)

    async def block(self, name: str, reason: str) -> Task:
        """Set it aside because of something in the way. Raises UsageError without a reason, Refused when not ours."""
        return await self._set_aside(name, "blocked", reason)

    @property
    def held(self) -> frozenset[str]:
        """Ids of what it holds."""
        return self._session.claimed

    def forget(self, name: str) -> None:
        """It is held no longer: somebody else took it back, or closed it."""
        self._session.forget(name)

    async def end(self) -> None:
        """Give back what is still held, and hang up."""
        await self._session.close()

    # -- inside -----------------------------------------------------------------------------------------------------

    async def _set_aside(self, name: str, status: str, why: str) -> Task:
        if not why.strip():
            raise UsageError("say why: the question to the user, or what is in the way")
        task = await self.get(name)
        if task.status == "in_progress":
            self._refuse_others(task)
            return await self._now(task.id, await self._session.release(task.id, why, aside=status))

        def aside(record: Record) -> Mapping[str, Any]:
            if record.state is not State.READY:
                raise Refused(f"{record.order.id!r} is {status_of(record)}: it cannot be set aside")
            return {"status": status, "metadata": {"blocking_notes": why}}

        return await self._change(task.id, aside)

    async def _finish(self, name: str, result: str) -> Task:
        return await self._now(name, await self._session.finish(name, text=result or "done"))

    async def _now(self, name: str, record: Record | None) -> Task:
        return await self.get(name) if record is None else task_of(record)

    async def _change(self, name: str, change: Any) -> Task:
        return task_of(await self._orders.change(name, change, actor=self.actor))

    def _refuse_others(self, task: Task) -> None:
        """Raise Refused unless we hold it ourselves: not another worker of our process."""
        if task.status != "in_progress" or task.assignee != self.actor:
            who = f"in progress by {task.assignee}" if task.status == "in_progress" else task.status
            raise Refused(f"{task.id!r} is {who}: {self.actor!r} does not hold it")


def _priority(task: Task) -> int:
    return task.priority


def _by_age(task: Task) -> tuple[int, str]:
    return task.priority, task.created_at
