"""A small MCP server on stdio, which says who it works for."""

import json
import os
import sys

for line in sys.stdin:
    asked = json.loads(line)
    answer: dict[str, object] = {"content": [{"type": "text", "text": os.environ.get("WHO", "")}]}
    if asked["method"] == "initialize":
        answer = {"protocolVersion": "2025-06-18", "capabilities": {}, "serverInfo": {"name": "board", "version": "1"}}
    sys.stdout.write(json.dumps({"jsonrpc": "2.0", "id": asked["id"], "result": answer}) + "\n")
    sys.stdout.flush()
