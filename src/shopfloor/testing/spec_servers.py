r"""Imitation agent servers of the driver ``specs``: they validate, generate and verify specs without a model.

    python -m shopfloor.testing.spec_servers --ports 8080-8089 --latency 100 --log requests.jsonl

serves all these ports in one process until it is ended, and prints each address once all listen. The code is made from
the stack effect alone, and is really verified. `serving` does the same in a thread of this process.

    --latency MS       what /generate takes; --single: one request at a time at each port, health included
    --fault WHAT[=ID,ID…][@PORT,PORT…][+N]
                       what goes wrong: for these specs, at these ports, behind the first N specs. WHAT is one of 500,
                       hangup, hang, garbage (an answer that is no JSON), invalid (the spec), error (of the
                       generator), mismatch (code with another stack effect)
    --counts           the verifier takes bodies of words only, and counts a definition's own words as words that push;
                       /health says so
    --log FILE         each request as a line: {time, port, path, id, keys, status}; status 0: no answer
"""

from __future__ import annotations

import argparse
import asyncio
import importlib.util
import signal
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Any, cast

import msgspec

from shopfloor.testing.spec_answers import STEPS, Fault, Knobs

_encode = msgspec.json.Encoder().encode
_WHATEVER = b"this is no JSON"


class Request(msgspec.Struct):
    """A line of the log."""

    time: float
    port: int
    path: str
    id: str
    keys: tuple[str, ...]
    status: int = 0


class _Port:
    """One server."""

    def __init__(self, knobs: Knobs, log: Callable[[Request], None]) -> None:
        self.number = 0
        self.knobs = knobs
        self.log = log
        self.seen = 0
        """specs that were to be validated"""
        self.made: dict[str, deque[str]] = {}
        """which specs some code was made for"""
        self.links: set[_Link] = set()
        self.listener: asyncio.Server | None = None
        self._waiting: deque[tuple[_Link, str, bytes]] = deque()
        self._busy = False

    def stop(self) -> None:
        """As if it were killed: nobody listens, and every connection breaks."""
        if self.listener is not None:
            self.listener.close()
        for link in tuple(self.links):
            link.transport.abort()

    def asked(self, link: _Link, path: str, body: bytes) -> None:
        """A request has come."""
        if not self.knobs.single:
            self._work(link, path, body)
            return
        self._waiting.append((link, path, body))
        if not self._busy:
            self._next()

    def _next(self) -> None:
        while self._waiting and not self._busy:
            link, path, body = self._waiting.popleft()
            self._busy = self.knobs.single
            self._work(link, path, body)

    def _work(self, link: _Link, path: str, body: bytes) -> None:
        try:
            told = msgspec.json.decode(body) if body else {}
        except msgspec.DecodeError:
            told = None
        if not isinstance(told, dict):
            self._reply(link, None, 400, {"error": "the body is no JSON object"})
            return
        code = told.get("code")
        made_for = self.made.get(code) if path == "/verify" and isinstance(code, str) else None
        spec = made_for.popleft() if made_for else str(told.get("id", ""))
        if code is not None and not made_for:
            self.made.pop(code, None)
        request = Request(time.time(), self.number, path, spec, tuple(told))
        path = self._known(path)
        if path not in STEPS:
            self._reply(link, request, 404, None)
            return
        self.seen += path == "/spec/validate"
        fault = next((f.what for f in self.knobs.faults if f.meets(self.number, spec, self.seen)), "")
        if path == "/health" or (fault == "hang" and path != "/generate"):
            fault = ""
        if fault == "hang":
            self._reply(link, request, 0, None)
        elif fault == "hangup":
            link.transport.abort()
            self._reply(link, request, 0, None)
        elif fault == "500":
            self._reply(link, request, 500, {"error": "out of luck: 100% of the stack is used"})
        elif path == "/generate" and self.knobs.latency_ms:
            later = asyncio.get_running_loop().call_later
            later(self.knobs.latency_ms / 1000.0, self._answer, link, request, told, fault)
        else:
            self._answer(link, request, told, fault)

    def _answer(self, link: _Link, request: Request, told: dict[str, Any], fault: str) -> None:
        status, answer = STEPS[self._known(request.path)](self.knobs, told, fault)
        if isinstance(answer, dict) and "code" in answer:
            self.made.setdefault(answer["code"], deque()).append(request.id)
        self._reply(link, request, status, _WHATEVER if fault == "garbage" else answer)

    def _known(self, path: str) -> str:
        """The usual path of what is asked for."""
        others = self.knobs.paths
        return others.get(path, "" if path in others.values() else path)

    def _reply(self, link: _Link, request: Request | None, status: int, answer: object) -> None:
        if request is not None:
            request.status = status
            self.log(request)
        if status:
            link.reply(status, answer if isinstance(answer, bytes) else b"" if answer is None else _encode(answer))
        self._busy = False
        self._next()


class _Link(asyncio.Protocol):
    """One connection."""

    transport: asyncio.Transport

    def __init__(self, port: _Port) -> None:
        self._port = port
        self._held = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)  # that of uvloop is none by its class
        self._port.links.add(self)

    def connection_lost(self, exc: Exception | None) -> None:
        self._port.links.discard(self)

    def data_received(self, data: bytes) -> None:
        data = self._held + data if self._held else data
        while (end := data.find(b"\r\n\r\n") + 4) > 3:  # noqa: PLR2004 - found
            head = data[:end]
            size = _length(head)
            if len(data) < end + size:
                break
            path, body, data = head.split(b" ", 2)[1].decode("latin-1"), data[end : end + size], data[end + size :]
            self._port.asked(self, path, body)
        self._held = data

    def reply(self, status: int, body: bytes) -> None:
        """A whole answer."""
        if not self.transport.is_closing():
            self.transport.write(
                b"HTTP/1.1 %d .\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n%b"
                % (status, len(body), body)
            )


def _length(head: bytes) -> int:
    at = head.lower().find(b"content-length:")
    return int(head[at + 15 : head.index(b"\r", at)]) if at >= 0 else 0


class Servers:
    """Servers at work."""

    def __init__(self, knobs: Knobs, log: Path | None = None) -> None:
        self.requests: list[Request] = []
        """as they were answered; empty when they go to a file"""
        self.observers: list[Callable[[Request], object]] = []
        """called with each request, in the servers' own thread"""
        self._knobs = knobs
        self._ports: list[_Port] = []
        self._file = log.open("ab") if log else None
        self.loop: asyncio.AbstractEventLoop

    @property
    def urls(self) -> tuple[str, ...]:
        """Their addresses."""
        return tuple(f"http://127.0.0.1:{port.number}" for port in self._ports)

    async def listen(self, ports: Sequence[int]) -> None:
        """Open them all; port 0: any that is free. Raises OSError."""
        self.loop = asyncio.get_running_loop()
        for number in ports:
            port = _Port(self._knobs, self._note)
            port.listener = await self.loop.create_server(partial(_Link, port), "127.0.0.1", number, backlog=4096)
            port.number = port.listener.sockets[0].getsockname()[1]
            self._ports.append(port)

    def knob(self, **changes: Any) -> None:
        """Let all of them behave otherwise from now on: fields of `Knobs`; from any thread."""
        for port in self._ports:
            port.knobs = msgspec.structs.replace(port.knobs, **changes)

    def stop(self, place: int) -> None:
        """End one of them, as if it were killed; from any thread."""
        self.loop.call_soon_threadsafe(self._ports[place].stop)

    def close(self) -> None:
        """End all, in their own thread."""
        for port in self._ports:
            port.stop()
        if self._file is not None:
            self._file.close()
            self._file = None

    def _note(self, request: Request) -> None:
        for observer in self.observers:
            observer(request)
        if self._file is None:
            self.requests.append(request)
        else:
            self._file.write(_encode(request) + b"\n")

    def flush(self) -> None:
        """Let others read what was logged."""
        if self._file is not None:
            self._file.flush()


@contextmanager
def serving(
    count: int,
    *,
    latency_ms: float = 0.0,
    single: bool = False,
    counts: bool = False,
    faults: Sequence[str] = (),
    paths: Mapping[str, str] | None = None,
) -> Iterator[Servers]:
    """So many servers in a thread of this process, at ports that are free."""
    read = tuple(map(Fault.read, faults))
    knobs = Knobs(latency_ms=latency_ms, single=single, counts=counts, faults=read, paths=dict(paths or {}))
    servers = Servers(knobs)
    ready, done = threading.Event(), threading.Event()

    async def body() -> None:
        await servers.listen([0] * count)
        ready.set()
        await asyncio.to_thread(done.wait)
        servers.close()

    thread = threading.Thread(target=lambda: asyncio.run(body()), daemon=True)
    thread.start()
    ready.wait(10)
    try:
        yield servers
    finally:
        done.set()
        thread.join(10)


def _ports(text: str) -> list[int]:
    first, _, last = text.partition("-")
    return list(range(int(first), int(last or first) + 1))


async def _serve(options: argparse.Namespace) -> None:
    knobs = Knobs(latency_ms=options.latency, single=options.single, counts=options.counts, faults=tuple(options.fault))
    servers = Servers(knobs, options.log)
    ended = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, ended.set)
    await servers.listen(options.ports)
    print(*servers.urls, sep="\n", flush=True)
    while not ended.is_set():
        servers.flush()
        with suppress(TimeoutError):
            async with asyncio.timeout(0.05):
                await ended.wait()
    servers.close()


def main() -> None:
    """Listen until it is ended."""
    parser = argparse.ArgumentParser(description="Imitation agent servers for specs.")
    parser.add_argument("--ports", type=_ports, default=_ports("8080-8089"), metavar="8080-8089")
    parser.add_argument("--port", type=_ports, dest="ports", metavar="N", help="one")
    parser.add_argument("--count", type=lambda text: [0] * int(text), dest="ports", metavar="N", help="at free ports")
    parser.add_argument("--latency", type=float, default=0.0, metavar="MS")
    parser.add_argument("--single", action="store_true")
    parser.add_argument("--counts", action="store_true")
    parser.add_argument("--fault", type=Fault.read, action="append", default=[], metavar="WHAT[=ID,…][@PORT,…][+N]")
    parser.add_argument("--log", type=Path, metavar="FILE")
    options = parser.parse_args()
    factory = importlib.import_module("uvloop").new_event_loop if importlib.util.find_spec("uvloop") else None
    with asyncio.Runner(loop_factory=factory) as runner:
        runner.run(_serve(options))


if __name__ == "__main__":
    main()
