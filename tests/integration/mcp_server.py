"""A small MCP server on stdio, whose one tool says who it works for."""

import json
import os
import sys

CLAIM = {"name": "claim", "description": "Says who you are.", "inputSchema": {"type": "object", "properties": {}}}
ANSWERS: dict[str, dict[str, object]] = {
    "initialize": {
        "protocolVersion": "2025-06-18",
        "capabilities": {"tools": {}},
        "serverInfo": {"name": "board", "version": "1"},
    },
    "tools/list": {"tools": [CLAIM]},
    "tools/call": {"content": [{"type": "text", "text": os.environ.get("WHO", "")}]},
}

for line in sys.stdin:
    asked = json.loads(line)
    if "id" not in asked:
        continue  # a notification
    method = asked["method"]
    known = {"result": ANSWERS[method]} if method in ANSWERS else {"error": {"code": -32601, "message": "not here"}}
    sys.stdout.write(json.dumps({"jsonrpc": "2.0", "id": asked["id"], **known}) + "\n")
    sys.stdout.flush()
