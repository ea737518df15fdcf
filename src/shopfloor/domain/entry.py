"""Whose orders are started at all: not those of an agent that fails whatever it is given, nor of a closed account."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from shopfloor.domain.board import Board, Run
from shopfloor.domain.events import ENDINGS, E
from shopfloor.domain.judge import Hold, Open
from shopfloor.domain.order import Record
from shopfloor.domain.policy import Policy
from shopfloor.domain.pulse import Pulse
from shopfloor.domain.quota import Account, Doors
from shopfloor.domain.timers import Now

TELLING = frozenset(
    {E.ACCOUNT_CLOSED, E.ACCOUNT_OPENED, E.ASSIGNED, E.AGENT_USAGE, E.AGENT_STOPPED, E.RETRIED, *ENDINGS}
)
"""Facts that may tell something of an account."""


class Entry:
    """What keeps orders of one run from starting beside the plan. ``busy``: those that are at work, or about to be."""

    def __init__(self, board: Board, run: Run, policy: Policy, busy: Callable[[], Iterable[str]]) -> None:
        self._board = board
        self._run = run
        self._busy = busy
        self._pulse = Pulse(policy)
        self._doors = Doors()
        self._known: set[str] = set()
        """accounts that were not seen to work when last looked"""

    def bars(self, record: Record) -> bool:
        """True while it is not started, whatever the plan says."""
        if not (self._run.held or self._pulse.probes or self._board.accounts):
            return False
        return bool(self.held(record) or self.doubtful(record) or self.kept_out(record))

    def held(self, record: Record) -> str:
        """Its agent when nothing more is started with that, else an empty string."""
        agent = self._agent(record)
        return agent if agent in self._run.held else ""

    def doubtful(self, record: Record) -> bool:
        """Its agent is tried with another order first."""
        return self._pulse.probes.get(self._agent(record), record.order.id) != record.order.id

    def kept_out(self, record: Record) -> Account | None:
        """The account of its agent, while nothing is started on that, or another order tries it first."""
        account = self._account(record)
        if account is None or account.closed:
            return account
        others = (self._board.records[o] for o in self._busy() if o != record.order.id) if account.on_trial else ()
        return account if any(self._account(other) is account for other in others) else None

    # -- what changes that ------------------------------------------------------------------------------------------

    def feel(self, record: Record) -> tuple[Hold | None, bool]:
        """Take in the end of an attempt: whether its agent is to be held, and whether others are in doubt now."""
        before = dict(self._pulse.probes)
        hold = self._pulse.feel(self._agent(record), record)
        return (None if hold is not None and hold.agent in self._run.held else hold), before != self._pulse.probes

    def forget(self, record: Record) -> bool:
        """No agent is tried with this order any more; True when one was."""
        before = dict(self._pulse.probes)
        self._pulse.forget(record.order.id)
        return before != self._pulse.probes

    def follow(self, now: Now) -> bool:
        """Set the clocks of the accounts; True when one was closed, opened or seen to work, or is tried just now."""
        accounts, before = self._board.accounts, self._known
        if not accounts and not before:
            return False
        self._known = {name for name, one in accounts.items() if not one.works}
        news = self._doors.follow(accounts, now) or before != self._known
        return news or any(one.on_trial for one in accounts.values())

    def open(self, now: Now) -> list[Open]:
        """The accounts whose time has come."""
        return [Open(name) for name in self._doors.ready(self._board.accounts, now)]

    def next_timer(self) -> float | None:
        """Awake time at which an account opens, or None."""
        return self._doors.next()

    # -- inside -----------------------------------------------------------------------------------------------------

    def _agent(self, record: Record) -> str:
        return record.order.agent or self._run.agent

    def _account(self, record: Record) -> Account | None:
        """The account of its agent, where that has said that it has nothing left."""
        known = self._board.accounts
        return known.get(self._run.account_of(self._agent(record))) if known else None
