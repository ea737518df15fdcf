"""What the foreman is told of its crew before each turn: what is new since it was last told, each thing once."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from shopfloor.faces.foreman.pools import Routing
from shopfloor.faces.foreman.tasks import FINISHED, Task, Tasks
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
    """The memory of what was told. What had ended before this object was made is no news."""

    def __init__(self, tasks: Tasks) -> None:
        self._tasks = tasks
        self._told: dict[str, str] | None = None
        """issue -> the status that was told last"""
        self._lost: Counter[str] = Counter()
        self._troubles: list[str] = []

    async def begin(self) -> None:
        """Take what is there now as known; only the first call counts."""
        if self._told is None:
            found = await self._tasks.all()
            self._told = {task.id: task.status for task in found if task.status in FINISHED}
            self._lost.update({task.id: task.lost for task in found})

    def trouble(self, text: str) -> None:
        """Something about a worker (no mount plan, no session) that is told next, once."""
        if text not in self._troubles:
            self._troubles.append(text)

    async def block(self) -> str:
        """The words for the next turn; empty when nothing is going on and nothing is new."""
        await self.begin()
        assert self._told is not None  # it has begun
        found = await self._tasks.all()
        ended = [task for task in found if task.status in FINISHED and self._told.get(task.id) != task.status]
        lines = [
            *_named("orphaned: their worker ended, they are open again", self._orphans(found), MOST_ORPHANS),
            *_named("in progress", [t for t in found if t.status == "in_progress"], MOST_NAMED, owner=True),
            *_named("completed since you were last told", ended, MOST_NAMED, words=True),
            *_named("needs input: ask the user, then unblock", _at(found, _ASKING), MOST_QUESTIONS, words=True),
            *_named("blocked", self._fresh(_at(found, "blocked")), MOST_QUESTIONS, words=True),
            *(f"- worker trouble: {text}" for text in self._troubles),
        ]
        waiting = len(_at(found, "open"))
        self._told |= {task.id: task.status for task in found if task.status in (*FINISHED, "blocked")}
        for task in found:
            if task.status == "open":
                self._told.pop(task.id, None)
        self._troubles.clear()
        if waiting and lines:
            lines.append(f"- open, not begun: {waiting}")
        return "\n".join([HEAD, *lines]) if lines else ""

    def _fresh(self, found: Sequence[Task]) -> list[Task]:
        assert self._told is not None  # it has begun
        return [task for task in found if self._told.get(task.id) != task.status]

    def _orphans(self, found: Sequence[Task]) -> list[Task]:
        lost = [task for task in found if task.lost > self._lost[task.id]]
        self._lost.update({task.id: task.lost - self._lost[task.id] for task in lost})
        return [task for task in lost if task.status == "open"]


def _at(found: Sequence[Task], status: str) -> list[Task]:
    return [task for task in found if task.status == status]


def _named(what: str, found: Sequence[Task], most: int, *, owner: bool = False, words: bool = False) -> list[str]:
    if not found:
        return []
    lines = [f"- {what}: {len(found)}"]
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
        await tasks.block(task.id, f"failed {task.retries} times: its worker came to nothing")
        return ""
    pool = routing.pool_for(task, failed=True)
    if pool and pool != task.metadata.get("pool"):
        await tasks.update(task.id, metadata={"pool": pool}, comment=f"goes to {pool} after {task.retries} failures")
    return pool
