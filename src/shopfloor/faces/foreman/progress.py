"""What the foreman is told of its crew before each turn: what is new since it was last told, each thing once."""

from __future__ import annotations

from collections.abc import Sequence

from shopfloor.faces.foreman.pools import Routing
from shopfloor.faces.foreman.task import Task, task_of
from shopfloor.faces.foreman.tasks import Tasks
from shopfloor.faces.foreman.words import short

MOST_ORPHANS = 5
MOST_QUESTIONS = 3
MOST_NAMED = 10
MOST_CHARS = 300
"""of a result or a question"""

_ASKING = "pending_user_input"

HEAD = "[crew]"
"""How the block begins, so that nobody takes it for words of the user."""


class Progress:
    """What was told of those that are unfinished. What had ended before this object was made is no news."""

    def __init__(self, tasks: Tasks) -> None:
        self._tasks = tasks
        self._ends = tasks.ends()
        self._blocked: set[str] = set()
        """those that were told of as blocked"""
        self._lost: dict[str, int] | None = None
        """issue -> how many workers it had lost when that was told; None: before the beginning"""
        self._troubles: list[str] = []

    async def begin(self) -> None:
        """Take what is there now as known; only the first call counts."""
        if self._lost is None:
            await self._ends.begin()
            self._lost = _losses(await self._tasks.unfinished())

    def trouble(self, text: str) -> None:
        """Something about a worker (no mount plan, no session) that is told next, once."""
        if text not in self._troubles:
            self._troubles.append(text)

    async def block(self) -> str:
        """The words for the next turn; empty when nothing is going on and nothing is new."""
        count, ended = 0, list[Task]()
        if self._lost is None:
            await self.begin()
        else:
            async for record in self._ends.new():
                count, ended = count + 1, sorted([*ended, task_of(record)], key=_priority)[:MOST_NAMED]
        found = await self._tasks.unfinished()
        lines = [
            *_named("orphaned: their worker ended, they are open again", self._orphans(found), MOST_ORPHANS),
            *_named("in progress", [t for t in found if t.status == "in_progress"], MOST_NAMED, owner=True),
            *_named("completed since you were last told", ended, MOST_NAMED, words=True, count=count),
            *_named("needs input: ask the user, then unblock", _at(found, _ASKING), MOST_QUESTIONS, words=True),
            *_named("blocked", self._fresh(_at(found, "blocked")), MOST_QUESTIONS, words=True),
            *(f"- worker trouble: {text}" for text in self._troubles),
        ]
        waiting = len(_at(found, "open"))
        known = {task.id for task in found if task.status != "open"}
        self._blocked = (self._blocked & known) | {task.id for task in _at(found, "blocked")}
        self._troubles.clear()
        if waiting and lines:
            lines.append(f"- open, not begun: {waiting}")
        return "\n".join([HEAD, *lines]) if lines else ""

    def _fresh(self, found: Sequence[Task]) -> list[Task]:
        return [task for task in found if task.id not in self._blocked]

    def _orphans(self, found: Sequence[Task]) -> list[Task]:
        known, self._lost = self._lost or {}, _losses(found)
        return [task for task in found if task.status == "open" and task.lost > known.get(task.id, 0)]


def _priority(task: Task) -> int:
    return task.priority


def _losses(found: Sequence[Task]) -> dict[str, int]:
    return {task.id: task.lost for task in found if task.lost}


def _at(found: Sequence[Task], status: str) -> list[Task]:
    return [task for task in found if task.status == status]


def _named(
    what: str, found: Sequence[Task], most: int, *, owner: bool = False, words: bool = False, count: int = 0
) -> list[str]:
    """The first so many of them; ``count``: how many there are, where not all of them are given."""
    if not found:
        return []
    lines = [f"- {what}: {count or len(found)}"]
    for task in found[:most]:
        said = (task.result or task.blocking_notes) if words else ""
        more = (f" ({task.assignee})" if owner and task.assignee else "") + (
            f": {short(said, MOST_CHARS)}" if said else ""
        )
        lines.append(f"  {task.id} {short(task.title, MOST_CHARS)}{more}")
    return lines


def worker_status(found: Sequence[Task]) -> dict[str, str]:
    """For each issue that a worker has begun: ``running``, ``completed``, ``failed`` or ``cancelled``."""
    words = {"in_progress": "running", "completed": "completed", "closed": "cancelled"}
    told = {task.id: words.get(task.status, "failed" if task.retries else "") for task in found}
    return {issue: word for issue, word in told.items() if word}


async def after_failure(tasks: Tasks, routing: Routing, name: str) -> str:
    """What becomes of an issue whose worker failed and gave it back: its pool anew, or set aside for a person.

    Returns the pool that takes it next, empty when it was set aside.
    """
    task = await tasks.get(name)
    if task.status != "open":
        return ""
    if routing.gives_up(task):
        await tasks.block(task.id, f"failed {task.retries} times, at last: {task.failure or 'nobody said why'}")
        return ""
    pool = routing.pool_for(task, failed=True)
    if pool and pool != task.metadata.get("pool"):
        await tasks.update(task.id, metadata={"pool": pool}, comment=f"goes to {pool} after {task.retries} failures")
    return pool
