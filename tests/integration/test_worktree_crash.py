"""A controller that is killed leaves slots in use; the next one keeps what is in them and takes them back."""

import contextlib
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from shopfloor.git import Git
from shopfloor.ports import Claim, Orphan, Workspaces
from shopfloor.spawn import Guard
from shopfloor.testing.repository import Repository, write
from shopfloor.workspaces.clone import CloneWorkspaces
from shopfloor.workspaces.worktree import WorktreeWorkspaces

KINDS = {"worktree": WorktreeWorkspaces, "clone": CloneWorkspaces}
CHILD = """
import asyncio, os, sys
from pathlib import Path
from shopfloor.git import Git
from shopfloor.ports import Claim
from shopfloor.spawn import Guard
from shopfloor.workspaces.{kind} import {name}

async def main():
    root, commit, *words = sys.argv[1:]
    env = {{"PATH": os.environ["PATH"], "HOME": os.environ["HOME"]}}
    async with Guard() as guard:
        pool = {name}(Git(Path(root), base_env=env), guard, folder=Path(root, ".worktrees"), env=env, setup="{setup}")
        workspace = await pool.acquire(Claim(key="wo-1.a1", commit=commit, branch="shopfloor/one"))
        for name in ("new.txt", "README.md"):
            Path(workspace.path, name).write_text("work\\n")
        print(workspace.path, flush=True)
        if "snapshot" in words:
            await pool.snapshot(workspace, message="m", trailers={{}})
        await asyncio.Event().wait()

asyncio.run(main())
"""


class Floor:
    def __init__(self, folder: Path, kind: str) -> None:
        self.kind = kind
        self.repository = Repository(folder / "repo")
        self.git = self.repository.git
        self.git.exclude(["/.worktrees/"])
        self.pipe = folder / "pipe"

    def open(self, guard: Guard) -> Workspaces:
        folder = self.repository.root / ".worktrees"
        return KINDS[self.kind](self.git, guard, folder=folder, env=self.repository.env)

    def child(self, *words: str, setup: str = "") -> "subprocess.Popen[bytes]":
        """A controller that works in a workspace and waits to be killed."""
        program = CHILD.format(kind=self.kind, name=KINDS[self.kind].__name__, setup=setup)
        argv = [sys.executable, "-c", program, str(self.repository.root), self.repository.first, *words]
        env = {**self.repository.env, "PYTHONPATH": os.pathsep.join(sys.path)}
        return subprocess.Popen(argv, env=env, stdout=subprocess.PIPE)

    def holds(self, filter_kind: str) -> None:
        """Let git wait on a pipe when it reads (clean) or writes (smudge) README.md."""
        os.mkfifo(self.pipe)
        self.git.call("config", f"filter.wait.{filter_kind}", f"cat {self.pipe} >/dev/null; cat")
        (self.git.common_dir / "info/attributes").write_text("README.md filter=wait\n")

    def lets_go(self) -> None:
        (self.git.common_dir / "info/attributes").unlink()

    async def recover(self) -> list[Orphan]:
        async with Guard() as guard:
            return await self.open(guard).recover()

    async def next_is_clean(self) -> None:
        async with Guard() as guard:
            workspace = await self.open(guard).acquire(
                Claim(key="wo-9.a1", commit=self.repository.first, branch="shopfloor/nine")
            )
            git = Git(Path(workspace.path), base_env=self.repository.env)
            assert git.text("status", "--porcelain", "--ignored") == ""
            assert git.rev_parse("HEAD") == self.repository.first


def kill(child: "subprocess.Popen[bytes]") -> None:
    """Everything that belongs to it, at once, as a power cut would."""
    family = [psutil.Process(child.pid), *psutil.Process(child.pid).children(recursive=True)]
    for process in family:
        with contextlib.suppress(psutil.NoSuchProcess):
            process.send_signal(signal.SIGKILL)
    child.wait()
    psutil.wait_procs(family)
    assert child.stdout is not None
    child.stdout.close()


@pytest.fixture(params=KINDS)
def floor(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Floor]:
    floor = Floor(tmp_path, request.param)
    yield floor
    assert floor.git.text("fsck", "--no-dangling", "--no-reflogs") == ""


def at_work(child: "subprocess.Popen[bytes]") -> Path:
    assert child.stdout is not None
    return Path(child.stdout.readline().decode().strip())


async def test_work_of_a_killed_controller_is_kept(floor: Floor) -> None:
    child = floor.child()
    place = at_work(child)
    kill(child)
    (orphan,) = await floor.recover()
    assert (orphan.key, orphan.path, orphan.problem) == ("wo-1.a1", str(place), "")
    assert orphan.snapshot is not None
    assert set(orphan.snapshot.files) == {"new.txt", "README.md"}
    assert floor.git.read_ref("refs/heads/shopfloor/one") == orphan.snapshot.commit
    assert await floor.recover() == []
    await floor.next_is_clean()


@pytest.mark.parametrize("floor", ["worktree"], indirect=True)  # a clone does not know the filter
async def test_a_kill_while_git_reads_the_files_loses_nothing(floor: Floor) -> None:
    floor.holds("clean")
    child = floor.child("snapshot")
    place = at_work(child)
    with floor.pipe.open("wb"):  # opens when git is there
        kill(child)
    floor.lets_go()
    (orphan,) = await floor.recover()
    assert orphan.path == str(place)
    assert orphan.snapshot is not None
    assert set(orphan.snapshot.files) == {"new.txt", "README.md"}
    assert floor.repository.show(orphan.snapshot.commit, "README.md") == b"work\n"
    await floor.next_is_clean()


@pytest.mark.parametrize("floor", ["worktree"], indirect=True)
async def test_a_kill_while_git_writes_the_checkout_is_cleared_up(floor: Floor) -> None:
    floor.holds("smudge")
    child = floor.child()
    with floor.pipe.open("wb"):
        kill(child)
    floor.lets_go()
    (orphan,) = await floor.recover()
    assert (orphan.key, orphan.snapshot) == ("wo-1.a1", None)
    assert orphan.problem
    assert floor.git.read_ref("refs/heads/shopfloor/one") == "", "the branch of an attempt that never was"
    await floor.next_is_clean()


async def test_a_kill_during_setup_is_cleared_up(floor: Floor) -> None:
    os.mkfifo(floor.pipe)
    child = floor.child(setup=f"cat {floor.pipe}")
    with floor.pipe.open("wb"):
        kill(child)
    (orphan,) = await floor.recover()
    assert orphan.snapshot is None
    await floor.next_is_clean()


async def test_slots_of_a_living_controller_are_left_alone(floor: Floor) -> None:
    child = floor.child()
    at_work(child)
    try:
        assert await floor.recover() == []
    finally:
        kill(child)


async def test_a_folder_without_a_lease_is_named_and_left(floor: Floor) -> None:
    write(floor.repository.root, {".worktrees/slot-01/precious.txt": "whose?"})
    (orphan,) = await floor.recover()
    assert (orphan.key, orphan.snapshot) == ("", None)
    await floor.next_is_clean()
    assert (floor.repository.root / ".worktrees/slot-01/precious.txt").read_text() == "whose?"


async def test_a_folder_that_is_gone_leaves_its_commits(floor: Floor) -> None:
    child = floor.child()
    place = at_work(child)
    agent = Git(place, base_env=floor.repository.env)
    agent.call("add", "-A")
    agent.call("commit", "-q", "-m", "mine")
    mine = agent.rev_parse("HEAD")
    kill(child)
    shutil.rmtree(place)
    (orphan,) = await floor.recover()
    assert orphan.snapshot is not None
    assert orphan.snapshot.commit == mine
    assert any("gone" in note for note in orphan.snapshot.notes)
    await floor.next_is_clean()
