"""``run``: perform prompts as work orders, or go on with a run that was stopped."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Callable, Coroutine
from contextlib import suppress
from typing import Any

import click
import msgspec

from shopfloor import Report, Shopfloor
from shopfloor.cli.edge import Edge, verb
from shopfloor.cli.live import Display, display, drawn
from shopfloor.cli.options import Wanted, open_floor, prompts, work_options
from shopfloor.cli.report import open_questions, render
from shopfloor.cli.words import screen
from shopfloor.domain.errors import UsageError

STOPPING = "stopping: agents are asked to end, their work is kept (again: {key} kills now)"
KILLED = b"killed; work that was under way is kept when you go on with: shopfloor run --resume\n"
WORDS = {signal.SIGINT: "Ctrl-C", signal.SIGTERM: "SIGTERM", signal.SIGHUP: "the terminal was closed"}


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
        return go_on(edge, floor, plain=plain)
    wishes = prompts(files)
    return perform(edge, floor, lambda: floor.run(wishes), plain=plain)


def go_on(edge: Edge, floor: Shopfloor, *, plain: bool) -> int:
    """Resume the unfinished run; returns the exit code."""
    return perform(edge, floor, floor.resume, plain=plain)


def perform(edge: Edge, floor: Shopfloor, act: Callable[[], Coroutine[Any, Any, Report]], *, plain: bool) -> int:
    """Do it before the person's eyes, answer signals, and report; returns the exit code."""
    stopper = _Stopper(floor)
    try:
        report = edge.perform(_perform(edge, floor, act, stopper, plain=plain))
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


async def _perform(
    edge: Edge,
    floor: Shopfloor,
    act: Callable[[], Coroutine[Any, Any, Report]],
    stopper: _Stopper,
    *,
    plain: bool,
) -> Report:
    view = display(edge, lambda: floor.floor, floor.work, plain=plain)
    floor.observers.append(view.see)
    floor.say = view.say
    async with floor, drawn(view):
        work = asyncio.create_task(act())
        stopper.answer_signals(work, view)
        return await work


class _Stopper:
    """Answers signals: the first asks, the second ends."""

    def __init__(self, floor: Shopfloor) -> None:
        self._floor = floor
        self.code = 0

    def answer_signals(self, work: asyncio.Task[Report], view: Display) -> None:
        """From now on; part of the running loop."""
        loop = asyncio.get_running_loop()
        for number in WORDS:
            loop.add_signal_handler(number, self._signalled, number, work, view)

    def _signalled(self, number: signal.Signals, work: asyncio.Task[Report], view: Display) -> None:
        code = 130 if number is signal.SIGINT else 143
        if self.code:
            view.close()
            with suppress(OSError):  # a terminal that is gone cannot be told
                os.write(2, KILLED)
            # The guard sees this process end and ends every agent with all that it started.
            os._exit(code)
        self.code = code
        live = self._floor.floor
        if live is None or live.run is None:
            work.cancel()
            return
        view.note(STOPPING.format(key="Ctrl-C" if number is signal.SIGINT else "the signal"))
        self._floor.stop(WORDS[number])
