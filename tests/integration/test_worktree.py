"""What the public suite cannot ask of every kind of workspace, on real repositories."""

import asyncio
import contextlib
import os
import shutil
import subprocess
import sys
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest

from shopfloor.config.settings import Cache
from shopfloor.domain.errors import Refused
from shopfloor.git import Git
from shopfloor.ports import Claim, Workspace
from shopfloor.spawn import Guard
from shopfloor.testing.repository import Repository, write
from shopfloor.workspaces.clone import CloneWorkspaces
from shopfloor.workspaces.worktree import WorktreeWorkspaces

Kind = type[WorktreeWorkspaces] | type[CloneWorkspaces]
Pool = WorktreeWorkspaces | CloneWorkspaces
REMOVE = """
import sys
from pathlib import Path
from shopfloor.workspaces._folder import remove
remove(Path(sys.argv[1]))
"""


@pytest.fixture(params=[WorktreeWorkspaces, CloneWorkspaces], ids=["worktree", "clone"])
def kind(request: pytest.FixtureRequest) -> Kind:
    found: Kind = request.param
    return found


@pytest.fixture
def repository(tmp_path: Path) -> Repository:
    return Repository(tmp_path / "repo")


@contextlib.asynccontextmanager
async def opened(kind: Kind, repository: Repository, **options: Any) -> AsyncIterator[Pool]:
    async with Guard() as guard:
        folder = repository.root / ".worktrees"
        yield kind(repository.git, guard, folder=folder, env=repository.env, **options)


def claim(repository: Repository, number: int = 1, *, commit: str = "") -> Claim:
    return Claim(key=f"wo-{number}.a1", commit=commit or repository.first, branch=f"shopfloor/b{number}")


def agent(repository: Repository, workspace: Workspace) -> Git:
    return Git(Path(workspace.path), base_env=repository.env)


async def test_a_hundred_at_once(kind: Kind, repository: Repository) -> None:
    async with opened(kind, repository) as pool:
        found = await asyncio.gather(*(pool.acquire(claim(repository, n)) for n in range(100)))
        assert len({workspace.path for workspace in found}) == 100
        for workspace in found[::10]:
            assert agent(repository, workspace).text("status", "--porcelain") == ""


async def test_what_an_agent_wrote_as_a_merge_under_way_keeps_nothing_from_being_kept(
    kind: Kind, repository: Repository
) -> None:
    async with opened(kind, repository) as pool:
        workspace = await pool.acquire(claim(repository))
        own = Path(agent(repository, workspace).text("rev-parse", "--absolute-git-dir"))
        (own / "MERGE_HEAD").write_bytes(
            b"caf\xe9 --upload-pack=x ../../../heads/main main\n" + repository.first.encode()
        )
        write(Path(workspace.path), {"made.txt": "x"})
        found = await pool.snapshot(workspace, message="made", trailers={})
        kept = repository.git.refs("refs/shopfloor/attempts")
        assert {ref for ref in kept if "/merging/" in ref} == {
            f"refs/shopfloor/attempts/wo-1.a1/merging/{repository.first[:16]}"
        }
        assert repository.git.changed(repository.first, found.commit) == ("made.txt",)


@pytest.mark.parametrize("lease", [b"\xff", b"[" * 100_000, b'{"slot":"../../x"}', b"null"], ids=lambda raw: raw[:20])
async def test_a_damaged_lease_is_none(kind: Kind, repository: Repository, lease: bytes) -> None:
    async with opened(kind, repository) as pool:
        workspace = await pool.acquire(claim(repository))
        await pool.release(workspace)
        mark = pool.shelf.mark(Path(workspace.path).name)
        mark.write_bytes(lease)
        assert pool.shelf.all() == []
        again = await pool.acquire(claim(repository, 2))
        assert again.path != workspace.path, "nobody knows what lies in it"
        assert Path(workspace.path).is_dir()


async def test_slots_beyond_the_free_ones_are_removed(kind: Kind, repository: Repository) -> None:
    async with opened(kind, repository, keep_free=2) as pool:
        found = await asyncio.gather(*(pool.acquire(claim(repository, n)) for n in range(4)))
        await asyncio.gather(*(pool.release(workspace) for workspace in found))
        assert len([path for path in pool.shelf.folder.iterdir() if path.name.startswith("slot")]) == 2
        assert len(repository.git.worktrees()) <= 3
        assert len(await pool.drop_free()) == 2
        assert len(repository.git.worktrees()) == 1


async def test_a_slot_with_late_work_is_not_removed_before_that_is_kept(kind: Kind, repository: Repository) -> None:
    async with opened(kind, repository) as pool:
        workspace = await pool.acquire(claim(repository))
        await pool.release(workspace)
        write(Path(workspace.path), {"late.txt": "x"})
        assert pool.free_slots() == await pool.drop_free() == [Path(workspace.path)]
        assert repository.show("refs/heads/shopfloor/b1", "late.txt") == b"x"


async def test_when_all_are_in_use_it_says_so(kind: Kind, repository: Repository) -> None:
    async with opened(kind, repository, most=1) as pool:
        await pool.acquire(claim(repository, 1))
        with pytest.raises(Refused, match="in use"):
            await pool.acquire(claim(repository, 2))


async def test_what_cannot_be_kept_retires_the_slot(kind: Kind, repository: Repository) -> None:
    # git refuses this name whatever the file holds, as it would refuse a file it may not read.
    async with opened(kind, repository) as pool:
        workspace = await pool.acquire(claim(repository))
        write(Path(workspace.path), {"git~1/config": "precious", "new.txt": "x", "more.txt": "y"})
        snapshot = await pool.snapshot(workspace, message="m", trailers={})
        assert not snapshot.complete
        assert set(snapshot.files) == {"new.txt", "more.txt"}
        assert any("git~1/config" in note for note in snapshot.notes)
        await pool.release(workspace)
        assert pool.free_slots() == []
        other = await pool.acquire(claim(repository, 2))
        assert other.path != workspace.path
        assert Path(workspace.path, "git~1/config").read_text() == "precious"
        await pool.drop_free()
        assert Path(workspace.path, "git~1/config").exists()
        assert await pool.recover() == []


async def test_a_staged_version_that_differs_is_kept_too(kind: Kind, repository: Repository) -> None:
    async with opened(kind, repository) as pool:
        workspace = await pool.acquire(claim(repository))
        write(Path(workspace.path), {"new.txt": "first thought"})
        agent(repository, workspace).call("add", "new.txt")
        write(Path(workspace.path), {"new.txt": "second thought"})
        await pool.snapshot(workspace, message="m", trailers={})
        kept = repository.git.refs("refs/shopfloor/attempts/").values()
        assert b"first thought" in {repository.show(commit, "new.txt") for commit in kept}


async def test_a_huge_file(kind: Kind, repository: Repository) -> None:
    async with opened(kind, repository) as pool:
        workspace = await pool.acquire(claim(repository))
        content = os.urandom(1 << 20) * 24
        write(Path(workspace.path), {"huge.bin": content})
        snapshot = await pool.snapshot(workspace, message="m", trailers={})
        assert repository.show(snapshot.commit, "huge.bin") == content


NAMELESS = b"DIRC\0\0\0\2\0\0\0\1".ljust(96, b"\0")
"""What a loss of power can make of an index: git reads an entry without a name, and does not look at the check sum."""


@pytest.mark.parametrize(
    "damage", [b"", b"garbage", b"DIRC\0\0\0\2\0\0\0\1", NAMELESS], ids=["empty", "garbage", "short", "nameless"]
)
async def test_an_index_that_nobody_can_read(kind: Kind, repository: Repository, damage: bytes) -> None:
    async with opened(kind, repository) as pool:
        workspace = await pool.acquire(claim(repository))
        git = agent(repository, workspace)
        write(Path(workspace.path), {"new.txt": "x", "README.md": "changed"})
        Path(git.text("rev-parse", "--absolute-git-dir"), "index").write_bytes(damage)
        snapshot = await pool.snapshot(workspace, message="m", trailers={})
        assert set(snapshot.files) == {"new.txt", "README.md"}
        await pool.release(workspace)
        assert (await pool.acquire(claim(repository, 2))).path == workspace.path


async def test_an_index_that_is_read_as_nonsense_after_the_slot_was_given_back(
    kind: Kind, repository: Repository
) -> None:
    async with opened(kind, repository) as pool:
        workspace = await pool.acquire(claim(repository))
        index = Path(agent(repository, workspace).text("rev-parse", "--absolute-git-dir"), "index")
        await pool.release(workspace)
        write(Path(workspace.path), {"late.txt": "x"})
        index.write_bytes(NAMELESS)
        again = await pool.acquire(claim(repository, 2))
        assert agent(repository, again).text("status", "--porcelain") == ""
        assert again.path != workspace.path, "what nobody can read is left as it is, for somebody to look at"
        assert Path(workspace.path, "late.txt").exists()


async def test_a_sparse_agent_leaves_a_whole_checkout(kind: Kind, repository: Repository) -> None:
    async with opened(kind, repository) as pool:
        workspace = await pool.acquire(claim(repository))
        git = agent(repository, workspace)
        git.call("sparse-checkout", "set", "--no-cone", "/README.md")
        write(Path(workspace.path), {"README.md": "changed"})
        snapshot = await pool.snapshot(workspace, message="m", trailers={})
        assert snapshot.files == ("README.md",), "files that were only not checked out count as deleted"
        await pool.release(workspace)
        again = await pool.acquire(claim(repository, 2))
        assert again.path == workspace.path
        assert Path(again.path, "src/main.py").exists()
        assert agent(repository, again).text("status", "--porcelain") == ""


async def test_misleading_configuration_misleads_nobody(repository: Repository, tmp_path: Path) -> None:
    # In a linked worktree `git config` writes to the configuration that everybody shares.
    async with opened(WorktreeWorkspaces, repository) as pool:
        workspace = await pool.acquire(claim(repository))
        git = agent(repository, workspace)
        hook = tmp_path / "hooks/post-checkout"
        write(
            tmp_path,
            {"hooks/post-checkout": f"#!/bin/sh\ntouch {tmp_path}/ran\n", "monitor": "#!/bin/sh\necho token\n"},
        )
        for program in (hook, tmp_path / "monitor"):
            program.chmod(0o755)
        # It says that nothing has changed, and git believes that of every file it has once looked at.
        lying = ("-c", f"core.fsmonitor={tmp_path / 'monitor'}", "-c", "core.fsmonitorHookVersion=1")
        git.call(*lying, "update-index", "--fsmonitor")
        git.call(*lying, "update-index", "--refresh")
        for name, value in (
            ("core.hooksPath", str(tmp_path / "hooks")), ("core.fsmonitor", str(tmp_path / "monitor")),
            ("core.fsmonitorHookVersion", "1"),
            ("core.ignoreStat", "true"), ("status.showUntrackedFiles", "no"), ("core.safecrlf", "true"),
            ("core.autocrlf", "input"), ("gc.auto", "1"), ("commit.gpgSign", "true"), ("core.bare", "true"),
        ):  # fmt: skip
            git.call("config", name, value)
        write(Path(workspace.path), {"new.txt": "x\r\n", "README.md": "changed\n"})
        snapshot = await pool.snapshot(workspace, message="m", trailers={})
        assert set(snapshot.files) == {"new.txt", "README.md"}
        await pool.release(workspace)
        again = await pool.acquire(claim(repository, 2))
        assert Path(again.path, "README.md").read_text() == "# sample\n"
        assert not (tmp_path / "ran").exists()


async def test_submodules(kind: Kind, repository: Repository, tmp_path: Path) -> None:
    library = Repository(tmp_path / "library")
    allow = ("-c", "protocol.file.allow=always")
    repository.git.call(*allow, "submodule", "add", "-q", str(library.root), "lib")
    base = repository.commit({})
    setup = "git -c protocol.file.allow=always submodule update -q --init"
    async with opened(kind, repository, setup=setup) as pool:
        workspace = await pool.acquire(claim(repository, commit=base))
        inner = Path(workspace.path, "lib")
        assert (inner / "README.md").exists()
        assert (await pool.snapshot(workspace, message="m", trailers={})).files == ()
        write(inner, {"new.txt": "x"})
        git = Git(inner, base_env=repository.env)
        git.call("add", "-A")
        git.call("commit", "-q", "-m", "inside")
        inside = git.rev_parse("HEAD")
        snapshot = await pool.snapshot(workspace, message="m", trailers={})
        assert snapshot.files == ("lib",)
        assert inside in repository.git.refs("refs/shopfloor/nested").values(), "nobody has the submodule's commit"
        await pool.release(workspace)
        again = await pool.acquire(claim(repository, 2, commit=base))
        assert Path(again.path, "lib/README.md").exists()
        assert not Path(again.path, "lib/new.txt").exists()


async def test_a_shallow_repository_inside_is_kept_as_files(kind: Kind, repository: Repository, tmp_path: Path) -> None:
    # It cannot be fetched without making ours shallow too.
    upstream = Repository(tmp_path / "upstream")
    upstream.commit({"more.txt": "x"})
    async with opened(kind, repository) as pool:
        workspace = await pool.acquire(claim(repository))
        url = f"file://{upstream.root}"
        agent(repository, workspace).call("clone", "-q", "--depth=1", url, str(Path(workspace.path, "inner")))
        write(Path(workspace.path), {"inner/mine.txt": "mine"})
        snapshot = await pool.snapshot(workspace, message="m", trailers={})
        assert snapshot.complete, snapshot.notes
        kept = repository.git.refs("refs/shopfloor/nested")
        assert b"mine" in {repository.git.call("show", f"{oid}:mine.txt", ok=(0, 128)).stdout for oid in kept.values()}
        assert any(name.endswith("/folder") for name in kept)
        assert not (repository.git.common_dir / "shallow").exists()


async def test_a_worktree_that_the_agent_added_inside(repository: Repository) -> None:
    async with opened(WorktreeWorkspaces, repository) as pool:
        workspace = await pool.acquire(claim(repository))
        git = agent(repository, workspace)
        inner = Path(workspace.path, "inner")
        git.call("worktree", "add", "-q", "--detach", str(inner))
        write(inner, {"new.txt": "x"})
        own = Git(inner, base_env=repository.env)
        own.call("add", "-A")
        own.call("commit", "-q", "-m", "on no branch")
        lost = own.rev_parse("HEAD")
        snapshot = await pool.snapshot(workspace, message="m", trailers={})
        assert snapshot.files == ()
        kept = repository.git.refs("refs/shopfloor/nested")
        assert lost in kept.values()
        assert not [name for name in kept if "refs/heads/main" in name], "all refs of the repository were copied"


async def test_a_git_folder_that_was_removed_is_made_again(repository: Repository) -> None:
    async with opened(WorktreeWorkspaces, repository) as pool:
        workspace = await pool.acquire(claim(repository))
        git = agent(repository, workspace)
        write(Path(workspace.path), {"new.txt": "x"})
        git.call("add", "-A")
        git.call("commit", "-q", "-m", "mine")
        write(Path(workspace.path), {"later.txt": "x"})
        shutil.rmtree(repository.git.common_dir / "worktrees")
        snapshot = await pool.snapshot(workspace, message="m", trailers={})
        assert set(snapshot.files) == {"new.txt", "later.txt"}
        await pool.release(workspace)
        assert (await pool.acquire(claim(repository, 2))).path == workspace.path


async def test_a_workspace_that_became_a_link_leads_nowhere(kind: Kind, repository: Repository, tmp_path: Path) -> None:
    precious = tmp_path / "precious"
    write(precious, {"file.txt": "x"})
    async with opened(kind, repository) as pool:
        workspace = await pool.acquire(claim(repository))
        await pool.release(workspace)
        shutil.rmtree(workspace.path)
        Path(workspace.path).symlink_to(precious)
        for number in range(2, 5):
            await pool.acquire(claim(repository, number))
        assert (precious / "file.txt").exists()
        assert [path.name for path in precious.iterdir()] == ["file.txt"]


async def test_an_agent_that_replaced_its_folder_by_a_link(kind: Kind, repository: Repository, tmp_path: Path) -> None:
    precious = tmp_path / "precious"
    write(precious, {"file.txt": "x"})
    async with opened(kind, repository) as pool:
        workspace = await pool.acquire(claim(repository))
        Path(workspace.path).rename(tmp_path / "moved away")
        Path(workspace.path).symlink_to(precious)
        snapshot = await pool.snapshot(workspace, message="m", trailers={})
        assert snapshot.files == ()
        assert any("gone" in note for note in snapshot.notes)
        await pool.release(workspace)
        await pool.acquire(claim(repository, 2))
        assert [path.name for path in precious.iterdir()] == ["file.txt"]


async def test_an_agent_in_a_clone_cannot_move_our_refs(repository: Repository) -> None:
    async with opened(CloneWorkspaces, repository) as pool:
        workspace = await pool.acquire(claim(repository))
        git = agent(repository, workspace)
        write(Path(workspace.path), {"new.txt": "x"})
        git.call("add", "-A")
        git.call("commit", "-q", "-m", "mine")
        git.call("update-ref", "refs/heads/main", "HEAD")
        git.call("tag", "mine")
        git.call("config", "core.hooksPath", "elsewhere")
        mine = git.rev_parse("HEAD")
        assert repository.git.rev_parse("main") == repository.first
        assert repository.git.call("cat-file", "-e", mine, ok=(0, 1, 128)).code, "it wrote into our objects"
        snapshot = await pool.snapshot(workspace, message="m", trailers={})
        assert snapshot.commit == mine
        assert repository.git.rev_parse("main") == repository.first
        assert repository.git.read_ref("refs/tags/mine") == ""
        assert repository.git.refs("refs/shopfloor/attempts/wo-1.a1/refs/tags")
        assert repository.git.setting("core.hooksPath") == ""
        await pool.release(workspace)
        again = agent(repository, await pool.acquire(claim(repository, 2)))
        assert set(again.refs()) == {"refs/heads/shopfloor/b2"}
        assert again.setting("core.hooksPath") == ""


async def test_a_cache_that_the_agent_filled_for_another_key_goes(kind: Kind, repository: Repository) -> None:
    base = repository.commit({"lock": "1"})
    async with opened(kind, repository, caches=(Cache(path="node_modules", key="lock"),)) as pool:
        workspace = await pool.acquire(claim(repository, 1, commit=base))
        write(Path(workspace.path), {"lock": "2", "node_modules/two": "x"})
        await pool.release(workspace)
        again = await pool.acquire(claim(repository, 2, commit=base))
        assert again.path == workspace.path
        assert not Path(again.path, "node_modules").exists()


async def test_a_cache_below_an_ignored_folder_stays_alone(kind: Kind, repository: Repository) -> None:
    async with opened(kind, repository, caches=(Cache(path="build/cache"),)) as pool:
        workspace = await pool.acquire(claim(repository))
        write(Path(workspace.path), {"build/cache/kept": "x", "build/out": "x"})
        await pool.release(workspace)
        again = await pool.acquire(claim(repository, 2))
        assert sorted(path.name for path in Path(again.path, "build").rglob("*")) == ["cache", "kept"]


async def test_write_protected_leftovers_are_removed(kind: Kind, repository: Repository) -> None:
    async with opened(kind, repository) as pool:
        workspace = await pool.acquire(claim(repository))
        write(Path(workspace.path), {"build/sealed/file": "x"})
        Path(workspace.path, "build/sealed").chmod(0o500)
        Path(workspace.path, "build").chmod(0o500)
        await pool.release(workspace)
        again = await pool.acquire(claim(repository, 2))
        assert not Path(again.path, "build").exists()


def test_folders_that_nobody_may_enter_are_removed(tmp_path: Path, need: Callable[[str, str], str]) -> None:
    folder = tmp_path / "slot"
    write(folder, {"listed/inner/file": "x", "closed/file": "x"})
    (folder / "listed").chmod(0o400)
    (folder / "closed").chmod(0)
    words = [sys.executable, "-c", REMOVE, str(folder)]
    if os.geteuid() == 0:  # who may enter everything
        words = [need("setpriv", "apt install util-linux"), "--bounding-set=-dac_override,-dac_read_search", *words]
    subprocess.run(words, timeout=30, check=True)
    assert not folder.exists()


async def test_a_copy_never_leaves_the_checkout(kind: Kind, repository: Repository, tmp_path: Path) -> None:
    # The commit says that config/ is a link to a folder elsewhere.
    (repository.root / "config").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "elsewhere").mkdir()
    base = repository.commit({})
    (repository.root / "config").unlink()
    write(repository.root, {"config/.env": "SECRET=1"})
    async with opened(kind, repository, copies=("config/.env",)) as pool:
        await pool.acquire(claim(repository, commit=base))
        assert list((tmp_path / "elsewhere").iterdir()) == []


async def test_no_slot_is_left_when_nothing_can_be_made(kind: Kind, repository: Repository) -> None:
    async with opened(kind, repository) as pool:
        with contextlib.suppress(Refused):
            await pool.acquire(claim(repository, 1))
        for _ in range(3):
            with pytest.raises(Exception, match="f" * 40):
                await pool.acquire(claim(repository, 2, commit="f" * 40))
        assert len(pool.shelf.all()) <= 2
        assert all(lease.state != "filling" for lease in pool.shelf.all())
