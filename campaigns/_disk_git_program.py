"""A program that snapshots, lands and mirrors in one repository, and says what was done when it is.

`python _disk_git_program.py REPOSITORY SEED`. Each line that it says is a JSON object with a `word`.
"""

from __future__ import annotations

import asyncio
import json
import os
import random
import subprocess
import sys
from pathlib import Path

from shopfloor.git import Git
from shopfloor.landers.merge import MergeLander
from shopfloor.ports import Claim, Workspace
from shopfloor.spawn import Guard
from shopfloor.testing.lander import TARGET
from shopfloor.testing.repository import plain_env, write
from shopfloor.workspaces.worktree import WorktreeWorkspaces

ORDERS = 3


def say(word: str, **more: object) -> None:
    """One line, with one write: it stands in the trace where it was said."""
    os.write(1, json.dumps({"word": word, **more}).encode() + b"\n")


class Program:
    """One controller's life in a repository."""

    def __init__(self, root: Path, seed: int) -> None:
        self.root = root
        self.seed = seed
        self.dice = random.Random(seed)
        self.env = plain_env(root.parent)
        self.git = Git(root, base_env=self.env)
        self.lander = MergeLander(self.git)

    async def run(self) -> None:
        """Take a few orders from workspace to the user's branch."""
        tip = mirrored = await self.lander.tip(TARGET, start=self.git.rev_parse("refs/heads/main"))
        say("landed", commit=tip)
        async with Guard() as guard:
            pool = WorktreeWorkspaces(self.git, guard, folder=self.root / ".worktrees", env=self.env)
            for number in range(ORDERS):
                key = f"wo-{number}.a{self.seed}"
                workspace = await pool.acquire(Claim(key=key, commit=tip, branch=f"shopfloor/{key}"))
                self.work(workspace, number)
                snapshot = await pool.snapshot(workspace, message="the work", trailers={"Shopfloor-Order": key})
                say("snapshot", ref=snapshot.ref, commit=snapshot.commit)
                await pool.release(workspace)
                if self.dice.random() < 0.3:
                    say("packing")
                    self.plainly(self.root, "pack-refs", "--all")
                proposal = await self.lander.propose(tip, snapshot.commit, message=f"Merge {key}", trailers={})
                say("planned", commit=proposal.commit)
                landed = await self.lander.land(TARGET, old=tip, new=proposal.commit)
                assert landed.moved
                tip = landed.observed
                say("landed", commit=tip)
                if self.dice.random() < 0.7:
                    say("mirroring", old=mirrored, new=tip)
                    result = await self.lander.mirror(TARGET, old=mirrored, new=tip)
                    assert result.moved, result.why
                    mirrored = tip
                    say("mirrored", commit=tip)
        say("end")

    def work(self, workspace: Workspace, number: int) -> None:
        """What an agent does in its checkout; its git is not told to sync anything."""
        root = Path(workspace.path)
        letters = "".join(self.dice.choices("abcdef", k=30))
        write(root, {
            f"new/{number}/{letters[:3]}.txt": letters * self.dice.choice((1, 500)),
            f"own-{number}.txt": letters,
            "README.md": f"changed by {number}: {letters}\n",
        })  # fmt: skip
        how = self.dice.choice(("left", "staged", "committed", "half", "nested"))
        if how == "nested":
            write(root, {"inner/file.txt": letters})
            self.plainly(root / "inner", "init", "-q")
            self.plainly(root / "inner", "add", "-A")
            self.plainly(root / "inner", "commit", "-q", "-m", "inner")
        if how in {"staged", "committed", "half"}:
            self.plainly(root, "add", "-A")
        if how in {"committed", "half"}:
            self.plainly(root, "commit", "-q", "-m", "by the agent")
        if how == "half":
            write(root, {"later.txt": letters})

    def plainly(self, cwd: Path, *words: str) -> None:
        """Git as an agent or a person calls it."""
        identity = ("-c", "user.name=robot", "-c", "user.email=robot@localhost")
        subprocess.run(["git", *identity, *words], cwd=cwd, env=self.env, check=True, stdout=subprocess.DEVNULL)


if __name__ == "__main__":
    asyncio.run(Program(Path(sys.argv[1]), int(sys.argv[2])).run())
