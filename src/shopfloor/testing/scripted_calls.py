"""What the scripted agent calls: a model, and a tool of the floor. A file of its own: both take a while to load."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from http.client import HTTPConnection
from typing import Any
from urllib.parse import urlsplit

MOST = 10_000
"""characters of an answer"""


def ask_model(text: str) -> tuple[int, str]:
    """One call in the Anthropic dialect: the status, and the answer's text or the error's."""
    place = urlsplit(os.environ.get("SCRIPTED_MODEL_URL", ""))
    body = {"model": "claude-sonnet-4-5", "max_tokens": 100, "messages": [{"role": "user", "content": text}]}
    connection = HTTPConnection(place.netloc, timeout=60)
    key = {"x-api-key": os.environ.get("SCRIPTED_MODEL_KEY", "")}
    connection.request("POST", f"{place.path}/v1/messages", json.dumps(body), key)
    response = connection.getresponse()
    return response.status, response.read(MOST).decode(errors="replace")


def call_tool(tool: str, arguments: dict[str, Any]) -> tuple[str, int]:
    """As an agent that speaks MCP does it: by a server started for the call. What it said, and 1 for an error."""
    hello = {"protocolVersion": "2025-11-25", "capabilities": {}, "clientInfo": {"name": "scripted", "version": "1"}}
    calls = [("initialize", hello), ("tools/call", {"name": tool, "arguments": arguments})]
    lines = [
        json.dumps({"jsonrpc": "2.0", "id": number, "method": method, "params": params}) + "\n"
        for number, (method, params) in enumerate(calls)
    ]
    words = [sys.executable, "-P", "-m", "shopfloor", "mcp"]
    with subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as server:
        assert server.stdin is not None
        assert server.stdout is not None
        server.stdin.write("".join(lines))
        server.stdin.flush()
        answers = [json.loads(server.stdout.readline() or "{}") for _ in lines]
        server.stdin.close()
    result = answers[-1].get("result") or {"isError": True, "content": [{"text": str(answers[-1].get("error"))}]}
    return "".join(str(part.get("text", "")) for part in result["content"]), int(result["isError"])
