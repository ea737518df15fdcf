# ruff: noqa: ASYNC240, PLR2004 - a case has its event loop to itself, and a number in it is what it expects
"""The conformance suite of the Gateway port. Whoever writes a gateway runs it against theirs.

    @pytest.mark.parametrize("case", CASES)
    async def test_my_gateway(case, tmp_path):
        await run_case(case, make, tmp_path)

``make(guard, url, folder)`` gives a gateway whose accounts ``main`` (with the key `KEY`), ``oai`` and ``gem`` all go to
the scripted model at ``url``, in the dialects anthropic, openai and gemini; without a name each is the default one of
its dialect. Whatever it writes goes into the folder.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable
from pathlib import Path
from urllib.parse import urlsplit

from shopfloor.domain.errors import Refused
from shopfloor.ports import Bill, Gateway, Limit, ModelCall, Quota, Route
from shopfloor.spawn import Guard
from shopfloor.testing.gateway_bench import COST, KEY, LIMIT_S, MODELS, PATHS, SCRIPTS, Bench, Reply, post, request
from shopfloor.testing.model import Model

__all__ = ["CASES", "KEY", "SCRIPTS", "Bench", "post", "request", "run_case"]

Make = Callable[[Guard, str, Path], Gateway]


# -- the cases ----------------------------------------------------------------------------------------------------


async def every_dialect_is_answered_counted_and_priced(bench: Bench) -> None:
    route = await bench.open()
    for number, dialect in enumerate(PATHS):
        for stream in (False, True):
            reply = await bench.call(route, dialect=dialect, stream=stream)
            assert reply.status == 200, reply
            call = (await bench.calls(2 * number + 1 + stream))[-1]
            assert (call.dialect, call.model, call.status) == (dialect, MODELS[dialect], 200)
            assert (call.tokens_in, call.tokens_out, call.estimated) == (1000, 100, False)
            assert call.cost_usd
            assert (call.attempt, call.order, call.run) == ("wo-x.a1", "wo-x", "run-1")
    bill = await bench.gateway.shut("wo-x.a1")
    assert (bill.calls, bill.tokens_in, bill.tokens_out, bill.unpriced) == (8, 8000, 800, 0)


async def a_stream_is_what_the_model_sent(bench: Bench) -> None:
    route = await bench.open()
    for dialect in PATHS:
        path, body = request(dialect, "talk", stream=True)
        if dialect == "openai-chat":
            body["stream_options"] = {"include_usage": True}
        direct = await asyncio.to_thread(post, bench.model.url, "x", path, body)
        through = await asyncio.to_thread(post, route.url, route.token, path, body)
        assert _steady(through.body) == _steady(direct.body)
        assert through.headers["content-type"] == direct.headers["content-type"]


def _steady(body: bytes) -> list[str]:
    """A stream without ids and times, which the model counts up."""

    def plain(value: object) -> object:
        if isinstance(value, dict):
            drop = ("id", "created", "created_at", "responseId", "item_id", "request_id")
            return {name: plain(inner) for name, inner in value.items() if name not in drop}
        return [plain(inner) for inner in value] if isinstance(value, list) else value

    found = []
    for line in body.decode().split("\n"):
        data = line.strip().removeprefix("data: ")
        found.append(json.dumps(plain(json.loads(data))) if data.startswith("{") else line)
    return found


async def only_its_own_token_opens_a_way(bench: Bench) -> None:
    one, two = await bench.open("wo-a.a1"), await bench.open("wo-b.a1")
    assert one.url != two.url
    assert one.token != two.token
    for route in (
        Route(url=one.url, token=two.token),
        Route(url=one.url, token=""),
        Route(url=one.url[:-1], token="x"),
    ):
        assert (await bench.call(route)).status == 401
    assert not bench.model.requests()


async def a_way_that_is_shut_answers_nobody(bench: Bench) -> None:
    route = await bench.open()
    assert (await bench.call(route)).status == 200
    bill = await bench.gateway.shut("wo-x.a1")
    assert (bill.calls, bill.cost_usd) == (1, COST)
    assert (await bench.call(route)).status == 401
    assert await bench.gateway.shut("wo-x.a1") == Bill()
    assert await bench.gateway.shut("never.a1") == Bill()


async def a_way_is_opened_again_as_it_was(bench: Bench) -> None:
    route = await bench.open()
    assert (await bench.call(route)).status == 200
    spent = await bench.gateway.shut("wo-x.a1")
    again = await bench.gateway.open("wo-x.a1", order="wo-x", run="run-1", again=route, spent=spent)
    assert again == route
    assert (await bench.call(route)).status == 200
    bill = await bench.gateway.shut("wo-x.a1")
    assert (bill.calls, bill.cost_usd) == (2, 2 * COST)


async def three_endless_agents_share_one_budget(bench: Bench) -> None:
    routes = [await bench.open(f"wo-{name}.a1", limits={"run:run-1": 0.02}) for name in "abc"]

    async def agent(route: Route) -> Reply:
        while (reply := await bench.call(route)).status == 200:
            pass
        return reply

    ends = await asyncio.gather(*map(agent, routes))
    assert [end.status for end in ends] == [401] * 3
    assert all(json.loads(end.body)["error"]["type"] == "budget_exceeded" for end in ends)
    forwarded = len(bench.model.requests())
    assert forwarded == 4, "the fifth would have cost more than was left"
    calls = await bench.calls(forwarded + 3)
    assert sum(call.cost_usd or 0 for call in calls) <= 0.02
    assert sum(call.refused == "budget" for call in calls) == 3
    bills = [await bench.gateway.shut(f"wo-{name}.a1") for name in "abc"]
    assert {bill.refused for bill in bills} == {"budget"}


async def money_spent_before_counts_once(bench: Bench) -> None:
    limit = [Limit(key="order:x", usd=0.02, spent_usd=0.0155)]
    route = await bench.gateway.open("wo-x.a1", order="wo-x", run="run-1", limits=limit)
    assert (await bench.call(route)).status == 200
    again = await bench.gateway.open("wo-x.a2", order="wo-x", run="run-1", limits=limit)
    assert (await bench.call(again)).status == 401, "0.02 of 0.02 are spent"


async def what_has_no_price_is_unpriced_and_refused_under_a_limit(bench: Bench) -> None:
    free = await bench.open("wo-f.a1")
    assert (await bench.call(free, model="nobodys-model")).status == 200
    bill = await bench.gateway.shut("wo-f.a1")
    assert (bill.calls, bill.unpriced, bill.cost_usd) == (1, 1, None)
    bound = await bench.open("wo-b.a1", limits={"attempt:b": 5.0})
    reply = await bench.call(bound, model="nobodys-model")
    assert reply.status == 401
    assert b"nobodys-model" in reply.body
    assert len(bench.model.requests()) == 1


async def each_client_is_told_so_that_it_stops(bench: Bench) -> None:
    route = await bench.open("wo-x.a1", limits={"run:1": 1e-9})
    for dialect in PATHS:
        for stream in (False, True):
            reply = await bench.call(route, dialect=dialect, stream=stream)
            assert reply.status == 401
            assert reply.headers["x-should-retry"] == "false"
            error = json.loads(reply.body)["error"]
            assert "budget" in error["message"]
            told = error["details"][0]["reason"].lower() if dialect == "gemini" else error["type"]
            assert told == "budget_exceeded"
    # It tries 401 again for minutes, and gives up on 400.
    assert (await bench.call(route, agent="claude-cli/2.1.329 (external, cli)")).status == 400
    assert not bench.model.requests()


async def an_unknown_account_is_refused(bench: Bench) -> None:
    try:
        await bench.open(account="nobody")
    except Refused as problem:
        assert "nobody" in problem.message  # noqa: PT017
    else:
        raise AssertionError("it was opened")


async def a_short_limit_is_the_clients_to_wait_for(bench: Bench) -> None:
    route = await bench.open(limits={"run:1": 0.01})
    replies = [await bench.call(route, "storm") for _ in range(4)]
    assert [reply.status for reply in replies] == [429, 429, 429, 200]
    assert replies[0].headers["retry-after"] == "1"
    assert not [fact for fact in bench.facts if isinstance(fact, Quota)]
    calls = await bench.calls(4)
    assert [call.cost_usd for call in calls[:3]] == [0, 0, 0], "an error costs nothing"


async def an_account_with_nothing_left_is_asked_no_more_until_its_reset(bench: Bench) -> None:
    route, other = await bench.open("wo-a.a1", account="main"), await bench.open("wo-b.a1", account="main")
    assert (await bench.call(route, "empty")).status == 429
    await bench.until(lambda facts: any(isinstance(fact, Quota) for fact in facts))
    (quota,) = [fact for fact in bench.facts if isinstance(fact, Quota)]
    assert quota.account == "main"
    asked = len(bench.model.requests())
    reply = await bench.call(other)
    assert reply.status == 401
    assert json.loads(reply.body)["error"]["type"] == "quota_exhausted"
    assert (await bench.calls(2))[-1].refused == "quota"
    assert len(bench.model.requests()) == asked, "it was not forwarded"
    assert (await bench.call(await bench.open("wo-c.a1"), dialect="gemini")).status == 200
    async with asyncio.timeout(LIMIT_S):
        while (await bench.call(other)).status != 200:
            await asyncio.to_thread(_rest)
    answered = ("wo-b.a1", 200)
    await bench.until(lambda facts: any(isinstance(f, ModelCall) and (f.attempt, f.status) == answered for f in facts))
    (first,) = [f for f in bench.facts if isinstance(f, ModelCall) and (f.attempt, f.status) == answered]
    assert first.at >= quota.reset_at
    assert len([fact for fact in bench.facts if isinstance(fact, Quota)]) == 1


def _rest() -> None:
    import time

    time.sleep(0.1)  # between two looks; the reset is the gateway's wall clock


async def a_stream_that_breaks_off_breaks_off_for_the_worker_too(bench: Bench) -> None:
    route = await bench.open()
    assert (await bench.call(route, "cut", stream=True)).status == 0
    (call,) = await bench.calls(1)
    assert call.estimated
    assert call.tokens_in == 1000, "the beginning of the stream said so"
    assert 0 < (call.cost_usd or 0) < COST


async def a_worker_that_hangs_up_ends_the_call_and_pays_for_it(bench: Bench) -> None:
    route = await bench.open(limits={"run:1": 1.0})
    path, body = request("anthropic", "slow", stream=True)
    parts = urlsplit(route.url)
    reader, writer = await asyncio.open_connection(parts.hostname, parts.port)
    data = json.dumps(body).encode()
    head = [f"POST {parts.path}{path} HTTP/1.1", "host: x", f"x-api-key: {route.token}", f"content-length: {len(data)}"]
    writer.write("\r\n".join([*head, "", ""]).encode() + data)
    await reader.readuntil(b"message_start")
    writer.transport.abort()
    (call,) = await bench.calls(1)
    assert (call.status, call.estimated, call.tokens_in) == (200, True, 1000)
    assert call.cost_usd


async def a_model_that_is_down_costs_nothing_and_says_so(bench: Bench) -> None:
    route = await bench.open(limits={"run:1": 1.0})
    assert (await bench.call(route, "down")).status == 500
    (call,) = await bench.calls(1)
    assert (call.status, call.cost_usd, call.tokens_in) == (500, 0.0, 0)


async def shutting_a_way_ends_its_calls(bench: Bench) -> None:
    route = await bench.open()
    running = asyncio.create_task(bench.call(route, "slow", stream=True))
    async with asyncio.timeout(LIMIT_S):
        while not bench.model.requests():
            await asyncio.to_thread(_rest)
    bill = await bench.gateway.shut("wo-x.a1")
    assert (bill.calls, bill.unpriced) == (1, 0)
    assert (await running).status == 0


async def closing_it_ends_everything(bench: Bench) -> None:
    route = await bench.open()
    await bench.gateway.close()
    await bench.gateway.close()
    assert (await bench.call(route)).status == 0
    try:
        await bench.open("wo-y.a1")
    except Refused:
        return
    raise AssertionError("it was opened")


async def garbage_is_refused(bench: Bench) -> None:
    route = await bench.open()
    for path, body, status in (
        ("/v1/messages", [], 400), ("/v1/messages", {}, 400), ("/v1/messages", {"model": 7}, 400),
        ("/v1/messages", {"model": "m\n"}, 400), ("/v1/embeddings", {"model": "m"}, 404), ("/../x", {}, 404),
    ):  # fmt: skip
        reply = await asyncio.to_thread(post, route.url, route.token, path, body)
        assert reply.status == status, (path, body, reply)
        assert json.loads(reply.body)["error"]["message"]
    assert not bench.model.requests()


CASES: dict[str, Callable[[Bench], Awaitable[None]]] = {
    case.__name__: case
    for case in (
        every_dialect_is_answered_counted_and_priced,
        a_stream_is_what_the_model_sent,
        only_its_own_token_opens_a_way,
        a_way_that_is_shut_answers_nobody,
        a_way_is_opened_again_as_it_was,
        three_endless_agents_share_one_budget,
        money_spent_before_counts_once,
        what_has_no_price_is_unpriced_and_refused_under_a_limit,
        each_client_is_told_so_that_it_stops,
        an_unknown_account_is_refused,
        a_short_limit_is_the_clients_to_wait_for,
        an_account_with_nothing_left_is_asked_no_more_until_its_reset,
        a_stream_that_breaks_off_breaks_off_for_the_worker_too,
        a_worker_that_hangs_up_ends_the_call_and_pays_for_it,
        a_model_that_is_down_costs_nothing_and_says_so,
        shutting_a_way_ends_its_calls,
        closing_it_ends_everything,
        garbage_is_refused,
    )
}


async def run_case(case: str, make: Make, folder: Path) -> None:
    """Run one case in an empty folder; afterwards no key stands in anything that was written there."""
    with Model(SCRIPTS) as model:
        async with Guard() as guard:
            gateway = make(guard, model.url, folder)
            bench = Bench(gateway, model)
            listening = asyncio.create_task(bench.listen())
            try:
                await CASES[case](bench)
            finally:
                await gateway.close()
                await listening
    for path in folder.rglob("*"):
        assert not path.is_file() or KEY.encode() not in path.read_bytes(), f"the key stands in {path}"
