"""What the driver of servers that answer specs costs by itself. `python -m benchmarks fanout_transport`.

Ten imitation servers in a process of their own; the driver is asked directly, without a floor around it. Adaptive and
with time limits on, as it is used. CPU is that of this process alone. The baseline is the same with `aiohttp`, in the
plainest way: a session, ten requests under way at each server, no retries, no health, no limits that adapt.
"""

from __future__ import annotations

import asyncio
import importlib
import importlib.util
import itertools
import resource
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Coroutine, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import msgspec

from benchmarks.figures import Figure
from shopfloor.agents.specs import SpecsAgent
from shopfloor.domain.order import Deliverable, Order
from shopfloor.ports import Call, Profile
from shopfloor.spawn import Guard

ROOT = Path(__file__).resolve().parents[1]
SERVERS = 10
SPECS = 3000
LATENCIES_MS = (0, 10, 100)
BAR_MS = 0.2
TIMEOUT_S = 30.0
SPEC = {
    "id": "spec-1", "word": "square", "stack_effect": "( n -- n² )", "pattern_id": "DUP_TRANSFORM_001",
    "test_cases": [{"input": [5], "output": [25]}],
}  # fmt: skip


class Cost(NamedTuple):
    """Of all specs together."""

    cpu_s: float
    wall_s: float


@contextmanager
def servers(latency_ms: int, count: int = SERVERS) -> Iterator[list[str]]:
    """Imitation servers of their own process: their addresses."""
    words = [
        sys.executable,
        "-m",
        "shopfloor.testing.spec_servers",
        "--count",
        str(count),
        "--latency",
        str(latency_ms),
    ]
    with subprocess.Popen(words, cwd=ROOT, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            yield [process.stdout.readline().strip() for _ in range(count)]
        finally:
            process.terminate()


def _cpu() -> float:
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


async def _timed(work: Coroutine[Any, Any, None]) -> Cost:
    cpu, began = _cpu(), time.perf_counter()
    await work
    return Cost(_cpu() - cpu, time.perf_counter() - began)


async def _driver(urls: list[str], specs: int) -> Cost:
    profile = Profile(name="crew", driver="specs", urls=tuple(urls))
    calls = [_call(number, profile) for number in range(specs)]
    async with _agent() as agent:

        async def asks(waiting: Iterator[Call]) -> None:
            for call in waiting:
                answered = await agent.answer(call)
                assert not answered.failed, answered.failed

        async def all_of_them() -> None:
            waiting, tasks = iter(calls), set[asyncio.Task[None]]()
            # As the floor does: as many as the driver says, and more when it says more.
            while not tasks or not all(task.done() for task in tasks):
                for _ in range(min(specs, agent.capacity(profile)) - len(tasks)):
                    tasks.add(asyncio.create_task(asks(waiting)))
                await asyncio.wait(tasks, timeout=0.02)
            for task in tasks:
                task.result()

        return await _timed(all_of_them())


@asynccontextmanager
async def _agent() -> AsyncIterator[SpecsAgent]:
    async with Guard() as guard:
        agent = SpecsAgent(guard)
        yield agent
        await agent.close()


def _call(number: int, profile: Profile) -> Call:
    spec = SPEC | {"id": f"spec-{number}"}
    order = Order(
        id=f"wo-{number}", name=f"spec-{number}", title="t", deliverable=Deliverable.ANSWER,
        extra={"metadata": {"spec": spec, "number": number}},
    )  # fmt: skip
    return Call(order=order, attempt=f"wo-{number}.a1", generation=1, profile=profile, timeout_s=TIMEOUT_S)


async def _aiohttp(urls: list[str], specs: int) -> Cost:
    import aiohttp

    encode, decode = msgspec.json.encode, msgspec.json.decode
    limits = aiohttp.ClientTimeout(total=TIMEOUT_S)
    async with aiohttp.ClientSession(timeout=limits, connector=aiohttp.TCPConnector(limit=0)) as session:

        async def post(url: str, body: object) -> Any:
            async with session.post(url, data=encode(body), headers={"content-type": "application/json"}) as reply:
                return decode(await reply.read())

        async def asks(url: str, waiting: Iterator[int]) -> None:
            for number in waiting:
                spec = SPEC | {"id": f"spec-{number}"}
                await post(f"{url}/spec/validate", spec)
                made = await post(f"{url}/generate", spec)
                seen = await post(f"{url}/verify", {"code": made["code"], "effect": spec["stack_effect"]})
                assert seen["valid"]

        async def all_of_them() -> None:
            waiting = iter(range(specs))
            await asyncio.gather(*(asks(url, waiting) for url in urls for _ in range(10)))

        return await _timed(all_of_them())


def run() -> Iterator[Figure]:
    """CPU a spec, with and without uvloop, and how many specs a second."""
    loops = {"asyncio": None}
    if importlib.util.find_spec("uvloop"):
        loops["uvloop"] = importlib.import_module("uvloop").new_event_loop
    for latency_ms, (name, factory) in itertools.product(LATENCIES_MS, loops.items()):
        with servers(latency_ms) as urls:
            costs = []
            for way in (_driver, _aiohttp):
                with asyncio.Runner(loop_factory=factory) as runner:
                    costs.append(runner.run(way(urls, SPECS)))
        ours, theirs = costs
        value, baseline = (cost.cpu_s * 1000 / SPECS for cost in costs)
        yield Figure(
            name=f"CPU a spec, servers take {latency_ms} ms, {name}", value=value, unit="ms", bar=f"<= {BAR_MS} ms",
            ok=value <= BAR_MS, baseline=baseline, ratio=baseline / value,
        )  # fmt: skip
        yield Figure(
            name="  specs a second", value=SPECS / ours.wall_s, baseline=SPECS / theirs.wall_s,
            ratio=theirs.wall_s / ours.wall_s,
        )  # fmt: skip
