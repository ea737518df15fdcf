"""An agent in this process that answers as its orders say, and a program around it that can be killed.

``answering.py FOLDER ORDERS FILE`` performs so many answers, or goes on with them, and writes to ``FILE`` what it was
told of as ended: name and answer, one a line.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, ClassVar

from shopfloor import Deliverable, PromptOrder, Shopfloor
from shopfloor.domain.errors import NotFound, Refused
from shopfloor.ports import Answered, Call
from shopfloor.testing.answering import OnlyAnswers


class Scripted(OnlyAnswers):
    """Answers with ``metadata["says"]``, one entry for each attempt; without one the order's name, backwards."""

    calls: ClassVar[list[str]] = []
    """attempts, as they began"""
    most: ClassVar[int] = 0
    """calls under way at once"""
    cancelled: ClassVar[list[str]] = []
    closed: ClassVar[int] = 0
    began: ClassVar[asyncio.Event | None] = None

    def __init__(self, guard: object, **more: Any) -> None:
        super().__init__(guard, **more)
        self.under_way = 0

    @classmethod
    def fresh(cls) -> type[Scripted]:
        """Without what earlier tests left."""
        cls.driver = f"{cls.__module__}:{cls.__qualname__}"
        cls.room, cls.most, cls.closed, cls.began = 8, 0, 0, None
        cls.calls, cls.cancelled = [], []
        return cls

    async def answer(self, call: Call) -> Answered:
        kind = type(self)
        kind.calls.append(call.attempt)
        self.under_way += 1
        kind.most = max(kind.most, self.under_way)
        try:
            if kind.began is not None:
                kind.began.set()
            says = call.order.metadata.get("says", [])
            how = says[call.generation - 1] if call.generation <= len(says) else {}
            if how.get("hangs"):  # until it is cancelled
                await asyncio.Event().wait()
            await asyncio.sleep(0)
            if how.get("raises"):
                raise Refused(how["raises"])
            if "failed" in how:
                return Answered(**how)
            data = {"url": "here", "timeout_s": call.timeout_s}
            return Answered(**({"text": call.order.name[::-1], "cost_usd": 0.01, "data": data} | how))
        except asyncio.CancelledError:
            kind.cancelled.append(call.attempt)
            raise
        finally:
            self.under_way -= 1

    async def close(self) -> None:
        type(self).closed += 1


def wish(name: str, *says: dict[str, Any], **fields: Any) -> PromptOrder:
    """An order for an answer."""
    known: dict[str, Any] = {"title": name, "instruction": "", "deliverable": Deliverable.ANSWER}
    return PromptOrder(name=name, metadata={"says": list(says), "spec": {"id": name}}, **(known | fields))


def flags(**more: object) -> dict[str, object]:
    """Settings with that agent."""
    return {"agents": {"scripted-answers": {"driver": Scripted.driver}}, "agent": "scripted-answers", **more}


async def _perform(folder: Path, number: int, file: Path) -> None:
    names = [f"spec-{n:04d}" for n in range(number)]

    def wishes() -> Iterator[PromptOrder]:
        yield from map(wish, names)

    with file.open("a", buffering=1) as told:
        async with Shopfloor.open(folder, without_git=True, flags=flags()) as floor:
            board = await floor.board(state="open")
            try:
                async for outcome in floor.outcomes(wishes(), resume=bool(board.runs)):
                    told.write(f"{outcome.order.name} {outcome.text}\n")
            except NotFound:
                return


if __name__ == "__main__":
    sys.modules["answering"] = sys.modules["__main__"]
    Scripted.__module__ = "answering"
    Scripted.fresh().room = 16
    asyncio.run(_perform(Path(sys.argv[1]), int(sys.argv[2]), Path(sys.argv[3])))
