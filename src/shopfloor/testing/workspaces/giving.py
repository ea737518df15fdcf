"""Claims and what they get: clean, prepared, their own, and given back."""

from __future__ import annotations

import asyncio
from pathlib import Path

import msgspec

from shopfloor.config.settings import Cache
from shopfloor.domain.errors import Conflict, NotFound, Refused, ShopfloorError
from shopfloor.git import Git
from shopfloor.testing.repository import appears, write
from shopfloor.testing.workspaces.bench import Bench, Case, is_clean, saved

MANY = 20


async def it_is_a_clean_checkout_of_the_commit(bench: Bench) -> None:
    await is_clean(bench)
    workspace, _, _ = await bench.workspace()
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


async def work_goes_on_where_an_earlier_attempt_left_it(bench: Bench) -> None:
    first, root, git = await bench.workspace(**{"new": "half", "README.md": "changed"})
    (root / "src/main.py").unlink()
    git.call("add", "-A")
    git.call("-c", "user.name=a", "-c", "user.email=a@b", "commit", "-qm", "half of it")
    write(root, {"dirty": "x"})
    before = await bench.keep(first)
    await bench.pool.release(first)
    claim = msgspec.structs.replace(bench.claim(), onto=before.commit)
    workspace = await bench.pool.acquire(claim)
    root = Path(workspace.path)
    git = Git(root, base_env=bench.repository.env)
    assert git.rev_parse("HEAD") == before.commit
    assert git.text("symbolic-ref", "HEAD") == f"refs/heads/{claim.branch}"
    assert git.text("status", "--porcelain") == ""
    assert (root / "new").read_text() == "half"
    assert not (root / "src/main.py").exists()
    assert (await bench.keep(workspace)).commit == before.commit, "nothing was added"
    write(root, {"new": "whole"})
    after = await bench.keep(workspace)
    saved(bench, after, workspace)
    assert after.base == bench.repository.first, "changes are told against the base"
    assert set(after.files) == set(before.files)
    await bench.pool.release(workspace)
    await is_clean(bench)


async def what_is_released_is_clean_for_the_next(bench: Bench) -> None:
    workspace, root, git = await bench.workspace(**{"new": "x", "a.log": "x", "build/x": "x", "README.md": "changed"})
    (root / "empty/folder").mkdir(parents=True)
    git.call("update-index", "--assume-unchanged", "src/main.py")
    write(root, {"src/main.py": "hidden"})
    await bench.keep(workspace)
    await bench.pool.release(workspace)
    await is_clean(bench)


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
    (Path(first.path) / "hollow/folder").mkdir(parents=True)
    await bench.pool.release(first)
    second = Path((await bench.pool.acquire(bench.check())).path)
    git = Git(second, base_env=bench.repository.env)
    assert git.text("status", "--porcelain", "--ignored") == ""
    assert not (second / "hollow").exists()


async def setup_prepares_it(bench: Bench) -> None:
    pool = bench.pool = bench.open(
        setup="mkdir -p node_modules && echo ready > node_modules/ok && echo made > made.txt"
    )
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
    said = ""
    try:
        await pool.acquire(claim)
    except Refused as refused:
        said = refused.message
    assert "the reason why" in said
    assert "exit 7" in said
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


async def many_at_once(bench: Bench) -> None:
    found = await asyncio.gather(*(bench.pool.acquire(bench.claim()) for _ in range(MANY)))
    assert len({workspace.path for workspace in found}) == MANY
    await asyncio.gather(*(bench.pool.release(workspace) for workspace in found))


async def a_cancelled_claim_is_given_back(bench: Bench) -> None:
    pool = bench.open(setup="echo started > started; exec sleep 600")
    task = asyncio.create_task(pool.acquire(bench.claim()))
    place = (await appears(bench.repository.root / ".worktrees", "*/started")).parent
    task.cancel()
    await asyncio.wait([task])
    assert task.cancelled()
    assert Path((await bench.pool.acquire(bench.claim())).path) == place


async def slots_of_the_living_are_not_recovered(bench: Bench) -> None:
    await bench.workspace(new="x")
    assert await bench.open().recover() == []


CASES: tuple[Case, ...] = (
    it_is_a_clean_checkout_of_the_commit,
    an_attempt_gets_its_branch,
    a_check_is_detached,
    two_have_different_places,
    a_branch_that_is_taken_is_a_conflict,
    an_unknown_commit_is_an_error,
    work_goes_on_where_an_earlier_attempt_left_it,
    what_is_released_is_clean_for_the_next,
    release_keeps_what_nobody_kept,
    release_is_harmless_when_repeated,
    late_work_is_not_lost,
    checks_see_nothing_of_agents,
    checks_see_nothing_of_each_other,
    setup_prepares_it,
    failing_setup_is_refused_with_its_words,
    copies_come_along_and_stay_out,
    caches_stay_while_their_key_does,
    many_at_once,
    a_cancelled_claim_is_given_back,
    slots_of_the_living_are_not_recovered,
)
