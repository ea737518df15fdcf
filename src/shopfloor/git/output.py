"""What git prints for programs, as values. Output that is not as documented is refused, never half understood."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple, NoReturn

import msgspec

from shopfloor.domain.errors import ShopfloorError
from shopfloor.git.text import shown, split

_HASH = re.compile(r"[0-9a-f]{40}(?:[0-9a-f]{24})?")
_FIELDS = {"1": 8, "u": 10}  # of a tracked path in `git status --porcelain=v2`, the path included


class Unreadable(ShopfloorError):
    """Git printed something that it does not print."""


class Worktree(msgspec.Struct, frozen=True):
    """One entry of ``git worktree list``; ``branch`` is a full ref name, empty when detached."""

    path: Path
    head: str
    branch: str
    lock: str | None = None
    """why it is locked; None: it is not"""


class Merge(msgspec.Struct, frozen=True):
    """What a merge of two commits gives: a tree, or the paths in conflict."""

    tree: str
    conflicts: tuple[str, ...] = ()
    said: str = ""
    """git's own words about the conflicts"""


class Entry(NamedTuple):
    """One line of ``git status``: ``kind`` is ``1``, ``u``, ``?``, ``!`` or ``#``; only the first two have letters."""

    kind: str
    path: str
    letters: str = ""
    submodule: str = ""


class Difference(NamedTuple):
    """One path that differs between two trees."""

    path: str
    old_mode: str
    new_mode: str
    old: str
    new: str


def _refuse(what: str, word: str) -> NoReturn:
    raise Unreadable(f"git {what} printed {shown(word)[:200]!r}, which is not understood", hint="git version")


def is_hash(text: str) -> bool:
    """True for the full name of an object."""
    return _HASH.fullmatch(text) is not None


def refs(output: bytes) -> dict[str, str]:
    """``for-each-ref`` with ``%(objectname) %(refname)``: where each ref stands."""
    found = {}
    for line in os.fsdecode(output).split("\n"):
        value, _, name = line.partition(" ")
        if name.startswith("refs/") and "\0" not in name and is_hash(value):
            found[name] = value
        elif line:
            _refuse("for-each-ref", line)
    return found


def worktrees(output: bytes) -> list[Worktree]:
    """``worktree list --porcelain -z``, the main one first."""
    found = []
    for block in output.split(b"\0\0"):
        fields = dict(os.fsdecode(line).partition(" ")[::2] for line in block.split(b"\0") if line)
        if fields and not fields.get("worktree"):
            _refuse("worktree list", next(iter(fields)))
        if fields:
            head, branch = fields.get("HEAD", ""), fields.get("branch", "")
            if (head and not is_hash(head)) or (branch and not branch.startswith("refs/")):
                _refuse("worktree list", head + branch)
            found.append(Worktree(Path(fields["worktree"]), head, branch, fields.get("locked")))
    return found


def merge(output: bytes, *, clean: bool) -> Merge:
    """``merge-tree --write-tree -z --name-only``; ``clean`` is what its exit code says."""
    facts, _, messages = output.partition(b"\0\0")
    tree, *conflicts = split(facts) or [""]
    if not is_hash(tree):
        _refuse("merge-tree", tree)
    if clean:
        return Merge(tree=tree)
    # Each message: number of paths, the paths, a word for its kind, the text.
    lines = [shown(word).strip() for word in split(messages) if word.endswith("\n")]
    return Merge(tree="", conflicts=tuple(dict.fromkeys(conflicts)), said="\n".join(lines))


def status(words: Iterable[str]) -> Iterator[Entry]:
    """``status --porcelain=v2 -z --no-renames``, word by word."""
    for word in words:
        kind, space, rest = word.partition(" ")
        if space and rest and kind in ("?", "!", "#"):
            yield Entry(kind, rest)
            continue
        fields = rest.split(" ", _FIELDS[kind] - 1) if kind in _FIELDS else []
        if not fields or len(fields) != _FIELDS[kind] or len(fields[0]) != len("XY") or not fields[-1]:
            _refuse("status", word)
        yield Entry(kind, fields[-1], fields[0], fields[1])


def differences(output: bytes) -> list[Difference]:
    """``diff-tree -z --raw --no-renames``."""
    words = split(output)
    if len(words) % 2:
        _refuse("diff-tree", words[-1])
    found = []
    for facts, path in zip(words[::2], words[1::2], strict=True):
        fields = facts.removeprefix(":").split(" ")
        if not facts.startswith(":") or len(fields) != len(Difference._fields) or not all(map(is_hash, fields[2:4])):
            _refuse("diff-tree", facts)
        found.append(Difference(path, *fields[:4]))
    return found
