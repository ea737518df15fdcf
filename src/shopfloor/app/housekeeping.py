"""What is not needed any more: only what can be found again elsewhere is ever dropped."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import msgspec

from shopfloor.app.attaching import end_unowned, unowned
from shopfloor.app.wiring import Place, workspaces
from shopfloor.domain.board import Board, at_rest
from shopfloor.domain.errors import Conflict
from shopfloor.git import Git
from shopfloor.spawn import Guard
from shopfloor.stores.workdir import controller_alive


class Dropped(msgspec.Struct, frozen=True, kw_only=True):
    """One thing that is (or would be) dropped, and why nothing is lost by it."""

    what: str
    where: str
    why: str
    size_bytes: int = 0


async def collect(place: Place, board: Board, *, apply: bool) -> list[Dropped]:
    """Merged branches and refs, free workspaces, sessions that nobody owns. Raises Conflict beside a controller."""
    alive = controller_alive(place.work)
    if alive:
        raise Conflict(
            f"a controller is alive (pid {alive.get('pid')})", hint="wait for it, or stop it with `shopfloor stop`"
        )
    sessions = await unowned(place, board)
    if apply:
        for name in sessions:
            await end_unowned(place, name)
    why = "it belongs to no order under way"
    ended = [Dropped(what="session", where=name, why=why) for name in sessions]
    if place.repository is None:
        return ended  # orders for answers leave no branch and no workspace
    work = place.git()
    refs = list(_merged_refs(work, board))
    async with Guard() as guard:
        pool = workspaces(place, guard)
        slots = [] if board.unfinished() is not None else [_free(path) for path in pool.free_slots()]
        if apply:
            work.update_refs({ref: ("", commit) for ref, commit, _ in refs}, reason="shopfloor gc: merged")
            gone = set(await pool.drop_free()) if slots else set()
            # Late work may have kept one of them: what is said to be removed is what is gone.
            slots = [slot for slot in slots if Path(slot.where) in gone]
    return [*(found for _, _, found in refs), *slots, *ended]


def _merged_refs(work: Git, board: Board) -> Iterator[tuple[str, str, Dropped]]:
    """Attempts' branches and refs that are ancestors of a user's branch: their commits stay reachable through it."""
    branches = {run.branch for run in board.runs.values() if run.branch}
    heads = [tip for branch in branches if (tip := work.read_ref(f"refs/heads/{branch}"))]
    busy = {a.branch for r in board.records.values() if not at_rest(r, board.run_of(r)) for a in r.attempts}
    for ref, commit in work.refs("refs/heads/shopfloor/", "refs/shopfloor/attempts/").items():
        if ref.removeprefix("refs/heads/") in busy:
            continue
        if any(work.is_ancestor(commit, head) for head in heads):
            what = "branch" if ref.startswith("refs/heads/") else "ref"
            yield ref, commit, Dropped(what=what, where=ref, why="its commits are part of your branch")


def _free(slot: Path) -> Dropped:
    why = "free; a new one is made when it is needed"
    return Dropped(what="workspace", where=str(slot), why=why, size_bytes=_size(slot))


def _size(folder: Path) -> int:
    return sum(path.lstat().st_size for path in folder.rglob("*") if not path.is_dir() or path.is_symlink())
