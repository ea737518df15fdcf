"""``watch``: a run live, from a second terminal."""

from __future__ import annotations

import time

import click
import msgspec

from shopfloor import Event, Report, Shopfloor
from shopfloor.cli.edge import Edge, escaped, verb
from shopfloor.cli.glance import text
from shopfloor.cli.live import Display, Lines, display, drawn
from shopfloor.cli.report import open_questions, render
from shopfloor.cli.status import glance
from shopfloor.cli.words import count, screen
from shopfloor.domain import report as reports
from shopfloor.domain.board import Run
from shopfloor.domain.errors import NotFound, ShopfloorError
from shopfloor.domain.floor import Floor, Now
from shopfloor.ports import Query

LOOK_S = 0.5


class Interrupted(ShopfloorError):
    """The run has no controller any more, and is not finished."""


@verb(example="shopfloor watch")
@click.option("--plain", is_flag=True, help="One line for each event, also in a terminal.")
def watch(edge: Edge, *, plain: bool) -> int:
    """Follow the run until it ends or Ctrl-C. With --json: one event on each line, from its beginning."""
    report, questions = edge.call(lambda floor: _Follower(edge, floor).follow(plain=plain))
    if not edge.json:
        width = screen()[0]
        edge.put(render(report, questions=questions, width=width))
    return 0 if report.ok else 1


class _Follower:
    """Folds the log as it grows, and shows it."""

    def __init__(self, edge: Edge, floor: Shopfloor) -> None:
        self._edge = edge
        self._shopfloor = floor
        self._floor = Floor()
        self._position = 0

    async def follow(self, *, plain: bool) -> tuple[Report, dict[str, str]]:
        """Until the run ends. Raises Interrupted when its controller dies, NotFound when there never was a run."""
        await self._take_stock()
        await self._replay()
        view = display(self._edge, lambda: self._floor, self._shopfloor.work, plain=plain)
        if isinstance(view, Lines):
            self._say_how_it_stands(view)
        async with drawn(view):
            run = await self._see_to_its_end(view)
        board = self._floor.board
        return reports.build(board, run), open_questions(board)

    async def _take_stock(self) -> None:
        """Begin with what the log says, without reading all of it."""
        store = self._shopfloor.store
        if (self._shopfloor.work / "events.jsonl").exists():
            (row,) = await store.query(Query(what="board", state="open"))
            self._floor.board, self._position = row["board"], row["position"]

    async def _replay(self) -> None:
        """In JSON the unfinished run is told from its beginning."""
        run = self._floor.board.unfinished()
        if self._edge.json and run is not None:
            for row in await self._shopfloor.store.query(Query(what="events", run=run.id)):
                event = msgspec.convert(row, Event)
                if event.correlation_id == run.id and row["position"] <= self._position:
                    self._put(event)

    def _put(self, event: Event) -> None:
        self._edge.put(escaped(msgspec.json.encode(event).decode()))

    def _say_how_it_stands(self, view: Lines) -> None:
        """What was said before this process looked."""
        controller, board = self._shopfloor.controller(), self._floor.board
        run = board.unfinished()
        if controller is not None and run is not None:
            first, *rest = text(glance(board, run, controller), now=time.time()).split("\n\nnext:")[0].splitlines()
            view.say(first)
            self._edge.put("\n".join(rest))

    async def _see_to_its_end(self, view: Display) -> Run:
        told = False
        while True:
            alive = self._shopfloor.controller() is not None
            await self._open()
            run = self._floor.run
            if alive and run is None and not told:
                view.say("a controller is at work; waiting for its run to begin")
                told = True
            for event in await self._news():
                self._floor.apply(event, _now())
                self._show(event, view)
                alive = True  # what it said last is looked at once more before it counts as gone
            if run is not None and run.finished_at is not None:
                return run
            if not alive:
                return self._without_controller(run)
            await self._shopfloor.store.wait(self._position, LOOK_S)

    async def _open(self) -> None:
        """Take up the unfinished run, as soon as there is one."""
        found = self._floor.board.unfinished()
        if found is not None and found.id in self._floor.board.absent:
            await self._take_stock()  # an older run is gone on with
            found = self._floor.board.unfinished()
        if found is not None and found is not self._floor.run:
            self._floor.open(found.id, _now())

    def _without_controller(self, run: Run | None) -> Run:
        board = self._floor.board
        run = run or next(reversed(board.runs.values()), None)
        if run is None:
            raise NotFound("there has been no run here yet", hint="start one with: shopfloor run prompts/*.md")
        left = board.open_orders(run)
        if left:
            raise Interrupted(
                f"no controller is alive, and {count(len(left), 'order')} of {run.id} did not finish",
                hint="go on with: shopfloor run --resume",
            )
        return run

    def _show(self, event: Event, view: Display) -> None:
        if self._edge.json:
            self._put(event)
        else:
            view.see(event)

    async def _news(self) -> list[Event]:
        found = []
        async for position, event in self._shopfloor.store.read(self._position):
            self._position = position
            found.append(event)
        return found


def _now() -> Now:
    return Now(time.time(), time.monotonic())
