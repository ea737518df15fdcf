"""How fast a slot is used again, against `git worktree add` of the same repository in the same run.

`python -m benchmarks.workspaces`. Both are measured in turn, round by round, so that a busy machine slows both.
"""

from __future__ import annotations

import asyncio
import os
import random
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

from shopfloor.git import Git
from shopfloor.ports import Claim, Workspace
from shopfloor.spawn import Guard
from shopfloor.workspaces.clone import CloneWorkspaces
from shopfloor.workspaces.worktree import WorktreeWorkspaces

FILES, ROUNDS, AT_ONCE = 10_000, 15, 100
BAR_MS, BAR_RATIO = 100.0, 5.0
DIRTY = 5
"""files that the agent has changed in each round, beside one that it has added"""


def run() -> list[dict[str, Any]]:
    """Medians in ms; ``ratio`` says how many times faster than ``git worktree add``."""
    figures: list[dict[str, Any]] = []
    for kind, name in ((WorktreeWorkspaces, "worktree"), (CloneWorkspaces, "clone")):
        with tempfile.TemporaryDirectory() as place:
            git = _repository(Path(place, "repo"))
            figures += asyncio.run(_reuse(git, kind, name))
    for kind, name in ((WorktreeWorkspaces, "worktree"), (CloneWorkspaces, "clone")):
        with tempfile.TemporaryDirectory() as place:
            git = _repository(Path(place, "repo"), files=50)
            figures.append(asyncio.run(_crowd(git, kind, name)))
    return figures


def _repository(root: Path, *, files: int = FILES) -> Git:
    for number in range(files):
        path = root / f"area{number % 10}" / f"part{number // 100}" / f"file{number}.txt"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("".join(f"{random.getrandbits(256):x}\n" for _ in range(12)))
    git = Git(root, base_env={"PATH": os.environ["PATH"], "HOME": str(root.parent)})
    git.call("init", "-q", "-b", "main")
    git.exclude(["/.worktrees/"])
    git.call("add", "-A")
    git.call("commit", "-q", "-m", "start")
    git.call("gc", "-q")
    return git


async def _reuse(git: Git, kind: type[WorktreeWorkspaces | CloneWorkspaces], name: str) -> list[dict[str, Any]]:
    """Give a slot back in which an agent has worked, and claim it again."""
    ours, adding = [], []
    head = git.rev_parse("HEAD")
    async with Guard() as guard:
        pool = kind(git, guard, folder=git.root / ".worktrees", env=git.base_env)
        workspace = await pool.acquire(_claim(head, 0))
        for number in range(1, ROUNDS + 1):
            _work(Path(workspace.path), number)
            adding.append(await asyncio.to_thread(_add, git, git.root.parent / f"added{number}"))
            os.sync()  # ours waits for the disk: not for what git has just written without waiting
            began = time.perf_counter()
            await pool.release(workspace)
            workspace = await pool.acquire(_claim(head, number))
            ours.append((time.perf_counter() - began) * 1e3)
    value, baseline = statistics.median(ours), statistics.median(adding)
    shown = f"{name}: release and acquire of a dirty slot, {FILES:,} files"
    known = {"value": value, "unit": "ms", "baseline": baseline, "ratio": baseline / value}
    return [
        {"name": shown, **known, "bar": f"≤ {BAR_MS:g} ms", "ok": value <= BAR_MS},
        {"name": f"{name}: the same against git worktree add", **known, "bar": f"≥ {BAR_RATIO:g} times faster",
         "ok": baseline / value >= BAR_RATIO},
    ]  # fmt: skip


def _claim(head: str, number: int) -> Claim:
    return Claim(key=f"bench-{number}.a1", commit=head, branch=f"shopfloor/bench-{number}")


def _work(root: Path, number: int) -> None:
    for step in range(DIRTY):
        path = next((root / f"area{step}").iterdir()) / "changed.txt"
        path.write_text(f"round {number}, step {step}\n")
    (root / f"new{number}.txt").write_text("new\n")


def _add(git: Git, place: Path) -> float:
    """How long git takes as a person would call it, without waiting for the disk; in ms."""
    began = time.perf_counter()
    git.call("-c", "core.fsync=none", "worktree", "add", "-q", "--detach", str(place))
    took = (time.perf_counter() - began) * 1e3
    git.call("worktree", "remove", "-f", str(place))
    return took


async def _crowd(git: Git, kind: type[WorktreeWorkspaces | CloneWorkspaces], name: str) -> dict[str, Any]:
    head = git.rev_parse("HEAD")
    async with Guard() as guard:
        pool = kind(git, guard, folder=git.root / ".worktrees", env=git.base_env)
        began = time.perf_counter()
        found = await asyncio.gather(
            *(pool.acquire(_claim(head, number)) for number in range(AT_ONCE)), return_exceptions=True
        )
        took = time.perf_counter() - began
    failed = sum(not isinstance(workspace, Workspace) for workspace in found)
    what = f"{name}: {AT_ONCE} acquisitions at once, {failed} failed"
    return {"name": what, "value": took, "unit": "s", "bar": "0 failures", "ok": not failed}


if __name__ == "__main__":
    for figure in run():
        known = f"{figure['baseline']:.1f} ms, {figure['ratio']:.1f} x" if "ratio" in figure else ""
        held = f"{figure['bar']}  {'ok' if figure['ok'] else 'MISSED'}"
        print(f"{figure['name']:<66} {figure['value']:8.1f} {figure['unit']:<3} {held:<28} {known}")
