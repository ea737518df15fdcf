"""A disk that fails somewhere in a session, said as the log would say it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from shopfloor import git
from shopfloor.domain.errors import Refused, ShopfloorError
from shopfloor.stores.files import RESUME, refusal

AGAIN = "then say it again: nothing has begun"


@contextmanager
def disk_trouble(folder: Path, begun: Callable[[], bool]) -> Iterator[None]:
    """Say it as the log would where another file could not be written: what is wrong, and what to type.

    ``begun``: whether there is a run to go on with.
    """
    try:
        with _as_the_log_would(folder):
            yield
    except Refused as problem:
        if problem.hint.endswith(RESUME) and not begun():
            problem.hint = problem.hint.removesuffix(RESUME) + AGAIN
        raise


@contextmanager
def _as_the_log_would(folder: Path) -> Iterator[None]:
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
