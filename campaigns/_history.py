"""A long history in a log, written as the engine writes it: many finished runs, and one that was cut off half-way."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec

from shopfloor.domain.board import creation
from shopfloor.domain.events import SCHEMA, E, Event, Stamp, stamp_time
from shopfloor.domain.order import Order
from shopfloor.stores.codec import encode

START_S = 1_767_700_800.0
PER_RUN = 1_000
"""orders in each of the runs that are over"""
AT_WORK = 8
INSTRUCTION = "Make the parser accept what the grammar allows, and say where it does not.\n" * 3
SCRIPT = "\n```script\n[[do]]\nhang = true\n```\n"
"""what is started anew from this history stays at work until it is stopped"""


class History(msgspec.Struct, frozen=True, kw_only=True):
    """What was written."""

    orders: int
    events: int
    size_bytes: int
    last_run: str
    done: str
    """an order of the last run that landed"""
    waiting: str
    """one of its last, which waits for another"""
    old: str
    """one of the first run"""


class _Writer:
    def __init__(self, base: str) -> None:
        self.base = base
        self.events = 0
        self.sequence = 0
        self.run = ""
        self.at = START_S

    def change(self, *drafts: tuple[E, dict[str, Any]], controller: int = 1) -> bytes:
        """The lines of one logical change, a quarter of a second after the last."""
        self.sequence += 1
        self.at += 0.25
        moment, size = stamp_time(self.at), len(drafts)
        lines = []
        for place, (kind, data) in enumerate(drafts):
            self.events += 1
            stamp = Stamp(controller, self.sequence, place, size)
            lines.append(
                encode(Event(f"evt-{self.events:012}", kind, moment, "shopfloor", self.run or None, data, None, stamp))
            )
        return b"".join(lines)


def write(folder: Path, *, orders: int, base: str, branch: str = "main") -> History:
    """Write ``events.jsonl`` into a new folder: half of the orders in runs that are over, half in the last one.

    An order that landed has 13 events, so that there are about ten for each order in all.
    """
    folder.mkdir(mode=0o700)
    writer = _Writer(base)
    path = folder / "events.jsonl"
    with path.open("wb") as file:
        for piece in _pieces(writer, orders, branch):
            file.write(piece)
    last = orders // 2
    return History(
        orders=orders, events=writer.events, size_bytes=path.stat().st_size, last_run=writer.run,
        done=_id(last), waiting=_id(orders - 1), old=_id(0),
    )  # fmt: skip


def _id(number: int) -> str:
    return f"wo-n{number:06}"


def _pieces(writer: _Writer, orders: int, branch: str) -> Iterator[bytes]:
    yield writer.change((E.LOG_OPENED, {"schema": SCHEMA}), controller=0)
    yield writer.change((E.CONTROLLER_STARTED, {"generation": 1, "pid": 1, "host": "localhost"}))
    half = orders // 2
    for first in range(0, half, PER_RUN):
        numbers = range(first, min(first + PER_RUN, half))
        yield _begin(writer, f"run-h{first // PER_RUN:04}", branch, [_order(n) for n in numbers])
        for number in numbers:
            yield from _life(writer, number, fails=number % 20 == 7)
        yield writer.change((E.RUN_FINISHED, {"run_id": writer.run}))
    yield _begin(writer, "run-last", branch, [_order(n, needs=_needs(n, half)) for n in range(half, orders)])
    done = half + (orders - half) // 2
    for number in range(half, done):
        yield from _life(writer, number, fails=number % 500 == 499)
    for number in range(done, min(done + AT_WORK, orders)):
        yield from _claimed(writer, number)


def _needs(number: int, first: int) -> tuple[str, ...]:
    """Chains of five: each waits for the one before it."""
    return (_id(number - 1),) if (number - first) % 5 else ()


def _order(number: int, needs: tuple[str, ...] = ()) -> Order:
    files = (f"src/part{number}.py",) if number % 2 else ()
    return Order(
        id=_id(number), name=f"task-{number}", title=f"Task {number}", instruction=INSTRUCTION + SCRIPT,
        depends_on=needs, files=files, source=f"prompts/task-{number}.md",
    )  # fmt: skip


def _begin(writer: _Writer, run: str, branch: str, orders: list[Order]) -> bytes:
    writer.run = run
    profile: dict[str, Any] = {"driver": "scripted", "command": [], "pass_env": [], "memory_limit_bytes": None}
    data = {
        "run_id": run, "branch": branch, "ref": f"refs/shopfloor/target/{branch}", "base": writer.base,
        "tip": writer.base, "mirror": writer.base, "land": "auto", "agent": "scripted", "max_parallel": AT_WORK,
        "checks": ["true"], "passed_on_base": ["true"], "base_checked": True, "profiles": {"scripted": profile},
    }  # fmt: skip
    return writer.change((E.RUN_STARTED, data), *((E.CREATED, creation(order)) for order in orders))


def _claimed(writer: _Writer, number: int) -> Iterator[bytes]:
    order = _id(number)
    about: dict[str, Any] = {"work_order_id": order, "generation": 1, "agent": f"shopfloor/workers/task-{number}"}
    branch, attempt = f"shopfloor/task-{number}/n{number:06}.1", f"{order}.a1"
    claim = {**about, "assignment_path": "", "attempt": attempt, "base": writer.base, "branch": branch}
    status = {"work_order_id": order}
    yield writer.change(
        (E.ASSIGNED, {**claim, "profile": "scripted"}),
        (E.STATUS, {**status, "from_status": "open", "to_status": "assigned"}),
    )
    place = f".worktrees/slot-{number % AT_WORK}"
    yield writer.change((E.WORKSPACE, {**about, "path": place, "branch": branch, "base": writer.base}))
    handle = {"driver": "scripted", "pid": 0, "start_time": 0, "attempt": attempt, "detail": {}}
    yield writer.change(
        (E.AGENT_STARTED, {**about, "session_name": "", "worktree": place, "profile": "", "handle": handle}),
        (E.STATUS, {**status, "from_status": "assigned", "to_status": "in_progress"}),
    )


def _life(writer: _Writer, number: int, *, fails: bool) -> Iterator[bytes]:
    order = _id(number)
    yield from _claimed(writer, number)
    about: dict[str, Any] = {"work_order_id": order, "generation": 1}
    commit, tree = f"{number:040x}", f"{number + 1:040x}"
    used = {"cost_usd": 0.0125, "tokens_in": 1000, "tokens_out": 100, "steps": 3, "session": ""}
    yield writer.change((E.AGENT_USAGE, {**about, **used}))
    work = {"commit": commit, "tree": tree, "base": writer.base, "ref": "", "files": [f"src/part{number}.py"]}
    end = {"outcome": "completed", "reason": "completed", "exit_code": 0, "message": "", "notes": []}
    yield writer.change((E.AGENT_STOPPED, {**about, **end, **used, **work}))
    yield writer.change((E.VERIFY_STARTED, {**about, "process_id": None, "commit": commit, "run": 1}))
    verdict = {"commit": commit, "tree": tree, "base": writer.base, "evidence": "", "duration_s": 0.125}
    test = {**about, "criterion": "true", "passed": not fails, "required": True, "exit_code": int(fails)}
    word, passed = ("FAIL", []) if fails else ("PASS", ["true"])
    yield writer.change(
        (E.VERIFY_TEST, test), (E.VERIFY_VERDICT, {**about, **verdict, "verdict": word, "passed": passed})
    )
    status = {"work_order_id": order, "from_status": "in_progress", "to_status": "closed"}
    if fails:
        failed = {"work_order_id": order, "outcome": "failed", "reason": "checks", "message": "check failed: true"}
        yield writer.change((E.SETTLED, failed))
        return
    yield writer.change((E.LANDING_LANDED, {**about, "commit": f"{number + 2:040x}", "observed": writer.base}))
    settled = {"work_order_id": order, "outcome": "done", "reason": None, "message": ""}
    yield writer.change(
        (E.SETTLED, settled), (E.STATUS, status), (E.CLOSED, {"work_order_id": order, "reason": "done"})
    )


def main(words: list[str]) -> int:
    """``FOLDER ORDERS BASE``: write it, and say what was written as JSON."""
    folder, orders, base = words
    print(msgspec.json.encode(write(Path(folder), orders=int(orders), base=base)).decode())
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
