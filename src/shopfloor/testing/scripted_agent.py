r"""The scripted agent: a real program that does what the script in its prompt says. No model, no network, no cost.

It reads the prompt on stdin and follows every fenced block marked ``script``: TOML, one ``[[do]]`` table a deed.

    ```script
    [[do]]
    write = "hello.txt"
    content = "hello\n"
    [[do]]
    commit = "say hello"
    ```

A ``[[do]]`` table has exactly one verb, and perhaps options:

    write, append   path; ``content``             run           shell command; ``raw`` passes its output through
    replace         path; ``old``, ``new``        commit        message; commits everything
    delete          path                          say           text, as a thought
    wait_s          seconds                       cost          USD; ``tokens_in``, ``tokens_out``
    hang            true; ``stubborn`` ignores SIGINT and SIGTERM, ``grandchild`` first starts one in its own session
    crash           exit code, or a signal's name; no last words
    crash_once      label; as ``crash = 3``, but a later attempt gets past it
    ask             question; ends the turn, and a later attempt gets past it
    spawn_orphan    true; a process in its own session that lives on
    exit            exit code, with proper last words       nothing     true
    save_prompt     path; takes the prompt as it came
    call            a tool of the floor's MCP server; ``arguments`` a table; ``into`` a path for what it answers
    model_call      number of calls to the model, 0: without end; one that fails ends it; ``text``
    retry_call      status that the model is said to answer; ``delay_s``; it goes on at once
    no_more         quota, auth or budget: that error is the end; ``reset_in_s``, ``linger``, ``unless`` (a file)

What stops only once is numbered in the order of the script: the n-th such deed stops attempts up to the n-th
(``SHOPFLOOR_GENERATION``, 1 when absent), so nothing has to be remembered between attempts. A key ``silent = true``
before the first table keeps every event back; ``session = "known"`` makes it tell a session and go on with it when
``SCRIPTED_SESSION`` names one, ``session = "forgotten"`` makes it refuse that. Calls go to ``SCRIPTED_MODEL_URL``.

It reports in JSON Lines on stdout (start, log, thought, step, ask, finish, error, cost) and exits 0 on success, 1 on
failure, 2 when the script is off, 130 or 143 when it was told to stop. Standard library only, few imports: it starts
fast.
"""

import itertools
import json
import os
import re
import runpy
import signal
import subprocess
import sys
import time
import tomllib
from pathlib import Path
from types import FrameType
from typing import Any, NoReturn

WHO = "scripted agent: follows the script in its prompt; no model"
OUTPUT_CHARS = 10_000
BAD = 400
_FENCE = re.compile(r" {0,3}(?P<fence>`{3,}|~{3,})[ \t]*script[ \t]*")
_PLAIN = "nothing delete commit say wait_s crash crash_once ask spawn_orphan save_prompt exit"
_OPTIONS: dict[str, dict[str, type]] = {
    **{verb: {"content": str} for verb in ("write", "append")},
    "replace": {"old": str, "new": str},
    "run": {"raw": bool},
    "cost": {"tokens_in": int, "tokens_out": int},
    "hang": {"stubborn": bool, "grandchild": bool},
    "call": {"arguments": dict, "into": str},
    "model_call": {"text": str},
    "retry_call": {"delay_s": float},
    "no_more": {"reset_in_s": float, "linger": bool, "unless": str},
    **{verb: {} for verb in _PLAIN.split()},
}
Verbs = dict[str, type | tuple[type, ...]]
_WORDS = "write append replace delete run commit say crash_once ask save_prompt call no_more"
_VALUES: Verbs = {
    **dict.fromkeys(_WORDS.split(), str),
    **dict.fromkeys(("hang", "spawn_orphan", "nothing"), bool),
    **dict.fromkeys(("wait_s", "cost"), (int, float)),
    "crash": (int, str),
    **dict.fromkeys(("exit", "model_call", "retry_call"), int),
}


class ScriptError(Exception):
    """The script is off; the message says where."""


class Stopped(BaseException):
    """It was told to stop; not an Exception, so that nothing takes it for a failure."""

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.number = number


def blocks(prompt: str) -> str:
    """The content of all blocks fenced as ``script``, joined."""
    found: list[str] = []
    closing = ""
    for line in prompt.splitlines():
        if closing:
            bare = line.strip()
            if len(bare) >= len(closing) and set(bare) == set(closing):
                closing = ""
            else:
                found.append(line)
        elif opening := _FENCE.fullmatch(line):
            closing = opening["fence"]
    return "\n".join(found)


def read_script(prompt: str, more: Verbs | None = None) -> tuple[list[dict[str, Any]], bool]:
    """The deeds in order, each checked, and whether it shall be silent. Raises ScriptError.

    ``more`` are verbs beyond those of this agent, without options, and the type of each.
    """
    text = blocks(prompt)
    if not text.strip():
        raise ScriptError("the prompt has no block fenced as ```script: there is nothing to follow")
    try:
        script = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise ScriptError(f"the script is not TOML: {error}") from None
    if unknown := sorted(script.keys() - {"do", "silent", "session"}):
        raise ScriptError(f"the script has an unknown key {unknown[0]!r}: only 'silent', 'session', [[do]] are known")
    deeds = script.get("do", [])
    if not isinstance(deeds, list) or not deeds:
        raise ScriptError("the script has no [[do]] table")
    for number, deed in enumerate(deeds, 1):
        _check(number, deed, more or {})
    return deeds, script.get("silent") is True


def _check(number: int, deed: Any, more: Verbs) -> None:
    """Raise ScriptError unless the deed has one verb, the options of that verb, and the right types."""
    if not isinstance(deed, dict):
        raise ScriptError(f"[[do]] number {number} is no table: {deed!r}")
    verbs = [key for key in deed if key in _OPTIONS or key in more]
    if len(verbs) != 1:
        known = ", ".join((*_OPTIONS, *more))
        raise ScriptError(f"[[do]] number {number} needs exactly one verb of {known}; it has {sorted(deed)}")
    types: Verbs = {**_VALUES, **more}
    types = {verbs[0]: types[verbs[0]], **_OPTIONS.get(verbs[0], {})}
    for key, value in deed.items():
        if key not in types:
            raise ScriptError(f"[[do]] number {number}: {verbs[0]!r} has no option {key!r}")
        right = types[key]
        if not isinstance(value, right) or (isinstance(value, bool) and right is not bool):
            raise ScriptError(f"[[do]] number {number}: {key} = {value!r} has the wrong type")


class ScriptedAgent:
    """One run: the events it writes, what it has spent, and the deeds."""

    def __init__(self, *, generation: int) -> None:
        self.generation = generation
        self.prompt = b""
        self.silent = False
        self.seq = self.steps = self.tokens_in = self.tokens_out = self.once = 0
        self.spent = 0.0
        self._writing = False
        self._told: int | None = None

    def told_to_stop(self, number: int, _: FrameType | None) -> None:
        """The signal handler: never in the middle of a line."""
        if not self._writing:
            raise Stopped(number)
        self._told = number

    def emit(self, kind: str, **data: Any) -> None:
        """Write one event as one line."""
        if self.silent:
            return
        self.seq += 1
        now = time.time()
        stamp = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(now)) + f".{int(now % 1 * 1e6):06d}+00:00"
        event = {"type": kind, "data": data, "v": 1, "seq": self.seq, "timestamp": stamp}
        line = (json.dumps(event, ensure_ascii=False) + "\n").encode(errors="replace")
        self._writing = True
        try:
            while line:
                line = line[os.write(1, line) :]
        finally:
            self._writing = False
        if self._told is not None:
            number, self._told = self._told, None
            raise Stopped(number)

    def step(self, action: str, output: str = "", **data: Any) -> None:
        """Report a deed that was done."""
        self.steps += 1
        shown = {"output": output[:OUTPUT_CHARS], "truncated": len(output) > OUTPUT_CHARS}
        body = {"step": self.steps, "action": action, **shown}
        self.emit("step", **body, cost_so_far=round(self.spent, 9), **data)

    def end(self, status: str, result: str, code: int) -> int:
        """The last words; returns the exit code."""
        self.emit("finish", status=status, result=result, steps=self.steps)
        return self.bill(code)

    def bill(self, code: int) -> int:
        sums = {"total": round(self.spent, 9), "tokens_in": self.tokens_in, "tokens_out": self.tokens_out}
        self.emit("cost", calls=self.steps, source="worker", **sums)
        return code

    def follow(self, deeds: list[dict[str, Any]]) -> int:
        """Do everything in order; the exit code."""
        for deed in deeds:
            verb = next(key for key in deed if hasattr(self, f"do_{key}"))
            code = getattr(self, f"do_{verb}")(deed[verb], deed)
            if code is not None:
                return int(code)
        return self.end("success", f"followed {len(deeds)} of {len(deeds)} deeds", 0)

    def passes(self) -> bool:
        """True when this attempt gets past the next deed that stops only once."""
        self.once += 1
        return self.generation > self.once

    # -- deeds: each returns None to go on, or the exit code ----------------------------------------------------

    def do_write(self, path: str, deed: dict[str, Any]) -> None:
        Path(path).parent.mkdir(parents=True, exist_ok=True)
        Path(path).write_text(deed.get("content", ""), encoding="utf-8", newline="")
        self.step(f"write {path}")

    def do_save_prompt(self, path: str, _: dict[str, Any]) -> None:
        Path(path).write_bytes(self.prompt)
        self.step(f"save the prompt as {path}")

    def do_call(self, tool: str, deed: dict[str, Any]) -> None:
        began, (text, code) = time.monotonic(), beside("call_tool")(tool, deed.get("arguments", {}))
        if into := deed.get("into"):
            Path(into).write_text(text + "\n", encoding="utf-8")
        took = round((time.monotonic() - began) * 1000)
        self.step(f"call {tool}", text, returncode=code, duration_ms=took)

    def do_append(self, path: str, deed: dict[str, Any]) -> None:
        Path(path).parent.mkdir(parents=True, exist_ok=True)
        with Path(path).open("a", encoding="utf-8", newline="") as file:
            file.write(deed.get("content", ""))
        self.step(f"append to {path}")

    def do_replace(self, path: str, deed: dict[str, Any]) -> None:
        text = Path(path).read_text(encoding="utf-8")
        old = deed.get("old", "")
        if not old or old not in text:
            raise ScriptError(f"{path!r} does not contain {old!r}")
        Path(path).write_text(text.replace(old, deed.get("new", ""), 1), encoding="utf-8", newline="")
        self.step(f"replace in {path}")

    def do_delete(self, path: str, _: dict[str, Any]) -> None:
        Path(path).unlink()
        self.step(f"delete {path}")

    def do_run(self, command: str, deed: dict[str, Any]) -> None:
        self.shell(["sh", "-c", command], shown=command, raw=deed.get("raw", False))

    def do_commit(self, message: str, _: dict[str, Any]) -> None:
        who = "-c user.name='scripted agent' -c user.email=scripted@localhost"
        line = f'git add --all && git {who} commit --quiet --message "$1"'
        self.shell(["sh", "-c", line, "sh", message], shown=f"commit {message!r}")

    def shell(self, argv: list[str], *, shown: str, raw: bool = False) -> None:
        """Run it to its end and report what it printed; a command that fails does not stop the script."""
        began = time.monotonic()
        into = None if raw else subprocess.PIPE
        done = subprocess.run(
            argv, stdin=subprocess.DEVNULL, stdout=into, stderr=None if raw else subprocess.STDOUT, check=False
        )
        took, output = round((time.monotonic() - began) * 1000), (done.stdout or b"").decode(errors="replace")
        self.step(shown, output, returncode=done.returncode, duration_ms=took)

    def do_say(self, text: str, _: dict[str, Any]) -> None:
        self.emit("thought", content=text)

    def do_wait_s(self, seconds: float, _: dict[str, Any]) -> None:
        time.sleep(seconds)

    def do_cost(self, usd: float, deed: dict[str, Any]) -> None:
        self.spent += usd
        tokens = {key: deed[key] for key in ("tokens_in", "tokens_out") if key in deed}
        self.tokens_in += tokens.get("tokens_in", 0)
        self.tokens_out += tokens.get("tokens_out", 0)
        self.step(f"spend {usd:g} USD", cost_step=usd, **tokens)

    def do_hang(self, _: bool, deed: dict[str, Any]) -> NoReturn:  # noqa: FBT001 - the value in the script
        if deed.get("stubborn"):
            signal.signal(signal.SIGINT, signal.SIG_IGN)
            signal.signal(signal.SIGTERM, signal.SIG_IGN)
        if deed.get("grandchild"):
            self.start_apart("grandchild")
        self.emit("log", level="info", content="hangs until it is stopped")
        while True:
            signal.pause()

    def do_spawn_orphan(self, _: bool, __: dict[str, Any]) -> None:  # noqa: FBT001
        self.start_apart("orphan")

    def start_apart(self, what: str) -> None:
        """Start a process in a session of its own; it ignores what this one ignores."""
        no = subprocess.DEVNULL
        child = subprocess.Popen(["sleep", "86400"], start_new_session=True, stdin=no, stdout=no, stderr=no)
        self.emit("log", level="info", content=f"{what} {child.pid} started", pid=child.pid)

    def do_crash(self, how: int | str, _: dict[str, Any]) -> NoReturn:
        if isinstance(how, str):
            number = getattr(signal, how, None)
            if not isinstance(number, signal.Signals):
                raise ScriptError(f"crash = {how!r} is neither an exit code nor a signal's name")
            if number in (signal.SIGINT, signal.SIGTERM):
                signal.signal(number, signal.SIG_DFL)
            os.kill(os.getpid(), number)
        os._exit(how if isinstance(how, int) else 1)

    def do_crash_once(self, _: str, deed: dict[str, Any]) -> None:
        if not self.passes():
            self.do_crash(3, deed)

    def do_ask(self, question: str, _: dict[str, Any]) -> int | None:
        if self.passes():
            return None
        self.emit("ask", question=question)
        return self.end("success", question, 0)

    def do_model_call(self, number: int, deed: dict[str, Any]) -> int | None:
        for made in range(1, number + 1) if number else itertools.count(1):
            status, answer = beside("ask_model")(deed.get("text", "") or f"call {made}")
            if status >= BAD:
                self.emit("error", error=f"HTTP {status}: {answer}", type="APIError", traceback="")
                return self.bill(1)
            self.step(f"model call {made}", answer)
        return None

    def do_retry_call(self, status: int, deed: dict[str, Any]) -> None:
        self.emit("retrying", status=status, delay_s=deed.get("delay_s", 0.0), error=f"HTTP {status}")

    def do_no_more(self, what: str, deed: dict[str, Any]) -> int | None:
        if deed.get("unless") and Path(deed["unless"]).exists():
            return None
        told = {"reset_at": time.time() + deed["reset_in_s"]} if "reset_in_s" in deed else {}
        self.emit("error", error=f"no {what} left", type=what, traceback="", **told)
        while deed.get("linger"):
            signal.pause()
        return self.bill(1)

    def do_exit(self, code: int, _: dict[str, Any]) -> int:
        return self.end("success" if code == 0 else "failed", f"told to exit {code}", code)

    def do_nothing(self, _: bool, __: dict[str, Any]) -> None:  # noqa: FBT001
        self.step("nothing")


def beside(name: str) -> Any:
    """A function of the file beside this one, read only where it is needed; nothing is found by import here."""
    return runpy.run_path(str(Path(__file__).with_name("scripted_calls.py")))[name]


def generation() -> int:
    """Which attempt this is, as the environment says."""
    text = os.environ.get("SHOPFLOOR_GENERATION", "1")
    return int(text) if text.isascii() and text.isdigit() else 1


def main() -> int:
    """Read the prompt, follow the script; the exit code."""
    agent = ScriptedAgent(generation=generation())
    signal.signal(signal.SIGINT, agent.told_to_stop)
    signal.signal(signal.SIGTERM, agent.told_to_stop)
    try:
        agent.prompt = sys.stdin.buffer.read()
        prompt = agent.prompt.decode(errors="replace")
        task = next((line.strip() for line in prompt.splitlines() if line.strip()), "")
        problem = None
        try:
            deeds, agent.silent = read_script(prompt)
            session = tomllib.loads(blocks(prompt)).get("session", "")
        except ScriptError as error:
            deeds, session, problem = [], "", error
        goes_on = os.environ.get("SCRIPTED_SESSION", "")
        if session == "forgotten" and goes_on:
            agent.emit("error", error=f"there is no session {goes_on!r}", type="NoSession", traceback="")
            return 1
        told = {"session_id": goes_on or f"session-{os.getpid()}"} if session else {}
        agent.emit("start", task=task[:200], model="none", workdir=str(Path.cwd()), **told)
        agent.emit("log", level="info", content=WHO)
        if problem is None:
            return agent.follow(deeds)
        agent.emit("error", error=str(problem), type="ScriptError", traceback="")
        return agent.bill(2)
    except Stopped as stopped:
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # the last words are said once
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        return agent.end("cancelled", f"stopped by {signal.Signals(stopped.number).name}", 128 + stopped.number)
    except (ScriptError, OSError, ValueError) as error:
        agent.emit("error", error=str(error), type=type(error).__name__, traceback="")
        return agent.bill(1)


if __name__ == "__main__":
    sys.exit(main())
