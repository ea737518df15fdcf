"""Our MCP server as the official client sees it, and as JSON-RPC wants it: a real process, a real floor behind it."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any

import pytest

from shopfloor.mcp.server import PROTOCOLS
from shopfloor.mcp.verbs import VERBS

COMMAND = [sys.executable, "-P", "-m", "shopfloor", "mcp"]


def talk(*messages: object, raw: bytes = b"", env: Mapping[str, str] | None = None) -> list[dict[str, Any]]:
    """What it answers to these, by the time that its input has ended."""
    lines = raw or b"".join(json.dumps(message).encode() + b"\n" for message in messages)
    plain = {name: value for name, value in os.environ.items() if not name.startswith("SHOPFLOOR_")}
    whole = {**plain, **(env or {})}
    done = subprocess.run(COMMAND, input=lines, capture_output=True, timeout=30, check=True, env=whole)
    assert not done.stderr
    return [json.loads(line) for line in done.stdout.splitlines()]


def call(method: str, number: int = 1, **params: object) -> dict[str, Any]:
    return {"jsonrpc": "2.0", "id": number, "method": method, "params": params}


@pytest.mark.parametrize("method", ["server/discover", "resources/list", "prompts/list", "nonesuch"])
def test_an_unknown_method_is_answered_at_once(method: str) -> None:
    (answer,) = talk(call(method))
    assert (answer["id"], answer["error"]["code"]) == (1, -32601)


@pytest.mark.parametrize("version", [*PROTOCOLS, "2099-01-01"])
def test_a_known_version_is_taken_and_another_answered_with_ours(version: str) -> None:
    (hello,) = talk(call("initialize", protocolVersion=version))
    assert hello["result"]["protocolVersion"] == (version if version in PROTOCOLS else PROTOCOLS[0])
    assert hello["result"]["capabilities"] == {"tools": {}}


BAD = {
    "no json": (b"{nope}\n", -32700),
    "an array": (b"[]\n", -32600),
    "deep": (b"[" * 100_000 + b"\n", -32700),
    "odd id": (b'{"id": {}, "method": "ping"}\n', -32600),
    "odd params": (b'{"id": 1, "method": "ping", "params": [1]}\n', -32600),
    "no utf-8": (b'{"id": 1, "method": "\xff"}\n', -32700),
    "a long line": (b'{"id": 1, "x": "' + b"x" * (3 << 20) + b'"}\n', -32600),
}


@pytest.mark.parametrize("how", BAD)
def test_what_is_no_message_is_refused_and_the_next_one_answered(how: str) -> None:
    line, code = BAD[how]
    refused, pong = talk(raw=line + json.dumps(call("ping", 7)).encode() + b"\n")
    assert refused["error"]["code"] == code
    assert pong == {"jsonrpc": "2.0", "id": 7, "result": {}}


def test_notifications_and_replies_are_not_answered() -> None:
    silent = [{"jsonrpc": "2.0", "method": "notifications/initialized"}, {"jsonrpc": "2.0", "id": 3, "result": {}}]
    assert [answer["id"] for answer in talk(*silent, call("ping", 4))] == [4]


def test_bad_calls_are_told_apart() -> None:
    floor = {
        "SHOPFLOOR_FLOOR": os.devnull, "SHOPFLOOR_ORDER": "wo-a", "SHOPFLOOR_ATTEMPT": "wo-a.a1",
        "SHOPFLOOR_GENERATION": "1", "SHOPFLOOR_TOKEN": "t",
    }  # fmt: skip
    unknown, missing, odd, nobody = talk(
        call("tools/call", 1, name="nonesuch"),
        call("tools/call", 2, name="progress", arguments={}),
        call("tools/call", 3, name="progress", arguments={"text": 7}),
        call("tools/call", 4, name="progress", arguments={"text": "x", "order": "wo-b"}),
        env=floor,
    )
    assert unknown["error"]["code"] == -32602
    for answer, words in ((missing, "needs 'text'"), (odd, "is no text"), (nobody, "no argument 'order'")):
        assert answer["result"]["isError"] is True
        assert words in answer["result"]["content"][0]["text"]
    (outside,) = talk(call("tools/call", 1, name="progress", arguments={"text": "x"}))
    assert "for agents that were started by shopfloor" in outside["result"]["content"][0]["text"]
    (gone,) = talk(call("tools/call", 1, name="progress", arguments={"text": "x"}), env=floor)
    assert "no controller is at work here" in gone["result"]["content"][0]["text"]
    assert "shopfloor run --resume" in gone["result"]["content"][0]["text"]


@pytest.fixture
def official() -> Any:
    """The official client library."""
    if importlib.util.find_spec("mcp") is None:
        reason = "the package mcp is not installed; type: pip install 'mcp>=2.2,<3'"
        if os.environ.get("SHOPFLOOR_TEST_REQUIRE_ALL"):
            pytest.fail(reason, pytrace=False)
        pytest.skip(reason)
    import mcp
    import mcp.client.stdio

    return mcp


@asynccontextmanager
async def session(official: Any, env: Mapping[str, str]) -> AsyncIterator[Any]:
    own = {**os.environ, **env}
    server = official.StdioServerParameters(command=COMMAND[0], args=COMMAND[1:], env=own)
    async with official.client.stdio.stdio_client(server) as streams, official.ClientSession(*streams) as client:
        await client.initialize()
        yield client


async def test_the_official_client_finds_every_verb_with_its_arguments(official: Any) -> None:
    async with session(official, {}) as client:
        tools = {tool.name: tool for tool in (await client.list_tools()).tools}
        said = await client.call_tool("progress", {"text": "x"})
    assert list(tools) == list(VERBS)
    for name, verb in VERBS.items():
        schema = tools[name].model_dump(by_alias=True)["inputSchema"]
        assert list(schema["properties"]) == list(verb.arguments)
        assert schema["required"] == [key for key, one in verb.arguments.items() if one.needed]
    assert said.model_dump(by_alias=True)["isError"] is True


def test_ids_are_never_arguments() -> None:
    given = {name for verb in VERBS.values() for name in verb.arguments}
    assert not given & {"attempt", "generation", "token", "agent", "from", "sender", "speaker"}
