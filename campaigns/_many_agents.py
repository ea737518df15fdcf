"""Many agents on one machine: a hundred at once, a thousand orders that wait for each other, fifty that idle."""

from __future__ import annotations

import json
import math
import os
import signal
import statistics
import subprocess
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import psutil

from benchmarks.figures import Figure
from campaigns._machine import CALM, LONGEST_S, Machine, Took, controller, events, repository, say, until
from shopfloor.domain.events import E, read_time

CROWD, CROWD_S = 100, 30.0
DEPENDENT, SIDE_BY_SIDE, LANDING_SHARE = 1_000, 8, 10
IDLE, WINDOW_S, SETTLE_S = 50, 10.0, 3.0
UNBLOCK_MS, IDLE_MIB, IDLE_SHARE = 250.0, 120.0, 0.01


# -- a hundred at once --------------------------------------------------------------------------------------------


def crowd(machine: Machine, place: Path, size: float) -> Iterator[Figure]:
    """As many agents as orders, all at work at the same moment; then the same with the settings that everybody has."""
    number, wait_s = max(4, math.ceil(CROWD * size)), CROWD_S if size >= 1.0 else 1.0
    command = f"cat >/dev/null; sleep {wait_s:g}; echo done > result-$$"
    say(f"scale: {number} agents at once, {wait_s:g} s each")
    hand_s = _by_hand(place, command, number)
    took, log = _together(machine, place / "crowd", command, number, CALM)
    yield _not_landed(f"{number} agents at once", took, log, number)
    yield Figure(name="most agents at work at the same moment", value=_peak(log), bar=str(number),
                 ok=_peak(log) == number if size >= 1.0 else None)  # fmt: skip
    yield Figure(name=f"wall time, against the same {number} commands by hand", value=took.wall_s, unit="s",
                 baseline=hand_s, ratio=took.wall_s / hand_s)  # fmt: skip
    if size < 1.0:
        return
    took, log = _together(machine, place / "usual-crowd", command, number, {})
    name = "the same where the machine's load decides (load_per_core as it comes)"
    yield _not_landed(name, took, log, number)
    lowest = min([number, *(int(event["data"]["limit"]) for event in log if event["event_type"] == E.ADMISSION)])
    yield Figure(name=f"{name}: fewest let in", value=lowest)
    yield Figure(name=f"{name}: most at work", value=_peak(log))
    yield Figure(name=f"{name}: wall time", value=took.wall_s, unit="s", baseline=hand_s, ratio=took.wall_s / hand_s)


def _together(
    machine: Machine, repo: Path, command: str, number: int, env: Mapping[str, str]
) -> tuple[Took, list[dict[str, Any]]]:
    """One run of orders that nothing keeps from running side by side, and its log."""
    repository(repo)
    files = [_prompt(repo, f"task-{n}", "wait") for n in range(number)]
    words = ["run", "--plain", "--max-parallel", str(number), "--check", "true", "--agent", f"sh -c '{command}'"]
    return machine.run(repo, *words, *files, env=env), events(repo)


def _not_landed(name: str, took: Took, log: list[dict[str, Any]], number: int) -> Figure:
    landed = sum(event["event_type"] == E.LANDING_LANDED for event in log)
    held = landed == number and took.code == 0
    return Figure(name=f"{name}: orders that did not land", value=number - landed, bar="0", ok=held)


def _by_hand(place: Path, command: str, number: int) -> float:
    folder = place / "by-hand"
    folder.mkdir()
    began = time.perf_counter()
    commands = [subprocess.Popen(["sh", "-c", command], cwd=folder, stdin=subprocess.DEVNULL) for _ in range(number)]
    for process in commands:
        process.wait(LONGEST_S)
    return time.perf_counter() - began


def _peak(log: list[dict[str, Any]]) -> int:
    now = most = 0
    for event in log:
        now += (event["event_type"] == E.AGENT_STARTED) - (event["event_type"] == E.AGENT_STOPPED)
        most = max(most, now)
    return most


def _prompt(repo: Path, name: str, text: str, **front: str) -> str:
    """A prompt file outside of the repository's tree; its path."""
    folder = repo.parent / f"{repo.name}-prompts"
    folder.mkdir(exist_ok=True)
    lines = "".join(f"{key}: {value}\n" for key, value in front.items())
    path = folder / f"{name}.md"
    path.write_text((f"---\n{lines}---\n" if lines else "") + f"# {name}\n\n{text}\n")
    return str(path)


# -- a thousand that wait for each other --------------------------------------------------------------------------


class _Wish(NamedTuple):
    name: str
    needs: tuple[str, ...] = ()


def chains(number: int) -> list[_Wish]:
    """As many chains side by side as there are agents, so that whoever may start finds one free."""
    width = SIDE_BY_SIDE // 2
    return [_Wish(f"c{n}", (f"c{n - width}",) if n >= width else ()) for n in range(number)]


def diamonds(number: int) -> list[_Wish]:
    """One, then two that wait for it, then one that waits for both, and so on."""
    made: list[_Wish] = []
    for n in range(number):
        place = n % 3
        needs = {0: (f"d{n - 2}", f"d{n - 1}") if n else (), 1: (f"d{n - 1}",), 2: (f"d{n - 2}",)}[place]
        made.append(_Wish(f"d{n}", needs))
    return made


def fans(number: int) -> list[_Wish]:
    """One that all others but the last wait for, and the last waits for them."""
    middle = tuple(f"f{n}" for n in range(1, number - 1))
    return [_Wish("f0"), *(_Wish(name, ("f0",)) for name in middle), _Wish(f"f{number - 1}", middle)]


def dependent(machine: Machine, place: Path, size: float) -> Iterator[Figure]:
    """Chains, diamonds and a fan through the real engine, one order in ten a change that is verified and lands."""
    number = max(24, math.ceil(DEPENDENT * size))
    wishes = [*chains(number // 2), *diamonds(number // 4), *fans(number - number // 2 - number // 4)]
    say(f"scale: {len(wishes)} orders that wait for each other")
    repo = place / "dependent"
    repository(repo)
    files = []
    for n, wish in enumerate(wishes):
        front = {"depends_on": json.dumps(wish.needs)} if wish.needs else {}
        front |= {} if n % LANDING_SHARE == 0 else {"deliverable": "answer"}
        files.append(_prompt(repo, wish.name, "answer", **front))
    agent = """sh -c 'cat > "made-$$.txt"; echo ok'"""
    words = ["run", "--plain", "--max-parallel", str(SIDE_BY_SIDE), "--check", "true", "--agent", agent]
    began = time.monotonic()
    process = machine.start(repo, *words, *files, env=CALM)
    memory = _memory_of(process, repo)
    took_s = time.monotonic() - began
    log = events(repo)
    done = sum(event["event_type"] == E.SETTLED and event["data"]["outcome"] == "done" for event in log)
    landed = sum(event["event_type"] == E.LANDING_LANDED for event in log)
    changes = math.ceil(len(wishes) / LANDING_SHARE)
    early, waits_ms = _unblocked(log)
    p95 = statistics.quantiles(waits_ms, n=20)[-1] if len(waits_ms) > 1 else 0.0
    yield Figure(name=f"{len(wishes):,} dependent orders: not done", value=len(wishes) - done, bar="0",
                 ok=done == len(wishes) and process.returncode == 0)  # fmt: skip
    yield Figure(name=f"changes among them that did not land, of {changes}", value=changes - landed, bar="0",
                 ok=landed == changes)  # fmt: skip
    yield Figure(name="started before what they wait for was done", value=early, bar="0", ok=early == 0)
    yield Figure(name=f"unblock → process start, p95 of {len(waits_ms)} that found a free place", value=p95, unit="ms",
                 bar=f"≤ {UNBLOCK_MS:g} ms", ok=p95 <= UNBLOCK_MS if size >= 1.0 else None)  # fmt: skip
    yield Figure(name="the same, median", value=statistics.median(waits_ms) if waits_ms else 0.0, unit="ms")
    yield Figure(name="wall time for each order", value=took_s * 1e3 / len(wishes), unit="ms")
    if len(memory) > 8:
        early_mib = statistics.median(memory[len(memory) // 8 : len(memory) // 4])
        yield Figure(name="memory of the controller at the end, against its first quarter", value=memory[-1],
                     unit="MiB", baseline=early_mib, ratio=memory[-1] / early_mib)  # fmt: skip


def _memory_of(process: subprocess.Popen[bytes], repo: Path) -> list[float]:
    """The resident MiB of a command whenever it says something; returns when it has ended."""
    assert process.stdout is not None
    found: list[float] = []
    known = psutil.Process(process.pid)
    with (repo.parent / f"{repo.name}.out").open("wb") as out, process.stdout:
        while piece := os.read(process.stdout.fileno(), 1 << 16):
            out.write(piece)
            if known.is_running() and known.status() != psutil.STATUS_ZOMBIE:
                found.append(known.memory_info().rss / (1 << 20))
    if process.wait(LONGEST_S):
        say((repo.parent / f"{repo.name}.out").read_text()[-2000:])
    return found


def _unblocked(log: list[dict[str, Any]]) -> tuple[int, list[float]]:
    """How many started too early; and ms from the end of the last need to the agent's start, where a place was free."""
    needs: dict[str, list[str]] = {}
    done: dict[str, float] = {}
    free_at: dict[str, bool] = {}
    behind: dict[str, list[str]] = {}
    left: dict[str, int] = {}
    waits, early, live, wanting = [], 0, 0, 0
    for event in log:
        data, kind, at = event["data"], event["event_type"], read_time(event["timestamp"])
        order = data.get("work_order_id", "")
        if kind == E.CREATED:
            needs[order] = list(data["shopfloor"].get("depends_on", ()))
            left[order] = len(needs[order])
            wanting += not needs[order]
            for need in needs[order]:
                behind.setdefault(need, []).append(order)
        elif kind == E.SETTLED:
            done[order] = at
            for follower in behind.get(order, ()):
                left[follower] -= 1
                if not left[follower]:
                    wanting += 1
                    free_at[follower] = live + wanting <= SIDE_BY_SIDE
        elif kind == E.ASSIGNED:
            live, wanting = live + 1, wanting - 1
        elif kind == E.AGENT_STOPPED:
            live -= 1
        elif kind == E.AGENT_STARTED and needs[order]:
            early += any(need not in done for need in needs[order])
            if free_at.get(order):
                waits.append((at - max(done[need] for need in needs[order])) * 1e3)
    return early, waits


# -- fifty that idle ----------------------------------------------------------------------------------------------


def idle(machine: Machine, place: Path, size: float) -> Iterator[Figure]:
    """A controller whose agents all wait: what it takes while nothing happens."""
    number = max(3, math.ceil(IDLE * size))
    say(f"scale: {number} agents that wait")
    repo = place / "idle"
    repository(repo)
    files = [_prompt(repo, f"task-{n}", "wait") for n in range(number)]
    words = ["run", "--plain", "--max-parallel", str(number), "--no-check", "--agent", "sh -c 'exec sleep 3600'"]
    process = machine.start(repo, *words, *files, env=CALM)
    try:
        until(lambda: _started(repo) >= number or process.poll() is not None, limit_s=LONGEST_S / 3, pause_s=0.2)
        started = _started(repo) >= number
        yield Figure(name=f"of {number} agents that wait: not started", value=number - _started(repo), bar="0",
                     ok=started)  # fmt: skip
        if started:
            yield from _idle_figures(repo, number, size)
    finally:
        process.send_signal(signal.SIGTERM)
        try:
            process.communicate(timeout=120)
        except subprocess.TimeoutExpired:
            process.kill()
            process.communicate()


def _started(repo: Path) -> int:
    return sum(event["event_type"] == E.AGENT_STARTED for event in events(repo))


def _idle_figures(repo: Path, number: int, size: float) -> Iterator[Figure]:
    window_s = WINDOW_S if size >= 1.0 else 1.0
    time.sleep(SETTLE_S if size >= 1.0 else 0.5)
    head = controller(repo)
    before, log_before = _family(head), (repo / ".work" / "events.jsonl").stat().st_size
    began = time.monotonic()
    time.sleep(window_s)
    after, took_s = _family(head), time.monotonic() - began
    log_after = (repo / ".work" / "events.jsonl").stat().st_size
    used = {role: _cpu(after, role) - _cpu(before, role) for role in ("controller", "guard", "keeper")}
    share = (used["controller"] + used["guard"]) / took_s
    yield Figure(name=f"idle controller and guard with {number} agents: CPU", value=100.0 * share, unit="% of a core",
                 bar="< 1 %", ok=share < IDLE_SHARE if size >= 1.0 else None)  # fmt: skip
    yield Figure(name="their keepers together: CPU", value=100.0 * used["keeper"] / took_s, unit="% of a core")
    born = after.keys() - before.keys()
    reaped = sum(after[key].reaped - before[key].reaped for key in before.keys() & after.keys())
    yield Figure(name=f"processes spawned in {took_s:.0f} s", value=len(born) + (reaped > 0), bar="0",
                 ok=not born and not reaped)  # fmt: skip
    yield Figure(name=f"bytes logged in {took_s:.0f} s", value=log_after - log_before)
    mib = {role: sum(seen.mib for seen in after.values() if seen.role == role) for role in used}
    yield Figure(name="memory of the controller (proportional)", value=mib["controller"], unit="MiB",
                 bar=f"≤ {IDLE_MIB:g} MiB", ok=mib["controller"] <= IDLE_MIB)  # fmt: skip
    yield Figure(name="memory of the guard and all keepers", value=mib["guard"] + mib["keeper"], unit="MiB")


class _Seen(NamedTuple):
    role: str
    cpu_s: float
    mib: float
    reaped: int
    """faults of children that it waited for: grows when one was started and has ended"""


def _family(head: psutil.Process) -> dict[tuple[int, float], _Seen]:
    """The controller and everything below it; agents are only counted."""
    found = {(head.pid, head.create_time()): _look(head, "controller")}
    for guard in head.children():
        found[guard.pid, guard.create_time()] = _look(guard, "guard")
        for keeper in guard.children():
            found[keeper.pid, keeper.create_time()] = _look(keeper, "keeper")
            for agent in keeper.children(recursive=True):
                found[agent.pid, agent.create_time()] = _Seen("agent", 0.0, 0.0, 0)
    return found


def _look(process: psutil.Process, role: str) -> _Seen:
    used = process.cpu_times()
    fields = Path(f"/proc/{process.pid}/stat").read_text().rpartition(")")[2].split()
    return _Seen(role, used.user + used.system, process.memory_full_info().pss / (1 << 20), int(fields[8]))


def _cpu(family: dict[tuple[int, float], _Seen], role: str) -> float:
    return sum(seen.cpu_s for seen in family.values() if seen.role == role)
