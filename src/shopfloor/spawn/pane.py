"""Keeps one command in a terminal that outlives the engine: what the guard's keepers do, without a guard above.

    python -I -S pane.py SPEC

SPEC is a JSON file with ``argv``, ``cwd``, ``env``, ``folder`` and ``mark``; it holds secrets and is removed once it
was read. The keeper is a child sub-reaper, so everything that the command starts comes back to it, whatever session or
environment that gave itself; it ends what is left when the command ends. It writes into ``folder``

- ``pane.json``: ``pid`` and ``start_time`` of the command, or ``stage`` and ``errno`` of what failed;
- ``exit.json``: ``code`` or ``signal``, ``max_rss_bytes``, ``cpu_s``, ``leftovers``;

then ``mark`` on the terminal, so that whoever records that knows when he has heard everything. SIGTERM is passed on to
all that the command started; SIGHUP (the terminal is gone) and SIGUSR1 kill all of it.
"""

import json
import os
import signal
import sys
import termios
from contextlib import suppress
from pathlib import Path
from types import FrameType
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[2]))

from shopfloor import guard

_IGNORED = (signal.SIGINT, signal.SIGQUIT, signal.SIGTSTP)
"""What the terminal sends to the command too, for which it is meant."""


def write(folder: Path, name: str, facts: dict[str, Any]) -> None:
    """A file that is there whole or not at all."""
    made = folder / f".{name}"
    made.touch(mode=0o600)
    made.write_text(json.dumps(facts))
    made.replace(folder / name)


def become(spec: dict[str, Any], keeper: int, status: int) -> None:
    """Become the command. To ``status``, which exec closes, go 20 bytes of start time, then what failed."""
    stage = "fork"
    try:
        guard.prctl(guard.SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != keeper:
            os._exit(127)
        os.write(status, b"%-20d" % (int(guard.stat(os.getpid())[19]) if guard.LINUX else 0))
        stage = "cwd"
        os.chdir(spec["cwd"])
        stage = "program"
        for sig in signal.valid_signals() - {signal.SIGKILL, signal.SIGSTOP}:
            signal.signal(sig, signal.SIG_DFL)
        os.execvpe(spec["argv"][0], spec["argv"], spec["env"])
    except OSError as error:
        os.write(status, f"{stage} {error.errno}".encode())
    except ValueError:
        os.write(status, f"{stage} 22".encode())  # what no program can be given
    os._exit(127)


def launch(spec: dict[str, Any]) -> tuple[int, dict[str, Any]]:
    """Fork and exec the command: its process id, 0 when it failed, and what to tell of it."""
    keeper = os.getpid()
    readable, writable = os.pipe()
    pid = os.fork()
    if pid == 0:
        become(spec, keeper, writable)
    os.close(writable)
    start_time = int(os.read(readable, 20) or 0)
    failure = os.read(readable, 100).decode()
    os.close(readable)
    if failure:
        os.waitpid(pid, 0)
        stage, number = failure.split()
        return 0, {"stage": stage, "errno": int(number)}
    return pid, {"pid": pid, "start_time": start_time}


def kill_all(_number: int, _frame: FrameType | None) -> None:
    """As a handler: the loop that waits for the command's end then kills what appears meanwhile."""
    for pid in guard.descendants(os.getpid()):
        with suppress(OSError):  # it has ended, or belongs to another user
            os.kill(pid, signal.SIGKILL)


def main() -> int:
    """Run the command to its end; the exit code is the command's, as far as one can tell it."""
    source = Path(sys.argv[1])
    spec = json.loads(source.read_text())
    source.unlink()
    folder = Path(spec["folder"])
    guard.prctl(guard.SET_CHILD_SUBREAPER, 1)
    for sig in _IGNORED:
        signal.signal(sig, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, lambda *_: guard.signal_tree(signal.SIGTERM))
    signal.signal(signal.SIGHUP, kill_all)
    signal.signal(signal.SIGUSR1, kill_all)
    pid, told = launch(spec)
    write(folder, "pane.json", told)
    if not pid:
        return 127
    tally = guard.Tally(pid)
    while tally.status is None:
        tally.reap(block=True)
    leftovers = tally.kill_all()
    code = os.waitstatus_to_exitcode(tally.status)
    facts = {"code": code if code >= 0 else None, "signal": -code if code < 0 else None}
    used = {"max_rss_bytes": tally.max_rss, "cpu_s": round(tally.cpu_s, 3), "leftovers": leftovers}
    write(folder, "exit.json", {**facts, **used})
    with suppress(OSError, termios.error):  # the terminal is gone
        termios.tcflow(1, termios.TCOON)  # somebody may have held it with Ctrl-S
        os.write(1, spec["mark"].encode())
    return code if code >= 0 else 128 - code


if __name__ == "__main__":
    sys.exit(main())
