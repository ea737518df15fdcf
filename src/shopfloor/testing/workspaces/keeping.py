"""What an agent leaves in its files, and what a snapshot makes of it."""

from __future__ import annotations

import contextlib
import os
import socket
import stat
from pathlib import Path

from shopfloor.git import Git
from shopfloor.testing.repository import write
from shopfloor.testing.workspaces.bench import Bench, Case, saved


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


def _bind(listening: socket.socket, path: Path) -> None:
    # A socket's path must be short, a temporary folder's seldom is.
    with contextlib.chdir(path.parent):
        listening.bind(path.name)


async def a_second_snapshot_changes_nothing(bench: Bench) -> None:
    workspace, root, _ = await bench.workspace(new="x")
    first = await bench.keep(workspace)
    assert (await bench.keep(workspace)).commit == first.commit
    write(root, {"new": "y"})
    last = await bench.keep(workspace)
    saved(bench, last, workspace)
    assert bench.repository.git.is_ancestor(first.commit, last.commit)


async def changes_are_told_while_it_works(bench: Bench) -> None:
    workspace, root, git = await bench.workspace(committed="x")
    git.call("add", "-A")
    git.call("commit", "-q", "-m", "mine")
    write(root, {"README.md": "changed", "new": "x", "noise.log": "x"})
    assert set(await bench.pool.changes(workspace)) == {"committed", "README.md", "new"}


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
        _bind(listening, root / "socket")
        snapshot = await bench.keep(workspace)
    saved(bench, snapshot, workspace)
    assert set(snapshot.files) == {"new", "README.md"}
    assert any("pipe" in note for note in snapshot.notes)
    await bench.pool.release(workspace)
    root = Path((await bench.pool.acquire(bench.claim())).path)
    assert not any(stat.S_ISFIFO(p.lstat().st_mode) or stat.S_ISSOCK(p.lstat().st_mode) for p in root.rglob("*"))


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


CASES: tuple[Case, ...] = (
    nothing_done_is_the_base,
    uncommitted_work_is_kept,
    it_says_who_did_it,
    a_second_snapshot_changes_nothing,
    changes_are_told_while_it_works,
    odd_names_survive,
    ignored_files_are_named,
    hidden_changes_are_found,
    pipes_and_sockets_do_no_harm,
    the_users_checkout_is_untouched,
    our_folder_stays_out_of_changes,
)
