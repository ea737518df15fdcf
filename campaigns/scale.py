"""Scale on one machine: a long log, a crowd of agents, a thousand dependent orders, and a controller that idles."""

from __future__ import annotations

import tempfile
from pathlib import Path

from campaigns import _long_log, _many_agents
from campaigns._machine import Machine
from campaigns.outcome import Options, Outcome

ORDERS, FEWEST = 100_000, 300


def run(options: Options) -> Outcome:
    """Each figure beside its bar; times are held to theirs at full size only, counts always."""
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        machine = Machine(place / "home")
        figures = [
            *_many_agents.idle(machine, place, options.size),
            *_many_agents.crowd(machine, place, options.size),
            *_many_agents.dependent(machine, place, options.size),
            *_long_log.measure(machine, place, max(FEWEST, int(ORDERS * options.size))),
        ]
    return Outcome(figures=figures, untested=UNTESTED)


UNTESTED = [
    "Agents are shell commands that mostly wait; with a hundred that work hard the machine is the limit.",
    "The long log is written by a program, as the engine would have written it; no agent ran in it.",
    "A run of 100,000 orders is not performed to its end. All orders of the run that is performed are in memory.",
    "Latency from unblocking to the start of a process is taken where a place was free.",
    "All of this is one machine with a local disk; network file systems were not tried.",
]
