"""The server: HTTP, the faults, and what is the same in every dialect."""

from __future__ import annotations

import gzip
import json
import math
import socket
import threading
import time
from collections.abc import Mapping
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import TracebackType
from typing import IO, Any, Self
from urllib.parse import urlsplit

from shopfloor.testing.model.anthropic import Anthropic
from shopfloor.testing.model.chat import Chat
from shopfloor.testing.model.gemini import Gemini
from shopfloor.testing.model.log import Log, Request, as_document
from shopfloor.testing.model.responses import Responses
from shopfloor.testing.model.script import Chosen, Scripts, check_scripts, choose
from shopfloor.testing.model.talk import JSON, Answer, Ask, Dialect, Ids

_MODELS = ("scripted", "claude-sonnet-4-5", "gpt-5", "gemini-2.5-flash")
_LAST_CHARS = 200
_COUNT = 1000
"""tokens, for whoever asks how many there are"""
_KINDS = {
    400: "invalid_request_error",
    401: "authentication_error",
    402: "billing_error",
    403: "permission_error",
    404: "not_found_error",
    413: "request_too_large",
    429: "rate_limit_error",
    529: "overloaded_error",
}
_DIALECTS: dict[str, Dialect] = {
    "/messages": Anthropic(),
    "/chat/completions": Chat(),
    "/responses": Responses(),
    ":generateContent": Gemini(),
    ":streamGenerateContent": Gemini(),
}


class Model:
    """The server, on a thread of its own while the context is open.

    ``port`` 0 takes a free one. ``scripts`` may be changed while it runs. ``log`` takes one JSON line a request;
    ``bodies`` says whether requests are kept with theirs. ``idle`` answers what has no marker. Raises ValueError for
    scripts that are off.
    """

    def __init__(
        self,
        scripts: Scripts | None = None,
        *,
        port: int = 0,
        log: Path | None = None,
        bodies: bool = True,
        idle: str = "ok",
    ) -> None:
        check_scripts(scripts or {})
        self.scripts = dict(scripts or {})
        self._idle, self._bodies, self._file = idle, bodies, log
        self._open: IO[str] | None = None
        self._server = _Server(self, port)
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True)
        self.port: int = self._server.server_address[1]
        self.url = f"http://127.0.0.1:{self.port}"
        """without a slash at its end: the paths of the dialects begin behind it"""

    def __enter__(self) -> Self:
        if self._file is not None:
            self._open = self._file.open("a", encoding="utf-8")
        self._server.log = Log(self._open)
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Every connection is closed, whatever it waits for."""
        self._server.end()
        self._thread.join()
        if self._open is not None:
            self._open.close()

    def requests(self, script: str | None = None) -> list[Request]:
        """What was asked so far, in order; only what a script answered when one is named."""
        return [request for request in self._server.log() if script in (None, request.script)]

    def serve(self) -> None:
        """Stay until interrupted."""
        self._thread.join()

    def chosen(self, ask: Ask) -> Chosen:
        """The step that answers."""
        return choose(self.scripts, ask, idle=self._idle)

    def kept(self, body: Any) -> Any:
        """A body as the log has it."""
        return body if self._bodies else None


class _Faults:
    """How often, and since when, each failing step has failed."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._times: dict[str, int] = {}
        self._since: dict[tuple[str, int], float] = {}

    def now(self, chosen: Chosen) -> float | None:
        """None when the step does not fail (any more); else the Unix seconds when it ends to, 0 when nobody knows."""
        plan = chosen.step.get("fail")
        if plan is None:
            return None
        with self._lock:
            if "for_s" in plan:
                end = self._since.setdefault((chosen.script, chosen.index), time.time()) + float(plan["for_s"])
                return end if time.time() < end else None
            if "times" not in plan:
                return 0.0
            key = f"{chosen.script} {chosen.index} {sorted(chosen.params.items())}"
            self._times[key] = self._times.get(key, 0) + 1
            return 0.0 if self._times[key] <= plan["times"] else None


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False
    request_queue_size = 128

    def __init__(self, model: Model, port: int) -> None:
        super().__init__(("127.0.0.1", port), _Handler)
        self.model = model
        self.log = Log(None)
        self.ids = Ids()
        self.faults = _Faults()
        self.ending = threading.Event()
        self._connections: set[socket.socket] = set()
        self._lock = threading.Lock()

    def process_request(self, request: Any, client_address: Any) -> None:
        with self._lock:
            self._connections.add(request)
        super().process_request(request, client_address)

    def shutdown_request(self, request: Any) -> None:
        with self._lock:
            self._connections.discard(request)
        super().shutdown_request(request)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that went away is no error of the server's; what is one shows as a cut connection."""

    def end(self) -> None:
        self.ending.set()
        self.shutdown()
        self.server_close()
        with self._lock:
            for connection in self._connections:
                with suppress(OSError):
                    connection.shutdown(socket.SHUT_RDWR)


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server_version = "scripted"
    disable_nagle_algorithm = True
    server: _Server

    def log_message(self, format: str, *args: Any) -> None:
        """The log is kept elsewhere."""

    def do_HEAD(self) -> None:
        self._note(status=200)
        self._reply(200, {})

    def do_GET(self) -> None:
        path = urlsplit(self.path).path
        if path == "/_log":
            self._reply(200, [as_document(request) for request in self.server.log()])
        elif path.endswith("/models"):
            self._note(status=200)
            self._reply(200, _models())
        else:
            self._unknown()

    def do_POST(self) -> None:
        path = urlsplit(self.path).path
        dialect = next((dialect for end, dialect in _DIALECTS.items() if path.endswith(end)), None)
        try:
            body = json.loads(self._body() or b"{}")
        except (ValueError, OSError) as error:
            body = error
        if path.endswith(("/count_tokens", ":countTokens")):
            self._note(status=200)
            self._reply(200, {"input_tokens": _COUNT, "totalTokens": _COUNT})
        elif dialect is None:
            self._unknown()
        elif not isinstance(body, dict):
            message = f"the body is no JSON object: {body}"
            self._note(status=400, dialect=dialect.name)
            self._reply(400, dialect.error(400, _KINDS[400], message, self.server.ids))
        else:
            self._answer(dialect, body, path)

    def _answer(self, dialect: Dialect, body: JSON, path: str) -> None:
        ask = dialect.read(body, path)
        chosen = self.server.model.chosen(ask)
        step = chosen.step
        failing_until = self.server.faults.now(chosen)
        failing = failing_until is not None
        self._note(
            dialect=dialect.name,
            model=ask.model,
            stream=ask.stream,
            script=chosen.script,
            step=chosen.index,
            params=chosen.params,
            turns=len(ask.turns),
            tools=tuple(tool.name for tool in ask.tools),
            last=ask.turns[-1].text[-_LAST_CHARS:] if ask.turns else "",
            status=step["fail"].get("status", 500) if failing else 200,
            body=self.server.model.kept(body),
        )
        self._wait(step.get("delay", 0))
        if failing_until is not None:
            self._fail(dialect, step["fail"], failing_until)
        elif ask.stream:
            self._stream(dialect.stream(ask, chosen.answer(ask), self.server.ids), step)
        else:
            self._whole(dialect, ask, chosen.answer(ask), step)

    def _fail(self, dialect: Dialect, plan: JSON, until: float) -> None:
        status = plan.get("status", 500)
        kind = plan.get("type") or plan.get("code") or _KINDS.get(status, "api_error")
        document = dialect.error(status, kind, plan.get("message", f"scripted {status}"), self.server.ids)
        if "code" in plan and isinstance(document["error"], dict) and "code" in document["error"]:
            document["error"]["code"] = plan["code"]
        words = {
            "{wait}": str(max(0, math.ceil(until - time.time()))),
            "{reset}": str(math.ceil(until)),
            "{reset_at}": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(math.ceil(until))),
        }
        headers = {}
        for name, value in plan.get("headers", {}).items():
            text = str(value)
            for word, meaning in words.items():
                text = text.replace(word, meaning)
            headers[name] = text
        self._reply(status, document, headers)

    def _whole(self, dialect: Dialect, ask: Ask, answer: Answer, step: JSON) -> None:
        data = json.dumps(dialect.whole(ask, answer, self.server.ids)).encode()
        self._head(200, {"content-type": "application/json", "content-length": str(len(data))})
        self._wait(step.get("hang", 0))
        if step.get("drop"):
            data, self.close_connection = data[: len(data) // 2], True
        self._write(data)

    def _stream(self, events: list[str], step: JSON) -> None:
        head = {"content-type": "text/event-stream", "cache-control": "no-cache", "transfer-encoding": "chunked"}
        self._head(200, head)
        self._wait(step.get("hang", 0))
        cut = max(1, len(events) // 2) if step.get("drop") else len(events)
        for event in events[:cut]:
            data = event.encode()
            self._write(b"%x\r\n%s\r\n" % (len(data), data))
            self._wait(step.get("slow", 0))
        if step.get("drop"):
            self.close_connection = True
        else:
            self._write(b"0\r\n\r\n")

    def _body(self) -> bytes:
        if "chunked" in self.headers.get("transfer-encoding", ""):
            data = b""
            while size := int(self.rfile.readline().split(b";")[0], 16):
                data += self.rfile.read(size)
                self.rfile.readline()
            self.rfile.readline()
        else:
            data = self.rfile.read(int(self.headers.get("content-length") or 0))
        return gzip.decompress(data) if self.headers.get("content-encoding") == "gzip" else data

    def _unknown(self) -> None:
        self._note(status=404)
        error = {"type": "not_found_error", "message": f"nothing is known of {self.path}"}
        self._reply(404, {"type": "error", "error": error})

    def _note(self, **what: Any) -> None:
        headers = {name.lower(): value for name, value in self.headers.items()}
        self.server.log.add(self.command, self.path, headers=headers, **what)

    def _wait(self, seconds: float) -> None:
        """Not beyond the end of the server."""
        if seconds and self.server.ending.wait(seconds):
            raise ConnectionAbortedError

    def _reply(self, status: int, document: Any, headers: Mapping[str, str] | None = None) -> None:
        data = json.dumps(document).encode()
        plain = {"content-type": "application/json", "content-length": str(len(data))}
        self._head(status, {**plain, **(headers or {})})
        if self.command != "HEAD":
            self._write(data)

    def _head(self, status: int, headers: Mapping[str, str]) -> None:
        self.send_response(status)
        self.send_header("request-id", self.server.ids("req_"))
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()

    def _write(self, data: bytes) -> None:
        self.wfile.write(data)


def _models() -> JSON:
    """What OpenAI, Anthropic and Gemini each look for, in one document."""
    known = [
        {
            "id": name,
            "name": f"models/{name}",
            "type": "model",
            "object": "model",
            "owned_by": "scripted",
            "display_name": name,
            "created": 0,
            "created_at": "2025-01-01T00:00:00Z",
        }
        for name in _MODELS
    ]
    ends = {"first_id": _MODELS[0], "last_id": _MODELS[-1], "has_more": False}
    return {"object": "list", "data": known, "models": known, **ends}
