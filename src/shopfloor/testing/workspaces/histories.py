"""What an agent does with git in its workspace, and that none of it is lost."""

from __future__ import annotations

from pathlib import Path

from shopfloor.git import Git
from shopfloor.testing.repository import write
from shopfloor.testing.workspaces.bench import Bench, Case, is_clean, saved


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


async def a_rebase_under_way_does_not_matter(bench: Bench) -> None:
    workspace, root, git = await bench.workspace()
    for branch, text in (("one", "1\n"), ("two", "2\n")):
        git.call("checkout", "-q", "-b", branch, workspace.commit)
        write(root, {"README.md": text})
        git.call("commit", "-q", "-a", "-m", branch)
    assert git.call("rebase", "-q", "one", ok=(0, 1)).code == 1
    (Path(git.text("rev-parse", "--absolute-git-dir")) / "index.lock").touch()  # as a killed git leaves it
    snapshot = await bench.keep(workspace)
    saved(bench, snapshot, workspace)
    assert b"<<<<<<<" in bench.repository.show(snapshot.commit, "README.md")
    await bench.pool.release(workspace)
    _, same, again = await bench.workspace()
    assert same == root, "what it left made the slot unusable"
    assert again.under_way() == ""
    again.call("add", "-A")


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
    assert b"not committed" in {_content(bench, oid, "dirty.txt") for oid in kept.values()}
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
    await is_clean(bench)


async def a_removed_git_folder_does_not_matter(bench: Bench) -> None:
    workspace, root, _ = await bench.workspace(new="x")
    (root / ".git").unlink()
    snapshot = await bench.keep(workspace)
    saved(bench, snapshot, workspace)
    assert snapshot.files == ("new",)
    await bench.pool.release(workspace)
    await is_clean(bench)


CASES: tuple[Case, ...] = (
    the_agents_commits_stay_as_they_are,
    what_was_not_committed_comes_on_top,
    another_branch_makes_no_difference,
    a_detached_head_makes_no_difference,
    commits_that_were_left_stay_reachable,
    rewritten_history_is_kept_and_based_again,
    a_merge_under_way_does_not_matter,
    a_rebase_under_way_does_not_matter,
    a_repository_inside_is_kept_aside,
    a_repository_inside_that_was_committed_is_taken_out,
    its_own_repository_in_the_root_is_kept_aside,
    a_removed_git_folder_does_not_matter,
)
