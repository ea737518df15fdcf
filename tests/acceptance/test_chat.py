"""``shopfloor chat`` as people use it: through a pipe and in a real terminal, with a scripted model."""

from __future__ import annotations

import json
import os
import pty
import signal
import subprocess
import termios
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Self

import pytest

from shopfloor.testing.model import Model

from .shop import COMMAND, Running, Shop, until

MODEL = ("--model", "openai/gpt-4o")
"""In the dialect whose client is the quicker one to import: each conversation is a process of its own."""
SCRIPTS: dict[str, Any] = {
    "plan": [
        {
            "call": {
                "name": "issue_manager",
                "input": {
                    "operation": "create", "title": "paint the door", "description": "[[script paint]]",
                    "issue_type": "task", "metadata": {"category": "coding"},
                },
            }
        },
        {"text": "It is on the board."},
    ],
    "paint": [{"bash": "echo primed > door.txt"}, {"text": "I primed it.\nQUESTION: which colour?"}],
    "finish": [{"bash": "echo green >> door.txt"}, {"text": "The door is green."}],
    "reply": [
        {
            "call": {
                "name": "issue_manager",
                "input": {"operation": "unblock", "issue_id": "{id}", "info": "green [[script finish]]"},
            }
        },
        {"text": "The worker knows it now."},
    ],
    "hello": [{"text": "Hello."}],
    "long": [{"delay": 600, "text": "Too late."}],
    "broken": [{"fail": {"status": 400, "message": "the model is out of order"}}],
    "tidy": [{"bash": "echo tidied >> tidy.txt"}, {"text": "Tidy."}],
    "review": [{"bash": "echo reviewed >> review.txt"}, {"text": "Reviewed."}],
    "hold": [{"bash": "touch begun; exec sleep 600"}, {"text": "Never."}],
}  # fmt: skip


@pytest.fixture(scope="module")
def model() -> Iterator[Model]:
    with Model(SCRIPTS) as running:
        yield running


@pytest.fixture
def office(shop: Shop, model: Model) -> Shop:
    shop.env |= {"MINI_API_BASE": f"{model.url}/v1", "MINI_API_KEY": "throw-away", "PYTHONUNBUFFERED": "1"}
    return shop


class Chat:
    """A conversation through pipes: nothing is drawn, each answer is a line."""

    def __init__(self, office: Shop, *words: str) -> None:
        self.process = subprocess.Popen(
            [*COMMAND, "chat", *(words or MODEL), "--grace", "0.2"], cwd=office.root, env=office.env,
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        )  # fmt: skip
        self.running = Running(self.process)

    def say(self, line: str) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(f"{line}\n")
        self.process.stdin.flush()

    def end(self) -> int:
        assert self.process.stdin is not None
        self.process.stdin.close()
        return self.running.end().code


@contextmanager
def chatting(office: Shop, *words: str) -> Iterator[Chat]:
    chat = Chat(office, *words)
    with chat.running:
        try:
            yield chat
        finally:
            if chat.process.stdin is not None:
                chat.process.stdin.close()


def tasks(office: Shop) -> list[tuple[str, str]]:
    """Title and state of all issues, by another command on the same log."""
    lines = office("ready", "--json").json
    return [(order["title"], order["id"]) for order in lines.get("orders", lines)]


def test_a_question_goes_to_the_user_and_its_answer_back(office: Shop) -> None:
    with chatting(office) as chat:
        chat.running.until("foreman, and a crew of 2 x worker")
        chat.say("Paint the door [[script plan]]")
        chat.running.until("It is on the board.")
        chat.running.until("paint the door", "asks: which colour?")
        name = chat.running.until("type: /answer").split()[2]
        chat.say("/status")
        chat.running.until("1 pending_user_input")
        chat.say(f"/answer {name} green [[script finish]]")
        chat.running.until("goes on with your answer")
        chat.running.until("completed", "The door is green.")
        chat.say("Well? [[script hello]]")
        chat.running.until("Hello.")
        chat.say("/cost")
        cost = chat.running.until("tokens in")
        assert cost.startswith("$"), "foreman and workers, priced"
        chat.say("/tasks")
        chat.running.until("completed", "paint the door")
        chat.say("/quit")
        assert chat.running.end().code == 0
    assert (office.root / "door.txt").read_text() == "primed\ngreen\n"


def test_the_foreman_is_told_of_a_question_and_hands_the_answer_on(office: Shop, model: Model) -> None:
    with chatting(office) as chat:
        chat.say("Paint the door [[script plan]]")
        name = chat.running.until("asks: which colour?").split()[1]
        chat.say(f"Green it is [[script reply id={name}]]")
        chat.running.until("The worker knows it now.")
        chat.running.until("completed", "The door is green.")
        chat.say("/tasks")
        chat.running.until("completed", name)
        chat.say("/quit")
        assert chat.running.end().code == 0
    assert (office.root / "door.txt").read_text() == "primed\ngreen\n"
    asked = next(r for r in model.requests() if r.script == "reply" and r.params.get("id") == name)
    words = json.dumps(asked.body["messages"][-1])
    assert "[crew]" in words
    assert f"needs input: ask the user, then unblock: 1\\n  {name} paint the door: which colour?" in words


def test_work_is_added_and_status_asked_before_the_first_word(office: Shop) -> None:
    with chatting(office, *MODEL, "--workers", "0") as chat:
        chat.running.until("a crew of nobody")
        chat.say("/status")
        chat.running.until("there are no issues yet")
        chat.say("/add paint the door")
        chat.running.until("added wo-")
        chat.running.until("the crew begins with your first message")
        chat.say("/status")
        chat.running.until("1 open")
        assert chat.end() == 0
    assert [title for title, _ in tasks(office)] == ["paint the door"]


def test_what_was_said_is_answered_before_the_end_of_the_input_ends_it(office: Shop) -> None:
    done = office("chat", *MODEL, "--workers", "1", "--grace", "0.2", stdin="[[script hello]]")
    assert done.code == 0, done
    assert done.out.splitlines()[-1] == "Hello."
    assert "> " not in done.out


def test_ctrl_c_interrupts_the_answer_and_a_second_one_leaves_with_the_work_open_again(office: Shop) -> None:
    with chatting(office) as chat:
        chat.running.until("foreman")
        chat.say("/add [[script hold]]")
        chat.running.until("added")
        chat.say("Say something long [[script long]]")
        until((office.root / "begun").exists, "a worker has begun")
        chat.running.signal(signal.SIGINT)
        chat.running.until("interrupted; the crew works on")
        chat.say("/status")
        chat.running.until("1 in_progress")
        chat.running.signal(signal.SIGINT)
        said = chat.running.end()
        assert said.code == 130, said
    assert [title for title, _ in tasks(office)] == ["[[script hold]]"], "what was claimed is open again"


CREW = {
    "worker_pools": [{"name": "coding", "worker": "plain"}, {"name": "senior", "worker": "plain"}],
    "routing": {"rules": [{"if_status": "blocked", "and_retry_count_gte": 1, "then_pool": "senior"}], "max_retries": 1},
    "background_sessions": [
        {"name": "tidy", "trigger": "timer", "interval_seconds": 0.2, "instruction_template": "Look for dead code."},
        {"name": "gone", "trigger": "timer", "interval_seconds": 0.1, "immediate": True},
        {"name": "review", "trigger": "session_event", "event_names": ["foreman:worker:execution_failed"]},
        {"name": "hand", "profile": "review", "instruction_template": "{event} [[script review]]"},
    ],
}


@pytest.fixture
def crew(office: Shop, tmp_path: Path) -> tuple[str, ...]:
    """A crew with pools, and sessions beside it, one of which has no mount plan."""
    plans = tmp_path / "plans"
    plans.mkdir()
    for name, words in {"boss": "", "plain": "", "tidy": "[[script tidy]]", "review": "[[script review]]"}.items():
        mounts = {"provider": "openai", "model": "gpt-4o", "tools": ["bash", "issue"]}
        (plans / f"{name}.json").write_text(json.dumps({"mounts": mounts | {"system_prompt": f"You work. {words}"}}))
    (tmp_path / "crew.json").write_text(json.dumps(CREW))
    return ("--plans", str(plans), "--foreman", "boss", "--crew", str(tmp_path / "crew.json"))


def test_what_goes_wrong_is_told_in_a_line_each_and_once(office: Shop, crew: tuple[str, ...]) -> None:
    with chatting(office, *crew) as chat:
        chat.running.until("1 x coding, 1 x senior, beside them tidy (timer), gone (timer), review (session_event)")
        chat.say("/background")
        chat.running.until("begin with your first message")
        chat.say("Hello [[script hello]]")
        chat.running.until("background session gone failed", "Mount plan not found", "gone.json")
        chat.say("/add [[script broken]]")
        chat.running.until("worker coding-0 failed on wo-", "HTTP 400", "the model is out of order")
        chat.running.until("goes to senior")
        chat.running.until("stuck: ", "failed 2 times, at last: the model answered with HTTP 400", "is out of order")
        chat.running.until("type: /answer")
        chat.say("/status")
        chat.running.until("1 blocked")
        name = chat.running.until("is stuck").split()[0]
        chat.say(f"/answer {name} [[script hello]]")
        chat.running.until("completed: ")
        until((office.root / "tidy.txt").exists, "the timer")
        until((office.root / "review.txt").exists, "the event")
        chat.say("/background")
        chat.running.until("gone (timer), 0 turns, 4 failures in a row, left alone; /background gone")
        chat.say("/background gone")
        chat.running.until("gone has a turn now")
        chat.say("/quit")
        said = chat.running.end()
    assert said.code == 0, said
    assert "Traceback" not in said.out
    failed = [line for line in chat.running.lines if "background session gone failed" in line]
    assert [line.endswith("left alone from now on") for line in failed][:2] == [False, True]
    assert len(failed) <= 3, failed


def test_nobody_to_talk_with(office: Shop, tmp_path: Path) -> None:
    nobody = office("chat")
    assert nobody.code == 2
    assert "nobody is there to talk with" in nobody.err
    assert "--model anthropic/MODEL" in nobody.err
    assert "--plans DIR --foreman NAME" in nobody.err
    both = office("chat", *MODEL, "--foreman", "x")
    assert (both.code, "--model takes the place" in both.err) == (2, True)
    assert office("chat", "--model", "sonnet").code == 2
    (tmp_path / "crew.json").write_text('{"worker_pools": [{"name": "a", "max_concurrent": 0}]}')
    wrong = office("chat", *MODEL, "--crew", str(tmp_path / "crew.json"))
    assert (wrong.code, "max_concurrent of pool 'a' is 0" in wrong.err) == (2, True)
    (tmp_path / "crew.json").write_text('{"pools": []}')
    assert "has a key 'pools'" in office("chat", *MODEL, "--crew", str(tmp_path / "crew.json")).err
    assert "--worker 'x=1001'" in office("chat", "--plans", ".", "--foreman", "x", "--worker", "x=1001").err
    (tmp_path / "crew.json").write_text("{")
    assert "is malformed" in office("chat", *MODEL, "--crew", str(tmp_path / "crew.json")).err
    missing = office("chat", "--plans", str(tmp_path), "--foreman", "boss", stdin="hello\n")
    assert "Mount plan not found" in missing.out
    assert "boss.json" in missing.out
    assert (missing.code, missing.err) == (1, "")


def test_news_are_told_also_when_the_foreman_cannot_begin(office: Shop, tmp_path: Path) -> None:
    with chatting(office, "--plans", str(tmp_path), "--foreman", "boss") as chat:
        chat.say("hello")
        chat.running.until("no answer: Mount plan not found")
        chat.say("/add paint the door")
        name = chat.running.until("added wo-").split()[1]
        assert office("claim", "--order", name, "--holder", str(os.getpid())).code == 0
        assert office("finish", name, "--answer", "It is green.", "--holder", str(os.getpid())).code == 0
        chat.running.until(f"completed: {name} paint the door: It is green.")
        chat.say("/quit")
        assert chat.running.end().code == 0


def test_without_a_key_it_says_what_to_type(office: Shop) -> None:
    env = {name: value for name, value in office.env.items() if not name.startswith("MINI_")}
    office.env.clear()
    office.env.update(env)
    said = office("chat", *MODEL, stdin="hello\n")
    assert "no answer: " in said.out
    assert "KEY" in said.out


class Terminal:
    """A conversation in a real terminal; ``seen`` is all that was written to it."""

    def __init__(self, office: Shop) -> None:
        self.keyboard, self._screen = pty.openpty()
        env = {name: value for name, value in office.env.items() if not name.startswith("PYTEST") and name != "CI"}
        self.process = subprocess.Popen(
            [*COMMAND, "chat", *MODEL, "--grace", "0.2"], cwd=office.root, env={**env, "TERM": "xterm"},
            stdin=self._screen, stdout=self._screen, stderr=self._screen, start_new_session=True,
        )  # fmt: skip
        self.seen = bytearray()
        threading.Thread(target=self._listen, daemon=True).start()

    def _listen(self) -> None:
        while piece := _read(self.keyboard):
            self.seen.extend(piece)

    def type(self, keys: bytes) -> None:
        os.write(self.keyboard, keys)

    def until(self, *words: bytes, end: bytes = b"> ") -> None:
        until(lambda: all(word in self.seen for word in words) and self.seen.endswith(end), f"{words}, then {end!r}")

    @property
    def does(self) -> list[str]:
        """What the terminal does by itself, and programs expect of it."""
        local = termios.tcgetattr(self._screen)[3]
        known = {"shows what is typed": termios.ECHO, "waits for whole lines": termios.ICANON}
        return [name for name, flag in known.items() if local & flag]

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.process.kill()
        self.process.wait(40)
        os.close(self.keyboard)
        os.close(self._screen)


def test_in_a_terminal_it_asks_for_lines_and_keeps_what_is_typed(office: Shop) -> None:
    with Terminal(office) as terminal:
        terminal.until(b"/help says what you can type")
        terminal.type(b"Hi [[script hello]]\n")
        terminal.until(b"Hello.")
        terminal.type(b"/tasks\n")
        terminal.until(b"there are none")
        assert b"> > " not in terminal.seen
        assert b"pydantic" not in terminal.seen, "nobody else speaks here"
        terminal.type(b"/add [[script paint]]\n/tas")
        terminal.until(b"asks: which colour?", end=b"> /tas")  # it was half typed when the crew spoke
        terminal.type(b"kk\x7fs\n")
        terminal.until(b"> /tasks\r\n  pending_user_input")
        assert terminal.does == [], "it is left to the chat"
        terminal.type(b"/quit\n")
        assert terminal.process.wait(40) == 0
        until(lambda: b"the crew has stopped" in terminal.seen, "a last word")
        assert terminal.does == ["shows what is typed", "waits for whole lines"]


def test_the_terminal_is_given_back_however_it_ends(office: Shop) -> None:
    with Terminal(office) as terminal:
        terminal.until(b"/help says what you can type")
        terminal.type(b"half")
        terminal.until(end=b"> half")
        terminal.process.send_signal(signal.SIGINT)
        terminal.until(b"Ctrl-C again leaves", end=b"> half")
        terminal.process.send_signal(signal.SIGINT)
        assert terminal.process.wait(40) == 130
        assert terminal.does == ["shows what is typed", "waits for whole lines"]


def test_the_terminal_is_given_back_also_by_one_that_is_ended_at_once(office: Shop) -> None:
    with Terminal(office) as terminal:
        terminal.until(b"/help says what you can type")
        assert terminal.does == []
        process = terminal.process
        process.send_signal(signal.SIGSTOP)  # so that both come before it can do anything about the first one
        until(lambda: Path(f"/proc/{process.pid}/stat").read_text().rpartition(")")[2].split()[0] == "T", "it stands")
        process.send_signal(signal.SIGINT)
        process.send_signal(signal.SIGTERM)
        process.send_signal(signal.SIGCONT)
        assert process.wait(40) in (130, 143)
        assert terminal.does == ["shows what is typed", "waits for whole lines"]


def _read(keyboard: int) -> bytes:
    try:
        return os.read(keyboard, 1 << 16)
    except OSError:
        return b""
