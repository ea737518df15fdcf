"""OpenAI Responses."""

from __future__ import annotations

import itertools
import json
import time
from collections.abc import Iterator

from shopfloor.testing.model.chat import openai_error
from shopfloor.testing.model.sse import event, pieces, words
from shopfloor.testing.model.talk import JSON, Answer, Ask, Ids, Tool, Turn, all_text, objects

_STOPS = {"max_tokens": "max_output_tokens", "refusal": "content_filter"}

_PLAIN = "functions"
"""the namespace of tools that are called without one"""


class Responses:
    """``POST …/responses``."""

    name = "responses"

    def read(self, body: JSON, path: str) -> Ask:
        """Calls and their outputs are items between the messages; so are tools, for agents that offer more later."""
        given = body.get("input") or []
        items = [{"role": "user", "content": given}] if isinstance(given, str) else objects(given)
        turns = tuple(turn for item in items if (turn := _turn(item)) is not None)
        more = [tool for item in items if item.get("type") == "additional_tools" for tool in objects(item.get("tools"))]
        tools = [found for tool in (*objects(body.get("tools")), *more) for found in _tools(tool)]
        system = str(body.get("instructions") or "")
        return Ask(str(body.get("model")), body.get("stream") is True, turns, tuple(tools), system)

    def whole(self, ask: Ask, answer: Answer, ids: Ids) -> JSON:
        """A ``response``."""
        usage = answer.usage
        why = _STOPS.get(answer.stop)
        return {
            "id": ids("resp_"),
            "object": "response",
            "created_at": int(time.time()),
            "model": ask.model,
            "status": "incomplete" if why else "completed",
            "output": _items(ask, answer, ids),
            "error": None,
            "incomplete_details": {"reason": why} if why else None,
            "instructions": None,
            "metadata": {},
            "parallel_tool_calls": True,
            "temperature": 1.0,
            "tool_choice": "auto",
            "tools": [],
            "top_p": 1.0,
            "usage": {
                "input_tokens": usage.all_in,
                "input_tokens_details": {"cached_tokens": usage.cached},
                "output_tokens": usage.out,
                "output_tokens_details": {"reasoning_tokens": usage.thought},
                "total_tokens": usage.all_in + usage.out,
            },
        }

    def stream(self, ask: Ask, answer: Answer, ids: Ids) -> list[str]:
        """``response.created``, the items, ``response.completed`` with the tokens."""
        whole = self.whole(ask, answer, ids)
        started = {**whole, "status": "in_progress", "output": [], "usage": None, "incomplete_details": None}
        events = [("response.created", {"response": started}), ("response.in_progress", {"response": started})]
        for index, item in enumerate(whole["output"]):
            events += _events_of(item, index)
        events.append((f"response.{whole['status']}", {"response": whole}))
        number = itertools.count()
        return [event({"type": kind, "sequence_number": next(number), **data}, kind) for kind, data in events]

    def error(self, status: int, kind: str, message: str, ids: Ids) -> JSON:
        """An ``error``."""
        return openai_error(kind, message)


def _turn(item: JSON) -> Turn | None:
    """What an item of the input is; None for one that is nobody's turn, as reasoning."""
    kind = str(item.get("type") or "message")
    if kind == "message":
        role = str(item.get("role"))
        return Turn("system" if role == "developer" else role, all_text(item.get("content")))
    if kind.endswith("_call"):
        return Turn("assistant", "")
    if kind.endswith("_output"):
        return Turn("tool", all_text(item.get("output")))
    return None


def _tools(tool: JSON, namespace: str = "") -> Iterator[Tool]:
    name = str(tool.get("name"))
    match tool.get("type"):
        case "function":
            yield Tool(name, tool.get("parameters") or {}, namespace=namespace)
        case "custom":
            yield Tool(name, freeform=True, namespace=namespace)
        case "namespace":
            inside = "" if name == _PLAIN else name
            for inner in objects(tool.get("tools")):
                yield from _tools(inner, inside)


def _items(ask: Ask, answer: Answer, ids: Ids) -> list[JSON]:
    items: list[JSON] = []
    if answer.text:
        content = [{"type": "output_text", "text": answer.text, "annotations": []}]
        message = {"type": "message", "id": ids("msg_"), "role": "assistant", "status": "completed"}
        items.append({**message, "content": content})
    for call in answer.calls:
        tool = ask.tool(call.name)
        head = {"call_id": ids("call_"), "name": call.name, "status": "completed"}
        text = call.arguments if isinstance(call.arguments, str) else json.dumps(call.arguments)
        where = {"namespace": tool.namespace} if tool is not None and tool.namespace else {}
        if tool is not None and tool.freeform:
            items.append({"type": "custom_tool_call", "id": ids("ctc_"), **head, "input": text, **where})
        else:
            items.append({"type": "function_call", "id": ids("fc_"), **head, "arguments": text, **where})
    return items


def _events_of(item: JSON, index: int) -> list[tuple[str, JSON]]:
    """One item as it comes."""
    where = {"item_id": item["id"], "output_index": index}
    if item["type"] == "message":
        (part,) = item["content"]
        inside = {**where, "content_index": 0}
        empty = {**item, "status": "in_progress", "content": []}
        middle: list[tuple[str, JSON]] = [
            ("response.content_part.added", {**inside, "part": {**part, "text": ""}}),
            *(
                ("response.output_text.delta", {**inside, "delta": word, "logprobs": []})
                for word in words(part["text"])
            ),
            ("response.output_text.done", {**inside, "text": part["text"], "logprobs": []}),
            ("response.content_part.done", {**inside, "part": part}),
        ]
    else:
        key, kind = "arguments", "response.function_call_arguments"
        if item["type"] == "custom_tool_call":
            key, kind = "input", "response.custom_tool_call_input"
        empty = {**item, "status": "in_progress", key: ""}
        middle = [(f"{kind}.delta", {**where, "delta": piece}) for piece in pieces(item[key])]
        middle.append((f"{kind}.done", {**where, "name": item["name"], key: item[key]}))
    return [
        ("response.output_item.added", {"output_index": index, "item": empty}),
        *middle,
        ("response.output_item.done", {"output_index": index, "item": item}),
    ]
