"""What was asked of the server."""

from __future__ import annotations

import dataclasses
import json
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

CREDENTIALS = ("x-api-key", "x-goog-api-key", "authorization", "proxy-authorization")
SHOWN_CHARS = 6
"""of a credential, in a file"""


@dataclass(frozen=True)
class Request:
    """One request, when it had been read and before it was answered."""

    method: str
    path: str
    """with its query"""
    at: float
    """wall seconds"""
    dialect: str = ""
    """anthropic, chat, responses, gemini; empty for anything else"""
    model: str = ""
    stream: bool = False
    script: str = ""
    """empty: it had no marker"""
    step: int = -1
    params: Mapping[str, str] = field(default_factory=dict)
    """of the marker"""
    turns: int = 0
    tools: tuple[str, ...] = ()
    last: str = ""
    """the end of the last turn"""
    status: int = 200
    """what it is answered"""
    headers: Mapping[str, str] = field(default_factory=dict)
    """names in lower case"""
    body: Any = None
    """None where bodies are not kept"""

    @property
    def credential(self) -> str:
        """The key or token that was shown, without ``Bearer``; empty: none."""
        found = next((self.headers[name] for name in CREDENTIALS if name in self.headers), "")
        return found.removeprefix("Bearer ")


class Log:
    """Every request in order; in a file too when one is given."""

    def __init__(self, file: IO[str] | None) -> None:
        self._file = file
        self._lock = threading.Lock()
        self._requests: list[Request] = []

    def add(self, method: str, path: str, **what: Any) -> None:
        """Note a request. The file shows only the end of a credential."""
        request = Request(method, path, time.time(), **what)
        with self._lock:
            self._requests.append(request)
            if self._file is not None:
                self._file.write(json.dumps(as_document(request)) + "\n")
                self._file.flush()

    def __call__(self) -> list[Request]:
        """All of them so far."""
        with self._lock:
            return list(self._requests)


def as_document(request: Request) -> dict[str, Any]:
    """A request for a file or a page."""
    headers = {
        name: "…" + value[-SHOWN_CHARS:] if name in CREDENTIALS else value for name, value in request.headers.items()
    }
    return {**dataclasses.asdict(request), "headers": headers}


def read_log(path: Path) -> list[Request]:
    """The requests in a file that a server wrote; the credentials are not whole."""
    found = []
    for line in path.read_text(encoding="utf-8").splitlines():
        document = json.loads(line)
        document["tools"] = tuple(document["tools"])
        found.append(Request(**document))
    return found
