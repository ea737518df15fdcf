"""Anthropic Messages."""

from __future__ import annotations

import json

from shopfloor.testing.model.sse import event, pieces, words
from shopfloor.testing.model.talk import JSON, Answer, Ask, Ids, Tool, Turn, all_text, objects


class Anthropic:
    """``POST …/messages``."""

    name = "anthropic"

    def read(self, body: JSON, path: str) -> Ask:
        """A message that only carries results of tools is a tool's turn."""
        turns = []
        for message in objects(body.get("messages")):
            content = message.get("content")
            kinds = {block.get("type") for block in objects(content)}
            role = "tool" if kinds == {"tool_result"} else str(message.get("role"))
            turns.append(Turn(role, all_text(content)))
        tools = [
            Tool(str(tool["name"]), tool.get("input_schema") or {})
            for tool in objects(body.get("tools"))
            if tool.get("name")
        ]
        system = all_text(body.get("system"))
        return Ask(str(body.get("model")), body.get("stream") is True, tuple(turns), tuple(tools), system)

    def whole(self, ask: Ask, answer: Answer, ids: Ids) -> JSON:
        """A ``message``."""
        content: list[JSON] = [{"type": "text", "text": answer.text}] if answer.text else []
        content += [
            {"type": "tool_use", "id": ids("toolu_"), "name": call.name, "input": call.arguments}
            for call in answer.calls
        ]
        return {
            "id": ids("msg_"),
            "type": "message",
            "role": "assistant",
            "model": ask.model,
            "content": content,
            "stop_reason": answer.stop or ("tool_use" if answer.calls else "end_turn"),
            "stop_sequence": None,
            "usage": {
                "input_tokens": answer.usage.fresh,
                "cache_creation_input_tokens": answer.usage.written,
                "cache_read_input_tokens": answer.usage.cached,
                "output_tokens": answer.usage.out,
                "service_tier": "standard",
            },
        }

    def stream(self, ask: Ask, answer: Answer, ids: Ids) -> list[str]:
        """``message_start``, the blocks, ``message_delta`` with the tokens out, ``message_stop``."""
        message = self.whole(ask, answer, ids)
        # As the real one: at the start one token is out, the count comes with the end.
        usage = {**message["usage"], "output_tokens": 1}
        start = {**message, "content": [], "stop_reason": None, "usage": usage}
        events: list[tuple[str, JSON]] = [("message_start", {"message": start}), ("ping", {})]
        for index, block in enumerate(message["content"]):
            if block["type"] == "text":
                empty: JSON = {"type": "text", "text": ""}
                deltas = [{"type": "text_delta", "text": word} for word in words(block["text"])]
            else:
                empty = {**block, "input": {}}
                arguments = pieces(json.dumps(block["input"]))
                deltas = [{"type": "input_json_delta", "partial_json": piece} for piece in arguments]
            events.append(("content_block_start", {"index": index, "content_block": empty}))
            events += [("content_block_delta", {"index": index, "delta": delta}) for delta in deltas]
            events.append(("content_block_stop", {"index": index}))
        end = {"stop_reason": message["stop_reason"], "stop_sequence": None}
        events.append(("message_delta", {"delta": end, "usage": {"output_tokens": answer.usage.out}}))
        events.append(("message_stop", {}))
        return [event({"type": kind, **data}, kind) for kind, data in events]

    def error(self, status: int, kind: str, message: str, ids: Ids) -> JSON:
        """An ``error``."""
        return {"type": "error", "error": {"type": kind, "message": message}, "request_id": ids("req_")}
