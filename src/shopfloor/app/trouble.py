"""A disk that fails somewhere in a session, said as the log would say it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from shopfloor import git
from shopfloor.domain.errors import ShopfloorError
from shopfloor.stores.files import refusal


@contextmanager
def disk_trouble(folder: Path) -> Iterator[None]:
    """Say it as the log would where another file could not be written: what is wrong, and what to type."""
    try:
        yield
    except git.GitError as problem:
        if problem.disk is None:
            raise
        raise refusal("work with git in", folder.parent, problem.disk) from problem
    except (ShopfloorError, ConnectionError):
        raise
    except OSError as problem:
        if problem.errno is None:
            raise
        raise refusal("write", Path(problem.filename or folder), problem) from problem
