"""A line for each call, in a file that only grows, and the sums of what this gateway has seen."""

from __future__ import annotations

import os
from collections.abc import Collection
from pathlib import Path

import msgspec

from shopfloor.ports import Bill, ModelCall

_encode = msgspec.json.Encoder().encode
_call = msgspec.json.Decoder(ModelCall)


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

    def write(self, call: ModelCall) -> None:
        """Take in a call. Raises OSError when the disk does not take it; it is summed all the same."""
        for group in ("attempt", "order", "run", "account", "model"):
            name = getattr(call, group)
            if name:
                self._sums[group, name] = self._sums.get((group, name), Bill()).plus(call)
        self._sums["all", ""] = self.total.plus(call)
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


def bills(path: Path, attempts: Collection[str]) -> dict[str, Bill]:
    """What stands in the ledger of these attempts, by attempt; lines that are torn or no calls are left out.

    Nothing where there is no ledger. Raises OSError when there is one that cannot be read.
    """
    found: dict[str, Bill] = {}
    try:
        file = path.open("rb")
    except FileNotFoundError:
        return found
    with file:
        for line in file:
            try:
                call = _call.decode(line)
            except (msgspec.DecodeError, UnicodeDecodeError):
                continue
            if call.attempt in attempts:
                found[call.attempt] = found.get(call.attempt, Bill()).plus(call)
    return found
