r"""The scripted agent in Claude Code's two-way stream-json: a real program without a model, for tests.

It follows the script in each message as ``scripted_agent`` does, whose verbs it knows. Deeds become tool uses, thoughts
texts. More verbs of its own:

    permit_write    path; asks whether it may use Write, and writes hello when it may
    permit_run      command; asks whether it may use Bash, and runs it when it may
    question        text; asks a person by AskUserQuestion, and says what came
    steps           number; tool uses one after the other, each waiting a moment for words or an interrupt
    call            tool; calls it on the first MCP server that it was offered, and says what came
    retry           HTTP status; says that a model call failed with it, and goes on
    fail            HTTP status; the turn ends with that error, which calls itself a success
    limit           ``max_turns`` or ``max_budget_usd``; the turn ends with that
    background      seconds; a command in the background: a result now, and another one when it has ended
    say_session     true; says its session's name

Arguments of its own: ``--old`` speaks as the 2.1.197 family does; ``--banner`` prints a line of plain text first;
``--deaf`` ends with exit code 0 on SIGTERM, without a word; ``--mute`` says nothing at all until it is ended.
"""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any, NoReturn

from shopfloor.testing.scripted_acp import Client, McpServer
from shopfloor.testing.scripted_agent import ScriptedAgent, ScriptError, Stopped, Verbs, read_script

VERBS: Verbs = {
    "permit_write": str,
    "permit_run": str,
    "question": str,
    "steps": int,
    "call": str,
    "retry": int,
    "fail": int,
    "limit": str,
    "background": (int, float),
    "say_session": bool,
}
TICK_S = 0.05
MODEL = "scripted"


class Interrupted(Exception):
    """The turn is to end now."""


class Ended(Exception):
    """The turn ends here, with these fields in its result."""

    def __init__(self, **result: Any) -> None:
        super().__init__(repr(result))
        self.result = result


class Host(Client):
    """The other side, in this dialect; what is kept for later are words."""

    over = False

    @property
    def eof(self) -> bool:
        return self._eof

    def tell(self, kind: str, **fields: Any) -> None:
        line = json.dumps({"type": kind, **fields}).encode() + b"\n"
        while line:
            line = line[os.write(1, line) :]

    def heed(self, message: dict[str, Any] | None) -> None:
        """Keep words for later, answer requests. Raises Interrupted."""
        if message is None:
            return
        if message["type"] == "user":
            self.later.append(message)
        elif message["type"] == "control_request":
            subtype = message["request"]["subtype"]
            response: dict[str, Any] = {"commands": []} if subtype == "initialize" else {}
            answer = {"subtype": "success", "request_id": message["request_id"], "response": response}
            self.tell("control_response", response=answer)
            self.over = self.over or subtype == "end_session"
            if subtype in ("interrupt", "end_session"):
                raise Interrupted

    def may(self, **request: Any) -> dict[str, Any]:
        """Ask whether it may, and wait for the answer; an error when nobody can give one any more."""
        self._count += 1
        key = f"ask-{self._count}"
        self.tell("control_request", request_id=key, request={"subtype": "can_use_tool", **request})
        while (message := self.next()) is not None:
            if message["type"] == "control_response" and message["response"]["request_id"] == key:
                found: dict[str, Any] = message["response"].get("response", {})
                return found
            self.heed(message)
        return {"behavior": "deny", "message": "Tool permission request failed: Error: Stream closed"}


class Turn(ScriptedAgent):
    """The deeds of one turn, told in stream-json."""

    def __init__(self, program: "Program") -> None:
        text = os.environ.get("SHOPFLOOR_GENERATION", "1")
        super().__init__(generation=int(text) if text.isascii() and text.isdigit() else 1)
        self.program, self.host = program, program.host
        self.denials: list[dict[str, Any]] = []
        self.code = 0
        self.background: subprocess.Popen[bytes] | None = None

    def message(self, block: dict[str, Any], kind: str = "assistant") -> None:
        if self.silent:
            return
        body: dict[str, Any] = {"role": kind, "content": [block]}
        if kind == "assistant":
            body |= {"id": f"msg-{next(self.program.numbers)}", "model": MODEL, "usage": {"output_tokens": 1}}
        self.host.tell(kind, message=body, session_id=self.program.session, parent_tool_use_id=None)

    def use(self, name: str, given: dict[str, Any]) -> str:
        key = f"use-{next(self.program.numbers)}"
        self.message({"type": "tool_use", "id": key, "name": name, "input": given})
        return key

    def used(self, key: str, output: str, *, error: bool = False) -> None:
        block = {"type": "tool_result", "tool_use_id": key, "content": output, "is_error": error}
        self.message(block, "user")

    def emit(self, kind: str, **data: Any) -> None:
        """An event of the other dialect, in this one."""
        match kind:
            case "step":
                self.used(self.use("Bash", {"command": data["action"]}), data["output"])
            case "thought" | "log":
                self.message({"type": "text", "text": data["content"]})
            case "ask":
                self.message({"type": "text", "text": data["question"]})

    def end(self, status: str, result: str, code: int) -> int:
        self.code = code
        if code:
            raise Ended(is_error=True, subtype="error_during_execution", errors=[result])
        return code

    # -- deeds ------------------------------------------------------------------------------------------------------

    def do_hang(self, _: bool, deed: dict[str, Any]) -> NoReturn:  # noqa: FBT001 - the value in the script
        stubborn = bool(deed.get("stubborn"))
        if stubborn:
            signal.signal(signal.SIGINT, signal.SIG_IGN)
            signal.signal(signal.SIGTERM, signal.SIG_IGN)
        if deed.get("grandchild"):
            self.start_apart("grandchild")
        self.message({"type": "text", "text": "hangs until it is stopped"})
        while True:
            message = None if stubborn else self.host.next()
            if message is None:
                signal.pause()
            self.host.heed(message)

    def permitted(self, name: str, given: dict[str, Any]) -> tuple[str, dict[str, Any] | None]:
        """The use, and the input that it may have; None when it may not."""
        key = self.use(name, given)
        answer = self.host.may(tool_name=name, input=given, tool_use_id=key)
        if answer.get("behavior") == "allow":
            found: dict[str, Any] = answer["updatedInput"]
            return key, found
        self.denials.append({"tool_name": name, "tool_use_id": key, "tool_input": given})
        self.used(key, str(answer.get("message")), error=True)
        return key, None

    def do_permit_write(self, path: str, _: dict[str, Any]) -> None:
        key, given = self.permitted("Write", {"file_path": path, "content": "hello\n"})
        if given is not None:
            Path(given["file_path"]).write_text(given["content"], encoding="utf-8")
            self.used(key, "File created successfully")

    def do_permit_run(self, command: str, _: dict[str, Any]) -> None:
        key, given = self.permitted("Bash", {"command": command})
        if given is not None:
            done = subprocess.run(["sh", "-c", given["command"]], capture_output=True, check=False)
            self.used(key, done.stdout.decode(errors="replace"), error=done.returncode != 0)

    def do_question(self, text: str, _: dict[str, Any]) -> None:
        options = [{"label": "one", "description": "1"}, {"label": "two", "description": "2"}]
        key, given = self.permitted("AskUserQuestion", {"questions": [{"question": text, "options": options}]})
        if given is not None:
            self.used(key, json.dumps(given["answers"]))
            self.message({"type": "text", "text": f"answered: {given['answers'][text]}"})

    def do_steps(self, number: int, _: dict[str, Any]) -> None:
        for _step in range(number):
            self.host.heed(self.host.next(TICK_S))
            self.program.hear()
            self.step("step")

    def do_call(self, tool: str, _: dict[str, Any]) -> None:
        if not self.program.servers:
            raise ScriptError("no MCP server was offered")
        name, server = next(iter(self.program.servers.items()))
        key, given = self.permitted(f"mcp__{name}__{tool}", {})
        if given is not None:
            answer = server.ask("tools/call", name=tool, arguments=given)
            self.used(key, json.dumps(answer.get("result", answer.get("error"))))

    def do_retry(self, status: int, _: dict[str, Any]) -> None:
        told = {
            "attempt": 1,
            "max_retries": 10,
            "retry_delay_ms": 1230.5,
            "error_status": status,
            "error": "rate_limit",
        }
        self.host.tell("system", subtype="api_retry", session_id=self.program.session, **told)

    def do_fail(self, status: int, _: dict[str, Any]) -> NoReturn:
        reason = "completed" if self.program.old else "api_error"
        raise Ended(is_error=True, api_error_status=status, terminal_reason=reason, result=f"API Error: {status} no")

    def do_limit(self, which: str, _: dict[str, Any]) -> NoReturn:
        raise Ended(is_error=True, subtype=f"error_{which}", errors=[f"Reached {which}"])

    def do_background(self, seconds: float, _: dict[str, Any]) -> None:
        key = self.use("Bash", {"command": f"sleep {seconds}", "run_in_background": True})
        self.background = subprocess.Popen(["sleep", str(seconds)])
        self.host.tell("system", subtype="task_started", task_id="b1", tool_use_id=key)
        self.used(key, "Command running in background with ID: b1")

    def do_say_session(self, _: bool, __: dict[str, Any]) -> None:  # noqa: FBT001
        self.message({"type": "text", "text": f"session {self.program.session}"})


class Program:
    """The agent from its start to the end of stdin."""

    def __init__(self, arguments: list[str]) -> None:
        self.host = Host()
        self.old = "--old" in arguments
        self.numbers = iter(range(1, 10**9))
        self.resumed = value_of(arguments, "--resume")
        self.session = self.resumed or f"scripted-{os.getpid()}"
        self.replays = "--replay-user-messages" in arguments
        self.usd, self.before = 0.0, 1.0 if self.resumed and not self.old else 0.0
        self.tokens_in = self.tokens_out = self.code = 0
        self.last = (0.0, 0, 0)
        self.servers: dict[str, McpServer] = {}
        self.status: list[dict[str, str]] = []
        for name, server in json.loads(value_of(arguments, "--mcp-config") or '{"mcpServers":{}}')[
            "mcpServers"
        ].items():
            offered = {**server, "env": [{"name": key, "value": value} for key, value in server["env"].items()]}
            try:
                self.servers[name] = McpServer(offered)
                self.status.append({"name": name, "status": "connected"})
            except (OSError, ValueError):
                self.status.append({"name": name, "status": "failed"})

    def serve(self) -> int:
        if self.resumed and not self.resumed.startswith("scripted-"):
            self.result(errors=[f"No conversation found with session ID: {self.resumed}"], is_error=True,
                        subtype="error_during_execution")  # fmt: skip
            return 1
        while not self.host.over:
            if not self.host.later:
                message = self.host.next()
                if message is None:
                    break
                try:
                    self.host.heed(message)
                except Interrupted:
                    continue
            if self.host.later:
                self.turn(self.host.later.pop(0))
        return self.code

    def hear(self) -> None:
        """The model has what was said meanwhile."""
        while self.host.later:
            self.replay(self.host.later.pop(0))

    def replay(self, words: dict[str, Any]) -> None:
        if self.replays:
            self.host.tell("user", message=words["message"], uuid=words["uuid"], isReplay=True)

    def init(self) -> None:
        version = "2.1.197" if self.old else "2.1.329"
        told = {"session_id": self.session, "model": MODEL, "mcp_servers": self.status}
        self.host.tell("system", subtype="init", claude_code_version=version, permissionMode="default", **told)

    def turn(self, words: dict[str, Any]) -> None:
        turn = Turn(self)
        turn.prompt = words["message"]["content"].encode(errors="replace")
        said: dict[str, Any] = {"result": "Done, all of it."}
        try:
            self.play(turn, words)
        except Interrupted:
            said = {"is_error": True, "subtype": "error_during_execution", "terminal_reason": "aborted_tools"}
            turn.code = 1
        except Ended as ended:
            said, turn.code = ended.result, turn.code or 1
        except (ScriptError, OSError, ValueError) as error:
            said = {"is_error": True, "result": str(error)}
            turn.code = 2 if isinstance(error, ScriptError) else 1
        self.code = turn.code
        if turn.silent:
            os._exit(turn.code)
        self.bill(turn)
        self.result(permission_denials=turn.denials, **said)
        if turn.background is not None:
            self.after(turn.background)

    def play(self, turn: Turn, words: dict[str, Any]) -> None:
        """The deeds of one turn; a script that is off is heard of all the same."""
        try:
            deeds, turn.silent = read_script(turn.prompt.decode(errors="replace"), VERBS)
        finally:
            if not turn.silent:
                self.init()
                self.replay(words)
        turn.follow(deeds)
        self.hear()

    def after(self, command: subprocess.Popen[bytes]) -> None:
        """The turn that follows when the command in the background has ended."""
        try:
            while command.poll() is None:
                self.host.heed(self.host.next(TICK_S))
                if self.host.eof:
                    time.sleep(TICK_S)
        except Interrupted:
            command.kill()
            return
        self.host.tell("system", subtype="task_notification", task_id="b1", status="completed")
        self.init()
        self.result(result="after the background")

    def bill(self, turn: Turn) -> None:
        self.last = (turn.spent, turn.tokens_in, turn.tokens_out)
        self.usd += turn.spent
        self.tokens_in, self.tokens_out = self.tokens_in + turn.tokens_in, self.tokens_out + turn.tokens_out

    def result(self, **said: Any) -> None:
        """A result, whose ``type`` is not its first key in the newer family."""
        usd, into, out = self.last
        self.last = (0.0, 0, 0)
        fields: dict[str, Any] = {"subtype": "success", "is_error": False, "terminal_reason": "completed", **said}
        fields["session_id"] = self.session
        fields["total_cost_usd"] = self.before + self.usd
        whole = {"inputTokens": self.tokens_in, "outputTokens": self.tokens_out, "costUSD": self.before + self.usd}
        fields["modelUsage"] = {MODEL: whole}
        if not self.old:
            fields["model_usage_since_last_result"] = {
                MODEL: {"inputTokens": into, "outputTokens": out, "costUSD": usd}
            }
        line = json.dumps(fields | {"type": "result"} if not self.old else {"type": "result", **fields})
        os.write(1, line.encode() + b"\n")


def value_of(arguments: list[str], name: str) -> str:
    """The word behind an option, or an empty string."""
    return arguments[arguments.index(name) + 1] if name in arguments else ""


def _stopped(number: int, _: Any) -> NoReturn:
    raise Stopped(number)


def main(arguments: list[str]) -> int:
    """Serve one host; the exit code."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, _stopped)
    if "--banner" in arguments:
        os.write(1, b"Welcome! {This is not JSON}\n")
    try:
        while "--mute" in arguments:
            time.sleep(3600)
        return Program(arguments).serve()
    except Stopped as stopped:
        return 0 if "--deaf" in arguments else 128 + stopped.number


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
