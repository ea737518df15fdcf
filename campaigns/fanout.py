"""Ten thousand specifications, ten agents, 1,024 descriptors: agents break, the dispatcher is killed, nothing is lost.

Each round is one batch with agents that take 0, 10 or 100 ms. First it is performed by itself. Then again: half way one
agent is killed and another one answers 500, and the dispatcher is killed with -9 at random moments and gone on with by
`--resume` alone. At last all agents die, and come back.
"""

from __future__ import annotations

import json
import os
import random
import re
import signal
import sqlite3
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import closing
from pathlib import Path

import msgspec

from benchmarks.figures import Figure
from campaigns.outcome import Options, Outcome
from shopfloor.faces.fanout import story
from shopfloor.testing.spec_answers import Fault
from shopfloor.testing.spec_servers import Servers, serving

SPECS, FEWEST = 10_000, 150
AGENTS, DESCRIPTORS = 10, 1024
LATENCIES_MS = (10, 0, 100)
KILLS = 3
"""of the dispatcher, in a round"""
PEAK_MB = 80.0
_PROGRESS = re.compile(r"Progress: (\d+)/")


class Count(msgspec.Struct):
    """What was found in all rounds."""

    specs: int = 0
    kills: int = 0
    requests: int = 0
    missing: int = 0
    """specifications without a row"""
    doubled: int = 0
    """rows beyond one for each"""
    failed: int = 0
    """results that are no success, though another agent could have had it"""
    again: int = 0
    """specifications that an agent was asked for after their result was stored"""
    refused: int = 0
    """commands that did not end as they should have"""
    moved: int = 0
    peak_mb: float = 0.0
    """of a dispatcher that did the whole batch"""


def run(options: Options) -> Outcome:
    """A round for each latency; a smaller campaign has fewer specifications, and the smallest one a single round."""
    chance, count = random.Random(options.seed), Count()
    whole = options.size >= 1
    number = max(FEWEST, round(SPECS * options.size))
    for latency_ms in LATENCIES_MS if whole else LATENCIES_MS[:1]:
        for act in (_by_itself, _broken, *((_all_die,) if whole else ())):
            with tempfile.TemporaryDirectory() as place, serving(AGENTS, latency_ms=latency_ms) as servers:
                act(_Batch(Path(place), number, servers, count), chance)
            print(f"fanout: {latency_ms} ms, {act.__name__.strip('_')}: {count}", file=sys.stderr, flush=True)
    return Outcome(
        figures=list(_figures(count, whole=whole)),
        untested=[
            "Agents and dispatcher share a machine and the loopback: no packet is lost, no name is resolved.",
            "A queue in Redis and results in PostgreSQL are tested by the suite with hundreds of specifications.",
        ],
    )


class _Batch:
    """One batch in a folder of its own."""

    def __init__(self, folder: Path, number: int, servers: Servers, count: Count) -> None:
        self.number, self.servers, self.count = number, servers, count
        self._folder = folder
        self._left = 0
        specs = folder / "specs.json"
        specs.write_bytes(msgspec.json.encode([spec.document() for spec in story(number)]))
        self.begin = ["specs.json", *(word for url in servers.urls for word in ("--agents", url))]
        count.specs += number

    def dispatch(self, *words: str, until: int = 0, wanted: int = 0) -> Iterator[int]:
        """Perform it and tell how far it is; killed at ``until``, else it has to end with ``wanted``."""
        limited = ["sh", "-c", f'ulimit -n {DESCRIPTORS}; exec "$@"', "sh"]
        command = [*limited, sys.executable, "-m", "shopfloor", "fanout", *words, "--results", "sqlite:results.db"]
        with (self._folder / "err").open("w+") as err:
            process = subprocess.Popen(
                command, cwd=self._folder, stdout=subprocess.PIPE, stderr=err, text=True,
                env=os.environ | {"PYTHONUNBUFFERED": "1", "SHOPFLOOR_MEMORY_FREE": "0"},
            )  # fmt: skip
            assert process.stdout is not None
            for line in process.stdout:
                if found := _PROGRESS.match(line):
                    if words == tuple(self.begin) and not until:
                        self.count.peak_mb = max(self.count.peak_mb, _peak_mb(process.pid))
                    yield int(found[1])
                    if until and int(found[1]) >= until:
                        process.send_signal(signal.SIGKILL)
                        self.count.kills += 1
                        break
            process.stdout.close()
            if process.wait() != wanted and not until:
                err.seek(0)
                print(f"fanout: exit {process.returncode}: {err.read()[-500:]}", file=sys.stderr)
                self.count.refused += 1

    def stored(self) -> list[tuple[str, bool, str]]:
        """The rows so far: specification, success, agent."""
        with closing(sqlite3.connect(self._folder / "results.db", timeout=30)) as db:
            return [*db.execute("SELECT spec_id, success, agent_id FROM agent_results")]

    def asked(self) -> Counter[str]:
        """How often each specification was asked for."""
        return Counter(request.id for request in self.servers.requests if request.path == "/spec/validate")

    def judge(self, kept: dict[str, int]) -> None:
        """Count what is wrong; ``kept``: what was stored at a kill, and how often it had been asked for by then."""
        rows, asked = self.stored(), self.asked()
        names = Counter(name for name, _, _ in rows)
        self.count.requests += len(self.servers.requests)
        self.count.missing += self.number - len(names)
        self.count.doubled += sum(names.values()) - len(names)
        self.count.failed += sum(not success for _, success, _ in rows)
        self.count.again += sum(asked[name] > times for name, times in kept.items())
        report = self._folder / "report.json"
        for _ in self.dispatch("--resume", "--json", report.name):
            pass
        told = json.loads(report.read_bytes())
        self.count.moved += told["moved"]
        self.count.missing += abs(self.number - told["total_runs"])


def _by_itself(batch: _Batch, _chance: random.Random) -> None:
    for _ in batch.dispatch(*batch.begin):
        pass
    batch.judge({})


def _broken(batch: _Batch, chance: random.Random) -> None:
    ends = sorted(chance.randint(1, batch.number * 9 // 10) for _ in range(KILLS))
    kept: dict[str, int] = {}
    broken = False
    for place, end in enumerate([*ends, 0]):
        for done in batch.dispatch(*(["--resume"] if place else batch.begin), until=end):
            if not broken and done >= batch.number // 2:
                broken = True
                batch.servers.stop(chance.randrange(AGENTS))
                port = int(chance.choice(batch.servers.urls).rpartition(":")[2])
                batch.servers.knob(faults=(Fault("500", ports=frozenset({port})),))
        asked = batch.asked()
        kept |= {name: asked[name] for name, _, _ in batch.stored() if name not in kept}
    batch.judge(kept)


def _all_die(batch: _Batch, _chance: random.Random) -> None:
    dead = False
    for done in batch.dispatch(*batch.begin, wanted=1):
        if not dead and done >= batch.number // 2:
            dead = True
            batch.servers.knob(faults=(Fault("500"),))
    batch.servers.knob(faults=())
    asked = batch.asked()
    kept = {name: asked[name] for name, _, _ in batch.stored()}
    for _ in batch.dispatch("--resume"):
        pass
    batch.judge(kept)


def _peak_mb(pid: int) -> float:
    # What wait4 tells counts what this process had when it forked.
    found = re.search(r"^VmHWM:\s+(\d+) kB", Path(f"/proc/{pid}/status").read_text(), re.MULTILINE)
    return int(found[1]) / 1000 if found else 0.0


def _figures(count: Count, *, whole: bool) -> Iterable[Figure]:
    yield Figure(name="specifications", value=count.specs)
    yield Figure(name="requests to agents", value=count.requests)
    yield Figure(name="dispatchers killed with -9", value=count.kills)
    yield Figure(name="results from another agent than the one they were meant for", value=count.moved)
    for name, value in (
        ("specifications without a result", count.missing),
        ("results that were stored twice", count.doubled),
        ("results that are failures", count.failed),
        ("specifications done again although their result was stored", count.again),
        ("commands that did not end as they should have", count.refused),
    ):
        yield Figure(name=name, value=value, bar="0", ok=value == 0)
    bar = f"<= {PEAK_MB:g} MB" if whole else ""
    ok = count.peak_mb <= PEAK_MB if whole else None
    yield Figure(name="peak memory of a dispatcher", value=count.peak_mb, unit="MB", bar=bar, ok=ok)
