"""A pool of slots: claimed, filled, snapshotted, given back. The kinds of workspace differ in their backend only."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path
from typing import ParamSpec, TypeVar

from shopfloor.config.settings import Cache
from shopfloor.domain.errors import Conflict, NotFound, Refused
from shopfloor.git import GitError, RefMoved, shown
from shopfloor.ports import Claim, Orphan, Snapshot, Workspace
from shopfloor.spawn import Guard
from shopfloor.workspaces._backend import Backend, Slot
from shopfloor.workspaces._fill import fill, remember
from shopfloor.workspaces._folder import cache_key, end_of, tail_of
from shopfloor.workspaces._keep import keep, part_of_change
from shopfloor.workspaces._lease import PREFIX, Lease, Shelf, abandoned
from shopfloor.workspaces._mend import mend
from shopfloor.workspaces._stage import State, look

SETUP_TIMEOUT_S = 3600.0

P = ParamSpec("P")
T = TypeVar("T")


async def in_thread(function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """Run it in a thread; a cancellation waits for its end, so that nobody works behind the caller's back."""
    task = asyncio.create_task(asyncio.to_thread(function, *args, **kwargs))
    try:
        return await asyncio.shield(task)
    except asyncio.CancelledError:
        await asyncio.wait([task])
        if not task.cancelled():
            task.exception()  # seen; the caller wanted to stop anyway
        raise


class Pool:
    """The port Workspaces over any backend. Blocking work runs in threads; setup runs under the guard."""

    def __init__(
        self,
        backend: Backend,
        guard: Guard,
        *,
        folder: Path,
        setup: str | None = None,
        copies: Sequence[str] = (),
        caches: Sequence[Cache] = (),
        env: Mapping[str, str],
        keep_free: int = 16,
        most: int = 256,
        setup_timeout_s: float = SETUP_TIMEOUT_S,
    ) -> None:
        """``keep_free`` slots of each purpose stay warm, ``most`` exist at once; ``env`` is what setup sees."""
        self.backend = backend
        self.guard = guard
        self.setup = setup or ""
        self.copies = tuple(copies)
        self.caches = tuple(caches)
        self.env = dict(env)
        self.keep_free = keep_free
        self.most = most
        self.setup_timeout_s = setup_timeout_s
        self.shelf = Shelf(folder)

    # -- the port ---------------------------------------------------------------------------------------------------

    async def acquire(self, claim: Claim) -> Workspace:
        """A clean, prepared checkout. Raises Refused when setup fails or all slots are in use."""
        taken: list[Lease] = []
        done = False
        try:
            lease = await in_thread(self._take_and_fill, claim, taken)
            log = Path(claim.log) if claim.log else self.shelf.log(lease.slot)
            if self.setup:
                await self._set_up(lease, log)
            await in_thread(self._hand_out, lease)
            done = True
        finally:
            if not done:
                for lease in taken:
                    await in_thread(self._take_back, lease)
        path = str(self.shelf.path(lease.slot))
        return Workspace(key=claim.key, path=path, commit=claim.commit, branch=claim.branch, slot=lease.slot)

    async def snapshot(self, workspace: Workspace, *, message: str, trailers: Mapping[str, str]) -> Snapshot:
        """Keep everything in it. Raises NotFound when it was given back, GitError when git cannot."""
        return await in_thread(self._snapshot, workspace, message, trailers)

    async def changes(self, workspace: Workspace) -> tuple[str, ...]:
        """Paths that differ from its commit, committed or not."""
        return await in_thread(self._changes, workspace)

    async def release(self, workspace: Workspace) -> None:
        """Give it back; nothing happens when that was done before."""
        await in_thread(self._release, workspace)

    async def recover(self, living: Collection[str] = ()) -> list[Orphan]:
        """Take back the slots of processes that are gone, take over those where agents live on; leave others alone."""
        return await in_thread(self._recover, frozenset(living))

    def free_slots(self) -> list[Path]:
        """What ``drop_free`` would remove now: the folders of slots that nobody uses and that hold nothing."""
        free = (self.shelf.path(lease.slot) for lease in self.shelf.all() if lease.state == "free")
        return sorted(path for path in free if path.is_dir())

    async def drop_free(self) -> list[Path]:
        """Remove every free slot from disk; retired ones hold work and stay."""
        return await in_thread(self._trim, 0)

    # -- claiming and filling ---------------------------------------------------------------------------------------

    def _slot(self, lease: Lease) -> Slot:
        git = self.backend.main.at(self.shelf.path(lease.slot), Path(lease.git_dir))
        folders = tuple(cache.path for cache in self.caches)
        return Slot(lease=lease, git=git, main=self.backend.main, caches=folders, copies=self.copies)

    def _take_and_fill(self, claim: Claim, taken: list[Lease]) -> Lease:
        """A filled slot; a used one that cannot be filled is passed over for a new one."""
        while True:
            lease, before = self._take(claim, fresh=bool(taken))
            taken.insert(0, lease)
            try:
                self._fill(lease, before)
            except (GitError, OSError) as error:
                self.backend.main.rev_parse(claim.commit)  # says it best when that is what is wrong
                if len(taken) > 1:
                    text = f"no workspace could be made for {claim.key!r}: {error}"
                    raise Refused(text, hint="shopfloor doctor") from error
                problem = str(error)
            else:
                while len(taken) > 1:
                    # A new one is fine, so it is the slot: left as it is, for somebody to look at.
                    self._retire(taken.pop(), problem)
                return lease

    def _take(self, claim: Claim, *, fresh: bool) -> tuple[Lease, Lease]:
        """Claim a slot, on demand a new one; also what its lease said before."""
        with self.shelf.locked():
            prefix = PREFIX[claim.purpose]
            all_leases = [lease for lease in self.shelf.all() if lease.slot.startswith(prefix)]
            free = [lease for lease in all_leases if lease.state == "free" and self.shelf.is_there(lease.slot)]
            free = [] if fresh else free
            if not free and len(all_leases) >= self.most:
                text = f"all {self.most} workspaces are in use"
                raise Refused(text, hint="wait for an order to end, or start fewer side by side")
            free.sort(key=lambda lease: lease.base != claim.commit)
            before = free[0] if free else Lease(slot=self.shelf.unused_name(claim.purpose))
            lease = Lease(
                slot=before.slot, state="filling", git_dir=before.git_dir, sparse=before.sparse, key=claim.key,
                purpose=claim.purpose, branch=claim.branch, base=claim.commit,
                onto=claim.onto,
            )  # fmt: skip
            self.shelf.own(lease)
            self.shelf.write(lease)
            return lease, before

    def _fill(self, lease: Lease, before: Lease) -> None:
        if not lease.git_dir:
            lease.git_dir = str(self.backend.create(self.shelf.path(lease.slot), lease.base))
            self.shelf.write(lease)
        seen = self._keep_late_work(before)
        lease.caches = before.caches
        lease.caches = fill(self._slot(lease), self.backend, self.caches, seen)

    def _keep_late_work(self, before: Lease) -> State | None:
        """Whoever worked in the slot after it was given back must not lose that. The state, if nobody did."""
        slot = self._slot(before)
        if before.purpose == "check" or before.sparse or not (before.key and self.shelf.is_there(before.slot)):
            return None
        self.backend.repair(slot)
        state = look(slot.git)
        if state.head in before.heads and not any(part_of_change(slot, state)):
            return None if before.messy else state
        text = "work found after the workspace was given back"
        if not keep(slot, self.backend, message=text, trailers={}).snapshot.complete:
            raise GitError(["status"], 1, b"work that was done after it was given back cannot be kept")
        return None

    async def _set_up(self, lease: Lease, log: Path) -> None:
        start = await in_thread(end_of, log)
        argv = ["/bin/sh", "-c", self.setup]
        cwd = self.shelf.path(lease.slot)
        process = await self.guard.spawn(argv, cwd=cwd, env=self.env, stdout=log, stderr=log)
        how = ""
        try:
            async with asyncio.timeout(self.setup_timeout_s):
                ended = await process.wait()
            how = "" if ended.code == 0 else f"exit {ended.code}" if ended.code is not None else "ended by a signal"
        except TimeoutError:
            how = f"took longer than {self.setup_timeout_s:g} s"
        finally:
            await process.stop()
        if how:
            lease.caches = {}  # half filled
            said = await in_thread(tail_of, log, start)
            raise Refused(f"setup {self.setup!r} failed ({how}):\n{said}", hint=f"all of it: {str(log)!r}")

    def _hand_out(self, lease: Lease) -> None:
        slot = self._slot(lease)
        if self.setup or self.copies:
            remember(slot, self.shelf.log(lease.slot).with_suffix(".tick"))
        path = slot.git.root
        lease.caches = {c.path: cache_key(path, c) for c in self.caches}
        lease.state = "used"
        self.shelf.write(lease)

    def _take_back(self, lease: Lease) -> None:
        """Undo a claim that came to nothing: nobody has worked there."""
        git = self.backend.main
        standing = git.read_ref(f"refs/heads/{lease.branch}") if lease.branch and lease.git_dir else ""
        if standing and standing in (lease.base, lease.onto):
            self._slot(lease).git.call("checkout", "-q", "-f", "--detach", lease.base, ok=(0, 1, 128))
            git.update_refs({f"refs/heads/{lease.branch}": ("", standing)})
        if lease.git_dir:
            lease.key, lease.heads = "", ()
            self._free(lease)
        else:
            self._drop(lease)

    # -- keeping and giving back ------------------------------------------------------------------------------------

    def _lease_of(self, workspace: Workspace) -> Lease | None:
        lease = self.shelf.read(workspace.slot)
        return lease if lease is not None and lease.key == workspace.key and lease.state == "used" else None

    def _claimed(self, workspace: Workspace) -> Lease:
        lease = self._lease_of(workspace)
        if lease is None and not Path(workspace.path).exists():
            raise NotFound(f"workspace {workspace.path!r} was removed by somebody while it was in use")
        if lease is None:
            raise NotFound(f"workspace {workspace.slot!r} of {workspace.key!r} was given back already")
        return lease

    def _snapshot(self, workspace: Workspace, message: str, trailers: Mapping[str, str]) -> Snapshot:
        lease = self._claimed(workspace)
        return self._keep(lease, message, trailers)

    def _keep(self, lease: Lease, message: str, trailers: Mapping[str, str]) -> Snapshot:
        for last in (False, False, True):
            try:
                kept = keep(self._slot(lease), self.backend, message=message, trailers=trailers)
                break
            except (RefMoved, GitError) as error:
                # A git that was killed says nothing about the slot.
                if last or (isinstance(error, GitError) and error.code >= 0):
                    raise
        lease.kept, lease.heads = True, kept.heads
        lease.sparse, lease.messy = kept.sparse, kept.messy
        if not kept.snapshot.complete:
            lease.note = "; ".join(kept.snapshot.notes)
        self.shelf.write(lease)
        return kept.snapshot

    def _changes(self, workspace: Workspace) -> tuple[str, ...]:
        lease = self._claimed(workspace)
        slot = self._slot(lease)
        state = look(slot.git)
        changes, untracked = part_of_change(slot, state)
        committed = slot.git.changed(lease.base, state.head) if state.head else ()
        staged = [c.path for c in state.changes if c.staged != "."]
        return tuple(sorted({shown(p) for p in (*committed, *staged, *(c.path for c in changes), *untracked)}))

    def _release(self, workspace: Workspace) -> None:
        lease = self._lease_of(workspace)
        if lease is None:
            return
        if lease.purpose == "attempt" and not lease.kept:
            self._keep(lease, f"work of {lease.key}", {"Shopfloor-Attempt": lease.key})
        if lease.note:
            self._retire(lease, lease.note)
        else:
            self._free(lease)

    def _free(self, lease: Lease) -> None:
        lease.state = "free"
        lease.pid = lease.start_time = 0
        self.shelf.write(lease)
        self._trim(self.keep_free)

    def _retire(self, lease: Lease, why: str) -> None:
        lease.state, lease.note = "retired", why
        self.shelf.write(lease)

    def _trim(self, keep_free: int) -> list[Path]:
        gone = []
        with self.shelf.locked():
            free = [lease for lease in self.shelf.all() if lease.state == "free"]
            for prefix in PREFIX.values():
                for lease in [lease for lease in free if lease.slot.startswith(prefix)][keep_free:]:
                    try:
                        self._keep_late_work(lease)
                        self._drop(lease)
                    except (GitError, OSError) as error:
                        self._retire(lease, str(error))
                        continue
                    gone.append(self.shelf.path(lease.slot))
        return gone

    # -- after a crash ----------------------------------------------------------------------------------------------

    def _recover(self, living: frozenset[str]) -> list[Orphan]:
        found = []
        for lease in self.shelf.all():
            if lease.state == "used" and lease.key in living and abandoned(lease):
                found.append(self._take_over(lease))
            elif lease.state in ("filling", "used") and abandoned(lease):
                found.append(self._orphan(lease))
            elif lease.state == "free" and not self.shelf.is_there(lease.slot):
                self._drop(lease)
            elif lease.state == "free" and lease.git_dir:
                self.backend.repair(self._slot(lease))
        problem = "no lease says whose it is; left alone"
        lost = self.shelf.without_lease()
        return found + [Orphan(key="", path=str(path), snapshot=None, problem=problem) for path in lost]

    def _take_over(self, lease: Lease) -> Orphan:
        self.shelf.own(lease)
        self.shelf.write(lease)
        path = str(self.shelf.path(lease.slot))
        workspace = Workspace(key=lease.key, path=path, commit=lease.base, branch=lease.branch, slot=lease.slot)
        return Orphan(key=lease.key, path=path, snapshot=None, workspace=workspace)

    def _orphan(self, lease: Lease) -> Orphan:
        key, path, problem, snapshot = lease.key, self.shelf.path(lease.slot), "", None
        if lease.state == "filling":
            problem = "it was being made ready, nobody had worked in it"
            self._take_back(lease) if lease.git_dir and self.shelf.is_there(lease.slot) else self._drop(lease)
        elif lease.purpose == "check":
            self._free(lease)
        else:
            try:
                slot = self._slot(lease)
                self.backend.repair(slot)
                mend(slot, self.shelf.mark(lease.slot).stat().st_mtime_ns)
                snapshot = self._keep(
                    lease, f"work of {lease.key}, found after a crash", {"Shopfloor-Attempt": lease.key}
                )
                problem = lease.note
                self._retire(lease, lease.note) if lease.note else self._free(lease)
            except (GitError, Conflict, OSError) as error:
                problem = f"it could not be kept: {error}"
                self._retire(lease, problem)
        return Orphan(key=key, path=str(path), snapshot=snapshot, problem=problem)

    def _drop(self, lease: Lease) -> None:
        self.backend.remove(self.shelf.path(lease.slot), lease.git_dir)
        self.shelf.forget(lease.slot)
