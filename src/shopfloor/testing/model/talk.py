"""What is asked and what is answered, in no dialect."""

from __future__ import annotations

import itertools
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

JSON = dict[str, Any]


@dataclass(frozen=True)
class Turn:
    """One message: ``role`` is user, assistant, tool or system; ``text`` all that stands in it."""

    role: str
    text: str


@dataclass(frozen=True)
class Tool:
    """A tool that the agent offers."""

    name: str
    schema: Mapping[str, Any] = field(default_factory=dict)
    freeform: bool = False
    """it takes a text, not an object"""
    namespace: str = ""

    @property
    def properties(self) -> Mapping[str, Any]:
        """Its parameters by name."""
        found = self.schema.get("properties")
        return found if isinstance(found, Mapping) else {}


@dataclass(frozen=True)
class Ask:
    """One request to a model."""

    model: str
    stream: bool
    turns: tuple[Turn, ...]
    tools: tuple[Tool, ...]
    system: str
    usage: bool = True
    """it wants to know the tokens in a stream too"""

    def tool(self, name: str) -> Tool | None:
        """The tool of exactly this name."""
        return next((tool for tool in self.tools if tool.name == name), None)


@dataclass(frozen=True)
class Call:
    """One use of a tool; a text for a tool that takes one."""

    name: str
    arguments: JSON | str


@dataclass(frozen=True)
class Usage:
    """Tokens: ``fresh`` are those in that came neither from the cache nor went to it; ``out`` is with ``thought``."""

    fresh: int = 1000
    out: int = 50
    cached: int = 0
    written: int = 0
    thought: int = 0

    @property
    def all_in(self) -> int:
        """Every token that went in."""
        return self.fresh + self.cached + self.written


@dataclass(frozen=True)
class Answer:
    """One turn of the model."""

    text: str
    calls: tuple[Call, ...] = ()
    usage: Usage = Usage()
    stop: str = ""
    """as Anthropic calls it; empty: the plain end of such a turn"""


class Ids:
    """Names for messages and calls that no other server has given."""

    def __init__(self) -> None:
        self._start = format(time.time_ns() // 1000, "x")
        self._next: Iterator[int] = itertools.count(1)

    def __call__(self, prefix: str) -> str:
        """A new one."""
        return f"{prefix}{self._start}{next(self._next):06d}"


class Dialect(Protocol):
    """One way to speak to a model."""

    name: str

    def read(self, body: JSON, path: str) -> Ask:
        """What a request asks."""
        ...

    def whole(self, ask: Ask, answer: Answer, ids: Ids) -> JSON:
        """The answer as one document."""
        ...

    def stream(self, ask: Ask, answer: Answer, ids: Ids) -> list[str]:
        """The answer as server-sent events, each framed."""
        ...

    def error(self, status: int, kind: str, message: str, ids: Ids) -> JSON:
        """An error's document; ``kind`` as Anthropic calls it."""
        ...


def all_text(node: Any) -> str:
    """Every text under a message, joined."""
    if isinstance(node, str):
        return node
    if isinstance(node, list):
        return "\n".join(filter(None, map(all_text, node)))
    if isinstance(node, dict):
        return "\n".join(all_text(node[key]) for key in ("text", "content", "parts", "output") if key in node)
    return ""


def objects(node: Any) -> list[JSON]:
    """The objects in a list that may be missing, or something else."""
    return [item for item in node if isinstance(item, dict)] if isinstance(node, list) else []
