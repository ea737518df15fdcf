"""After a crash: find out what became of what was under way, say so in the log, and leave the rest to the rules."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from typing import Any, Protocol

import msgspec

from shopfloor.domain.board import Run
from shopfloor.domain.events import E
from shopfloor.domain.holder import holder_of
from shopfloor.domain.order import Attempt, Reason
from shopfloor.engine.facts import agent_id, bounded_names
from shopfloor.engine.hands import Back, release_data
from shopfloor.engine.journal import Draft, Journal
from shopfloor.engine.landing import LandingLane
from shopfloor.engine.toll import unpriced
from shopfloor.ports import Bill, Callers, Handle, Job, Orphan, Profile, Workspaces

EndProcess = Callable[[Attempt], Awaitable[bool]]
"""Ends a local process that outlived its controller; True when there was one."""


KILLED = "its controller was killed"
MOST_TOGETHER = 500
"""Lost calls that are written down at once."""

Living = Callable[[Handle], Awaitable[bool]]
"""Whether an agent goes on without the controller that started it, and can be followed."""

Billed = Callable[[Collection[str]], Awaitable[Mapping[str, Bill]]]
"""What the gateway's ledger has of these attempts."""


async def take_orphans(journal: Journal, workspaces: Workspaces, living: Collection[str]) -> list[Orphan]:
    """Snapshot every workspace that nobody lives in any more, and record where its work is kept."""
    orphans = await workspaces.recover(living)
    for orphan in orphans:
        if orphan.workspace is not None:
            continue
        kept = orphan.snapshot
        data = {
            "workspace": orphan.path, "key": orphan.key, "problem": orphan.problem,
            "ref": kept.ref if kept else "", "commit": kept.commit if kept else "",
        }  # fmt: skip
        await journal.commit(Draft(E.SNAPSHOT, data))
    return orphans


async def outliving(journal: Journal, living: Living) -> dict[str, Handle]:
    """The agents of earlier controllers that go on by themselves, by attempt."""
    found = {}
    for record in journal.floor.board.records.values():
        attempt = record.attempt
        if attempt is None or not record.live or not attempt.handle or holder_of(attempt) is not None:
            continue
        try:
            handle = msgspec.convert(attempt.handle, Handle)
        except msgspec.ValidationError:
            continue
        if await living(handle):
            found[attempt.id] = handle
    return found


async def outlived_jobs(
    journal: Journal, run: Run, orphans: list[Orphan], living: Mapping[str, Handle], *,
    profiles: Mapping[str, Profile], billed: Billed,
) -> list[Job]:  # fmt: skip
    """What is left to do of the attempts of this run whose agents go on. Their time limits begin anew."""
    homes = {orphan.key: orphan.workspace for orphan in orphans if orphan.workspace is not None}
    records = [journal.floor.board.records[order] for order in run.orders]
    bills = await billed(living) if living else {}
    jobs = []
    for record, attempt in ((r, r.attempt) for r in records if r.live):
        if attempt is None or attempt.id not in homes or attempt.id not in living:
            continue
        order, handle = record.order, living[attempt.id]
        name = order.agent or run.agent
        limit = order.timeout_s if order.timeout_s is not None else run.timeout_s
        jobs.append(
            Job(
                order=order, attempt=attempt.id, generation=attempt.generation, prompt="", base=attempt.base,
                branch=attempt.branch, profile=profiles.get(name) or Profile(name=name, driver=handle.driver),
                timeout_s=limit, silence_s=run.silence_s, idle_s=journal.floor.policy.idle_s, session=attempt.session,
                handle=handle, workspace=homes[attempt.id], spent=bills.get(attempt.id),
            )
        )  # fmt: skip
    return jobs


class Processes(Protocol):
    """What can be done about processes that are not ours any more, or never were."""

    @property
    def end_process(self) -> EndProcess: ...

    @property
    def callers(self) -> Callers: ...

    @property
    def billed(self) -> Billed: ...


async def end_lost_attempts(journal: Journal, run: Run, orphans: list[Orphan], processes: Processes) -> list[str]:
    """Close every attempt that its controller did not live to close. Returns the names of their orders.

    What a session holds outlives every controller, as long as the session itself lives; so do agents whose workspace
    was taken over as it is. What either has spent is what the ledger says, where the log was cut off before that.
    """
    kept = {orphan.key: orphan for orphan in orphans}
    names = await _end_lost_calls(journal, run)
    records = [journal.floor.board.records[order] for order in run.orders]
    live = [(record, record.attempt) for record in records if record.live and record.attempt is not None]
    bills = await processes.billed({attempt.id for _, attempt in live}) if live else {}
    for record, attempt in live:
        order, holder = record.order.id, holder_of(attempt)
        if holder is not None:
            if not processes.callers.alive(holder):
                back = Back(why=f"{holder.name} has ended")
                data = release_data(order, record.generation, holder, back, lost=True)
                await journal.commit(Draft(E.RELEASED, data), run=run.id)
            continue
        bill = bills.get(attempt.id, Bill())
        data = {"work_order_id": order, "generation": record.generation, "agent": agent_id(record)}
        data |= booked(attempt, bill)
        if (orphan := kept.get(attempt.id)) is not None and orphan.workspace is not None:
            if bill.calls:
                await journal.commit(Draft(E.AGENT_USAGE, data, agent_id(record)), run=run.id)
            continue
        outlived = await processes.end_process(attempt)
        text = KILLED + ("; the agent was still running and was ended" if outlived else "")
        data |= _lost(attempt, text, orphan, unpriced(bill))
        await journal.commit(Draft(E.AGENT_STOPPED, data), run=run.id)
        names.append(record.order.name)
    return names


def booked(attempt: Attempt, bill: Bill) -> dict[str, Any]:
    """What an attempt has spent in all. The ledger has each call as it ends, the log their sum once a second.

    Both are sums of the whole attempt, so the larger one counts, and nothing twice.
    """
    cost = attempt.cost_usd
    if bill.calls and bill.cost_usd is not None:
        cost = max(bill.cost_usd, cost or 0.0)
    return {
        "cost_usd": cost, "tokens_in": max(attempt.tokens_in, bill.tokens_in),
        "tokens_out": max(attempt.tokens_out, bill.tokens_out), "steps": attempt.steps, "session": attempt.session,
    }  # fmt: skip


async def _end_lost_calls(journal: Journal, run: Run) -> list[str]:
    """The same for calls, of which there may have been very many: nothing of them is left anywhere."""
    records = [journal.floor.board.records[order] for order in run.orders]
    lost = [(r, r.attempt) for r in records if r.live and r.attempt is not None and r.attempt.call]
    for first in range(0, len(lost), MOST_TOGETHER):
        ends = []
        for record, attempt in lost[first : first + MOST_TOGETHER]:
            data = {"work_order_id": record.order.id, "generation": record.generation, "agent": agent_id(record)}
            ends.append(Draft(E.AGENT_STOPPED, data | _lost(attempt, KILLED, None, ())))
        await journal.commit(*ends, run=run.id)
    return [record.order.name for record, _ in lost]


def _lost(attempt: Attempt, text: str, orphan: Orphan | None, notes: Sequence[str]) -> dict[str, Any]:
    data: dict[str, Any] = {
        "reason": Reason.LOST.value, "exit_code": None, "outcome": Reason.LOST.value, "message": text,
        "started": attempt.started_at is not None,
    }  # fmt: skip
    kept = orphan.snapshot if orphan else None
    if kept is not None:
        data |= {"commit": kept.commit, "tree": kept.tree, "base": kept.base, "files": bounded_names(kept.files)}
        notes = [f"what it had done is kept on {attempt.branch} ({kept.ref})", *kept.notes, *notes]
    elif orphan is not None:
        what = f"its workspace {orphan.path} could not be kept whole and was left as it is: {orphan.problem}"
        notes = [what, *notes]
    return {**data, "notes": bounded_names(notes)} if notes else data


async def follow_later_runs(journal: Journal, lane: LandingLane, run: Run) -> None:
    """A run that is taken up again after others have landed on its target: their moves were no stranger's."""
    tip = await lane.lander.tip(lane.target())
    others = [r for r in journal.floor.board.runs.values() if r.id != run.id and r.ref == run.ref and r.tip == tip]
    if not others or tip == run.tip:
        return
    later = others[-1]
    data = {"ref": run.ref, "from": run.tip, "to": tip, "by": "shopfloor", "why": f"{later.id} has landed there"}
    await journal.commit(Draft(E.TARGET_MOVED, {**data, "passed": sorted(later.passed_on(tip))}))
    await journal.commit(Draft(E.MIRROR_ADVANCED, {"branch": run.branch, "to": later.mirror}))


async def finish_moves(journal: Journal, lane: LandingLane, run: Run) -> None:
    """Settle a landing and a move of the user's branch that were cut off, by looking where the refs stand."""
    if not run.ref:
        return  # nothing of it lands anywhere
    plan = run.planned
    if plan:
        tip = await lane.lander.tip(lane.target())
        if tip == plan.get("new"):
            await lane.confirm(plan)
        elif tip != plan.get("old"):
            why = f"{run.ref} was moved to {tip[:12]} by somebody else while no controller was alive"
            data = {"ref": run.ref, "from": run.tip, "to": run.tip, "by": "unknown", "why": why}
            await journal.commit(Draft(E.TARGET_MOVED, data))
    else:
        await follow_later_runs(journal, lane, run)
    # A red commit that somebody else has put on the target goes no further through us.
    if run.passed_on(run.mirror) <= run.passed_on(run.tip):
        await lane.mirror()
