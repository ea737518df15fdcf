"""The gateway with model servers that are made for one question each, and with what it writes."""

import asyncio
import gzip
import json
import os
import signal
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import urlsplit

import msgspec
import pytest
from aiohttp import web

from shopfloor import spawn
from shopfloor.config.accounts import GatewaySettings, gateway_settings
from shopfloor.domain.errors import Refused
from shopfloor.gateway.client import GatewayProcess
from shopfloor.gateway.ledger import bills
from shopfloor.gateway.words import Start
from shopfloor.ports import Limit, ModelCall, Quota, Route
from shopfloor.spawn import Guard
from shopfloor.testing.gateway import KEY, SCRIPTS, Bench, post, request
from shopfloor.testing.model import Model

OTHER = "sk-real-key-of-other-4712"
ENV = {"MAIN_KEY": KEY, "OTHER_KEY": OTHER}
Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]
DONE = {"model": "gpt-5", "choices": [], "usage": {"prompt_tokens": 1000, "completion_tokens": 100}}


def accounts(url: str, **more: Any) -> GatewaySettings:
    main = {"dialect": "anthropic", "url": url, "key": "MAIN_KEY"}
    openai = {"dialect": "openai", "url": url, "key": "MAIN_KEY"}
    found = {"main": {**main, **more.pop("main", {})}, "oai": {**openai, **more.pop("oai", {})}}
    return gateway_settings({"accounts": {**found, **more}})


class Line(NamedTuple):
    gateway: GatewayProcess
    bench: Bench
    guard: Guard


@asynccontextmanager
async def running(folder: Path, settings: GatewaySettings, model: Any = None, **more: Any) -> AsyncIterator[Line]:
    folder.mkdir(exist_ok=True)
    start = Start(settings=settings, ledger=str(folder / "ledger.jsonl"), **more)
    async with Guard() as guard:
        gateway = GatewayProcess(guard, start, environment=ENV, folder=folder)
        bench = Bench(gateway, model)
        listening = asyncio.create_task(bench.listen())
        try:
            yield Line(gateway, bench, guard)
        finally:
            await gateway.close()
            await listening


@asynccontextmanager
async def serving(handler: Handler) -> AsyncIterator[str]:
    app = web.Application()
    app.router.add_route("*", "/{tail:.*}", handler)
    runner = web.AppRunner(app)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    try:
        yield f"http://127.0.0.1:{runner.addresses[0][1]}"
    finally:
        await runner.cleanup()


def events(*documents: object) -> bytes:
    return b"".join(b"data: " + json.dumps(d).encode() + b"\n\n" for d in documents) + b"data: [DONE]\n\n"


async def ask(route: Route, dialect: str = "anthropic", **more: Any) -> Any:
    path, body = request(dialect, "talk")
    return await asyncio.to_thread(post, route.url, route.token, path, {**body, **more})


async def test_keys_stay_behind_it(tmp_path: Path) -> None:
    """The model server sees the real key and not the token; the worker sees neither key, though both are echoed."""
    seen: list[dict[str, str]] = []

    async def echo(request: web.Request) -> web.StreamResponse:
        seen.append({name.lower(): value for name, value in request.headers.items()})
        status = 400 if "bad" in await request.text() else 200
        told = {"error": {"message": f"{KEY} {dict(request.headers)}"}, "usage": {"input_tokens": 1}}
        return web.json_response(told, status=status, headers={"x-echo": KEY, "set-cookie": f"k={KEY}"})

    async with serving(echo) as url, running(tmp_path, accounts(url), record=str(tmp_path / "tape")) as line:
        route = await line.bench.open()
        for model in ("claude-sonnet-4-5", "bad"):
            for stream in (False, True):
                reply = await ask(route, model=model, stream=stream)
                assert reply.status == (400 if model == "bad" else 200)
                assert KEY not in reply.body.decode() + str(reply.headers)
                assert "masked" in reply.body.decode()
                assert "set-cookie" not in reply.headers
        await line.bench.calls(4)
    assert len(seen) == 4
    for headers in seen:
        assert headers["x-api-key"] == KEY
        assert route.token not in str(headers)
        assert headers["accept-encoding"] == "identity"
    written = b"".join(path.read_bytes() for path in tmp_path.rglob("*") if path.is_file())
    assert b'"digest"' in written
    for secret in (KEY, OTHER, route.token, route.url.rpartition("/")[2]):
        assert secret.encode() not in written


async def test_what_only_an_agent_was_given_stands_in_no_recording(tmp_path: Path) -> None:
    async def echo(request: web.Request) -> web.StreamResponse:
        said = (await request.json())["messages"][0]["content"]
        return web.json_response({"content": said, "usage": {"input_tokens": 1, "output_tokens": 1}})

    token, tape = "the-floors-token-of-this-attempt", tmp_path / "tape"
    async with serving(echo) as url, running(tmp_path, accounts(url), record=str(tape)) as line:
        route = await line.gateway.open("wo-x.a1", order="wo-x", run="run-1", secrets=(token,))
        path, body = request("anthropic", "talk")
        words = f"{token} {route.token} at {route.url}"
        body["messages"][0]["content"] = words
        reply = await asyncio.to_thread(post, route.url, route.token, path, body)
        assert json.loads(reply.body)["content"] == words, "what it said itself comes back to it"
        await line.bench.calls(1)
    written = tape.read_text()
    assert written.count("masked") >= 3
    for secret in (token, route.token, route.url.rpartition("/")[2]):
        assert secret not in written


async def test_a_key_in_a_query_is_neither_used_nor_passed_on(tmp_path: Path) -> None:
    queries: list[str] = []

    async def look(request: web.Request) -> web.StreamResponse:
        queries.append(request.rel_url.raw_query_string)
        return web.json_response({"usage": {"input_tokens": 1, "output_tokens": 1}})

    async with serving(look) as url, running(tmp_path, accounts(url)) as line:
        route = await line.bench.open()
        path, body = request("anthropic", "talk")
        reply = await asyncio.to_thread(post, route.url, "", f"{path}?beta=true&key={route.token}", body)
        assert reply.status == 200
    assert queries == ["beta=true"]


async def test_usage_is_asked_for_and_taken_out_again(tmp_path: Path) -> None:
    chunk = {"model": "gpt-5", "choices": [{"index": 0, "delta": {"content": "hi"}}], "usage": None}
    asked: list[Any] = []

    async def chat(request: web.Request) -> web.StreamResponse:
        body = await request.json()
        asked.append(body.get("stream_options"))
        wants = (body.get("stream_options") or {}).get("include_usage")
        found = events(chunk, DONE) if wants else events(chunk)
        return web.Response(body=found, content_type="text/event-stream")

    async with serving(chat) as url, running(tmp_path, accounts(url)) as line:
        route = await line.bench.open()
        plain = await ask(route, "openai-chat", stream=True)
        wanted = await ask(route, "openai-chat", stream=True, stream_options={"include_usage": True})
        calls = await line.bench.calls(2)
    assert asked == [{"include_usage": True}] * 2
    assert plain.body == events(chunk)
    assert wanted.body == events(chunk, DONE)
    assert [(c.tokens_in, c.tokens_out, c.estimated) for c in calls] == [(1000, 100, False)] * 2


async def test_a_server_that_cannot_tell_its_usage_is_asked_without(tmp_path: Path) -> None:
    async def chat(request: web.Request) -> web.StreamResponse:
        if "stream_options" in await request.json():
            return web.json_response({"error": {"message": "unknown field stream_options"}}, status=400)
        body = events({"choices": [{"index": 0, "delta": {"content": "x" * 400}}]})
        return web.Response(body=body, content_type="text/event-stream")

    async with serving(chat) as url, running(tmp_path, accounts(url)) as line:
        reply = await ask(await line.bench.open(), "openai-chat", stream=True)
        assert reply.status == 200
        (call,) = await line.bench.calls(1)
    assert (call.estimated, call.tokens_out) == (True, 100)
    assert call.cost_usd


async def test_what_was_packed_is_unpacked(tmp_path: Path) -> None:
    async def packed(request: web.Request) -> web.StreamResponse:
        assert (await request.json())["model"]
        data = gzip.compress(json.dumps({"usage": {"input_tokens": 7, "output_tokens": 1}}).encode())
        return web.Response(body=data, headers={"content-encoding": "gzip", "content-type": "application/json"})

    async with serving(packed) as url, running(tmp_path, accounts(url)) as line:
        reply = await ask(await line.bench.open())
        assert json.loads(reply.body)["usage"]["input_tokens"] == 7
        assert "content-encoding" not in reply.headers
        assert (await line.bench.calls(1))[0].tokens_in == 7


async def test_another_account_and_model_take_over(tmp_path: Path) -> None:
    seen: list[tuple[str, str]] = []

    async def half(request: web.Request) -> web.StreamResponse:
        key = request.headers["x-api-key"]
        seen.append((key, (await request.json())["model"]))
        if key == KEY:
            error = {"type": "error", "error": {"type": "billing_error", "message": "pay"}}
            return web.json_response(error, status=402)
        return web.json_response({"usage": {"input_tokens": 1000, "output_tokens": 100}})

    second = {"dialect": "anthropic", "key": "OTHER_KEY", "models": {"*": "claude-haiku-4-5"}}
    async with serving(half) as url:
        settings = accounts(url, main={"spill": ["second"]}, second={**second, "url": url})
        async with running(tmp_path, settings) as line:
            route = await line.bench.open(account="main")
            for _ in range(2):
                assert (await ask(route)).status == 200
            calls = await line.bench.calls(2)
    assert seen == [(KEY, "claude-sonnet-4-5"), (OTHER, "claude-haiku-4-5"), (OTHER, "claude-haiku-4-5")]
    assert [(c.account, c.model) for c in calls] == [("second", "claude-haiku-4-5")] * 2
    assert calls[0].cost_usd == 0.0015, "at the price of what answered"
    assert not [fact for fact in line.bench.facts if isinstance(fact, Quota)], "there is something left"


async def test_a_storm_without_a_word_closes_the_account(tmp_path: Path) -> None:
    async def storm(request: web.Request) -> web.StreamResponse:
        return web.json_response({"error": {"type": "rate_limit_error", "message": "slow down"}}, status=429)

    async with serving(storm) as url, running(tmp_path, accounts(url)) as line:
        route = await line.bench.open()
        statuses = [(await ask(route)).status for _ in range(6)]
        assert statuses == [429] * 5 + [401]
        calls = await line.bench.calls(6)
        quota = next(fact for fact in line.bench.facts if isinstance(fact, Quota))
    assert [call.refused for call in calls] == [""] * 5 + ["quota"]
    assert 50 < quota.reset_at - calls[-1].at < 61


async def test_record_and_replay(tmp_path: Path) -> None:
    tape = tmp_path / "run.cassette"
    replies = {}
    with Model(SCRIPTS) as model:
        async with running(tmp_path / "one", accounts(model.url), model, record=str(tape)) as line:
            route = await line.bench.open()
            for stream in (False, True):
                replies[stream] = await line.bench.call(route, stream=stream)
            down = await line.bench.call(route, "down")
        recorded = len(model.requests())
        async with running(tmp_path / "two", accounts(model.url), model, replay=str(tape)) as line:
            route = await line.bench.open("wo-y.a1", limits={"run:1": 0.001})
            for _ in range(2):
                for stream in (False, True):
                    again = await line.bench.call(route, stream=stream)
                    assert (again.status, again.body) == (200, replies[stream].body)
            assert (await line.bench.call(route, "down")).body == down.body
            missing = await line.bench.call(route, "slow")
            calls = await line.bench.calls(6)
        assert len(model.requests()) == recorded, "nothing was asked again"
    assert missing.status == 401
    error = json.loads(missing.body)["error"]
    assert error["type"] == "not_recorded"
    assert "[[script slow]]" in error["message"]
    assert {call.cost_usd for call in calls} == {0.0}
    assert sum(call.tokens_in for call in calls) == 4000
    assert tape.stat().st_mode & 0o777 == 0o600


async def test_a_gateway_that_is_killed_comes_back_where_it_was(tmp_path: Path) -> None:
    with Model(SCRIPTS) as model:
        async with running(tmp_path, accounts(model.url), model) as line:
            route = await line.bench.open(limits={"run:1": 0.01})
            assert (await line.bench.call(route)).status == 200
            await line.bench.calls(1)  # it is booked: what is answered in the very moment of the kill may be forgotten
            before = line.gateway.pid
            os.kill(before, signal.SIGKILL)
            async with asyncio.timeout(30):
                reply = await line.bench.call(route)
                while reply.status == 0:
                    reply = await line.bench.call(route)
            assert reply.status == 200
            assert line.gateway.pid != before
            assert (await line.bench.call(route)).status == 401, "what was spent before it died is not forgotten"
            bill = await line.gateway.shut("wo-x.a1")
            assert (bill.calls, bill.cost_usd) == (2, 0.009)


async def test_it_ends_with_its_floor(tmp_path: Path) -> None:
    async with Guard() as guard:
        gateway = GatewayProcess(guard, Start(settings=GatewaySettings()), environment={}, folder=tmp_path)
        await gateway.open("wo-x.a1", order="wo-x", run="run-1")
        pid = gateway.pid
        born = spawn.start_time_of(pid)
        assert spawn.alive(pid, born)
    assert not spawn.alive(pid, born)
    await gateway.close()


async def test_the_ledger_has_a_line_for_each_call(tmp_path: Path) -> None:
    (tmp_path / "ledger.jsonl").write_text('{"at": 1.0, "att')  # torn by a crash
    with Model(SCRIPTS) as model:
        async with running(tmp_path, accounts(model.url), model) as line:
            route = await line.bench.open(limits={"run:1": 0.0065})
            for _ in range(3):
                await line.bench.call(route)
            calls = await line.bench.calls(3)
    torn, *lines = (tmp_path / "ledger.jsonl").read_bytes().splitlines()
    assert torn == b'{"at": 1.0, "att'
    assert [msgspec.json.decode(text, type=ModelCall) for text in lines] == calls
    assert [call.refused for call in calls] == ["", "budget", "budget"]


async def test_a_call_waits_while_only_others_in_flight_stand_in_its_way(tmp_path: Path) -> None:
    arrived, go = asyncio.Event(), asyncio.Event()
    number = 0

    async def slow(request: web.Request) -> web.StreamResponse:
        nonlocal number
        number += 1
        if number == 2:
            arrived.set()
            await go.wait()
        return web.json_response({"usage": {"input_tokens": 1000, "output_tokens": 100}})

    async with serving(slow) as url, running(tmp_path, accounts(url)) as line:
        route = await line.bench.open(limits={"run:1": 0.0135})
        assert (await ask(route)).status == 200
        second = asyncio.create_task(ask(route))
        await arrived.wait()
        third, fourth = asyncio.create_task(ask(route)), asyncio.create_task(ask(route))
        await asyncio.sleep(0)
        go.set()
        ends = sorted([reply.status for reply in await asyncio.gather(second, third, fourth)])
        assert ends == [200, 200, 401]
        assert number == 3
        assert sum(call.cost_usd or 0 for call in await line.bench.calls(4)) == pytest.approx(0.0135)


async def test_the_first_call_of_an_attempt_is_reckoned_by_those_of_others(tmp_path: Path) -> None:
    """Its size says little: the tools of an agent alone may be many thousand tokens."""
    with Model(SCRIPTS) as model:
        async with running(tmp_path, accounts(model.url), model) as line:
            first, second = [await line.bench.open(limits={"run:1": 0.0055}, attempt=name) for name in ("a", "b")]
            assert (await ask(first)).status == 200
            assert (await ask(second)).status == 401
            calls = await line.bench.calls(2)
    assert [call.refused for call in calls] == ["", "budget"]


STREAMS: dict[str, tuple[Any, ...]] = {
    "anthropic": (
        {"type": "message_start", "message": {"usage": {"input_tokens": 1000, "output_tokens": 1}}},
        {"type": "message_delta", "delta": {"stop_reason": "end_turn"}, "usage": {"output_tokens": 100}},
        {"type": "message_stop"},
    ),
    "openai-chat": (DONE, "[DONE]"),
    "openai-responses": (
        {"type": "response.completed", "response": {"usage": {"input_tokens": 1000, "output_tokens": 100}}},
    ),
}

LAST = {"anthropic": b"message_stop", "openai-chat": b"[DONE]", "openai-responses": b"response.completed"}


@pytest.mark.parametrize("dialect", STREAMS)
async def test_who_has_the_last_event_of_a_stream_asks_again_with_that_call_settled(
    dialect: str, tmp_path: Path
) -> None:
    """A client goes on with its last event, however long the connection to the model server stays open behind it."""
    asked, go = 0, asyncio.Event()

    async def stays(request: web.Request) -> web.StreamResponse:
        nonlocal asked
        asked += 1
        response = web.StreamResponse(headers={"content-type": "text/event-stream"})
        await response.prepare(request)
        for event in STREAMS[dialect]:
            await response.write(f"data: {event if event == '[DONE]' else json.dumps(event)}\n\n".encode())
        await go.wait()
        return response

    async with serving(stays) as url, running(tmp_path, accounts(url)) as line:
        cost = 0.0045 if dialect == "anthropic" else 0.00225
        route = await line.bench.open(limits={"run:1": 1.5 * cost})
        path, body = request(dialect, "talk", stream=True)
        parts = urlsplit(route.url)
        reader, writer = await asyncio.open_connection(parts.hostname, parts.port)
        data = json.dumps(body).encode()
        head = f"POST {parts.path}{path} HTTP/1.1\r\nhost: x\r\nx-api-key: {route.token}\r\n"
        writer.write(f"{head}content-length: {len(data)}\r\n\r\n".encode() + data)
        try:
            async with asyncio.timeout(10):
                await reader.readuntil(LAST[dialect])
                reply = await asyncio.to_thread(post, route.url, route.token, path, {**body, "stream": False})
        finally:
            go.set()
            writer.close()
        assert (reply.status, asked) == (401, 1), "the next call was reckoned without this one"
        assert f"{cost:g} of {1.5 * cost:g} USD are spent" in reply.body.decode()


async def test_a_port_that_is_taken_is_told(tmp_path: Path) -> None:
    async def nothing(request: web.Request) -> web.StreamResponse:
        return web.Response()

    async with serving(nothing) as url:
        port = int(url.rpartition(":")[2])
        async with running(tmp_path, accounts(url), port=port) as line:
            with pytest.raises(Refused, match=f"port {port}"):
                await line.bench.open()


async def test_the_next_gateway_opens_a_way_again_where_it_was(tmp_path: Path) -> None:
    """As after the death of a controller whose agent goes on: the same address, the same token, one bill."""
    limits = [Limit(key="run:1", usd=0.0135)]
    with Model(SCRIPTS) as model:
        async with running(tmp_path, accounts(model.url), model) as line:
            route = await line.bench.open(limits={"run:1": 0.0135})
            assert (await line.bench.call(route)).status == 200
            spent = await line.gateway.shut("wo-x.a1")
        async with running(tmp_path, accounts(model.url), model) as line:
            before = [msgspec.structs.replace(limits[0], spent_usd=spent.cost_usd or 0.0)]
            again = await line.gateway.open(
                "wo-x.a1", order="wo-x", run="run-1", limits=before, again=route, spent=spent
            )
            assert again == route
            assert [(await line.bench.call(route)).status for _ in range(3)] == [200, 200, 401]
            bill = await line.gateway.shut("wo-x.a1")
    assert bill.calls == 3
    assert bill.cost_usd == pytest.approx(0.0135)
    assert bills(tmp_path / "ledger.jsonl", {"wo-x.a1"}) == {"wo-x.a1": bill}, "each call stands in it once"


async def test_a_way_that_cannot_be_had_again_is_told_and_the_others_are_opened(tmp_path: Path) -> None:
    async def nothing(request: web.Request) -> web.StreamResponse:
        return web.Response()

    secret = "s" * 32
    async with serving(nothing) as url, running(tmp_path, accounts(url)) as line:
        for gone, word in (
            (Route(url=f"{url}/w/{secret}", token="sf-x"), url.rpartition(":")[2]),
            (Route(url=f"http://192.0.2.1:80/w/{secret}", token="sf-x"), "not known"),
            (Route(url=f"{url}/w/{secret}", token=""), "not known"),
        ):
            with pytest.raises(Refused, match=word):
                await line.gateway.open("wo-x.a1", order="wo-x", run="run-1", again=gone)
        other = await line.bench.open("wo-y.a1")
        with pytest.raises(Refused, match="listens at"):
            await line.gateway.open(
                "wo-x.a1", order="wo-x", run="run-1", again=Route(url=f"{url}/w/{secret}", token="sf-x")
            )
        assert (await ask(other)).status == 200


def test_a_ledger_is_read_whatever_stands_between_its_lines(tmp_path: Path) -> None:
    path = tmp_path / "ledger.jsonl"
    assert bills(path, {"wo-x.a1"}) == {}
    calls = [
        ModelCall(at=1.0, attempt="wo-x.a1", status=200, tokens_in=10, tokens_out=1, cost_usd=0.25),
        ModelCall(at=2.0, attempt="wo-y.a1", status=200, tokens_in=10, cost_usd=9.0),
        ModelCall(at=3.0, attempt="wo-x.a1", status=200, tokens_in=20, cost_usd=None),
        ModelCall(at=4.0, attempt="wo-x.a1", status=401, refused="budget", limit="run:1", cost_usd=0.0),
    ]
    junk = [b"", b"{", b"\xff\xfe", b"[1]", b'{"at": "x"}', b"[" * 100_000]
    lines = [line for call, between in zip(calls, junk, strict=False) for line in (between, msgspec.json.encode(call))]
    path.write_bytes(b"\n".join([*lines, *junk, b'{"at": 5.0, "attempt": "wo-x.a1", "cost_']))
    found = bills(path, {"wo-x.a1"})["wo-x.a1"]
    assert (found.calls, found.unpriced, found.cost_usd, found.tokens_in) == (2, 1, 0.25, 30)
    assert (found.refused, found.limit) == ("budget", "run:1")
