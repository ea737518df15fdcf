"""Model traffic on a file: recorded once, played as often as anybody likes, without a network and for nothing.

One JSON object a line; the first says what the file is. A request is found again by a digest of what was said in it,
without what differs from run to run: paths, ids, times, numbers with many digits. Of a request nothing is kept but the
digest and the beginning of its last words; known keys, and what only the agents were given, are masked in everything.
"""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import msgspec

from shopfloor.config.accounts import Account
from shopfloor.domain.errors import NotFound, Refused, UsageError
from shopfloor.domain.names import one_line
from shopfloor.gateway.dialects import Ask
from shopfloor.gateway.upstream import Answer, Upstream
from shopfloor.masking import Masker

VERSION = 1
LONGEST_LINE = 64 << 20
_ABOUT_CHARS = 120
_KEPT = frozenset({"content-type", "retry-after"})

AGAIN = "what is asked now is not what was asked then: record it anew, with --record FILE"

_DAYS, _MONTHS = "Mon|Tue|Wed|Thu|Fri|Sat|Sun", "Jan|Feb|Mar|Apr|May|Jun|Jul|Aug|Sep|Oct|Nov|Dec"
_CLOCK = r"[0-9]{1,2}:[0-9]{2}(?::[0-9]{2}(?:[.,][0-9]+)?)?(?: [AP]M)?"
_VOLATILE = (
    (re.compile(r"\bsf-[A-Za-z0-9_-]{32}(?![A-Za-z0-9_-])"), "<token>"),
    (re.compile(r"/w/[A-Za-z0-9_-]{32}(?![A-Za-z0-9_-])"), "/w/<way>"),
    (re.compile(r"[0-9a-fA-F]{8}-(?:[0-9a-fA-F]{4}-){3}[0-9a-fA-F]{12}"), "<uuid>"),
    (re.compile(r"\b[a-z]+-[a-z0-9]+(?:-[a-z0-9]+)*\.a[0-9]+\b"), "<attempt>"),
    (re.compile(r"\bshopfloor/[a-z0-9][a-z0-9._-]*-[a-z0-9]{5,}(?:-[0-9]+)?\b"), "<branch>"),
    (re.compile(r"\b(?:wo|run|msg|evt)-[a-z0-9]{4,}\b"), "<id>"),
    (re.compile(r"(?:/[^\s/'\"`<>:;,()\[\]{}|*?]+)+/"), "/…/"),
    (re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}(?:[T ][0-9]{2}:[0-9:]+(?:[.,][0-9]+)?(?:Z|[+-][0-9:]+)?)?"), "<time>"),
    (re.compile(r"\b[0-9a-f]*(?:[0-9][a-f]|[a-f][0-9])[0-9a-f]*\b"), "<hex>"),
    # As `date`, `git log` and `ls -l` write them.
    (re.compile(rf"\b(?:{_DAYS}),? +(?=[0-9]{{1,2}} +(?:{_MONTHS})\b|(?:{_MONTHS}) +[0-9])"), ""),
    (
        re.compile(rf"\b(?:{_MONTHS}) +[0-9]{{1,2}} +(?:{_CLOCK}(?: +[A-Z]{{2,5}})?(?: +[0-9]{{4}})?|[0-9]{{4}})"),
        "<time>",
    ),
    (re.compile(rf"\b[0-9]{{1,2}} +(?:{_MONTHS}) +[0-9]{{4}}(?:,? +{_CLOCK}(?: +[A-Z]{{2,5}})?)?"), "<time>"),
    (re.compile(rf"\b{_CLOCK}(?![0-9:])"), "<time>"),
    (re.compile(r"\bslot-[0-9]{2,}\b"), "<slot>"),
    (re.compile(r"[0-9]+\.[0-9]+|[0-9]{4,}"), "<number>"),
    (re.compile(r"\s+"), " "),
)


class Head(msgspec.Struct, kw_only=True):
    """The first line."""

    cassette: int


class Take(msgspec.Struct, kw_only=True, omit_defaults=True):
    """One request and its answer."""

    digest: str
    dialect: str
    model: str
    about: str
    """how the last words of the request begin, for people"""
    status: int
    headers: dict[str, str] = msgspec.field(default_factory=dict)
    text: str = ""
    raw: bytes = b""
    """instead of text where it is none; base64"""

    @property
    def body(self) -> bytes:
        """What was answered."""
        return self.raw or self.text.encode()


def plain(text: str) -> str:
    """A text without what differs from run to run."""
    for pattern, instead in _VOLATILE:
        text = pattern.sub(instead, text)
    return text.strip()


def said(body: bytes) -> list[str]:
    """What is said in a request, message by message: who, and every text. Raises ValueError for what is no request."""
    try:
        found = msgspec.json.decode(body, type=dict[str, Any])
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as problem:
        raise ValueError(f"the body is no JSON object: {problem}") from None
    messages: object = next((found[name] for name in ("messages", "input", "contents") if found.get(name)), [])
    items = messages if isinstance(messages, list) else [messages]
    spoken = [item for item in items if not (isinstance(item, dict) and item.get("role") in ("system", "developer"))]
    return ["\n".join(_texts(item, 0)) for item in spoken]


_SILENT = frozenset({"id", "call_id", "tool_use_id", "tool_call_id", "signature", "thoughtSignature", "cache_control"})
_DEEPEST = 40


def _texts(value: object, depth: int) -> list[str]:
    """Every text in a message, in an order that does not depend on how it was written."""
    if isinstance(value, str):
        return [plain(value)]
    if depth > _DEEPEST:
        return []
    if isinstance(value, list):
        return [text for item in value for text in _texts(item, depth + 1)]
    if isinstance(value, dict):
        names = sorted(name for name in value if name not in _SILENT)
        return [text for name in names for text in _texts(value[name], depth + 1)]
    return []


def digest(ask: Ask) -> tuple[str, str]:
    """The digest of a request, and how its last words begin. Raises ValueError for what is no request."""
    messages = said(ask.body) if ask.body else []
    tools = b'"tools"' in ask.body and not re.search(rb'"tools"\s*:\s*(?:\[\s*\]|null)', ask.body)
    facts = [ask.place.dialect, ask.place.tail.partition(":")[2], ask.model, str(ask.stream), str(tools), *messages]
    last = messages[-1] if messages else ""
    about = one_line(last, _ABOUT_CHARS)
    return hashlib.sha256(msgspec.json.encode(facts)).hexdigest()[:32], about


class Recorder:
    """Takes down what passes through it to the model servers and back."""

    def __init__(self, live: Upstream, path: Path, masker: Callable[[], Masker]) -> None:
        """``masker`` knows the secrets of its moment. Raises Refused for a file that cannot be made, or is another."""
        self._live, self._masker = live, masker
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._file = os.open(path, os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as problem:
            raise Refused(f"cannot record to {str(path)!r}: {problem.strerror}") from problem
        try:
            if os.fstat(self._file).st_size:
                load(path)
                _cut_torn(self._file)
            else:
                os.write(self._file, msgspec.json.encode(Head(cassette=VERSION)) + b"\n")
        except UsageError as problem:
            os.close(self._file)
            raise Refused(problem.message, hint="name another file, or remove that one") from problem

    async def close(self) -> None:
        """Sync the file and close everything."""
        os.fsync(self._file)
        os.close(self._file)
        await self._live.close()

    @asynccontextmanager
    async def send(
        self, ask: Ask, account: Account, *, tail: str, query: str, headers: Mapping[str, str], body: bytes
    ) -> AsyncIterator[Answer]:
        """As the model server answers; written down once the answer is whole. Raises ValueError as `digest` does."""
        found = digest(ask)
        async with self._live.send(ask, account, tail=tail, query=query, headers=headers, body=body) as answer:
            yield _Recorded(answer, lambda got: self._take(ask, found, answer, got))

    def _take(self, ask: Ask, found: tuple[str, str], answer: Answer, got: bytes) -> None:
        key, about = found
        masker = self._masker()
        body = masker.data(got)
        take = Take(
            digest=key,
            dialect=ask.place.dialect,
            model=ask.model,
            about=masker.text(about),
            status=answer.status,
            headers={name: value for name, value in answer.headers.items() if name in _KEPT},
        )
        try:
            take.text = body.decode()
        except UnicodeDecodeError:
            take.raw = body
        os.write(self._file, msgspec.json.encode(take) + b"\n")


def _cut_torn(file: int) -> None:
    """Take away a last line that was not written to its end: its answer is not whole."""
    at = size = os.fstat(file).st_size
    while at and os.pread(file, 1, at - 1) != b"\n":
        at -= 1
    if at < size:
        os.ftruncate(file, at)


class _Recorded:
    def __init__(self, answer: Answer, done: Callable[[bytes], None]) -> None:
        self._answer, self._done = answer, done
        self.status, self.headers = answer.status, answer.headers

    async def pieces(self) -> AsyncIterator[bytes]:
        got = bytearray()
        async for piece in self._answer.pieces():
            got += piece
            yield piece
        self._done(bytes(got))


class _Played:
    def __init__(self, take: Take) -> None:
        self._take = take
        self.status, self.headers = take.status, take.headers

    async def pieces(self) -> AsyncIterator[bytes]:
        yield self._take.body


class Player:
    """Answers from a cassette. The same request asked again gets the next answer to it; the last one stays."""

    def __init__(self, path: Path) -> None:
        """Raises NotFound and UsageError."""
        self._name = str(path)
        self._takes: dict[str, list[Take]] = {}
        for take in load(path):
            self._takes.setdefault(take.digest, []).append(take)

    async def close(self) -> None:
        """Nothing is open."""

    @asynccontextmanager
    async def send(
        self, ask: Ask, account: Account, *, tail: str, query: str, headers: Mapping[str, str], body: bytes
    ) -> AsyncIterator[Answer]:
        """The recorded answer. Raises NotFound, which names the request, when there is none."""
        key, about = digest(ask)
        takes = self._takes.get(key)
        if not takes:
            raise NotFound(
                f"{self._name!r} has no answer to this request: {ask.place.dialect}, model {ask.model!r}, "
                f"digest {key}, which says at last: {about!r}",
                hint=AGAIN,
            )
        yield _Played(takes.pop(0) if len(takes) > 1 else takes[0])


def load(path: Path) -> list[Take]:
    """Every take of a file; a torn last line counts as none. Raises NotFound, and UsageError that names the line."""
    found: list[Take] = []
    try:
        with path.open("rb") as file:
            for number, line in enumerate(iter(lambda: file.readline(LONGEST_LINE), b""), 1):
                if not line.endswith(b"\n"):
                    if number == 1 or len(line) >= LONGEST_LINE:
                        raise UsageError(f"{str(path)!r}:{number}: is no line of a cassette")
                    break
                try:
                    if number > 1:
                        found.append(msgspec.json.decode(line, type=Take))
                    elif (head := msgspec.json.decode(line, type=Head)).cassette != VERSION:
                        raise UsageError(f"{str(path)!r} is a cassette of version {head.cassette}, not {VERSION}")
                except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as problem:
                    raise UsageError(f"{str(path)!r}:{number}: is no line of a cassette: {problem}") from None
    except FileNotFoundError:
        raise NotFound(f"there is no cassette {str(path)!r}", hint="record one with --record FILE") from None
    except OSError as problem:
        raise UsageError(f"cannot read the cassette {str(path)!r}: {problem.strerror}") from problem
    return found
