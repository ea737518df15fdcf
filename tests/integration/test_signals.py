"""Two signals end a command, whatever it is held up by. Real processes, each held up in another way."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

LONGEST_S = 20.0
HEAD = """
import asyncio, os, sys, threading, time
from shopfloor.cli.edge import Edge
from shopfloor.cli.stopper import Stopper, insist, signalled
say = lambda text: os.write(3, text.encode() + b"\\n")
edge = Edge()
stopper = Stopper(lambda why, key: say(f"asked: {why}, {key}"), give_back=lambda: say("given back"), killed="killed")
def new_loop():
    import uvloop
    return uvloop.new_event_loop()
loop = new_loop if "uvloop" in sys.argv else None
"""
# Each says "ready" on descriptor 3 when the signals are answered.
HELD_UP = {
    "by a pipe that nobody reads": """
async def body():
    stopper.answer_signals()
    say("ready")
    edge.put("x" * 1_000_000)
edge.perform(body(), loop=loop)
""",
    "by a thread that never ends": """
async def body():
    stopper.answer_signals()
    say("ready")
    await asyncio.to_thread(threading.Event().wait)
edge.perform(body(), loop=loop)
""",
    "by a thread, at the end of the loop": """
async def body():
    stopper.answer_signals()
    asyncio.get_running_loop().run_in_executor(None, threading.Event().wait)
    asyncio.get_running_loop().call_soon(say, "ready")
edge.perform(body(), loop=loop)
""",
    "by somebody who does not let himself be cancelled": """
async def body():
    say("ready")
    while True:
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            say("asked: no")
edge.perform(body(), loop=loop)
""",
    "by last words that nobody hears": """
async def body():
    Stopper(lambda why, key: say("asked: yes"), give_back=lambda: os.write(1, b"x" * 1_000_000)).answer_signals()
    say("ready")
    await asyncio.Event().wait()
edge.perform(body(), loop=loop)
""",
}  # fmt: skip


class Held:
    """A process, and what it said on a descriptor of its own."""

    def __init__(self, process: "subprocess.Popen[bytes]", said: int) -> None:
        self.process = process
        self._said = os.fdopen(said)

    def until(self, word: str) -> None:
        while (line := self._said.readline()) and word not in line:
            pass
        assert word in line, f"it ended without saying {word!r}"

    def close(self) -> None:
        self._said.close()


@contextmanager
def held(code: str, *words: str) -> Iterator[Held]:
    """It, with a standard output that nobody reads."""
    said, saying = os.pipe()
    with subprocess.Popen(
        [sys.executable, "-c", f"import os; os.dup2({saying}, 3)\n{HEAD}{code}", *words], stdout=subprocess.PIPE,
        stderr=subprocess.PIPE, pass_fds=[saying], env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)},
    ) as process:  # fmt: skip
        os.close(saying)
        found = Held(process, said)
        try:
            yield found
        finally:
            process.kill()
            found.close()


@pytest.mark.parametrize("loop", ["asyncio", "uvloop"])
@pytest.mark.parametrize("how", HELD_UP)
def test_the_second_signal_ends_a_command_that_is_held_up(how: str, loop: str) -> None:
    with held(HELD_UP[how], loop) as command:
        command.until("ready")
        command.process.send_signal(signal.SIGINT)
        if "pipe" not in how and "end of the loop" not in how:  # there it cannot be asked
            command.until("asked")
        with pytest.raises(subprocess.TimeoutExpired):
            command.process.wait(0.3)
        command.process.send_signal(signal.SIGINT)
        assert command.process.wait(LONGEST_S) == 130


def test_the_terminal_is_given_back_and_the_last_word_is_said() -> None:
    with held(HELD_UP["by a thread that never ends"]) as command:
        command.until("ready")
        command.process.send_signal(signal.SIGTERM)
        command.until("asked: SIGTERM, the signal")
        command.process.send_signal(signal.SIGTERM)
        command.until("given back")
        assert command.process.stderr is not None
        assert command.process.stderr.read() == b"killed\n"
        assert command.process.wait(LONGEST_S) == 143


@pytest.mark.parametrize("loop", ["asyncio", "uvloop"])
def test_a_signal_that_the_system_gives_to_another_thread_is_heard_at_once(loop: str) -> None:
    code = """
import signal
def take_it():
    while open(f"/proc/self/task/{os.getpid()}/stat").read().rpartition(")")[2].split()[0] != "S":
        pass  # it is at work yet
    signal.pthread_kill(threading.get_ident(), signal.SIGTERM)
    threading.Event().wait()
async def body():
    stopper.answer_signals()
    asyncio.get_running_loop().call_later(0.1, threading.Thread(target=take_it, daemon=True).start)
    await asyncio.Event().wait()
edge.perform(body(), loop=loop)
"""
    with held(code, loop) as command:
        command.until("asked: SIGTERM")


def test_nohup_is_heeded() -> None:
    code = """
import signal
signal.signal(signal.SIGHUP, signal.SIG_IGN)  # as nohup does
async def body():
    stopper.answer_signals()
    say("ready")
    await asyncio.to_thread(threading.Event().wait)
edge.perform(body())
"""
    with held(code) as command:
        command.until("ready")
        command.process.send_signal(signal.SIGHUP)
        command.process.send_signal(signal.SIGTERM)
        command.until("asked: SIGTERM")
        assert command.process.poll() is None
    with held(code.replace("SIG_IGN", "SIG_DFL")) as command:
        command.until("ready")
        command.process.send_signal(signal.SIGHUP)
        command.until("asked: the terminal was closed")


STUBBORN = "trap '' INT TERM; echo up > up; while :; do sleep 0.1; done"


def test_servers_that_do_not_end_are_ended_with_the_second_signal(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "shopfloor", "agent-servers", "1", "--port", "28439", "--command"]
    with subprocess.Popen(
        [*command, f'sh -c "{STUBBORN}"'], cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        while not (tmp_path / "up").exists():
            assert process.poll() is None
        process.send_signal(signal.SIGTERM)
        assert process.stderr is not None
        assert process.stderr.readline() == "ending the servers (again: the signal ends them at once)\n"
        process.send_signal(signal.SIGTERM)
        assert process.wait(LONGEST_S) == 143
        assert process.stderr.read() == "killed\n"
