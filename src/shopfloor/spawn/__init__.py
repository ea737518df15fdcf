"""The one door to operating-system processes.

`run` is for short commands of ours (git, tmux) and blocks: call it in a thread. `Guard` is for everything
that may run long or start things of its own: agents, checks, setup commands. What runs under a guard ends
with the engine, also when the engine is killed; `shopfloor.guard` says how, and what is weaker elsewhere than
on Linux.

The environment of a command is always given, never inherited.
"""

from shopfloor.spawn.become import become
from shopfloor.spawn.errors import CommandTimeout, Reason, SpawnError
from shopfloor.spawn.facts import (
    alive,
    at_work,
    boot,
    descendants,
    identity,
    start_time_of,
    tree_bytes,
    variable_of,
    with_variable,
)
from shopfloor.spawn.foreign import end_marked, end_process, send_signal
from shopfloor.spawn.guarded import Guard
from shopfloor.spawn.process import DEFAULT_LADDER, Exit, Process, Step
from shopfloor.spawn.short import Completed, run
from shopfloor.spawn.streams import STREAM_LIMIT

__all__ = [
    "DEFAULT_LADDER",
    "STREAM_LIMIT",
    "CommandTimeout",
    "Completed",
    "Exit",
    "Guard",
    "Process",
    "Reason",
    "SpawnError",
    "Step",
    "alive",
    "at_work",
    "become",
    "boot",
    "descendants",
    "end_marked",
    "end_process",
    "identity",
    "run",
    "send_signal",
    "start_time_of",
    "tree_bytes",
    "variable_of",
    "with_variable",
]
