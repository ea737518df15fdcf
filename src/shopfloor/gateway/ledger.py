"""A line for each call, in a file that only grows, and the sums of what this gateway has seen."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path

import msgspec

from shopfloor.ports import Bill, Call

_encode = msgspec.json.Encoder().encode


class Ledger:
    """Appends in one write a call: what was written survives the end of this process, not always that of the machine.

    It is synced when it is closed. Without a file it only sums.
    """

    def __init__(self, path: Path | None) -> None:
        """Raises OSError when the file cannot be written."""
        self._file = -1
        self._sums: dict[tuple[str, str], Bill] = {}
        if path is not None:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._file = os.open(path, os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)
            end = os.fstat(self._file).st_size
            if end and os.pread(self._file, 1, end - 1) != b"\n":
                os.write(self._file, b"\n")  # a torn line stays alone

    def write(self, call: Call) -> None:
        """Take in a call. Raises OSError when the disk does not take it; it is summed all the same."""
        for group in ("attempt", "order", "run", "account", "model"):
            name = getattr(call, group)
            if name:
                self._sums[group, name] = added(self._sums.get((group, name), Bill()), call)
        self._sums["all", ""] = added(self.total, call)
        if self._file >= 0:
            os.write(self._file, _encode(call) + b"\n")

    @property
    def total(self) -> Bill:
        """Of all calls."""
        return self._sums.get(("all", ""), Bill())

    def sums(self, group: str) -> dict[str, Bill]:
        """By ``attempt``, ``order``, ``run``, ``account`` or ``model``."""
        return {name: bill for (kind, name), bill in self._sums.items() if kind == group}

    def close(self) -> None:
        """Sync it and let go of it."""
        if self._file >= 0:
            os.fsync(self._file)
            os.close(self._file)
            self._file = -1


def added(bill: Bill, call: Call) -> Bill:
    """The bill with one more call."""
    cost = bill.cost_usd if call.cost_usd is None else (bill.cost_usd or 0.0) + call.cost_usd
    answered = not call.refused and bool(call.tokens_in or call.tokens_out)
    return Bill(
        calls=bill.calls + (not call.refused),
        unpriced=bill.unpriced + (answered and call.cost_usd is None),
        cost_usd=cost,
        tokens_in=bill.tokens_in + call.tokens_in,
        tokens_out=bill.tokens_out + call.tokens_out,
        refused=call.refused,
        limit=call.limit,
    )


def summed(calls: Iterable[Call]) -> Bill:
    """The bill of these calls."""
    found = Bill()
    for call in calls:
        found = added(found, call)
    return found
