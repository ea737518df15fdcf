"""Short commands of ours, such as git: blocking, with all output in memory."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from shopfloor.spawn.errors import CommandTimeout, SpawnError, refusal

_LAST_WORDS_S = 1.0  # for the output of a killed group, which somebody outside the group may hold open


class Completed(NamedTuple):
    """A command that ended: `code` is its exit code, or minus the signal that killed it."""

    argv: tuple[str, ...]
    code: int
    stdout: bytes
    stderr: bytes


def run(
    argv: Sequence[str],
    *,
    cwd: Path,
    env: Mapping[str, str],
    input: bytes | None = None,
    timeout_s: float | None = None,
) -> Completed:
    """Run a command to its end, in its own session, stdin empty unless `input` is given.

    Raises SpawnError when it cannot be started, CommandTimeout when it was killed after `timeout_s` seconds.
    """
    try:
        process = subprocess.Popen(
            list(argv),
            cwd=cwd,
            env=dict(env),
            stdin=subprocess.DEVNULL if input is None else subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            start_new_session=True,
        )
    except OSError as error:
        stage = "cwd" if str(error.filename) == str(cwd) != argv[0] else "program"
        raise refusal(argv, cwd, stage=stage, number=error.errno or 0) from None
    except (ValueError, IndexError) as error:
        raise SpawnError(argv, cwd, str(error)) from None
    try:
        stdout, stderr = process.communicate(input, timeout_s)
    except subprocess.TimeoutExpired as late:
        stdout, stderr = _kill_group(process)
        raise CommandTimeout(argv, timeout_s=late.timeout, stdout=stdout, stderr=stderr) from None
    finally:
        if process.returncode is None:  # interrupted
            _kill_group(process)
    return Completed(tuple(argv), process.returncode, stdout, stderr)


def _kill_group(process: subprocess.Popen[bytes]) -> tuple[bytes, bytes]:
    """Kill a command of `run` and its process group; what it wrote to stdout and stderr."""
    if process.poll() is None:  # not reaped, so the group is still its own
        os.killpg(process.pid, signal.SIGKILL)
    try:
        return process.communicate(timeout=_LAST_WORDS_S)
    except subprocess.TimeoutExpired as late:
        return late.stdout or b"", late.stderr or b""
    finally:
        for stream in (process.stdin, process.stdout, process.stderr):
            if stream:
                stream.close()
        process.wait()
