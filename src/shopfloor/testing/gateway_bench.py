"""A gateway under test: a scripted model behind it, workers before it, and what was heard of it."""

from __future__ import annotations

import asyncio
import http.client
import json
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple
from urllib.parse import urlsplit

from shopfloor.ports import Gateway, Limit, ModelCall, Quota, Route
from shopfloor.testing.model import Model

KEY = "sk-real-key-of-main-4711"
LIMIT_S = 30.0

# At the price of this model 1000 tokens in and 100 out cost 0.0045 USD.
MODEL = "claude-sonnet-4-5"
COST = 0.0045
USED = {"in": 1000, "out": 100}
SCRIPTS: dict[str, list[dict[str, Any]]] = {
    "talk": [{"text": "one two three four", "usage": USED}],
    "slow": [{"text": "one two three four five six", "slow": 0.5, "usage": USED}],
    "cut": [{"text": "one two three four five six", "drop": True, "usage": USED}],
    "storm": [{"text": "here I am", "fail": {"status": 429, "times": 3, "headers": {"retry-after": "1"}}}],
    "down": [{"text": "never", "fail": {"status": 500}}],
    "empty": [
        {
            "text": "back",
            "usage": USED,
            "fail": {
                "status": 429,
                "for_s": 2.0,
                "headers": {
                    "anthropic-ratelimit-unified-status": "rejected",
                    "anthropic-ratelimit-unified-reset": "{reset}",
                },
            },
        }
    ],
}
PATHS = {
    "anthropic": "/v1/messages",
    "openai-chat": "/v1/chat/completions",
    "openai-responses": "/v1/responses",
    "gemini": "/v1beta/models/gemini-2.5-flash:generateContent",
}
MODELS = {"anthropic": MODEL, "openai-chat": "gpt-5", "openai-responses": "gpt-5", "gemini": "gemini-2.5-flash"}


class Reply(NamedTuple):
    """What a worker is answered; status 0: the answer broke off."""

    status: int
    headers: dict[str, str]
    body: bytes


def request(dialect: str, script: str, *, stream: bool = False, model: str = "") -> tuple[str, dict[str, Any]]:
    """Path and body that let the scripted model play a script."""
    words, path = f"[[script {script}]]", PATHS[dialect]
    if dialect == "gemini":
        if stream:
            path = path.replace(":generateContent", ":streamGenerateContent") + "?alt=sse"
        return path, {"contents": [{"role": "user", "parts": [{"text": words}]}]}
    body: dict[str, Any] = {"model": model or MODELS[dialect], "stream": stream}
    if dialect == "openai-responses":
        return path, {**body, "input": words}
    return path, {**body, "max_tokens": 100, "messages": [{"role": "user", "content": words}]}


def post(url: str, token: str, path: str, body: object, *, agent: str = "test/1") -> Reply:
    """One call as a worker makes it, on a connection of its own."""
    parts = urlsplit(url)
    link = http.client.HTTPConnection(parts.hostname or "", parts.port, timeout=LIMIT_S)
    headers = {"x-api-key": token, "content-type": "application/json", "user-agent": agent}
    try:
        link.request("POST", parts.path + path, json.dumps(body), headers)
        response = link.getresponse()
        return Reply(response.status, {k.lower(): v for k, v in response.getheaders()}, response.read())
    except (http.client.HTTPException, ConnectionError) as problem:
        return Reply(0, {}, str(problem).encode())
    finally:
        link.close()


class Bench:
    """A gateway, the model behind it, and what was heard."""

    def __init__(self, gateway: Gateway, model: Model) -> None:
        self.gateway, self.model = gateway, model
        self.facts: list[ModelCall | Quota] = []
        self._changed = asyncio.Event()

    async def listen(self) -> None:
        """Take every fact, until the gateway is closed."""
        async for fact in self.gateway.heard():
            self.facts.append(fact)
            self._changed.set()

    async def open(
        self, attempt: str = "wo-x.a1", *, account: str = "", limits: Mapping[str, float] | None = None
    ) -> Route:
        """A way, with limits by key."""
        wanted = [Limit(key=key, usd=usd) for key, usd in (limits or {}).items()]
        return await self.gateway.open(attempt, order=attempt.partition(".")[0], run="run-1", account=account,
                                       limits=wanted)  # fmt: skip

    async def call(
        self, route: Route, script: str = "talk", dialect: str = "anthropic", *, stream: bool = False, **more: Any
    ) -> Reply:
        """A worker's call."""
        path, body = request(dialect, script, stream=stream, model=more.pop("model", ""))
        return await asyncio.to_thread(post, route.url, route.token, path, body, **more)

    async def until(self, holds: Callable[[list[ModelCall | Quota]], bool]) -> None:
        """Wait for facts. Raises TimeoutError."""
        async with asyncio.timeout(LIMIT_S):
            while not holds(self.facts):
                self._changed.clear()
                await self._changed.wait()

    async def calls(self, number: int) -> list[ModelCall]:
        """So many calls, once they are heard of."""
        await self.until(lambda facts: sum(isinstance(f, ModelCall) for f in facts) >= number)
        return [fact for fact in self.facts if isinstance(fact, ModelCall)]
