"""A session of our own: what a mount plan's model does with its tools, in the shape that callers know sessions in."""

from __future__ import annotations

import logging
import secrets
from collections.abc import Mapping
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Protocol, Self

import msgspec

from shopfloor import Talk, Talks, UsageError
from shopfloor.faces.foreman.config import ISSUES, read_plan, whole_plan
from shopfloor.faces.foreman.tool import IssueTool

log = logging.getLogger(__name__)

FOREMAN_TURNS, WORKER_TURNS = 30, 0
"""What is remembered: a worker begins each issue afresh, so that its context does not grow."""
STEPS = 200
"""model calls in one turn, at most"""


class Session(Protocol):
    """What an orchestrator asks of a session, whoever made it."""

    @property
    def coordinator(self) -> Any:
        """``coordinator.get("context")`` has ``await add_message({"role", "content"})``."""
        ...

    async def execute(self, prompt: str) -> str:
        """The answer to a prompt."""
        ...

    async def __aenter__(self) -> Any: ...

    async def __aexit__(self, *error: object) -> Any: ...


class Seat(msgspec.Struct, frozen=True, kw_only=True):
    """Where a session of ours sits: what the mount plan does not say."""

    talks: Talks
    folder: Path
    environment: Mapping[str, str]
    tool: IssueTool
    foreman: bool


class Context:
    """The system messages of a session."""

    def __init__(self) -> None:
        self.messages: list[dict[str, str]] = []

    async def add_message(self, message: Mapping[str, Any]) -> None:
        """Only what the system says is kept: the conversation keeps the rest."""
        self.messages.append({"role": str(message.get("role", "")), "content": str(message.get("content", ""))})


class Coordinator:
    """Finds what is mounted."""

    def __init__(self) -> None:
        self._mounted: dict[str, Any] = {"context": Context()}

    def get(self, name: str) -> Any:
        """What is mounted under a name, or None."""
        return self._mounted.get(name)


class CrewSession:
    """``async with CrewSession(plan, seat=…) as session: answer = await session.execute("…")``."""

    def __init__(
        self, config: Mapping[str, Any], *, seat: Seat, session_id: str = "", parent_id: str | None = None, **_more: Any
    ) -> None:
        self.config = config
        self.session_id = session_id or f"session-{secrets.token_hex(6)}"
        self.parent_id = parent_id
        self.coordinator = Coordinator()
        self._seat = seat
        self._plan = read_plan(config, seat.environment)
        self._talk: Talk | None = None

    async def __aenter__(self) -> Self:
        """Raises UsageError for a plan without a model, and what the conversation cannot begin for."""
        plan, seat = self._plan, self._seat
        if not plan.model:
            hint = 'give it "provider" and "model" under "mounts", or "default_model" in its provider\'s config'
            raise UsageError("the mount plan names no model", hint=hint)
        if plan.unknown:
            log.warning("tools that are not there are left out: %s", ", ".join(plan.unknown))
        talk = await seat.talks.open(
            plan.model, folder=seat.folder, only=plan.tools, words=self._words, steps=STEPS,
            extras=[Issues(seat.tool)] if ISSUES in plan.tools else [],
            remembered=FOREMAN_TURNS if seat.foreman else WORKER_TURNS, environment=plan.access,
        )  # fmt: skip
        self._talk = await talk.__aenter__()
        return self

    async def __aexit__(self, *_error: object) -> None:
        talk, self._talk = self._talk, None
        if talk is not None:
            await talk.__aexit__(None, None, None)

    async def execute(self, prompt: str) -> str:
        """One turn, from the prompt to the answer. Raises ShopfloorError."""
        if self._talk is None:
            raise UsageError("the session is not open", hint="async with session: …")
        return await self._talk.turn(prompt)

    @property
    def spent(self) -> dict[str, Any]:
        """``usd`` (None: a price is not known), ``calls``, ``tokens_in``, ``tokens_out`` of all turns."""
        return {} if self._talk is None else msgspec.to_builtins(self._talk.spent)

    def _words(self) -> str:
        said = [message["content"] for message in self.coordinator.get("context").messages]
        return "\n\n".join(filter(None, [self._plan.system_prompt, *said]))


async def furnish(session: Session, seat: Seat, config: Mapping[str, Any]) -> None:
    """Give a session of ``amplifier_core`` what a mount plan of the short shape says, and its kernel has no place for.

    These are its standing orders; and, whatever the plan says, the folder to work in and the issues.
    """
    if isinstance(session, CrewSession):
        return
    session.coordinator.register_capability("session.working_dir", str(seat.folder))
    await session.coordinator.mount("tools", KernelTool(seat.tool), name=seat.tool.name)
    words, context = read_plan(config, {}).system_prompt, session.coordinator.get("context")
    if words and context is not None:
        await context.add_message({"role": "system", "content": words})


class Issues:
    """The issue tool, as a conversation takes tools."""

    def __init__(self, tool: IssueTool) -> None:
        self._tool = tool
        self.name, self.description, self.input_schema = tool.name, tool.description, tool.input_schema

    async def answer(self, call: Mapping[str, Any]) -> Any:
        """What the model is told of a call."""
        return (await self._tool.execute(call)).as_dict()


class KernelTool:
    """The issue tool, as sessions of ``amplifier_core`` take tools: its results are theirs."""

    def __init__(self, tool: IssueTool) -> None:
        self._tool = tool
        self._result: Any = import_module("amplifier_core").ToolResult
        self.name, self.description, self.input_schema = tool.name, tool.description, tool.input_schema

    async def execute(self, call: Mapping[str, Any]) -> Any:
        """What the model is told of a call: a ``ToolResult``."""
        return self._result(**(await self._tool.execute(call)).as_dict())


def default_session(config: Mapping[str, Any], *, loader: Any = None, seat: Seat | None = None, **more: Any) -> Session:
    """A session of ``amplifier_core`` where it is installed and the loader is one of its own; else one of ours."""
    if loader is not None and find_spec("amplifier_core") is not None:
        core: Any = import_module("amplifier_core")
        if isinstance(loader, core.ModuleLoader):
            given = {key: value for key, value in more.items() if value is not None}
            found: Session = core.AmplifierSession(whole_plan(config), loader=loader, **given)
            found.coordinator.loader = loader  # it is what loads the modules; some versions do not hand it on
            return found
    if seat is None:
        raise UsageError("a session of our own needs a seat", hint="it is made by ForemanWorkerOrchestrator")
    return CrewSession(config, seat=seat, **more)
