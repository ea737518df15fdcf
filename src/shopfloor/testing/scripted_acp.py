r"""The scripted agent in the Agent Client Protocol: a real program without a model, for tests and demonstrations.

It follows the script in its prompt as ``scripted_agent`` does, whose verbs it knows. Deeds become tool calls, thoughts
messages, costs usage updates. More verbs of its own:

    permit          title; asks whether it may, and goes on either way: a denied tool fails
    permit_write    path; the same, and writes hello into the file when it may, through the client's file system
    read            path; reads it through the client's file system and says what came
    call            tool; calls it on the first MCP server that it was offered, and says what came
    steps           number; tool calls one after the other, each waiting a moment for a cancellation
    fail            number; the turn ends with an error that carries it as ``status``
    stop            reason; the turn ends with it at once
    say_session     true; says its session's name

Arguments: ``--banner`` prints a line of plain text first; ``--deaf`` ends with exit code 0 on SIGTERM, without a word;
``--stays`` does not end when stdin is closed. Cancelling ends every deed that waits.
"""

import json
import os
import select
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NoReturn

from shopfloor.testing.scripted_agent import ScriptedAgent, ScriptError, Stopped, generation, read_script

VERBS: dict[str, type | tuple[type, ...]] = {
    "permit": str,
    "permit_write": str,
    "read": str,
    "call": str,
    "steps": int,
    "fail": int,
    "stop": str,
    "say_session": bool,
}
MODES = ("open", "careful")
TICK_S = 0.05


class Cancelled(Exception):
    """The client cancelled the turn."""


class Ended(Exception):
    """The turn ends here, with this answer to the prompt."""

    def __init__(self, *, reason: str = "", error: dict[str, Any] | None = None) -> None:
        super().__init__(reason)
        self.reason, self.error = reason, error


class Client:
    """The other side: lines in and out."""

    def __init__(self) -> None:
        self._held = bytearray()
        self._eof = False
        self._count = 0
        self.later: list[dict[str, Any]] = []

    def write(self, **fields: Any) -> None:
        line = json.dumps({"jsonrpc": "2.0", **fields}).encode() + b"\n"
        while line:
            line = line[os.write(1, line) :]

    def next(self, wait_s: float | None = None) -> dict[str, Any] | None:
        """The next message; None at the end, and when none came in time."""
        while b"\n" not in self._held:
            if self._eof or not select.select([0], [], [], wait_s)[0]:
                return None
            data = os.read(0, 1 << 16)
            self._eof = not data
            self._held += data
        line, _, rest = bytes(self._held).partition(b"\n")
        self._held = bytearray(rest)
        found: dict[str, Any] = json.loads(line)
        return found

    def ask(self, method: str, **params: Any) -> dict[str, Any]:
        """Ask the client and wait for its answer. Raises Cancelled."""
        self._count += 1
        key = f"ask-{self._count}"
        self.write(id=key, method=method, params=params)
        while (message := self.next()) is not None:
            if message.get("id") == key and "method" not in message:
                return message
            self.heed(message)
        raise Cancelled

    def heed(self, message: dict[str, Any] | None) -> None:
        """Raises Cancelled for a cancellation; keeps everything else for later."""
        if message and message.get("method") == "session/cancel":
            raise Cancelled
        if message:
            self.later.append(message)


class AcpScripted(ScriptedAgent):
    """The deeds of one turn, told in the protocol."""

    def __init__(self, client: Client, session: str, servers: Sequence["McpServer"], spent: float) -> None:
        super().__init__(generation=generation())
        self.client, self.session, self.servers = client, session, servers
        self.spent = spent
        self.code = 0
        self.tools = 0

    def update(self, what: str, **fields: Any) -> None:
        if not self.silent:
            params = {"sessionId": self.session, "update": {"sessionUpdate": what, **fields}}
            self.client.write(method="session/update", params=params)

    def say(self, text: str) -> None:
        self.update("agent_message_chunk", content={"type": "text", "text": text})

    def emit(self, kind: str, **data: Any) -> None:
        """An event of the other dialect, in this one."""
        match kind:
            case "step":
                tool = self.begins(data["action"])
                content = [{"type": "content", "content": {"type": "text", "text": data["output"]}}]
                self.update("tool_call_update", toolCallId=tool, status="completed", content=content)
            case "thought" | "log":
                self.say(data["content"])
            case "ask":
                self.say(data["question"])
            case "cost" if data["total"]:
                cost = {"amount": data["total"], "currency": "USD"}
                self.update("usage_update", used=1000, size=200_000, cost=cost)

    def begins(self, title: str) -> str:
        self.tools += 1
        tool = f"tool-{self.tools}"
        self.update("tool_call", toolCallId=tool, title=title, kind="other", status="pending")
        return tool

    def end(self, status: str, result: str, code: int) -> int:
        self.bill(code)
        self.code = code
        if code:
            raise Ended(error={"code": -32603, "message": f"Internal error: {result}"})
        return code

    # -- deeds ------------------------------------------------------------------------------------------------------

    def do_hang(self, _: bool, deed: dict[str, Any]) -> NoReturn:  # noqa: FBT001 - the value in the script
        stubborn = bool(deed.get("stubborn"))
        if stubborn:
            signal.signal(signal.SIGINT, signal.SIG_IGN)
            signal.signal(signal.SIGTERM, signal.SIG_IGN)
        if deed.get("grandchild"):
            self.start_apart("grandchild")
        self.say("hangs until it is stopped")
        while True:
            if stubborn:
                signal.pause()
            message = self.client.next()
            if message is None:
                signal.pause()
            self.client.heed(message)

    def do_permit(self, title: str, _: dict[str, Any]) -> None:
        self.permitted(title)

    def do_permit_write(self, path: str, _: dict[str, Any]) -> None:
        if tool := self.permitted(f"write {path}"):
            target = str(Path(path).absolute())
            answer = self.client.ask("fs/write_text_file", sessionId=self.session, path=target, content="hello\n")
            self.update("tool_call_update", toolCallId=tool, status="failed" if "error" in answer else "completed")
            if "error" in answer:
                self.say(answer["error"]["message"])

    def permitted(self, title: str) -> str:
        """The tool's name when it may be used; an option is chosen here by its id, which the client cannot guess."""
        tool = self.begins(title)
        kinds = {"x1": "allow_always", "x2": "reject_once", "x3": "allow_once", "x4": "reject_always"}
        options = [{"optionId": key, "name": kind, "kind": kind} for key, kind in kinds.items()]
        call = {"toolCallId": tool, "title": title, "status": "pending"}
        asked = {"sessionId": self.session, "toolCall": call, "options": options}
        answer = self.client.ask("session/request_permission", **asked)
        chosen = answer.get("result", {}).get("outcome", {}).get("optionId", "")
        if chosen == "x3":
            return tool
        self.update("tool_call_update", toolCallId=tool, status="failed")
        return ""

    def do_read(self, path: str, _: dict[str, Any]) -> None:
        answer = self.client.ask("fs/read_text_file", sessionId=self.session, path=str(Path(path).absolute()))
        self.say(answer["error"]["message"] if "error" in answer else answer["result"]["content"])

    def do_call(self, tool: str, _: dict[str, Any]) -> None:
        if not self.servers:
            raise ScriptError("no MCP server was offered")
        begun = self.begins(tool)
        answer = self.servers[0].ask("tools/call", name=tool, arguments={})
        self.update("tool_call_update", toolCallId=begun, status="completed")
        self.say(json.dumps(answer.get("result", answer.get("error"))))

    def do_steps(self, number: int, _: dict[str, Any]) -> None:
        for _step in range(number):
            self.client.heed(self.client.next(TICK_S))
            self.step("step")

    def do_fail(self, status: int, _: dict[str, Any]) -> NoReturn:
        data = {"status": status, "retry-after": "30"} if status == 429 else {"status": status}  # noqa: PLR2004
        raise Ended(error={"code": -32603, "message": "Internal error: the model said no", "data": data})

    def do_stop(self, reason: str, _: dict[str, Any]) -> NoReturn:
        raise Ended(reason=reason)

    def do_say_session(self, _: bool, __: dict[str, Any]) -> None:  # noqa: FBT001
        self.say(f"session {self.session}")


class McpServer:
    """An MCP server that the client offered: started, and greeted until it answers."""

    def __init__(self, offered: dict[str, Any]) -> None:
        env = {**os.environ, **{pair["name"]: pair["value"] for pair in offered["env"]}}
        argv = [offered["command"], *offered["args"]]
        self._process = subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=env)
        self._count = 0
        who = {"name": "scripted_acp", "version": "1"}
        self.ask("initialize", protocolVersion="2025-06-18", capabilities={}, clientInfo=who)

    def ask(self, method: str, **params: Any) -> dict[str, Any]:
        assert self._process.stdin
        assert self._process.stdout
        self._count += 1
        line = json.dumps({"jsonrpc": "2.0", "id": self._count, "method": method, "params": params})
        self._process.stdin.write(line.encode() + b"\n")
        self._process.stdin.flush()
        for answer in self._process.stdout:
            found: dict[str, Any] = json.loads(answer)
            if found.get("id") == self._count:
                return found
        return {"error": {"message": "the server ended"}}


class Program:
    """The agent from its start to the end of stdin."""

    def __init__(self) -> None:
        self.client = Client()
        self.servers: list[McpServer] = []
        self.spent = 0.0
        self.code = 0

    def serve(self) -> int:
        while True:
            message = self.client.later.pop(0) if self.client.later else self.client.next()
            if message is None:
                return self.code
            method, params = message.get("method"), message.get("params") or {}
            match method:
                case "initialize":
                    capabilities = {"loadSession": True, "promptCapabilities": {}}
                    who = {"name": "scripted", "version": "1"}
                    result = {"protocolVersion": 1, "agentCapabilities": capabilities, "agentInfo": who}
                    self.client.write(id=message["id"], result=result)
                case "session/new" | "session/load":
                    self.open(message["id"], method, params)
                case "session/prompt":
                    self.turn(message["id"], params)
                case "session/cancel":
                    pass  # nothing runs
                case _ if "id" in message and method:
                    error = {"code": -32601, "message": "Method not found"}
                    self.client.write(id=message["id"], error=error)

    def open(self, key: Any, method: str, params: dict[str, Any]) -> None:
        session = params.get("sessionId", f"scripted-{os.getpid()}")
        if not session.startswith("scripted-"):
            error = {"code": -32002, "message": f"Resource not found: {session}"}
            self.client.write(id=key, error=error)
            return
        self.servers = [McpServer(offered) for offered in params["mcpServers"]]
        if method == "session/load":
            self.spent = 1.0
            replayed: list[dict[str, Any]] = [
                {"sessionUpdate": "user_message_chunk", "content": {"type": "text", "text": "replayed"}},
                {"sessionUpdate": "agent_message_chunk", "content": {"type": "text", "text": "replayed"}},
                {"sessionUpdate": "usage_update", "used": 1, "size": 2, "cost": {"amount": 1.0, "currency": "USD"}},
            ]
            for update in replayed:
                self.client.write(method="session/update", params={"sessionId": session, "update": update})
        modes = {"currentModeId": MODES[0], "availableModes": [{"id": mode, "name": mode} for mode in MODES]}
        self.client.write(id=key, result={"sessionId": session, "modes": modes})

    def turn(self, key: Any, params: dict[str, Any]) -> None:
        agent = AcpScripted(self.client, params["sessionId"], self.servers, self.spent)
        agent.prompt = "".join(block.get("text", "") for block in params["prompt"]).encode(errors="replace")
        try:
            answer: dict[str, Any] = {"result": self.follow(agent)}
        except Cancelled:
            answer = {"result": {"stopReason": "cancelled"}}
        except Ended as ended:
            answer = {"error": ended.error} if ended.error else {"result": {"stopReason": ended.reason}}
        except (ScriptError, OSError, ValueError) as error:
            answer = {"error": {"code": -32603, "message": f"Internal error: {error}"}}
            agent.code = 2 if isinstance(error, ScriptError) else 1
        if agent.silent:
            os._exit(agent.code)
        self.spent, self.code = agent.spent, agent.code
        self.client.write(id=key, **answer)

    def follow(self, agent: AcpScripted) -> dict[str, Any]:
        deeds, agent.silent = read_script(agent.prompt.decode(errors="replace"), VERBS)
        agent.follow(deeds)
        into, out = agent.tokens_in, agent.tokens_out
        usage = {"inputTokens": into, "outputTokens": out, "totalTokens": into + out}
        return {"stopReason": "end_turn", "usage": usage}


def _stopped(number: int, _: Any) -> NoReturn:
    raise Stopped(number)


def main(arguments: list[str]) -> int:
    """Serve one client; the exit code."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, _stopped)
    if "--banner" in arguments:
        os.write(1, b"Welcome! {This is not JSON}\n")
    try:
        code = Program().serve()
        while "--stays" in arguments:
            signal.pause()
        return code
    except Stopped as stopped:
        return 0 if "--deaf" in arguments else 128 + stopped.number


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
