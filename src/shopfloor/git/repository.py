"""One repository: reading it, making objects, moving refs, adding worktrees."""

from __future__ import annotations

import os
import shutil
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Self

from shopfloor import spawn
from shopfloor.domain.errors import Conflict, NotFound, ShopfloorError
from shopfloor.git import output
from shopfloor.git.disk import unwritable
from shopfloor.git.files import drop_stale_lock, is_blank, open_lock, sync_file, sync_folder, write_durably
from shopfloor.git.objects import Objects
from shopfloor.git.text import EMAIL, NAME, author_env, is_ours, split, with_trailers

TIMEOUT_S = 900.0

_LOCKS = 8
"""Left-over locks of refs that one command may run into, one after the other."""

_SETTINGS = (
    "core.hooksPath=/dev/null",
    "core.fsmonitor=false",
    "core.quotePath=false",
    "core.safecrlf=false",
    "core.fsync=committed,loose-object,reference,derived-metadata",
    # Not "batch": one flush for all objects keeps its word on Linux only where the file system's journal happens to.
    "core.fsyncMethod=fsync",
    "commit.gpgSign=false",
    "gc.auto=0",
    "maintenance.auto=false",
    "submodule.recurse=false",
    "i18n.commitEncoding=UTF-8",
    "protocol.version=2",
    "advice.detachedHead=false",
    "fetch.writeCommitGraph=false",
)
# An agent's `git config` in a linked worktree writes to the configuration that all worktrees share.
_SLOT_SETTINGS = (
    "core.bare=false",
    "core.sparseCheckout=false",
    "core.splitIndex=false",
    "core.ignoreStat=false",
    "core.trustctime=true",
    "core.checkStat=default",
    "status.showUntrackedFiles=all",
)
_REPEATABLE = frozenset(
    {
        *("cat-file", "commit-tree", "diff-tree", "for-each-ref", "ls-files", "ls-tree", "merge-base", "merge-tree"),
        *("rev-list", "rev-parse", "show", "status", "update-ref"),
    }
)
"""Commands that may be given twice: they look, make objects, or compare before they move anything."""

_UNDER_WAY = {
    "MERGE_HEAD": "merge",
    "rebase-merge": "rebase",
    "rebase-apply": "rebase",
    "CHERRY_PICK_HEAD": "cherry-pick",
    "REVERT_HEAD": "revert",
}


class GitError(ShopfloorError):
    """A git command failed: ``code``, what it said, and ``disk``: what kept it from writing, where that is why."""

    def __init__(self, args: Sequence[str], code: int, stderr: bytes, *, disk: OSError | None = None) -> None:
        said = stderr.decode(errors="replace").strip()
        super().__init__(f"git {' '.join(args[:3])!s} ended with {code}: {said[-2000:] or 'no message'}")
        self.code = code
        self.said = said
        self.disk = disk


class RefMoved(Conflict):
    """A ref was not where it was expected; ``observed`` is where it stands (empty: there is none)."""

    def __init__(self, ref: str, *, expected: str, observed: str) -> None:
        super().__init__(
            f"ref {ref!r} stands at {observed or 'nothing'!r}, not at {expected or 'nothing'!r}",
            hint="somebody else moved it; look with: git log -g " + ref,
        )
        self.ref = ref
        self.expected = expected
        self.observed = observed


class Git:
    """A repository as seen from ``root``, with ``git_dir`` given where what ``root/.git`` says cannot be trusted."""

    def __init__(self, root: Path, *, base_env: Mapping[str, str], git_dir: Path | None = None) -> None:
        self.root = root
        self.git_dir = git_dir
        self._env = {name: value for name, value in base_env.items() if not name.startswith("GIT_")}
        self._env |= {
            "GIT_TERMINAL_PROMPT": "0",
            "GIT_OPTIONAL_LOCKS": "0",
            "GIT_COMMITTER_NAME": NAME,
            "GIT_COMMITTER_EMAIL": EMAIL,
            "GIT_AUTHOR_NAME": NAME,
            "GIT_AUTHOR_EMAIL": EMAIL,
            "LC_ALL": "C",
        }
        settings = _SETTINGS if git_dir is None else _SETTINGS + _SLOT_SETTINGS
        self._argv = ["git", "--no-pager", *(word for s in settings for word in ("-c", s))]
        if git_dir is not None:
            self._argv += [f"--git-dir={git_dir}", f"--work-tree={root}"]
        self._common: Path | None = None
        self._objects: Objects | None = None
        self._own: Path | None = git_dir

    @property
    def base_env(self) -> Mapping[str, str]:
        """The environment of its calls, fit for another instance."""
        return self._env

    def at(self, root: Path, git_dir: Path) -> Self:
        """The same environment for another checkout, whatever its own ``.git`` claims."""
        view = type(self)(root, base_env=self._env, git_dir=git_dir)
        if self._common is not None and git_dir.is_relative_to(self._common):
            view._common, view._objects = self._common, self.objects
        return view

    def call(
        self,
        *args: str,
        input: bytes | None = None,
        ok: Sequence[int] = (0,),
        index: Path | None = None,
        env: Mapping[str, str] | None = None,
    ) -> spawn.Completed:
        """Run one git command. Raises GitError unless it ends with a code in ``ok``."""
        environment = self._env | dict(env or {})
        if index is not None:
            environment["GIT_INDEX_FILE"] = str(index)
        argv = self._argv + list(args)
        done = start(argv, cwd=self.root, env=environment, input=input)
        if done.code < 0 and args[0] in _REPEATABLE:
            # Somebody killed it. No order shall go back to its agent for that.
            done = start(argv, cwd=self.root, env=environment, input=input)
        for _ in range(_LOCKS):
            if done.code in ok or b".lock': File exists" not in done.stderr:
                break
            if not drop_stale_lock(os.fsdecode(done.stderr), self.common_dir):
                break
            done = start(argv, cwd=self.root, env=environment, input=input)
        if done.code not in ok:
            disk = unwritable(done.code, done.stderr, self._common or self.root)
            raise GitError(args, done.code, done.stderr, disk=disk)
        return done

    def text(self, *args: str, index: Path | None = None, input: bytes | None = None) -> str:
        """What a command printed, without the newline at the end."""
        return os.fsdecode(self.call(*args, index=index, input=input).stdout).rstrip("\n")

    def names(self, *args: str, index: Path | None = None, ok: Sequence[int] = (0,)) -> list[str]:
        """What a command printed with ``-z``, one by one."""
        return split(self.call(*args, index=index, ok=ok).stdout)

    @property
    def common_dir(self) -> Path:
        """Where refs and objects are: one for all worktrees."""
        if self._common is None:
            self._common = Path(self.text("rev-parse", "--path-format=absolute", "--git-common-dir"))
        return self._common

    @property
    def objects(self) -> Objects:
        """What all checkouts of the repository have written."""
        if self._objects is None:
            self._objects = Objects(self.common_dir / "objects")
        return self._objects

    @property
    def own_dir(self) -> Path:
        """Where this checkout's index and HEAD are."""
        if self._own is None:
            self._own = Path(self.text("rev-parse", "--absolute-git-dir"))
        return self._own

    # -- reading ----------------------------------------------------------------------------------------------------

    def rev_parse(self, revision: str) -> str:
        """The full hash of a commit. Raises NotFound when there is none of that name."""
        done = self.call("rev-parse", "--verify", "-q", "--end-of-options", f"{revision}^{{commit}}", ok=(0, 1, 128))
        if done.code:
            raise NotFound(f"no commit {revision!r} in {str(self.root)!r}", hint="git log --oneline --all")
        return done.stdout.decode().strip()

    def tree_of(self, revision: str) -> str:
        """The hash of a commit's tree."""
        return self.text("rev-parse", "--verify", "-q", "--end-of-options", f"{revision}^{{tree}}")

    def read_ref(self, ref: str) -> str:
        """Where a ref stands, by its full name; empty when there is none."""
        done = self.call("rev-parse", "--verify", "-q", "--end-of-options", ref, ok=(0, 1, 128))
        return done.stdout.decode().strip() if done.code == 0 else ""

    def refs(self, *patterns: str) -> dict[str, str]:
        """All refs at or below the patterns, with where they stand."""
        return output.refs(self.call("for-each-ref", "--format=%(objectname) %(refname)", *patterns).stdout)

    def is_ancestor(self, older: str, newer: str) -> bool:
        """True also when both are the same."""
        return older == newer or self.call("merge-base", "--is-ancestor", older, newer, ok=(0, 1)).code == 0

    def merge_base(self, one: str, other: str) -> str:
        """The best common ancestor of two commits; empty when there is none."""
        return next(iter(self.call("merge-base", one, other, ok=(0, 1)).stdout.decode().split()), "")

    def changed(self, old: str, new: str, *filters: str) -> tuple[str, ...]:
        """Paths that differ between two commits or trees; ``filters`` such as ``--diff-filter=A``."""
        if old == new:
            return ()
        return tuple(self.names("diff-tree", "-r", "-z", "--name-only", "--no-renames", *filters, old, new))

    def trees_and_authors(self, *commits: str) -> list[tuple[str, str]]:
        """The tree, and ``Name <email>`` of the author, of each commit by its full hash."""
        known = {}
        for line in self.text("show", "-s", "--no-show-signature", "--format=%H %T %an <%ae>", *commits).splitlines():
            commit, tree, author = line.split(" ", 2)
            known[commit] = (tree, author)
        return [known[commit] for commit in commits]

    def modified(self) -> list[str]:
        """Tracked paths that are modified or staged, without what is ours; intent-to-add does not count."""
        lines = self.names(
            "status",
            "--porcelain=v2",
            "-z",
            "-uno",
            "--no-renames",
            "--ignore-submodules=dirty",
            "--no-ahead-behind",
        )
        changes = [entry for entry in output.status(lines) if entry.letters and entry.letters != ".A"]
        return [entry.path for entry in changes if not is_ours(entry.path)]

    def under_way(self) -> str:
        """``merge``, ``rebase``, ``cherry-pick`` or ``revert`` when one was begun in this checkout; else empty."""
        return next((word for name, word in _UNDER_WAY.items() if (self.own_dir / name).exists()), "")

    # -- writing objects and refs -----------------------------------------------------------------------------------

    def merge_tree(self, onto: str, commit: str) -> output.Merge:
        """Merge two commits as objects only."""
        done = self.call("merge-tree", "--write-tree", "-z", "--name-only", onto, commit, ok=(0, 1))
        return output.merge(done.stdout, clean=done.code == 0)

    def commit_tree(
        self,
        tree: str,
        parents: Sequence[str],
        message: str,
        *,
        author: str = "",
        trailers: Mapping[str, str] | None = None,
    ) -> str:
        """Make a commit object; ``author`` is ``Name <email>`` or a name."""
        words = [word for parent in parents for word in ("-p", parent)]
        body = with_trailers(message, trailers or {}).encode(errors="replace")
        done = self.call("commit-tree", *words, "-F", "-", tree, input=body, env=author_env(author))
        return done.stdout.decode().strip()

    def update_ref(self, ref: str, new: str, *, old: str | None = None, reason: str = "shopfloor") -> None:
        """Move a ref durably. ``old``: it must stand there (empty: it must not exist), else RefMoved."""
        self.update_refs({ref: (new, old)}, reason=reason)

    def update_refs(self, moves: Mapping[str, tuple[str, str | None]], *, reason: str = "shopfloor") -> None:
        """Move several refs, all or none; each value is ``(new, old)`` as for `update_ref`, an empty new deletes."""
        lines = [_move(ref, new, old) for ref, (new, old) in moves.items()]
        self.objects.sync()
        try:
            self.call("update-ref", "-z", "-m", reason, "--stdin", input="".join(lines).encode())
        except GitError as error:
            for ref, (_, old) in moves.items():
                observed = self.read_ref(ref)
                if old is not None and observed != old:
                    raise RefMoved(ref, expected=old, observed=observed) from error
            raise
        self._sync_names(moves.keys())

    def _sync_names(self, refs: Collection[str]) -> None:
        """Our git syncs a ref's file before it renames it, but not the folders that now name it."""
        # First what another git may have moved refs to: they have left the folders that are synced next.
        sync_file(self.common_dir / "packed-refs")
        sync_folder(self.common_dir)
        for ref in refs:
            sync_file(self.common_dir / ref)
        folders = {above: None for ref in refs for above in Path(ref).parents[:-1]}
        for folder in sorted(folders, key=lambda folder: -len(folder.parts)):
            if (self.common_dir / folder).is_dir():
                sync_folder(self.common_dir / folder)

    def fetch(self, source: Path, *refspecs: str) -> None:
        """Copy objects and refs from another repository on this machine. Takes the repository's lock."""
        with self.locked():
            self.call("fetch", "-q", "--no-tags", "--no-recurse-submodules", "--no-write-fetch-head", "--no-auto-gc",
                      "--", str(source), *refspecs)  # fmt: skip

    # -- worktrees --------------------------------------------------------------------------------------------------

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Hold the repository's lock, for what git cannot do side by side: adding worktrees, fetching, pruning."""
        with open_lock(self.common_dir / "shopfloor.lock"):
            yield

    def worktrees(self) -> list[output.Worktree]:
        """All worktrees, the main one first."""
        return output.worktrees(self.call("worktree", "list", "--porcelain", "-z").stdout)

    def worktree_add(self, path: Path, commit: str) -> Path:
        """Add a detached worktree without files in it; returns its own git folder."""
        with self.locked():
            words = ("-q", "--no-checkout", "--detach", "--lock", "--reason", "shopfloor")
            self.call("worktree", "add", *words, str(path), commit)
        own = Path(os.fsdecode((path / ".git").read_bytes()).removeprefix("gitdir: ").rstrip("\n"))
        # Git syncs none of this, and one worktree that nobody can read stops every listing of them.
        for file in (path / ".git", *own.iterdir()):
            sync_file(file)
        for folder in (own, own.parent, self.common_dir, path, path.parent):
            sync_folder(folder)
        return own

    def worktree_remove(self, path: Path) -> None:
        """Forget a worktree of ours whose folder is gone already."""
        with self.locked():
            own = self.common_dir / "worktrees" / path.name
            if own.is_dir() and any(is_blank(own / name) for name in ("commondir", "gitdir", "HEAD")):
                shutil.rmtree(own)  # power was lost while it was made: git can neither read it nor remove it
            self.call("worktree", "remove", "-f", "-f", str(path), ok=(0, 128))

    def worktree_prune(self) -> None:
        """Forget worktrees of ours whose folder is gone; a person's may lie on a disk that comes back."""
        for tree in self.worktrees():
            if tree.lock == "shopfloor" and not tree.path.exists():
                self.worktree_remove(tree.path)

    # -- housekeeping -----------------------------------------------------------------------------------------------

    def exclude(self, patterns: Iterable[str]) -> None:
        """Add lines to the repository's ``info/exclude`` unless they are there."""
        path = self.common_dir / "info" / "exclude"
        with self.locked():
            before = path.read_bytes() if path.exists() else b""
            missing = [p for p in map(os.fsencode, patterns) if p not in before.split(b"\n")]
            if missing:
                gap = b"\n" if before and not before.endswith(b"\n") else b""
                path.parent.mkdir(exist_ok=True)
                write_durably(path, before + gap + b"".join(p + b"\n" for p in missing))

    def setting(self, name: str) -> str:
        """A configured value as the user set it (not as we override it); empty when unset."""
        argv = ["git", "config", "--get", name]
        done = start(argv, cwd=self.root, env=self._env)
        return os.fsdecode(done.stdout).rstrip("\n") if done.code == 0 else ""

    def hooks(self) -> tuple[str, ...]:
        """Names of the hooks that a person's own git would run here, and ours does not."""
        folder = self.root / (self.setting("core.hooksPath") or self.common_dir / "hooks")
        if not folder.is_dir():
            return ()
        return tuple(sorted(p.name for p in folder.iterdir() if p.suffix != ".sample" and os.access(p, os.X_OK)))


def _move(ref: str, new: str, old: str | None) -> str:
    if not new:
        return f"delete {ref}\0{old or ''}\0"
    return f"create {ref}\0{new}\0" if old == "" else f"update {ref}\0{new}\0{old or ''}\0"


def start(argv: Sequence[str], *, cwd: Path, env: Mapping[str, str], input: bytes | None = None) -> spawn.Completed:
    """Run the program as it stands."""
    return spawn.run(argv, cwd=cwd, env=env, input=input, timeout_s=TIMEOUT_S)
