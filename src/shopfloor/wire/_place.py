"""Where the socket is, also when the folder's path is longer than a socket's may be."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

NAME = "controller.sock"
LINE_LIMIT = 1 << 20
"""Bytes of the longest request."""
_LONGEST = 100
"""Bytes of a path that every system takes; Linux takes 107."""


@contextlib.contextmanager
def address(folder: Path) -> Iterator[str]:
    """The socket's address, valid inside the block. Raises OSError."""
    path = str(folder / NAME)
    if len(os.fsencode(path)) <= _LONGEST:
        yield path
        return
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        yield f"/proc/self/fd/{descriptor}/{NAME}"
    finally:
        os.close(descriptor)
