"""What signals do to a command that runs for long: the first asks it to end, the second ends it."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Callable
from contextlib import suppress

WORDS = {signal.SIGINT: "Ctrl-C", signal.SIGTERM: "SIGTERM", signal.SIGHUP: "the terminal was closed"}


class Stopper:
    """Answers signals, and keeps the exit code that follows from them: 0 while there was none."""

    def __init__(self, stop: Callable[[str, str], None], *, give_back: Callable[[], None], killed: str) -> None:
        """``stop(why, key)`` is told what happened and what to press for the end, at which ``killed`` is said."""
        self._stop = stop
        self._give_back = give_back
        self._killed = killed
        self.code = 0

    def answer_signals(self) -> None:
        """From now on; part of the running loop."""
        loop = asyncio.get_running_loop()
        for number in WORDS:
            loop.add_signal_handler(number, self._signalled, number)

    def _signalled(self, number: signal.Signals) -> None:
        code = 130 if number is signal.SIGINT else 143
        if self.code:
            self._give_back()
            with suppress(OSError):  # a terminal that is gone cannot be told
                os.write(2, f"{self._killed}\n".encode())
            # The guard sees this process end and ends every agent with all that it started.
            os._exit(code)
        self.code = code
        self._stop(WORDS[number], "Ctrl-C" if number is signal.SIGINT else "the signal")
