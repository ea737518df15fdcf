"""What was acknowledged survives a loss of power: the disk that forgets, and what was found with it."""

import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from random import Random

import pytest

from campaigns import disk
from campaigns.outcome import Options
from shopfloor.git import Git, GitError
from shopfloor.landers.merge import MergeLander
from shopfloor.ports import Claim
from shopfloor.spawn import Guard
from shopfloor.testing.disk import Recording, Style, Trace, record
from shopfloor.testing.lander import TARGET
from shopfloor.testing.repository import Repository, write
from shopfloor.workspaces.worktree import WorktreeWorkspaces

Need = Callable[[str, str], str]


@pytest.fixture
def strace(need: Need) -> str:
    return need("strace", "apt install strace")


@pytest.mark.usefixtures("strace")
@pytest.mark.timeout(150)  # ten seconds on a quiet machine; three programs are traced, and a run is begun and resumed
def test_what_was_acknowledged_survives_a_loss_of_power() -> None:
    outcome = disk.run(Options(size=0.012))
    assert [figure.name for figure in outcome.figures if figure.ok is False] == []
    losses = {figure.name: figure.value for figure in outcome.figures}
    assert losses["store: power losses"] == 24
    assert losses["git: power losses"] == 5
    assert losses["run: power losses"] == 2
    assert losses["run: losses that `run --resume` went on from"] == 1


# -- the disk itself ------------------------------------------------------------------------------------------------


def recorded(folder: Path, program: str) -> Recording:
    folder.mkdir(exist_ok=True)
    return record([sys.executable, "-c", "import os\n" + program], folder, cwd=folder, env=dict(os.environ))


def after(recording: Recording, at: int, seed: int, into: Path, style: Style | None = None) -> dict[str, bytes]:
    recording.lose_power(at, Random(seed), into, style=style)
    return {path.name: path.read_bytes() for path in into.iterdir() if path.is_file()}


@pytest.mark.usefixtures("strace")
def test_what_was_synced_is_kept_whatever_else_happens(tmp_path: Path) -> None:
    program = """
file = os.open("kept", os.O_WRONLY | os.O_CREAT)
os.write(file, b"k" * 9000); os.fsync(file)
folder = os.open(".", os.O_RDONLY); os.fsync(folder)
os.write(file, b"u" * 9000)
open("unsure", "w").write("x" * 5000)
"""
    recording = recorded(tmp_path / "disk", program)
    seen = set()
    for seed in range(60):
        left = after(recording, len(recording), seed, tmp_path / str(seed))
        assert left["kept"].startswith(b"k" * 9000)
        assert not left["kept"][9000:].strip(b"u\0")
        seen.add((len(left["kept"]), left.get("unsure", b"-")[:1]))
    assert (9000, b"-") in seen, "it may forget all that was not synced"
    assert (18000, b"x") in seen, "it may keep all that was not synced"
    assert (9000, b"") in seen, "it may keep a name without the content"
    assert any(9000 < size < 18000 for size, _ in seen), "it may keep a part"


@pytest.mark.usefixtures("strace")
def test_a_rename_comes_whole_or_not_at_all(tmp_path: Path) -> None:
    program = """
for name, text in (("file", b"old"), ("next", b"new")):
    file = os.open(name, os.O_WRONLY | os.O_CREAT); os.write(file, text); os.fsync(file)
folder = os.open(".", os.O_RDONLY); os.fsync(folder)
os.rename("next", "file")
"""
    recording = recorded(tmp_path / "disk", program)
    seen = {tuple(sorted(after(recording, len(recording), seed, tmp_path / str(seed)).items())) for seed in range(40)}
    assert seen == {(("file", b"old"), ("next", b"new")), (("file", b"new"),)}


@pytest.mark.usefixtures("strace")
def test_the_power_can_go_at_every_step(tmp_path: Path) -> None:
    program = 'file = os.open("log", os.O_WRONLY | os.O_CREAT | os.O_APPEND)\n'
    program += 'os.fsync(os.open(".", os.O_RDONLY))\n'
    program += "for n in range(5): os.write(file, b'%d' % n); os.fsync(file); os.write(1, b'%d\\n' % n)\n"
    recording = recorded(tmp_path / "disk", program)
    for at in range(len(recording) + 1):
        said = recording.said(at)
        left = after(recording, at, at, tmp_path / str(at), Style.FORGETS)
        assert left.get("log", b"").decode().startswith("".join(said))
    assert said == ["0", "1", "2", "3", "4"]


def test_a_sync_holds_for_what_was_written_before_it_began(tmp_path: Path) -> None:
    folder = tmp_path / "disk"
    folder.mkdir()
    (folder / "log").write_bytes(b"")
    path = folder / "log"
    trace = Trace(folder)
    trace.follow(folder, [
        f'7 openat(AT_FDCWD<{folder}>, "{path}", O_WRONLY|O_APPEND) = 3<{path}>',
        "7 clone3({flags=CLONE_VM|CLONE_FS|CLONE_FILES}, 88) = 8",
        f'7 write(3<{path}>, "before", 6) = 6',
        f'8 write(3<{path}>, "while", 5 <unfinished ...>',
        f"7 fdatasync(3<{path}> <unfinished ...>",
        "8 <... write resumed>) = 5",
        "7 <... fdatasync resumed>) = 0",
    ])  # fmt: skip
    recording = trace.recording
    assert recording.files(len(recording)) == {"log": b"beforewhile"}
    left = after(recording, len(recording), 1, tmp_path / "left", Style.FORGETS)
    assert left == {"log": b"before"}


# -- what was found with it -----------------------------------------------------------------------------------------


def plainly(repository: Repository, root: Path, *words: str) -> None:
    """Git as an agent calls it."""
    identity = ("-c", "user.name=robot", "-c", "user.email=robot@localhost")
    subprocess.run(["git", *identity, *words], cwd=root, env=repository.env, check=True, capture_output=True)


class Synced:
    """Files and folders that were synced, by path."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.paths: set[Path] = set()
        really = os.fsync

        def fsync(descriptor: int) -> None:
            really(descriptor)
            self.paths.add(Path(f"/proc/self/fd/{descriptor}").readlink())

        monkeypatch.setattr(os, "fsync", fsync)


async def test_an_agents_own_commits_are_synced_before_they_are_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    repository = Repository(tmp_path / "repo")
    async with Guard() as guard:
        pool = WorktreeWorkspaces(repository.git, guard, folder=tmp_path / "slots", env=repository.env)
        workspace = await pool.acquire(Claim(key="wo-1.a1", commit=repository.first, branch="shopfloor/one"))
        write(Path(workspace.path), {"new/deep.txt": "by the agent"})
        plainly(repository, Path(workspace.path), "add", "-A")
        plainly(repository, Path(workspace.path), "commit", "-q", "-m", "by the agent")
        synced = Synced(monkeypatch)
        snapshot = await pool.snapshot(workspace, message="m", trailers={})
    common = repository.git.common_dir
    listed = repository.git.text("rev-list", "--objects", "--no-object-names", snapshot.commit, f"^{repository.first}")
    for oid in listed.split():
        path = common / "objects" / oid[:2] / oid[2:]
        assert {path, path.parent, path.parent.parent} <= synced.paths
    assert common / "refs/heads/shopfloor/one" in synced.paths, "its branch stood there already"
    assert common / "refs/heads/shopfloor" in synced.paths


async def test_an_object_that_power_loss_damaged_is_written_again(tmp_path: Path) -> None:
    repository = Repository(tmp_path / "repo")
    async with Guard() as guard:
        pool = WorktreeWorkspaces(repository.git, guard, folder=tmp_path / "slots", env=repository.env)
        workspace = await pool.acquire(Claim(key="wo-1.a1", commit=repository.first, branch="shopfloor/one"))
        root = Path(workspace.path)
        write(root, {"new.txt": "by the agent"})
        plainly(repository, root, "add", "-A")
        plainly(repository, root, "commit", "-q", "-m", "by the agent")
        lost = Git(root, base_env=repository.env).rev_parse("HEAD")
        blob = repository.git.text("rev-parse", f"{lost}:new.txt")
        common = repository.git.common_dir
        for oid in (lost, blob):
            path = common / "objects" / oid[:2] / oid[2:]
            path.chmod(0o600)
            path.write_bytes(b"")
        (common / "refs/heads/shopfloor/one").write_bytes(bytes(41))
        lease = pool.shelf.read(workspace.slot)
        assert lease is not None
        (Path(lease.git_dir) / "HEAD").write_bytes(b"")
        lease.pid, lease.start_time = 1, 1  # nobody's
        pool.shelf.write(lease)
        os.utime(pool.shelf.mark(workspace.slot), (0, 0))
        [orphan] = await pool.recover()
    assert orphan.snapshot is not None, orphan.problem
    assert repository.show(orphan.snapshot.commit, "new.txt") == b"by the agent"
    assert repository.git.read_ref("refs/heads/shopfloor/one") == orphan.snapshot.commit
    assert repository.git.text("fsck", "--no-dangling") == ""


async def test_the_newest_whole_commit_of_an_agent_is_kept(tmp_path: Path) -> None:
    repository = Repository(tmp_path / "repo")
    async with Guard() as guard:
        pool = WorktreeWorkspaces(repository.git, guard, folder=tmp_path / "slots", env=repository.env)
        workspace = await pool.acquire(Claim(key="wo-1.a1", commit=repository.first, branch="shopfloor/one"))
        root = Path(workspace.path)
        commits = []
        for text in ("one", "two"):
            write(root, {"new.txt": text})
            plainly(repository, root, "add", "-A")
            plainly(repository, root, "commit", "-q", "-m", text)
            commits.append(Git(root, base_env=repository.env).rev_parse("HEAD"))
        (repository.git.common_dir / "objects" / commits[1][:2] / commits[1][2:]).unlink()
        lease = pool.shelf.read(workspace.slot)
        assert lease is not None
        lease.pid, lease.start_time = 1, 1  # nobody's
        pool.shelf.write(lease)
        [orphan] = await pool.recover()
    assert orphan.snapshot is not None, orphan.problem
    assert repository.git.is_ancestor(commits[0], orphan.snapshot.commit)
    assert repository.show(orphan.snapshot.commit, "new.txt") == b"two"


async def test_a_worktree_that_power_loss_left_half_made_stops_nobody(tmp_path: Path) -> None:
    repository = Repository(tmp_path / "repo")
    slots = tmp_path / "slots"
    async with Guard() as guard:
        pool = WorktreeWorkspaces(repository.git, guard, folder=slots, env=repository.env)
        for key in ("used", "half"):
            await pool.acquire(Claim(key=key, commit=repository.first, branch=f"shopfloor/{key}"))
        for slot, git_dir in (("slot-01", True), ("slot-02", False)):
            lease = pool.shelf.read(slot)
            assert lease is not None
            for name in ("commondir", "HEAD", "gitdir") if git_dir else ("commondir",):
                Path(lease.git_dir, name).write_bytes(b"")
            lease.pid, lease.start_time = 1, 1  # nobody's
            lease.state = "used" if git_dir else "filling"
            lease.git_dir = lease.git_dir if git_dir else ""
            pool.shelf.write(lease)
        with pytest.raises(GitError, match="commondir"):
            repository.git.worktrees()
        orphans = await pool.recover()
        assert [orphan.key for orphan in orphans] == ["used", "half"]
        assert [tree.path.name for tree in repository.git.worktrees()] == ["repo", "slot-01"]
        await pool.acquire(Claim(key="next", commit=repository.first, branch="shopfloor/next"))


async def test_a_new_worktree_is_synced(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    repository = Repository(tmp_path / "repo")
    synced = Synced(monkeypatch)
    own = repository.git.worktree_add(tmp_path / "there", repository.first)
    assert {*own.iterdir(), own, own.parent, tmp_path / "there", tmp_path / "there/.git"} <= synced.paths


def test_a_lock_that_a_killed_git_left_on_a_ref_is_taken_away(tmp_path: Path) -> None:
    repository = Repository(tmp_path / "repo")
    git = repository.git
    locks = [git.common_dir / "refs/shopfloor/one.lock", git.common_dir / "refs/heads/main.lock"]
    for lock in locks:
        lock.parent.mkdir(parents=True, exist_ok=True)
        lock.touch()
        os.utime(lock, (0, 0))  # no git is as old
    new = repository.commit_on(repository.first, {"x": "y"})
    git.update_refs({"refs/shopfloor/one": (new, ""), "refs/heads/main": (new, repository.first)})
    assert git.refs("refs/shopfloor", "refs/heads") == {"refs/shopfloor/one": new, "refs/heads/main": new}
    assert not any(lock.exists() for lock in locks)


def test_a_lock_that_a_living_git_holds_is_left_alone(tmp_path: Path) -> None:
    repository = Repository(tmp_path / "repo")
    lock = repository.git.common_dir / "refs/heads/main.lock"
    new = repository.commit_on(repository.first, {"x": "y"})
    command = ["git", "cat-file", "--batch"]  # it waits for its input
    with subprocess.Popen(command, cwd=repository.root, env=repository.env, stdin=subprocess.PIPE) as living:
        lock.touch()
        os.utime(lock, (time.time() + 5, time.time() + 5))
        with pytest.raises(GitError, match="File exists"):
            repository.git.update_ref("refs/heads/main", new)
        assert lock.exists()
        assert living.stdin is not None
        living.stdin.close()


async def test_a_file_that_was_only_touched_does_not_hold_the_branch_back(tmp_path: Path) -> None:
    repository = Repository(tmp_path / "repo")
    new = repository.commit_on(repository.first, {"README.md": "landed\n"})
    os.utime(repository.root / "README.md", (1, 1))
    result = await MergeLander(repository.git).mirror(TARGET, old=repository.first, new=new)
    assert (result.moved, result.why) == (True, "")
    assert (repository.root / "README.md").read_text() == "landed\n"


async def test_the_users_checkout_is_synced_before_the_journal_goes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    repository = Repository(tmp_path / "repo")
    root = repository.root
    new = repository.commit_on(repository.first, {"README.md": "landed\n", "new/deep/file": "x", "src/main.py": None})
    synced = Synced(monkeypatch)
    result = await MergeLander(repository.git).mirror(TARGET, old=repository.first, new=new)
    assert result.moved
    assert {root / "README.md", root / "new/deep/file", root / "new/deep", root / "new", root / "src"} <= synced.paths
    assert {root, root / ".git", root / ".git/shopfloor-mirror.index"} <= synced.paths
