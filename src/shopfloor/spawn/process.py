"""A command that runs under a guard, and how it ends."""

from __future__ import annotations

import asyncio
import math
import os
import signal
from collections.abc import Sequence
from contextlib import suppress
from typing import NamedTuple

import msgspec

from shopfloor import guard
from shopfloor.spawn.facts import descendants, resident_bytes
from shopfloor.spawn.streams import Streams


class Exit(msgspec.Struct, frozen=True):
    """How a command ended: by `code` or `signal`, or `lost` when the guard or its keeper was killed.

    The figures count the command and all it started; `leftovers` is how many processes had to be killed after
    its end. `max_rss_bytes` is that of the largest process, never below the 10 MB of the fork before exec.
    """

    code: int | None
    signal: int | None
    lost: bool = False
    max_rss_bytes: int = 0
    cpu_s: float = 0.0
    leftovers: int = 0


def _exit(line: bytes) -> Exit:
    """Read the keeper's last line; empty when there was none."""
    if not line:
        return Exit(None, None, lost=True)
    _, status, max_rss, cpu_s, leftovers = line.split()
    code = os.waitstatus_to_exitcode(int(status))
    return Exit(
        code=code if code >= 0 else None,
        signal=-code if code < 0 else None,
        max_rss_bytes=int(max_rss),
        cpu_s=float(cpu_s),
        leftovers=int(leftovers),
    )


class Step(NamedTuple):
    """Send `signal`, then wait `wait_s` seconds for the end."""

    signal: int
    wait_s: float


DEFAULT_LADDER = (Step(signal.SIGINT, 5.0), Step(signal.SIGTERM, 5.0), Step(signal.SIGKILL, math.inf))


class Process:
    """A command that runs under a guard. Once it ended, everything it started has ended too.

    `start_time` is in clock ticks since boot (0 where there is no Linux); together with `pid` it identifies
    the process, as process ids are reused. `stdout`, `stderr` and `stdin` are None where a file was given.
    Read in chunks, not in lines: a line may be longer than STREAM_LIMIT; unread output makes the command wait.
    """

    def __init__(self, started: list[bytes], channel: asyncio.StreamWriter, streams: Streams) -> None:
        """`started` is the first line that the keeper wrote, in words."""
        self.pid, self.start_time, self._keeper = map(int, started[1:])
        self.stdin, self.stdout, self.stderr = streams.stdin, streams.stdout, streams.stderr
        self._channel = channel
        self._exit: asyncio.Future[Exit] = asyncio.get_running_loop().create_future()

    async def wait(self) -> Exit:
        """The end; any number of tasks may wait, and cancelling one does nothing to the command."""
        return await asyncio.shield(self._exit)

    def signal(self, sig: int, *, tree: bool = False) -> None:
        """Signal the command's process group, or with `tree` all it started; nothing once it ended.

        Raises ValueError when there is no such signal.
        """
        if sig not in signal.valid_signals():
            raise ValueError(f"{sig!r} is not a signal: use one of the module `signal`")
        if not self._exit.done() and not self._channel.is_closing():
            # Past the transport: one that meets a closed channel forgets what it has not read: how the command ended.
            with suppress(OSError):
                place = self._channel.get_extra_info("socket").fileno()
                os.write(place, bytes([sig | guard.TREE if tree else sig]))

    async def stop(self, ladder: Sequence[Step] = DEFAULT_LADDER) -> tuple[Exit, int]:
        """Walk the ladder until the command ends; how it ended, and how many steps that took.

        Raises TimeoutError when the last step was not enough.
        """
        for taken, step in enumerate(ladder):
            if self._exit.done():
                return self._exit.result(), taken
            self.signal(step.signal)
            with suppress(TimeoutError):
                async with asyncio.timeout(None if math.isinf(step.wait_s) else step.wait_s):
                    return await self.wait(), taken + 1
        raise TimeoutError(f"process {self.pid} outlived {len(ladder)} signals: let SIGKILL be the last")

    def memory_bytes(self) -> int:
        """Resident memory of the command and all it started, now; shared pages count for each process."""
        if self._exit.done():
            return 0
        return sum(map(resident_bytes, descendants(self._keeper)))

    async def follow(self, reader: asyncio.StreamReader) -> None:
        """For the guard: wait for the keeper's last line or the end of the channel; then nothing is left."""
        line = b""
        try:
            line = await reader.readline()
        except ConnectionError:
            pass  # as good as the end
        finally:
            self._exit.set_result(_exit(line))
            self._channel.close()
