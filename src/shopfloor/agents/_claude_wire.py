"""Claude Code's stream-json: the lines that it is told, and what of its lines can be read without a memory."""

from __future__ import annotations

import json
from typing import Any

INIT = "initialize"
LOOKING = frozenset(
    {
        *("Agent", "AskUserQuestion", "BashOutput", "Glob", "Grep", "LS", "ListAgents", "NotebookRead", "Read"),
        *("Skill", "Task", "TaskOutput", "TodoWrite", "ToolSearch", "WebFetch", "WebSearch"),
    }
)
"""Tools that change nothing themselves: a run in which only these worked has done nothing."""


def control(key: str, subtype: str, **fields: Any) -> bytes:
    """A request to the program itself."""
    return _line({"type": "control_request", "request_id": key, "request": {"subtype": subtype, **fields}})


def user(text: str, key: str) -> bytes:
    """Words to the model; the program repeats them with this key, a UUID, once the model has them."""
    message = {"role": "user", "content": text}
    return _line({"type": "user", "message": message, "parent_tool_use_id": None, "session_id": "", "uuid": key})


def allow(key: str, given: Any) -> bytes:
    """It may, with this input."""
    return answer(key, {"behavior": "allow", "updatedInput": given if isinstance(given, dict) else {}})


def deny(key: str, message: str) -> bytes:
    """It may not; the model is told why."""
    return answer(key, {"behavior": "deny", "message": message})


def answer(key: str, response: dict[str, Any]) -> bytes:
    """What it asked for."""
    response = {"subtype": "success", "request_id": key, "response": response}
    return _line({"type": "control_response", "response": response})


def refuse(key: str, why: str) -> bytes:
    """It asked for something that is not there; without an answer it would wait."""
    return _line({"type": "control_response", "response": {"subtype": "error", "request_id": key, "error": why}})


def blocks(event: dict[str, Any]) -> list[dict[str, Any]]:
    """The parts of the message in an ``assistant`` or ``user`` event."""
    content = table(event, "message").get("content")
    if isinstance(content, str):
        return [{"type": "text", "text": content}]
    return [block for block in content if isinstance(block, dict)] if isinstance(content, list) else []


def plain(content: Any) -> str:
    """The text of a tool's result, which is text or a list of parts."""
    if isinstance(content, list):
        return "\n".join(text(part, "text") for part in content if isinstance(part, dict))
    return content if isinstance(content, str) else ""


def questions(given: Any) -> list[dict[str, Any]]:
    """The questions of an AskUserQuestion."""
    found = given.get("questions") if isinstance(given, dict) else None
    return [one for one in found if isinstance(one, dict)] if isinstance(found, list) else []


def asked(given: Any) -> str:
    """The same for a person to read: each question with its choices."""
    told = []
    for one in questions(given):
        listed = one.get("options")
        options = [text(o, "label") for o in listed if isinstance(o, dict)] if isinstance(listed, list) else []
        told.append(text(one, "question") + (f" ({' / '.join(filter(None, options))})" if any(options) else ""))
    return "\n".join(told) or "it asks something, and does not say what"


def text(data: dict[str, Any], *keys: str) -> str:
    """The first of these fields that is text, or an empty string."""
    return next((data[key] for key in keys if isinstance(data.get(key), str) and data[key]), "")


def table(data: dict[str, Any], key: str) -> dict[str, Any]:
    """The object in a field, or an empty one."""
    found = data.get(key)
    return found if isinstance(found, dict) else {}


def tables(data: dict[str, Any], key: str) -> list[dict[str, Any]]:
    """The objects in a list."""
    found = data.get(key)
    return [one for one in found if isinstance(one, dict)] if isinstance(found, list) else []


def number(value: object, most: float = 1e12) -> float:
    """A number that makes sense, else 0."""
    return value if isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value < most else 0


def _line(message: dict[str, Any]) -> bytes:
    # Escaped, because a lone surrogate of its own comes back with its input.
    return json.dumps(message).encode() + b"\n"
