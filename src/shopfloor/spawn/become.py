"""To end as another program, for commands that only show the way to one."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NoReturn

from shopfloor.spawn.errors import refusal


def become(argv: Sequence[str], *, cwd: Path, env: Mapping[str, str]) -> NoReturn:
    """Replace this process by the program, with this terminal. Raises SpawnError when that is not possible."""
    try:
        os.chdir(cwd)
        os.execvpe(argv[0], list(argv), dict(env))
    except OSError as error:
        stage = "cwd" if str(error.filename) == str(cwd) != argv[0] else "program"
        raise refusal(argv, cwd, stage=stage, number=error.errno or 0) from None
