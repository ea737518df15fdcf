"""Gemini generateContent."""

from __future__ import annotations

from shopfloor.testing.model.sse import event
from shopfloor.testing.model.talk import JSON, Answer, Ask, Ids, Tool, Turn, all_text, objects

_STOPS = {"max_tokens": "MAX_TOKENS", "refusal": "SAFETY"}
_STATES = {
    400: "INVALID_ARGUMENT",
    401: "UNAUTHENTICATED",
    403: "PERMISSION_DENIED",
    404: "NOT_FOUND",
    429: "RESOURCE_EXHAUSTED",
    503: "UNAVAILABLE",
}


class Gemini:
    """``POST …/models/NAME:generateContent`` and ``:streamGenerateContent``."""

    name = "gemini"

    def read(self, body: JSON, path: str) -> Ask:
        """The model and whether to stream stand in the path."""
        before, _, verb = path.rpartition(":")
        turns = []
        for content in objects(body.get("contents")):
            parts = objects(content.get("parts"))
            role = "assistant" if content.get("role") == "model" else "user"
            if any("functionResponse" in part for part in parts):
                role = "tool"
            turns.append(Turn(role, all_text(parts)))
        tools = [
            Tool(str(declared["name"]), declared.get("parametersJsonSchema") or declared.get("parameters") or {})
            for tool in objects(body.get("tools"))
            for declared in objects(tool.get("functionDeclarations"))
        ]
        model, stream = before.rpartition("/")[2], verb == "streamGenerateContent"
        return Ask(model, stream, tuple(turns), tuple(tools), all_text(body.get("systemInstruction")))

    def whole(self, ask: Ask, answer: Answer, ids: Ids) -> JSON:
        """One candidate."""
        return self._document(ask, answer, self._parts(answer, ids), ids("r"), last=True)

    def stream(self, ask: Ask, answer: Answer, ids: Ids) -> list[str]:
        """A document for each part; the last one says how it ended."""
        parts, answered = self._parts(answer, ids), ids("r")
        return [
            event(self._document(ask, answer, [part], answered, last=number == len(parts)), end="\r\n\r\n")
            for number, part in enumerate(parts, 1)
        ]

    def error(self, status: int, kind: str, message: str, ids: Ids) -> JSON:
        """An ``error`` with a status in words."""
        return {"error": {"code": status, "message": message, "status": _STATES.get(status, "INTERNAL")}}

    def _parts(self, answer: Answer, ids: Ids) -> list[JSON]:
        parts: list[JSON] = [{"text": answer.text}] if answer.text else []
        for call in answer.calls:
            arguments = call.arguments if isinstance(call.arguments, dict) else {"input": call.arguments}
            parts.append({"functionCall": {"id": ids("fc"), "name": call.name, "args": arguments}})
        return parts

    def _document(self, ask: Ask, answer: Answer, parts: list[JSON], answered: str, *, last: bool) -> JSON:
        usage = answer.usage
        candidate: JSON = {"index": 0, "content": {"role": "model", "parts": parts}}
        if last:
            candidate["finishReason"] = _STOPS.get(answer.stop, "STOP")
        return {
            "candidates": [candidate],
            "usageMetadata": {
                "promptTokenCount": usage.all_in,
                "cachedContentTokenCount": usage.cached,
                # Here, unlike elsewhere, what was thought is no part of what was said.
                "candidatesTokenCount": usage.out - usage.thought,
                "thoughtsTokenCount": usage.thought,
                "totalTokenCount": usage.all_in + usage.out,
            },
            "modelVersion": ask.model,
            "responseId": answered,
        }
