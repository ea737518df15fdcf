"""The door by which other processes of this machine speak to the controller."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

import msgspec


class Caller(msgspec.Struct, frozen=True, kw_only=True):
    """One connection: a number that no other one gets, and the process at its other end, as the system tells it."""

    number: int
    pid: int = 0
    """0: the system does not say"""


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
