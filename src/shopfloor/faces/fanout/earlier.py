"""What keeps a fan-out from beginning, and what an earlier one in the same folder has left."""

from __future__ import annotations

import msgspec

from shopfloor import Conflict, Deliverable, NotFound, Order, Profile, PromptOrder, Refused, Shopfloor
from shopfloor.faces.fanout.intake import AGENT
from shopfloor.faces.fanout.source import Asked

START_AGENTS = "start them, e.g. with shopfloor agent-servers, or name others with --agents"
NEWEST = "; have the results of the newest: --resume with --json or --results"


class Earlier(msgspec.Struct, frozen=True, kw_only=True):
    """A fan-out that was stopped or killed, or that is over."""

    run: str
    profile: Profile | None
    """its agents; None: they were not kept in the log"""
    orders: tuple[Order, ...]
    over: bool = False
    """all of it is done; its results may have been kept nowhere but in the log"""

    @property
    def source(self) -> str:
        """Where its specifications came from, as :class:`Source` had it."""
        return self.orders[0].source if self.orders else ""

    @property
    def queued(self) -> bool:
        """Whether it takes from a queue."""
        return bool(self.orders) and "payload" in self.orders[0].metadata

    @property
    def asked(self) -> Asked | None:
        """What it was asked for; None: it takes from a queue."""
        known = self.orders[0].metadata.get("asked") if self.orders else None
        return msgspec.convert(known, Asked) if known else None


async def earlier(floor: Shopfloor, *, also_over: bool = False) -> Earlier:
    """The unfinished fan-out of a folder, or with ``also_over`` the newest. Raises NotFound when there is none."""
    board = await floor.board(state="open")
    run = board.unfinished()
    over = run is None
    if run is None and also_over:
        run = next(reversed(board.runs.values()), None)
        if run is not None and run.id in board.absent:
            board = await floor.board(run=run.id)
            run = board.runs[run.id]
    orders = tuple(board.records[order].order for order in run.orders) if run else ()
    if run is None or not all(isinstance(order.metadata.get("spec"), dict) for order in orders):
        what = "fan-out here" if also_over else "unfinished fan-out here"
        hint = "start one: shopfloor fanout specs.json" + ("" if also_over else NEWEST)
        raise NotFound(f"there is no {what}", hint=hint)
    known = run.profiles.get(AGENT)
    profile = msgspec.convert({"name": AGENT, **known}, Profile) if known else None
    return Earlier(run=run.id, profile=profile, orders=orders, over=over)


def refuse_other(before: Earlier, *, queued: bool) -> None:
    """Raise Refused when an earlier one is to go on with a queue and had none, or the other way round."""
    if queued and not before.queued:
        raise Refused("the run to go on with does not take from a queue", hint="leave --queue out")
    if before.queued and not queued:
        hint = "give it again, it may have a password and is not in the log: --queue redis://…"
        raise Refused("the run to go on with takes from a queue", hint=hint)


async def refuse_second(floor: Shopfloor) -> None:
    """Raise when the folder is at work on something else, or has something else to finish."""
    if (controller := floor.controller()) is not None:
        pid = controller.get("pid", "?")
        hint = f"wait for it, end it (kill {pid}), or call this in another folder"
        raise Conflict(f"another run is going on in this folder, by process {pid}", hint=hint)
    board = await floor.board(state="open")
    if (run := board.unfinished()) is None:
        return
    left = len(board.open_orders(run))
    ours = all("spec" in board.records[order].order.metadata for order in run.orders)
    hint = f"go on with it: shopfloor {'fanout' if ours else 'run'} --resume, or give it up: shopfloor stop --cancel"
    raise Refused(f"an earlier run in this folder has {left} unfinished orders", hint=hint)


async def refuse_dead(floor: Shopfloor) -> None:
    """Raise when no agent answers: what is put into a queue stays there, and would be put again with the next try."""
    wish = PromptOrder(name="any", title="", instruction="", deliverable=Deliverable.ANSWER, agent=AGENT)
    if found := (await floor.plan([wish])).problems:
        raise NotFound(found[0].rpartition(" (")[0] or found[0], hint=START_AGENTS)
