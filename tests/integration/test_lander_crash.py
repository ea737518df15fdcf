"""The user's branch is moved in steps. A kill between or inside any of them is finished or undone by the next call."""

import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from campaigns.chaos.dying_git import When, dying_git, struck
from shopfloor.git import Git
from shopfloor.landers._repair import INDEX, Journal
from shopfloor.landers.merge import MergeLander
from shopfloor.testing.lander import TARGET
from shopfloor.testing.repository import Repository, write

OLD = {"a.txt": "old a\n" * 50, "b.txt": "old b\n", "gone/c.txt": "c\n", "same.txt": "same\n", "turns": "file\n"}
NEW = {"a.txt": "new a\n" * 50, "b.txt": "new b\n", "gone/c.txt": None, "added/d.txt": "d\n" * 50}


class Cut:
    """A move of the checkout that can be stopped after any step, as a kill would."""

    def __init__(self, folder: Path) -> None:
        self.repository = Repository(folder / "repo")
        self.git = self.repository.git
        self.root = self.repository.root
        self.dir = self.root / ".git"
        self.old = self.repository.commit(OLD)
        self.new = self.repository.commit_on(self.old, NEW)
        self.git.update_ref(TARGET.ref, self.new)
        write(self.root, {"untracked.txt": "mine", "gone/mine.log": "ignored"})

    def lock(self) -> None:
        journal = Journal(ref="refs/heads/main", old=self.old, new=self.new)
        (self.dir / "index.lock").write_bytes(journal.encode())

    def files(self) -> None:
        shutil.copy2(self.dir / "index", self.dir / INDEX)
        self.git.call("read-tree", "-m", "-u", self.old, self.new, index=self.dir / INDEX)

    def ref(self) -> None:
        self.git.update_ref("refs/heads/main", self.new, old=self.old)

    def index(self) -> None:
        (self.dir / INDEX).replace(self.dir / "index")

    async def mirror(self) -> tuple[bool, str]:
        result = await MergeLander(self.git).mirror(TARGET, old=self.old, new=self.new)
        assert not (self.dir / "index.lock").exists()
        assert not list(self.dir.glob(f"{INDEX}*"))
        assert (self.root / "untracked.txt").read_text() == "mine"
        assert (self.root / "gone/mine.log").read_text() == "ignored"
        return result.moved, result.why

    def is_at(self, commit: str) -> None:
        assert self.git.rev_parse("HEAD") == commit
        assert self.git.text("status", "--porcelain") == "?? untracked.txt"
        assert self.git.text("fsck", "--no-dangling") == ""


@pytest.mark.parametrize("steps", range(5))
async def test_a_kill_between_two_steps_is_finished(steps: int, tmp_path: Path) -> None:
    cut = Cut(tmp_path)
    for step in (cut.lock, cut.files, cut.ref, cut.index)[:steps]:
        step()
    assert await cut.mirror() == (True, "")
    cut.is_at(cut.new)


HALVES = {
    "nothing": (),
    "one file": ("b.txt",),
    "a file half written": ("a.txt half",),
    "a file gone": ("a.txt gone",),
    "a new file half written": ("added half",),
    "a deletion": ("c gone", "b.txt"),
}


def half(cut: Cut, what: str) -> None:
    match what:
        case "b.txt":
            write(cut.root, {"b.txt": "new b\n"})
        case "a.txt half":
            write(cut.root, {"a.txt": "new a\n" * 20 + "new"})
        case "a.txt gone":
            (cut.root / "a.txt").unlink()
        case "added half":
            write(cut.root, {"added/d.txt": ""})
        case "c gone":
            (cut.root / "gone/c.txt").unlink()


@pytest.mark.parametrize("name", HALVES)
async def test_a_kill_inside_of_the_files_is_finished(name: str, tmp_path: Path) -> None:
    cut = Cut(tmp_path)
    cut.lock()
    for what in HALVES[name]:
        half(cut, what)
    assert await cut.mirror() == (True, "")
    cut.is_at(cut.new)


async def test_what_a_person_changed_meanwhile_is_theirs(tmp_path: Path) -> None:
    cut = Cut(tmp_path)
    cut.lock()
    half(cut, "b.txt")
    half(cut, "c gone")
    half(cut, "added half")
    write(cut.root, {"a.txt": "a person's words"})
    moved, why = await cut.mirror()
    assert not moved
    assert "a.txt" in why
    assert (cut.root / "a.txt").read_text() == "a person's words"
    assert (cut.root / "b.txt").read_text() == "old b\n", "the half that was done was not undone"
    assert (cut.root / "gone/c.txt").read_text() == "c\n"
    assert not (cut.root / "added").exists()
    assert cut.git.rev_parse("HEAD") == cut.old


async def test_what_a_person_changed_after_the_branch_moved_shows_as_modified(tmp_path: Path) -> None:
    cut = Cut(tmp_path)
    for step in (cut.lock, cut.files, cut.ref):
        step()
    write(cut.root, {"a.txt": "a person's words"})
    assert await cut.mirror() == (True, "")
    assert (cut.root / "a.txt").read_text() == "a person's words"
    assert cut.git.modified() == ["a.txt"]


async def test_a_branch_moved_by_a_person_meanwhile_is_left_alone(tmp_path: Path) -> None:
    cut = Cut(tmp_path)
    cut.lock()
    other = cut.repository.commit_on(cut.old, {"other": "x"})
    cut.git.call("update-ref", "refs/heads/main", other)
    moved, why = await cut.mirror()
    assert not moved
    assert why
    assert cut.git.read_ref("refs/heads/main") == other
    assert (cut.root / "a.txt").read_text() == OLD["a.txt"]


CHILD = """
import asyncio, os, sys
from pathlib import Path
from shopfloor.git import Git
from shopfloor.landers.merge import MergeLander
from shopfloor.testing.lander import TARGET
root, old, new = sys.argv[1:]
git = Git(Path(root), base_env=dict(os.environ))
asyncio.run(MergeLander(git).mirror(TARGET, old=old, new=new))
"""


async def test_a_real_kill_while_git_writes_files_is_finished(tmp_path: Path) -> None:
    # A filter that waits on a pipe holds git in the middle of its work, for as long as the test likes.
    cut = Cut(tmp_path)
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    cut.git.call("config", "filter.wait.smudge", f"cat {pipe} >/dev/null; cat")
    (cut.dir / "info/attributes").write_text("b.txt filter=wait\n")
    env = {**cut.repository.env, "PYTHONPATH": os.pathsep.join(sys.path)}
    child = subprocess.Popen([sys.executable, "-c", CHILD, str(cut.root), cut.old, cut.new], env=env)
    with pipe.open("wb"):  # opens when git is there
        everybody = psutil.Process(child.pid).children(recursive=True)
        for process in (psutil.Process(child.pid), *everybody):
            process.send_signal(signal.SIGKILL)
        child.wait()
        psutil.wait_procs(everybody)
    assert (cut.root / "a.txt").read_text() == NEW["a.txt"], "git had not begun: the test does not test"
    assert (cut.dir / "index.lock").exists()
    (cut.dir / "info/attributes").unlink()
    assert await cut.mirror() == (True, "")
    cut.is_at(cut.new)


@pytest.mark.parametrize(
    ("verb", "when", "moves"),
    [
        ("read-tree", "before", True),
        ("read-tree", "after", True),
        ("update-ref", "before", True),
        ("update-ref", "after", True),
        ("update-ref", "locked", True),
    ],
)
async def test_a_git_that_is_killed_alone_leaves_the_checkout_whole(
    verb: str, when: When, moves: bool, tmp_path: Path
) -> None:
    cut = Cut(tmp_path)
    first = dying_git(tmp_path / "git", verb=verb, when=when)
    env = {**cut.repository.env, "PATH": f"{first}:{cut.repository.env['PATH']}"}
    result = await MergeLander(Git(cut.root, base_env=env)).mirror(TARGET, old=cut.old, new=cut.new)
    assert struck(tmp_path / "git")
    assert result.moved == moves, result.why
    assert not (cut.dir / "index.lock").exists()
    cut.is_at(cut.new if moves else cut.old)
    assert await cut.mirror() == (True, "")
    cut.is_at(cut.new)


def git_that(cut: Cut, folder: Path, *, does: str, at: str) -> Git:
    """A git that first does something else in one of its commands."""
    real = shutil.which("git")
    write(folder, {"git": f'#!/bin/sh\ncase "$*" in *" {at} "*) {does} ;; esac\nexec {real} "$@"\n'})
    (folder / "git").chmod(0o755)
    return Git(cut.root, base_env={**cut.repository.env, "PATH": f"{folder}:{cut.repository.env['PATH']}"})


async def test_a_branch_that_git_cannot_move_is_left_alone_after_a_kill(tmp_path: Path) -> None:
    cut = Cut(tmp_path)
    for step in (cut.lock, cut.files):
        step()
    git = git_that(cut, tmp_path / "bin", does="exit 1", at="update-ref")
    result = await MergeLander(git).mirror(TARGET, old=cut.old, new=cut.new)
    assert not result.moved
    assert "undone" in result.why
    assert not (cut.dir / "index.lock").exists()
    cut.is_at(cut.old)


async def test_a_git_that_fails_in_the_middle_of_the_files_is_undone(tmp_path: Path) -> None:
    # As on a disk that fills up: b.txt is the last file that it writes.
    cut = Cut(tmp_path)
    cut.git.call("config", "filter.once.smudge", f"mkdir {tmp_path / 'failed'} && exit 1; cat")
    cut.git.call("config", "filter.once.clean", "cat")
    cut.git.call("config", "filter.once.required", "true")
    (cut.dir / "info/attributes").write_text("b.txt filter=once\n")
    result = await MergeLander(cut.git).mirror(TARGET, old=cut.old, new=cut.new)
    assert (tmp_path / "failed").exists()
    assert not result.moved
    assert "git would not move the checkout" in result.why
    assert not (cut.dir / "index.lock").exists()
    cut.is_at(cut.old)
    assert await cut.mirror() == (True, "")
    cut.is_at(cut.new)


async def test_a_person_who_leaves_the_branch_at_that_moment_keeps_a_clean_checkout(tmp_path: Path) -> None:
    cut = Cut(tmp_path)
    leaves = f"{shutil.which('git')} -C {cut.root} checkout -q --detach"
    git = git_that(cut, tmp_path / "bin", does=leaves, at="status")
    result = await MergeLander(git).mirror(TARGET, old=cut.old, new=cut.new)
    assert not result.moved
    assert "another branch was checked out" in result.why
    assert cut.git.call("symbolic-ref", "-q", "HEAD", ok=(1,)).stdout == b"", "nobody has left the branch"
    assert not (cut.dir / "index.lock").exists()
    cut.is_at(cut.old)
