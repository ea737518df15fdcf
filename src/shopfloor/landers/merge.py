"""Landing by two-parent merges on a ref of ours, and the user's branch as its mirror."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping

from shopfloor.domain.errors import Refused
from shopfloor.git import NAME, Git, GitError, RefMoved, shown
from shopfloor.landers._checkout import advance
from shopfloor.ports import Landed, Mirrored, Proposal, Target


class MergeLander:
    """The port Lander. No working tree is touched but for a fast-forward of the user's clean checkout."""

    def __init__(self, git: Git) -> None:
        self.git = git

    async def tip(self, target: Target, *, start: str = "") -> str:
        """Where the target stands.

        With ``start`` it is created there, or brought forward when the user's branch has moved on past it. Raises
        Refused when both have commits that the other lacks.
        """
        return await asyncio.to_thread(self._tip, target, start)

    async def propose(self, onto: str, commit: str, *, message: str, trailers: Mapping[str, str]) -> Proposal:
        """A two-parent merge, or ``onto`` itself when it holds the commit already."""
        try:
            return await self._propose(onto, commit, message, trailers)
        except GitError as problem:
            if problem.disk is None:
                raise
            raise problem.disk from problem

    async def _propose(self, onto: str, commit: str, message: str, trailers: Mapping[str, str]) -> Proposal:
        merging = asyncio.to_thread(self.git.merge_tree, onto, commit)
        looking = asyncio.to_thread(self.git.trees_and_authors, onto, commit)
        merge, ((tree, _), (_, author)) = await asyncio.gather(merging, looking)
        if merge.conflicts:
            paths = tuple(map(shown, merge.conflicts))
            return Proposal(commit="", tree="", onto=onto, conflicts=paths, message=merge.said)
        if merge.tree == tree and await asyncio.to_thread(self.git.is_ancestor, commit, onto):
            return Proposal(commit=onto, tree=tree, onto=onto, message="it is part of the target already")
        made = await asyncio.to_thread(
            self.git.commit_tree, merge.tree, [onto, commit], message, author=author or NAME, trailers=trailers
        )
        return Proposal(commit=made, tree=merge.tree, onto=onto, message=message)

    async def bundle(self, onto: str, top: Proposal, *, message: str, trailers: Mapping[str, str]) -> Proposal:
        """One commit whose first parent is ``onto`` and whose second is the top of the stack."""
        parents = [onto, top.commit]
        made = await asyncio.to_thread(self.git.commit_tree, top.tree, parents, message, trailers=trailers)
        return Proposal(commit=made, tree=top.tree, onto=onto, message=message)

    async def land(self, target: Target, *, old: str, new: str) -> Landed:
        """Move the target when it stands at ``old``; an empty ``old``: when it does not exist."""
        return await asyncio.to_thread(self._land, target, old, new)

    async def mirror(self, target: Target, *, old: str, new: str) -> Mirrored:
        """Advance the user's branch, or say why it is left alone."""
        return await asyncio.to_thread(advance, self.git, target, old, new)

    def _tip(self, target: Target, start: str) -> str:
        now = self.git.read_ref(target.ref)
        if not start or now == start:
            return now
        if now and self.git.is_ancestor(start, now):
            return now  # what landed earlier and was not taken over into the branch yet
        if now and not self.git.is_ancestor(now, start):
            text = f"{target.branch!r} and what has landed for it have both moved on: {start[:12]} and {now[:12]}"
            raise Refused(text, hint=f"git merge {target.ref}   (takes over what has landed)")
        try:
            self.git.update_ref(target.ref, start, old=now, reason="shopfloor: follows the branch")
        except RefMoved as moved:
            return moved.observed
        return start

    def _land(self, target: Target, old: str, new: str) -> Landed:
        try:
            self.git.update_ref(target.ref, new, old=old, reason="shopfloor: land")
        except RefMoved as moved:
            # Landing again what has landed is no news: after a crash the caller asks for the same move once more.
            return Landed(moved=moved.observed == new, observed=moved.observed, by_others=moved.observed != new)
        observed = self.git.read_ref(target.ref)
        return Landed(moved=observed == new, observed=observed, by_others=observed != new)
