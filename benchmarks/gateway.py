"""What the gateway adds to model calls, against direct ones to the same local server. `python -m benchmarks gateway`.

Workers and server are paced like agents and models: a model thinks before it answers and writes word by word, and
workers do not ask all at the same moment. Direct
and through the gateway take turns, pair by pair, in one run. How many calls pass when nobody has to think is shown too:
there the gateway's own work is all there is, so no bar can be held to it.
"""

from __future__ import annotations

import asyncio
import json
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple
from urllib.parse import urlsplit

from benchmarks.figures import Figure
from shopfloor.config.accounts import gateway_settings
from shopfloor.gateway.client import GatewayProcess
from shopfloor.gateway.words import Start
from shopfloor.ports import Limit
from shopfloor.spawn import Guard

ROOT = Path(__file__).resolve().parents[1]
WORKERS = 8
ROUNDS = 6
LATENCY_MS, LOSS = 5.0, 0.03
PROMPT = "a prompt of some length " * 800
EVENTS = 100
TEXT = {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": "words and words "}}
USAGE = {"input_tokens": 1000, "output_tokens": 100}
WHOLE = {
    "type": "message",
    "model": "claude-sonnet-4-5",
    "content": [{"type": "text", "text": "x" * 2000}],
    "usage": USAGE,
}


class Case(NamedTuple):
    """How the model answers, and how many calls each worker makes in a round. Seconds."""

    name: str
    stream: bool
    think: float
    word: float
    calls: int


CASES = (
    Case("whole answer after 500 ms", stream=False, think=0.5, word=0.0, calls=4),
    Case("stream of 100 events, 500 ms + 10 ms each", stream=True, think=0.5, word=0.01, calls=2),
)
FLAT_OUT = (
    Case("whole answer at once", stream=False, think=0.0, word=0.0, calls=100),
    Case("stream of 100 events at once", stream=True, think=0.0, word=0.0, calls=30),
)


class Took(NamedTuple):
    """One call: seconds to the first byte and in all, beyond what the model takes."""

    first: float
    total: float


# -- the model server, a process of its own ----------------------------------------------------------------------


def _frame(data: bytes) -> bytes:
    return b"%x\r\n%s\r\n" % (len(data), data)


def _event(document: object) -> bytes:
    return b"data: " + json.dumps(document).encode() + b"\n\n"


async def _serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    start, end = _event({"type": "message_start", "message": WHOLE}), _event({"type": "message_delta", "usage": USAGE})
    whole = json.dumps(WHOLE).encode()
    try:
        while True:
            head = await reader.readuntil(b"\r\n\r\n")
            length = int(head.lower().split(b"content-length:")[1].split(b"\r\n")[0])
            asked = json.loads(await reader.readexactly(length))
            began = asyncio.get_running_loop().time() + asked["think"]
            await _until(began)
            if asked["stream"]:
                kind = b"content-type: text/event-stream\r\ntransfer-encoding: chunked"
                writer.write(b"HTTP/1.1 200 OK\r\n" + kind + b"\r\n\r\n" + _frame(start))
                for number in range(EVENTS):
                    await _until(began + number * asked["word"])
                    writer.write(_frame(_event(TEXT)))
                writer.write(_frame(end) + b"0\r\n\r\n")
            else:
                kind = b"content-type: application/json\r\ncontent-length: %d" % len(whole)
                writer.write(b"HTTP/1.1 200 OK\r\n" + kind + b"\r\n\r\n" + whole)
            await writer.drain()
    except (asyncio.IncompleteReadError, ConnectionError):
        writer.close()


async def _until(moment: float) -> None:
    """The server keeps its own pace however late it was woken before."""
    if (rest := moment - asyncio.get_running_loop().time()) > 0:
        await asyncio.sleep(rest)


async def _server() -> None:
    server = await asyncio.start_server(_serve, "127.0.0.1", 0)
    print(server.sockets[0].getsockname()[1], flush=True)
    await asyncio.get_running_loop().run_in_executor(None, sys.stdin.read)


# -- the workers --------------------------------------------------------------------------------------------------


class Target(NamedTuple):
    """Where calls go: the server itself, or the gateway."""

    url: str
    token: str


async def _worker(target: Target, case: Case, number: int, found: list[Took]) -> None:
    await asyncio.sleep(case.think * number / WORKERS)
    parts = urlsplit(target.url)
    reader, writer = await asyncio.open_connection(parts.hostname, parts.port)
    asked = {
        "model": "claude-sonnet-4-5", "max_tokens": 100, "stream": case.stream, "think": case.think, "word": case.word,
        "messages": [{"role": "user", "content": PROMPT}],
    }  # fmt: skip
    body = json.dumps(asked).encode()
    head = f"POST {parts.path}/v1/messages HTTP/1.1\r\nhost: x\r\nx-api-key: {target.token}\r\n"
    head += f"content-type: application/json\r\ncontent-length: {len(body)}\r\n\r\n"
    ideal = case.think + (EVENTS - 1) * case.word if case.stream else case.think
    for _ in range(case.calls):
        began = time.perf_counter()
        writer.write(head.encode() + body)
        answer = (await reader.readuntil(b"\r\n\r\n")).lower()
        assert answer.startswith(b"http/1.1 200"), answer
        first = 0.0
        if b"chunked" in answer:
            size = 1
            while size:
                size = int(await reader.readline(), 16)
                await reader.readexactly(size + 2)
                first = first or time.perf_counter() - began
        else:
            await reader.readexactly(int(answer.split(b"content-length:")[1].split(b"\r\n")[0]))
            first = time.perf_counter() - began
        found.append(Took(first - case.think, time.perf_counter() - began - ideal))
    writer.close()
    await writer.wait_closed()


async def _round(target: Target, case: Case) -> tuple[list[Took], float]:
    """What each call took, and calls a second."""
    found: list[Took] = []
    began = time.perf_counter()
    await asyncio.gather(*(_worker(target, case, number, found) for number in range(WORKERS)))
    return found, len(found) / (time.perf_counter() - began)


class Pair(NamedTuple):
    """The same case both ways."""

    direct: list[Took]
    through: list[Took]
    rates: list[tuple[float, float]]
    """calls a second, round by round"""


async def _measure(direct: Target, through: Target, case: Case) -> Pair:
    pair = Pair([], [], [])
    for target in (direct, through):
        await _round(target, case._replace(calls=1))  # connections are open, code is warm
    for number in range(ROUNDS):
        order = (direct, through) if number % 2 else (through, direct)
        rates = {}
        for target in order:
            found, rates[target] = await _round(target, case)
            (pair.direct if target is direct else pair.through).extend(found)
        pair.rates.append((rates[direct], rates[through]))
    return pair


def _p95(values: list[float]) -> float:
    return sorted(values)[int(len(values) * 0.95)] * 1000


def _figures(case: Case, pair: Pair) -> Iterator[Figure]:
    for what, place in (("first", 0), ("last", 1)):
        before, after = _p95([took[place] for took in pair.direct]), _p95([took[place] for took in pair.through])
        added = max(0.0, after - before)
        yield Figure(
            name=f"added to the {what} byte, p95: {case.name}", value=added, unit="ms", bar=f"<= {LATENCY_MS:g} ms",
            baseline=before, ratio=after / before, ok=added <= LATENCY_MS,
        )  # fmt: skip
    ratio = statistics.median(through / direct for direct, through in pair.rates)
    yield Figure(
        name=f"calls of {WORKERS} workers: {case.name}", value=statistics.median(t for _, t in pair.rates), unit="/s",
        bar=f">= {1 - LOSS:.2f} of direct", baseline=statistics.median(d for d, _ in pair.rates), ratio=ratio,
        ok=ratio >= 1 - LOSS,
    )  # fmt: skip


def _shown(case: Case, pair: Pair) -> Figure:
    ratio = statistics.median(through / direct for direct, through in pair.rates)
    rates = statistics.median(t for _, t in pair.rates), statistics.median(d for d, _ in pair.rates)
    name = f"nobody thinks, {WORKERS} workers: {case.name}"
    return Figure(name=name, value=rates[0], unit="/s", baseline=rates[1], ratio=ratio)


async def _run(folder: Path) -> list[Figure]:
    figures: list[Figure] = []
    words = [sys.executable, "-m", "benchmarks.gateway"]
    server = await asyncio.create_subprocess_exec(
        *words, cwd=ROOT, stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE
    )
    assert server.stdin is not None
    assert server.stdout is not None
    try:
        url = f"http://127.0.0.1:{int(await server.stdout.readline())}"
        settings = gateway_settings({"accounts": {"main": {"dialect": "anthropic", "url": url, "key": "KEY"}}})
        async with Guard() as guard:
            start = Start(settings=settings, ledger=str(folder / "ledger.jsonl"))
            gateway = GatewayProcess(guard, start, environment={"KEY": "k" * 40}, folder=folder)
            limit = Limit(key="run:bench", usd=1e6)
            route = await gateway.open("wo-bench.a1", order="wo-bench", run="run-bench", limits=[limit])
            direct, through = Target(url, "x"), Target(route.url, route.token)
            for case in CASES:
                figures += _figures(case, await _measure(direct, through, case))
            figures += [_shown(case, await _measure(direct, through, case)) for case in FLAT_OUT]
            await gateway.close()
    finally:
        server.stdin.close()
        await server.wait()
    return figures


def run() -> list[Figure]:
    """The figures, and the same calls without the gateway beside them."""
    with tempfile.TemporaryDirectory() as folder:
        return asyncio.run(_run(Path(folder)))


if __name__ == "__main__":
    asyncio.run(_server())
