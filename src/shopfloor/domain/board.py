"""State as a fold of the log: what became of every order and every run."""

from __future__ import annotations

from typing import Any

import msgspec

from shopfloor.domain import quota, runs, talk, values
from shopfloor.domain.calls import answered
from shopfloor.domain.creating import creation
from shopfloor.domain.events import E, Event, read_time
from shopfloor.domain.fold import OURS, change, counts, fold
from shopfloor.domain.order import FINAL, Record, State
from shopfloor.domain.runs import Run

__all__ = ["OURS", "Board", "Request", "Run", "at_rest", "counts", "creation", "fold"]


_GENERAL = frozenset(
    {
        *(E.CONTROLLER_STARTED, E.RUN_STARTED, E.REQUEST, E.HANDLED, E.MAIL_SENT, E.MAIL_READ),
        *(E.ACCOUNT_CLOSED, E.ACCOUNT_OPENED),
    }
)


_OF_MONEY = (E.AGENT_USAGE, E.AGENT_STOPPED)
_SAYS_NOTHING = frozenset({E.STATUS, E.CLOSED})
"""For other programs: what they say of an order stands in another event, but for an end told with that of a call."""


class Request(msgspec.Struct, frozen=True, kw_only=True):
    """What a person asked for from another terminal."""

    event_id: str
    verb: str
    order: str = ""
    text: str = ""
    actor: str = "human"


class Board:
    """All records and runs, requests that wait for an answer, and what the log holds that does not count.

    A board that was taken from an index may leave out the orders of runs in which all of them are at rest: see
    ``absent``.
    """

    def __init__(self) -> None:
        self.records: dict[str, Record] = {}
        self.runs: dict[str, Run] = {}
        self.absent: set[str] = set()
        """runs whose orders are not all on this board; :meth:`join` puts them there"""
        self.shed: set[str] = set()
        """those of which only what calls have answered is not"""
        self.requests: dict[str, Request] = {}
        self.mail: dict[str, talk.Message] = {}
        """what nobody has read yet"""
        self.controller = 0
        self.controller_info: dict[str, Any] = {}
        self.paused = False
        self.accounts: dict[str, quota.Account] = {}
        """those that said they have nothing left, until they are seen to work again"""
        self.uncounted = 0
        """lines that claim what only the living controller may say"""
        self.last_event = ""

    def apply(self, event: Event) -> str:
        """Fold one more event in; returns the id of the order it changed, or an empty string."""
        self.last_event = event.event_id
        sf, kind = event.sf, event.event_type
        stamp = sf.controller if sf is not None else 0
        if stamp < self.controller if stamp > 0 else not counts(event):
            self.uncounted += 1
            return ""
        if kind in _GENERAL:
            self._general(event)
        nothing = stamp > 0 and kind in _SAYS_NOTHING and "end" not in event.data
        at = read_time(event.timestamp)
        changed = "" if nothing else self._fold(event, at)
        if changed and self.accounts and (kind in _OF_MONEY or "end" in event.data):
            quota.prove(self.accounts, self.records[changed].attempts[-1])
        if stamp > 0 and (run := self.runs.get(event.correlation_id or "")) is not None:
            runs.follow(run, event, at, changed=bool(changed))
        return changed

    def run_of(self, record: Record) -> Run | None:
        """The run an order belongs to."""
        return self.runs.get(record.order.run)

    def join(self, other: Board) -> None:
        """Put the absent runs that another board of the same log has whole on this one."""
        news = {run for run in self.absent if run in other.runs and run not in other.absent}
        for order, record in other.records.items():
            # What is still under way in a run that shed the rest comes by its own events, which may be on their way.
            run, known = record.order.run, self.records
            if run in news and order not in known and (run not in self.shed or answered(record)):
                known[order] = record
        for run in news:
            here = [order for order in other.runs[run].orders if order in self.records]
            there = set(here)
            self.runs[run].orders = here + [order for order in self.runs[run].orders if order not in there]
        self.absent -= news
        self.shed -= news

    def forget_answered(self) -> None:
        """Let go of the orders that calls have answered: nobody waits for anything of them, and the log has them."""
        gone = {order for order, record in self.records.items() if answered(record)}
        for run in self.runs.values():
            left = [order for order in run.orders if order not in gone]
            if len(left) < len(run.orders):
                run.orders = left
                if run.id not in self.absent:
                    self.absent.add(run.id)
                    self.shed.add(run.id)
        for order in gone:
            del self.records[order]

    def unfinished(self) -> Run | None:
        """The newest run that was not seen to finish, or that has an order which is not at rest; else None."""
        newest_first = reversed(self.runs.values())
        return next((run for run in newest_first if run.finished_at is None or self.open_orders(run)), None)

    def open_orders(self, run: Run) -> list[Record]:
        """The orders of a run that are not at rest: neither ended, nor verified and waiting for a person."""
        return [r for r in (self.records[o] for o in run.orders) if not at_rest(r, run)]

    def spent_usd(self, run: Run) -> float:
        """What the run's attempts reported so far; unpriced attempts do not count."""
        return sum(self.records[o].cost_usd or 0.0 for o in run.orders)

    def find(self, name: str) -> list[Record]:
        """Records by id, else by name (the newest run first), else by a unique beginning of id or name."""
        if name in self.records:
            return [self.records[name]]
        newest = list(reversed(self.records.values()))
        exact = [r for r in newest if r.order.name == name]
        if exact:
            return exact[:1]
        return [r for r in newest if r.order.id.startswith(name) or r.order.name.startswith(name)]

    def _general(self, event: Event) -> None:
        data = event.data
        if event.event_type == E.CONTROLLER_STARTED:
            self.controller = max(self.controller, values.count(data, "generation"))
            self.controller_info = dict(data)
        elif event.event_type == E.RUN_STARTED:
            self.uncounted += not runs.started(self.runs, event)
        elif event.event_type == E.ACCOUNT_CLOSED:
            quota.close(self.accounts, data, read_time(event.timestamp))
        elif event.event_type == E.ACCOUNT_OPENED:
            quota.open_again(self.accounts, data, read_time(event.timestamp))
        elif event.event_type == E.REQUEST:
            self.requests[event.event_id] = Request(
                event_id=event.event_id,
                verb=values.text(data, "verb"),
                order=event.order_id,
                text=values.text(data, "text"),
                actor=event.actor,
            )
        elif event.event_type in (E.MAIL_SENT, E.MAIL_READ):
            talk.fold_mail(self.mail, event)
        elif event.event_type == E.HANDLED:
            self.requests.pop(event.caused_by or "", None)
            if data.get("result") == "ok" and data.get("verb") in ("pause", "resume"):
                self.paused = data["verb"] == "pause"

    def _fold(self, event: Event, at: float) -> str:
        order = event.order_id
        if not order:
            return ""
        known = self.records.get(order)
        if known is not None:
            return order if change(known, event, at) else ""
        record = fold(None, event)
        if record is None:
            return ""
        self.records[order] = record
        run = self.run_of(record)
        if run is not None:
            run.orders.append(order)
        return order


_VERIFIED = State.VERIFIED


def at_rest(record: Record, run: Run | None) -> bool:
    """True when nothing more happens to it without a person: it ended, or is verified and is to be landed by hand."""
    if record.state in FINAL:
        return True
    if record.state is not _VERIFIED or record.accepted:
        return False
    return run is not None and run.land != "auto"
