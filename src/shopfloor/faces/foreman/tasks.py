"""Tasks: orders of no run whose deliverable is an answer, in the words of an issue tracker.

This is the one place that maps them.

| task | order |
|---|---|
| ``open`` | ready, or waiting for another |
| ``in_progress`` | a session holds it, or an agent works on it |
| ``blocked``, ``pending_user_input`` | ready, and set aside with that status; nobody claims it before ``unblock`` |
| ``completed`` | done: its session handed in an answer, which is the ``result`` |
| ``closed`` | cancelled: somebody gave it up |

``category``, ``pool``, ``blocking_notes``, ``parent_id``, ``discovered_from`` and ``comment`` are keys of the order's
metadata. What was said before stands in the log: :meth:`Tasks.events`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import msgspec

from shopfloor import Deliverable, Event, NotFound, Order, Record, Refused, Shopfloor, State, UsageError, stamp_time

FINISHED = frozenset({"closed", "completed"})
ASIDE = ("blocked", "pending_user_input")
STATUSES = ("open", "in_progress", *ASIDE, "closed", "completed")
KINDS = ("blocks", "related", "parent-child", "discovered-from")
"""Of a dependency; only the first makes a task wait."""

SESSION = "session/"
"""Before the name of a session where the log names who works on an order."""
LOWEST = 4
"""priority"""
AHEAD = 32
"""Tasks that a worker looks up at once: many workers share a process."""

_AT_WORK = {State.ASKING: "pending_user_input", State.DONE: "completed", State.CANCELLED: "closed"}


class Task(msgspec.Struct, frozen=True, kw_only=True):
    """An order as an issue. Times are RFC 3339 in UTC, empty where there is none."""

    id: str
    title: str
    description: str = ""
    status: str = "open"
    priority: int = 2
    """0 highest … 4 lowest"""
    issue_type: str = "task"
    assignee: str = ""
    """the worker that has it, or had it last"""
    created_at: str = ""
    created_by: str = ""
    updated_at: str = ""
    closed_at: str = ""
    parent_id: str = ""
    discovered_from: str = ""
    blocking_notes: str = ""
    """why it is set aside: the question, or what is in the way"""
    result: str = ""
    category: str = ""
    retries: int = 0
    """attempts of workers that came to nothing"""
    lost: int = 0
    """attempts whose worker ended without a word"""
    depends_on: tuple[str, ...] = ()
    """ids of the tasks that block it"""
    dependencies: tuple[dict[str, str], ...] = ()
    """``depends_on_id`` and ``type`` of everything it is connected with"""
    metadata: dict[str, Any] = {}

    @property
    def finished(self) -> bool:
        """True when nothing more is done about it."""
        return self.status in FINISHED


class Wish(msgspec.Struct, frozen=True, kw_only=True):
    """Which tasks a worker takes: for each key of the metadata some texts; the empty one is for "no such key"."""

    metadata: dict[str, tuple[str, ...]] = {}
    without: dict[str, tuple[str, ...]] = {}


class Given(msgspec.Struct, frozen=True, kw_only=True):
    """A task that a worker has just claimed."""

    id: str
    title: str
    prompt: str
    """its description, and what became of the attempt before"""
    attempt: str
    generation: int


def task_of(record: Record) -> Task:
    """The order as a task."""
    order, attempt, meta = record.order, record.attempt, record.order.metadata
    status, last = status_of(record), attempt.message if attempt else ""
    held = attempt is not None and (record.live or status in FINISHED)
    notes = _text(meta, "blocking_notes")
    if status in ASIDE and not notes:
        notes = record.question or record.message or last
    return Task(
        id=order.id, title=order.title, description=order.instruction, status=status, priority=order.priority,
        issue_type=order.issue_type,
        assignee=attempt.agent.removeprefix(SESSION) if attempt is not None and held else record.assignee,
        created_at=stamp_time(order.created_at), created_by=order.created_by, updated_at=stamp_time(record.updated_at),
        closed_at="" if record.settled_at is None else stamp_time(record.settled_at),
        parent_id=_text(meta, "parent_id"), discovered_from=_text(meta, "discovered_from"),
        blocking_notes=notes if status in ASIDE else "", result=last if status == "completed" else "",
        category=_text(meta, "category"), retries=record.failures, depends_on=order.depends_on,
        lost=sum(a.outcome == "lost" for a in record.attempts),
        dependencies=tuple(dependencies_of(order)), metadata=dict(meta),
    )  # fmt: skip


def status_of(record: Record) -> str:
    """What an issue tracker calls the state of an order."""
    if record.state is State.READY:
        if record.elsewhere in ASIDE:
            return record.elsewhere
        return "in_progress" if record.taken else "open"
    if record.state is State.FAILED:
        return "blocked"
    return _AT_WORK.get(record.state, "in_progress")


def dependencies_of(order: Order) -> list[dict[str, str]]:
    """What an order is connected with, as other programs write it."""
    found: dict[tuple[str, str], None] = {}
    raw = order.extra.get("dependencies")
    for entry in raw if isinstance(raw, list) else []:
        if isinstance(entry, Mapping) and isinstance(entry.get("depends_on_id"), str):
            found[entry["depends_on_id"], str(entry.get("type") or "blocks")] = None
        elif isinstance(entry, str):
            found[entry, "blocks"] = None
    found |= {(need, "blocks"): None for need in order.depends_on}
    return [{"depends_on_id": other, "type": kind} for other, kind in found]


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
        """Those that fit, by priority and age."""
        found, meta = await self._orders.seen(task_of), dict(metadata or {})
        for key, value in (("status", status), ("category", category), ("assignee", assignee)):
            found = [task for task in found if getattr(task, key) == value] if value else found
        if meta:
            found = [task for task in found if all(task.metadata.get(key) == value for key, value in meta.items())]
        return sorted(found, key=lambda task: task.priority)

    async def ready(self) -> list[Task]:
        """Open or in progress, and not blocked by one that is unfinished; by priority and age."""
        tasks = await self.all()
        unfinished = {task.id for task in tasks if not task.finished}
        return [t for t in tasks if t.status in ("open", "in_progress") and unfinished.isdisjoint(t.depends_on)]

    async def blocked(self) -> list[Task]:
        """Set aside, or waiting for one that is unfinished; by priority and age."""
        tasks = await self.all()
        unfinished = {task.id for task in tasks if not task.finished}
        return [t for t in tasks if not t.finished and (t.status in ASIDE or not unfinished.isdisjoint(t.depends_on))]

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
        await self._session.release(task.id, why, failed=failed, delay_s=delay_s)
        return await self.get(task.id)

    async def complete(self, name: str, result: str = "") -> Task:
        """Hand in what came of it; one that is free is claimed first. Harmless when it is completed already."""
        task = await self.get(name)
        if task.status == "completed":
            return task
        if task.status == "open":
            task = await self.claim(task.id)
        self._refuse_others(task)
        await self._session.finish(task.id, text=result or "done")
        return await self.get(task.id)

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
            await self._session.release(task.id, why, aside=status)
            return await self.get(task.id)

        def aside(record: Record) -> Mapping[str, Any]:
            if record.state is not State.READY:
                raise Refused(f"{record.order.id!r} is {status_of(record)}: it cannot be set aside")
            return {"status": status, "metadata": {"blocking_notes": why}}

        return await self._change(task.id, aside)

    async def _change(self, name: str, change: Any) -> Task:
        return task_of(await self._orders.change(name, change, actor=self.actor))

    def _refuse_others(self, task: Task) -> None:
        """Raise Refused unless we hold it ourselves: not another worker of our process."""
        if task.status != "in_progress" or task.assignee != self.actor:
            who = f"in progress by {task.assignee}" if task.status == "in_progress" else task.status
            raise Refused(f"{task.id!r} is {who}: {self.actor!r} does not hold it")


def _text(data: Mapping[str, Any], key: str) -> str:
    value = data.get(key)
    return "" if value is None else str(value)
