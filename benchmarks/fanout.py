"""Many specifications over ten agent servers: throughput, CPU, memory. `python -m benchmarks fanout`.

The installed command does the work, with a limit of 1,024 descriptors, and keeps results in SQLite. Where there is a Go
compiler, a client in Go of the usual shape (`peer/main.go`: a goroutine for each specification, nothing bounded) takes
turns with it, pair by pair, against the same servers. That one gets all the descriptors it asks for: with 1,024 most of
its requests fail. CPU is of the whole process from its start to its end, for each specification.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import NamedTuple

import msgspec

from benchmarks.figures import Figure
from shopfloor.faces.fanout import story

PEER = Path(__file__).with_name("peer") / "main.go"
OWN = Path(__file__).with_name("_own.py")
AGENTS = 10
DESCRIPTORS = 1024
LATENCIES_MS = (0, 10, 100)
ROUNDS = {100: 5, 10_000: 3}
RATIO = {100: 0.9, 10_000: 1.5}
"""throughput as a share of the peer's, at least"""
CPU_MS, PEAK_MB = 0.35, 80.0
LONGEST_S = 300.0


class Took(NamedTuple):
    """What one run came to."""

    throughput: float
    """as it says itself: starting the program is not in it"""
    cpu_ms: float
    """for each specification"""
    peak_mb: float
    failed: int


def run() -> list[Figure]:
    """The figures, with the peer's beside them where it can be built."""
    with tempfile.TemporaryDirectory() as folder:
        peer = _built(Path(folder))
        return [figure for latency in LATENCIES_MS for figure in _at(latency, Path(folder), peer)]


def _built(folder: Path) -> Path | None:
    go = shutil.which("go")
    if go is None:
        print("no Go compiler on PATH: throughput is shown without the peer (apt install golang-go)", file=sys.stderr)
        return None
    made = folder / "peer"
    environment = {**os.environ, "GOCACHE": str(folder / "cache"), "CGO_ENABLED": "0"}
    subprocess.run([go, "build", "-o", str(made), str(PEER)], check=True, env=environment, cwd=folder)
    return made


def _at(latency_ms: int, folder: Path, peer: Path | None) -> Iterator[Figure]:
    for count, rounds in ROUNDS.items():
        specs = folder / f"specs-{count}.json"
        specs.write_bytes(msgspec.json.encode([spec.document() for spec in story(count)]))
        ours, theirs = [], []
        with _serving(latency_ms) as urls:
            for number in range(rounds):
                turns = (_ours, _peers) if number % 2 else (_peers, _ours)
                for turn in turns:
                    if turn is _ours:
                        ours.append(_ours(specs, urls, count, folder / f"{latency_ms}-{count}-{number}"))
                    elif peer is not None:
                        theirs.append(_peers(peer, specs, urls, count))
        yield from _figures(f"{count:,} specs, {latency_ms} ms", count, ours, theirs)


def _figures(name: str, count: int, ours: list[Took], theirs: list[Took]) -> Iterator[Figure]:
    rate = statistics.median(took.throughput for took in ours)
    shown = Figure(name=f"throughput: {name}", value=rate, unit="/s")
    if theirs:
        other = statistics.median(took.throughput for took in theirs)
        ratio = rate / other
        bar = f">= {RATIO[count]:g} of the peer"
        shown = msgspec.structs.replace(shown, bar=bar, baseline=other, ratio=ratio, ok=ratio >= RATIO[count])
    yield shown
    lost = sum(took.failed for took in ours)
    yield Figure(name=f"failed: {name}", value=lost, bar="0", ok=lost == 0,
                 baseline=sum(took.failed for took in theirs) if theirs else None)  # fmt: skip
    if count >= 10_000:
        cpu, peak = (statistics.median(values) for values in zip(*((t.cpu_ms, t.peak_mb) for t in ours), strict=True))
        their_cpu = statistics.median(took.cpu_ms for took in theirs) if theirs else None
        their_peak = statistics.median(took.peak_mb for took in theirs) if theirs else None
        yield Figure(name=f"CPU for each: {name}", value=cpu, unit="ms", bar=f"<= {CPU_MS:g} ms", ok=cpu <= CPU_MS,
                     baseline=their_cpu, ratio=cpu / their_cpu if their_cpu else None)  # fmt: skip
        yield Figure(name=f"peak memory: {name}", value=peak, unit="MB", bar=f"<= {PEAK_MB:g} MB", ok=peak <= PEAK_MB,
                     baseline=their_peak, ratio=peak / their_peak if their_peak else None)  # fmt: skip


class _serving:  # noqa: N801 - a context manager that reads as a verb
    """Ten servers in one process of their own."""

    def __init__(self, latency_ms: int) -> None:
        self._latency_ms = latency_ms
        self._stack = ExitStack()

    def __enter__(self) -> list[str]:
        words = ["--ports", _free_ports(), "--latency", str(self._latency_ms)]
        command = [sys.executable, "-m", "shopfloor.testing.spec_servers", *words]
        server = self._stack.enter_context(subprocess.Popen(command, stdout=subprocess.PIPE, text=True))
        self._stack.callback(server.terminate)
        assert server.stdout is not None
        return [re.findall(r"http://\S+", server.stdout.readline())[0] for _ in range(AGENTS)]

    def __exit__(self, *_exc: object) -> None:
        self._stack.close()


def _free_ports() -> str:
    """Ten in a row that nobody listens at."""
    for first in range(18_080, 60_000, AGENTS):
        with ExitStack() as stack, suppress(OSError):
            for port in range(first, first + AGENTS):
                stack.enter_context(socket.socket()).bind(("127.0.0.1", port))
            return f"{first}-{first + AGENTS - 1}"
    raise OSError("there are no ten free ports in a row")


def _ours(specs: Path, urls: list[str], count: int, folder: Path) -> Took:
    folder.mkdir()
    agents = [word for url in urls for word in ("--agents", url)]
    command = [sys.executable, "-m", "shopfloor", "fanout", str(specs), *agents, "--results", "sqlite:results.db"]
    said, cpu_s, peak = _performed(command, folder, descriptors=DESCRIPTORS)
    return _took(said, count, cpu_s, peak)


def _peers(peer: Path, specs: Path, urls: list[str], count: int) -> Took:
    said, cpu_s, peak = _performed(
        [str(peer), "-specs", str(specs), "-agents", ",".join(urls)], specs.parent, descriptors=0
    )
    return _took(said, count, cpu_s, peak)


def _took(said: str, count: int, cpu_s: float, peak_kb: int) -> Took:
    known = {name: float(value) for name, value in re.findall(r"^(\w+): ([\d.]+)", said, re.MULTILINE)}
    assert known["Successful"] + known["Failed"] == count, said
    return Took(known["Throughput"], 1000 * cpu_s / count, peak_kb / 1000, int(known["Failed"]))


def _performed(command: list[str], folder: Path, *, descriptors: int) -> tuple[str, float, int]:
    """What it says, seconds of CPU, and its peak of memory in kB. ``descriptors`` 0: as many as may be had."""
    took = folder / "took"
    between = [sys.executable, "-I", "-S", str(OWN), str(took), str(descriptors)]
    said = subprocess.run([*between, *command], cwd=folder, stdout=subprocess.PIPE, check=True, text=True).stdout
    cpu_s, peak_kb, code = took.read_text().split()
    assert code in ("0", "1"), code
    return said, float(cpu_s), int(peak_kb)


if __name__ == "__main__":
    print(json.dumps(msgspec.to_builtins(run())))
