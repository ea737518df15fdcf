"""Power loss: the store and git on a disk that forgets what was not synced."""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
from collections import Counter
from pathlib import Path

from benchmarks.figures import Figure
from campaigns import _disk_floor, _disk_git, _disk_store
from campaigns.outcome import Options, Outcome

STORE_LOSSES = 2000
GIT_LOSSES = 400
RUN_LOSSES = 200

_STORE = {
    "acknowledged": "acknowledged changes looked for",
    "programs not followed": "programs left out because their trace is ambiguous",
    "during recovery": "losses while an earlier loss was recovered from",
}
_GIT = {
    "snapshot": "snapshots looked for",
    "landed": "landings looked for",
    "mirrored": "moves of the user's branch looked for",
}
_RUN = {**_GIT, "resumed": "losses that `run --resume` went on from"}
_UNTESTED = (
    "Real hardware: a disk that says it has synced and has not, a file system that breaks the promises of POSIX.",
    "What an agent left in its workspace and nobody had snapshotted: what the system had not written of it is gone.",
    "Clones as workspaces: the losses under git are with linked worktrees.",
    "A person's or an agent's own `git pack-refs` or `git gc` that the power interrupts: that git syncs neither.",
)


def run(options: Options) -> Outcome:
    """Lose the power some thousand times."""
    if shutil.which("strace") is None:
        return Outcome(figures=[], untested=["Power loss: it needs `strace` (Linux; Debian: `apt install strace`)."])
    with tempfile.TemporaryDirectory(prefix="shopfloor-disk-") as scratch:
        env = dict(os.environ)
        store = _disk_store.losses(options.seed, _count(STORE_LOSSES, options), Path(scratch, "store"), env)
        print(f"disk: {store['losses']} losses under the store", file=sys.stderr, flush=True)
        git = _disk_git.losses(options.seed, _count(GIT_LOSSES, options), Path(scratch, "git"), env)
        print(f"disk: {git['losses']} losses under git", file=sys.stderr, flush=True)
        whole = _disk_floor.losses(options.seed, _count(RUN_LOSSES, options), Path(scratch, "run"), env)
        print(f"disk: {whole['losses']} losses under a whole run", file=sys.stderr, flush=True)
    figures = [*_figures("store", store, _STORE), *_figures("git", git, _GIT), *_figures("run", whole, _RUN)]
    left_out = git["not looked at: another git has packed the refs"]
    return Outcome(figures=figures, untested=[*_UNTESTED, f"{left_out} losses under git fell into that: left out."])


def _count(whole: int, options: Options) -> int:
    return max(2, round(whole * options.size))


def _figures(what: str, counts: Counter[str], looked_for: dict[str, str]) -> list[Figure]:
    broken = {name: count for name, count in counts.items() if name.startswith("broken: ")}
    return [
        Figure(name=f"{what}: power losses", value=counts["losses"]),
        Figure(name=f"{what}: system calls they fell between", value=counts["steps"]),
        *(Figure(name=f"{what}: {words}", value=counts[name]) for name, words in looked_for.items()),
        Figure(name=f"{what}: broken promises", value=sum(broken.values()), bar="0", ok=not broken),
        *(Figure(name=f"{what}: {name}", value=count, bar="0", ok=False) for name, count in broken.items()),
    ]
