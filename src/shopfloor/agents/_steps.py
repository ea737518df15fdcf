"""What a server of the driver ``specs`` is asked for one spec, and what its answers mean.

    POST /spec/validate   the spec                        {"valid": bool}
    POST /generate        the spec                        {"code": str, "tests": [str], "error": str}
    POST /verify          {"code": …, "effect": …}        {"valid": bool}

Answers may say more; ``error`` and ``message`` are words for people, and are handed on as they are.
"""

from __future__ import annotations

import re
from collections.abc import Awaitable, Mapping, Sequence
from typing import Any, Protocol, TypeVar

import msgspec

from shopfloor.agents._connections import Reply
from shopfloor.ports import Answered

MOST_WORDS = 500
"""characters of what a server says"""
MOST_CODE = 60_000
"""characters of code and tests together"""
INVALID, MISMATCH = "Invalid specification", "Stack effect mismatch"
_DEFINITION = re.compile(r"\s*:\s+\S+\s+(?:\(\s[^)]*\)\s+)?(.*?)\s*;\s*", re.DOTALL)
_ELSEWHERE = frozenset({408, 425, 429})
_BUSY = frozenset({429, 503})

_encode = msgspec.json.Encoder().encode


class Fault(Exception):
    """A server did not do its part; another one may."""

    def __init__(self, what: str, words: str = "", *, rest_s: float | None = None, busy: bool = False) -> None:
        """``words``: what it said of this spec; ``rest_s``: what it asked for itself; ``busy``: it is too much."""
        super().__init__(_joined(what, words))
        self.what = what
        self.rest_s = rest_s
        self.busy = busy


class Asking(Protocol):
    """A server that can be asked for a step."""

    bodies: bool
    """its verifier takes the body of a definition, not the whole of it"""

    def ask(self, step: str, body: bytes) -> Awaitable[Reply]:
        """POST. Raises Unreachable."""
        ...

    def now(self) -> float:
        """Seconds."""
        ...


class _Words(msgspec.Struct):
    error: Any = None
    message: Any = None


class _Valid(_Words):
    valid: bool | None = None
    inferred: Any = None
    expected: Any = None


class _Generated(_Words):
    code: str | None = None
    tests: list[str] | None = None


_valid, _generated = msgspec.json.Decoder(_Valid), msgspec.json.Decoder(_Generated)
_words = msgspec.json.Decoder(_Words)
W = TypeVar("W", bound=_Words)


async def work(server: Asking, spec: Mapping[str, Any]) -> Answered:
    """All steps of one spec on one server. Raises Fault, and what the connection raises."""
    body, began, took = _encode(spec), server.now(), {}
    seen, at = _read(await server.ask("validate", body), "validate", _valid), server.now()
    took["validate_ms"] = _ms(at - began)
    if isinstance(seen, str) or not seen.valid:
        words = seen if isinstance(seen, str) else _said(seen)
        return _failed(_joined(INVALID, words), took, final=True)
    made, before, at = _read(await server.ask("generate", body), "generate", _generated), at, server.now()
    took["generate_ms"] = _ms(at - before)
    if isinstance(made, str):
        return _failed(made, took, final=True)
    if made.error:
        return _failed(_text(made.error), took)
    if not made.code:
        return _failed("its answer to POST /generate has no code", took)
    if (size := len(made.code) + sum(map(len, made.tests or ()))) > MOST_CODE:
        why = f"its answer to POST /generate has {size} characters, and {MOST_CODE} are the most that are kept"
        return _failed(why, took, final=True)
    verified, before = await _verify(server, made.code, spec.get("stack_effect")), at
    at = server.now()
    took["verify_ms"], took["latency_ms"] = _ms(at - before), _ms(at - began)
    if verified:
        return _failed(verified, took, final=True, code=made.code)
    return Answered(text=made.code, data={**took, "tests": made.tests} if made.tests else took)


async def _verify(server: Asking, code: str, effect: object) -> str:
    """Why the code is not what was asked for, empty when it is."""
    reply = await server.ask("verify", _encode({"code": body_of(code) if server.bodies else code, "effect": effect}))
    if reply.status == 400 and not server.bodies and (body := body_of(code)) != code:  # noqa: PLR2004 - bad request
        again = await server.ask("verify", _encode({"code": body, "effect": effect}))
        if again.status < 300:  # noqa: PLR2004 - where success ends
            server.bodies, reply = True, again
    seen = _read(reply, "verify", _valid)
    if isinstance(seen, str):
        return _joined(MISMATCH, seen)
    if seen.valid:
        return ""
    words = _said(seen)
    if not words and seen.inferred:
        words = f"it has {_text(seen.inferred)}, not {_text(seen.expected or effect)}"
    return _joined(MISMATCH, words)


def body_of(code: str) -> str:
    """What stands between ``: name ( … )`` and ``;``, and anything else as it is.

    A verifier that counts what words do takes the words of a definition itself for words that push.
    """
    found = _DEFINITION.fullmatch(code)
    return found[1] if found else code


def _read(reply: Reply, step: str, decoder: msgspec.json.Decoder[W]) -> W | str:
    """The answer; text when the server refuses what it was sent. Raises Fault."""
    if reply.status >= 300:  # noqa: PLR2004 - where success ends
        try:
            words = _said(_words.decode(reply.body))
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            words = ""
        words = words or reply.body[: 4 * MOST_WORDS].decode(errors="replace").strip()[:MOST_WORDS]
        what = f"answered {reply.status} to {step}"
        if reply.status >= 500 or reply.status in _ELSEWHERE:  # noqa: PLR2004 - where its own faults begin
            raise Fault(what, words, rest_s=_seconds(reply.rest_s), busy=reply.status in _BUSY)
        return _joined(what, words)
    try:
        return decoder.decode(reply.body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as problem:
        raise Fault(f"its answer to {step} is not as agreed", str(problem)[:MOST_WORDS]) from None


def _said(seen: _Words) -> str:
    return _text(seen.error or seen.message or "")


def _text(value: object) -> str:
    text = value if isinstance(value, str) else msgspec.json.encode(value).decode()
    return text[:MOST_WORDS]


def _joined(what: str, words: str) -> str:
    return f"{what}: {words}" if words else what


def _failed(why: str, took: dict[str, Any], *, final: bool = False, code: str = "") -> Answered:
    took.setdefault("latency_ms", round(sum(took.values()), 3))
    return Answered(failed=why, final=final, data={**took, "code": code} if code else took)


def _ms(seconds: float) -> float:
    return round(seconds * 1e6) / 1000  # whole numbers are rounded much sooner than decimals


def _seconds(text: str) -> float | None:
    try:
        return max(0.0, float(text))
    except ValueError:
        return None


def beside_s(answered: Answered) -> float:
    """Seconds that a spec took beside its code: what a server that is free spends next to nothing on."""
    took = answered.data
    return max(0.0, float(took.get("latency_ms", 0.0)) - float(took.get("generate_ms", 0.0))) / 1000.0


def where(url: str, before: Sequence[str]) -> dict[str, Any]:
    """On which server it ended, and which ones it left."""
    return {"url": url, "tries": len(before) + 1, "moved_from": list(before)} if before else {"url": url}
