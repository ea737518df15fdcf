"""Hostile input for everything that reads: a million inputs at size 1, each with a promise that must hold for it."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterable, Iterator

import msgspec

from benchmarks.figures import Figure
from campaigns.fuzz.engine import LIMIT_S, Finding, Tally
from campaigns.outcome import Options, Outcome
from campaigns.page import ROOT

WHOLE = 1_000_000
PROCESSES = 2
LONGEST_S = 3600.0


class Share(msgspec.Struct, kw_only=True):
    """What one process found."""

    tallies: list[Tally]


def run(options: Options) -> Outcome:
    """Two processes with half of the inputs each. What they find is told at once, on stderr."""
    command = [sys.executable, "-m", "campaigns.fuzz", "--seed", str(options.seed), "--inputs"]
    command.append(str(round(WHOLE * options.size)))
    running = [
        subprocess.Popen([*command, "--part", f"{part}/{PROCESSES}"], cwd=ROOT, stdout=subprocess.PIPE)
        for part in range(PROCESSES)
    ]
    tallies: list[Tally] = []
    broken = 0
    try:
        for process in running:
            said, _ = process.communicate(timeout=LONGEST_S)
            if process.returncode:
                broken += 1
            else:
                tallies += msgspec.json.decode(said, type=Share).tallies
    finally:
        for process in running:
            if process.poll() is None:
                process.kill()
    return Outcome(figures=list(figures(_joined(tallies), options, broken)), untested=UNTESTED)


UNTESTED = [
    "Inputs are made by chance, not guided by coverage: a path that needs several exact values may never be taken.",
    "Git itself is taken for sound: what it prints is damaged here, and one version of it is run.",
    "Agents are read as plain commands, JSON lines, trajectories and server answers; a terminal is not read at all.",
    "Names are tried on file systems that take any byte; one that folds case or refuses signs is not.",
]


def _joined(tallies: Iterable[Tally]) -> list[Tally]:
    """One for each target."""
    found: dict[str, Tally] = {}
    for part in tallies:
        tally = found.setdefault(part.target, Tally(target=part.target))
        tally.inputs += part.inputs
        tally.refused += part.refused
        tally.failed += part.failed
        tally.spent_s += part.spent_s
        tally.slowest_s = max(tally.slowest_s, part.slowest_s)
        tally.findings += part.findings
    return list(found.values())


def figures(tallies: list[Tally], options: Options, broken: int) -> Iterator[Figure]:
    """The sum, and a line for each target."""
    total, wanted = sum(t.inputs for t in tallies), round(WHOLE * options.size)
    yield Figure(name="inputs in all", value=total, bar=f">= {wanted:,}", ok=total >= wanted)
    failed = sum(t.failed for t in tallies)
    yield Figure(name="inputs for which a promise did not hold", value=failed, bar="0", ok=failed == 0)
    yield Figure(name="fuzzing processes that died", value=broken, bar="0", ok=broken == 0)
    slowest = max((t.slowest_s for t in tallies), default=0.0)
    yield Figure(
        name="slowest input, processor time", value=slowest, unit="s", bar=f"<= {LIMIT_S:g} s", ok=slowest <= LIMIT_S
    )
    for tally in tallies:
        refused = f"{tally.refused / max(1, tally.inputs):.0%} refused"
        yield Figure(name=f"inputs for {tally.target} ({refused})", value=tally.inputs)


def told(finding: Finding) -> None:
    """On stderr, at once."""
    print(finding.told(), file=sys.stderr, flush=True)
