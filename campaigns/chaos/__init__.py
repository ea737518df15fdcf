"""Break it at random, look, resume, look again: hundreds of seeded rounds against the promises.

``CHAOS_ROUND=17 python -m campaigns chaos --seed S`` plays one round of a seed again, with the same fault (``17,44``:
these two).
"""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from benchmarks.figures import Figure
from campaigns.chaos import scene
from campaigns.chaos.look import DOUBLED, FALSE, LOST, ORPHANS, OTHER
from campaigns.chaos.play import Round, play
from campaigns.outcome import Options, Outcome

ROUNDS = 1_080
"""of the whole campaign: 40 of each kind"""
BESIDE = 1 + (os.cpu_count() or 1)
"""rounds at the same time"""
KNOWN = "an agent's death is in the log, at the latest after"
MEMORY = Path("/dev") / "shm"
UNTESTED = [
    "power loss: processes are killed here, and what they wrote stays in the page cache",
    "machines other than Linux, where not every process of an agent can be found",
    "a clock that is really set: the process sees another time, the machine and git do not",
    (
        "two commands of git at one moment, as far as git itself does not guard them: a `git checkout --detach` that"
        " looked where HEAD stands just before the branch is moved leaves HEAD one step behind, with that step staged"
    ),
]


def run(options: Options) -> Outcome:
    """Play the rounds and count what did not hold."""
    only = os.environ.get("CHAOS_ROUND")
    numbers = list(map(int, only.split(","))) if only else range(1, max(1, round(ROUNDS * options.size)) + 1)
    folder = Path(tempfile.mkdtemp(prefix="chaos-", dir=MEMORY if os.access(MEMORY, os.W_OK) else None))
    template = scene.make_template(folder / "template")
    with ThreadPoolExecutor(BESIDE) as pool:
        played = pool.map(lambda n: play(template, folder / f"round-{n:04}", options.seed, n), numbers)
        rounds = list(_told(played, options.seed, folder))
    shutil.rmtree(template)
    if not any(folder.iterdir()):
        folder.rmdir()
    print(_by_kind(rounds), file=sys.stderr)
    return Outcome(figures=list(_figures(rounds)), untested=UNTESTED)


def _told(rounds: Iterable[Round], seed: int, folder: Path) -> Iterator[Round]:
    """Say how it goes."""
    for count, round_ in enumerate(rounds, 1):
        if count % 20 == 0:
            print(f"chaos: {count} rounds", file=sys.stderr, flush=True)
        for what, text in round_.problems:
            print(f"chaos: round {round_.number} ({round_.kind}): {what}: {text}", file=sys.stderr)
        if round_.problems:
            print(f"  kept in {folder / f'round-{round_.number:04}'}; play it again with:", file=sys.stderr)
            print(f"  CHAOS_ROUND={round_.number} python -m campaigns chaos --seed {seed}", file=sys.stderr, flush=True)
        yield round_


def _by_kind(rounds: list[Round]) -> str:
    heads = ("fault", "rounds", "hits", "lost", "doubled", "orphans", "false landings", "other", "s each")
    rows: list[tuple[str, ...]] = [heads]
    for kind in dict.fromkeys(r.kind for r in rounds):
        own = [r for r in rounds if r.kind == kind]
        counted = [str(_count(own, what)) for what in (LOST, DOUBLED, ORPHANS, FALSE, OTHER)]
        took = sum(r.took_s for r in own) / len(own)
        rows.append((kind, str(len(own)), str(sum(r.hit for r in own)), *counted, f"{took:.1f}"))
    widths = [max(len(row[n]) for row in rows) for n in range(len(heads))]
    return "\n".join("  ".join(cell.ljust(w) for cell, w in zip(row, widths, strict=True)).rstrip() for row in rows)


def _count(rounds: Iterable[Round], what: str) -> int:
    return sum(kind == what for r in rounds for kind, _ in r.problems)


def _figures(rounds: list[Round]) -> Iterator[Figure]:
    yield Figure(name="rounds", value=len(rounds))
    yield Figure(name="rounds whose fault hit a run at work", value=sum(r.hit for r in rounds))
    yield Figure(name="rounds in which a second fault hit the resumed run", value=sum(r.second_hit for r in rounds))
    yield Figure(name="sessions of the command", value=sum(r.sessions for r in rounds))
    for kind in dict.fromkeys(r.kind for r in rounds):
        own = [r for r in rounds if r.kind == kind]
        yield Figure(name=f"{kind}: hits", value=sum(r.hit for r in own), baseline=len(own))
    known_s = max((r.known_after_s for r in rounds), default=0.0)
    yield Figure(name=KNOWN, value=known_s, unit="s", bar="2 s", ok=known_s <= 2.0)
    for what in (LOST, DOUBLED, ORPHANS, FALSE):
        yield _none(what, _count(rounds, what))
    yield _none("other broken promises", _count(rounds, OTHER))


def _none(name: str, value: int) -> Figure:
    return Figure(name=name, value=value, bar="0", ok=value == 0)
