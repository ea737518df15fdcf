"""Which account pays for a call, and until when one that has nothing left is closed."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import msgspec

from shopfloor.config.accounts import Account
from shopfloor.domain.errors import Refused
from shopfloor.gateway.quota import STORM, Verdict, guess
from shopfloor.ports import Quota


class _State(msgspec.Struct):
    closed_until: float = 0.0
    why: str = ""
    told: bool = False
    """the answer said until when; else it is a guess"""
    closings: int = 0
    """in a row, without an answer between them"""
    storm: int = 0
    """short refusals in a row that did not say when they end"""


class Accounts:
    """The accounts of one gateway. Times are wall seconds."""

    def __init__(self, known: Mapping[str, Account], environment: Mapping[str, str], *, offline: bool = False) -> None:
        self._known = known
        self._environment = environment
        self._offline = offline
        self._states = {name: _State() for name in known}

    @property
    def secrets(self) -> tuple[str, ...]:
        """Every key that can be read now."""
        found = []
        for account in self._known.values():
            try:
                found.append(account.secret(self._environment))
            except Refused:
                continue  # whoever uses it is told
        return tuple(filter(None, found))

    def check(self, name: str) -> None:
        """Raises Refused when a route may not be opened for this account; without a name any will do."""
        if not name:
            return
        if name not in self._known:
            there = ", ".join(map(repr, sorted(self._known)))
            hint = f"add [gateway.accounts.{name}] to .shopfloor.toml, or name one of {there}"
            raise Refused(f"the gateway knows no account {name!r}", hint=hint)
        if not self._offline:
            self._known[name].secret(self._environment)

    def headers(self, account: Account) -> dict[str, str]:
        """The header with its key. Raises Refused when it has none."""
        return account.headers(self._environment)

    def chain(self, asked: str, family: str) -> list[Account]:
        """The account that is asked to pay, and those that take over from it, in order; none: it speaks differently."""
        if asked:
            first = self._known.get(asked)
        else:
            first = next((account for account in self._known.values() if account.dialect == family), None)
        if first is None or first.dialect != family:
            return []
        found, queue = [first], list(first.spill)
        for name in queue:
            account = self._known.get(name)
            if account is not None and account not in found:
                found.append(account)
                queue += account.spill
        return found

    def open(self, chain: Iterable[Account], now: float) -> list[Account]:
        """Those of the chain that have something left, as far as is known."""
        return [account for account in chain if self._states[account.name].closed_until <= now]

    def quota(self, asked: str, chain: Iterable[Account]) -> Quota:
        """What to say of a chain that has nothing left: it goes on with the first that resets."""
        first = min((self._states[account.name] for account in chain), key=lambda state: state.closed_until)
        return Quota(account=asked, reset_at=first.closed_until, why=first.why, told=first.told)

    def refused(self, account: Account, verdict: Verdict, now: float) -> bool:
        """Take in an answer that refused; True when that has closed the account."""
        state = self._states[account.name]
        if not verdict.used_up:
            state.storm = 0 if verdict.reset_at is not None else state.storm + 1
            if state.storm < STORM:
                return False
        state.storm = 0
        if state.closed_until <= now:  # else calls that were under way are told what is known
            state.closings += 1
        until = now + guess(state.closings) if verdict.reset_at is None else verdict.reset_at
        state.told = (verdict.reset_at is not None) if until >= state.closed_until else state.told
        state.closed_until = max(state.closed_until, until)
        state.why = verdict.why
        return True

    def answered(self, account: Account, began: float) -> None:
        """A call that began then was answered: whatever was guessed before it is over."""
        state = self._states[account.name]
        if state.closed_until <= began:
            state.closings = state.storm = 0
