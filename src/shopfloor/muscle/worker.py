"""The turns between a model and its tools, until the model has nothing more to do or a limit is reached."""

from __future__ import annotations

import time
import traceback
from collections.abc import Mapping
from decimal import Decimal
from functools import partial
from typing import Any

import genai_prices
import msgspec
from pydantic_ai import Agent, ModelHTTPError, UnexpectedModelBehavior, UsageLimits
from pydantic_ai.messages import ModelResponse, TextPart, ThinkingPart
from pydantic_ai.models import Model
from pydantic_ai.tools import Tool
from pydantic_ai.toolsets import FunctionToolset

from shopfloor.domain.errors import UsageError
from shopfloor.mcp.verbs import INSTRUCTIONS as TALK
from shopfloor.mcp.verbs import schema
from shopfloor.muscle.events import Speaker
from shopfloor.muscle.tools import Done, Tools

INSTRUCTIONS = """You are a coding agent at work in {folder}, the root of a git checkout. {people} Look before you
change anything; change as little as the task needs; run the project's checks where there are some. You need not commit:
what lies in the folder when you stop is taken. When the task is done, say in a few sentences what you did, without
calling a tool."""
ALONE = "Nobody watches you and nobody can answer: decide for yourself."

_KINDS = {401: "auth", 403: "auth", 429: "quota"}


class Limits(msgspec.Struct, frozen=True, kw_only=True):
    """When to stop, beside being done."""

    cost_usd: float | None = None
    steps: int = 0
    """model calls; 0: any number"""


class Endpoint(msgspec.Struct, frozen=True, kw_only=True):
    """Where the model is: ``anthropic`` or ``openai`` (what speaks like it), its name there, address and key."""

    provider: str
    name: str
    url: str
    key: str

    def model(self) -> Model:
        """The client for it; only what is needed is imported, because both take a while."""
        if self.provider == "anthropic":
            from pydantic_ai.models.anthropic import AnthropicModel
            from pydantic_ai.providers.anthropic import AnthropicProvider

            return AnthropicModel(self.name, provider=AnthropicProvider(api_key=self.key, base_url=self.url or None))
        from pydantic_ai.models.openai import OpenAIChatModel
        from pydantic_ai.providers.openai import OpenAIProvider

        return OpenAIChatModel(self.name, provider=OpenAIProvider(api_key=self.key, base_url=self.url or None))

    def price(self, response: ModelResponse) -> Decimal | None:
        """What an answer cost in USD; None when the price of the model is not known."""
        try:
            found = genai_prices.calc_price(response.usage, model_ref=self.name, provider_id=self.provider)
        except (LookupError, ValueError):
            return None
        return found.total_price


class Worker:
    """One task in one folder."""

    def __init__(self, endpoint: Endpoint, tools: Tools, speaker: Speaker, limits: Limits) -> None:
        self._endpoint = endpoint
        self._tools = tools
        self._speaker = speaker
        self._limits = limits
        self._spent = Decimal(0)

    async def work(self, task: str, folder: str) -> str:
        """Work on it to the end. Returns the status that was said: success, limit, failed or error."""
        began = time.monotonic()
        model = self._endpoint.model()
        words = INSTRUCTIONS.format(folder=folder, people=TALK if self._tools.verbs else ALONE)
        agent = Agent(model, instructions=words, toolsets=[self._toolset()], retries=3)
        try:
            async with model:  # its connections are closed
                status, result = await self._turns(agent, task)
        except ModelHTTPError as problem:
            return self._refused(problem, time.monotonic() - began)
        except UnexpectedModelBehavior as problem:
            self._speaker.error(str(problem), type(problem).__name__, traceback.format_exc())
            return "error"
        self._speaker.finish(status, result, round(time.monotonic() - began, 3))
        return status

    async def _turns(self, agent: Agent[None, str], task: str) -> tuple[str, str]:
        async with agent.iter(task, usage_limits=UsageLimits(request_limit=None)) as turns:
            async for node in turns:
                if Agent.is_call_tools_node(node):
                    self._heard(node.model_response)
                elif Agent.is_model_request_node(node) and (why := self._over_a_limit()):
                    return "limit", why
        result = turns.result
        return ("success", result.output) if result is not None else ("failed", "the model gave no answer")

    def _heard(self, response: ModelResponse) -> None:
        spent, usage = self._speaker.spent, response.usage
        price = self._endpoint.price(response)
        spent.calls += 1
        spent.tokens_in += usage.input_tokens
        spent.tokens_out += usage.output_tokens
        if price is None:
            if self._limits.cost_usd is not None:
                hint = "leave --cost-limit out, or give --step-limit"
                raise UsageError(
                    f"the price of model {self._endpoint.name!r} is not known, so a cost limit cannot be kept",
                    hint=hint,
                )
            spent.usd = None
        elif spent.usd is not None:
            self._spent += price
            spent.usd = float(self._spent)
        calls = bool(response.tool_calls)
        for part in response.parts:
            if isinstance(part, ThinkingPart) or (isinstance(part, TextPart) and calls):
                self._speaker.thought(part.content)

    def _over_a_limit(self) -> str:
        limits, spent = self._limits, self._speaker.spent
        if limits.steps and spent.calls >= limits.steps:
            return f"reached its limit of {limits.steps} model calls"
        if limits.cost_usd is not None and spent.usd is not None and spent.usd >= limits.cost_usd:
            return f"spent {spent.usd:.4g} of {limits.cost_usd:g} USD"
        return ""

    def _refused(self, problem: ModelHTTPError, took_s: float) -> str:
        """A model call that its client has given up on."""
        text = f"the model answered with HTTP {problem.status_code}: {_body(problem)}"
        if "budget_exceeded" in text:
            self._speaker.finish("limit", text, round(took_s, 3))
            return "limit"
        self._speaker.error(text, _KINDS.get(problem.status_code, type(problem).__name__))
        return "error"

    # -- tools ------------------------------------------------------------------------------------------------------

    def _toolset(self) -> FunctionToolset[None]:
        toolset: FunctionToolset[None] = FunctionToolset(sequential=True)

        @toolset.tool_plain
        async def bash(command: str) -> str:
            """Run a shell command in the project's folder and get what it prints, and its exit code.

            Args:
                command: for `sh -c`; it has no terminal and no standard input
            """
            return await self._did(command, self._tools.bash(command))

        @toolset.tool_plain
        async def edit(path: str, old: str, new: str) -> str:
            """Change a file of the project, or make one.

            Args:
                path: relative to the project's folder
                old: what is to be replaced, exactly as it stands there, once; empty: the whole file is written
                new: what comes in its place
            """

            async def change() -> Done:
                return self._tools.edit(path, old, new)

            return await self._did(f"edit {path}", change())

        for name, verb in self._tools.verbs.items():
            say = partial(self._said, name)
            toolset.add_tool(Tool.from_schema(say, name, verb.about, schema(verb), sequential=True))
        return toolset

    async def _said(self, verb: str, /, **arguments: Any) -> str:
        action = " ".join([verb, *(str(value) for value in arguments.values())])
        return await self._did(action, self._tools.say(verb, arguments))

    async def _did(self, action: str, doing: Any) -> str:
        began = time.monotonic()
        done: Done = await doing
        took = round((time.monotonic() - began) * 1000)
        self._speaker.step(action, done.text, returncode=done.code, duration_ms=took)
        return done.text if done.code is None else f"{done.text}\n[exit {done.code}]"


def _body(problem: ModelHTTPError) -> str:
    body = problem.body
    if isinstance(body, Mapping):
        error = body.get("error", body)
        if isinstance(error, Mapping):
            words = [str(error[key]) for key in ("type", "code", "message") if error.get(key)]
            return ": ".join(words)[:2000]
    return str(body)[:2000]
