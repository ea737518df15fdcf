"""The landing lane: one batch at a time, from verified commits to the target.

A batch is a stack of merges that exist as objects only, and it reaches the target as one step: a commit with the old
tip as its first parent and the stack as its second, so that whoever follows first parents meets tested commits only.
That very commit is tested; when it is red, halving finds the first merge that makes it so, what stands below lands,
that one goes back, the rest queues again. Nobody goes back for a check that is green when it is run again there.
The target moves by compare-and-swap, and an order is landed only when the ref was seen there.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from shopfloor.domain.board import Run
from shopfloor.domain.errors import NotFound, Refused, ShopfloorError
from shopfloor.domain.events import E
from shopfloor.domain.halving import Halving
from shopfloor.domain.names import few, one_line
from shopfloor.domain.order import Reason, Record
from shopfloor.domain.verdict import Check, Decision, Verdict
from shopfloor.engine.facts import bounded, bounded_names, said, trailers
from shopfloor.engine.journal import Draft, Journal
from shopfloor.ports import CheckJob, Lander, Mirrored, Proposal, Target, Verifier


class _Merge(NamedTuple):
    record: Record
    proposal: Proposal


class _Stack(NamedTuple):
    """What of a batch could be merged, from the bottom up, and what is in the way of what stands below it."""

    tip: str
    merges: list[_Merge]
    aside: list[Record]


class _Found(NamedTuple):
    """How far up a stack is good, the step that was tested for it, and why nothing above lands with it."""

    good: int
    step: Proposal | None
    passed: Sequence[str]
    bad: Verdict | None = None


class LandingLane:
    """Lands batches of verified orders."""

    def __init__(self, journal: Journal, *, verifier: Verifier, lander: Lander, evidence: str) -> None:
        self.journal = journal
        self.verifier = verifier
        self.lander = lander
        self.evidence = evidence
        self._moving: set[asyncio.Task[None]] = set()
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
        if self._moving:
            await asyncio.wait(self._moving)

    async def land(self, orders: Sequence[str]) -> None:
        """Take one batch as far as it goes: every order ends as landed, refused with a reason, or queued again."""
        records = [self.journal.floor.board.records[o] for o in orders]
        tip, diverged = await self._tip()
        await self.journal.commit(
            *(
                Draft(E.LANDING_STARTED, {**_of(r), "commit": r.commit, "onto": tip, "place": place})
                for place, r in enumerate(records)
            )
        )
        if tip != self._run.tip and not await self._accept_move(tip, diverged=diverged):
            await self._again(records, "the target was moved by somebody else", hold=True)
            return
        stack = await self._stack(tip, records)
        if stack.merges:
            found = await self._search(stack)
            # From the plan to the last mirror this must not be cut in two by a stop; a kill is repaired at the next
            # start.
            moving = asyncio.create_task(self._finish(stack, found))
            self._moving.add(moving)
            moving.add_done_callback(self._moving.discard)
            await asyncio.shield(moving)

    async def _tip(self) -> tuple[str, bool]:
        """Where the target stands, and whether somebody has put it where it lacks what has landed."""
        try:
            # A ref that somebody has deleted or set back is put where we last saw it: that was verified.
            return await self.lander.tip(self.target(), start=self._run.tip), False
        except Refused:
            return await self.lander.tip(self.target()), True

    # -- merging ----------------------------------------------------------------------------------------------------

    async def _stack(self, tip: str, records: Sequence[Record]) -> _Stack:
        merges: list[_Merge] = []
        aside: list[Record] = []
        onto = tip
        for record in records:
            proposal = await self._propose(onto, record)
            if proposal is None:
                continue
            if not proposal.conflicts:
                merges.append(_Merge(record, proposal))
                onto = proposal.commit
            elif onto == tip:
                await self._refuse_conflict(record, proposal)
            else:
                aside.append(record)  # what stands in its way may be found bad yet
        return _Stack(tip, merges, aside)

    async def _propose(self, onto: str, record: Record) -> Proposal | None:
        order, attempt = record.order, record.attempt
        try:
            return await self.lander.propose(
                onto, record.commit, message=one_line(f"Merge {order.name}: {order.title}"),
                trailers=trailers(order.id, attempt.id if attempt else "", attempt.agent if attempt else ""),
            )  # fmt: skip
        except ShopfloorError as problem:
            # One commit that git cannot merge must not keep all the others from landing, now and ever after. A disk
            # that takes nothing (OSError) is nobody's fault: that ends the session, and the next one merges again.
            await self._refuse(record, Reason.ERROR, f"it could not be merged: {problem.message}")
            return None

    async def _step(self, merges: Sequence[_Merge], tip: str) -> Proposal:
        """The one commit that takes the target from its tip to the top of these merges."""
        top = merges[-1].proposal
        if len({m.proposal.commit for m in merges} - {tip}) <= 1:
            return top
        orders = [m.record.order for m in merges]
        text = f"Merge {len(orders)} orders: {few([o.name for o in orders])}\n\n"
        body = "".join(f"- {o.name} ({m.proposal.commit[:12]})\n" for o, m in zip(orders, merges, strict=True))
        known = {"Shopfloor-Orders": ", ".join(o.id for o in orders)}
        return await self.lander.bundle(tip, top, message=text + body, trailers=known)

    # -- testing ----------------------------------------------------------------------------------------------------

    async def _search(self, stack: _Stack) -> _Found:
        """Test the whole stack; when it is red, halve until it is known how far from the bottom it is good."""
        merges, tip = stack.merges, stack.tip
        if len(merges) == 1 and merges[0].proposal.tree == merges[0].record.tree:
            return _Found(1, merges[0].proposal, merges[0].record.passed)  # this very tree was verified for this order
        steps: dict[int, Proposal] = {0: Proposal(commit=tip, tree="", onto=tip)}
        verdicts: dict[int, Verdict] = {}
        search = Halving(len(merges))
        while (asked := search.next()) is not None:
            height, known, base = asked.height, None, ""
            if asked.again:
                known = verdicts[height]
                # Where a suspect's failure is looked for too before it is blamed; a green test below has shown it.
                base = steps[search.good].commit if known.problem or not search.good else ""
            else:
                steps[height] = await self._step(merges[:height], tip)
            verdicts[height] = await self._check(merges[:height], tip, steps[height], known=known, base=base)
            search.told(green=verdicts[height].decision is Decision.PASS)
        good = search.good
        return _Found(good, steps[good], _passed(verdicts.get(good)), verdicts.get(search.blamed))

    async def _check(
        self, merges: Sequence[_Merge], tip: str, step: Proposal, *, known: Verdict | None = None, base: str = ""
    ) -> Verdict:
        """Test one step. With what is ``known`` of it, only what was red there; nobody is blamed before that."""
        run, policy = self._run, self.journal.floor.policy
        green = run.passed_on(tip)
        own = dict.fromkeys(c for m in merges for c in m.record.order.checks)
        checks = [Check(command=c, own=True) for c in own]
        checks += [Check(command=c, passed_on_base=c in green) for c in run.checks if c not in own]
        orders = [m.record.order.id for m in merges]
        before = known.results if known else ()
        again = policy.confirmations if known else 0
        for _ in range(max(1, policy.verifications)):
            self._tests += 1
            folder = Path(self.evidence, run.id, f"tip.{run.sessions}.{self._tests}")
            job = CheckJob(
                key=f"{run.id}.tip.{self._tests}", commit=step.commit, tree=step.tree, base=base, known=before,
                checks=tuple(checks), evidence=str(folder), fail_fast=True, again=again,
            )  # fmt: skip
            verdict = await self.verifier.check(job)
            await self.journal.commit(Draft(E.LANDING_TESTED, _tested(verdict, tip, orders, str(folder))))
            if verdict.decision is not Decision.UNSURE:
                break  # nobody goes back because a check could not be run
        return verdict

    # -- moving -----------------------------------------------------------------------------------------------------

    async def _finish(self, stack: _Stack, found: _Found) -> None:
        """Land what is good, then deal with the rest of the batch: nobody is refused over what did not land."""
        merges = stack.merges
        step = found.step if found.good else None
        if step is not None and not await self._move(merges[: found.good], stack.tip, step, found.passed):
            moved = "the target was moved by somebody else"
            await self._again([*(m.record for m in merges), *stack.aside], moved)
            return
        left = [m.record for m in merges[found.good :]]
        if found.bad is not None and found.bad.decision is Decision.UNSURE:
            await self._hold([*left, *stack.aside], found.bad)
        else:
            if found.bad is not None:
                text = "on top of what has landed since: " + found.bad.findings
                await self._refuse(left.pop(0), Reason.CHECKS, text)
            await self._again(left, "its batch was split")
            await self._try_aside(stack.aside)
        if step is not None:
            await self.mirror()

    async def _move(self, merges: Sequence[_Merge], tip: str, step: Proposal, passed: Sequence[str]) -> bool:
        rows = [{"work_order_id": m.record.order.id, "commit": m.proposal.commit} for m in merges]
        plan: dict[str, object] = {
            "merges": rows, "old": tip, "new": step.commit, "tree": step.tree, "ref": self._run.ref,
            "passed": list(passed),
        }  # fmt: skip
        if step.commit != tip:
            await self.journal.commit(Draft(E.LANDING_PLANNED, plan))
            landed = await self.lander.land(self.target(), old=tip, new=step.commit)
            if not landed.moved:
                return False
        await self.confirm(plan)
        return True

    async def _try_aside(self, records: Sequence[Record]) -> None:
        """Those that conflicted with others of their batch, against what of it has landed."""
        free = []
        for record in records:
            proposal = await self._propose(self._run.tip, record)
            if proposal is not None and proposal.conflicts:
                await self._refuse_conflict(record, proposal)
            elif proposal is not None:
                free.append(record)
        await self._again(free, "what it conflicted with did not land")

    async def _hold(self, records: Sequence[Record], verdict: Verdict) -> None:
        """The checks cannot tell, or are red on the target too: nobody is blamed, and nothing lands on it."""
        red = [r.command for r in verdict.results if r.required and not r.passed]
        why = verdict.problem or f"{few(red)} has become red on {self._run.ref} too, where it was green"
        why = bounded(f"{why}; when it is mended: shopfloor land")
        data = {"why": why, "evidence": verdict.results[-1].log if verdict.results else ""}
        again = [{**_of(r), "again": True, "hold": True, "message": why} for r in records]
        await self.journal.commit(Draft(E.LANDING_HELD, data), *(Draft(E.LANDING_REFUSED, d) for d in again))

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
        tip = run.tip
        await self.journal.commit(Draft(E.MIRROR_PLANNED, {"branch": run.branch, "from": run.mirror, "to": tip}))
        try:
            result = await self.lander.mirror(self.target(), old=run.mirror, new=tip)
        except (ShopfloorError, OSError) as problem:
            # What landed is safe on its ref; a branch that could not be brought along is a thing to be told, no more.
            why = f"{said(problem)}; take the result with: git merge {run.ref}"
            result = Mirrored(moved=False, head=run.mirror, why=why)
        if result.moved:
            await self.journal.commit(Draft(E.MIRROR_ADVANCED, {"branch": run.branch, "to": result.head}))
        else:
            data = {"branch": run.branch, "to": tip, "head": result.head, "why": result.why}
            await self.journal.commit(Draft(E.MIRROR_HELD, data))

    async def _accept_move(self, tip: str, *, diverged: bool) -> bool:
        """Somebody else moved the target: test what is there now before anything lands on it."""
        run = self._run
        self._tests += 1
        folder = Path(self.evidence, run.id, f"tip.{run.sessions}.{self._tests}")
        checks = tuple(Check(command=c, passed_on_base=c in run.passed_on(run.tip)) for c in run.checks)
        key = f"{run.id}.tip.{self._tests}"
        job = CheckJob(
            key=key, commit=tip, tree="", base="", checks=checks, evidence=str(folder),
            again=self.journal.floor.policy.confirmations,
        )  # fmt: skip
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

    async def _again(self, records: Sequence[Record], why: str, *, hold: bool = False) -> None:
        if records:
            await self.journal.commit(
                *(Draft(E.LANDING_REFUSED, {**_of(r), "again": True, "hold": hold, "message": why}) for r in records)
            )

    async def _refuse_conflict(self, record: Record, proposal: Proposal) -> None:
        paths = ", ".join(bounded_names(proposal.conflicts))
        text = f"conflict with what has landed since: {paths}\n{proposal.message}".rstrip()
        await self._refuse(record, Reason.CONFLICT, text, files=proposal.conflicts)

    async def _refuse(self, record: Record, reason: Reason, text: str, *, files: Sequence[str] = ()) -> None:
        data = {**_of(record), "reason": reason.value, "message": bounded(text), "files": bounded_names(files)}
        await self.journal.commit(Draft(E.LANDING_REFUSED, data))


def _of(record: Record) -> dict[str, object]:
    return {"work_order_id": record.order.id, "generation": record.generation}


def _strings(value: object) -> list[str]:
    return [v for v in value if isinstance(v, str)] if isinstance(value, list) else []


def _passed(verdict: Verdict | None) -> list[str]:
    return [r.command for r in verdict.results if r.passed] if verdict else []


def _tested(verdict: Verdict, tip: str, orders: Sequence[str], folder: str) -> dict[str, object]:
    required = [r for r in verdict.results if r.required]
    return {
        "commit": verdict.commit, "tree": verdict.tree, "onto": tip, "orders": list(orders), "evidence": folder,
        "verdict": verdict.decision.value.upper(), "problem": bounded(verdict.problem),
        "passed": _passed(verdict), "failed": [r.command for r in required if not r.passed],
        "flaky": [r.command for r in verdict.results if r.flaky],
        "duration_s": round(sum(r.duration_s for r in verdict.results), 3),
    }  # fmt: skip
