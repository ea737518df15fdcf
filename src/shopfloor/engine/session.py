"""A controller's session: become the one controller, repair what the last one left, perform a run."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec

from shopfloor.domain.admission import Load
from shopfloor.domain.board import Run, creation
from shopfloor.domain.errors import NotFound, Refused
from shopfloor.domain.events import E, Event
from shopfloor.domain.names import few
from shopfloor.domain.order import Order
from shopfloor.domain.report import Report, build
from shopfloor.domain.verdict import Check, CheckResult, Verdict
from shopfloor.engine.controller import Controller, More, Settings
from shopfloor.engine.journal import Draft, Journal
from shopfloor.engine.recovery import (
    Billed,
    EndProcess,
    Living,
    end_lost_attempts,
    finish_moves,
    outlived_jobs,
    outliving,
    take_orphans,
)
from shopfloor.engine.requests import answer_to, turn_away
from shopfloor.engine.toll import Toll
from shopfloor.ports import Callers, CheckJob, Door, Handle, Lander, Orphan, Runner, Target, Verifier, Workspaces


class Tools(msgspec.Struct, frozen=True, kw_only=True):
    """The ports of one session."""

    runner: Runner
    toll: Toll
    """the gateway; ended with the session"""
    verifier: Verifier
    lander: Lander
    workspaces: Workspaces
    end_process: EndProcess
    living: Living
    billed: Billed
    load: Callable[[], Load]
    door: Door
    """by which other processes speak to it while it performs a run"""
    callers: Callers
    """tells who speaks, and whether a session that holds orders still lives"""
    say: Callable[[str], None]
    """tells a person what goes on before the first event is there"""


class Start(msgspec.Struct, frozen=True, kw_only=True):
    """What a new run is begun with."""

    run: str
    target: Target | None
    """None: all of its orders are calls, so nothing is checked out and nothing lands"""
    head: str
    """where the user's branch stands"""
    orders: tuple[Order, ...]
    options: dict[str, Any]
    """fields of Run: land, checks, agent, max_parallel, timeout_s, silence_s, budget_usd, setup, skipped_checks"""
    allow_red: bool = False


class Session:
    """One controller's life in one repository."""

    def __init__(self, journal: Journal, tools: Tools, settings: Settings) -> None:
        self.journal = journal
        self.tools = tools
        self.settings = settings
        self.orphans: list[Orphan] = []
        self.outliving: dict[str, Handle] = {}
        """agents that went on without a controller, by attempt"""
        self._controller: Controller | None = None
        self._stop_early = ""
        self._base_check: asyncio.Task[Verdict] | None = None

    async def lead(self, info: Mapping[str, Any]) -> None:
        """Become the controller and take the state in. Raises Conflict when another one is alive."""
        journal = self.journal
        journal.generation = await journal.store.lead(info)
        await journal.take_stock()
        await turn_away(journal)
        self.outliving = await outliving(journal, self.tools.living)
        self.orphans = await take_orphans(journal, self.tools.workspaces, self.outliving)

    def stop(self, why: str) -> None:
        """End the session early; what runs is stopped and kept."""
        self._stop_early = why
        if self._controller is not None:
            self._controller.stop(why)
        elif self._base_check is not None:
            self._base_check.cancel()

    async def ask(self, draft: Draft) -> Event:
        """The answer to a request of this process. Raises Refused when none comes in time."""
        serve = self._controller.desk.serve if self._controller is not None else None
        return await answer_to(self.journal, draft, serve)

    async def begin(self, start: Start, more: More | None = None) -> Report:
        """Start a new run and perform it. Raises Refused when an earlier one is not finished, or the base is red.

        ``more``: orders of the run that come while it is performed.
        """
        board = self.journal.floor.board
        open_run = board.unfinished()
        if open_run is not None:
            left = len(board.open_orders(open_run))
            raise Refused(
                f"run {open_run.id} has {left} unfinished orders",
                hint="go on with `shopfloor run --resume`, or give them up with `shopfloor stop --cancel`",
            )
        target = start.target or Target(branch="", ref="")
        tip = await self.tools.lander.tip(target, start=start.head) if start.target is not None else ""
        verdict = await self._base_health(start, target, tip) if tip else None
        passed = [r.command for r in verdict.results if r.passed] if verdict else []
        data = {
            **start.options, "run_id": start.run, "branch": target.branch, "ref": target.ref, "base": tip,
            "tip": tip, "mirror": start.head, "passed_on_base": passed, "base_checked": verdict is not None,
        }  # fmt: skip
        created = (Draft(E.CREATED, creation(order), order.created_by) for order in start.orders)
        await self.journal.commit(Draft(E.RUN_STARTED, data), *created, run=start.run)
        await self._start_again(start.run)
        self._open(start.run)
        return await self._perform(more=more)

    async def resume(self, run: Run | None, changes: Mapping[str, Any], more: More | None = None) -> Report:
        """Go on with a run (default: the unfinished one) without doing finished work again. Raises NotFound.

        ``more``: orders that come to it.
        """
        board = self.journal.floor.board
        run = run or board.unfinished()
        if run is None:
            raise NotFound("there is no unfinished run", hint="start one with `shopfloor run prompts/*.md`")
        await self.journal.commit(Draft(E.RUN_STARTED, {"run_id": run.id, **changes}), run=run.id)
        await self._start_again(run.id)
        return await self._go_on(run, more)

    async def attend(self, run_id: str) -> Report:
        """Answer what people asked for, without starting anything: no session of the run, and none of its time."""
        await self.journal.join(run_id)
        return await self._go_on(self.journal.floor.board.runs[run_id])

    async def _go_on(self, run: Run, more: More | None = None) -> Report:
        await self._end_attempts_of_other_runs(run)
        self._open(run.id)
        await end_lost_attempts(self.journal, run, self.orphans, self.tools)
        controller = self._new_controller()
        await finish_moves(self.journal, controller.lane, run)
        outlived = await outlived_jobs(
            self.journal, run, self.orphans, self.outliving, profiles=self.settings.profiles, billed=self.tools.billed
        )
        for job in outlived:
            await controller.take_up(job)
        return await self._perform(controller, more)

    async def _start_again(self, run: str) -> None:
        """Nothing of an earlier session's pause is left."""
        if self.journal.floor.board.paused:
            data = {"verb": "resume", "work_order_id": "", "result": "ok", "text": "the run was resumed"}
            await self.journal.commit(Draft(E.HANDLED, data), run=run)

    async def _end_attempts_of_other_runs(self, run: Run) -> None:
        for other in self.journal.floor.board.runs.values():
            if other.id != run.id:
                await end_lost_attempts(self.journal, other, self.orphans, self.tools)

    def _open(self, run: str) -> None:
        self.journal.floor.open(run, self.journal.now(), frozenset(self.settings.answering))

    def _new_controller(self) -> Controller:
        tools = self.tools
        self._controller = Controller(
            self.journal, runner=tools.runner, verifier=tools.verifier, lander=tools.lander, settings=self.settings,
            load=tools.load, door=tools.door, callers=tools.callers,
        )  # fmt: skip
        if self._stop_early:
            self._controller.stop(self._stop_early)
        return self._controller

    async def _perform(self, controller: Controller | None = None, more: More | None = None) -> Report:
        controller = controller or self._new_controller()
        await controller.perform(more)
        return build(self.journal.floor.board, controller.run)

    async def _base_health(self, start: Start, target: Target, tip: str) -> Verdict | None:
        """Run the project's checks once on the base, before any money is spent."""
        checks = tuple(start.options.get("checks", ()))
        if not checks:
            return None
        self.tools.say(f"checking the base {tip[:12]} with {len(checks)} check(s)")
        job = CheckJob(
            key=f"{start.run}.base", commit=tip, tree="", base="", checks=tuple(Check(command=c) for c in checks),
            evidence=str(Path(self.settings.evidence, start.run, "base")),
            again=self.journal.floor.policy.confirmations,
        )  # fmt: skip
        if self._stop_early:
            raise Refused(_STOPPED_EARLY, hint="run it again")
        self._base_check = asyncio.create_task(self.tools.verifier.check(job))
        try:
            verdict = await self._base_check
        except asyncio.CancelledError:
            if not self._stop_early:
                raise
            raise Refused(_STOPPED_EARLY, hint="run it again") from None
        if verdict.problem:
            raise Refused(
                f"the checks cannot run on {target.branch}: {verdict.problem}",
                hint="mend `setup` in .shopfloor.toml, or give it with --setup",
            )
        red = [r for r in verdict.results if not r.passed]
        bare = [o.name for o in start.orders if not o.checks]
        if len(red) == len(verdict.results) and bare and not start.allow_red:
            raise Refused(_red(red, target, bare), hint=_RED_HINT)
        for result in red:
            self.tools.say(f"red on the base: {result.command} (orders are not blamed for it)")
        return verdict


_STOPPED_EARLY = "stopped while the base was checked; nothing was started"
_RED_HINT = (
    "make it pass first, name `checks:` in the orders' front matter, or go on all the same with --allow-red-base"
)


def _red(red: Sequence[CheckResult], target: Target, bare: Sequence[str]) -> str:
    which = ", ".join(repr(r.command) for r in red)
    named = few(bare)
    return (
        f"{which} fails on {target.branch} before anything was changed, and {len(bare)} order(s) have no check "
        f"of their own: {named}\n{red[0].tail}".rstrip()
    )
