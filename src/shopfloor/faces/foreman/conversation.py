"""A conversation with the foreman, line by line: words are his turns, a slash begins a command that needs no model."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any, Protocol

from shopfloor import Ends, NotFound, ShopfloorError
from shopfloor.faces.foreman.background import Background
from shopfloor.faces.foreman.pools import Routing
from shopfloor.faces.foreman.task import FINISHED, STATUSES, Task, task_of
from shopfloor.faces.foreman.tasks import Tasks
from shopfloor.faces.foreman.tool import IssueTool
from shopfloor.faces.foreman.words import short

MOST_KEPT = 200
"""lines of the conversation that are remembered"""
MOST_WAITING = 20
"""words that wait while he speaks"""
MOST_SHOWN = 40
"""issues in one answer"""
MOST_CHARS = 160
"""of a result or a question in a line"""
QUIET_S = 1.0
"""between two looks at what has become of the issues"""
RESTS, LONGEST_REST_S = 9.0, 5.0
"""how many times as long as a look took it rests, as with very many issues the crew needs the machine; and at most"""
LOOK_S = 30.0
"""how long one look waits for something new in the log"""

HELP = """what you type goes to the foreman; the crew works on meanwhile
/status             how many issues stand where, and who is at work
/tasks [STATUS]     the issues, or those of one status
/add WORDS          a new issue, without asking the foreman
/answer ID WORDS    answer the question of an issue, or help one that is stuck
/background [NAME]  the sessions beside the crew; with a name: that one has a turn now
/cost               what this conversation and its crew have cost so far
/quit               leave; the crew stops, and what it was at is open again
Ctrl-C              once: the foreman stops speaking; again: leave"""


class Crew(Protocol):
    """Who is talked with."""

    @property
    def tasks(self) -> Tasks:
        """The crew's issues."""
        ...

    async def execute_user_message(self, message: str) -> str:
        """One turn of the foreman."""
        ...

    @property
    def spent(self) -> Mapping[str, Any]:
        """What foreman and workers have cost so far: ``usd`` (None: not known), ``tokens_in``, ``tokens_out``."""
        ...

    @property
    def routing(self) -> Routing:
        """Which pool an issue is for."""
        ...

    @property
    def background(self) -> Background:
        """The sessions beside it."""
        ...


class Conversation:
    """``await conversation.hear(line)`` for each line; ``say`` is called with each answer and each piece of news."""

    def __init__(
        self, crew: Crew, *, say: Callable[[str], None], pause: Callable[[float], Awaitable[None]] = asyncio.sleep
    ) -> None:
        self.history: deque[tuple[str, str]] = deque(maxlen=MOST_KEPT)
        """who said what: you, the foreman, or the crew"""
        self._crew = crew
        self._say = say
        self._pause = pause
        self._waiting: deque[str] = deque()
        self._turn: asyncio.Task[str] | None = None
        self._speaking: asyncio.Task[None] | None = None
        self.unanswered = False
        """the newest words got no answer"""
        self._known: dict[str, tuple[str, str]] = {}
        """issue -> its status and pool"""
        self._commands: dict[str, Callable[[str], Awaitable[str]]] = {
            "/status": self._status, "/tasks": self._tasks, "/add": self._add, "/answer": self._answer,
            "/background": self._background, "/cost": self._cost, "/help": self._help,
        }  # fmt: skip

    # -- what is typed ----------------------------------------------------------------------------------------------

    async def hear(self, line: str) -> bool:
        """Take in one line; False: that was the wish to leave. Does not wait for the foreman's answer."""
        text = line.strip()
        if not text:
            return True
        self.history.append(("you", text))
        word, _, rest = text.partition(" ")
        if word in ("/quit", "/exit"):
            return False
        if word.startswith("/"):
            await self._command(word, rest.strip())
        elif len(self._waiting) >= MOST_WAITING:
            self._tell("crew", f"{MOST_WAITING} of your messages wait for the foreman already: wait for his answer")
        else:
            self._waiting.append(text)
            if self._speaking is None or self._speaking.done():
                self._speaking = asyncio.create_task(self._speak(), name="foreman")
        return True

    def interrupt(self) -> bool:
        """Have the foreman stop speaking, and forget what waits for him; False when he was silent."""
        self._waiting.clear()
        if self._turn is None or self._turn.done():
            return False
        return self._turn.cancel()

    async def answered(self) -> None:
        """Wait until nothing waits for the foreman any more."""
        while self._speaking is not None and not self._speaking.done():
            await asyncio.wait([self._speaking])

    async def close(self) -> None:
        """End the foreman's turn."""
        self.interrupt()
        await self.answered()

    async def _speak(self) -> None:
        while self._waiting:
            self._turn = asyncio.ensure_future(self._crew.execute_user_message(self._waiting.popleft()))
            try:
                await asyncio.wait([self._turn])
            finally:
                self._turn.cancel()
            self.unanswered = self._turn.cancelled() or self._turn.exception() is not None
            if self._turn.cancelled():
                self._tell("crew", "interrupted; the crew works on")
            elif (problem := self._turn.exception()) is not None:
                self._tell("crew", f"no answer: {_reason(problem)}")
            else:
                self._tell("foreman", self._turn.result())

    def tell(self, text: str) -> None:
        """News of the crew from elsewhere, e.g. why somebody cannot work."""
        self._tell("crew", text)

    def _tell(self, who: str, text: str) -> None:
        self.history.append((who, text))
        self._say(text if who == "foreman" else f"[{who}] {text}")

    # -- what becomes of the issues ---------------------------------------------------------------------------------

    async def watch(self) -> None:
        """Tell what is completed, asked, stuck, or handed to others as it happens, until cancelled.

        What was so before is no news.
        """
        tasks, after, trouble = self._crew.tasks, 0, ""
        ends = tasks.ends()
        await ends.begin()
        self._known = {task.id: _place(task) for task in await tasks.unfinished()}
        while True:
            try:
                end = await tasks.changed(after, LOOK_S)
                took_s = await self._look(ends) if end != after else 0.0
                after, trouble = end, ""
            except ShopfloorError as problem:  # e.g. a full disk: it is tried again
                took_s, known, trouble = LONGEST_REST_S, trouble, problem.message
                if trouble != known:
                    self._tell("crew", f"news cannot be heard: {trouble}")
            if took_s:
                await self._pause(min(LONGEST_REST_S, max(QUIET_S, RESTS * took_s)))

    async def _look(self, ends: Ends) -> float:
        """Tell what is new; how many seconds that took."""
        clock = asyncio.get_running_loop().time
        began = clock()
        async for record in ends.new():
            self._news(task_of(record))
        for task in (found := await self._crew.tasks.unfinished()):
            self._news(task)
        self._known = {task.id: _place(task) for task in found}
        return clock() - began or QUIET_S

    def _news(self, task: Task) -> None:
        place, known = _place(task), self._known.get(task.id)
        if known is not None and place[1] != known[1]:
            self._tell("crew", f"{_line(task)} goes to {_short(place[1])}")
        if known is not None and place[0] == known[0]:
            return
        if task.status in FINISHED:
            self._tell("crew", f"{task.status}: {_line(task)}" + (f": {_short(task.result)}" if task.result else ""))
        elif task.status == "pending_user_input":
            self._tell("crew", f"{_line(task)} asks: {_short(task.blocking_notes)}\n  type: /answer {task.id} WORDS")
        elif task.status == "blocked":
            self._tell("crew", f"stuck: {_line(task)}: {_short(task.blocking_notes)}\n  type: /answer {task.id} WORDS")

    # -- commands ---------------------------------------------------------------------------------------------------

    async def _command(self, word: str, rest: str) -> None:
        command = self._commands.get(word)
        if command is None:
            self._say(f"there is no command {word}; type /help")
            return
        try:
            self._say(await command(rest))
        except ShopfloorError as problem:
            self._say(f"{problem.message}" + (f"\n  {problem.hint}" if problem.hint else ""))

    async def _help(self, _rest: str) -> str:
        return HELP

    async def _status(self, _rest: str) -> str:
        found, counts = await self._crew.tasks.unfinished(), await self._crew.tasks.counts()
        told = ", ".join(f"{counts[status]} {status}" for status in STATUSES if counts[status])
        speaks = "the foreman is speaking" if self._turn is not None and not self._turn.done() else ""
        lines = [told or "there are no issues yet", *filter(None, [speaks])]
        lines += [f"  {task.assignee}: {_line(task)}" for task in found if task.status == "in_progress"][:MOST_SHOWN]
        lines += _questions(found)
        return "\n".join(lines)

    async def _tasks(self, rest: str) -> str:
        if rest and rest not in STATUSES:
            return f"there is no status {rest!r}; there are {', '.join(STATUSES)}"
        found = await self._crew.tasks.find(None, MOST_SHOWN, status=rest)
        lines = [f"  {task.status:<18} {_line(task)}" for task in found.tasks]
        more = [f"  and {found.count - MOST_SHOWN} more"] if found.count > MOST_SHOWN else []
        return "\n".join([*lines, *more]) or "there are none"

    async def _add(self, rest: str) -> str:
        if not rest:
            return "type: /add WORDS"
        title = _short(rest)
        tool = IssueTool(self._crew.tasks, routing=self._crew.routing)
        made = await tool.execute({"operation": "create", "title": title, "description": rest if title != rest else ""})
        if made.error is not None:
            return made.error.message
        issue = (made.output or {})["issue"]
        begins = "\nthe crew begins with your first message" if self._turn is None else ""
        return f"added {issue['id']} {_short(issue['title'])}{begins}"

    async def _answer(self, rest: str) -> str:
        name, _, words = rest.partition(" ")
        if not name or not words.strip():
            found = _questions(await self._crew.tasks.unfinished())
            return "\n".join(["type: /answer ID WORDS", *(found or ["  nobody asks anything now"])])
        try:
            task = await self._crew.tasks.unblock(name, words.strip())
        except NotFound:
            found = _questions(await self._crew.tasks.unfinished())
            return "\n".join([f"there is no issue {name!r}", *(found or ["  nobody asks anything now"])])
        return f"{_line(task)} goes on with your answer"

    async def _background(self, rest: str) -> str:
        if rest:
            self._crew.background.trigger(rest)
            return f"{rest} has a turn now"
        lines = [f"  {_beside(name, state)}" for name, state in self._crew.background.status().items()]
        return "\n".join(lines) or "there are none; those of the crew's file begin with your first message"

    async def _cost(self, _rest: str) -> str:
        spent = self._crew.spent
        if not spent:
            return "nothing is known of what was spent"
        usd = spent.get("usd")
        price = "the price is not known" if usd is None else f"${usd:.4f}"
        return f"{price}; {spent.get('tokens_in', 0):,} tokens in, {spent.get('tokens_out', 0):,} tokens out"


def _questions(found: Sequence[Task]) -> list[str]:
    asking = [task for task in found if task.status == "pending_user_input"]
    stuck = [task for task in found if task.status == "blocked"]
    return [
        *(f"  {_line(task)} asks: {_short(task.blocking_notes)}" for task in asking[:MOST_SHOWN]),
        *(f"  {_line(task)} is stuck: {_short(task.blocking_notes)}" for task in stuck[:MOST_SHOWN]),
    ]


def _beside(name: str, state: Mapping[str, Any]) -> str:
    """A session beside the crew in one line."""
    words = [f"{name} ({state['trigger']})", "1 turn" if state["turns"] == 1 else f"{state['turns']} turns"]
    words += ["at work"] if state["at_work"] else []
    words += [f"{state['failures']} failures in a row"] if state["failures"] else []
    words += [f"left alone; /background {name} has it try again"] if state["given_up"] else []
    return ", ".join(words)


def _place(task: Task) -> tuple[str, str]:
    return task.status, str(task.metadata.get("pool") or "")


def _line(task: Task) -> str:
    return f"{task.id} {_short(task.title)}"


def _short(text: str) -> str:
    return short(text, MOST_CHARS)


def _reason(problem: BaseException) -> str:
    if isinstance(problem, ShopfloorError) and problem.hint:
        return f"{problem.message} ({problem.hint})"
    return str(problem) or type(problem).__name__
