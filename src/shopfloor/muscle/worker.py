"""The turns between a model and its tools, until the model has nothing more to do or a limit is reached."""

from __future__ import annotations

import time
import traceback

import msgspec
from pydantic_ai import Agent, ModelHTTPError, UnexpectedModelBehavior
from pydantic_ai.messages import ModelResponse, TextPart, ThinkingPart

from shopfloor.domain.errors import UsageError
from shopfloor.mcp.verbs import INSTRUCTIONS as TALK
from shopfloor.muscle.events import Speaker
from shopfloor.muscle.models import Endpoint, Meter, hands, refusal, take_turn
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


class Worker:
    """One task in one folder."""

    def __init__(self, endpoint: Endpoint, tools: Tools, speaker: Speaker, limits: Limits) -> None:
        self._endpoint = endpoint
        self._tools = tools
        self._speaker = speaker
        self._limits = limits
        self._meter = Meter(speaker.spent)

    async def work(self, task: str, folder: str) -> str:
        """Work on it to the end. Returns the status that was said: success, limit, failed or error."""
        began = time.monotonic()
        model = self._endpoint.model()
        words = INSTRUCTIONS.format(folder=folder, people=TALK if self._tools.verbs else ALONE)
        agent = Agent(model, instructions=words, toolsets=[hands(self._tools, self._did)], retries=3)
        try:
            async with model:  # its connections are closed
                turn = await take_turn(agent, task, heard=self._heard, stop=self._over_a_limit)
        except ModelHTTPError as problem:
            return self._refused(problem, time.monotonic() - began)
        except UnexpectedModelBehavior as problem:
            self._speaker.error(str(problem), type(problem).__name__, traceback.format_exc())
            return "error"
        status, result = "success", turn.text
        if turn.stopped:
            status, result = "limit", turn.stopped
        elif result is None:
            status, result = "failed", "the model gave no answer"
        self._speaker.finish(status, result or "", round(time.monotonic() - began, 3))
        return status

    def _heard(self, response: ModelResponse) -> None:
        price = self._endpoint.price(response)
        self._meter.take(response, price)
        if price is None and self._limits.cost_usd is not None:
            hint = "leave --cost-limit out, or give --step-limit"
            raise UsageError(
                f"the price of model {self._endpoint.name!r} is not known, so a cost limit cannot be kept",
                hint=hint,
            )
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
        text = refusal(problem)
        if "budget_exceeded" in text:
            self._speaker.finish("limit", text, round(took_s, 3))
            return "limit"
        self._speaker.error(text, _KINDS.get(problem.status_code, type(problem).__name__))
        return "error"

    def _did(self, action: str, done: Done, took_ms: int) -> None:
        self._speaker.step(action, done.text, returncode=done.code, duration_ms=took_ms)
