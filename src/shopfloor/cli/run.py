"""``run``: perform prompts as work orders, or go on with a run that was stopped."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

import click
import msgspec

from shopfloor import Report, Shopfloor
from shopfloor.cli.edge import Edge, verb
from shopfloor.cli.live import display, drawn
from shopfloor.cli.options import Wanted, open_floor, prompts, work_options
from shopfloor.cli.report import open_questions, render
from shopfloor.cli.stopper import Stopper
from shopfloor.cli.words import screen
from shopfloor.domain.errors import UsageError

STOPPING = "stopping: agents are asked to end, their work is kept (again: {key} kills now)"
KILLED = "killed; work that was under way is kept when you go on with: shopfloor run --resume"


@verb(example="shopfloor run prompts/*.md --agent 'claude -p' --check 'make test'")
@click.argument("files", nargs=-1, metavar="[PROMPTS…]")
@work_options
@click.option("--resume", is_flag=True, help="Go on with the run that was stopped or interrupted.")
@click.option("--plain", is_flag=True, help="One line for each event, also in a terminal.")
def run(edge: Edge, *, files: tuple[str, ...], resume: bool, plain: bool, **options: Any) -> int:
    """Perform PROMPTS as work orders: work, verify, land. '-' reads one from stdin.

    Ctrl-C stops the run and keeps all work; --resume goes on with it.
    """
    if resume and files:
        raise UsageError("--resume goes on with the orders that are there: leave PROMPTS out")
    if not resume and not files:
        raise UsageError("there is nothing to do: no prompt was given", hint="shopfloor run prompts/*.md")
    floor = open_floor(edge, Wanted(**options))
    if resume:
        # Loaded only here: who begins a run does not wait for it.
        from shopfloor.cli.fanout import is_fanout, resume_fanout

        if edge.call(is_fanout):
            return resume_fanout(edge, plain=plain)
        return go_on(edge, floor, plain=plain)
    wishes = prompts(files)
    return perform(edge, floor, lambda: floor.run(wishes), plain=plain)


def go_on(edge: Edge, floor: Shopfloor, *, plain: bool) -> int:
    """Resume the unfinished run; returns the exit code."""
    return perform(edge, floor, floor.resume, plain=plain)


def perform(edge: Edge, floor: Shopfloor, act: Callable[[], Coroutine[Any, Any, Report]], *, plain: bool) -> int:
    """Do it before the person's eyes, answer signals, and report; returns the exit code."""
    view = display(edge, lambda: floor.floor, floor.work, plain=plain)
    work: list[asyncio.Task[Report]] = []

    def stop(why: str, key: str) -> None:
        if floor.floor is None or floor.floor.run is None:
            work[0].cancel()
            return
        view.note(STOPPING.format(key=key))
        floor.stop(why)

    stopper = Stopper(stop, give_back=view.close, killed=KILLED)

    async def body() -> Report:
        floor.observers.append(view.see)
        floor.say = view.say
        async with floor, drawn(view):
            work.append(asyncio.create_task(act()))
            stopper.answer_signals()
            return await work[0]

    try:
        report = edge.perform(body())
    except asyncio.CancelledError:
        edge.put("stopped before anything was started", err=True)
        return stopper.code
    if edge.json:
        edge.put_json(msgspec.to_builtins(report))
    else:
        width = screen()[0]
        questions = open_questions(floor.floor.board) if floor.floor else {}
        edge.put(render(report, questions=questions, width=width))
    if stopper.code:
        if report.counts.get("waiting"):
            edge.put("stopped; go on with: shopfloor run --resume", err=True)
        return stopper.code
    return 0 if report.ok else 1
