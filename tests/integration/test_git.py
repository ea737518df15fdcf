"""The one door to git, on real repositories."""

import errno
import os
import signal
from pathlib import Path

import pytest

from campaigns.chaos.dying_git import When, dying_git, struck
from shopfloor.domain.errors import Conflict, NotFound, Refused
from shopfloor.git import Git, GitError, RefMoved, discover, shown, with_trailers
from shopfloor.git.disk import unwritable
from shopfloor.testing.repository import Repository, write


@pytest.fixture
def repository(tmp_path: Path) -> Repository:
    return Repository(tmp_path / "repo")


# -- discover -------------------------------------------------------------------------------------------------------


def test_discover_from_a_subfolder(repository: Repository) -> None:
    found = discover(repository.root / "src/deep", repository.env)
    assert found.root == repository.root
    assert (found.branch, found.head, found.under_way) == ("main", repository.first, "")
    assert found.common_dir == repository.root / ".git"
    assert found.version >= (2, 38)


def test_discover_of_a_branch_whose_name_is_no_text(repository: Repository) -> None:
    for name in ("refs/heads/caf\udce9", "refs/heads/a\u2028b", "refs/heads/main\xa0"):
        repository.git.call("update-ref", name, repository.first)
        repository.git.call("symbolic-ref", "HEAD", name)
        assert discover(repository.root, repository.env, ready=False).branch == name.removeprefix("refs/heads/")
        with pytest.raises(Refused, match="signs in its name") as caught:
            discover(repository.root, repository.env)
        assert "git branch -m" in caught.value.hint
        assert repository.git.refs("refs/heads")[name] == repository.first


@pytest.mark.parametrize("below", ["", "src"])
def test_discover_finds_the_main_tree_from_a_linked_one(repository: Repository, below: str) -> None:
    place = repository.root.with_name("linked")
    repository.git.call("worktree", "add", "-q", str(place), "-b", "other")
    found = discover(place / below, repository.env)
    assert (found.root, found.branch) == (repository.root, "main")


def test_discover_is_not_led_by_the_environment(repository: Repository, tmp_path: Path) -> None:
    # As when it is started by a hook of another repository.
    other = Repository(tmp_path / "other")
    env = {**repository.env, "GIT_DIR": str(other.root / ".git"), "GIT_WORK_TREE": str(other.root)}
    assert discover(repository.root, env).root == repository.root


def test_discover_with_a_git_folder_elsewhere(repository: Repository, tmp_path: Path) -> None:
    repository.git.call("init", "-q", f"--separate-git-dir={tmp_path / 'elsewhere'}")
    repository.git.call("worktree", "add", "-q", str(tmp_path / "linked"), "-b", "other")
    assert discover(repository.root / "src", repository.env).root == repository.root


def test_discover_in_a_submodule(repository: Repository, tmp_path: Path) -> None:
    library = Repository(tmp_path / "library")
    repository.git.call("-c", "protocol.file.allow=always", "submodule", "add", "-q", str(library.root), "lib")
    assert discover(repository.root / "lib" / "src", repository.env).root == repository.root / "lib"


def test_no_repository(tmp_path: Path, repository: Repository) -> None:
    with pytest.raises(NotFound, match="not a git repository") as caught:
        discover(tmp_path, repository.env)
    assert "git init" in caught.value.hint


def test_no_folder(tmp_path: Path, repository: Repository) -> None:
    with pytest.raises(NotFound, match="missing"):
        discover(tmp_path / "missing", repository.env)


def test_no_commit_yet(tmp_path: Path, repository: Repository) -> None:
    repository.git.call("init", "-q", str(tmp_path / "fresh"))
    with pytest.raises(Refused, match="no commit") as caught:
        discover(tmp_path / "fresh", repository.env)
    assert "git commit" in caught.value.hint
    assert discover(tmp_path / "fresh", repository.env, ready=False).head == ""


def test_a_detached_head(repository: Repository) -> None:
    repository.git.call("checkout", "-q", "--detach")
    with pytest.raises(Refused, match="detached") as caught:
        discover(repository.root, repository.env)
    assert "git switch" in caught.value.hint


@pytest.mark.parametrize("linked", [False, True])
def test_a_bare_repository(repository: Repository, tmp_path: Path, linked: bool) -> None:
    bare = tmp_path / "bare.git"
    repository.git.call("clone", "-q", "--bare", str(repository.root), str(bare))
    place = bare
    if linked:
        place = tmp_path / "linked"
        Git(bare, base_env=repository.env).call("worktree", "add", "-q", str(place), "-b", "other")
    with pytest.raises(Refused, match="bare"):
        discover(place, repository.env)


@pytest.mark.parametrize("what", ["merge", "rebase", "cherry-pick", "revert"])
def test_something_under_way(repository: Repository, what: str) -> None:
    git = repository.git
    git.call("checkout", "-q", "-b", "other")
    repository.commit({"README.md": "theirs"})
    git.call("checkout", "-q", "main")
    repository.commit({"README.md": "ours"})
    repository.commit({"README.md": "ours again"})
    args = {"revert": ["--no-edit", "HEAD~1"]}.get(what, ["other"])
    assert git.call(what, *args, ok=(0, 1)).code == 1
    with pytest.raises(Refused, match=what) as caught:
        discover(repository.root, repository.env)
    assert f"git {what} --abort" in caught.value.hint


def fake_git(tmp_path: Path, says: str) -> dict[str, str]:
    write(tmp_path, {"bin/git": f"#!/bin/sh\necho '{says}'\n"})
    (tmp_path / "bin/git").chmod(0o755)
    return {"PATH": f"{tmp_path / 'bin'}:/bin:/usr/bin", "HOME": str(tmp_path)}


def test_git_is_missing(tmp_path: Path) -> None:
    with pytest.raises(Refused, match="not installed") as caught:
        discover(tmp_path, {"PATH": str(tmp_path), "HOME": str(tmp_path)})
    assert "install git" in caught.value.hint


def test_git_is_too_old(tmp_path: Path) -> None:
    with pytest.raises(Refused, match=r"2\.30\.1.*2\.38"):
        discover(tmp_path, fake_git(tmp_path, "git version 2.30.1"))


# -- environment ----------------------------------------------------------------------------------------------------


def test_a_machine_with_an_empty_home_can_commit(repository: Repository) -> None:
    made = repository.git.commit_tree(repository.git.tree_of("HEAD"), [], "m")
    assert repository.git.text("show", "-s", "--format=%an %cn", made) == "Shopfloor Shopfloor"


def test_variables_of_git_are_not_handed_on(repository: Repository, tmp_path: Path) -> None:
    env = {**repository.env, "GIT_DIR": str(tmp_path), "GIT_INDEX_FILE": str(tmp_path / "x"), "GIT_AUTHOR_NAME": "Eve"}
    git = Git(repository.root, base_env=env)
    assert git.read_ref("HEAD") == repository.first
    assert git.text("var", "GIT_AUTHOR_IDENT").startswith("Shopfloor ")


def test_signing_that_cannot_work_is_left_out(repository: Repository) -> None:
    repository.git.call("config", "commit.gpgSign", "true")
    repository.git.call("config", "user.signingKey", "nobody")
    assert repository.git.commit_tree(repository.git.tree_of("HEAD"), [], "m")
    assert repository.git.setting("commit.gpgSign") == "true"


def test_hooks_are_named_for_the_doctor(repository: Repository) -> None:
    hooks = repository.root / ".git/hooks"
    write(hooks, {"pre-commit": "#!/bin/sh\nexit 1\n", "pre-push.sample": "x", "post-merge": "not executable"})
    (hooks / "pre-commit").chmod(0o755)
    assert repository.git.hooks() == ("pre-commit",)


# -- reading and writing --------------------------------------------------------------------------------------------


def test_merge_tree(repository: Repository) -> None:
    one = repository.commit_on(repository.first, {"one": "1"})
    two = repository.commit_on(repository.first, {"two": "2"})
    merge = repository.git.merge_tree(one, two)
    assert not merge.conflicts
    assert {"one", "two"} <= set(repository.git.names("ls-tree", "-z", "--name-only", merge.tree))


def test_merge_tree_names_conflicts_once(repository: Repository) -> None:
    odd = 'od"d\nname'
    one = repository.commit_on(repository.first, {"README.md": "1", odd: "1"})
    two = repository.commit_on(repository.first, {"README.md": "2", odd: "2"})
    merge = repository.git.merge_tree(one, two)
    assert set(merge.conflicts) == {"README.md", odd}
    assert merge.tree == ""
    assert "CONFLICT" in merge.said


def test_merge_tree_of_strangers_is_an_error(repository: Repository) -> None:
    stranger = repository.git.commit_tree(repository.git.tree_of("HEAD"), [], "m")
    with pytest.raises(GitError, match="unrelated"):
        repository.git.merge_tree(repository.first, stranger)


@pytest.mark.parametrize(
    ("code", "said", "number"),
    [
        (128, b"fatal: unable to write loose object file: No space left on device", errno.ENOSPC),
        (128, b"error: unable to create temporary file: Read-only file system\nfatal: failure to merge", errno.EROFS),
        (128, b"fatal: write error: Disk quota exceeded\n", errno.EDQUOT),
        (-signal.SIGXFSZ, b"", errno.EFBIG),
        (128, b"fatal: 'No space left on device' has nothing in common with it", None),
        (-signal.SIGKILL, b"", None),
    ],
)
def test_what_keeps_git_from_writing_is_told_from_what_it_cannot_do(
    code: int, said: bytes, number: int | None, tmp_path: Path
) -> None:
    found = unwritable(code, said, tmp_path)
    assert (found.errno if found else None) == number


def test_a_git_that_fails_on_a_healthy_disk_does_not_blame_it(repository: Repository) -> None:
    with pytest.raises(GitError) as caught:
        repository.git.call("update-ref", "refs/heads/x", "nonsense")
    assert caught.value.disk is None


def test_update_ref_compares(repository: Repository) -> None:
    git, ref = repository.git, "refs/shopfloor/target/main"
    later = repository.commit_on(repository.first, {"x": "x"})
    git.update_ref(ref, repository.first, old="")
    with pytest.raises(RefMoved) as caught:
        git.update_ref(ref, later, old="")
    assert (caught.value.observed, caught.value.expected) == (repository.first, "")
    assert isinstance(caught.value, Conflict)
    with pytest.raises(RefMoved) as caught:
        git.update_ref(ref, later, old=later)
    assert caught.value.observed == repository.first
    git.update_ref(ref, later, old=repository.first)
    assert git.read_ref(ref) == later


def test_update_refs_is_all_or_nothing(repository: Repository) -> None:
    git = repository.git
    with pytest.raises(RefMoved):
        git.update_refs({"refs/shopfloor/a": (repository.first, ""), "refs/heads/main": (repository.first, "")})
    assert git.read_ref("refs/shopfloor/a") == ""
    git.update_refs({"refs/shopfloor/a": (repository.first, "")})
    git.update_refs({"refs/shopfloor/a": ("", repository.first)})
    assert git.read_ref("refs/shopfloor/a") == ""


OURS = "refs/shopfloor/target/main"


@pytest.mark.parametrize("when", ["before", "locked"])
def test_a_git_that_was_killed_does_not_keep_our_refs_locked(
    when: When, repository: Repository, tmp_path: Path
) -> None:
    first = dying_git(tmp_path / "dying", verb="update-ref", when=when)
    git = Git(repository.root, base_env={**repository.env, "PATH": f"{first}:{repository.env['PATH']}"})
    git.update_refs({OURS: (repository.first, ""), "refs/heads/shopfloor/one-1": (repository.first, "")})
    assert struck(tmp_path / "dying")
    assert git.refs("refs/shopfloor") == {OURS: repository.first}


def test_a_git_that_was_killed_after_its_work_is_told_by_where_the_ref_stands(
    repository: Repository, tmp_path: Path
) -> None:
    first = dying_git(tmp_path / "dying", verb="update-ref", when="after")
    git = Git(repository.root, base_env={**repository.env, "PATH": f"{first}:{repository.env['PATH']}"})
    with pytest.raises(RefMoved) as caught:
        git.update_ref(OURS, repository.first, old="")
    assert caught.value.observed == repository.first


@pytest.mark.parametrize("verb", ["merge-tree", "commit-tree"])
def test_a_git_that_was_killed_while_it_moved_nothing_is_asked_again(
    verb: str, repository: Repository, tmp_path: Path
) -> None:
    other = repository.commit_on(repository.first, {"other.txt": "other"})
    first = dying_git(tmp_path / "dying", verb=verb, when="before")
    git = Git(repository.root, base_env={**repository.env, "PATH": f"{first}:{repository.env['PATH']}"})
    merge = git.merge_tree(repository.first, other)
    made = git.commit_tree(merge.tree, [repository.first, other], "merge")
    assert struck(tmp_path / "dying")
    assert repository.paths(made) >= {"other.txt", "README.md"}


def test_a_commit_that_is_not_there(repository: Repository) -> None:
    for name in ("nonsense", "f" * 40, "--help", "HEAD^9"):
        with pytest.raises(NotFound):
            repository.git.rev_parse(name)


def test_changed_names_every_path_as_it_is(repository: Repository) -> None:
    names = {"new\nline", "-dash", "ä", os.fsdecode(b"\xff")}
    later = repository.commit(dict.fromkeys(names, "x"))
    assert set(repository.git.changed(repository.first, later)) == names
    assert shown(os.fsdecode(b"a\xff")) == "a\\xff"


def test_modified_ignores_what_is_ours(repository: Repository) -> None:
    repository.commit({".work/log": "1", ".worktrees/x": "1"})
    write(repository.root, {".work/log": "2", ".worktrees/x": "2", "untracked": "x"})
    assert repository.git.modified() == []
    write(repository.root, {"README.md": "changed"})
    assert repository.git.modified() == ["README.md"]
    repository.git.call("add", "README.md")
    assert repository.git.modified() == ["README.md"]


def test_looking_does_not_write_the_index(repository: Repository) -> None:
    index = repository.root / ".git/index"
    os.utime(repository.root / "README.md", (1, 1))  # git would like to remember that it looked
    before = index.read_bytes()
    repository.git.modified()
    assert index.read_bytes() == before


def test_exclude_adds_a_line_once(repository: Repository) -> None:
    path = repository.root / ".git/info/exclude"
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(b"mine\xff")
    for _ in range(2):
        repository.git.exclude(["/.work/", "/.worktrees/"])
    assert path.read_bytes() == b"mine\xff\n/.work/\n/.worktrees/\n"


def test_pruning_leaves_a_persons_worktree(repository: Repository, tmp_path: Path) -> None:
    # Its folder may lie on a disk that is not plugged in.
    git = repository.git
    git.call("worktree", "add", "-q", str(tmp_path / "theirs"), "-b", "other")
    git.worktree_add(tmp_path / "ours", repository.first)
    for name in ("theirs", "ours"):
        (tmp_path / name).rename(tmp_path / f"{name}-away")
    git.worktree_prune()
    assert [tree.path.name for tree in git.worktrees()] == ["repo", "theirs"]


def test_trailers() -> None:
    assert with_trailers("Subject", {"A": "1"}) == "Subject\n\nA: 1\n"
    assert with_trailers("Subject\n\nSigned-off-by: Ada", {"A": "1"}) == "Subject\n\nSigned-off-by: Ada\nA: 1\n"
    assert with_trailers("Fix: all", {"A": "1\n2\0"}) == "Fix: all\n\nA: 1 2\n"
    assert with_trailers("", {}) == "change\n"
