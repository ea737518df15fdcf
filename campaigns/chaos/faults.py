"""What is done to a run: one function for each kind of fault, and what may truthfully follow from it."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from random import Random
from typing import NamedTuple

from campaigns.chaos import processes, sabotage
from campaigns.chaos.scene import Scene

SIX_HOURS_S = 6 * 3600.0
KNOWN_LIMIT_S = 10.0


class Act(NamedTuple):
    """A fault on its way: where, at whom, and its own source of chance."""

    scene: Scene
    child: subprocess.Popen[bytes]
    random: Random

    def over(self) -> bool:
        """The command has ended by itself."""
        return self.child.poll() is not None


class Kind(NamedTuple):
    """A kind of fault. ``strike`` returns whether it hit anything."""

    strike: Callable[[Act], bool]
    prepare: Callable[[Scene, Random], None] = lambda _scene, _random: None
    after: Callable[[Scene, Random], None] = lambda _scene, _random: None
    """done when the command has ended, before it is started again"""
    excuse: str = ""
    """pattern of the reason with which a good order may fail; it must land when it is tried again"""
    target_moves: bool = False
    branch_held: bool = False
    """the user's branch may stay where its user put it"""
    holds: bool = False
    """good orders may rest as verified, because the target is red"""
    early: bool = False
    """the moment is counted from the command's start, not from the log"""


def kill(pid: int, number: signal.Signals = signal.SIGKILL) -> bool:
    """Send a signal; False when there is nobody."""
    try:
        os.kill(pid, number)
    except ProcessLookupError:
        return False
    return True


def _controller(act: Act) -> bool:
    return not act.over() and kill(act.child.pid)


def _one_of(choose: Callable[[int], list[int]]) -> Callable[[Act], bool]:
    """Kill one of those that are there now, or the first that comes."""

    def strike(act: Act) -> bool:
        while not act.over():
            found = choose(act.child.pid)
            if found:
                return kill(act.random.choice(found))
            time.sleep(processes.PAUSE_S)
        return False

    return strike


def _controller_and_guard(act: Act) -> bool:
    while not act.over():
        found = processes.guards(act.child.pid)
        if found:
            both = [act.child.pid, *found]
            act.random.shuffle(both)
            hits = [kill(pid) for pid in both]
            return all(hits)
        time.sleep(processes.PAUSE_S)
    return False


def _agent(act: Act) -> bool:
    """Kill an agent, and see how long it takes until the log has its end."""
    while not act.over():
        found = processes.agents(act.child.pid)
        if found:
            return _kill_and_time(act, act.random.choice(found))
        time.sleep(processes.PAUSE_S)
    return False


def _kill_and_time(act: Act, victim: int) -> bool:
    attempt, began = processes.variable(victim, "SHOPFLOOR_ATTEMPT"), time.monotonic()
    hit = kill(victim)
    if hit and attempt and processes.until(lambda: _is_told(act.scene, attempt) or act.over(), KNOWN_LIMIT_S):
        act.scene.known_after_s = time.monotonic() - began
    return hit


def _is_told(scene: Scene, attempt: str) -> bool:
    order, _, generation = attempt.rpartition(".a")
    words = (b'"agent.stopped"', f'"{order}","generation":{generation},'.encode())
    return any(all(word in line for word in words) for line in scene.log.read_bytes().splitlines())


def _interrupt(act: Act) -> bool:
    return not act.over() and kill(act.child.pid, signal.SIGINT)


def _interrupt_twice(act: Act) -> bool:
    if not _interrupt(act):
        return False
    time.sleep(act.random.uniform(0.0, 0.1))
    return not act.over() and kill(act.child.pid, signal.SIGINT)


def _freeze(act: Act, meanwhile: Callable[[], None]) -> bool:
    family = [act.child.pid, *(p.pid for p in processes.of(act.scene.folder) if p.pid != act.child.pid)]
    if act.over():
        return False
    for pid in family:
        kill(pid, signal.SIGSTOP)
    try:
        meanwhile()
    finally:
        act.random.shuffle(family)
        for pid in family:
            kill(pid, signal.SIGCONT)
    return True


def _stop_and_continue(act: Act) -> bool:
    return _freeze(act, lambda: time.sleep(act.random.uniform(0.05, 0.4)))


def _set_clock(scene: Scene, wall_offset_s: float, *, awake_stopped: bool = False) -> None:
    new = scene.clock.with_suffix(".new")
    new.write_text(f"{wall_offset_s} {int(awake_stopped)}")
    new.replace(scene.clock)


def _clock(offset_s: float) -> Callable[[Act], bool]:
    def strike(act: Act) -> bool:
        _set_clock(act.scene, offset_s)
        return not act.over()

    return strike


def _suspend(act: Act) -> bool:
    """The machine sleeps: everything stands still, and six hours later it is morning."""
    return _freeze(act, lambda: _set_clock(act.scene, SIX_HOURS_S))


def _awake_stops(act: Act) -> bool:
    """The awake clock stands still for a moment while the wall clock jumps."""
    _set_clock(act.scene, SIX_HOURS_S, awake_stopped=True)
    time.sleep(act.random.uniform(0.05, 0.3))
    _set_clock(act.scene, SIX_HOURS_S)
    return not act.over()


def _corrupt(tail: Callable[[Scene, Random], bytes]) -> Callable[[Scene, Random], None]:
    def after(scene: Scene, random: Random) -> None:
        if scene.log.exists():
            with scene.log.open("ab") as file:
                file.write(tail(scene, random))

    return after


def _foreign_append(act: Act) -> bool:
    if not act.scene.log.exists():
        return False
    piece = act.random.choice((sabotage.garbage, sabotage.zeros, sabotage.torn))(act.scene, act.random)
    with act.scene.log.open("ab", buffering=0) as file:
        file.write(piece + act.random.choice((b"", b"\n")))
    return not act.over()


def _git(act: Act) -> bool:
    """The wrapper strikes; wait for it."""
    processes.until(lambda: act.over() or sabotage.git_died(act.scene), 60.0)
    return sabotage.git_died(act.scene)


def _fill(act: Act) -> bool:
    filler = act.scene.repo.parent / "filler"
    spare = act.random.choice((0, 0, 4096, 16384, 65536))
    try:
        with filler.open("wb", buffering=0) as file:
            while True:
                file.write(b"x" * (1 << 16))
    except OSError:
        pass
    with contextlib.suppress(FileNotFoundError):
        os.truncate(filler, max(0, filler.stat().st_size - spare))
    hit = not act.over()
    if act.random.random() < 0.5:
        processes.until(act.over, act.random.uniform(0.1, 0.8))
        filler.unlink(missing_ok=True)
    elif not processes.until(act.over, 8.0):
        filler.unlink(missing_ok=True)
    return hit


def _free(scene: Scene) -> None:
    (scene.repo.parent / "filler").unlink(missing_ok=True)


def _small_disk(scene: Scene, random: Random) -> None:
    """Put the repository on a small disk of its own, where we may mount one; else bound the size of its files."""
    disk = scene.folder / "disk"
    disk.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=6m", "tmpfs", str(disk)]
    if os.geteuid() == 0 and subprocess.run(mount, capture_output=True, check=False).returncode == 0:
        shutil.move(scene.repo, disk / "repo")
        scene.repo = disk / "repo"
    else:
        _limit_files(scene, random)


def _limit_files(scene: Scene, random: Random) -> None:
    scene.env["CHAOS_FILE_BYTES"] = str(random.randrange(2_000, 40_000))


def _unlimit(scene: Scene, _random: Random) -> None:
    scene.env.pop("CHAOS_FILE_BYTES", None)
    _free(scene)


def _limited(act: Act) -> bool:
    processes.until(act.over, 60.0)
    return act.child.returncode != 0


# A merge that a killed git spoils costs the order its one rework: a true conflict is one too many then.
_FULL = r"no space|disk|too large|quota|could not be kept|no workspace|git|spawn|cannot"
_GIT = r"git|could not be kept|no workspace|lost|^conflict"

KINDS: dict[str, Kind] = {
    "controller killed": Kind(_controller),
    "guard killed": Kind(_one_of(processes.guards)),
    "keeper killed": Kind(_one_of(processes.keepers)),
    "agent killed": Kind(_agent),
    "controller and guard killed": Kind(_controller_and_guard),
    "git killed": Kind(_git, prepare=sabotage.wrap_git, after=sabotage.unwrap_git, excuse=_GIT, early=True),
    "disk full": Kind(_fill, prepare=_small_disk, after=_unlimit, excuse=_FULL),
    "file size limit": Kind(_limited, prepare=_limit_files, after=_unlimit, excuse=_FULL, early=True),
    "clock six hours forward": Kind(_clock(SIX_HOURS_S)),
    "clock six hours back": Kind(_clock(-SIX_HOURS_S)),
    "suspended for six hours": Kind(_suspend),
    "awake clock stands still": Kind(_awake_stops),
    "stopped and continued": Kind(_stop_and_continue),
    "target moved forward": Kind(sabotage.target_forward, target_moves=True, branch_held=True),
    "target moved to red": Kind(sabotage.target_red, target_moves=True, branch_held=True, holds=True),
    "target moved back": Kind(sabotage.target_back, target_moves=True, branch_held=True),
    "target deleted": Kind(sabotage.target_deleted, target_moves=True, branch_held=True),
    "user commits": Kind(sabotage.user_commits, branch_held=True),
    "user edits": Kind(sabotage.user_edits, branch_held=True),
    "branch deleted": Kind(sabotage.branch_deleted, branch_held=True),
    "torn last line": Kind(_controller, after=_corrupt(sabotage.torn)),
    "garbage at the tail": Kind(_controller, after=_corrupt(sabotage.garbage)),
    "zeros at the tail": Kind(_controller, after=_corrupt(sabotage.zeros)),
    "half a change at the tail": Kind(_controller, after=_corrupt(sabotage.half_a_group)),
    "garbage while it runs": Kind(_foreign_append),
    "interrupted": Kind(_interrupt),
    "interrupted twice": Kind(_interrupt_twice),
}
SECOND = ("controller killed", "guard killed", "keeper killed", "agent killed", "interrupted", "stopped and continued")
"""What may befall the resumed run as well."""


def free_everything(scene: Scene) -> None:
    """Take away what a fault has put up."""
    disk = scene.folder / "disk"
    if disk.is_dir() and os.path.ismount(disk):
        subprocess.run(["umount", "-l", str(disk)], check=False, capture_output=True)


def said(folder: Path) -> str:
    """Everything that the commands of a round said."""
    return "".join(path.read_text(errors="replace") for path in sorted(folder.glob("said.*")))
