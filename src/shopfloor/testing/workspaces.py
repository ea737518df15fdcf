"""The conformance suite of the Workspaces port. Whoever writes a kind of workspace runs it against theirs.

    SUBJECT = Subject(make=MyWorkspaces)

    @pytest.mark.parametrize("case", CASES)
    async def test_my_workspaces(case, tmp_path):
        await run_case(case, SUBJECT, tmp_path)

Each case makes a repository, lets an agent do something in a workspace, and looks at what was kept.
"""

from __future__ import annotations

import asyncio
import os
import socket
import stat
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from shopfloor.config.settings import Cache
from shopfloor.domain.errors import Conflict, NotFound, Refused, ShopfloorError
from shopfloor.git import Git
from shopfloor.ports import Claim, Snapshot, Workspace, Workspaces
from shopfloor.spawn import Guard
from shopfloor.testing.repository import Repository, write

TRAILERS = {"Shopfloor-Order": "wo-1", "Shopfloor-Agent": "robot"}


@dataclass(frozen=True, kw_only=True)
class Subject:
    """``make(git, guard, folder=…, setup=…, copies=…, caches=…, env=…)`` opens the pool under test."""

    make: Callable[..., Workspaces]


class Bench:
    """What a case works with: a repository, and pools over it."""

    def __init__(self, subject: Subject, guard: Guard, folder: Path) -> None:
        self.subject = subject
        self.guard = guard
        self.repository = Repository(folder / "repo")
        self.repository.git.exclude(["/.worktrees/"])
        self.pool = self.open()
        self._number = 0

    def open(self, **options: Any) -> Workspaces:
        """Another pool over the same slots."""
        repository = self.repository
        known = {"folder": repository.root / ".worktrees", "env": repository.env}
        return self.subject.make(repository.git, self.guard, **known, **options)

    def claim(self, commit: str = "") -> Claim:
        """A new attempt's."""
        self._number += 1
        key = f"wo-{self._number}.a1"
        return Claim(key=key, commit=commit or self.repository.first, branch=f"shopfloor/order-{self._number}")

    def check(self, commit: str = "") -> Claim:
        """A check's."""
        self._number += 1
        return Claim(key=f"check-{self._number}", commit=commit or self.repository.first, purpose="check")

    async def workspace(self, **files: str | bytes) -> tuple[Workspace, Path, Git]:
        """A fresh attempt: the workspace, its folder, and git as the agent calls it."""
        workspace = await self.pool.acquire(self.claim())
        root = Path(workspace.path)
        write(root, files)
        return workspace, root, Git(root, base_env=self.repository.env)

    async def keep(self, workspace: Workspace) -> Snapshot:
        return await self.pool.snapshot(workspace, message="the work", trailers=TRAILERS)


def saved(bench: Bench, snapshot: Snapshot, workspace: Workspace) -> None:
    """What holds for every snapshot."""
    git = bench.repository.git
    assert git.read_ref(snapshot.ref) == snapshot.commit, "the snapshot's ref does not name its commit"
    assert git.read_ref(f"refs/heads/{workspace.branch}") == snapshot.commit, "the branch is not at the snapshot"
    assert git.is_ancestor(workspace.commit, snapshot.commit), "the snapshot does not descend from the base"
    assert git.tree_of(snapshot.commit) == snapshot.tree
    assert snapshot.base == workspace.commit
    links = [line for line in git.names("ls-tree", "-r", "-z", snapshot.commit) if line.startswith("160000")]
    assert not links, "a repository inside became part of the change"


async def it_is_a_clean_checkout_of_the_commit(bench: Bench) -> None:
    workspace, root, git = await bench.workspace()
    assert git.rev_parse("HEAD") == bench.repository.first
    assert git.text("status", "--porcelain", "--ignored") == ""
    assert (root / "src/deep/er/data.txt").read_text() == "data\n"
    assert workspace.commit == bench.repository.first


async def an_attempt_gets_its_branch(bench: Bench) -> None:
    workspace, _, git = await bench.workspace()
    assert git.text("symbolic-ref", "HEAD") == f"refs/heads/{workspace.branch}"


async def a_check_is_detached(bench: Bench) -> None:
    workspace = await bench.pool.acquire(bench.check())
    git = Git(Path(workspace.path), base_env=bench.repository.env)
    assert git.call("symbolic-ref", "-q", "HEAD", ok=(0, 1)).code == 1
    assert git.rev_parse("HEAD") == bench.repository.first


async def two_have_different_places(bench: Bench) -> None:
    one, two = await asyncio.gather(bench.pool.acquire(bench.claim()), bench.pool.acquire(bench.claim()))
    assert one.path != two.path


async def a_branch_that_is_taken_is_a_conflict(bench: Bench) -> None:
    # Somebody's commits may be on it: it must not be reset.
    claim = bench.claim()
    other = bench.repository.commit({"other.txt": "x"})
    bench.repository.git.update_ref(f"refs/heads/{claim.branch}", other)
    try:
        workspace = await bench.pool.acquire(claim)
    except Conflict:
        pass
    else:
        await bench.pool.release(workspace)
    assert bench.repository.git.read_ref(f"refs/heads/{claim.branch}") == other
    again = await bench.pool.acquire(bench.claim())
    assert again.path


async def an_unknown_commit_is_an_error(bench: Bench) -> None:
    try:
        await bench.pool.acquire(bench.claim("f" * 40))
    except ShopfloorError:
        return
    raise AssertionError("a commit that does not exist was checked out")


async def nothing_done_is_the_base(bench: Bench) -> None:
    workspace, _, _ = await bench.workspace()
    snapshot = await bench.keep(workspace)
    saved(bench, snapshot, workspace)
    assert (snapshot.commit, snapshot.files, snapshot.dirty) == (bench.repository.first, (), False)


async def uncommitted_work_is_kept(bench: Bench) -> None:
    workspace, root, _ = await bench.workspace(**{"README.md": "new\n", "added/file.txt": "added\n", "empty": ""})
    (root / "src/main.py").unlink()
    (root / "tool").write_text("#!/bin/sh\n")
    (root / "tool").chmod(0o755)
    (root / "link").symlink_to("README.md")
    snapshot = await bench.keep(workspace)
    saved(bench, snapshot, workspace)
    assert snapshot.dirty
    assert snapshot.complete
    assert set(snapshot.files) == {"README.md", "added/file.txt", "empty", "src/main.py", "tool", "link"}
    show = bench.repository.show
    assert show(snapshot.commit, "added/file.txt") == b"added\n"
    assert show(snapshot.commit, "link") == b"README.md"
    assert "src/main.py" not in bench.repository.paths(snapshot.commit)
    assert bench.repository.git.text("ls-tree", snapshot.commit, "tool").startswith("100755")


async def it_says_who_did_it(bench: Bench) -> None:
    workspace, _, _ = await bench.workspace(new="x")
    snapshot = await bench.keep(workspace)
    message = bench.repository.git.text("show", "-s", "--format=%an%n%B", snapshot.commit)
    assert message.startswith("robot\nthe work\n")
    assert "Shopfloor-Order: wo-1" in message


async def the_agents_commits_stay_as_they_are(bench: Bench) -> None:
    workspace, _, git = await bench.workspace(new="x")
    git.call("add", "-A")
    git.call("commit", "-q", "-m", "mine")
    mine = git.rev_parse("HEAD")
    snapshot = await bench.keep(workspace)
    saved(bench, snapshot, workspace)
    assert snapshot.commit == mine
    assert not snapshot.dirty


async def what_was_not_committed_comes_on_top(bench: Bench) -> None:
    workspace, root, git = await bench.workspace(new="x")
    git.call("add", "-A")
    git.call("commit", "-q", "-m", "mine")
    mine = git.rev_parse("HEAD")
    write(root, {"later": "y"})
    snapshot = await bench.keep(workspace)
    saved(bench, snapshot, workspace)
    assert bench.repository.git.rev_parse(f"{snapshot.commit}^") == mine
    assert set(snapshot.files) == {"new", "later"}


async def a_second_snapshot_changes_nothing(bench: Bench) -> None:
    workspace, root, _ = await bench.workspace(new="x")
    first = await bench.keep(workspace)
    assert (await bench.keep(workspace)).commit == first.commit
    write(root, {"new": "y"})
    last = await bench.keep(workspace)
    saved(bench, last, workspace)
    assert bench.repository.git.is_ancestor(first.commit, last.commit)


async def another_branch_makes_no_difference(bench: Bench) -> None:
    workspace, root, git = await bench.workspace(new="x")
    git.call("checkout", "-q", "-b", "my-own-idea")
    git.call("add", "-A")
    git.call("commit", "-q", "-m", "elsewhere")
    write(root, {"later": "y"})
    snapshot = await bench.keep(workspace)
    saved(bench, snapshot, workspace)
    assert set(snapshot.files) == {"new", "later"}


async def a_detached_head_makes_no_difference(bench: Bench) -> None:
    workspace, _, git = await bench.workspace(new="x")
    git.call("checkout", "-q", "--detach")
    git.call("add", "-A")
    git.call("commit", "-q", "-m", "nowhere")
    snapshot = await bench.keep(workspace)
    saved(bench, snapshot, workspace)
    assert snapshot.commit == git.rev_parse("HEAD")


async def commits_that_were_left_stay_reachable(bench: Bench) -> None:
    workspace, root, git = await bench.workspace(new="x")
    git.call("add", "-A")
    git.call("commit", "-q", "-m", "left behind")
    left = git.rev_parse("HEAD")
    git.call("checkout", "-q", "--detach", workspace.commit)
    write(root, {"other": "y"})
    snapshot = await bench.keep(workspace)
    saved(bench, snapshot, workspace)
    assert snapshot.files == ("other",)
    assert left in bench.repository.git.refs("refs/shopfloor/").values(), "nothing names the commit any more"
    assert snapshot.notes


async def rewritten_history_is_kept_and_based_again(bench: Bench) -> None:
    # The agent's history has no common ancestor with the base: its tree counts, its commits are kept aside.
    workspace, _, git = await bench.workspace(new="x")
    git.call("checkout", "-q", "--orphan", "fresh")
    git.call("add", "-A")
    git.call("commit", "-q", "-m", "history, rewritten")
    foreign = git.rev_parse("HEAD")
    snapshot = await bench.keep(workspace)
    saved(bench, snapshot, workspace)
    assert snapshot.files == ("new",)
    assert foreign in bench.repository.git.refs("refs/shopfloor/").values()
    assert any("descend" in note for note in snapshot.notes)


async def a_merge_under_way_does_not_matter(bench: Bench) -> None:
    workspace, root, git = await bench.workspace()
    for branch, text in (("one", "1\n"), ("two", "2\n")):
        git.call("checkout", "-q", "-b", branch, workspace.commit)
        write(root, {"README.md": text})
        git.call("commit", "-q", "-a", "-m", branch)
    assert git.call("merge", "-q", "one", ok=(0, 1)).code == 1
    snapshot = await bench.keep(workspace)
    saved(bench, snapshot, workspace)
    assert b"<<<<<<<" in bench.repository.show(snapshot.commit, "README.md")
    assert any("conflict" in note for note in snapshot.notes)
    await bench.pool.release(workspace)
    assert (await bench.pool.acquire(bench.claim())).path


async def odd_names_survive(bench: Bench) -> None:
    workspace, root, _ = await bench.workspace()
    names = ["new\nline", 'quo"te', "-dash", " space ", "tab\t", "*", "ä", "nul\\0", "last."]
    for name in names:
        (root / name).write_text(name)
    (root / os.fsdecode(b"not-utf8-\xff")).write_text("bytes")
    (root / "loop").symlink_to("loop")
    snapshot = await bench.keep(workspace)
    saved(bench, snapshot, workspace)
    assert snapshot.complete
    assert bench.repository.paths(snapshot.commit) >= {*names, os.fsdecode(b"not-utf8-\xff"), "loop"}
    for path in snapshot.files:
        path.encode()


async def ignored_files_are_named(bench: Bench) -> None:
    workspace, _, _ = await bench.workspace(**{"out.log": "x", "build/thing": "x"})
    snapshot = await bench.keep(workspace)
    assert not snapshot.files
    assert any("out.log" in note and "build/" in note for note in snapshot.notes)


async def hidden_changes_are_found(bench: Bench) -> None:
    workspace, root, git = await bench.workspace()
    git.call("update-index", "--assume-unchanged", "README.md")
    git.call("update-index", "--skip-worktree", "src/main.py")
    write(root, {"README.md": "changed", "src/main.py": "changed"})
    snapshot = await bench.keep(workspace)
    saved(bench, snapshot, workspace)
    assert set(snapshot.files) == {"README.md", "src/main.py"}


async def pipes_and_sockets_do_no_harm(bench: Bench) -> None:
    workspace, root, _ = await bench.workspace(new="x")
    os.mkfifo(root / "pipe")
    (root / "README.md").unlink()
    os.mkfifo(root / "README.md")
    with socket.socket(socket.AF_UNIX) as listening:
        folder = os.open(root, os.O_RDONLY)
        try:
            listening.bind(f"/proc/self/fd/{folder}/socket" if Path("/proc/self/fd").exists() else str(root / "socket"))
        finally:
            os.close(folder)
        snapshot = await bench.keep(workspace)
    saved(bench, snapshot, workspace)
    assert set(snapshot.files) == {"new", "README.md"}
    assert any("pipe" in note for note in snapshot.notes)
    await bench.pool.release(workspace)
    root = Path((await bench.pool.acquire(bench.claim())).path)
    assert not any(stat.S_ISFIFO(p.lstat().st_mode) or stat.S_ISSOCK(p.lstat().st_mode) for p in root.rglob("*"))


async def a_repository_inside_is_kept_aside(bench: Bench) -> None:
    workspace, root, _ = await bench.workspace(**{"new": "x", "inner/code.py": "1\n"})
    inner = Git(root / "inner", base_env=bench.repository.env)
    inner.call("init", "-q")
    inner.call("add", "-A")
    inner.call("commit", "-q", "-m", "inner")
    write(root, {"inner/dirty.txt": "not committed"})
    snapshot = await bench.keep(workspace)
    saved(bench, snapshot, workspace)
    assert snapshot.files == ("new",)
    kept = bench.repository.git.refs("refs/shopfloor/nested/")
    assert inner.rev_parse("HEAD") in kept.values()
    assert any(b"not committed" == _content(bench, oid, "dirty.txt") for oid in kept.values())
    assert any("inner" in note for note in snapshot.notes)


def _content(bench: Bench, commit: str, path: str) -> bytes:
    return bench.repository.git.call("show", f"{commit}:{path}", ok=(0, 128)).stdout


async def a_repository_inside_that_was_committed_is_taken_out(bench: Bench) -> None:
    workspace, root, git = await bench.workspace(**{"inner/code.py": "1\n", "new": "x"})
    inner = Git(root / "inner", base_env=bench.repository.env)
    inner.call("init", "-q")
    inner.call("add", "-A")
    inner.call("commit", "-q", "-m", "inner")
    git.call("add", "-A")
    git.call("commit", "-q", "-m", "with a link to a commit nobody has")
    snapshot = await bench.keep(workspace)
    saved(bench, snapshot, workspace)
    assert snapshot.files == ("new",)


async def its_own_repository_in_the_root_is_kept_aside(bench: Bench) -> None:
    # "rm -rf .git && git init": what the agent commits then lands in a repository of its own.
    workspace, root, git = await bench.workspace(new="x")
    (root / ".git").unlink()
    git.call("init", "-q")
    git.call("add", "-A")
    git.call("commit", "-q", "-m", "a fresh start")
    mine = git.rev_parse("HEAD")
    snapshot = await bench.keep(workspace)
    saved(bench, snapshot, workspace)
    assert snapshot.files == ("new",)
    assert mine in bench.repository.git.refs("refs/shopfloor/nested/").values()
    await bench.pool.release(workspace)
    await it_is_a_clean_checkout_of_the_commit(bench)


async def a_removed_git_folder_does_not_matter(bench: Bench) -> None:
    workspace, root, _ = await bench.workspace(new="x")
    (root / ".git").unlink()
    snapshot = await bench.keep(workspace)
    saved(bench, snapshot, workspace)
    assert snapshot.files == ("new",)
    await bench.pool.release(workspace)
    await it_is_a_clean_checkout_of_the_commit(bench)


async def changes_are_told_while_it_works(bench: Bench) -> None:
    workspace, root, git = await bench.workspace(committed="x")
    git.call("add", "-A")
    git.call("commit", "-q", "-m", "mine")
    write(root, {"README.md": "changed", "new": "x", "noise.log": "x"})
    assert set(await bench.pool.changes(workspace)) == {"committed", "README.md", "new"}


async def what_is_released_is_clean_for_the_next(bench: Bench) -> None:
    workspace, root, git = await bench.workspace(**{"new": "x", "a.log": "x", "build/x": "x", "README.md": "changed"})
    (root / "empty/folder").mkdir(parents=True)
    git.call("update-index", "--assume-unchanged", "src/main.py")
    write(root, {"src/main.py": "hidden"})
    await bench.keep(workspace)
    await bench.pool.release(workspace)
    await it_is_a_clean_checkout_of_the_commit(bench)


async def release_keeps_what_nobody_kept(bench: Bench) -> None:
    workspace, _, _ = await bench.workspace(new="x")
    await bench.pool.release(workspace)
    tip = bench.repository.git.read_ref(f"refs/heads/{workspace.branch}")
    assert bench.repository.show(tip, "new") == b"x"


async def release_is_harmless_when_repeated(bench: Bench) -> None:
    workspace, _, _ = await bench.workspace()
    await bench.pool.release(workspace)
    other = await bench.pool.acquire(bench.claim())
    await bench.pool.release(workspace)
    assert (await bench.pool.acquire(bench.claim())).path != other.path, "a stale release freed another's workspace"
    try:
        await bench.keep(workspace)
    except NotFound:
        return
    raise AssertionError("a workspace that was given back was snapshotted")


async def late_work_is_not_lost(bench: Bench) -> None:
    # A person may go on in a folder that was given back: the next user must not wipe that away.
    workspace, root, _ = await bench.workspace(new="x")
    await bench.pool.release(workspace)
    write(root, {"late": "y"})
    while (await bench.pool.acquire(bench.claim())).path != workspace.path:
        pass
    tip = bench.repository.git.read_ref(f"refs/heads/{workspace.branch}")
    assert {"new", "late"} <= bench.repository.paths(tip)


async def checks_see_nothing_of_agents(bench: Bench) -> None:
    workspace, _, _ = await bench.workspace(**{"build/leftover": "x", "node_modules/evil.js": "x"})
    await bench.pool.release(workspace)
    seen = Path((await bench.pool.acquire(bench.check())).path)
    assert not (seen / "build").exists()
    assert not (seen / "node_modules").exists()
    assert seen != Path(workspace.path)


async def checks_see_nothing_of_each_other(bench: Bench) -> None:
    first = await bench.pool.acquire(bench.check())
    write(Path(first.path), {"build/leftover": "x", "untracked": "x", "README.md": "changed"})
    await bench.pool.release(first)
    second = Path((await bench.pool.acquire(bench.check())).path)
    git = Git(second, base_env=bench.repository.env)
    assert git.text("status", "--porcelain", "--ignored") == ""


async def setup_prepares_it(bench: Bench) -> None:
    pool = bench.pool = bench.open(setup="mkdir -p node_modules && echo ready > node_modules/ok && echo made > made.txt")
    workspace = await pool.acquire(bench.claim())
    assert (Path(workspace.path) / "node_modules/ok").exists()
    write(Path(workspace.path), {"new": "x"})
    snapshot = await bench.keep(workspace)
    assert snapshot.files == ("new",), "what setup has made was taken for the agent's work"
    assert not any("node_modules" in note for note in snapshot.notes)
    check = await pool.acquire(bench.check())
    assert (Path(check.path) / "node_modules/ok").exists()


async def failing_setup_is_refused_with_its_words(bench: Bench) -> None:
    pool = bench.open(setup="echo the reason why >&2; exit 7")
    claim = bench.claim()
    try:
        await pool.acquire(claim)
    except Refused as refused:
        assert "the reason why" in refused.message
        assert "7" in refused.message
    else:
        raise AssertionError("setup failed and nobody said so")
    assert (await bench.open().acquire(claim)).branch == claim.branch, "the branch was not given back"


async def copies_come_along_and_stay_out(bench: Bench) -> None:
    write(bench.repository.root, {".env": "SECRET=1"})
    pool = bench.pool = bench.open(copies=(".env", "missing"))
    workspace, root, git = await bench.workspace(new="x")
    assert (root / ".env").read_text() == "SECRET=1"
    git.call("add", "-A")
    git.call("commit", "-q", "-m", "everything there is")
    snapshot = await pool.snapshot(workspace, message="m", trailers={})
    assert snapshot.files == ("new",)


async def caches_stay_while_their_key_does(bench: Bench) -> None:
    caches = (Cache(path="node_modules", key="lock"),)
    pool = bench.open(caches=caches, setup="mkdir -p node_modules; echo x >> node_modules/uses")
    first = bench.repository.commit({"lock": "1"})
    second = bench.repository.commit({"lock": "2"})
    uses = []
    for commit in (first, first, second):
        workspace = await pool.acquire(bench.check(commit))
        uses.append((Path(workspace.path) / "node_modules/uses").read_text().count("x"))
        await pool.release(workspace)
    assert uses == [1, 2, 1]


async def the_users_checkout_is_untouched(bench: Bench) -> None:
    root, git = bench.repository.root, bench.repository.git
    write(root, {"README.md": "staged\n", "untracked.txt": "mine"})
    git.call("add", "README.md")
    write(root, {"src/main.py": "not staged\n"})
    before = bench.repository.look()
    workspace, place, agent = await bench.workspace(new="x")
    agent.call("add", "-A")
    agent.call("commit", "-q", "-m", "mine")
    write(place, {"README.md": "theirs"})
    await bench.keep(workspace)
    await bench.pool.release(workspace)
    await bench.pool.acquire(bench.claim())
    await bench.pool.acquire(bench.check())
    after = bench.repository.look()
    assert after == before, {name for name in after.keys() | before.keys() if after.get(name) != before.get(name)}


async def our_folder_stays_out_of_changes(bench: Bench) -> None:
    base = bench.repository.commit({".work/events.jsonl": "{}\n"})
    workspace = await bench.pool.acquire(bench.claim(base))
    root = Path(workspace.path)
    git = Git(root, base_env=bench.repository.env)
    write(root, {".work/events.jsonl": "changed", ".work/more": "x", "new": "x"})
    git.call("add", "-A")
    git.call("commit", "-q", "-m", "everything there is")
    snapshot = await bench.keep(workspace)
    saved(bench, snapshot, workspace)
    assert snapshot.files == ("new",)


async def many_at_once(bench: Bench) -> None:
    found = await asyncio.gather(*(bench.pool.acquire(bench.claim()) for _ in range(20)))
    assert len({workspace.path for workspace in found}) == 20
    await asyncio.gather(*(bench.pool.release(workspace) for workspace in found))


async def a_cancelled_claim_is_given_back(bench: Bench) -> None:
    pool = bench.open(setup="echo started > started; exec sleep 600")
    task = asyncio.create_task(pool.acquire(bench.claim()))
    while not list((bench.repository.root / ".worktrees").glob("*/started")):
        await asyncio.sleep(0.01)
    task.cancel()
    await asyncio.wait([task])
    assert task.cancelled()
    place = next((bench.repository.root / ".worktrees").glob("*/started")).parent
    assert Path((await bench.pool.acquire(bench.claim())).path) == place


async def slots_of_the_living_are_not_recovered(bench: Bench) -> None:
    await bench.workspace(new="x")
    assert await bench.open().recover() == []


Case = Callable[[Bench], Awaitable[None]]
_HELPERS = {"saved", "write", "run_case"}
CASES: dict[str, Case] = {
    name: case
    for name, case in list(globals().items())
    if asyncio.iscoroutinefunction(case) and case.__module__ == __name__
}
"""Every case by its name, which says what must hold."""


async def run_case(name: str, subject: Subject, folder: Path) -> None:
    """Run one case in an empty folder. Raises AssertionError that says what is wrong."""
    async with Guard() as guard:
        await CASES[name](Bench(subject, guard, folder))
