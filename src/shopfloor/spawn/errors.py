"""Why a command did not start, or did not end in time.

ShopfloorError
├── SpawnError        it could not be started; `reason` tells the causes apart
└── CommandTimeout    it was killed after its time limit; also a TimeoutError
"""

from __future__ import annotations

import errno
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from shopfloor.domain.errors import ShopfloorError

Reason = Literal["not_found", "not_executable", "cwd", "guard", "other"]


class SpawnError(ShopfloorError):
    """A command could not be started; `program` and `cwd` name it, `reason` tells the causes apart."""

    def __init__(self, argv: Sequence[str], cwd: Path, what: str, *, reason: Reason = "other", hint: str = "") -> None:
        self.program = argv[0] if argv else ""
        self.cwd = cwd
        self.reason: Reason = reason
        super().__init__(f"cannot start {self.program!r} in {str(cwd)!r}: {what}", hint=hint)


class CommandTimeout(ShopfloorError, TimeoutError):
    """A command given to `run` took too long and was killed; `stdout` and `stderr` hold what it wrote."""

    def __init__(self, argv: Sequence[str], *, timeout_s: float, stdout: bytes, stderr: bytes) -> None:
        self.argv = tuple(argv)
        self.timeout_s = timeout_s
        self.stdout = stdout
        self.stderr = stderr
        super().__init__(f"{argv[0]!r} took longer than {timeout_s:g} s and was killed")


def refusal(argv: Sequence[str], cwd: Path, *, stage: str, number: int) -> SpawnError:
    """The error for a stage (cwd, program, fork) that failed with this errno."""
    name, what = argv[0], os.strerror(number).lower()
    missing = number in {errno.ENOENT, errno.ENOTDIR}
    if stage == "cwd":
        hint = f"create the directory {str(cwd)!r} first"
        return SpawnError(argv, cwd, f"that directory: {what}", reason="cwd", hint=hint)
    if stage == "program" and missing and "/" in name and Path(cwd, name).exists():
        hint = f"look at the first line of {name!r}"
        return SpawnError(argv, cwd, "its interpreter is missing", reason="not_found", hint=hint)
    if stage == "program" and missing:
        hint = f"install {name!r}, or give its full path"
        return SpawnError(argv, cwd, "no such program", reason="not_found", hint=hint)
    if stage == "program" and number in {errno.EACCES, errno.EPERM, errno.ENOEXEC, errno.EISDIR}:
        hint = f"make it executable (chmod +x {name}) and let its first line name an interpreter"
        return SpawnError(argv, cwd, f"not executable: {what}", reason="not_executable", hint=hint)
    return SpawnError(argv, cwd, what)
