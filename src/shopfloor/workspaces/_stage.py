"""What a checkout holds that its HEAD does not, and putting that into an index beside the real one."""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

import msgspec

from shopfloor.git import Git, GitError, Unreadable, split, status

GITLINK = "160000"
_MARKED = re.compile(rb"(?:^|\0)([^H]) ([^\0]+)")  # ten thousand plain entries cost nothing


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
    """The state of a checkout against an index. Raises GitError when nobody can read that."""
    state = State()
    words = git.names(
        "status", "--porcelain=v2", "-z", "--branch", "--no-ahead-behind", "-uall", "--ignored=matching",
        "--no-renames", "--ignore-submodules=none", index=index,
    )  # fmt: skip
    try:
        entries = list(status(words))
    except Unreadable as problem:
        # Git does not look at an index's check sum: what power loss left of it is read as entries without a name.
        raise GitError(["status"], 1, problem.message.encode()) from problem
    for entry in entries:
        path, letters = entry.path, entry.letters
        if entry.kind == "?":
            state.untracked.append(path)
        elif entry.kind == "!":
            state.ignored.append(path)
        elif entry.kind == "1":
            state.changes.append(Change(path, letters[0], letters[1], entry.submodule != "N..."))
        elif entry.kind == "u":
            state.changes.append(Change(path, "u", "u"))
        elif path.startswith("branch.oid ") and not path.endswith("(initial)"):
            state.head = path.removeprefix("branch.oid ")
    return state


class Marks(msgspec.Struct, kw_only=True):
    """Index entries that git does not look at."""

    assumed: list[str] = msgspec.field(default_factory=list)
    """somebody marked them as unchanged"""
    skipped: list[str] = msgspec.field(default_factory=list)
    """somebody marked them as not checked out"""

    def __bool__(self) -> bool:
        return bool(self.assumed or self.skipped)


def marks(git: Git, index: Path | None = None) -> Marks:
    """The entries of an index that git does not look at."""
    listed = git.call("ls-files", "-z", "-v", index=index).stdout
    found = Marks()
    for letter, path in _MARKED.findall(listed):
        if letter in b"Ss":
            found.skipped.append(os.fsdecode(path))
        if letter.islower():
            found.assumed.append(os.fsdecode(path))
    return found


def unhide(git: Git, index: Path, found: Marks) -> None:
    """Take away ``assume-unchanged``, and ``skip-worktree`` from files that are there."""
    there = [path for path in found.skipped if os.path.lexists(git.root / path)]
    for flag, paths in (("--no-assume-unchanged", found.assumed), ("--no-skip-worktree", there)):
        if paths:
            git.call("update-index", "-z", flag, "--stdin", input=_words(paths), index=index)


def entries(git: Git) -> tuple[list[str], list[str]]:
    """All paths in the index, and those of them that are submodules."""
    lines = [line.partition("\t") for line in git.names("ls-files", "-z", "-s")]
    return [path for _, _, path in lines], [path for facts, _, path in lines if facts.startswith(GITLINK)]


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
