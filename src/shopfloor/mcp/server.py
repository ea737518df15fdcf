"""An MCP server on stdin and stdout: JSON-RPC, one message a line.

It starts with next to no imports, because every start of it is part of an agent's start.
"""

from __future__ import annotations

import json
import sys
import threading
from collections.abc import Mapping
from typing import IO, Any

from shopfloor._version import __version__
from shopfloor.config import environment
from shopfloor.domain.errors import ShopfloorError
from shopfloor.mcp.verbs import INSTRUCTIONS, VERBS, schema, speak

PROTOCOLS = ("2025-11-25", "2025-06-18", "2025-03-26", "2024-11-05")
"""Versions of MCP that differ in nothing that is used here, the newest first."""
LINE_LIMIT = 1 << 20
PARSE, INVALID, NO_METHOD, PARAMETERS = -32700, -32600, -32601, -32602


class Server:
    """Answers one client until its stdin ends."""

    def __init__(self, out: IO[bytes], variables: Mapping[str, str]) -> None:
        self._out = out
        self._variables = variables
        self._writing = threading.Lock()

    def serve(self, lines: IO[bytes]) -> None:
        """Answer every line until the last."""
        while line := lines.readline(LINE_LIMIT):
            if not line.endswith(b"\n") and len(line) == LINE_LIMIT:
                while (rest := lines.readline(LINE_LIMIT)) and not rest.endswith(b"\n"):
                    continue
                self._fail(None, INVALID, f"a message is longer than {LINE_LIMIT} bytes")
            elif line.strip():
                self.hear(line)

    def hear(self, line: bytes) -> None:
        """Answer one line, unless it is a notification or a reply."""
        try:
            message = json.loads(line)
        except (ValueError, RecursionError):
            self._fail(None, PARSE, "that is no JSON")
            return
        if not isinstance(message, dict):
            self._fail(None, INVALID, "that is no JSON-RPC message: an object is expected")
            return
        if "id" not in message or "method" not in message:
            return  # a notification, or a reply to what we never ask
        name, method, params = message["id"], message["method"], message.get("params") or {}
        if not isinstance(name, str | int) or not isinstance(method, str) or not isinstance(params, dict):
            self._fail(None, INVALID, "id is a text or a number, method a text, params an object")
        elif method == "initialize":
            self._reply(name, _hello(params))
        elif method == "ping":
            self._reply(name, {})
        elif method == "tools/list":
            self._reply(name, {"tools": TOOLS})
        elif method == "tools/call":
            self._call(name, params)
        else:
            self._fail(name, NO_METHOD, f"there is no method {method[:100]!r} here")

    def _call(self, name: str | int, params: Mapping[str, Any]) -> None:
        what, arguments = params.get("name"), params.get("arguments") or {}
        if not isinstance(what, str) or what not in VERBS or not isinstance(arguments, dict):
            self._fail(name, PARAMETERS, f"there is no tool {str(what)[:100]!r}; there are {', '.join(VERBS)}")
        elif arguments.get("wait_s"):
            # A long wait must not keep the client from being answered meanwhile.
            threading.Thread(target=self._speak, args=(name, what, arguments), daemon=True).start()
        else:
            self._speak(name, what, arguments)

    def _speak(self, name: str | int, what: str, arguments: Mapping[str, Any]) -> None:
        try:
            reply = speak(what, arguments, self._variables)
        except ShopfloorError as problem:
            text = problem.message + (f" ({problem.hint})" if problem.hint else "")
            self._reply(name, {"content": [{"type": "text", "text": text}], "isError": True})
            return
        self._reply(name, {"content": [{"type": "text", "text": str(reply.get("text", ""))}], "isError": False})

    def _reply(self, name: str | int, result: Mapping[str, Any]) -> None:
        self._write({"jsonrpc": "2.0", "id": name, "result": result})

    def _fail(self, name: str | int | None, code: int, text: str) -> None:
        self._write({"jsonrpc": "2.0", "id": name, "error": {"code": code, "message": text}})

    def _write(self, message: Mapping[str, Any]) -> None:
        line = json.dumps(message).encode() + b"\n"  # escapes make it ASCII, so that any text can be written
        with self._writing:
            self._out.write(line)
            self._out.flush()


def _hello(params: Mapping[str, Any]) -> dict[str, Any]:
    wanted = params.get("protocolVersion")
    return {
        "protocolVersion": wanted if wanted in PROTOCOLS else PROTOCOLS[0],
        "capabilities": {"tools": {}},
        "serverInfo": {"name": "shopfloor", "version": __version__},
        "instructions": INSTRUCTIONS,
    }


TOOLS = [{"name": name, "description": verb.about, "inputSchema": schema(verb)} for name, verb in VERBS.items()]


def main() -> int:
    """Serve on this process's own streams."""
    try:
        Server(sys.stdout.buffer, environment()).serve(sys.stdin.buffer)
    except (BrokenPipeError, KeyboardInterrupt):
        sys.stderr.close()
    return 0
