"""What signals do to a command that runs for long: the first asks it to end, the second ends it.

The second one does so whatever the process is at. It may be held up for as long as it likes by a pipe that nobody
reads, a terminal that stands still, a disk or a server that does not answer: so no signal is left to the event loop.
"""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from functools import cache
from types import FrameType

WORDS = {signal.SIGINT: "Ctrl-C", signal.SIGTERM: "SIGTERM", signal.SIGHUP: "the terminal was closed"}
LAST_S = 1.0
"""so long the last words may take to be written"""


class Stopper:
    """Answers signals, and keeps the exit code that follows from them: 0 while there was none."""

    def __init__(
        self, stop: Callable[[str, str], None], *, give_back: Callable[[], None] = lambda: None, killed: str = "killed"
    ) -> None:
        """``stop(why, key)`` is told what happened and what to press for the end, at which ``killed`` is said."""
        self._stop = stop
        self._give_back = give_back
        self._killed = killed
        self.code = 0

    def answer_signals(self) -> None:
        """From now on, and until the process ends; part of the running loop."""
        insist(WORDS, self._asked, self._last)

    def _asked(self, number: signal.Signals) -> None:
        self.code = self.code or exit_code(number)
        self._stop(WORDS[number], "Ctrl-C" if number is signal.SIGINT else "the signal")

    def _last(self) -> None:
        # The guard sees this process end and ends every agent with all that it started.
        self._give_back()
        os.write(2, f"{self._killed}\n".encode())


async def signalled(say: Callable[[str], None], doing: str) -> None:
    """Until a signal asks for the end. ``doing`` is said then, with the ``{key}`` that ends it at once."""
    asked = asyncio.Event()

    def stop(_why: str, key: str) -> None:
        asked.set()
        with suppress(OSError):  # a terminal that is gone cannot be told
            say(doing.format(key=key))

    Stopper(stop).answer_signals()
    await asked.wait()


@contextmanager
def insistent() -> Iterator[None]:
    """Whatever Ctrl-C does in the running loop: the second one ends the process."""
    before = signal.getsignal(signal.SIGINT)
    if threading.current_thread() is not threading.main_thread() or not callable(before):
        yield
        return
    insist((signal.SIGINT,), lambda number: before(number, None), _nothing)
    ours = signal.getsignal(signal.SIGINT)
    try:
        yield
    finally:
        if signal.getsignal(signal.SIGINT) is ours:
            signal.signal(signal.SIGINT, before)


def insist(
    numbers: Iterable[signal.Signals], ask: Callable[[signal.Signals], object], last: Callable[[], None]
) -> None:
    """Call ``ask`` in the running loop with the first of these signals, and end the process with the second.

    Where ``ask`` returns True, the process goes on, and the next signal is a first one again. ``last`` is called before
    it ends, and may take a second. Once the loop is closed nobody can be asked, and the first signal ends the process.
    """
    loop = asyncio.get_running_loop()
    came: list[int] = []

    def asked(number: signal.Signals) -> None:
        if ask(number) is True:
            came.clear()

    def answer(number: int, _frame: FrameType | None) -> None:
        came.append(number)
        if len(came) == 1:
            with suppress(RuntimeError):
                loop.call_soon_threadsafe(asked, signal.Signals(number))
                return
        end(exit_code(number), last if len(came) <= 2 else _nothing)  # noqa: PLR2004 - the third one waits for nothing

    _wake(loop)
    for number in numbers:
        # Who was started with nohup goes on when the terminal is closed.
        if number is not signal.SIGHUP or signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, answer)


def _wake(loop: asyncio.AbstractEventLoop) -> None:
    """Have a signal wake the loop, also one that the system gives to another thread: else it would sleep on.

    Who has arranged for that already, as asyncio with a handler of its own and uvloop, is left alone.
    """
    here, there = _pipe()
    if (before := signal.set_wakeup_fd(there, warn_on_full_buffer=False)) not in (-1, there):
        signal.set_wakeup_fd(before)
        return
    loop.add_reader(here, os.read, here, 1 << 12)


@cache
def _pipe() -> tuple[int, int]:
    here, there = os.pipe()
    os.set_blocking(here, False)
    os.set_blocking(there, False)
    return here, there


def end(code: int, last: Callable[[], None]) -> None:
    """End this process, whatever else it is at; ``last`` has a second for its words."""
    with suppress(RuntimeError):  # no thread can be started any more
        watch = threading.Timer(LAST_S, os._exit, (code,))
        watch.daemon = True
        watch.start()
    try:
        if sys.stdout.isatty():
            os.write(1, b"\x1b[?25h")  # the cursor, which a picture hides
        last()
    finally:
        os._exit(code)


def exit_code(number: int) -> int:
    """130 after Ctrl-C, else 143."""
    return 130 if number == signal.SIGINT else 143


def _nothing() -> None:
    """Nothing is said."""
