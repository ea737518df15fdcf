"""What the driver of agent servers does beyond the port's suite: with real connections to servers that misbehave."""

import asyncio
import json
import os
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

from shopfloor.agents._servers import Servers
from shopfloor.agents._transport import Client, Unreachable
from shopfloor.agents.http import HttpAgent
from shopfloor.domain.addresses import expanded
from shopfloor.domain.errors import Refused
from shopfloor.domain.order import Deliverable, Order
from shopfloor.ports import Handle, Kind, Launch, Profile, Report, Route
from shopfloor.spawn import Guard
from shopfloor.testing.scripted_server import serving

from .lab import Lab, row


@pytest.fixture
def lab(tmp_path: Path) -> Lab:
    return Lab(tmp_path)


OK = b"HTTP/1.1 200 OK\r\n"
Behave = Callable[["Peer", asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


class Peer:
    """A server that answers /health, and orders as it is told."""

    def __init__(self, behave: Behave) -> None:
        self.behave = behave
        self.orders: list[tuple[str, dict[str, Any]]] = []
        self.connections = 0
        self.heard = asyncio.Event()
        self.left = asyncio.Event()
        self.url = ""
        self._server: asyncio.Server | None = None
        self._writers: set[asyncio.StreamWriter] = set()

    async def listen(self) -> None:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.url = f"http://127.0.0.1:{self._server.sockets[0].getsockname()[1]}"

    def die(self) -> None:
        """Nobody listens any more, and every connection breaks."""
        assert self._server is not None
        self._server.close()
        for writer in self._writers:
            writer.transport.abort()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        self._writers.add(writer)
        try:
            while head := await reader.readuntil(b"\r\n\r\n"):
                lines = head.decode().split("\r\n")
                headers = {line.partition(":")[0]: line.partition(":")[2].strip() for line in lines[1:] if line}
                body = await reader.readexactly(int(headers["content-length"]))
                if lines[0].startswith("GET /health"):
                    writer.write(OK + b"content-length: 2\r\n\r\n{}")
                else:
                    self.orders.append((headers["idempotency-key"], json.loads(body)))
                    self.heard.set()
                    await self.behave(self, reader, writer)
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            self._writers.discard(writer)
            writer.transport.abort()


@asynccontextmanager
async def peers(*behaves: Behave) -> AsyncIterator[list[Peer]]:
    found = [Peer(behave) for behave in behaves]
    for peer in found:
        await peer.listen()
    try:
        yield found
    finally:
        for peer in found:
            peer.die()


def answers(body: bytes, kind: str = "application/json", status: bytes = OK) -> Behave:
    async def behave(peer: Peer, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = status + f"content-type: {kind}\r\ncontent-length: {len(body)}\r\n\r\n".encode()
        writer.write(head + body)

    return behave


async def hangs(peer: Peer, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await reader.read()
    peer.left.set()


def event(kind: str, **data: Any) -> bytes:
    line = json.dumps({"type": kind, "data": data}).encode() + b"\n"
    return b"%x\r\n%s\r\n" % (len(line), line)


STREAM = OK + b"content-type: application/x-ndjson\r\ntransfer-encoding: chunked\r\n\r\n"


async def dies(peer: Peer, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    writer.write(STREAM + event("step", step=1, action="look", cost_so_far=0.25))
    await writer.drain()
    peer.die()


def cut(times: int) -> Behave:
    async def behave(peer: Peer, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if len(peer.orders) <= times:
            writer.transport.abort()
            return
        await DONE(peer, reader, writer)

    return behave


DONE = answers(b'{"status": "success", "result": "done", "cost": {"total": 0.5, "tokens_in": 7, "tokens_out": 3}}')


def launch(folder: Path, *urls: str, number: int = 1, **changes: Any) -> Launch:
    workspace = folder / "workspace"
    workspace.mkdir(exist_ok=True)
    values: dict[str, Any] = {
        "order": Order(id="wo-abc", name="n", title="A title", deliverable=Deliverable.ANSWER),
        "attempt": f"wo-abc.a{number}",
        "profile": Profile(name="crew", driver="http", urls=urls, model="m"),
        "prompt": "how many?",
        "workspace": str(workspace),
        "branch": "shopfloor/n-abc",
        "directory": str(folder / f"attempt{number}"),
        "env": {},
        "secrets": ("sk-integration-0123",),
    }
    return Launch(**{**values, **changes})


@asynccontextmanager
async def agent(**more: Any) -> AsyncIterator[HttpAgent]:
    async with Guard() as guard:
        yield HttpAgent(guard, **more)


async def follow(subject: HttpAgent, handle: Handle) -> list[Report]:
    return [report async for report in subject.follow(handle)]


async def run(subject: HttpAgent, what: Launch) -> list[Report]:
    return await follow(subject, await subject.start(what))


async def test_an_order_is_sent_whole_and_its_answer_is_the_deliverable(tmp_path: Path) -> None:
    route = Route(url="http://127.0.0.1:1/w/x", token="tok-0123456789")
    async with peers(DONE) as (one,), agent() as subject:
        handle = await subject.start(launch(tmp_path, one.url, route=route))
        reports = await follow(subject, handle)
    assert handle.detail == {"url": one.url}
    ((key, order),) = one.orders
    assert key == "wo-abc.a1"
    assert {name: order[name] for name in ("order", "attempt", "prompt", "deliverable", "model")} == {
        "order": "wo-abc", "attempt": key, "prompt": "how many?", "deliverable": "answer", "model": "m",
    }  # fmt: skip
    assert (order["workspace"], order["route"]["token"]) == (str(tmp_path / "workspace"), "tok-0123456789")
    end = reports[-1]
    assert (end.status, end.text, end.exit_code) == ("completed", "done", None)
    assert (end.cost_usd, end.tokens_in, end.tokens_out) == (0.5, 7, 3)


@pytest.mark.parametrize(
    ("body", "kind", "status", "text"),
    [
        (b"42\n", "text/plain", "completed", "42\n"),
        (b'{"code": ": sq dup * ;", "success": true}', "application/json; charset=utf-8", "completed", ": sq dup * ;"),
        (b'{"success": false}', "application/json", "error", "it says that it failed"),
        (b'{"error": "no %s"}', "application/json", "error", "no %s"),
        (b'{"status": "LimitsExceeded"}', "application/json", "error", "it reached a limit of its own"),
        (b"{", "application/json", "error", "its answer says that it is JSON, and is none"),
        (b"", "application/json", "error", "its answer says that it is JSON, and is none"),
        (b" ", "text/plain", "error", "its answer says nothing of an end"),
        (b'{"type": "finish", "data": {"status": "success", "result": "r"}}', "application/json", "completed", "r"),
        (b'{"files": {"../x": "y"}}', "application/json", "error", "'../x' is no path inside of the workspace"),
        (b'{"files": {".git/config": "y"}}', "application/json", "error", "'.git/config' is no path inside of"),
        (b'{"files": {"a": 3}}', "application/json", "error", "the content of 'a' is no text"),
    ],
)
async def test_what_an_answer_means(body: bytes, kind: str, status: str, text: str, tmp_path: Path) -> None:
    async with peers(answers(body, kind)) as (one,), agent() as subject:
        end = (await run(subject, launch(tmp_path, one.url)))[-1]
    assert (end.kind, end.status) == (Kind.EXITED, status)
    assert end.text.startswith(text)
    assert list((tmp_path / "workspace").iterdir()) == []


async def test_the_files_of_an_answer_are_laid_into_the_workspace(tmp_path: Path) -> None:
    what = launch(tmp_path)
    (tmp_path / "workspace" / "old").write_text("old")
    (tmp_path / "workspace" / "out").symlink_to(tmp_path)
    body = json.dumps({"files": {"a/b.txt": "ä\n", "old": None}}).encode()
    bad = json.dumps({"files": {"new": "", "out/x": "y"}}).encode()
    async with peers(answers(body), answers(bad)) as (one, two), agent() as subject:
        good = await run(subject, launch(tmp_path, one.url))
        refused = await run(subject, launch(tmp_path, two.url, number=2))
    assert (good[-1].status, refused[-1].status) == ("completed", "error")
    assert "'out/x'" in refused[-1].text
    left = sorted(path.name for path in Path(what.workspace).iterdir())
    assert left == ["a", "out"]
    assert (Path(what.workspace) / "a" / "b.txt").read_text(encoding="utf-8") == "ä\n"


async def test_a_server_that_died_is_replaced_and_what_it_spent_counts(tmp_path: Path) -> None:
    async with peers(dies, DONE) as (one, two), agent() as subject:
        reports = await run(subject, launch(tmp_path, one.url, two.url))
    assert [key for peer in (one, two) for key, _ in peer.orders] == ["wo-abc.a1", "wo-abc.a1"]
    assert [r.kind for r in reports if r.kind is Kind.RETRYING] == [Kind.RETRYING]
    end = reports[-1]
    assert (end.status, end.text, end.cost_usd, end.data["url"]) == ("completed", "done", 0.75, two.url)


async def test_a_server_that_lives_is_asked_again_and_nobody_else(tmp_path: Path) -> None:
    # The first cut may mean that a kept connection was closed before; the second can not.
    async with peers(cut(2), DONE) as (one, two), agent() as subject:
        end = (await run(subject, launch(tmp_path, one.url, two.url)))[-1]
    assert (end.status, len(one.orders), len(two.orders)) == ("completed", 3, 0)


async def test_a_server_that_cuts_every_connection_fails_the_order_and_is_not_asked_for_ever(tmp_path: Path) -> None:
    async with peers(cut(99), DONE) as (one, two), agent() as subject:
        end = (await run(subject, launch(tmp_path, one.url, two.url)))[-1]
    # Twice on purpose, and each time once more because a kept connection may have been closed before.
    assert (end.status, len(one.orders) <= 4, len(two.orders)) == ("error", True, 0)
    assert "twice" in end.text


async def test_a_fault_of_a_server_moves_the_order_and_a_fault_of_the_order_does_not(tmp_path: Path) -> None:
    fault, refusal = (f"HTTP/1.1 {status} no\r\n".encode() for status in (500, 422))
    async with peers(answers(b"oh sk-integration-0123", status=fault), DONE) as (one, two), agent() as subject:
        reports = await run(subject, launch(tmp_path, one.url, two.url))
        assert (reports[-1].status, len(one.orders), len(two.orders)) == ("completed", 1, 1)
        (moved,) = [report for report in reports if report.kind is Kind.RETRYING]
        assert "answered 500: oh " in moved.text
        assert "sk-integration" not in moved.text
    async with peers(answers(b"no such model", status=refusal), DONE) as (one, two), agent() as subject:
        end = (await run(subject, launch(tmp_path, one.url, two.url)))[-1]
    assert (end.status, end.text, len(two.orders)) == ("error", "answered 422: no such model", 0)


async def test_tries_are_bounded(tmp_path: Path) -> None:
    fault = answers(b"", status=b"HTTP/1.1 503 busy\r\nretry-after: 0\r\n")
    async with peers(fault, fault) as (one, two), agent() as subject:
        end = (await run(subject, launch(tmp_path, one.url, two.url)))[-1]
    assert end.status == "error"
    assert "the last of 4 tries" in end.text
    assert len(one.orders) + len(two.orders) == 4


async def test_an_attempt_begins_when_a_server_is_free(tmp_path: Path) -> None:
    async with peers(hangs) as (one,), agent() as subject:
        first = await subject.start(launch(tmp_path, one.url))
        waiting = asyncio.create_task(subject.start(launch(tmp_path, one.url, number=2)))
        await one.heard.wait()
        assert not waiting.done()
        one.behave = DONE
        await subject.stop(first)
        end = (await follow(subject, await waiting))[-1]
        assert end.status == "completed"
        assert (await follow(subject, first))[-1].status == "killed"


async def test_a_start_that_was_given_up_leaves_its_server_to_others(tmp_path: Path) -> None:
    async with peers(hangs) as (one,), agent() as subject:
        first = await subject.start(launch(tmp_path, one.url))
        waiting = asyncio.create_task(subject.start(launch(tmp_path, one.url, number=2)))
        await one.heard.wait()
        waiting.cancel()
        await asyncio.wait({waiting})
        await subject.stop(first)
        one.behave = DONE
        assert (await run(subject, launch(tmp_path, one.url, number=3)))[-1].status == "completed"


async def test_stop_closes_the_connection(tmp_path: Path) -> None:
    async with peers(hangs) as (one,), agent() as subject:
        handle = await subject.start(launch(tmp_path, one.url))
        await one.heard.wait()
        await subject.stop(handle)
        await one.left.wait()
        assert (await follow(subject, handle))[-1].status == "killed"


async def test_stop_at_once_leaves_the_server_to_others(tmp_path: Path) -> None:
    async with peers(DONE) as (one,), agent() as subject:
        handle = await subject.start(launch(tmp_path, one.url))
        await subject.stop(handle)
        assert (await follow(subject, handle))[-1].status == "killed"
        assert (await run(subject, launch(tmp_path, one.url, number=2)))[-1].status == "completed"


async def test_nobody_there_is_told_with_address_and_reason(tmp_path: Path) -> None:
    async with agent(patience_s=0.0) as subject:
        with pytest.raises(Refused, match=r"no agent server answers \(http://127\.0\.0\.1:9: connection refused\)"):
            await subject.start(launch(tmp_path, "http://127.0.0.1:9"))
        with pytest.raises(Refused, match="agent 'crew' has no urls"):
            await subject.start(launch(tmp_path))
        probe = await subject.probe(Profile(name="crew", driver="http", urls=("ftp://x",)))
    assert "'ftp://x' is no address" in probe.problem


async def test_a_server_rests_longer_after_each_failure() -> None:
    now = [0.0]
    servers = Servers(["http://127.0.0.1:9"], clock=lambda: now[0])
    (server,) = servers.all
    rests = []
    for _ in range(9):
        servers._users += 1
        servers.give(server, failed="x")
        rests.append(server.rests_until)
    assert rests == [0.5, 1, 2, 4, 8, 16, 30, 30, 30]


async def test_a_connection_is_kept_and_a_closed_one_replaced() -> None:
    async def once(client: Client) -> bytes:
        async with client.request("POST", "/", b"{}", {"idempotency-key": "k"}) as answer:
            return await answer.body(100)

    async def closes(peer: Peer, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await answers(b"x")(peer, reader, writer)
        await writer.drain()
        writer.transport.abort()

    async with peers(answers(b"x"), closes) as (one, two):
        for peer, connections in ((one, 1), (two, 3)):
            client = Client(urlsplit(peer.url))
            for _ in range(3):
                assert await once(client) == b"x"
            assert (peer.connections, len(peer.orders)) == (connections, 3)
            client.close()


@pytest.mark.parametrize(
    ("raw", "why"),
    [
        (b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nabc", "its answer broke off"),
        (b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n5\r\nab", "its answer broke off"),
        (b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\nxyz\r\n", "its answer broke off"),
        (b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n-5\r\nabcde\r\n", "its answer broke off"),
        (b"HTTP/1.1 200 OK\r\ncontent-length: -4\r\n\r\n", "its answer broke off"),
        (b"HTTP/1.1 200 OK\r\ncontent-length: 999\r\n\r\n" + b"x" * 999, "its answer has more than 100 bytes"),
        (b"SSH-2.0-server\r\n", "its answer is not HTTP"),
        (b"HTTP/1.1 20x OK\r\n\r\n", "its answer is not HTTP"),
        (b"HTTP/1.1 200 OK\r\nx: " + b"y" * 99_000 + b"\r\n\r\n", "its answer is not HTTP"),
        (b"HTTP/1.1 200 OK\r\n" + b"x: yyyyyyyyyyyy\r\n" * 9_000 + b"\r\n", "its answer is not HTTP"),
        (b"", "it closed the connection without an answer"),
    ],
)
async def test_an_answer_that_is_none_is_unreachable(raw: bytes, why: str) -> None:
    async def says(peer: Peer, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(raw)
        writer.write_eof()
        await reader.read()

    async with peers(says) as (one,):
        client = Client(urlsplit(one.url))
        with pytest.raises(Unreachable, match=why):
            async with client.request("POST", "/", b"{}", {"idempotency-key": "k"}) as answer:
                await answer.body(100)


def test_ranges_of_ports_are_written_out() -> None:
    assert expanded(["http://h:8080-8082/", "https://x/y", "http://h:8081"]) == [
        "http://h:8080", "http://h:8081", "http://h:8082", "https://x/y",
    ]  # fmt: skip
    assert expanded(["http://[::1]:1-2/p"]) == ["http://[::1]:1/p", "http://[::1]:2/p"]


@pytest.mark.parametrize(
    "url",
    ["h:80", "http://", "ftp://h", "http://h:9-8", "http://h:0-5", "http://h:1-9000", "http://h:x", "http://h:99999"],
)
def test_an_address_that_is_off_is_named(url: str) -> None:
    with pytest.raises(ValueError, match=r"no address|no range"):
        expanded([url])


def test_servers_answer_orders_of_a_run(lab: Lab) -> None:
    asks = "```script\n[[do]]\nsay = 'forty-two'\n```\n"
    works = "```script\n[[do]]\nwrite = 'new.txt'\ncontent = 'x'\n```\n"
    env = {"PATH": os.environ["PATH"], "HOME": os.environ["HOME"]}
    with serving(env=env) as one, serving(env=env) as two:
        crew = {"crew": {"driver": "http", "urls": [one, two]}}
        report = lab.run(
            lab.prompt("asks", asks, deliverable="answer"), lab.prompt("works", works), agents=crew, agent="crew"
        )
    assert report.ok, [(line.name, line.message) for line in report.orders]
    assert (row(report, "asks").outcome, row(report, "works").outcome) == ("answered", "landed")
    assert row(report, "works").merge


def test_what_a_server_answered_is_why_an_order_failed(lab: Lab) -> None:
    with serving("--fail", "422", "--times", "9", env={"PATH": os.environ["PATH"]}) as url:
        crew = {"crew": {"driver": "http", "urls": [url]}}
        report = lab.run(lab.prompt("asks", "how many?", deliverable="answer"), agents=crew, agent="crew", retries=0)
    assert row(report, "asks").message == 'crew: answered 422: {"error": "scripted"}'
