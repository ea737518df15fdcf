"""A hundred thousand orders and a million events in the log: what every command takes then."""

from __future__ import annotations

import asyncio
import signal
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import msgspec

from benchmarks.figures import Figure
from campaigns import _history
from campaigns._history import History
from campaigns._machine import CALM, LONGEST_S, Machine, Took, events, repository, say, until
from shopfloor.domain.events import E, Event, stamp_time
from shopfloor.ports import Query
from shopfloor.stores.workdir import WorkdirStore

ROUNDS = 9
SMALL = 100
"""orders in the short log that the long one is compared with"""
CLAIMS = 100
LAUNCHER = "import sys\nfrom shopfloor.fast import main\nsys.exit(main())"


def measure(machine: Machine, place: Path, orders: int) -> Iterator[Figure]:
    """Everything about the long log, in one repository; the short one stands beside it."""
    small, repo = place / "short", place / "long"
    written_small = _written(machine, small, min(SMALL, orders // 2))
    written = _written(machine, repo, orders)
    say(f"scale: a log of {written.orders:,} orders and {written.events:,} events, {written.size_bytes >> 20} MiB")
    yield Figure(name="orders in the log", value=written.orders)
    yield Figure(name="events in the log", value=written.events)
    yield from _index(machine, repo, written)
    machine.run(small, "--no-color", "status")
    yield from _commands(machine, (small, written_small), (repo, written))
    yield from _start(machine, repo, written)
    yield from _claims(machine, repo, written.orders)


def _written(machine: Machine, repo: Path, orders: int) -> History:
    """In a process of its own: what it takes is not ours to carry."""
    base = repository(repo)
    words = [sys.executable, _history.__file__, str(repo / ".work"), str(orders), base]
    done = subprocess.run(words, check=True, capture_output=True, env=machine.env)
    return msgspec.json.decode(done.stdout, type=History)


# -- the index ----------------------------------------------------------------------------------------------------


def _index(machine: Machine, repo: Path, written: History) -> Iterator[Figure]:
    folding = machine.run(repo, command=[sys.executable, "-c", _FOLD, str(repo / ".work")])
    made = machine.run(repo, "--no-color", "status")
    for path in (repo / ".work").glob("index.sqlite*"):
        path.unlink()
    again = machine.run(repo, "--no-color", "status")
    took_s = min(made.wall_s, again.wall_s)
    bar_s = 2.0 * written.events / 100_000
    yield Figure(
        name="the index made anew, against a fold of the log without one", value=took_s, unit="s",
        bar=f"≤ {bar_s:.3g} s (2 s for 100,000 events)", ok=_held(took_s, bar_s, written),
        baseline=folding.wall_s, ratio=took_s / folding.wall_s,
    )  # fmt: skip
    yield _memory("the index made anew", again)
    yield Figure(
        name="status differs before and after", value=int(_plain(made) != _plain(again)), bar="0",
        ok=_plain(made) == _plain(again) and made.code == again.code == 0,
    )  # fmt: skip


_FOLD = """
import asyncio, sys, time
from pathlib import Path
from shopfloor.domain.board import Board
from shopfloor.stores.log import Log
log, board = Log(Path(sys.argv[1])), Board()
for found in log.scan(log.scanner_at(0), log.size()):
    for one in found:
        board.apply(one.event)
print(len(board.records))
"""


def _plain(took: Took) -> list[bytes]:
    """Without the ages, which grow."""
    return took.out.splitlines()[1:]


def _held(value: float, bar: float, written: History) -> bool | None:
    """Times are held to their bar in the whole campaign only: a short one says nothing of them."""
    return value <= bar if written.orders >= FULL else None


FULL = 100_000


def _memory(name: str, took: Took) -> Figure:
    return Figure(name=f"{name}: peak memory", value=took.peak_mib, unit="MiB")


# -- commands -----------------------------------------------------------------------------------------------------


def _commands(machine: Machine, short: tuple[Path, History], long: tuple[Path, History]) -> Iterator[Figure]:
    rounds = ROUNDS if long[1].orders >= FULL else 1
    quick = {
        "bare interpreter": [sys.executable, "-c", "pass"],
        "--version": [sys.executable, "-c", LAUNCHER, "--version"],
        "status": [sys.executable, "-c", LAUNCHER, "status"],
    }
    found = {
        repo: machine.medians(repo, rounds, {**quick, **_questions(machine, written)})
        for repo, written in (short, long)
    }
    here, there = found[long[0]], found[short[0]]
    bare_s = here["bare interpreter"].wall_s
    yield Figure(name="bare interpreter", value=bare_s * 1e3, unit="ms")
    for name, bar in (("--version", 1.5), ("status", 4.0)):
        ratio = here[name].wall_s / bare_s
        yield Figure(
            name=f"shopfloor {name}", value=here[name].wall_s * 1e3, unit="ms", bar=f"≤ {bar:g} x",
            baseline=bare_s * 1e3, ratio=ratio, ok=_held(ratio, bar, long[1]),
        )  # fmt: skip
    for name in _questions(machine, long[1]):
        ratio = here[name].wall_s / there[name].wall_s
        one = name not in _ALL_OF_A_RUN
        yield Figure(
            name=f"{name}, against the same in a short log", value=here[name].wall_s * 1e3, unit="ms",
            bar="≤ 1.5 x" if one else "", baseline=there[name].wall_s * 1e3, ratio=ratio,
            ok=_held(ratio, 1.5, long[1]) if one else None,
        )  # fmt: skip
        yield _memory(name, here[name])
    wrong = [name for side in found.values() for name, took in side.items() if took.code not in _CODES.get(name, (0,))]
    yield Figure(name="commands that failed", value=len(wrong), bar="0", ok=not wrong)


_ALL_OF_A_RUN = ("status --json, which lists half of all orders",)
_CODES = {"log ORDER": (3,), "pause, which is refused": (4,), "diff ORDER": (1,)}
"""No agent ever ran in this history, so there is no output of one."""


def _questions(machine: Machine, written: History) -> dict[str, list[str]]:
    command = machine.command
    return {
        "show ORDER": [*command, "show", written.waiting],
        "show an order of the first run": [*command, "show", written.old],
        "log ORDER": [*command, "log", written.done],
        "pause, which is refused": [*command, "pause"],
        _ALL_OF_A_RUN[0]: [*command, "status", "--json"],
    }


# -- a controller -------------------------------------------------------------------------------------------------


def _start(machine: Machine, repo: Path, written: History) -> Iterator[Figure]:
    """Go on with the run that was cut off: how long until something is started, and what it takes to be asked."""
    behind = (repo / ".work" / "events.jsonl").stat().st_size
    began = time.monotonic()
    process = machine.start(repo, "run", "--resume", "--plain", "--max-parallel", "4", env=CALM)
    try:
        started = until(lambda: _begun(repo, behind) or process.poll() is not None, limit_s=LONGEST_S / 3)
        took_s = time.monotonic() - began
        if process.poll() is not None:
            raise RuntimeError(process.communicate()[0].decode(errors="replace"))
        pause = machine.run(repo, "pause")
        peak_mib = _peak_mib(process.pid)
        process.send_signal(signal.SIGTERM)
        process.communicate(timeout=LONGEST_S)
    finally:
        if process.poll() is None:
            process.kill()
            process.wait()
    bar_s = 2.0 * written.events / 100_000
    yield Figure(
        name="run --resume: until an order is started", value=took_s, unit="s",
        bar=f"≤ {bar_s:.3g} s (2 s for 100,000 events)", ok=started if written.orders < FULL else took_s <= bar_s,
    )  # fmt: skip
    yield Figure(name="run --resume: peak memory of the controller", value=peak_mib, unit="MiB")
    yield Figure(
        name="pause, answered by that controller", value=pause.wall_s * 1e3, unit="ms", bar="answered",
        ok=pause.code == 0,
    )  # fmt: skip
    after = machine.run(repo, "status")
    yield Figure(name="status after that fails", value=after.code, bar="0", ok=after.code == 0)


def _begun(repo: Path, behind: int) -> bool:
    return any(event["event_type"] == E.AGENT_STARTED for event in events(repo, behind))


def _peak_mib(pid: int) -> float:
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next((float(line.split()[1]) / 1024.0 for line in lines if line.startswith("VmHWM:")), 0.0)


# -- ready and claim ----------------------------------------------------------------------------------------------


def _claims(machine: Machine, repo: Path, orders: int) -> Iterator[Figure]:
    words = [sys.executable, __file__, str(repo / ".work"), str(CLAIMS)]
    taken = machine.run(repo, command=words, env={"PYTHONPATH": str(Path(__file__).parents[1])})
    if taken.code:
        raise RuntimeError(taken.out.decode(errors="replace"))
    took_ms, claimed = msgspec.json.decode(taken.out, type=tuple[list[float], int])
    p95 = statistics.quantiles(took_ms, n=20)[-1]
    yield Figure(
        name=f"ready by the index and claim at {orders:,} orders, p95", value=p95, unit="ms", bar="≤ 20 ms",
        ok=p95 <= 20.0 if orders >= FULL else None,
    )  # fmt: skip
    yield Figure(name="orders claimed twice", value=len(took_ms) - claimed, bar="0", ok=len(took_ms) == claimed)
    yield _memory("ready and claim", taken)


class _Clock:
    def wall(self) -> float:
        return time.time()

    def awake(self) -> float:
        return time.monotonic()


async def _claim(folder: Path, number: int) -> tuple[list[float], int]:
    async with WorkdirStore(folder, clock=_Clock()) as store:
        await store.lead({})
        took, claimed = [], set()
        for _ in range(number):
            began = time.perf_counter()
            row = (await store.query(Query(state="ready", limit=50)))[0]
            data = {"work_order_id": row["id"], "generation": row["generation"] + 1, "attempt": "a", "agent": "a"}
            claim = Event(f"evt-c{row['id']}", E.ASSIGNED, stamp_time(time.time()), "shopfloor", row["run"], data)
            await store.append([claim], expect={row["id"]: row["generation"]})
            took.append((time.perf_counter() - began) * 1e3)
            claimed.add(row["id"])
    return took, len(claimed)


if __name__ == "__main__":
    print(msgspec.json.encode(asyncio.run(_claim(Path(sys.argv[1]), int(sys.argv[2])))).decode())
