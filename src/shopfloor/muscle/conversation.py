"""A talk that goes on: each turn is a prompt, as many tool calls as the model makes, and its answer.

What is remembered is bounded: the newest turns whole, more of them as prompt and answer only, and nothing at all when
the talk is told to begin each turn afresh. Turns may overlap: each begins with what had ended before it.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import AsyncExitStack
from types import TracebackType
from typing import Any, Protocol, Self

import msgspec
from pydantic_ai import Agent, ModelHTTPError, UnexpectedModelBehavior
from pydantic_ai.messages import ModelMessage, ModelRequest, ModelResponse, TextPart, UserPromptPart
from pydantic_ai.tools import Tool
from pydantic_ai.toolsets import AbstractToolset, FunctionToolset

from shopfloor.domain.errors import Refused, ShopfloorError
from shopfloor.muscle.events import Spent
from shopfloor.muscle.models import Endpoint, Meter, hands, refusal, take_turn
from shopfloor.muscle.tools import Done, Tools

WHOLE = 4
"""Turns that are remembered with their tool calls."""


class Extra(Protocol):
    """A tool beside bash and edit."""

    @property
    def name(self) -> str:
        """As the model calls it."""
        ...

    @property
    def description(self) -> str:
        """When and how to use it."""
        ...

    @property
    def input_schema(self) -> dict[str, Any]:
        """The JSON schema of its arguments, an object."""
        ...

    async def answer(self, call: Mapping[str, Any]) -> Any:
        """What the model is told of a call: plain data."""
        ...


class Conversation:
    """``async with Conversation(…) as talk: answer = await talk.turn("…")``."""

    def __init__(
        self,
        endpoint: Endpoint,
        *,
        tools: Tools,
        only: Sequence[str] = ("bash", "edit"),
        extras: Sequence[Extra] = (),
        words: Callable[[], str] = str,
        remembered: int = 30,
        steps: int = 0,
        ended: Callable[[], Awaitable[None]] | None = None,
    ) -> None:
        """``words`` are the instructions, asked for at each turn; ``remembered`` turns are kept (0: none).

        ``steps`` model calls are made in one turn at most (0: any number). ``ended`` is called when it is closed.
        """
        self.spent = Spent()
        """by all turns together"""
        self._endpoint = endpoint
        self._model = endpoint.model()
        self._toolsets = _toolsets(tools, only, extras)
        self._words = words
        self._steps = steps
        self._ended = ended
        self._meter = Meter(self.spent)
        self._remembered: deque[list[ModelMessage]] = deque(maxlen=max(0, remembered))
        self._open = AsyncExitStack()

    async def __aenter__(self) -> Self:
        await self._open.enter_async_context(self._model)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            await self._open.aclose()
        finally:
            if self._ended is not None:
                await self._ended()

    async def turn(self, prompt: str) -> str:
        """The model's answer. Raises Refused for a call that the model refuses, ShopfloorError when there is none."""
        agent = Agent(self._model, instructions=self._words() or None, toolsets=self._toolsets, retries=3)
        calls = 0

        def heard(response: ModelResponse) -> None:
            nonlocal calls
            calls += 1
            self._meter.take(response, self._endpoint.price(response))

        def stop() -> str:
            return f"it made {calls} model calls without an end" if 0 < self._steps <= calls else ""

        before = [message for turn in self._remembered for message in turn]
        try:
            turn = await take_turn(agent, prompt, heard=heard, stop=stop, before=before)
        except ModelHTTPError as problem:
            raise Refused(refusal(problem)) from problem
        except UnexpectedModelBehavior as problem:
            raise ShopfloorError(f"the model did not answer as it should: {problem}") from problem
        if turn.text is None:
            raise ShopfloorError(turn.stopped or "the model gave no answer")
        self._remember(prompt, turn.text, turn.messages)
        return turn.text

    def _remember(self, prompt: str, answer: str, messages: list[ModelMessage]) -> None:
        kept = self._remembered
        kept.append(messages)
        if len(kept) > WHOLE:
            old = kept[-WHOLE - 1]
            kept[-WHOLE - 1] = _words_of(old)


def _words_of(turn: list[ModelMessage]) -> list[ModelMessage]:
    """Its prompt and its answer only."""
    asked = [part for m in turn if isinstance(m, ModelRequest) for part in m.parts if isinstance(part, UserPromptPart)]
    last = next((m for m in reversed(turn) if isinstance(m, ModelResponse)), None)
    said = [part for part in last.parts if isinstance(part, TextPart)] if last is not None else []
    if not asked or not said:
        return []
    return [ModelRequest(parts=[asked[0]]), ModelResponse(parts=said)]


def _toolsets(tools: Tools, only: Sequence[str], extras: Sequence[Extra]) -> list[AbstractToolset[None]]:
    own: FunctionToolset[None] = FunctionToolset(sequential=True)
    for extra in extras:
        own.add_tool(Tool.from_schema(_call(extra), extra.name, extra.description, extra.input_schema))
    return [found for found in (hands(tools, _unheard, only), own) if found.tools]


def _call(extra: Extra) -> Callable[..., Awaitable[str]]:
    async def call(**arguments: Any) -> str:
        return msgspec.json.encode(await extra.answer(arguments)).decode()

    return call


def _unheard(_action: str, _done: Done, _took_ms: int) -> None:
    pass
