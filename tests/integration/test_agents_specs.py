"""What the driver of servers that answer specs does: with real connections to servers that may misbehave."""

import asyncio
import json
import os
import resource
import socket
import subprocess
import sys
from collections import Counter
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager, suppress
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import msgspec
import pytest

from shopfloor.agents._connections import Connections, Late, Room, connections_at_most
from shopfloor.agents._pool import Pool
from shopfloor.agents._spec_server import Server
from shopfloor.agents._steps import body_of
from shopfloor.agents._transport import Unreachable
from shopfloor.agents.specs import PATHS, SpecsAgent
from shopfloor.domain.errors import Refused
from shopfloor.domain.order import Deliverable, Order
from shopfloor.domain.servers import Limit
from shopfloor.ports import Answered, Answering, Call, Profile
from shopfloor.spawn import Guard
from shopfloor.testing.spec_servers import Servers, serving
from shopfloor.testing.stack_effect import fits

from .engine_lab import until_true
from .lab import Lab, row


@pytest.fixture
def lab(tmp_path: Path) -> Lab:
    return Lab(tmp_path)


STEPS = ["/spec/validate", "/generate", "/verify"]


def spec(number: int, **changes: Any) -> dict[str, Any]:
    whole = {
        "id": f"spec-{number}", "word": "square", "stack_effect": "( n -- n² )", "pattern_id": "DUP_TRANSFORM_001",
        "test_cases": [{"input": [3], "output": [9]}],
    }  # fmt: skip
    return whole | changes


def call(number: int, profile: Profile, *, timeout_s: float | None = 30.0, **changes: Any) -> Call:
    order = Order(
        id=f"wo-{number}", name=f"spec-{number}", title="t", deliverable=Deliverable.ANSWER,
        extra={"metadata": {"spec": spec(number, **changes), "number": number}},
    )  # fmt: skip
    return Call(order=order, attempt=f"wo-{number}.a1", generation=1, profile=profile, timeout_s=timeout_s)


def crew(urls: Sequence[str], **more: Any) -> Profile:
    return Profile(name="crew", driver="specs", urls=tuple(urls), **more)


@asynccontextmanager
async def agent(patience_s: float = 15.0) -> AsyncIterator[SpecsAgent]:
    async with Guard() as guard:
        yield SpecsAgent(guard, patience_s=patience_s)


async def run(subject: Answering, profile: Profile, count: int, **more: Any) -> list[Answered]:
    return await asyncio.gather(*(subject.answer(call(number, profile, **more)) for number in range(count)))


def asked(servers: Servers) -> dict[int, list[str]]:
    """The paths of each spec's requests, in order."""
    found: dict[int, list[str]] = {}
    for request in servers.requests:
        if request.path != "/health":
            found.setdefault(int(request.id.rpartition("-")[2]), []).append(request.path)
    return found


async def test_each_spec_is_asked_for_in_three_steps_with_the_keys_that_are_agreed() -> None:
    with serving(2) as servers:
        async with agent() as subject:
            found = await run(subject, crew(servers.urls), 20)
        assert asked(servers) == dict.fromkeys(range(20), STEPS)
        keys = {request.path: request.keys for request in servers.requests if request.path != "/health"}
    whole = ("id", "word", "stack_effect", "pattern_id", "test_cases")
    assert keys == {"/spec/validate": whole, "/generate": whole, "/verify": ("code", "effect")}
    for answered in found:
        assert (answered.failed, answered.data["tests"]) == ("", ["T{ 3 square -> 9 }T"])
        assert fits(answered.text, "( n -- n² )")[0]
        phases = sum(answered.data[name] for name in ("validate_ms", "generate_ms", "verify_ms"))
        assert answered.data["latency_ms"] == pytest.approx(phases, abs=0.01)
        assert answered.data["url"] in servers.urls
        assert "tries" not in answered.data


async def test_a_spec_that_is_none_is_not_generated() -> None:
    with serving(1, faults=["invalid=spec-1"]) as servers:
        async with agent() as subject:
            profile = crew(servers.urls)
            bad = await subject.answer(call(1, profile))
            worse = await subject.answer(call(2, profile, stack_effect="n -- n"))
        assert asked(servers) == {1: STEPS[:1], 2: STEPS[:1]}
    assert (bad.failed, bad.final) == ("Invalid specification", True)
    assert worse.failed == "Invalid specification: 'n -- n' is no stack effect such as ( n -- n )"


async def test_failures_are_told_in_the_words_of_the_server() -> None:
    with serving(1, faults=["error=spec-1", "mismatch=spec-2"]) as servers:
        async with agent() as subject:
            _, first, second, third = await run(subject, crew(servers.urls), 4)
    assert (first.failed, first.final) == ("no pattern for square: 0% of 12 fit", False)
    assert (second.failed, second.final) == ("Stack effect mismatch: it does ( x -- x x ), not ( x -- x )", True)
    assert (second.text, second.data["code"]) == ("", ": square ( n -- n² ) dup * dup ;")
    assert third.failed == ""


async def test_ten_servers_get_ten_specs_each_by_their_number() -> None:
    with serving(10, latency_ms=5) as servers:
        async with agent() as subject:
            await run(subject, crew(servers.urls, in_flight=2), 100)
        ports = [urlsplit(url).port for url in servers.urls]
        for request in servers.requests:
            if request.path != "/health":
                assert request.port == ports[int(request.id.rpartition("-")[2]) % 10]


async def test_servers_with_one_thread_answer_all_although_each_has_more_than_its_time() -> None:
    # Seconds as milliseconds, as it were: 100 ms for each spec, ten at each server, 300 ms for a request.
    with serving(10, latency_ms=100, single=True) as servers:
        async with agent() as subject:
            found = await run(subject, crew(servers.urls), 100, timeout_s=0.3)
    assert [answered.failed for answered in found if answered.failed] == []
    assert max(answered.data["latency_ms"] for answered in found) > 300


async def test_a_server_that_hangs_is_left_when_the_time_is_over() -> None:
    with serving(2, faults=["hang=spec-0,spec-3"]) as servers:
        async with agent() as subject:
            found = await run(subject, crew(servers.urls), 6, timeout_s=0.2)
    assert [bool(answered.failed) for answered in found] == [True, False, False, True, False, False]
    assert found[0].timed_out
    assert found[0].failed == f"{servers.urls[1]}: no answer to POST /generate within 0.2 s (the last of 2 tries)"


async def test_a_narrow_limit_is_kept_also_by_a_request_that_had_to_wait_for_its_server() -> None:
    with serving(2, latency_ms=250) as servers:
        async with agent() as subject:
            found = await run(subject, crew(servers.urls, in_flight=1), 4, timeout_s=0.1)
    assert [answered.text for answered in found if answered.text] == []


async def test_one_of_ten_is_killed_and_one_answers_500_half_way_and_nothing_is_lost_or_doubled() -> None:
    with serving(10, latency_ms=20, faults=["500"]) as broken, serving(9, latency_ms=20) as servers:
        urls = (*servers.urls, broken.urls[0])
        ended: list[int] = []

        async def one(number: int, subject: SpecsAgent) -> Answered:
            answered = await subject.answer(call(number, crew(urls, in_flight=4)))
            ended.append(number)
            if len(ended) == 100:
                servers.stop(3)
            return answered

        async with agent() as subject:
            found = await asyncio.gather(*(one(number, subject) for number in range(200)))
    assert Counter(ended) == dict.fromkeys(range(200), 1)
    assert [answered.failed for answered in found if answered.failed] == []
    moved = [answered.data for answered in found if "moved_from" in answered.data]
    assert {urls[9]} < {url for data in moved for url in data["moved_from"]}
    assert not {data["url"] for data in moved} & {urls[9]}
    # Who was answered by the killed server was answered before.
    assert {answered.data["url"] for answered in found} == set(urls[:9])


async def test_strict_leaves_the_specs_of_a_dead_server_to_nobody_else() -> None:
    with serving(3) as servers:
        urls = servers.urls
        servers.stop(1)
        async with agent(patience_s=0.0) as subject:
            found = await run(subject, crew(urls, policy="strict"), 9)
        ports = {request.port for request in servers.requests if request.path != "/health"}
    assert [not answered.failed for answered in found] == [number % 3 != 1 for number in range(9)]
    dead = (f"no agent server answers ({urls[1]}: connection {how})" for how in ("refused", "reset by peer"))
    assert found[1].failed in dead
    assert not found[1].final
    assert ports == {urlsplit(urls[0]).port, urlsplit(urls[2]).port}


async def test_a_slow_server_keeps_what_it_has_begun_and_others_take_the_rest() -> None:
    with serving(1, latency_ms=700, single=True) as slow, serving(3) as quick:
        async with agent() as subject:
            found = await run(subject, crew((*slow.urls, *quick.urls), in_flight=1), 40)
        own = len(asked(slow))
    assert [answered.failed for answered in found if answered.failed] == []
    assert 1 <= own <= 4  # of the ten that were offered to it


async def test_least_busy_fills_who_has_room() -> None:
    with serving(1, latency_ms=400, single=True) as slow, serving(1) as quick:
        async with agent() as subject:
            await run(subject, crew((*slow.urls, *quick.urls), in_flight=1, policy="least-busy"), 30)
        assert len(asked(slow)) <= 2


async def test_a_server_that_comes_back_is_used_again() -> None:
    with serving(1, faults=["500"]) as one:
        async with agent() as subject:
            profile = crew(one.urls, in_flight=1)
            first = await subject.answer(call(0, profile))
            one.knob(faults=())
            second = await subject.answer(call(1, profile))
    words = "out of luck: 100% of the stack is used"
    assert first.failed == f"{one.urls[0]}: answered 500 to validate: {words} (the last of 4 tries)"
    assert second.failed == ""


@pytest.mark.parametrize(
    ("fault", "why"),
    [
        ("garbage", "its answer to validate is not as agreed"),
        ("hangup", "it closed the connection without an answer"),
        ("500", "answered 500 to validate: out of luck: 100% of the stack is used"),
    ],
)
async def test_every_fault_of_a_server_moves_the_spec(fault: str, why: str) -> None:
    with serving(1, faults=[fault]) as bad, serving(1) as good:
        async with agent() as subject:
            profile = crew((*bad.urls, *good.urls))
            moved = await subject.answer(call(0, profile))
            lost = await subject.answer(call(0, crew(bad.urls)))
    assert (moved.failed, moved.data["url"]) == ("", good.urls[0])
    assert (moved.data["tries"], moved.data["moved_from"]) == (2, [bad.urls[0]])
    assert lost.failed.startswith(f"{bad.urls[0]}: {why}")
    assert "the last of 4 tries" in lost.failed


async def test_a_verifier_that_counts_words_is_sent_the_body() -> None:
    with serving(1, counts=True) as servers:
        async with agent() as subject:
            found = await subject.answer(call(0, crew(servers.urls)))
    assert found.failed == ""
    assert body_of(": x ( a -- b ) dup 1 < if drop then ;") == "dup 1 < if drop then"
    assert body_of(": x dup ;") == "dup"
    assert body_of("dup *") == "dup *"


async def test_paths_may_be_others() -> None:
    with serving(1, paths={"/validate": "/spec/validate"}) as servers:
        async with agent() as subject:
            found = await subject.answer(call(0, crew(servers.urls, paths={"validate": "/validate"})))
            wrong = await subject.answer(call(0, crew(servers.urls)))
            assert found.failed == ""
            assert (wrong.failed, wrong.final) == ("Invalid specification: answered 404 to validate", True)
            with pytest.raises(Refused, match="'check' = '/x', and there is no such step"):
                await subject.answer(call(0, crew(servers.urls, paths={"check": "/x"})))


async def test_a_call_that_is_stopped_leaves_its_server_to_others() -> None:
    with serving(1, faults=["hang=spec-0"]) as servers:
        async with agent() as subject:
            profile, generating = crew(servers.urls, in_flight=1), asyncio.Event()
            loop = asyncio.get_running_loop()
            servers.observers.append(
                lambda request: request.path == "/generate" and loop.call_soon_threadsafe(generating.set)
            )
            hangs = asyncio.ensure_future(subject.answer(call(0, profile)))
            waits = asyncio.ensure_future(subject.answer(call(1, profile)))
            goes_on = asyncio.ensure_future(subject.answer(call(2, profile)))
            await generating.wait()
            waits.cancel()
            hangs.cancel()
            assert (await goes_on).failed == ""
            assert hangs.cancelled()
            assert waits.cancelled()
        assert asked(servers) == {0: STEPS[:2], 2: STEPS}


async def test_probe_and_capacity() -> None:
    with serving(2) as servers:
        async with agent() as subject:
            profile = crew(servers.urls)
            assert (await subject.probe(profile)).found
            assert subject.capacity(profile) == 64
            assert subject.capacity(crew(servers.urls, in_flight=100)) == 400
            away = await subject.probe(crew(["http://127.0.0.1:9"]))
            bad = await subject.probe(crew(servers.urls, paths={"x": "/"}))
    assert away.problem == "no agent server answers (http://127.0.0.1:9: connection refused)"
    assert "there is no such step" in bad.problem
    assert isinstance(subject, Answering)


async def test_one_that_answers_is_enough_wherever_it_stands() -> None:
    async with agent() as subject:
        with serving(13) as servers:
            profile = crew(servers.urls)
            for place in range(12):
                servers.stop(place)
            await until_true(lambda: not _listens(servers.urls[11]), "they are gone")
            assert (await subject.probe(profile)).found
        problem = (await subject.probe(profile)).problem
        assert problem == f"no agent server answers ({servers.urls[0]} and 12 more: connection refused)"


def _listens(url: str) -> bool:
    with socket.socket() as link:
        return link.connect_ex(("127.0.0.1", urlsplit(url).port or 0)) == 0


async def test_an_order_without_a_spec_is_refused_and_a_prompt_may_be_one() -> None:
    with serving(1) as servers:
        async with agent() as subject:
            bare = Order(id="wo-1", name="bare", title="t", instruction="make it so", deliverable=Deliverable.ANSWER)
            what = Call(order=bare, attempt="a", generation=1, profile=crew(servers.urls), timeout_s=None)
            with pytest.raises(Refused, match="order 'bare' has no spec"):
                await subject.answer(what)
            prompt = f"Please:\n\n```json\n{json.dumps(spec(1), indent=1)}\n```\n"
            told = msgspec.structs.replace(what, order=msgspec.structs.replace(bare, instruction=prompt))
            assert (await subject.answer(told)).failed == ""


def test_a_floor_asks_servers_for_answers(lab: Lab) -> None:
    bodies = {name: json.dumps(spec(number)) for number, name in enumerate(("one", "two", "bad"))}
    with serving(2, faults=["mismatch=spec-2"]) as servers:
        crew = {"crew": {"driver": "specs", "urls": list(servers.urls)}}
        prompts = [lab.prompt(name, f"```json\n{text}\n```\n", deliverable="answer") for name, text in bodies.items()]
        report = lab.run(*prompts, agents=crew, agent="crew")
        assert asked(servers) == dict.fromkeys(range(3), STEPS)
    assert [row(report, name).outcome for name in ("one", "two", "bad")] == ["answered", "answered", "failed"]
    assert "Stack effect mismatch: it does ( x -- x x ), not ( x -- x )" in row(report, "bad").message


@contextmanager
def descriptors(most: int) -> Iterator[None]:
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)


async def test_a_limit_of_descriptors_is_kept() -> None:
    # Servers of their own process: the limit is that of the client alone.
    words = [sys.executable, "-m", "shopfloor.testing.spec_servers", "--count", "20", "--latency", "20"]
    with subprocess.Popen(words, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            urls = [process.stdout.readline().strip() for _ in range(20)]
            with descriptors(100):
                assert connections_at_most() == 50
                async with agent() as subject:
                    found = await run(subject, crew(urls, in_flight=64), 1000)
        finally:
            process.terminate()
    assert [answered.failed for answered in found if answered.failed] == []


async def test_connections_beyond_a_lowered_limit_are_kept_for_a_second_and_then_closed() -> None:
    with serving(1) as servers:
        one = Server(servers.urls[0], Room(100), Limit(0, 8), PATHS)
        replies = await asyncio.gather(*(one.links.ask(one.health) for _ in range(8)))
        assert {reply.status for reply in replies} == {200}
        now = one.links.loop.time()
        one.trim(now)
        assert len(one.links.idle) == one.limit.value == 8
        closing = one.links.idle[:6]
        one.limit.overloaded(0.0, now)
        one.limit.overloaded(0.0, now + 1)
        assert one.limit.value == 2
        one.trim(now + 1)
        one.trim(now + 1.9)
        assert len(one.links.idle) == 8, "a limit that was lowered may be raised again at once"
        one.trim(now + 2)
        assert len(one.links.idle) == 2
        await until_true(lambda: all(connection.closed for connection in closing), "the oldest are closed")
        one.links.drop()


async def test_a_limit_that_is_raised_again_in_time_closes_nothing() -> None:
    with serving(1) as servers:
        one = Server(servers.urls[0], Room(100), Limit(0, 4), PATHS)
        await asyncio.gather(*(one.links.ask(one.health) for _ in range(4)))
        now = one.links.loop.time()
        one.limit.overloaded(0.0, now)
        one.trim(now)
        raised, one.limit = one.limit, Limit(0, 4)
        one.trim(now + 0.9)
        one.limit = raised
        one.trim(now + 1.1)
        assert len(one.links.idle) == 4, "it is counted anew"
        one.trim(now + 2.1)
        assert len(one.links.idle) == raised.value == 2
        one.links.drop()


async def test_who_finds_no_descriptor_free_waits_for_one_and_blames_no_server() -> None:
    words = [sys.executable, "-m", "shopfloor.testing.spec_servers", "--count", "1"]
    with subprocess.Popen(words, stdout=subprocess.PIPE, text=True) as process:
        taken: list[int] = []
        try:
            assert process.stdout is not None
            profile = crew([process.stdout.readline().strip()])
            async with agent() as subject:
                await subject.answer(call(0, profile))
                await subject.close()  # what it kept would be used
                await asyncio.sleep(0)
                with descriptors(256):
                    with suppress(OSError):
                        while True:
                            taken.append(os.open(os.devnull, os.O_RDONLY))
                    waiting = asyncio.ensure_future(subject.answer(call(1, profile)))
                    tried = [asyncio.get_running_loop().time() + 0.1]
                    await until_true(lambda: asyncio.get_running_loop().time() > tried[0], "it has tried some times")
                    assert not waiting.done()
                    while taken:
                        os.close(taken.pop())
                    found = await waiting
        finally:
            for one in taken:
                os.close(one)
            process.terminate()
    assert (found.failed, found.data.get("tries")) == ("", None), "it was no fault of the server"


async def test_whoever_needs_a_connection_gets_one_that_others_keep_and_do_not_use() -> None:
    with serving(3) as servers:
        pool = Pool(servers.urls, PATHS)
        pool._room.most = 2
        for number in range(9):
            assert (await pool.answer(spec(number), number, 5.0)).failed == ""
            assert pool._room.open <= 2
        assert {request.port for request in servers.requests if request.path == "/generate"} == {
            urlsplit(url).port for url in servers.urls
        }
        pool.close()


async def test_more_servers_than_connections() -> None:
    room = Room(3)
    with serving(5) as servers:
        links = [Connections(urlsplit(url), room) for url in servers.urls]
        for link in links[:3]:
            assert (await link.ask(link.head("GET", "/health"))).status == 200
        assert room.open == 3
        for link in links:
            link.drop()
        await asyncio.sleep(0)
        assert room.open == 0


@pytest.mark.parametrize(
    ("raw", "why"),
    [
        (b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nabc", "its answer broke off"),
        (b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\nxyz\r\n", "its answer broke off"),
        (b"SSH-2.0-server\r\n", "its answer is not HTTP"),
        (b"HTTP/1.1 200 OK\r\nx: " + b"y" * 99_000, "its answer is not HTTP"),
        (b"HTTP/1.1 200 OK\r\n\r\n" + b"y" * (17 << 20), "its answer has more than 16777216 bytes"),
        (b"", "it closed the connection without an answer"),
    ],
)
async def test_an_answer_that_is_none_is_unreachable(raw: bytes, why: str) -> None:
    async with raw_server(raw) as link:
        with pytest.raises(Unreachable, match=why):
            await link.ask(link.head("POST", "/"), b"{}")


@pytest.mark.parametrize(
    ("raw", "body"),
    [
        (b"HTTP/1.1 200 OK\r\n\r\nto the end", b"to the end"),
        (b"HTTP/1.0 200 OK\r\ncontent-length: 2\r\n\r\nhi", b"hi"),
        (b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nhi", b"hi"),
        (b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n2\r\nhi\r\n0\r\n\r\n", b"hi"),
        (b"HTTP/1.1 204 No Content\r\n\r\n", b""),
    ],
)
async def test_answers_of_every_kind_are_read(raw: bytes, body: bytes) -> None:
    async with raw_server(raw) as link:
        assert (await link.ask(link.head("POST", "/"), b"{}")).body == body


async def test_a_connection_that_was_closed_meanwhile_is_replaced() -> None:
    async with raw_server(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nhi") as link:
        for _ in range(3):
            assert (await link.ask(link.head("POST", "/"), b"{}")).body == b"hi"


async def test_what_takes_too_long_is_late() -> None:
    async with raw_server(None) as link:
        waiting = asyncio.create_task(link.ask(link.head("POST", "/"), b"{}", limit_s=0.01))
        loop = asyncio.get_running_loop()
        while not waiting.done():
            loop.call_later(0.002, link.look)
            await asyncio.wait({waiting}, timeout=0.005)
        with pytest.raises(Late):
            await waiting


async def test_what_a_server_said_of_one_spec_is_no_reason_of_another() -> None:
    async with grumbling() as url, agent(patience_s=0.2) as subject:
        profile = crew([url], in_flight=1, policy="strict")
        first, second = await asyncio.gather(*(subject.answer(call(n, profile)) for n in range(2)))
    assert first.failed.startswith(f"{url}: answered 500 to validate: spec-0 is cursed; then no agent server answers")
    assert "spec-0" not in second.failed, "it was never asked for, or has its own words"
    assert f"no agent server answers ({url}: answered 500 to validate)" in second.failed


@asynccontextmanager
async def grumbling() -> AsyncIterator[str]:
    """A server that is well and fails with every spec, each in words of its own."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(asyncio.IncompleteReadError, ConnectionError):
            while True:
                head = (await reader.readuntil(b"\r\n\r\n")).decode().lower()
                size = int(head.rpartition("content-length: ")[2].split()[0])
                body = json.loads(await reader.readexactly(size) or b"{}")
                answer = json.dumps({"error": f"{body['id']} is cursed"} if body else {}).encode()
                status = b"500 no" if body else b"200 OK"
                writer.write(b"HTTP/1.1 %s\r\ncontent-length: %d\r\n\r\n%s" % (status, len(answer), answer))
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    async with server:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"


class Says(asyncio.Protocol):
    """Answers a whole request so and hangs up; None: it says nothing."""

    transport: asyncio.Transport

    def __init__(self, raw: bytes | None, opened: list["Says"]) -> None:
        self.raw = raw
        opened.append(self)

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport

    def data_received(self, data: bytes) -> None:
        if data.endswith(b"{}") and self.raw is not None:
            self.transport.write(self.raw)
            self.transport.close()


@asynccontextmanager
async def raw_server(raw: bytes | None) -> AsyncIterator[Connections]:
    opened: list[Says] = []
    server = await asyncio.get_running_loop().create_server(lambda: Says(raw, opened), "127.0.0.1", 0)
    link = Connections(urlsplit(f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"), Room(9))
    try:
        yield link
    finally:
        link.drop()
        server.close()
        for one in opened:
            one.transport.close()
