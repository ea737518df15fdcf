"""What an attempt is executed with, and the strings that the outside holds while it is under way."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping

import msgspec

from shopfloor.domain.errors import Refused
from shopfloor.engine.toll import Toll
from shopfloor.ports import Agent, Clock, Delivery, Fact, Handle, Job, Launch, Workspace, Workspaces

Emit = Callable[[Fact], Awaitable[None]]


class Tools(msgspec.Struct, frozen=True, kw_only=True):
    """What an attempt is executed with."""

    agents: Mapping[str, Agent]
    workspaces: Workspaces
    clock: Clock
    launch: Callable[[Job, Workspace], Launch]
    """adds folder, environment and secrets"""
    memory: Callable[[Handle], int]
    """bytes that the agent and its descendants use now"""
    setup_log: Callable[[Job], str]
    toll: Toll | None = None
    """the gateway; None: there is none, and no attempt goes through it"""


class Control:
    """The strings that the outside holds: stop it, talk to it."""

    def __init__(self, note: Callable[[str, str, Delivery], None]) -> None:
        """``note`` is told of an attempt what was said to its agent, and what became of it."""
        self.note = note
        self.reason = ""
        self.stopped = False
        self._asked: asyncio.Event | None = None
        self.interrupt: Callable[[], object] | None = None
        """ends a call under way"""
        self.handle: Handle | None = None
        self.agent: Agent | None = None

    @property
    def asked(self) -> asyncio.Event:
        """Set when its end is asked for. Made when somebody waits: of calls there are very many, and nobody does."""
        if self._asked is None:
            self._asked = asyncio.Event()
            if self.stopped:
                self._asked.set()
        return self._asked

    def stop(self, reason: str) -> None:
        """Ask for its end; the first reason stands."""
        if not self.reason:
            self.reason = reason
        self.stopped = True
        if self._asked is not None:
            self._asked.set()
        if self.interrupt is not None:
            self.interrupt()

    async def send(self, attempt: str, text: str) -> Delivery:
        """Say something to the agent. Raises Refused when it has not started, or cannot listen."""
        if self.agent is None or self.handle is None:
            raise Refused(f"attempt {attempt!r} has not started its agent yet", hint="try again in a moment")
        delivery = await self.agent.send(self.handle, text)
        self.note(attempt, text, delivery)
        return delivery
