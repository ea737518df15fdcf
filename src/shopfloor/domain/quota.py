"""Accounts that have nothing left for now: closed by the first answer that says so, open again at the stated time.

An account is who pays for the model calls of one or more agents. What one of its attempts is told holds for all of
them, so nothing is started on it before it opens again. Where no time was told it is guessed, each time longer, and a
single attempt tries first: a fleet must not find out again what one of it can.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec

from shopfloor.domain import values
from shopfloor.domain.order import Attempt, Reason
from shopfloor.domain.policy import remaining
from shopfloor.domain.timers import Now

FIRST_GUESS_S = 60.0
LONGEST_GUESS_S = 3600.0
LONGEST_S = 31 * 86_400.0
"""No limit lasts longer than a month; what says so is a mistake."""
SAME_S = 1.0
"""Two times that are no further apart are the same one, told twice."""

_SILENT = frozenset({Reason.QUOTA, Reason.STOPPED, Reason.LOST, Reason.SPAWN})
"""Ends of an attempt that do not show that its account has something left."""


class Account(msgspec.Struct, kw_only=True):
    """An account that said it has nothing left, now or earlier in this run. Wall seconds and durations."""

    name: str
    why: str = ""
    closed_at: float = 0.0
    delay_s: float = 0.0
    told: bool = False
    """the answer named the time; else ``delay_s`` is a guess"""
    times: int = 0
    """how often it was closed since it was last seen to work"""
    opened_at: float | None = None
    works: bool = False
    """it was seen to work since it opened; what began before may still tell what it was told then"""

    @property
    def closed(self) -> bool:
        """True while nothing is started on it."""
        return self.opened_at is None

    @property
    def on_trial(self) -> bool:
        """True when it was opened on a guess: one attempt tries it before the others."""
        return self.opened_at is not None and not self.told and not self.works

    @property
    def reset_at(self) -> float:
        """Wall time at which it opens."""
        return self.closed_at + self.delay_s


def guess(times: int) -> float:
    """Seconds to wait after so many answers without a time: a minute, two, four … an hour."""
    return float(min(LONGEST_GUESS_S, FIRST_GUESS_S * 2.0 ** min(max(0, times - 1), 16)))


def closing(known: Account | None, *, claimed_at: float, reset_at: float | None, wall: float) -> dict[str, Any] | None:
    """What ``account.closed`` says after an answer to an attempt that was claimed then; None: it is no news."""
    told = reset_at is not None and reset_at > wall
    delay = min(reset_at - wall, LONGEST_S) if told and reset_at is not None else 0.0
    if known is not None and known.closed:
        if not told or (known.told and wall + delay <= known.reset_at + SAME_S):
            return None
        return {"delay_s": round(delay, 3), "told": True, "times": known.times}
    if known is not None and not told and claimed_at < (known.opened_at or 0.0):
        return None  # it was asked before the account was opened
    times = known.times + 1 if known is not None else 1
    if not told:
        delay = guess(times)
    elif times > 1:
        delay = max(delay, guess(times - 1))  # the time that was told before has passed, and was wrong
    return {"delay_s": round(delay, 3), "told": told, "times": times}


# -- the fold ---------------------------------------------------------------------------------------------------


def close(accounts: dict[str, Account], data: Mapping[str, Any], at: float) -> None:
    """Take in ``account.closed``."""
    name = values.text(data, "account")
    if name:
        accounts[name] = Account(
            name=name, why=values.text(data, "why"), closed_at=at, delay_s=values.amount(data, "delay_s") or 0.0,
            told=data.get("told") is True, times=values.count(data, "times"),
        )  # fmt: skip


def open_again(accounts: dict[str, Account], data: Mapping[str, Any], at: float) -> None:
    """Take in ``account.opened``."""
    known = accounts.get(values.text(data, "account"))
    if known is not None:
        known.opened_at = at


def prove(accounts: dict[str, Account], attempt: Attempt) -> None:
    """Note that an account works again, when what an attempt did since it opened shows it."""
    known = accounts.get(attempt.account)
    if known is None or known.opened_at is None or attempt.claimed_at < known.opened_at:
        return
    spent = attempt.tokens_out > 0 or bool(attempt.cost_usd) or attempt.steps > 0
    if attempt.outcome not in _SILENT and (spent or attempt.outcome):
        known.works, known.times = True, 0


# -- the clocks -------------------------------------------------------------------------------------------------


class Doors:
    """The closed accounts on both clocks: each opens when its time has passed on either, whichever is first.

    The awake clock is what counts; the wall clock can only shorten the wait, after a sleep of the machine or a jump.
    """

    def __init__(self) -> None:
        self._due: dict[str, tuple[float, float]] = {}
        """name -> when it was closed, and the awake time at which it opens"""
        self._told: set[str] = set()
        """those of which it was decided that they open"""

    def follow(self, accounts: Mapping[str, Account], now: Now) -> bool:
        """Set the clocks by what the log says; True when an account was closed, opened or forgotten since."""
        closed = {name: one for name, one in accounts.items() if one.closed}
        news = self._due.keys() != closed.keys()
        for name in self._due.keys() - closed.keys():
            del self._due[name]
        for name, one in closed.items():
            if self._due.get(name, (None,))[0] != one.closed_at:
                left = remaining(one.delay_s, one.closed_at, now.wall)
                self._due[name] = (one.closed_at, now.awake + left)
                self._told.discard(name)
                news = True
        self._told &= closed.keys()
        return news

    def ready(self, accounts: Mapping[str, Account], now: Now) -> list[str]:
        """Accounts whose time has come, each once."""
        if not self._due:
            return []
        found = [
            name
            for name, (_, due) in self._due.items()
            if name not in self._told and (due <= now.awake or accounts[name].reset_at <= now.wall)
        ]
        self._told.update(found)
        return found

    def next(self) -> float | None:
        """Awake time at which the next one opens, or None."""
        return min((due for name, (_, due) in self._due.items() if name not in self._told), default=None)
