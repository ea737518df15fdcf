"""Kill the controller at every durable step of one order's life, then look at what is left, then go on.

The invariants' numbers are those of the README's table of promises.
"""

from __future__ import annotations

import asyncio
import collections
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from campaigns.chaos import processes
from shopfloor.app import Shopfloor
from shopfloor.domain.board import Board
from shopfloor.domain.errors import NotFound
from shopfloor.domain.events import E
from shopfloor.domain.order import State

CHILD = Path(__file__).with_name("crash_child.py")
SHARDS = 4
LIFE = """# Write the result

```script
[[do]]
spawn_orphan = true
[[do]]
write = "result.txt"
content = "done by KEY"
[[do]]
write = "untidy/notes.txt"
content = "never committed by the agent"
```
"""
FLAGS = {"agent": "scripted", "check": "grep -q done result.txt", "setup": "true", "max_parallel": 1}


def git(repo: Path, *args: str) -> str:
    """What git prints, as a person would call it."""
    identity = ["-c", "user.name=person", "-c", "user.email=person@localhost"]
    done = subprocess.run(["git", *identity, *args], cwd=repo, capture_output=True, text=True, check=True)
    return done.stdout.strip()


def make_repo(folder: Path) -> Path:
    """A repository with a red base, one prompt, and an untracked file of the user's."""
    folder.mkdir()
    git(folder, "init", "-q", "-b", "main")
    (folder / "README.md").write_text("# sample\n")
    git(folder, "add", "-A")
    git(folder, "commit", "-q", "-m", "start")
    (folder / "prompts").mkdir()
    (folder / "prompts" / "life.md").write_text("---\nchecks: grep -q done result.txt\n---\n" + LIFE)
    (folder / "mine.txt").write_text("the user's own, untracked\n")
    return folder


def run_child(repo: Path, kill_at: int, steps: Path) -> int:
    """The exit code of one life; -9 when it was killed."""
    command = [sys.executable, str(CHILD), str(repo), str(kill_at), str(steps)]
    done = subprocess.run(command, capture_output=True, timeout=50, check=False)
    assert done.returncode in (0, -signal.SIGKILL), done.stderr.decode()
    return done.returncode


def wait_until_nobody(repo: Path, limit_s: float = 5.0) -> None:
    """Invariant 3: everything that was started ends with its controller."""
    gone = processes.until(lambda: not processes.of(repo / ".worktrees"), limit_s)
    assert gone, f"invariant 3: still alive: {processes.of(repo / '.worktrees')}"


async def look(repo: Path) -> tuple[Board, list[str]]:
    async with Shopfloor.open(repo, flags=FLAGS) as floor:
        ids = [e.event_id async for _, e in floor.store.read()] if (repo / ".work/events.jsonl").exists() else []
        return await floor.board(), ids


def check_after_kill(repo: Path, steps: Path) -> Board:
    """What must hold before anybody has repaired anything."""
    wait_until_nobody(repo)
    board, ids = asyncio.run(look(repo))
    acknowledged = steps.with_suffix(".acknowledged").read_text().split()
    assert set(acknowledged) <= set(ids), "invariant 1: an acknowledged event is not in the log"
    for record in board.records.values():
        assert sum(not a.outcome for a in record.attempts) <= 1, "invariant 4: two live attempts"
        if record.state is State.DONE:
            assert record.verdict == "PASS", "invariant 5: done without a verdict"
    check_target(repo)
    check_users_checkout(repo)
    return board


def check_target(repo: Path) -> None:
    """Invariant 6: whatever the target and the branch hold beyond the start passes the check."""
    start = git(repo, "rev-list", "--max-parents=0", "main")
    for ref in ("refs/shopfloor/target/main", "refs/heads/main"):
        tip = git(repo, "for-each-ref", "--format=%(objectname)", ref)
        if tip not in ("", start):
            assert "done" in git(repo, "show", f"{ref}:result.txt"), f"invariant 6: {ref} is red"


def check_users_checkout(repo: Path) -> None:
    """Invariant 9: HEAD, index and tracked files agree, before or after the fast-forward; untracked files are there."""
    assert git(repo, "symbolic-ref", "HEAD") == "refs/heads/main"
    assert (repo / "mine.txt").read_text() == "the user's own, untracked\n"


def check_at_the_end(repo: Path, board: Board) -> None:
    wait_until_nobody(repo)
    (record,) = board.records.values()
    assert record.state is State.DONE, f"{record.state} {record.message}"
    assert git(repo, "rev-parse", "main") == git(repo, "rev-parse", "refs/shopfloor/target/main")
    assert git(repo, "merge-base", "--is-ancestor", record.commit, "main") == ""
    assert (repo / "result.txt").read_text() == "done by KEY"
    status = git(repo, "status", "--porcelain").splitlines()
    assert sorted(status) == ["?? mine.txt", "?? prompts/"], status
    generations = [a.generation for a in record.attempts]
    assert generations == sorted(set(generations)), "invariant 4: generations repeat"
    for attempt in record.attempts:
        if attempt.files:  # invariant 2: what an attempt had written is reachable
            assert git(repo, "cat-file", "-t", attempt.commit) == "commit"


async def finish(repo: Path) -> tuple[Board, str]:
    """Go on as a person would: resume, or start anew when the log knows of no run."""
    async with Shopfloor.open(repo, flags=FLAGS) as floor:
        try:
            await floor.resume()
            how = "resumed"
        except NotFound:
            board = await floor.board()
            how = "finished"
            if not board.records:
                await floor.run([repo / "prompts" / "life.md"])
                how = "anew"
        return await floor.board(), how


@pytest.mark.timeout(300)
@pytest.mark.parametrize("shard", range(SHARDS))
def test_kill_at_every_durable_step(shard: int, tmp_path: Path, record_property: Callable[[str, object], None]) -> None:
    template = make_repo(tmp_path / "template")
    whole = tmp_path / "whole"
    shutil.copytree(template, whole)
    steps = tmp_path / "whole.steps"
    assert run_child(whole, 0, steps) == 0
    names = [line.split(" ", 1)[1] for line in steps.read_text().splitlines()]
    check_at_the_end(whole, asyncio.run(look(whole))[0])
    assert len(names) > 30, names

    histogram: collections.Counter[str] = collections.Counter()
    for kill_at in range(1 + shard, len(names) + 1, SHARDS):
        repo, steps = tmp_path / f"repo{kill_at}", tmp_path / f"{kill_at}.steps"
        shutil.copytree(template, repo)
        code = run_child(repo, kill_at, steps)
        name = steps.read_text().splitlines()[-1].split(" ", 1)[1] if code else "not reached"
        histogram[name] += 1
        check_after_kill(repo, steps)
        board, how = asyncio.run(finish(repo))
        histogram[f"then {how}"] += 1
        check_at_the_end(repo, board)
        shutil.rmtree(repo)
    title = f"killed at each of {len(names)} durable steps of one order's life"
    record_property("histogram", [title, dict(histogram)])


def test_the_steps_cover_an_orders_life(tmp_path: Path) -> None:
    repo = make_repo(tmp_path / "repo")
    steps = tmp_path / "steps"
    assert run_child(repo, 0, steps) == 0
    seen = steps.read_text()
    for kind in (E.RUN_STARTED, E.ASSIGNED, E.WORKSPACE, E.AGENT_STARTED, E.AGENT_STOPPED, E.VERIFY_STARTED,
                 E.VERIFY_VERDICT, E.LANDING_STARTED, E.LANDING_PLANNED, E.LANDING_LANDED, E.MIRROR_PLANNED,
                 E.MIRROR_ADVANCED, E.SETTLED, E.RUN_FINISHED):  # fmt: skip
        assert re.search(rf"before \S*{re.escape(kind)}", seen), f"{kind} was no step"
    assert "git update-ref" in seen
    assert "git read-tree" in seen
