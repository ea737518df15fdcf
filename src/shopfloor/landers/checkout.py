"""The user's checkout: brought forward when nothing of the user's is in the way, else not touched at all.

The index is prepared in a file of ours and put in place by a rename, under git's own ``index.lock`` with our mark in it.
So the user's git waits for us, a kill in the middle leaves a lock that can be told from anybody else's, and what was half done
is recognised (every file is either as before or as it was to become) and done again.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from shopfloor.domain.errors import Refused
from shopfloor.domain.names import few
from shopfloor.git import Git, GitError, shown, sync_folder

MARK = b"shopfloor is bringing this checkout forward\n"


class Checkout:
    """The main working tree and its index."""

    def __init__(self, git: Git) -> None:
        self._git = git
        self._folder = git.git_dir or git.common_dir
        self._index = self._folder / "index"
        self._lock = self._folder / "index.lock"
        self._new_index = self._folder / "shopfloor-index"

    def advance(self, old: str, new: str) -> str:
        """Make index and files those of ``new``; both were those of ``old``. Returns why not, if not."""
        try:
            with self._locked():
                return self._advance(old, new)
        except Refused as busy:
            return busy.message

    def retreat(self, new: str, old: str) -> None:
        """Undo an advance whose branch could not be moved after it."""
        try:
            with self._locked():
                self._read_tree(new, old)
        except (Refused, GitError):
            return  # somebody works here right now; `git status` shows them the difference, nothing is lost

    def _advance(self, old: str, new: str) -> str:
        work = self._git
        under_way = work.under_way()
        if under_way:
            return f"a {under_way} is under way here: finish it"
        if self._stands_at(new):
            return ""
        why = self._try(old, new)
        if why:
            self._undo_half(old, new)
            why = self._try(old, new)
        return why

    def _try(self, old: str, new: str) -> str:
        modified = [shown(path) for path in self._git.modified()]
        if modified:
            return f"{few(modified)} modified here: commit or stash that"
        try:
            self._read_tree(old, new)
        except GitError as problem:
            return f"untracked files are in the way: {_last_line(problem.said)}: move them away"
        return ""

    def _read_tree(self, old: str, new: str) -> None:
        shutil.copyfile(self._index, self._new_index)
        try:
            self._git.call("read-tree", "-m", "-u", old, new, index=self._new_index)
            with self._new_index.open("rb") as file:
                os.fsync(file.fileno())
            self._new_index.replace(self._index)
            sync_folder(self._folder)
        finally:
            self._new_index.unlink(missing_ok=True)

    def _stands_at(self, commit: str) -> bool:
        """True when the index already is the tree of ``commit``: only the branch was left to move."""
        work = self._git
        return work.call("diff-index", "--cached", "--quiet", commit, "--", ok=(0, 1)).code == 0 and not work.names(
            "diff-files", "-z", "--name-only"
        )

    def _undo_half(self, old: str, new: str) -> None:
        """After a kill in the middle the index is still ``old`` while some files are ``new`` already: take those back.

        Only files whose content is exactly what we were about to write are touched.
        """
        work = self._git
        for path in work.changed(old, new):
            place = work.root / path
            if not place.is_symlink() and not place.is_file():
                continue
            target = self._blob(new, path)
            if target and self._blob(old, path) != target and self._content(place) == target:
                if self._blob(old, path):
                    work.call("checkout-index", "-f", "-q", "--", path)
                else:
                    place.unlink()
        for path in work.changed(old, new, "--diff-filter=D"):
            if not (work.root / path).exists() and not (work.root / path).is_symlink():
                work.call("checkout-index", "-q", "--", path, ok=(0, 128))

    def _blob(self, commit: str, path: str) -> str:
        fields = self._git.names("ls-tree", "-z", commit, "--", f":(literal,top){path}")
        return fields[0].split("\t")[0].split(" ")[2] if fields else ""

    def _content(self, place: Path) -> str:
        if place.is_symlink():
            return self._git.text("hash-object", "--stdin", input=os.fsencode(os.readlink(place)))
        return self._git.text("hash-object", "--", str(place))

    @contextmanager
    def _locked(self) -> Iterator[None]:
        self._take_back_stale_lock()
        try:
            fd = os.open(self._lock, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o644)
        except FileExistsError:
            raise Refused(f"git is at work here ({self._lock} exists)") from None
        try:
            os.write(fd, MARK)
        finally:
            os.close(fd)
        try:
            yield
        finally:
            self._lock.unlink(missing_ok=True)

    def _take_back_stale_lock(self) -> None:
        # Only one controller lives at a time, so a lock with our mark belongs to one that was killed.
        try:
            ours = self._lock.read_bytes() == MARK
        except OSError:
            return
        if ours:
            self._lock.unlink(missing_ok=True)


def _last_line(said: str) -> str:
    lines = [line.strip() for line in said.splitlines() if line.strip()]
    return lines[-1] if lines else "see git status"
