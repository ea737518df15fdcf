"""OpenAI Chat Completions."""

from __future__ import annotations

import json
import time

from shopfloor.testing.model.sse import event, words
from shopfloor.testing.model.talk import JSON, Answer, Ask, Ids, Tool, Turn, all_text, objects

_STOPS = {"max_tokens": "length", "refusal": "content_filter"}
_ROLES = {"developer": "system", "function": "tool"}


class Chat:
    """``POST …/chat/completions``."""

    name = "chat"

    def read(self, body: JSON, path: str) -> Ask:
        """The tokens of a stream are told to those who set ``stream_options.include_usage``."""
        turns = tuple(
            Turn(_ROLES.get(str(message.get("role")), str(message.get("role"))), all_text(message.get("content")))
            for message in objects(body.get("messages"))
        )
        tools = [
            Tool(str(tool["function"]["name"]), tool["function"].get("parameters") or {})
            for tool in objects(body.get("tools"))
            if tool.get("type") == "function"
        ]
        options = body.get("stream_options") or {}
        system = "\n".join(turn.text for turn in turns if turn.role == "system")
        usage = options.get("include_usage") is True
        return Ask(str(body.get("model")), body.get("stream") is True, turns, tuple(tools), system, usage)

    def whole(self, ask: Ask, answer: Answer, ids: Ids) -> JSON:
        """A ``chat.completion``."""
        message: JSON = {"role": "assistant", "content": answer.text or None}
        if answer.calls:
            message["tool_calls"] = [
                {
                    "id": ids("call_"),
                    "type": "function",
                    "function": {
                        "name": call.name,
                        "arguments": call.arguments if isinstance(call.arguments, str) else json.dumps(call.arguments),
                    },
                }
                for call in answer.calls
            ]
        end = _STOPS.get(answer.stop, "tool_calls" if answer.calls else "stop")
        usage = answer.usage
        return {
            "id": ids("chatcmpl-"),
            "object": "chat.completion",
            "created": int(time.time()),
            "model": ask.model,
            "choices": [{"index": 0, "message": message, "finish_reason": end, "logprobs": None}],
            "usage": {
                "prompt_tokens": usage.all_in,
                "completion_tokens": usage.out,
                "total_tokens": usage.all_in + usage.out,
                "prompt_tokens_details": {"cached_tokens": usage.cached},
                "completion_tokens_details": {"reasoning_tokens": usage.thought},
            },
        }

    def stream(self, ask: Ask, answer: Answer, ids: Ids) -> list[str]:
        """Chunks, one without choices that has the tokens, ``[DONE]``."""
        whole = self.whole(ask, answer, ids)
        (choice,) = whole["choices"]
        deltas: list[JSON] = [{"role": "assistant", "content": ""}]
        deltas += [{"content": word} for word in words(answer.text)]
        for index, call in enumerate(choice["message"].get("tool_calls", ())):
            function = call["function"]
            deltas.append({"tool_calls": [{**call, "index": index, "function": {**function, "arguments": ""}}]})
            deltas.append({"tool_calls": [{"index": index, "function": {"arguments": function["arguments"]}}]})
        chunks = [[{"index": 0, "delta": delta, "finish_reason": None}] for delta in deltas]
        chunks.append([{"index": 0, "delta": {}, "finish_reason": choice["finish_reason"]}])
        head = {**{key: whole[key] for key in ("id", "created", "model")}, "object": "chat.completion.chunk"}
        # As the real one: who asks for the tokens gets the key with null in every chunk but the last.
        null = {"usage": None} if ask.usage else {}
        events = [event({**head, "choices": choices, **null}) for choices in chunks]
        if ask.usage:
            events.append(event({**head, "choices": [], "usage": whole["usage"]}))
        return [*events, "data: [DONE]\n\n"]

    def error(self, status: int, kind: str, message: str, ids: Ids) -> JSON:
        """An ``error``."""
        return openai_error(kind, message)


def openai_error(kind: str, message: str) -> JSON:
    """As Chat Completions and Responses tell it."""
    return {"error": {"message": message, "type": kind, "param": None, "code": kind}}
