"""What the campaigns do with the machine: the installed command, what it took, and who is alive."""

from __future__ import annotations

import compileall
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import IO, Any, NamedTuple

import msgspec
import psutil

import shopfloor

CALM = {"SHOPFLOOR_LOAD_PER_CORE": "100", "SHOPFLOOR_MEMORY_FREE": "0"}
"""Where the load of the machine is not what is measured: let everything in."""
KEPT_BYTES = 1 << 20
LONGEST_S = 900.0
"""No command of a campaign may take longer."""


class Took(NamedTuple):
    """What one command took. ``peak_mib`` is of its largest process, the command itself or one that it waited for."""

    wall_s: float
    peak_mib: float
    code: int
    out: bytes


class Machine:
    """The installed command, compiled, in an environment that says nothing of this one."""

    def __init__(self, home: Path) -> None:
        home.mkdir(exist_ok=True)
        compileall.compile_dir(Path(shopfloor.__file__).parent, quiet=1)
        script = Path(sys.executable).with_name("shopfloor")
        self.command = [str(script)] if script.exists() else [sys.executable, "-m", "shopfloor"]
        left_out = ("GIT_", "SHOPFLOOR_", "PYTHON")
        self.env = {name: value for name, value in os.environ.items() if not name.startswith(left_out)}
        self.env |= {"HOME": str(home), "XDG_CONFIG_HOME": str(home / ".config")}

    def run(self, repo: Path, *words: str, command: Sequence[str] = (), env: Mapping[str, str] | None = None) -> Took:
        """Run the command to its end and keep the first part of what it printed."""
        # Through a file: Linux counts the most that this process ever had as the command's.
        with tempfile.TemporaryFile() as out:
            began = time.perf_counter()
            process = self.start(repo, *words, command=command, env=env, out=out)
            _pid, status, used = os.wait4(process.pid, 0)
            took_s = time.perf_counter() - began
            process.returncode = os.waitstatus_to_exitcode(status)
            out.seek(0)
            return Took(took_s, used.ru_maxrss / 1024.0, process.returncode, out.read(KEPT_BYTES))

    def start(
        self, repo: Path, *words: str, command: Sequence[str] = (), env: Mapping[str, str] | None = None,
        out: IO[bytes] | int = subprocess.PIPE,
    ) -> subprocess.Popen[bytes]:  # fmt: skip
        """Start the command; it is the caller's to end."""
        return subprocess.Popen(
            [*(command or self.command), *words], cwd=repo, env={**self.env, **(env or {})},
            stdin=subprocess.DEVNULL, stdout=out, stderr=subprocess.STDOUT,
        )  # fmt: skip

    def medians(self, repo: Path, rounds: int, commands: Mapping[str, Sequence[str]]) -> dict[str, Took]:
        """The median wall time of each whole command line, and its greatest memory; they take turns."""
        took: dict[str, list[Took]] = {name: [] for name in commands}
        warm = int(rounds > 1)
        for _ in range(rounds + warm):
            for name, command in commands.items():
                took[name].append(self.run(repo, command=command))
        # The first of several rounds warms files and compiled code.
        return {
            name: Took(statistics.median(t.wall_s for t in all_[warm:]), max(t.peak_mib for t in all_), all_[-1].code,
                       all_[-1].out)
            for name, all_ in took.items()
        }  # fmt: skip


def repository(repo: Path, files: int = 20) -> str:
    """A git repository with one commit on ``main``; returns the commit."""
    repo.mkdir(parents=True)
    for number in range(files):
        (repo / f"file{number}.txt").write_text(f"{number}\n")
    for words in (["init", "-q", "-b", "main"], ["add", "-A"],
                  ["-c", "user.name=c", "-c", "user.email=c@localhost", "commit", "-q", "-m", "start"]):  # fmt: skip
        subprocess.run(["git", *words], cwd=repo, check=True)
    head = subprocess.run(["git", "rev-parse", "HEAD"], cwd=repo, check=True, capture_output=True, text=True)
    return head.stdout.strip()


def events(repo: Path, after: int = 0) -> list[dict[str, Any]]:
    """The whole lines of the log behind a byte."""
    try:
        with (repo / ".work" / "events.jsonl").open("rb") as file:
            file.seek(after)
            lines = file.read().split(b"\n")[:-1]
    except FileNotFoundError:
        return []
    return [msgspec.json.decode(line) for line in lines]


def until(condition: Callable[[], bool], *, limit_s: float, pause_s: float = 0.05) -> bool:
    """Wait for something outside of this process; False when the time is over."""
    end = time.monotonic() + limit_s
    while not condition():
        if time.monotonic() > end:
            return False
        time.sleep(pause_s)
    return True


def controller(repo: Path) -> psutil.Process:
    """The living controller of a repository."""
    return psutil.Process(json.loads((repo / ".work" / "controller.lock").read_text())["pid"])


def say(text: str) -> None:
    """Progress, for whoever waits."""
    print(text, file=sys.stderr, flush=True)
