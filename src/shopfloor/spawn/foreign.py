"""Processes that this engine did not start, such as an agent that outlived its controller."""

from __future__ import annotations

import asyncio
import os
import signal
from contextlib import suppress

from shopfloor import guard
from shopfloor.spawn.facts import alive, descendants, start_time_of, with_variable

_TICK_S = 0.02
_KILL_S = 5.0


async def end_process(pid: int, start_time: int, *, grace_s: float = 5.0) -> bool:
    """Terminate a process and its descendants, and kill what is left after `grace_s`; False when it does not run.

    Weaker than a guard: a descendant that had lost its parent before is not found.
    """
    if not alive(pid, start_time):
        return False
    family = {(pid, start_time)}
    for sig, wait_s in ((signal.SIGTERM, grace_s), (signal.SIGKILL, _KILL_S)):
        with suppress(TimeoutError):
            async with asyncio.timeout(wait_s):
                await _signal_until_gone(family, sig)
    return True


async def end_marked(name: str, value: str, *more: tuple[int, int]) -> int:
    """Kill every process whose environment says ``name=value``, and ``more`` (pid, start time); how many there were.

    For what lost its keeper. Only environments that may be read are looked at, and only on Linux.
    """
    marked = {(pid, start_time_of(pid)) for pid in with_variable(name, value)}
    family = {member for member in (*marked, *more) if alive(*member)}
    found = len(family)
    with suppress(TimeoutError):
        async with asyncio.timeout(_KILL_S):
            await _signal_until_gone(family, signal.SIGKILL)
    return found


async def _signal_until_gone(family: set[tuple[int, int]], sig: int) -> None:
    """Send the signal to each once, to those that appear meanwhile too. Adds them to `family`."""
    told: set[tuple[int, int]] = set()
    while living := {member for member in family if alive(*member)}:
        for pid, _ in living:
            family |= {(child, start_time_of(child)) for child in descendants(pid)}
        for member in family - told:
            send_signal(*member, sig)
        told |= family
        await asyncio.sleep(_TICK_S)


def send_signal(pid: int, start_time: int, sig: int) -> None:
    """Signal a process unless its id was reused; nothing when it has ended."""
    with suppress(ProcessLookupError, PermissionError):
        if not guard.LINUX:
            os.kill(pid, sig)
            return
        pidfd = os.pidfd_open(pid)
        try:
            if alive(pid, start_time):
                signal.pidfd_send_signal(pidfd, sig)
        finally:
            os.close(pidfd)
