"""The scripted model server as its clients see it: every dialect, whole and streamed, and every fault."""

import gzip
import http.client
import json
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from shopfloor.testing.model import Model, read_log

USAGE = {"in": 100, "out": 30, "cached": 20, "written": 5, "thought": 10}
SCRIPTS: dict[str, list[dict[str, Any]]] = {
    "edit": [
        {"say": "I write it.", "write": {"path": "{cwd}/a.txt", "content": "hello\n"}, "usage": USAGE},
        {"text": "All is done."},
    ],
    "two": [{"calls": [{"bash": "one"}, {"bash": "two"}]}],
    "long": [{"text": "cut off", "stop": "max_tokens"}],
}
POST = dict[str, Any]


@dataclass
class Heard:
    """An answer put together again from whatever it came in."""

    text: str
    calls: list[tuple[str, dict[str, Any]]]
    stop: str
    tokens: dict[str, int]


class Line:
    """One connection to the server, as a client library would keep it."""

    def __init__(self, model: Model) -> None:
        self.http = http.client.HTTPConnection("127.0.0.1", model.port, timeout=20)

    def post(self, path: str, body: Any, **headers: str) -> http.client.HTTPResponse:
        data = body if isinstance(body, bytes) else json.dumps(body).encode()
        self.http.request("POST", path, data, {"content-type": "application/json", **headers})
        return self.http.getresponse()

    def document(self, path: str, body: Any) -> Any:
        response = self.post(path, body)
        assert response.status == 200
        return json.load(response)

    def events(self, path: str, body: Any) -> list[tuple[str, Any]]:
        """Each event's name and data."""
        response = self.post(path, body)
        assert response.headers["content-type"] == "text/event-stream"
        return list(events_of(response.read().decode()))


def events_of(text: str) -> Iterator[tuple[str, Any]]:
    for block in filter(None, text.replace("\r\n", "\n").split("\n\n")):
        name, data = "", ""
        for line in block.split("\n"):
            key, _, value = line.partition(": ")
            name, data = (value, data) if key == "event" else (name, value)
        yield name, data if data == "[DONE]" else json.loads(data)


@pytest.fixture
def model() -> Iterator[Model]:
    with Model(SCRIPTS) as running:
        yield running


@pytest.fixture
def line(model: Model) -> Iterator[Line]:
    line = Line(model)
    yield line
    line.http.close()


# Each dialect: a request with a shell and a writer, the same after the first turn, and how its answers are read.


class AnthropicClient:
    path = "/v1/messages"

    def body(self, prompt: str, *, stream: bool, later: bool = False) -> POST:
        messages: list[Any] = [{"role": "user", "content": [{"type": "text", "text": prompt}]}]
        if later:
            use = {"type": "tool_use", "id": "t1", "name": "Write", "input": {}}
            messages.append({"role": "assistant", "content": [{"type": "text", "text": "I write it."}, use]})
            result = {"type": "tool_result", "tool_use_id": "t1", "content": "ok"}
            messages.append({"role": "user", "content": [result]})
        return {
            "model": "claude",
            "max_tokens": 100,
            "system": [{"type": "text", "text": "Working directory: /w"}],
            "messages": messages,
            "stream": stream,
            "tools": [
                {"name": "Bash", "input_schema": {"properties": {"command": {"type": "string"}}}},
                {"name": "Write", "input_schema": {"properties": {"file_path": {}, "content": {}}}},
            ],
        }

    def whole(self, line: Line, body: POST) -> Heard:
        return self._heard(line.document(self.path, body))

    def streamed(self, line: Line, body: POST) -> Heard:
        message: dict[str, Any] = {}
        pieces: dict[int, str] = {}
        events = line.events(self.path, body)
        assert [name for name, _ in events] == [data["type"] for _, data in events]
        assert events[-1][0] == "message_stop"
        for kind, data in events:
            match kind:
                case "message_start":
                    message = data["message"]
                    assert message["usage"]["output_tokens"] == 1
                case "content_block_start":
                    message["content"].append(data["content_block"])
                case "content_block_delta" if data["delta"]["type"] == "text_delta":
                    message["content"][data["index"]]["text"] += data["delta"]["text"]
                case "content_block_delta":
                    pieces[data["index"]] = pieces.get(data["index"], "") + data["delta"]["partial_json"]
                case "message_delta":
                    message.update(data["delta"])
                    message["usage"].update(data["usage"])
        for index, text in pieces.items():
            message["content"][index]["input"] = json.loads(text)
        return self._heard(message)

    def _heard(self, message: dict[str, Any]) -> Heard:
        text = "".join(block["text"] for block in message["content"] if block["type"] == "text")
        calls = [(block["name"], block["input"]) for block in message["content"] if block["type"] == "tool_use"]
        assert len({block["id"] for block in message["content"] if "id" in block}) == len(calls)
        usage = message["usage"]
        tokens = {
            "in": usage["input_tokens"],
            "cached": usage["cache_read_input_tokens"],
            "written": usage["cache_creation_input_tokens"],
            "out": usage["output_tokens"],
        }
        return Heard(text, calls, message["stop_reason"], tokens)


class ChatClient:
    path = "/v1/chat/completions"

    def body(self, prompt: str, *, stream: bool, later: bool = False) -> POST:
        messages: list[Any] = [
            {"role": "system", "content": "Working directory: /w"},
            {"role": "user", "content": prompt},
        ]
        if later:
            messages.append({"role": "assistant", "content": None, "tool_calls": [{"id": "c"}]})
            messages.append({"role": "tool", "tool_call_id": "c", "content": "ok"})
        tools = [
            {"type": "function", "function": {"name": "shell", "parameters": {"properties": {"command": {}}}}},
            {
                "type": "function",
                "function": {"name": "write", "parameters": {"properties": {"path": {}, "content": {}}}},
            },
        ]
        options = {"stream_options": {"include_usage": True}} if stream else {}
        return {"model": "gpt", "messages": messages, "tools": tools, "stream": stream, **options}

    def whole(self, line: Line, body: POST) -> Heard:
        document = line.document(self.path, body)
        (choice,) = document["choices"]
        calls = choice["message"].get("tool_calls", [])
        return self._heard(choice["message"]["content"] or "", calls, choice["finish_reason"], document["usage"])

    def streamed(self, line: Line, body: POST) -> Heard:
        *chunks, (_, done) = line.events(self.path, body)
        assert done == "[DONE]"
        text, stop = "", ""
        calls: dict[int, dict[str, Any]] = {}
        for _, chunk in chunks[:-1]:
            assert chunk["usage"] is None
            (choice,) = chunk["choices"]
            stop = choice["finish_reason"] or stop
            text += choice["delta"].get("content") or ""
            for call in choice["delta"].get("tool_calls", []):
                known = calls.setdefault(call["index"], call)
                if known is not call:
                    known["function"]["arguments"] += call["function"]["arguments"]
        last = chunks[-1][1]
        assert last["choices"] == []
        return self._heard(text, list(calls.values()), stop, last["usage"])

    def _heard(self, text: str, calls: list[Any], stop: str, usage: dict[str, Any]) -> Heard:
        assert len({call["id"] for call in calls}) == len(calls)
        tokens = {
            "all": usage["prompt_tokens"],
            "cached": usage["prompt_tokens_details"]["cached_tokens"],
            "out": usage["completion_tokens"],
            "thought": usage["completion_tokens_details"]["reasoning_tokens"],
        }
        used = [(call["function"]["name"], json.loads(call["function"]["arguments"])) for call in calls]
        return Heard(text, used, stop, tokens)


class ResponsesClient:
    path = "/v1/responses"

    def body(self, prompt: str, *, stream: bool, later: bool = False) -> POST:
        items: list[Any] = [{"type": "message", "role": "user", "content": [{"type": "input_text", "text": prompt}]}]
        if later:
            items.append({"type": "reasoning", "summary": []})
            text = {"type": "output_text", "text": "I write it."}
            items.append({"type": "message", "role": "assistant", "content": [text]})
            items.append({"type": "function_call", "call_id": "c", "name": "exec_command", "arguments": "{}"})
            items.append({"type": "function_call_output", "call_id": "c", "output": "ok"})
        shell = {"type": "function", "name": "exec_command", "parameters": {"properties": {"cmd": {}}}}
        inner = {"type": "function", "name": "write", "parameters": {"properties": {"path": {}, "content": {}}}}
        tools = [shell, {"type": "namespace", "name": "files", "tools": [inner]}]
        instructions = "Working directory: /w"
        return {"model": "gpt", "instructions": instructions, "input": items, "tools": tools, "stream": stream}

    def whole(self, line: Line, body: POST) -> Heard:
        return self._heard(line.document(self.path, body))

    def streamed(self, line: Line, body: POST) -> Heard:
        events = line.events(self.path, body)
        assert [data["sequence_number"] for _, data in events] == list(range(len(events)))
        assert events[0][0] == "response.created"
        pieces: dict[str, str] = {}
        items = {}
        for kind, data in events:
            if kind.endswith(".delta"):
                pieces[data["item_id"]] = pieces.get(data["item_id"], "") + data["delta"]
            elif kind == "response.output_item.done":
                items[data["item"]["id"]] = data["item"]
        assert {
            name: item["content"][0]["text"] if item["type"] == "message" else item["arguments"]
            for name, item in items.items()
        } == pieces
        last, data = events[-1]
        assert last == f"response.{data['response']['status']}"
        assert data["response"]["output"] == list(items.values())
        return self._heard(data["response"])

    def _heard(self, response: dict[str, Any]) -> Heard:
        items = response["output"]
        text = "".join(item["content"][0]["text"] for item in items if item["type"] == "message")
        calls = [
            (item["name"], json.loads(item["arguments"]) | ({"in": item["namespace"]} if "namespace" in item else {}))
            for item in items
            if item["type"] == "function_call"
        ]
        usage = response["usage"]
        tokens = {
            "all": usage["input_tokens"],
            "cached": usage["input_tokens_details"]["cached_tokens"],
            "out": usage["output_tokens"],
            "thought": usage["output_tokens_details"]["reasoning_tokens"],
        }
        why = response["incomplete_details"]
        return Heard(text, calls, why["reason"] if why else response["status"], tokens)


class GeminiClient:
    path = "/v1beta/models/gemini:generateContent"

    def body(self, prompt: str, *, stream: bool, later: bool = False) -> POST:
        contents: list[Any] = [{"role": "user", "parts": [{"text": prompt}]}]
        if later:
            contents.append({"role": "model", "parts": [{"functionCall": {"name": "write_file", "args": {}}}]})
            result = {"functionResponse": {"name": "write_file", "response": {"output": "ok"}}}
            contents.append({"role": "user", "parts": [result]})
        declared = [
            {"name": "run_shell_command", "parametersJsonSchema": {"properties": {"command": {}}}},
            {"name": "write_file", "parameters": {"properties": {"file_path": {}, "content": {}}}},
        ]
        system = {"parts": [{"text": "Working directory: /w"}]}
        return {"systemInstruction": system, "contents": contents, "tools": [{"functionDeclarations": declared}]}

    def whole(self, line: Line, body: POST) -> Heard:
        return self._heard([line.document(self.path, body)])

    def streamed(self, line: Line, body: POST) -> Heard:
        path = self.path.replace(":generate", ":streamGenerate") + "?alt=sse"
        return self._heard([data for _, data in line.events(path, body)])

    def _heard(self, documents: list[dict[str, Any]]) -> Heard:
        candidates = [document["candidates"][0] for document in documents]
        parts = [part for candidate in candidates for part in candidate["content"]["parts"]]
        assert [("finishReason" in candidate) for candidate in candidates] == [False] * (len(candidates) - 1) + [True]
        usage = documents[-1]["usageMetadata"]
        tokens = {
            "all": usage["promptTokenCount"],
            "cached": usage["cachedContentTokenCount"],
            "out": usage["candidatesTokenCount"] + usage["thoughtsTokenCount"],
            "thought": usage["thoughtsTokenCount"],
        }
        assert usage["totalTokenCount"] == tokens["all"] + tokens["out"]
        calls = [
            (part["functionCall"]["name"], part["functionCall"]["args"]) for part in parts if "functionCall" in part
        ]
        return Heard("".join(part.get("text", "") for part in parts), calls, candidates[-1]["finishReason"], tokens)


Client = AnthropicClient | ChatClient | ResponsesClient | GeminiClient
CLIENTS: dict[str, Client] = {
    "anthropic": AnthropicClient(),
    "chat": ChatClient(),
    "responses": ResponsesClient(),
    "gemini": GeminiClient(),
}
WRITES: dict[str, tuple[str, dict[str, Any]]] = {
    "anthropic": ("Write", {"file_path": "/w/a.txt", "content": "hello\n"}),
    "chat": ("write", {"path": "/w/a.txt", "content": "hello\n"}),
    "responses": ("write", {"path": "/w/a.txt", "content": "hello\n", "in": "files"}),
    "gemini": ("write_file", {"file_path": "/w/a.txt", "content": "hello\n"}),
}
ENDS = {
    "anthropic": ("tool_use", "end_turn", "max_tokens"),
    "chat": ("tool_calls", "stop", "length"),
    "responses": ("completed", "completed", "max_output_tokens"),
    "gemini": ("STOP", "STOP", "MAX_TOKENS"),
}
every_dialect = pytest.mark.parametrize("dialect", CLIENTS)
streaming = pytest.mark.parametrize("stream", [False, True], ids=["whole", "stream"])


def speak(line: Line, dialect: str, prompt: str, *, stream: bool, later: bool = False) -> Heard:
    client = CLIENTS[dialect]
    body = client.body(prompt, stream=stream, later=later)
    return client.streamed(line, body) if stream else client.whole(line, body)


@every_dialect
@streaming
def test_a_dialect_takes_the_tool_offered_ends_and_counts(
    model: Model, line: Line, dialect: str, *, stream: bool
) -> None:
    uses, ends, cut = ENDS[dialect]
    first = speak(line, dialect, "Do. [[script edit]]", stream=stream)
    assert (first.text, first.calls, first.stop) == ("I write it.", [WRITES[dialect]], uses)
    plain = {"in": 100, "cached": 20, "written": 5, "out": 30}
    assert first.tokens == (plain if dialect == "anthropic" else {"all": 125, "cached": 20, "out": 30, "thought": 10})
    last = speak(line, dialect, "Do. [[script edit]]", stream=stream, later=True)
    assert (last.text, last.calls, last.stop) == ("All is done.", [], ends)
    both = speak(line, dialect, "[[script two]]", stream=stream)
    assert [list(arguments.values()) for _, arguments in both.calls] == [["one"], ["two"]]
    assert speak(line, dialect, "[[script long]]", stream=stream).stop == cut
    assert speak(line, dialect, "a title?", stream=stream).text == "ok"
    asked = [(request.dialect, request.script, request.step, request.stream) for request in model.requests()]
    steps = [("edit", 0), ("edit", 1), ("two", 0), ("long", 0), ("", -1)]
    assert asked == [(dialect, script, step, stream) for script, step in steps]


def test_the_tokens_of_a_chat_stream_are_told_to_who_asks(line: Line) -> None:
    body = ChatClient().body("hi", stream=True)
    del body["stream_options"]
    assert not any("usage" in data for _, data in line.events(ChatClient.path, body)[:-1])


def test_a_freeform_tool_is_called_with_a_text(line: Line) -> None:
    body = {"model": "m", "input": "[[script two]]", "tools": [{"type": "custom", "name": "exec"}]}
    items = line.document("/v1/responses", body)["output"]
    assert [item["type"] for item in items] == ["custom_tool_call"] * 2
    assert '{"cmd": "one"}' in items[0]["input"]


def test_tools_that_come_later_are_offered_too(line: Line) -> None:
    functions = {"type": "namespace", "name": "functions", "tools": [{"type": "custom", "name": "exec"}]}
    later = {"type": "additional_tools", "role": "developer", "tools": [functions]}
    message = {"type": "message", "role": "user", "content": "[[script two]]"}
    items = line.document("/v1/responses", {"model": "m", "input": [later, message]})["output"]
    assert [item["type"] for item in items] == ["custom_tool_call"] * 2
    assert "namespace" not in items[0]


ERRORS: dict[str, Callable[[Any], tuple[Any, str]]] = {
    "anthropic": lambda said: (said["error"]["type"], said["error"]["message"]),
    "chat": lambda said: (said["error"]["code"], said["error"]["message"]),
    "responses": lambda said: (said["error"]["type"], said["error"]["message"]),
    "gemini": lambda said: (said["error"]["status"], said["error"]["message"]),
}
LIMITED = {"gemini": "RESOURCE_EXHAUSTED"}


@every_dialect
@streaming
def test_a_failure_comes_so_often_and_then_no_more(model: Model, line: Line, dialect: str, *, stream: bool) -> None:
    plan = {"status": 429, "times": 2, "headers": {"retry-after": "1"}, "message": "too many"}
    model.scripts["busy"] = [{"text": "there", "fail": plan}]
    client = CLIENTS[dialect]
    for _ in range(2):
        response = client_post(line, client, "[[script busy]]", stream=stream)
        assert response.status == 429
        assert response.headers["retry-after"] == "1"
        assert ERRORS[dialect](json.load(response)) == (LIMITED.get(dialect, "rate_limit_error"), "too many")
    assert speak(line, dialect, "[[script busy]]", stream=stream).text == "there"
    assert [request.status for request in model.requests("busy")] == [429, 429, 200]
    # Another order of the same script has its own count.
    assert client_post(line, client, "[[script busy n=2]]", stream=stream).status == 429


def client_post(line: Line, client: Client, prompt: str, *, stream: bool) -> http.client.HTTPResponse:
    line.http.close()
    return line.post(client.path, client.body(prompt, stream=stream))


def test_a_quota_lasts_for_a_time_for_everybody_and_says_until_when(model: Model, line: Line) -> None:
    headers = {"retry-after": "{wait}", "x-reset": "{reset}", "x-reset-at": "{reset_at}"}
    model.scripts["quota"] = [{"text": "again", "fail": {"status": 429, "for_s": 0.4, "headers": headers}}]
    client = AnthropicClient()
    began = time.time()
    first = client_post(line, client, "[[script quota n=1]]", stream=False)
    second = client_post(line, client, "[[script quota n=2]]", stream=False)
    assert (first.status, second.status) == (429, 429)
    assert first.headers["retry-after"] == "1"
    assert first.headers["x-reset"] == second.headers["x-reset"]
    assert 0 <= int(first.headers["x-reset"]) - began <= 2
    assert first.headers["x-reset-at"] == time.strftime(
        "%Y-%m-%dT%H:%M:%SZ", time.gmtime(int(first.headers["x-reset"]))
    )
    # Bounded by the test's own limit; each answer is waited for.
    while client_post(line, client, "[[script quota n=3]]", stream=False).status == 429:
        pass
    assert time.time() - began >= 0.4


@every_dialect
@streaming
def test_a_dropped_answer_ends_in_the_middle(model: Model, line: Line, dialect: str, *, stream: bool) -> None:
    model.scripts["cut"] = [{"text": "one two three four five", "drop": True}]
    client = CLIENTS[dialect]
    path = client.path.replace(":generate", ":streamGenerate") if stream else client.path
    if dialect == "gemini" and stream:
        model.scripts["cut"] = [{"say": "one", "bash": "two", "drop": True}]
    with pytest.raises(http.client.IncompleteRead) as cut:
        line.post(path, client.body("[[script cut]]", stream=stream)).read()
    if stream:
        assert b"one" in cut.value.partial
        assert b"five" not in cut.value.partial


def test_slow_delay_and_hang_hold_an_answer_back(model: Model, line: Line) -> None:
    model.scripts["slow"] = [{"text": "one two three", "slow": 0.03, "delay": 0.1, "hang": 0.1}]
    began = time.monotonic()
    line.http.request("POST", "/v1/messages", json.dumps(AnthropicClient().body("[[script slow]]", stream=True)))
    response = line.http.getresponse()
    headers = time.monotonic() - began
    first = response.read(1)
    body = time.monotonic() - began
    rest = response.read()
    assert headers >= 0.1
    assert body - headers >= 0.09
    assert time.monotonic() - began >= 0.2 + 0.03 * (first + rest).count(b"data: ")


def test_the_end_of_the_server_frees_whoever_waits() -> None:
    with Model({"held": [{"text": "never", "hang": 3600}]}) as model:
        line = Line(model)
        response = line.post("/v1/messages", AnthropicClient().body("[[script held]]", stream=True))
        assert response.status == 200
    with pytest.raises(http.client.HTTPException):
        response.read()
    line.http.close()


def test_what_is_not_for_a_model_is_answered_too(model: Model, line: Line) -> None:
    line.http.request("GET", "/v1/models")
    assert "scripted" in [known["id"] for known in json.load(line.http.getresponse())["data"]]
    line.http.request("HEAD", "/")
    assert line.http.getresponse().read() == b""
    assert line.document("/v1/messages/count_tokens", {})["input_tokens"] > 0
    unknown = line.post("/v1/embeddings", {})
    assert (unknown.status, unknown.read() != b"") == (404, True)
    wrong = line.post("/v1/messages", b"{nope")
    assert (wrong.status, json.load(wrong)["error"]["type"]) == (400, "invalid_request_error")
    assert [request.status for request in model.requests()] == [200, 200, 200, 404, 400]


def test_a_body_may_be_zipped_or_in_chunks_and_the_path_have_a_beginning(model: Model, line: Line) -> None:
    body = json.dumps(ChatClient().body("[[script edit]]", stream=False)).encode()
    zipped = line.post("/some/route/v1/chat/completions", gzip.compress(body), **{"content-encoding": "gzip"})
    assert json.load(zipped)["choices"][0]["message"]["content"] == "I write it."
    line.http.request("POST", "/v1/chat/completions", iter([body[:50], body[50:]]), encode_chunked=True)
    assert json.load(line.http.getresponse())["choices"][0]["message"]["content"] == "I write it."
    assert [request.step for request in model.requests("edit")] == [0, 0]


def test_many_ask_at_once_and_each_gets_its_own_step(model: Model) -> None:
    heard: list[tuple[bool, str]] = []

    def one(*, later: bool) -> None:
        line = Line(model)
        heard.extend((later, speak(line, "chat", "[[script edit]]", stream=True, later=later).text) for _ in range(10))
        line.http.close()

    threads = [threading.Thread(target=one, kwargs={"later": number % 2 == 0}) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(heard) == 80
    assert all(text == ("All is done." if later else "I write it.") for later, text in heard)


def test_as_a_program_it_says_where_and_keeps_a_log_without_keys(tmp_path: Path) -> None:
    scripts, log, ready = tmp_path / "scripts.json", tmp_path / "log.jsonl", tmp_path / "ready"
    scripts.write_text(json.dumps(SCRIPTS))
    command = [sys.executable, "-m", "shopfloor.testing.model", "--scripts", str(scripts)]
    with subprocess.Popen(
        [*command, "--log", str(log), "--ready", str(ready)], stdout=subprocess.PIPE, text=True
    ) as server:
        try:
            assert server.stdout is not None
            url = server.stdout.readline().strip()
            assert ready.read_text() == url
            http_line = http.client.HTTPConnection(url.removeprefix("http://"), timeout=20)
            body = AnthropicClient().body("[[script edit]]", stream=False)
            http_line.request("POST", "/v1/messages", json.dumps(body), {"x-api-key": "sk-secret-123456"})
            assert json.load(http_line.getresponse())["content"][0]["text"] == "I write it."
            http_line.request("GET", "/_log")
            (shown,) = json.load(http_line.getresponse())
            http_line.close()
        finally:
            server.terminate()
    (request,) = read_log(log)
    assert (request.script, request.step, request.credential, request.body) == ("edit", 0, "…123456", None)
    assert shown["script"] == "edit"
    assert "sk-secret" not in log.read_text()


def test_as_a_program_it_names_a_script_that_is_off(tmp_path: Path) -> None:
    scripts = tmp_path / "scripts.json"
    scripts.write_text('{"x": [{"txt": "a"}]}')
    command = [sys.executable, "-m", "shopfloor.testing.model", "--scripts", str(scripts)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "script 'x', step 1: unknown key 'txt'" in done.stderr


def test_the_credential_is_told_to_a_test_in_the_same_process(model: Model, line: Line) -> None:
    for headers in ({"authorization": "Bearer one"}, {"x-api-key": "two"}, {"x-goog-api-key": "three"}, {}):
        line.post("/v1/messages", AnthropicClient().body("hi", stream=False), **headers).read()
    assert [request.credential for request in model.requests()] == ["one", "two", "three", ""]
