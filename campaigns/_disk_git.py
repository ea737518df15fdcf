"""Power losses under git: what was snapshotted, landed and mirrored is there, and the next start goes on."""

from __future__ import annotations

import asyncio
import json
import random
import shutil
import sys
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from shopfloor.domain.errors import ShopfloorError
from shopfloor.git import Git
from shopfloor.landers.merge import MergeLander
from shopfloor.ports import Claim
from shopfloor.spawn import Guard
from shopfloor.testing.disk import Recording, record
from shopfloor.testing.lander import TARGET
from shopfloor.testing.repository import Repository
from shopfloor.workspaces.worktree import WorktreeWorkspaces

PROGRAM = Path(__file__).with_name("_disk_git_program.py")
EACH = 25
"""Losses in one program."""


def losses(seed: int, count: int, scratch: Path, env: Mapping[str, str]) -> Counter[str]:
    """Lose the power ``count`` times while git works. Counts as those of the store."""
    counts: Counter[str] = Counter()
    dice = random.Random(seed)
    while counts["losses"] < count:
        # A checkout knows its path, so that every loss is looked at where it happened.
        folder = scratch / f"git-{counts['programs']}"
        folder.mkdir(parents=True)
        repository = Repository(folder / "repo")
        repository.git.exclude(["/.worktrees/"])
        program = dice.getrandbits(30)
        argv = [sys.executable, str(PROGRAM), str(repository.root), str(program)]
        recording = record(argv, repository.root, cwd=folder, env=env)
        counts["programs"] += 1
        counts["steps"] += len(recording)
        for _ in range(min(EACH, count - counts["losses"])):
            _lose(dice, recording, repository, program, counts)
        shutil.rmtree(folder)
    return counts


def _lose(
    dice: random.Random, recording: Recording, repository: Repository, program: int, counts: Counter[str]
) -> None:
    at, moment = dice.randint(0, len(recording)), dice.getrandbits(30)
    said: list[dict[str, Any]] = [json.loads(line) for line in recording.said(at)]
    shutil.rmtree(repository.root)
    style = recording.lose_power(at, random.Random(moment), repository.root)
    counts["losses"] += 1
    for word in ("snapshot", "landed", "mirrored"):
        counts[word] += sum(line["word"] == word for line in said)
    done = [line["word"] for line in said if line["word"] not in {"planned", "mirroring"}]
    if done and done[-1] == "packing":
        # Another git is moving all refs into one file, or did so just now, and syncs neither content nor names.
        counts["not looked at: another git has packed the refs"] += 1
        return
    try:
        asyncio.run(judge(repository, said))
    except (AssertionError, ShopfloorError, OSError) as broken:
        words = str(broken).splitlines()[0].replace(str(repository.root), "")
        counts[f"broken: {words}"] += 1
        print(f"broken: {broken} (program {program}, step {at} of {len(recording)}, moment {moment}, {style})",
              file=sys.stderr, flush=True)  # fmt: skip


async def judge(repository: Repository, said: list[dict[str, Any]]) -> None:
    """Look at what is left, and go on with it. Raises AssertionError that says which promise was broken."""
    git = repository.git
    refs = git.call("for-each-ref", "refs/shopfloor", "refs/heads/main")
    assert not refs.stderr, f"a ref is damaged\n{refs.stderr.decode()}"
    landed = [line["commit"] for line in said if line["word"] == "landed"]
    planned = [line["commit"] for line in said if line["word"] == "planned"]
    standing = git.read_ref(TARGET.ref)
    if landed:
        assert standing in (landed[-1], *planned), "the target does not stand where it was seen"
        assert standing not in landed[:-1], "the target went back"
    for line in said:
        if line["word"] == "snapshot":
            assert git.read_ref(line["ref"]) == line["commit"], "a snapshot's ref is lost"
    whole(git, "refs/shopfloor", "refs/heads/main")
    await goes_on(repository, said, standing)
    refs = git.call("for-each-ref")
    assert not refs.stderr, f"a damaged ref is left\n{refs.stderr.decode()}"
    whole(git, "refs")


def whole(git: Git, *patterns: str) -> None:
    """Everything that these refs name can be read."""
    tips = git.refs(*patterns).values()
    listed = git.call("rev-list", "--objects", "--no-object-names", *tips, ok=(0, 128))
    assert listed.code == 0, f"history of a ref is lost\n{listed.stderr.decode()}"
    read = git.call("cat-file", "--batch", "--buffer", input=listed.stdout, ok=(0, 128))
    assert read.code == 0, f"content of a ref is lost\n{read.stderr.decode()}"
    assert b" missing\n" not in read.stdout, "an object of a ref is lost"


async def goes_on(repository: Repository, said: list[dict[str, Any]], standing: str) -> None:
    """The next start finds the branch where it was brought, finishes what was begun, and has checkouts to give."""
    git = repository.git
    async with Guard() as guard:
        pool = WorktreeWorkspaces(git, guard, folder=repository.root / ".worktrees", env=repository.env)
        await pool.recover()
        await branch_goes_on(repository, said)
        for number in range(2):
            base = standing or repository.first
            workspace = await pool.acquire(
                Claim(key=f"after-{number}", commit=base, branch=f"shopfloor/after-{number}")
            )
            left = Git(Path(workspace.path), base_env=repository.env).text("status", "--porcelain", "--ignored")
            assert not left, f"a new checkout is not clean\n{left}"


async def branch_goes_on(repository: Repository, said: list[dict[str, Any]]) -> None:
    """The user's branch is where it was brought, or between there and where it was to go, and goes there."""
    git = repository.git
    mirrored = [line["commit"] for line in said if line["word"] == "mirrored"]
    begun = [line for line in said if line["word"] == "mirroring"]
    if not begun:
        return
    head = git.read_ref("refs/heads/main")
    assert head in (*mirrored[-1:], begun[-1]["old"], begun[-1]["new"]), "the user's branch is somewhere else"
    if len(mirrored) == len(begun):
        assert head == mirrored[-1], "the user's branch went back"
        assert not (repository.root / ".git/index.lock").exists(), "the user's index is still locked"
        left = git.text("status", "--porcelain")
        assert not left, f"the user's checkout is not what was brought there\n{left}"
    result = await MergeLander(git).mirror(TARGET, old=begun[-1]["old"], new=begun[-1]["new"])
    assert result.moved, f"the user's branch cannot be brought on: {result.why}"
    assert git.read_ref("refs/heads/main") == begun[-1]["new"]
    left = git.text("status", "--porcelain")
    assert not left, f"the user's checkout is not what the branch says\n{left}"
