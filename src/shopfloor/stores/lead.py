"""Who leads: a lock that is held for life, with a note of who holds it."""

from __future__ import annotations

import contextlib
import fcntl
import os
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec

from shopfloor.domain.errors import Conflict
from shopfloor.domain.names import printable
from shopfloor.stores.files import FILE_MODE, refusal

NAME = "controller.lock"
_TRIES = 20
_PAUSE_S = 0.005


class Lead:
    """The claim to be the one controller of a folder; the kernel ends it with the process, however that ends."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / NAME
        self._descriptor = -1

    def take(self, info: Mapping[str, Any]) -> None:
        """Raises Conflict naming the controller that is alive."""
        try:
            descriptor = os.open(self.path, os.O_RDWR | os.O_CREAT, FILE_MODE)
        except OSError as problem:
            raise refusal("lock", self.path, problem) from problem
        # Somebody who only looks holds it for a moment; a controller holds on.
        for _ in range(_TRIES):
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                time.sleep(_PAUSE_S)
                continue
            self._descriptor = descriptor
            os.ftruncate(descriptor, 0)
            os.pwrite(descriptor, msgspec.json.encode(info) + b"\n", 0)
            return
        os.close(descriptor)
        raise Conflict(
            f"a controller is already at work in {str(self.path.parent)!r}: {_describe(_note(self.path))}",
            hint="type: shopfloor status, or shopfloor stop",
        )

    def drop(self) -> None:
        """Stop leading; harmless when it does not lead."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1


def controller_alive(folder: Path) -> dict[str, Any] | None:
    """What the living controller of a ``.work`` folder noted (pid, since, host …); None when there is none."""
    path = folder / NAME
    try:
        descriptor = os.open(path, os.O_RDONLY)
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as problem:
        raise refusal("look at", path, problem) from problem
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return _note(path)
    finally:
        os.close(descriptor)
    return None


def _note(path: Path) -> dict[str, Any]:
    with contextlib.suppress(OSError, msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return msgspec.json.decode(path.read_bytes(), type=dict[str, Any])
    return {}


def _describe(note: Mapping[str, Any]) -> str:
    """``pid 4711 since 2026-01-06T12:00:00.000Z on host``, as far as it is known."""
    words = {"pid": "pid", "since": "since", "host": "on"}
    known = [f"{word} {printable(str(note[key]), 60)}" for key, word in words.items() if note.get(key)]
    return " ".join(known) or "it has not said who it is"
