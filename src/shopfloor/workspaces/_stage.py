"""What a checkout holds that its HEAD does not, and putting that into an index beside the real one."""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

import msgspec

from shopfloor.git import Git, split

GITLINK = "160000"


class Change(msgspec.Struct, frozen=True):
    """A tracked path: ``staged`` and ``unstaged`` are the letters of ``git status``, ``.`` for none."""

    path: str
    staged: str
    unstaged: str
    submodule: bool = False

    @property
    def unmerged(self) -> bool:
        return self.staged == "u"


class State(msgspec.Struct, kw_only=True):
    """One look at a checkout."""

    head: str = ""
    """empty: HEAD has no commit"""
    changes: list[Change] = msgspec.field(default_factory=list)
    untracked: list[str] = msgspec.field(default_factory=list)
    """files; a nested repository ends in a slash"""
    ignored: list[str] = msgspec.field(default_factory=list)


def look(git: Git, index: Path | None = None) -> State:
    """The state of a checkout against an index."""
    state = State()
    words = git.names(
        "status", "--porcelain=v2", "-z", "--branch", "--no-ahead-behind", "-uall", "--ignored=matching",
        "--no-renames", "--ignore-submodules=none", index=index,
    )  # fmt: skip
    for word in words:
        kind, _, rest = word.partition(" ")
        if kind == "?":
            state.untracked.append(rest)
        elif kind == "!":
            state.ignored.append(rest)
        elif kind == "1":
            letters, submodule, *_, path = rest.split(" ", 7)
            state.changes.append(Change(path, letters[0], letters[1], submodule != "N..."))
        elif kind == "u":
            state.changes.append(Change(rest.split(" ", 9)[-1], "u", "u"))
        elif rest.startswith("branch.oid ") and not rest.endswith("(initial)"):
            state.head = rest.removeprefix("branch.oid ")
    return state


class Entries(msgspec.Struct, kw_only=True):
    """What an index lists."""

    paths: list[str] = msgspec.field(default_factory=list)
    submodules: list[str] = msgspec.field(default_factory=list)
    assumed: list[str] = msgspec.field(default_factory=list)
    """marked as unchanged by somebody, so that git does not look at them"""
    skipped: list[str] = msgspec.field(default_factory=list)
    """marked as not checked out"""


def entries(git: Git, index: Path | None = None) -> Entries:
    """Everything in an index, with the marks that hide changes from git."""
    found = Entries()
    for word in git.names("ls-files", "-z", "-v", "-s", index=index):
        facts, _, path = word.partition("\t")
        found.paths.append(path)
        if facts[0] != "H":
            if facts[0] in "Ss":
                found.skipped.append(path)
            if facts[0].islower():
                found.assumed.append(path)
        if facts[2:8] == GITLINK:
            found.submodules.append(path)
    return found


def unhide(git: Git, index: Path) -> Entries:
    """Take the marks away that hide changes: ``assume-unchanged``, and ``skip-worktree`` on files that are there."""
    found = entries(git, index)
    there = [path for path in found.skipped if os.path.lexists(git.root / path)]
    for flag, paths in (("--no-assume-unchanged", found.assumed), ("--no-skip-worktree", there)):
        if paths:
            git.call("update-index", "-z", flag, "--stdin", input=_words(paths), index=index)
    return found


def stage(git: Git, index: Path, changes: Sequence[Change], untracked: Sequence[str]) -> list[str]:
    """Put the paths as they are on disk into the index; returns those that git could not take."""
    gone = [c.path for c in changes if c.unstaged == "D" or not (c.submodule or _is_content(git.root, c.path))]
    if gone:
        git.call("update-index", "-z", "--force-remove", "--stdin", input=_words(gone), index=index)
    missing = set(gone)
    return _add(git, index, [*(c.path for c in changes if c.path not in missing), *untracked])


def stage_all(git: Git, index: Path) -> list[str]:
    """Put everything into the index, whatever HEAD is; nested repositories are left out."""
    names = git.names("ls-files", "-z", "-m", "-d", "-o", "--exclude-standard", index=index)
    paths = [path for path in dict.fromkeys(names) if not path.endswith("/")]
    return stage(git, index, [Change(path, ".", "M") for path in paths], [])


def _add(git: Git, index: Path, paths: Sequence[str]) -> list[str]:
    if not paths:
        return []
    words = ("update-index", "-z", "--add", "--remove", "--replace", "--stdin")
    done = git.call(*words, input=_words(paths), index=index, ok=(0, 1, 128))
    # It fails on files that it cannot read, and only says so of names that it does not allow.
    if done.code == 0 and b"Ignoring path " not in done.stderr:
        return []
    if len(paths) == 1:
        return list(paths)
    half = len(paths) // 2
    return _add(git, index, paths[:half]) + _add(git, index, paths[half:])


def drop(git: Git, index: Path, paths: Sequence[str], *, restore: str = "") -> None:
    """Take paths out of the index, or put them back as ``restore`` (a commit) has them."""
    git.call("update-index", "-z", "--force-remove", "--stdin", input=_words(paths), index=index)
    if restore:
        listed = split(git.call("ls-tree", "-r", "-z", restore).stdout)
        wanted = set(paths)
        lines = [line for line in listed if line.partition("\t")[2] in wanted]
        git.call("update-index", "-z", "--index-info", input=_words(lines), index=index)


def made_before(root: Path, moment_ns: int) -> Callable[[str], bool]:
    """Tells whether a path was last changed before a moment of file system time; the change time cannot be set back."""

    def before(path: str) -> bool:
        if not moment_ns:
            return False
        try:
            return (root / path).lstat().st_ctime_ns < moment_ns
        except OSError:
            return False

    return before


def _is_content(root: Path, path: str) -> bool:
    """False for what git cannot hold, and for what is there only by way of a symbolic link."""
    try:
        mode = (root / path).lstat().st_mode
    except OSError:
        return False
    if not (stat.S_ISREG(mode) or stat.S_ISLNK(mode)):
        return False
    folder = path.rpartition("/")[0]
    while folder:
        if (root / folder).is_symlink():
            return False
        folder = folder.rpartition("/")[0]
    return True


def _words(paths: Iterable[str]) -> bytes:
    return b"".join(os.fsencode(path) + b"\0" for path in paths)
