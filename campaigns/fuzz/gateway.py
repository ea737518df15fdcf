"""What passes the gateway: requests of workers, answers and refusals of model servers, however they are cut."""

from __future__ import annotations

from typing import Any

from campaigns.fuzz.mutate import Mutator, cut
from campaigns.fuzz.target import READ, REFUSED, Target, chance, harmless, holds
from shopfloor.gateway.cassette import digest
from shopfloor.gateway.dialects import CHAT, FAMILY, LONGEST_NAME, Place, changed, locate, read
from shopfloor.gateway.quota import LONGEST_S, verdict
from shopfloor.gateway.stream import WithoutUsage
from shopfloor.gateway.usage import Meter, Usage

NOW = 1_767_700_800.0
DIALECTS = tuple(FAMILY)
MOST = 1 << 32

BODIES: tuple[dict[str, Any], ...] = (
    {"model": "m", "max_tokens": 5, "messages": [{"role": "user", "content": "wo-a1b2 in /tmp/x/y"}]},
    {"model": "m", "stream": True, "stream_options": {"include_usage": False}, "tools": [{"name": "bash"}],
     "messages": [{"role": "tool", "tool_call_id": "c", "content": [{"type": "text", "text": "1.5 s"}]}]},
    {"model": "m", "input": [{"type": "function_call_output", "call_id": "c", "output": "ok"}], "max_output_tokens": 1},
    {"contents": [{"parts": [{"text": "hi"}]}], "generationConfig": {"maxOutputTokens": 7}},
)  # fmt: skip
ANSWERS: tuple[dict[str, Any], ...] = (
    {"type": "message_start", "message": {"model": "m", "usage": {"input_tokens": 10, "output_tokens": 1}}},
    {"type": "content_block_delta", "delta": {"type": "text_delta", "text": "data: {}\n\n"}},
    {"type": "message_delta", "usage": {"output_tokens": 30, "cache_creation": {"ephemeral_1h_input_tokens": 3}}},
    {"choices": [{"delta": {"content": "hi", "tool_calls": [{"function": {"arguments": "{}"}}]}}], "usage": None},
    {"choices": [], "usage": {"prompt_tokens": 5, "prompt_tokens_details": {"cached_tokens": 9}}},
    {"type": "response.completed", "response": {"usage": {"input_tokens": 1, "output_tokens": 2}}},
    {"candidates": [{"content": {"parts": [{"text": "x"}]}}], "usageMetadata": {"promptTokenCount": 4}},
)
ERRORS: tuple[dict[str, Any], ...] = (
    {"error": {"type": "rate_limit_error", "message": "slow down", "resets_in_seconds": 5.5}},
    {"error": {"code": 429, "status": "RESOURCE_EXHAUSTED", "details": [{"retryDelay": "34s"}]}},
    {"error": {"code": "insufficient_quota", "message": "You exceeded your current quota", "resets_at": NOW + 9}},
)
HEADERS = (
    *("retry-after", "retry-after-ms", "anthropic-ratelimit-unified-reset", "x-ratelimit-reset-tokens"),
    *("anthropic-ratelimit-unified-status", "x-ratelimit-remaining-tokens", "anthropic-ratelimit-tokens-reset"),
)
WORDS = ("7", "1m30s", "rejected", "0", "Fri, 15 Jan 2027 08:00:30 GMT", "2026-01-06T12:00:09Z", "1767700809")


def _body(m: Mutator) -> bytes:
    return m.json(m.random.choice(BODIES))


def _check_request(data: bytes) -> str:
    """Read, or refused with a reason; what is read can be written down, asked for anew, and found again."""
    random = chance(data)
    gemini = Place(dialect=DIALECTS[3], tail="models/g:generateContent", model="g")
    place = random.choice([Place(dialect=CHAT, tail="chat/completions"), gemini])
    try:
        ask = read(place, data)
        tail, body = changed(ask, model="other", usage=place.dialect == CHAT)
        key, about = digest(ask)
    except ValueError as problem:
        holds(str(problem), "a refusal without a reason")
        return REFUSED
    harmless(ask.model, "a model's name")
    harmless(about, "what a request is about")
    holds(len(ask.model) <= LONGEST_NAME, "a long name", ask.model)
    holds(ask.most_out is None or 0 <= ask.most_out < MOST, "a limit that is none", ask.most_out)
    holds(0 <= ask.chars <= len(data), "more text than there is", ask.chars)
    again = read(place, body) if place is not gemini else ask
    holds(place is gemini or (again.model == "other" and again.wants_usage), "another request", again.model)
    holds(digest(ask) == (key, about), "a digest that changes")
    holds("other" in tail or place is not gemini, "the path names another model", tail)
    return READ


def _stream(m: Mutator) -> bytes:
    frames = []
    for _ in range(m.random.randint(1, 8)):
        data = m.json(m.random.choice(ANSWERS))
        end = m.random.choice((b"\n", b"\n", b"\r\n"))
        frames.append(m.random.choice((b"", b"event: x" + end)) + b"data: " + data + end + m.random.choice((end, b"")))
    return b"".join(frames)


def _metered(dialect: str, pieces: list[bytes]) -> tuple[Usage, bool, str]:
    meter = Meter(dialect)
    for piece in pieces:
        meter.feed(piece)
    return *meter.result(lambda: 7), meter.model


def _check_usage(data: bytes) -> str:
    """Usage does not depend on how a stream was cut, and is never absurd; what is taken out of it neither."""
    random = chance(data)
    pieces = cut(data, random)
    for dialect in DIALECTS:
        found = _metered(dialect, [data])
        holds(found == _metered(dialect, pieces), "usage depends on how it came", dialect)
        usage, _, model = found
        counts = (usage.fresh, usage.cached, usage.written, usage.written_1h, usage.out)
        holds(all(0 <= count < MOST for count in counts), "absurd usage", usage)
        harmless(model, "a model's name")
        meter = Meter(dialect)
        meter.whole(data)
        holds(meter.usage.into >= 0, "absurd usage", meter.usage)
    outs = []
    for parts in ([data], pieces):
        without = WithoutUsage()
        outs.append(b"".join(map(without.feed, parts)) + without.close())
    holds(outs[0] == outs[1], "what is taken out depends on how it came")
    holds(len(outs[0]) <= len(data), "something was put in")
    return READ if outs[0] == data else REFUSED


def _check_quota(data: bytes) -> str:
    """A refusal is understood or not, but never closes an account for ever, or into the past."""
    random = chance(data)
    lines = data.decode("utf-8", "replace").splitlines() or [""]
    headers = {name: random.choice((*WORDS, random.choice(lines))) for name in HEADERS if random.random() < 0.4}
    found = verdict(random.choice((400, 402, 403, 429)), headers, data, NOW)
    if found is None:
        return REFUSED
    harmless(found.why, "why")
    holds(found.why, "closed without a word")
    holds(found.reset_at is None or NOW < found.reset_at <= NOW + LONGEST_S, "a reset that is none", found)
    return READ


def _refusal(m: Mutator) -> bytes:
    return m.json(m.random.choice(ERRORS))


def _path(m: Mutator) -> bytes:
    good = random_path(m)
    return m.data(good, (good, b"v1/messages"))


def random_path(m: Mutator) -> bytes:
    """One of the paths that there are."""
    return m.random.choice((b"v1/messages", b"v1beta/models/g-1:generateContent", b"chat/completions", b"v1/models/x"))


def _check_path(data: bytes) -> str:
    """A path stays behind the base of its account."""
    place = locate(chance(data).choice(("POST", "GET")), data.decode("utf-8", "replace"), {})
    if place is None:
        return REFUSED
    holds(".." not in place.tail.split("/"), "it climbs out", place.tail)
    holds(not place.tail.startswith("/") and "\n" not in place.tail and "?" not in place.tail, "odd", place.tail)
    return READ


TARGETS = (
    Target("gateway-request", _body, _check_request, 6),
    Target("gateway-usage", _stream, _check_usage, 6),
    Target("gateway-refusal", _refusal, _check_quota, 4),
    Target("gateway-path", _path, _check_path, 2),
)
