"""The sessions of a floor from outside: which there are, how one attaches to one, how one is ended that nobody owns."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Collection, Mapping
from pathlib import Path

from shopfloor.agents._process import find_program
from shopfloor.agents._tmux import Tmux
from shopfloor.domain.errors import Refused
from shopfloor.spawn import alive, send_signal, start_time_of

INSTALL = "install tmux 3.2 or newer (apt install tmux, brew install tmux)"
KILL_S, TICK_S = 5.0, 0.05


def server(place: Path, environment: Mapping[str, str], root: Path) -> Tmux:
    """The server whose socket is in ``place``. Raises Refused where tmux is missing."""
    variables = {k: v for k, v in environment.items() if k in ("PATH", "HOME", "USER", "SHELL")}
    variables.setdefault("PATH", os.defpath)
    program = find_program("tmux", variables["PATH"], root)
    if program is None:
        raise Refused("'tmux' is not found on PATH", hint=INSTALL)
    return Tmux(place, program, variables)


def attach_words(tmux: Tmux, name: str, *, write: bool) -> list[str]:
    """What to run in the folder of the socket to see a session; to type in it too with ``write``."""
    return [*tmux.argv, "attach-session", *(() if write else ("-r",)), "-t", f"={name}"]


async def strays(tmux: Tmux, known: Collection[str]) -> list[str]:
    """Sessions that belong to no attempt under way."""
    return sorted(set(await tmux.names()) - set(known))


async def end_stray(tmux: Tmux, name: str) -> None:
    """End everything that runs in a session, and take it away."""
    pid = await tmux.pane(name)
    start_time = start_time_of(pid) if pid else 0
    if start_time:
        send_signal(pid, start_time, signal.SIGUSR1)
        for _ in range(round(KILL_S / TICK_S)):
            if not alive(pid, start_time):
                break
            await asyncio.sleep(TICK_S)
    await tmux.end(name)
