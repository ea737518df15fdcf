"""How many tokens an answer says it used: from its JSON, or from the events of its stream as they pass by."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgspec

from shopfloor.domain.budget import CHARS_A_TOKEN
from shopfloor.gateway.dialects import ANTHROPIC, CHAT, GEMINI, LONGEST_NAME

LONGEST_EVENT = 8 << 20
"""bytes of one line of a stream that is looked at; a longer one passes by unread"""
_MOST_TOKENS = 1_000_000_000
_DONE = b"[DONE]"
_LAST = frozenset({"message_stop", "response.completed", "response.incomplete", "response.failed"})
"""Types of the event with which a stream says that it is over; in a chat stream it is `_DONE`."""


class Usage(msgspec.Struct, kw_only=True):
    """Tokens of one call."""

    fresh: int = 0
    """that went in and came from no cache"""
    cached: int = 0
    written: int = 0
    """that went in and into a cache, and how many of them for an hour"""
    written_1h: int = 0
    out: int = 0

    @property
    def into(self) -> int:
        """All that went in."""
        return self.fresh + self.cached + self.written


class _Creation(msgspec.Struct):
    ephemeral_1h_input_tokens: int | None = None


class _Cached(msgspec.Struct):
    cached_tokens: int | None = None


class _Counts(msgspec.Struct):
    """Usage as the dialects of Anthropic and OpenAI tell it."""

    input_tokens: int | None = None
    output_tokens: int | None = None
    cache_read_input_tokens: int | None = None
    cache_creation_input_tokens: int | None = None
    cache_creation: _Creation | None = None
    input_tokens_details: _Cached | None = None
    prompt_tokens: int | None = None
    completion_tokens: int | None = None
    prompt_tokens_details: _Cached | None = None


class _Gemini(msgspec.Struct, rename="camel"):
    prompt_token_count: int | None = None
    candidates_token_count: int | None = None
    thoughts_token_count: int | None = None
    cached_content_token_count: int | None = None
    tool_use_prompt_token_count: int | None = None


class _Message(msgspec.Struct):
    model: str | None = None
    usage: _Counts | None = None


class _Call(msgspec.Struct):
    arguments: str | None = None


class _Tool(msgspec.Struct):
    function: _Call | None = None


class _Delta(msgspec.Struct):
    content: str | None = None
    text: str | None = None
    thinking: str | None = None
    partial_json: str | None = None
    tool_calls: list[_Tool] | None = None

    def chars(self) -> int:
        texts = [self.content, self.text, self.thinking, self.partial_json]
        texts += [tool.function.arguments for tool in self.tool_calls or () if tool.function]
        return sum(len(text) for text in texts if text)


class _Choice(msgspec.Struct):
    delta: _Delta | None = None


class _Part(msgspec.Struct):
    text: str | None = None


class _Content(msgspec.Struct):
    parts: list[_Part] | None = None


class _Candidate(msgspec.Struct):
    content: _Content | None = None


class _Event(msgspec.Struct):
    """One event of a stream, or a whole answer, whatever its dialect."""

    type: str | None = None
    model: str | None = None
    message: _Message | None = None
    response: _Message | None = None
    usage: _Counts | None = None
    delta: _Delta | str | None = None
    choices: list[_Choice] | None = None
    candidates: list[_Candidate] | None = None
    usage_metadata: _Gemini | None = msgspec.field(default=None, name="usageMetadata")
    model_version: str | None = msgspec.field(default=None, name="modelVersion")


_event = msgspec.json.Decoder(_Event)
_events = msgspec.json.Decoder(list[_Event])


def is_usage_alone(data: bytes) -> bool:
    """Whether an event of a chat stream tells the usage and nothing else: what is added when that was asked for."""
    try:
        event = _event.decode(data)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return False
    return event.usage is not None and event.choices == []


class Meter:
    """Follows one answer."""

    def __init__(self, dialect: str) -> None:
        self.dialect = dialect
        self.usage = Usage()
        self.told = False
        """the answer has said in full what it used"""
        self.over = False
        """its last event was fed: a client that has it need not wait for the end of the connection"""
        self.model = ""
        """as the answer names it"""
        self._chars = 0
        self._line = bytearray()
        self._skipping = False

    def feed(self, piece: bytes) -> None:
        """A piece of a stream of events, cut anywhere."""
        *lines, rest = piece.split(b"\n")
        for line in lines:
            if self._skipping:
                self._skipping = False
            else:
                self._take(bytes(self._line) + line if self._line else line)
            self._line.clear()
        if not self._skipping:
            self._line += rest
            if len(self._line) > LONGEST_EVENT:
                self._skipping = True
                self._line.clear()

    def whole(self, body: bytes) -> None:
        """An answer that is one JSON document."""
        try:
            events = _events.decode(body) if body.lstrip()[:1] == b"[" else [_event.decode(body)]
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            return
        for event in events:
            self._look(event)
        self.told = self.told or any(event.usage is not None for event in events)

    def result(self, likely_in: Callable[[], int]) -> tuple[Usage, bool]:
        """What was used, and whether that is partly our estimate: so much in, and out as much as went by."""
        if self.told:
            return self.usage, False
        found = msgspec.structs.replace(self.usage, out=max(self.usage.out, -(-self._chars // CHARS_A_TOKEN)))
        if not found.into:
            found.fresh = likely_in()
        return found, True

    def _take(self, line: bytes) -> None:
        if not line.startswith(b"data:"):
            return
        data = line[5:].strip()
        if data[:1] != b"{":
            self.over = self.over or data == _DONE
            return
        try:
            self._look(_event.decode(data))
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            return

    def _look(self, event: _Event) -> None:
        inner = event.message or event.response
        name = event.model or event.model_version or (inner.model if inner else None)
        if name and len(name) <= LONGEST_NAME and name.isprintable():
            self.model = name
        self._chars += _chars(event)
        self.over = self.over or event.type in _LAST
        if self.dialect == GEMINI:
            if event.usage_metadata is not None:
                self._gemini(event.usage_metadata)
            return
        counts = event.usage or (inner.usage if inner else None)
        if counts is None:
            return
        if self.dialect == ANTHROPIC:
            self._anthropic(counts)
            self.told = self.told or event.type == "message_delta"
        else:
            self._openai(counts)
            self.told = True

    def _anthropic(self, c: _Counts) -> None:
        """Each count stands for all before it; the last events leave some out."""
        u = self.usage
        u.fresh = _known(c.input_tokens, u.fresh)
        u.cached = _known(c.cache_read_input_tokens, u.cached)
        u.written = _known(c.cache_creation_input_tokens, u.written)
        if c.cache_creation is not None:
            u.written_1h = min(u.written, _known(c.cache_creation.ephemeral_1h_input_tokens, u.written_1h))
        u.out = _known(c.output_tokens, u.out)

    def _openai(self, c: _Counts) -> None:
        chat = self.dialect == CHAT
        into, out = (c.prompt_tokens, c.completion_tokens) if chat else (c.input_tokens, c.output_tokens)
        details = c.prompt_tokens_details if chat else c.input_tokens_details
        all_in = _known(into, 0)
        cached = min(all_in, _known(details.cached_tokens if details else None, 0))
        self.usage = Usage(fresh=all_in - cached, cached=cached, out=_known(out, 0))

    def _gemini(self, g: _Gemini) -> None:
        all_in = _known(g.prompt_token_count, 0) + _known(g.tool_use_prompt_token_count, 0)
        cached = min(all_in, _known(g.cached_content_token_count, 0))
        out = _known(g.candidates_token_count, 0) + _known(g.thoughts_token_count, 0)
        self.usage = Usage(fresh=all_in - cached, cached=cached, out=out)
        self.told = True


def _known(count: Any, before: int) -> int:
    """A count that was told, kept to what can be."""
    return before if count is None else min(max(0, count), _MOST_TOKENS)


def _chars(event: _Event) -> int:
    found = 0
    if isinstance(event.delta, str):
        found += len(event.delta)
    elif event.delta is not None:
        found += event.delta.chars()
    for choice in event.choices or ():
        found += choice.delta.chars() if choice.delta else 0
    for candidate in event.candidates or ():
        parts = candidate.content.parts if candidate.content else None
        found += sum(len(part.text) for part in parts or () if part.text)
    return found
