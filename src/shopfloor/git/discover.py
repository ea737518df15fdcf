"""Finding the repository that a person stands in, with errors they can act on."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from pathlib import Path

import msgspec

from shopfloor import spawn
from shopfloor.domain.errors import NotFound, Refused
from shopfloor.git.repository import Git, GitError, start
from shopfloor.git.text import shown

OLDEST = (2, 38)


class Repository(msgspec.Struct, frozen=True, kw_only=True):
    """The facts of a repository; ``branch`` is empty when HEAD is detached, ``head`` when there is no commit yet."""

    root: Path
    """the main working tree, also when found from inside a linked one"""
    common_dir: Path
    version: tuple[int, ...]
    branch: str
    head: str
    under_way: str = ""
    """a merge, rebase, cherry-pick or revert that was begun and not ended"""

    def ensure_ready(self) -> None:
        """Raises Refused where a run could not start, with what to type."""
        if not self.head:
            raise Refused(f"repository {str(self.root)!r} has no commit yet", hint="git commit --allow-empty -m start")
        if self.under_way:
            hint = f"finish it, or type: git {self.under_way} --abort"
            raise Refused(f"a {self.under_way} is under way in {str(self.root)!r}", hint=hint)
        if not self.branch:
            hint = "git switch main, or git switch -c NAME to give it a name"
            text = f"HEAD of {str(self.root)!r} is detached at {self.head[:12]!r}: there is no branch to land on"
            raise Refused(text, hint=hint)
        if not self.branch.isprintable():
            hint = "git branch -m NAME gives it another name"
            raise Refused(f"branch {shown(self.branch)!r} has signs in its name that cannot be shown", hint=hint)


def folder(path: Path) -> Repository:
    """A folder as it is, whether or not there is a repository; nothing that needs one works there."""
    root = path.resolve()
    return Repository(root=root, common_dir=root / ".git", version=(), branch="", head="")


def discover(path: Path, env: Mapping[str, str], *, ready: bool = True) -> Repository:
    """The repository that ``path`` lies in. Raises NotFound when there is none, Refused where git or it cannot serve.

    With ``ready`` also Refused when it has no commit, a detached HEAD, or a merge under way.
    """
    version = _version(path, env)
    git = Git(path, base_env=env)
    try:
        answer = git.text(
            "rev-parse", "--path-format=absolute", "--is-bare-repository", "--git-common-dir", "--git-dir"
        )
    except GitError as error:
        if "dubious ownership" in error.said:
            hint = f"git config --global --add safe.directory {str(path)!r}"
            raise Refused(f"git does not trust {str(path)!r}: another user owns it", hint=hint) from error
        raise NotFound(f"not a git repository: {str(path)!r}", hint="git init, or change to a repository") from error
    facts = answer.split("\n")
    if len(facts) != len(("bare", "common", "own")):
        hint = "rename that folder, or work in a clone elsewhere"
        raise Refused(f"the folder of {str(path)!r} has a line break in its name, which git cannot tell", hint=hint)
    bare, common, own = facts
    root = _main_tree(git, Path(common), linked=common != own) if bare == "false" else None
    if root is None or not root.is_dir():
        hint = f"git clone {common!r} somewhere, and run there"
        raise Refused(f"repository {common!r} is bare: it has no working tree", hint=hint)
    main = Git(root, base_env=env)
    branch = os.fsdecode(main.call("symbolic-ref", "-q", "HEAD", ok=(0, 1)).stdout).rstrip("\n")
    found = Repository(
        root=root,
        common_dir=Path(common),
        version=version,
        branch=branch.removeprefix("refs/heads/"),
        head=main.read_ref("HEAD"),
        under_way=main.under_way(),
    )
    if ready:
        found.ensure_ready()
    return found


def _version(path: Path, env: Mapping[str, str]) -> tuple[int, ...]:
    try:
        said = start(["git", "version"], cwd=path, env=env).stdout.decode(errors="replace")
    except spawn.SpawnError as error:
        if error.reason == "cwd":
            raise NotFound(f"no folder {str(path)!r}") from error
        raise Refused("git is not installed", hint="apt install git, or brew install git") from error
    number = re.search(r"(\d+)\.(\d+)(?:\.(\d+))?", said)
    version = tuple(int(part) for part in number.groups() if part) if number else ()
    if version < OLDEST:
        wanted = ".".join(map(str, OLDEST))
        raise Refused(f"git {said.strip()!r} is too old, {wanted} is needed", hint=f"install git {wanted} or newer")
    return version


def _main_tree(git: Git, common: Path, *, linked: bool) -> Path | None:
    """The main working tree, None for a bare repository with linked worktrees."""
    if not linked and git.text("rev-parse", "--is-inside-work-tree") == "true":
        return Path(git.text("rev-parse", "--path-format=absolute", "--show-toplevel"))
    main = Git(common, base_env=git._env, git_dir=None)
    told = main.setting("core.worktree")
    if told:
        return (common / told).resolve()
    return common.parent if main.setting("core.bare") != "true" and common.name == ".git" else None
