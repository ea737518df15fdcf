"""The tool ``issue_manager``: the crew's issues in the hands of a model. An issue is a work order of no run."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any

import msgspec

from shopfloor import ShopfloorError, UsageError
from shopfloor.faces.foreman.history import changes_of
from shopfloor.faces.foreman.pools import Routing
from shopfloor.faces.foreman.signals import EventRouter, Name
from shopfloor.faces.foreman.task import FINISHED, KINDS, STATUSES, Task, fits
from shopfloor.faces.foreman.tasks import Found, Tasks
from shopfloor.faces.foreman.words import (
    PRIORITIES,
    TYPES,
    Parameters,
    kind_of,
    priority_of,
    status_of,
    type_of,
)

MOST_LISTED = 100
"""issues in one answer, unless ``limit`` says otherwise: a model pays for each"""


class Failure(msgspec.Struct, frozen=True):
    """Why a call did nothing."""

    message: str


class ToolResult(msgspec.Struct, frozen=True, kw_only=True):
    """What a call gives back: ``output`` when it did what was asked, else ``error``."""

    success: bool
    output: dict[str, Any] | None = None
    error: Failure | None = None

    def as_dict(self) -> dict[str, Any]:
        """The same as plain data, for a model."""
        found: dict[str, Any] = msgspec.to_builtins(self)
        return {key: value for key, value in found.items() if value is not None}


Operation = Callable[[Parameters], Awaitable[dict[str, Any]]]


class IssueTool:
    """One worker's, or the foreman's: whoever ``tasks`` speaks for is the actor of all that is done with it."""

    name = "issue_manager"
    description = (
        "Manage the crew's issues. operation is one of: create, list, get, update, claim, release, complete, "
        "request_user_input, unblock, close, add_dependency, remove_dependency, get_ready, get_blocked, get_sessions, "
        "get_events. Ids may be cut short as long as they are unique."
    )

    def __init__(self, tasks: Tasks, *, routing: Routing | None = None, router: EventRouter | None = None) -> None:
        """``router`` is told of each issue that is created."""
        self.tasks = tasks
        self.routing = routing or Routing()
        self._router = router
        self.operations: dict[str, Operation] = {
            "create": self._create, "list": self._list, "get": self._get, "update": self._update,
            "close": self._close, "claim": self._claim, "release": self._release, "complete": self._complete,
            "request_user_input": self._ask, "unblock": self._unblock, "add_dependency": self._add_dependency,
            "remove_dependency": self._remove_dependency, "get_ready": self._ready, "get_blocked": self._blocked,
            "get_sessions": self._sessions, "get_events": self._events,
        }  # fmt: skip

    @property
    def input_schema(self) -> dict[str, Any]:
        """The JSON schema of a call, as models are given it."""
        return {"type": "object", "properties": _schema(list(self.operations)), "required": ["operation"]}

    async def execute(self, call: Mapping[str, Any]) -> ToolResult:
        """Do what is asked; what cannot be done is an answer with ``success`` False, never an exception."""
        try:
            operation = self.operations.get(str(call.get("operation", "")))
            if operation is None:
                what = f"there is no operation {call.get('operation')!r}"
                raise UsageError(what, hint=f"there are {', '.join(self.operations)}")
            output = await operation(Parameters(call, KNOWN))
        except ShopfloorError as problem:
            text = f"{problem.message} ({problem.hint})" if problem.hint else problem.message
            return ToolResult(success=False, error=Failure(text))
        return ToolResult(success=True, output=output)

    # -- making and finding -----------------------------------------------------------------------------------------

    async def _create(self, given: Parameters) -> dict[str, Any]:
        title, metadata = given.needed("title"), given.mapping("metadata")
        for key in ("category", "parent_id", "discovered_from", "assignee"):
            if given.text(key):
                metadata[key] = given.text(key)
        wish = _Wish(type_of(given.value("issue_type") or "task"), metadata)
        if pool := self.routing.pool_for(wish):
            metadata["pool"] = pool
        task = await self.tasks.create(
            title, given.text("description"),
            priority=priority_of(given.value("priority")) if given.has("priority") else 2,
            issue_type=wish.issue_type, depends_on=given.texts("depends_on"), metadata=metadata,
        )  # fmt: skip
        if self._router is not None:
            self._router.emit(Name.TASK_CREATED, {"task": task.id, "title": task.title, "by": self.tasks.actor})
        return {"issue": issue_of(task)}

    async def _get(self, given: Parameters) -> dict[str, Any]:
        return {"issue": issue_of(await self._named(given))}

    async def _list(self, given: Parameters) -> dict[str, Any]:
        status = status_of(given.value("status")) if given.has("status") else ""
        those = _wanted(given)
        found = await self.tasks.find(those, given.whole("limit", MOST_LISTED), status=status)
        return _shown_of("issues", found)

    async def _ready(self, given: Parameters) -> dict[str, Any]:
        return _listed("ready_issues", await self.tasks.ready(), given)

    async def _blocked(self, given: Parameters) -> dict[str, Any]:
        return _listed("blocked_issues", await self.tasks.blocked(), given)

    async def _sessions(self, given: Parameters) -> dict[str, Any]:
        sessions = await self.tasks.sessions(given.needed("issue_id"))
        return {"linked_sessions": sessions, "count": len(sessions)}

    async def _events(self, given: Parameters) -> dict[str, Any]:
        task = await self._named(given)
        events = changes_of(task.id, await self.tasks.events(task.id))[-given.whole("limit", MOST_LISTED) :]
        return {"events": events, "count": len(events)}

    # -- working on one ---------------------------------------------------------------------------------------------

    async def _claim(self, given: Parameters) -> dict[str, Any]:
        return {"issue": issue_of(await self.tasks.claim(given.needed("issue_id")))}

    async def _release(self, given: Parameters) -> dict[str, Any]:
        task = await self.tasks.release(given.needed("issue_id"), given.any("reason", "comment"))
        return {"issue": issue_of(task)}

    async def _complete(self, given: Parameters) -> dict[str, Any]:
        task = await self.tasks.complete(given.needed("issue_id"), given.any("result", "comment", "reason"))
        return {"issue": issue_of(task)}

    async def _ask(self, given: Parameters) -> dict[str, Any]:
        question = given.any("reason", "blocking_notes", "block_reason", "comment")
        if not question:
            raise UsageError("reason is missing, or is empty", hint="say what the user has to tell you")
        return {"issue": issue_of(await self.tasks.ask(given.needed("issue_id"), question))}

    async def _unblock(self, given: Parameters) -> dict[str, Any]:
        task = await self.tasks.unblock(given.needed("issue_id"), given.any("info", "comment", "reason"))
        return {"issue": issue_of(task)}

    async def _close(self, given: Parameters) -> dict[str, Any]:
        reason = given.any("reason", "result", "comment")
        return {"issue": issue_of(await self.tasks.close(given.needed("issue_id"), reason, force=given.yes("force")))}

    async def _update(self, given: Parameters) -> dict[str, Any]:
        name = given.needed("issue_id")
        if not given.has("status"):  # nothing has to be known of it first
            return {"issue": issue_of(await self.tasks.update(name, **_changes(given)))}
        status, task = status_of(given.value("status")), await self.tasks.get(name)
        if task.status in FINISHED and status not in FINISHED:
            text = f"{task.id} is {task.status}: what is finished is not opened again"
            raise UsageError(text, hint=f"create an issue with discovered_from {task.id}")
        moved = status != task.status
        if changes := _changes(given, moved=moved):
            task = await self.tasks.update(task.id, **changes)
        return {"issue": issue_of(await self._move(task, status, given) if moved else task)}

    async def _move(self, task: Task, status: str, given: Parameters) -> Task:
        """A new status, by the operation that means it."""
        name, tasks = task.id, self.tasks
        why = given.any("block_reason", "blocking_notes", "reason", "comment")
        if status == "in_progress":
            return await tasks.claim(name)
        if status == "open" and task.status == "in_progress":
            return await tasks.release(name, why)
        if status == "open":
            return await tasks.unblock(name, given.text("info"))
        if status == "blocked":
            return await tasks.block(name, why or "no reason was given")
        if status == "pending_user_input":
            return await tasks.ask(name, why or "no question was given")
        if status == "completed":
            return await tasks.complete(name, given.any("result", "comment", "reason"))
        return await tasks.close(name, given.any("reason", "result", "comment"))

    # -- what waits for what ----------------------------------------------------------------------------------------

    async def _add_dependency(self, given: Parameters) -> dict[str, Any]:
        start, end = given.needed("from_id"), given.needed("to_id")
        kind = kind_of(given.value("dependency_type") or given.value("issue_type") or "blocks")
        first, second = await self.tasks.get(start), await self.tasks.get(end)
        await self.tasks.add_dependency(first.id, second.id, kind)
        return {"dependency": {"from_id": first.id, "to_id": second.id, "dependency_type": kind}}

    async def _remove_dependency(self, given: Parameters) -> dict[str, Any]:
        first, second = await self.tasks.get(given.needed("from_id")), await self.tasks.get(given.needed("to_id"))
        await self.tasks.remove_dependency(first.id, second.id)
        return {"dependency": {"from_id": first.id, "to_id": second.id}, "removed": True}

    async def _named(self, given: Parameters) -> Task:
        return await self.tasks.get(given.needed("issue_id"))


def _wanted(given: Parameters) -> Callable[[Task], bool] | None:
    """The conditions of a list, None when there are none."""
    metadata = given.mapping("metadata")
    wanted: dict[str, object] = {key: given.text(key) for key in ("assignee", "category") if given.text(key)}
    if given.has("issue_type"):
        wanted["issue_type"] = type_of(given.value("issue_type"))
    if given.has("priority"):
        wanted["priority"] = priority_of(given.value("priority"))
    if not (wanted or metadata):
        return None
    return lambda task: (
        fits(task, metadata=metadata) and all(_shown(task, key) == value for key, value in wanted.items())
    )


def _changes(given: Parameters, *, moved: bool = False) -> dict[str, Any]:
    """The fields that an update sets; ``moved``: its status changes too, so that some words go with that."""
    changes: dict[str, Any] = {key: given.text(key) for key in ("title", "description") if given.has(key)}
    if given.has("priority"):
        changes["priority"] = priority_of(given.value("priority"))
    if given.has("issue_type"):
        changes["issue_type"] = type_of(given.value("issue_type"))
    metadata = given.mapping("metadata")
    for key in ("category", "parent_id", "discovered_from", *(() if moved else ("assignee",))):
        if given.has(key):
            metadata[key] = given.text(key)
    if metadata:
        changes["metadata"] = metadata
    if note := given.any("comment", *(() if moved else ("result", "blocking_notes", "block_reason"))):
        changes["comment"] = note
    return changes


class _Wish:
    """An issue before it is one, as routing looks at it."""

    def __init__(self, issue_type: str, metadata: dict[str, Any]) -> None:
        self.issue_type, self.metadata = issue_type, metadata
        self.status, self.retries = "open", 0


def _shown(task: Task, key: str) -> Any:
    """A field of its issue."""
    value = getattr(task, key)
    return value or str(task.metadata.get(key) or "") if key == "assignee" else value


def issue_of(task: Task) -> dict[str, Any]:
    """An issue as models and programs read it: every field, empty ones as null.

    Whom the foreman would like to have it is its ``assignee`` until somebody takes it.
    """
    found: dict[str, Any] = msgspec.to_builtins(task)
    found["assignee"] = _shown(task, "assignee")
    return {key: (None if value == "" else value) for key, value in found.items()}


def _listed(key: str, found: Sequence[Task], given: Parameters) -> dict[str, Any]:
    those = _wanted(given)
    fitting = [task for task in found if those is None or those(task)]
    return _shown_of(key, Found(fitting[: given.whole("limit", MOST_LISTED)], len(fitting)))


def _shown_of(key: str, found: Found) -> dict[str, Any]:
    left_out = found.count - len(found.tasks)
    more = {"left_out": left_out} if left_out else {}
    return {key: [issue_of(task) for task in found.tasks], "count": found.count, **more}


_TEXTS = {
    "issue_id": "which issue; a unique beginning will do", "title": "", "description": "", "assignee": "",
    "category": "which kind of worker takes it", "parent_id": "", "discovered_from": "", "comment": "",
    "reason": "why; the question of request_user_input", "result": "what came of it", "info": "what unblocks it",
    "blocking_notes": "", "block_reason": "", "from_id": "the issue that waits", "to_id": "the issue that it waits for",
}  # fmt: skip
_SILENT = ("session_id", "actor")
"""Words that other crews send along: who speaks is known."""

_OTHERS = ("status", "priority", "issue_type", "dependency_type", "depends_on", "metadata", "limit", "force")
KNOWN = frozenset((*_TEXTS, *_SILENT, *_OTHERS))


def _schema(operations: list[str]) -> dict[str, Any]:
    texts = {key: {"type": "string", **({"description": says} if says else {})} for key, says in _TEXTS.items()}
    return {
        "operation": {"type": "string", "enum": operations},
        **texts,
        "status": {"type": "string", "enum": list(STATUSES)},
        "priority": {"type": ["integer", "string"], "description": f"0 (highest) to 4, or {', '.join(PRIORITIES)}"},
        "issue_type": {"type": "string", "enum": list(TYPES)},
        "dependency_type": {"type": "string", "enum": list(KINDS)},
        "depends_on": {"type": "array", "items": {"type": "string"}},
        "metadata": {"type": "object"},
        "limit": {"type": "integer", "minimum": 1},
        "force": {"type": "boolean", "description": "close also what somebody else works on"},
        "params": {"type": "object", "description": "the same parameters, for those who nest them"},
    }
