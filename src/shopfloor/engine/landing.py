"""The landing lane: one batch at a time, from verified commits to the target.

A batch is a stack of merges that exist as objects only. Its tip is tested; when it is red, halving finds the first
merge that makes it red, what stands below lands, that one goes back, the rest queues again. The target moves by
compare-and-swap, only to a tree that was itself verified, and an order is landed only when the ref was seen there.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from shopfloor.domain.board import Run
from shopfloor.domain.errors import NotFound, Refused, ShopfloorError
from shopfloor.domain.events import E
from shopfloor.domain.names import one_line
from shopfloor.domain.order import Reason, Record
from shopfloor.domain.verdict import Check, Decision, Verdict
from shopfloor.engine.attempt import trailers
from shopfloor.engine.facts import bounded, bounded_names
from shopfloor.engine.journal import Draft, Journal
from shopfloor.ports import CheckJob, Lander, Mirrored, Proposal, Target, Verifier


class _Merge(NamedTuple):
    record: Record
    proposal: Proposal


class LandingLane:
    """Lands batches of verified orders."""

    def __init__(self, journal: Journal, *, verifier: Verifier, lander: Lander, evidence: str) -> None:
        self.journal = journal
        self.verifier = verifier
        self.lander = lander
        self.evidence = evidence
        self._moving: asyncio.Task[None] | None = None
        self._mirroring = asyncio.Lock()
        self._tests = 0

    @property
    def _run(self) -> Run:
        run = self.journal.floor.run
        if run is None:
            raise NotFound("no run is open", hint="start one with `shopfloor run`")
        return run

    def target(self) -> Target:
        """Where this run lands."""
        return Target(branch=self._run.branch, ref=self._run.ref)

    async def rest(self) -> None:
        """Wait until no ref is being moved."""
        if self._moving is not None:
            await asyncio.wait({self._moving})

    async def land(self, orders: Sequence[str]) -> None:
        """Take one batch as far as it goes: every order ends as landed, refused with a reason, or queued again."""
        records = [self.journal.floor.board.records[o] for o in orders]
        tip, diverged = await self._tip()
        await self.journal.commit(
            *(Draft(E.LANDING_STARTED, {**_of(r), "commit": r.commit, "onto": tip}) for r in records)
        )
        if tip != self._run.tip and not await self._accept_move(tip, diverged=diverged):
            await self._again(records, "the target was moved by somebody else")
            return
        stack = await self._stack(tip, records)
        if not stack:
            return
        good, verdict = await self._test(stack, tip)
        if good:
            await self._move(stack[:good], tip, verdict)
        if good < len(stack):
            await self._again([m.record for m in stack[good + 1 :]], "its batch was split")

    async def _tip(self) -> tuple[str, bool]:
        """Where the target stands, and whether somebody has put it where it lacks what has landed."""
        try:
            # A ref that somebody has deleted or set back is put where we last saw it: that was verified.
            return await self.lander.tip(self.target(), start=self._run.tip), False
        except Refused:
            return await self.lander.tip(self.target()), True

    async def _stack(self, tip: str, records: Sequence[Record]) -> list[_Merge]:
        stack: list[_Merge] = []
        onto = tip
        for record in records:
            attempt = record.attempt
            order = record.order
            try:
                proposal = await self.lander.propose(
                    onto, record.commit, message=one_line(f"Merge {order.name}: {order.title}"),
                    trailers=trailers(order.id, attempt.id if attempt else "", attempt.agent if attempt else ""),
                )  # fmt: skip
            except ShopfloorError as problem:
                # One commit that git cannot merge must not keep all the others from landing, now and ever after.
                await self._refuse(record, Reason.ERROR, f"it could not be merged: {problem.message}")
                continue
            if proposal.conflicts:
                paths = ", ".join(bounded_names(proposal.conflicts))
                text = f"conflict with what has landed since: {paths}\n{proposal.message}".rstrip()
                await self._refuse(record, Reason.CONFLICT, text, files=proposal.conflicts)
                continue
            stack.append(_Merge(record, proposal))
            onto = proposal.commit
        return stack

    async def _test(self, stack: list[_Merge], tip: str) -> tuple[int, Verdict | None]:
        """How many merges from the bottom are good, and the verdict on the last of them. Refuses the first bad one."""
        if len(stack) == 1 and stack[0].proposal.tree == stack[0].record.tree:
            return 1, None  # this very tree was verified for this order
        verdict = await self._check(stack, tip)
        if verdict.decision is Decision.PASS:
            return len(stack), verdict
        good, bad = 0, len(stack)
        verdicts = {bad: verdict}
        while bad - good > 1:
            middle = (good + bad) // 2
            verdicts[middle] = await self._check(stack[:middle], tip)
            if verdicts[middle].decision is Decision.PASS:
                good = middle
            else:
                bad = middle
        text = "on top of what has landed since: " + verdicts[bad].findings
        await self._refuse(stack[bad - 1].record, Reason.CHECKS, text)
        return good, verdicts.get(good)

    async def _check(self, stack: list[_Merge], tip: str) -> Verdict:
        self._tests += 1
        run, top = self._run, stack[-1].proposal
        green = run.passed_on(tip)
        own = dict.fromkeys(c for m in stack for c in m.record.order.checks)
        checks = [Check(command=c, own=True) for c in own]
        checks += [Check(command=c, passed_on_base=c in green) for c in run.checks if c not in own]
        folder = Path(self.evidence, run.id, f"tip.{run.sessions}.{self._tests}")
        job = CheckJob(
            key=f"{run.id}.tip.{self._tests}", commit=top.commit, tree=top.tree, base=tip,
            checks=tuple(checks), evidence=str(folder), fail_fast=True,
        )  # fmt: skip
        verdict = await self.verifier.check(job)
        for _ in range(1, self.journal.floor.policy.verifications):
            if verdict.decision is Decision.UNSURE:
                verdict = await self.verifier.check(job)  # nobody goes back because a check could not be run
        return verdict

    async def _move(self, stack: list[_Merge], tip: str, verdict: Verdict | None) -> None:
        # From the plan to the last mirror this must not be cut in two by a stop; a kill is repaired at the next start.
        self._moving = asyncio.create_task(self._move_whole(stack, tip, verdict))
        await asyncio.shield(self._moving)

    async def _move_whole(self, stack: list[_Merge], tip: str, verdict: Verdict | None) -> None:
        top = stack[-1].proposal
        merges = [{"work_order_id": m.record.order.id, "commit": m.proposal.commit} for m in stack]
        passed = [r.command for r in verdict.results if r.passed] if verdict else list(stack[0].record.passed)
        plan: dict[str, object] = {
            "merges": merges, "old": tip, "new": top.commit, "tree": top.tree, "ref": self._run.ref, "passed": passed,
        }  # fmt: skip
        if top.commit != tip:
            await self.journal.commit(Draft(E.LANDING_PLANNED, plan))
            landed = await self.lander.land(self.target(), old=tip, new=top.commit)
            if not landed.moved:
                await self._again([m.record for m in stack], "the target was moved by somebody else")
                return
        await self.confirm(plan)
        await self.mirror()

    async def confirm(self, plan: dict[str, object]) -> None:
        """The ref was seen at the planned commit: say so for each order of the plan, as one change."""
        run = self._run
        known = [c for c in run.checks if c in set(_strings(plan.get("passed")))]
        merges = plan.get("merges")
        rows = merges if isinstance(merges, list) else []
        await self.journal.commit(
            *(
                Draft(E.LANDING_LANDED, {
                    "work_order_id": row["work_order_id"], "commit": row["commit"], "tree": plan["tree"],
                    "ref": plan["ref"], "from": plan["old"], "observed": plan["new"], "passed": known,
                })
                for row in rows
            )
        )  # fmt: skip

    async def mirror(self) -> None:
        """Try to bring the user's branch to where the target is; leave it alone, and say why, where it cannot be."""
        # The next batch may land meanwhile; its move of the branch begins where this one ends.
        async with self._mirroring:
            await self._mirror()

    async def _mirror(self) -> None:
        run = self._run
        if not run.mirror or not run.tip or run.mirror == run.tip:
            return
        await self.journal.commit(Draft(E.MIRROR_PLANNED, {"branch": run.branch, "from": run.mirror, "to": run.tip}))
        try:
            result = await self.lander.mirror(self.target(), old=run.mirror, new=run.tip)
        except (ShopfloorError, OSError) as problem:
            # What landed is safe on its ref; a branch that could not be brought along is a thing to be told, no more.
            result = Mirrored(moved=False, head=run.mirror, why=str(problem))
        if result.moved:
            await self.journal.commit(Draft(E.MIRROR_ADVANCED, {"branch": run.branch, "to": result.head}))
        else:
            data = {"branch": run.branch, "to": run.tip, "head": result.head, "why": result.why}
            await self.journal.commit(Draft(E.MIRROR_HELD, data))

    async def _accept_move(self, tip: str, *, diverged: bool) -> bool:
        """Somebody else moved the target: test what is there now before anything lands on it."""
        run = self._run
        self._tests += 1
        folder = Path(self.evidence, run.id, f"tip.{run.sessions}.{self._tests}")
        checks = tuple(Check(command=c, passed_on_base=c in run.passed_on(run.tip)) for c in run.checks)
        key = f"{run.id}.tip.{self._tests}"
        job = CheckJob(key=key, commit=tip, tree="", base="", checks=checks, evidence=str(folder))
        verdict = await self.verifier.check(job)
        green = verdict.decision is Decision.PASS
        why = f"{run.ref} was moved to {tip[:12]} by somebody else"
        if diverged:
            why += f", where it lacks {run.tip[:12]} that has landed"
        if not green:
            why += f" and is red there: {bounded(verdict.findings)}"
        passed = [r.command for r in verdict.results if r.passed]
        hold = diverged or not green
        data = {"ref": run.ref, "from": run.tip, "to": tip, "by": "unknown", "why": why, "hold": hold}
        await self.journal.commit(Draft(E.TARGET_MOVED, {**data, "passed": passed}))
        return not hold

    async def _again(self, records: Sequence[Record], why: str) -> None:
        if records:
            await self.journal.commit(
                *(Draft(E.LANDING_REFUSED, {**_of(r), "again": True, "message": why}) for r in records)
            )

    async def _refuse(self, record: Record, reason: Reason, text: str, *, files: Sequence[str] = ()) -> None:
        data = {**_of(record), "reason": reason.value, "message": bounded(text), "files": bounded_names(files)}
        await self.journal.commit(Draft(E.LANDING_REFUSED, data))


def _of(record: Record) -> dict[str, object]:
    return {"work_order_id": record.order.id, "generation": record.generation}


def _strings(value: object) -> list[str]:
    return [v for v in value if isinstance(v, str)] if isinstance(value, list) else []
