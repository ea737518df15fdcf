"""A beginning for agents that only answer: they run no process here, and an attempt at an answer is one call.

class Echo(OnlyAnswers):
driver = "my_module:Echo"

async def answer(self, call: Call) -> Answered:
return Answered(text=call.order.name)
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from typing import ClassVar

from shopfloor.domain.errors import Refused
from shopfloor.ports import Answered, Call, Capabilities, Delivery, Handle, Launch, Probe, Profile, Report


class OnlyAnswers(ABC):
    """What there is to say of one beside its answers. A :class:`shopfloor.ports.Answering`."""

    driver: ClassVar[str]
    room: ClassVar[int] = 8
    """calls that may be under way at once"""
    capabilities: ClassVar[Capabilities] = Capabilities(cost=True)

    def __init__(
        self, _guard: object, *, environment: Mapping[str, str] | None = None, root: Path | None = None
    ) -> None:
        """As every driver is made."""
        del environment, root

    @abstractmethod
    async def answer(self, call: Call) -> Answered:
        """What came of a call."""

    def capacity(self, _profile: Profile) -> int:
        """Always the same."""
        return self.room

    async def close(self) -> None:  # noqa: B027 - most have nothing to let go of
        """Nothing is kept."""

    async def probe(self, profile: Profile) -> Probe:
        """It is always there."""
        return Probe(found=True, version=profile.name, capabilities=self.capabilities)

    async def start(self, launch: Launch) -> Handle:
        """Raises Refused: it has no process."""
        raise Refused(f"{launch.profile.name} only answers")

    async def follow(self, handle: Handle) -> AsyncIterator[Report]:
        """Nothing."""
        del handle
        reports: list[Report] = []
        for report in reports:
            yield report

    async def send(self, handle: Handle, text: str) -> Delivery:
        """Raises Refused: nobody listens."""
        raise Refused(f"{handle.attempt} cannot hear {text!r}")

    async def stop(self, handle: Handle) -> None:
        """Nothing is there to be stopped."""
        del handle
