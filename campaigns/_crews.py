"""Crews as processes on one folder: started, killed, ended, and what they say they did."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil

ROOT = Path(__file__).resolve().parents[1]
END_S = 60.0


class Crew:
    """One process of `campaigns._crew`."""

    def __init__(
        self, place: Path, name: str, *, workers: int, longest_s: float = 0.0, fails: int = 0, seed: int = 1
    ) -> None:
        self.name = name
        self.report = place / f"{name}.jsonl"
        words = [str(place / "workspace"), str(self.report), name, str(workers), str(longest_s), str(fails), str(seed)]
        with (place / f"{name}.err").open("a") as errors:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "campaigns._crew", *words], cwd=ROOT, stdin=subprocess.PIPE, stderr=errors
            )

    def kill(self) -> None:
        """End it with SIGKILL."""
        os.kill(self.process.pid, signal.SIGKILL)
        self.process.wait(END_S)
        self._hang_up()

    def end(self) -> int:
        """Have it shut down; its exit code."""
        self._hang_up()
        return self.process.wait(END_S)

    def lines(self) -> list[dict[str, str | int]]:
        """Its report; the last line of one that was killed may be torn."""
        found = []
        for line in self.report.read_text().splitlines() if self.report.exists() else []:
            try:
                found.append(json.loads(line))
            except ValueError:
                continue
        return found

    @property
    def rss_mib(self) -> float:
        """What it has in memory now; 0 when it is dead."""
        try:
            return float(psutil.Process(self.process.pid).memory_info().rss) / 2**20
        except psutil.Error:
            return 0.0

    @property
    def peak_mib(self) -> float:
        """The most that it ever had in memory; 0 when it is dead, or where the system does not say."""
        try:
            lines = Path(f"/proc/{self.process.pid}/status").read_text().splitlines()
        except OSError:
            return 0.0
        return next((float(line.split()[1]) / 1024.0 for line in lines if line.startswith("VmHWM:")), 0.0)

    def _hang_up(self) -> None:
        if self.process.stdin is not None:
            self.process.stdin.close()


@contextmanager
def crews() -> Iterator[list[Crew]]:
    """A list whose living crews are killed at the end."""
    running: list[Crew] = []
    try:
        yield running
    finally:
        for crew in running:
            if crew.process.poll() is None:
                crew.kill()
