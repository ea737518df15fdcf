"""One run of answers in a process of its own, and what it took: `python -m benchmarks._answers FOLDER ORDERS`."""

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec

from shopfloor import Deliverable, PromptOrder, Shopfloor
from shopfloor.ports import Answered, Call
from shopfloor.testing.answering import OnlyAnswers

_DATA = {"url": "http://127.0.0.1:8080", "validate_ms": 0.4, "generate_ms": 12.5, "verify_ms": 0.6}


class Echo(OnlyAnswers):
    """An agent in this process that answers at once."""

    driver = "benchmarks._answers:Echo"
    room = 256

    async def answer(self, call: Call) -> Answered:
        """The code for a spec, after everybody else has had a turn."""
        await asyncio.sleep(0)
        spec = call.order.metadata["spec"]
        return Answered(text=f": {spec['word']} {spec['stack_effect']} dup * ;", data=_DATA)


def wishes(number: int) -> Iterator[PromptOrder]:
    """So many specs of an ordinary size."""
    for n in range(number):
        spec = {
            "id": f"spec-{n:05d}", "word": f"square{n}", "stack_effect": "( n -- n² )",
            "pattern_id": "DUP_TRANSFORM_001",
            "test_cases": [{"input": [n], "output": [n * n]}, {"input": [-n], "output": [n * n]}],
        }  # fmt: skip
        yield PromptOrder(
            name=f"spec-{n:05d}", title=f"spec-{n:05d}", instruction="", deliverable=Deliverable.ANSWER,
            metadata={"spec": spec, "number": n},
        )  # fmt: skip


async def perform(folder: Path, number: int) -> dict[str, Any]:
    """What it took."""
    flags = {"agents": {"echo": {"driver": Echo.driver}}, "agent": "echo"}
    began, used = time.perf_counter(), time.process_time()
    ended = good = 0
    async with Shopfloor.open(folder, without_git=True, flags=flags) as floor:
        async for outcome in floor.outcomes(wishes(number)):
            ended += 1
            good += outcome.ok and outcome.text.startswith(": square") and bool(outcome.data)
    size = await asyncio.to_thread(lambda: (folder / ".work/events.jsonl").stat().st_size)
    return {
        "cpu_s": time.process_time() - used, "wall_s": time.perf_counter() - began, "ended": ended, "good": good,
        "log_mb": size / 1e6,
    }  # fmt: skip


if __name__ == "__main__":
    print(msgspec.json.encode(asyncio.run(perform(Path(sys.argv[1]), int(sys.argv[2])))).decode())
