"""What every talk with a model needs: where it is, what it costs, what it may call, and the loop of calls."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from decimal import Decimal
from functools import partial
from typing import Any

import genai_prices
import msgspec
import pydantic_ai
from pydantic_ai import Agent, ModelHTTPError, UsageLimits
from pydantic_ai.messages import ModelMessage, ModelResponse
from pydantic_ai.models import Model
from pydantic_ai.tools import Tool
from pydantic_ai.toolsets import FunctionToolset

from shopfloor.mcp.verbs import schema
from shopfloor.muscle.events import Spent
from shopfloor.muscle.tools import Done, Tools

pydantic_ai.BANNER_ENABLED = False  # what a terminal shows is ours to say

Told = Callable[[str, Done, int], None]
"""Hears of each tool call: what was done, what came of it, and how many milliseconds it took."""


def client(provider: str) -> tuple[Callable[..., Any], Callable[..., Any]]:
    """What makes the client for a provider, and how it is reached.

    Only what is needed is imported, as each takes a second or two; whoever has a loop to keep calls this in a thread
    first. Raises ImportError.
    """
    if provider == "anthropic":
        from pydantic_ai.models.anthropic import AnthropicModel
        from pydantic_ai.providers.anthropic import AnthropicProvider

        return AnthropicModel, AnthropicProvider
    from pydantic_ai.models.openai import OpenAIChatModel
    from pydantic_ai.providers.openai import OpenAIProvider

    return OpenAIChatModel, OpenAIProvider


class Endpoint(msgspec.Struct, frozen=True, kw_only=True):
    """Where the model is: ``anthropic`` or ``openai`` (what speaks like it), its name there, address and key."""

    provider: str
    name: str
    url: str
    key: str

    def model(self) -> Model:
        """The client for it."""
        model, provider = client(self.provider)
        found: Model = model(self.name, provider=provider(api_key=self.key, base_url=self.url or None))
        return found

    def price(self, response: ModelResponse) -> Decimal | None:
        """What an answer cost in USD; None when the price of the model is not known."""
        try:
            found = genai_prices.calc_price(response.usage, model_ref=self.name, provider_id=self.provider)
        except (LookupError, ValueError):
            return None
        return found.total_price


class Meter:
    """Adds up what the calls came to."""

    def __init__(self, spent: Spent) -> None:
        self.spent = spent
        self._usd = Decimal(0)

    def take(self, response: ModelResponse, price: Decimal | None) -> None:
        """Count one; without a price the sum is not known any more."""
        spent, usage = self.spent, response.usage
        spent.calls += 1
        spent.tokens_in += usage.input_tokens
        spent.tokens_out += usage.output_tokens
        if price is None:
            spent.usd = None
        elif spent.usd is not None:
            self._usd += price
            spent.usd = float(self._usd)


class Turn(msgspec.Struct, frozen=True, kw_only=True):
    """What came of a prompt; ``stopped`` says why it was ended before the model had an answer."""

    text: str | None = None
    stopped: str = ""
    messages: list[ModelMessage] = []
    """all that were new in it"""


async def take_turn(
    agent: Agent[None, str],
    prompt: str,
    *,
    heard: Callable[[ModelResponse], None],
    stop: Callable[[], str],
    before: Sequence[ModelMessage] = (),
) -> Turn:
    """Have the model work on a prompt until it calls nothing any more, or ``stop`` gives a reason before a call."""
    async with agent.iter(
        prompt, usage_limits=UsageLimits(request_limit=None), message_history=list(before) or None
    ) as turns:
        async for node in turns:
            if Agent.is_call_tools_node(node):
                heard(node.model_response)
            elif Agent.is_model_request_node(node) and (why := stop()):
                return Turn(stopped=why)
    result = turns.result
    return Turn() if result is None else Turn(text=result.output, messages=result.new_messages())


def hands(tools: Tools, told: Told, only: Sequence[str] = ("bash", "edit")) -> FunctionToolset[None]:
    """The tools ``bash``, ``read`` and ``edit`` that are named in ``only``, and what can be said to the floor."""
    toolset: FunctionToolset[None] = FunctionToolset(sequential=True)

    async def did(action: str, doing: Awaitable[Done]) -> str:
        began = time.monotonic()
        done = await doing
        told(action, done, round((time.monotonic() - began) * 1000))
        return done.text if done.code is None else f"{done.text}\n[exit {done.code}]"

    async def bash(command: str) -> str:
        """Run a shell command in the project's folder and get what it prints, and its exit code.

        Args:
            command: for `sh -c`; it has no terminal and no standard input
        """
        return await did(command, tools.bash(command))

    async def read(path: str) -> str:
        """Read a file of the project.

        Args:
            path: relative to the project's folder
        """

        async def look() -> Done:
            return tools.read(path)

        return await did(f"read {path}", look())

    async def edit(path: str, old: str, new: str) -> str:
        """Change a file of the project, or make one.

        Args:
            path: relative to the project's folder
            old: what is to be replaced, exactly as it stands there, once; empty: the whole file is written
            new: what comes in its place
        """

        async def change() -> Done:
            return tools.edit(path, old, new)

        return await did(f"edit {path}", change())

    async def said(verb: str, /, **arguments: Any) -> str:
        action = " ".join([verb, *(str(value) for value in arguments.values())])
        return await did(action, tools.say(verb, arguments))

    for name, tool in (("bash", bash), ("read", read), ("edit", edit)):
        if name in only:
            toolset.tool_plain(tool)
    for name, verb in tools.verbs.items():
        toolset.add_tool(Tool.from_schema(partial(said, name), name, verb.about, schema(verb), sequential=True))
    return toolset


def refusal(problem: ModelHTTPError) -> str:
    """What a model call that its client has given up on says."""
    return f"the model answered with HTTP {problem.status_code}: {_body(problem)}"


def _body(problem: ModelHTTPError) -> str:
    body = problem.body
    if isinstance(body, Mapping):
        error: Any = body.get("error", body)
        if isinstance(error, Mapping):
            words = [str(error[key]) for key in ("type", "code", "message") if error.get(key)]
            return ": ".join(words)[:2000]
    return str(body)[:2000]
