"""The door by which other processes of this machine speak to the controller."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any, Protocol

import msgspec

from shopfloor.domain.holder import Holder


class Caller(msgspec.Struct, frozen=True, kw_only=True):
    """One connection: a number that no other one gets, and the process at its other end, as the system tells it."""

    number: int
    pid: int = 0
    """0: the system does not say"""


class Callers(Protocol):
    """Tells the processes apart that may speak at the door."""

    def alive(self, holder: Holder) -> bool:
        """Whether a session that holds orders still lives."""
        ...

    def holder(self, name: str, pid: int) -> Holder:
        """A process of this machine as a session. Raises NotFound when there is none."""
        ...

    def token(self, attempt: str) -> str:
        """What only this attempt was given, so that it can show who it is."""
        ...

    def masked(self, text: str) -> str:
        """What is said, without the secrets that are known here: it goes into the log."""
        ...

    def below(self, pid: int, pids: Collection[int]) -> bool:
        """Whether a process is one of these, or was started by one, directly or through others."""
        ...


class Service(Protocol):
    """Who answers behind the door."""

    async def answer(self, caller: Caller, request: Mapping[str, Any]) -> Mapping[str, Any]:
        """The reply to one request. Raises ShopfloorError for what is refused; the caller is told."""
        ...

    async def gone(self, caller: Caller) -> None:
        """A connection has ended, whatever ended it."""
        ...


class Door(Protocol):
    """Takes connections. Each is answered one request at a time, so that none gets more than its turn."""

    async def open(self, service: Service) -> None:
        """Listen. Raises Refused when that is not possible."""
        ...

    async def close(self) -> None:
        """Hang up on everybody and take the door away; harmless when repeated."""
        ...
