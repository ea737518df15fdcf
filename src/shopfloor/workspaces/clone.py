"""Workspaces as independent clones: an agent in one cannot move a ref of the user's repository."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

from shopfloor.git import Git
from shopfloor.spawn import Guard
from shopfloor.workspaces._backend import Moves, Slot, ensure_free
from shopfloor.workspaces._folder import remove
from shopfloor.workspaces._keep import ATTEMPTS
from shopfloor.workspaces.pool import Pool

REPOSITORIES = ".repositories"
GONE: tuple[str, str | None] = ("", None)
_CONFIG = "shopfloor.config"
# What an agent needs to see and commit files as the user does, from the repository's own configuration.
_CARRIED = r"^(user|filter|lfs|diff|merge)\.|^core\.(autocrlf|eol|symlinks|filemode|ignorecase|precomposeunicode)$"


class Clones:
    """One clone per slot; its git folder lies beside the slots, where ``rm -rf .git`` does not reach it.

    Objects are hard links where the file system has them; refs, configuration and hooks are the clone's own. Nothing in
    a clone names the user's repository.
    """

    def __init__(self, main: Git) -> None:
        self.main = main

    def create(self, path: Path, commit: str) -> Path:
        git_dir = path.parent / REPOSITORIES / path.name
        git_dir.parent.mkdir(parents=True, exist_ok=True)
        remove(git_dir)
        remove(path)
        with self.main.locked():
            self.main.call(
                "clone", "-q", "--local", "--no-checkout", "--no-tags", "--template=", f"--separate-git-dir={git_dir}",
                str(self.main.common_dir), str(path),
            )  # fmt: skip
        git = self.main.at(path, git_dir)
        git.call("remote", "remove", "origin")
        for pair in self.main.names("config", "--local", "-z", "--get-regexp", _CARRIED, ok=(0, 1)):
            name, _, value = pair.partition("\n")
            git.call("config", "--add", name, value)
        shutil.copyfile(git_dir / "config", git_dir / _CONFIG)
        return git_dir

    def repair(self, slot: Slot) -> None:
        """A clone whose git folder is damaged stays so: its commits are nowhere else."""

    def bring(self, slot: Slot) -> None:
        git, base, branch = slot.git, slot.lease.base, f"refs/heads/{slot.lease.branch}"
        if slot.lease.branch and not self.main.read_ref(branch):
            self.main.update_ref(branch, base, old="", reason=f"shopfloor: {slot.lease.key}")
        ensure_free(slot, self.main.read_ref(branch) if slot.lease.branch else "")
        shutil.copyfile(slot.git_dir / _CONFIG, slot.git_dir / "config")
        exclude = self.main.common_dir / "info" / "exclude"
        if exclude.exists():
            (slot.git_dir / "info").mkdir(exist_ok=True)
            shutil.copyfile(exclude, slot.git_dir / "info" / "exclude")
        if git.call("cat-file", "-e", base, ok=(0, 1, 128)).code:
            git.fetch(self.main.common_dir, base)
        git.call("update-ref", "--no-deref", "HEAD", base)
        git.update_refs(dict.fromkeys(git.refs(), GONE))

    def publish(self, slot: Slot, moves: Moves) -> None:
        """Fetch the commits and whatever else the agent named, move the main repository's refs, then the clone's."""
        git, key, branch = slot.git, slot.lease.key, f"refs/heads/{slot.lease.branch}"
        under = f"{ATTEMPTS}/{key}"
        own, standing = git.refs(), self.main.refs(branch, under)
        wanted = {ref: oid for ref, oid in own.items() if ref == branch or ref.startswith(f"{under}/")}
        wanted |= {ref: new for ref, (new, _) in moves.items()}
        named = [ref for ref in own if ref != branch and not ref.startswith("refs/shopfloor/")]
        specs = [f"+{ref}:{under}/refs/{ref.removeprefix('refs/')}" for ref in named]
        specs += [f"+{oid}:{under}/fetched/{number}" for number, oid in enumerate(dict.fromkeys(wanted.values()))]
        self.main.fetch(slot.git_dir, *specs)
        # The clone never saw where these refs stand in the main repository, so each is compared with that.
        there: Moves = {ref: (oid, standing.get(ref, "")) for ref, oid in wanted.items() if standing.get(ref) != oid}
        there |= dict.fromkeys(self.main.refs(f"{under}/fetched/"), GONE)
        left = standing.get(branch, "")
        if left and not self.main.is_ancestor(left, wanted.get(branch, left)):
            there[f"{under}/branch/{left[:16]}"] = (left, None)
        self.main.update_refs(there, reason=f"shopfloor: {key}")
        git.update_refs(moves, reason=f"shopfloor: {key}")

    def remove(self, path: Path, git_dir: str) -> None:
        remove(path)
        if git_dir:
            remove(Path(git_dir))


class CloneWorkspaces(Pool):
    """The port Workspaces over independent clones; the options are those of `Pool`."""

    def __init__(self, git: Git, guard: Guard, **options: Any) -> None:
        super().__init__(Clones(git), guard, **options)
