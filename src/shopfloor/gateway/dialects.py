"""What is asked, in which dialect, and how each client is told that it must stop."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import msgspec

ANTHROPIC, CHAT, RESPONSES, GEMINI = "anthropic", "openai-chat", "openai-responses", "gemini"
FAMILY = {ANTHROPIC: "anthropic", CHAT: "openai", RESPONSES: "openai", GEMINI: "gemini"}
"""What an account speaks, by what a call speaks."""

LONGEST_NAME = 200
_MOST_TOKENS = 1_000_000_000
_LARGEST_IMAGE = 2_000 * 4  # characters: as much text as an image costs, at the most
_ENCODED = re.compile(rb"[A-Za-z0-9+/=_-]{4096,}")
# What has arrived unquoted goes into an address again: nothing that would have to be quoted, no dots that climb.
_WORD = r"[A-Za-z0-9][A-Za-z0-9._@-]*"
_GEMINI_PATH = re.compile(rf"(v1|v1beta|v1alpha)/models/({_WORD}):([A-Za-z]+)")
_OPEN = re.compile(rf"(?:(?:v1|v1beta)/)?models(?:/{_WORD})*")
_TAILS = {
    "messages": (ANTHROPIC, False),
    "messages/count_tokens": (ANTHROPIC, True),
    "chat/completions": (CHAT, False),
    "responses": (RESPONSES, False),
    "responses/compact": (RESPONSES, False),
}


class Place(msgspec.Struct, frozen=True, kw_only=True):
    """What a path stands for."""

    dialect: str
    tail: str
    """what follows the base of an account"""
    free: bool = False
    """it costs nothing: counting tokens, listing models"""
    model: str = ""
    """where the path names it"""
    stream: bool = False


class Ask(msgspec.Struct, kw_only=True):
    """One call, as it was asked for."""

    place: Place
    model: str = ""
    stream: bool = False
    most_out: int | None = None
    """tokens that the answer may have; None: it does not say"""
    body: bytes = b""
    wants_usage: bool = True
    """an OpenAI stream is to tell its usage because the client wants that, not only we"""

    @property
    def chars(self) -> int:
        """About how much text goes in; an encoded image counts as what it costs, not as what it weighs."""
        images = [len(found) for found in map(bytes, _ENCODED.findall(self.body))]
        return len(self.body) - sum(max(0, size - _LARGEST_IMAGE) for size in images)


def locate(method: str, path: str, headers: Mapping[str, str]) -> Place | None:
    """What a path behind a route's address asks for; None: nothing that goes through here."""
    tail = path.strip("/")
    if method == "GET" and _OPEN.fullmatch(tail):
        gemini = "x-goog-api-key" in headers or tail.startswith("v1beta/")
        dialect = ANTHROPIC if "anthropic-version" in headers else GEMINI if gemini else CHAT
        return Place(dialect=dialect, tail=re.sub(r"^v1(?:beta)?/", "", tail), free=True)
    if method != "POST":
        return None
    if found := _GEMINI_PATH.fullmatch(tail):
        _, model, verb = found.groups()
        free, stream = verb == "countTokens", verb == "streamGenerateContent"
        if not (free or stream or verb == "generateContent"):
            return None
        return Place(dialect=GEMINI, tail=f"models/{model}:{verb}", model=model, stream=stream, free=free)
    known = _TAILS.get(tail.removeprefix("v1/"))
    return Place(dialect=known[0], tail=tail.removeprefix("v1/"), free=known[1]) if known else None


class _Config(msgspec.Struct, rename="camel"):
    max_output_tokens: int | None = None


class _Options(msgspec.Struct):
    include_usage: bool | None = None


class _Body(msgspec.Struct):
    """What we look at in a request, whatever its dialect."""

    model: str | None = None
    stream: bool | None = None
    max_tokens: int | None = None
    max_completion_tokens: int | None = None
    max_output_tokens: int | None = None
    stream_options: _Options | None = None
    generation_config: _Config | None = msgspec.field(default=None, name="generationConfig")


_body = msgspec.json.Decoder(_Body)


def read(place: Place, body: bytes) -> Ask:
    """What a call asks for. Raises ValueError, which says what is wrong with the body."""
    if not body and place.free:
        return Ask(place=place)
    try:
        found = _body.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as problem:
        raise ValueError(f"the body is no JSON that this call takes: {problem}") from None
    model = place.model or found.model or ""
    if not place.free and not model:
        raise ValueError("the body names no model")
    if len(model) > LONGEST_NAME or not model.isprintable():
        raise ValueError(f"the name of the model must be printable, with {LONGEST_NAME} characters at the most")
    limits = [found.max_tokens, found.max_completion_tokens, found.max_output_tokens]
    if found.generation_config is not None:
        limits.append(found.generation_config.max_output_tokens)
    given = [limit for limit in limits if limit is not None]
    most = min(max(0, given[0]), _MOST_TOKENS) if given else None
    stream = place.stream or bool(found.stream)
    asked = bool(found.stream_options and found.stream_options.include_usage)
    wants = asked or place.dialect != CHAT or not stream
    return Ask(place=place, model=model, stream=stream, most_out=most, body=body, wants_usage=wants)


def changed(ask: Ask, *, model: str = "", usage: bool = False) -> tuple[str, bytes]:
    """Tail and body for a call that asks for another model, or for its usage too. The same bytes if for neither.

    Raises ValueError for a body that cannot be written again.
    """
    place = ask.place
    if model and place.dialect == GEMINI:
        return place.tail.replace(f"models/{place.model}:", f"models/{model}:", 1), ask.body
    if not model and not usage:
        return place.tail, ask.body
    try:
        body = msgspec.json.decode(ask.body, type=dict[str, Any])
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as problem:
        raise ValueError(f"the body is no JSON that can be written again: {problem}") from None
    if model:
        body["model"] = model
    if usage:
        options = body.get("stream_options")
        body["stream_options"] = {**(options if isinstance(options, dict) else {}), "include_usage": True}
    return place.tail, msgspec.json.encode(body)


# -- being told to stop -------------------------------------------------------------------------------------------

UNAUTHORIZED, NOT_FOUND, BAD, TOO_LARGE, GONE = 401, 404, 400, 413, 502
_TRIES_401_AGAIN = re.compile(r"claude-cli/|claude-code/", re.IGNORECASE)
_GEMINI_WORD = {400: "INVALID_ARGUMENT", 401: "UNAUTHENTICATED", 404: "NOT_FOUND", 502: "UNAVAILABLE"}


def stopping_status(user_agent: str) -> int:
    """The status after which this client does not try again.

    Most give up on 401, and some of those try 400 again and again; Claude Code tries 401 again for minutes and gives up
    on 400.
    """
    return BAD if _TRIES_401_AGAIN.match(user_agent) else UNAUTHORIZED


def refusal(dialect: str, status: int, kind: str, message: str) -> bytes:
    """The body of an answer of ours, as the dialect writes errors; ``kind`` e.g. ``budget_exceeded``."""
    if dialect == ANTHROPIC:
        told: dict[str, Any] = {"type": "error", "error": {"type": kind, "message": message}}
    elif dialect == GEMINI:
        reason = {"@type": "type.googleapis.com/google.rpc.ErrorInfo", "reason": kind.upper(), "domain": "shopfloor"}
        word = _GEMINI_WORD.get(status, "FAILED_PRECONDITION")
        told = {"error": {"code": status, "message": message, "status": word, "details": [reason]}}
    else:
        told = {"error": {"message": message, "type": kind, "code": kind, "param": None}}
    return msgspec.json.encode(told)
