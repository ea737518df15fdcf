"""Killed again and again: a resume that is itself cut off, and everything that may have happened in between.

Run as a program (``test_engine_recovery.py REPO KILL_AT STEPS_FILE``) it resumes and dies by SIGKILL at one durable
step.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import signal
import subprocess
import sys
from importlib import import_module
from pathlib import Path

import psutil
import pytest

from shopfloor.app import Shopfloor
from shopfloor.domain.errors import NotFound
from shopfloor.domain.events import E
from shopfloor.domain.order import State

FLAGS: dict[str, object] = {"agent": "scripted", "check": "test ! -e broken", "max_parallel": 2, "load_per_core": 100.0}


async def go_on(repo: Path, kill_at: int, file: Path) -> None:
    """What the program does."""
    crash_child = import_module("crash_child")  # beside this file, when it is run as a program
    steps = crash_child.Steps(kill_at, file)
    async with Shopfloor.open(repo, flags=FLAGS) as floor:
        store = crash_child.WatchedStore(floor.work, clock=floor.clock)
        store.steps = steps
        floor.store = store
        crash_child.watch_git(steps)
        with contextlib.suppress(NotFound):  # the life before came to the end, and died with its last word
            await floor.resume()


if __name__ == "__main__":
    asyncio.run(go_on(Path(sys.argv[1]), int(sys.argv[2]), Path(sys.argv[3])))
    raise SystemExit(0)

from .engine_lab import Watch, at_work_in, log_of, records, resumed, until_true  # noqa: E402
from .lab import Lab, git, row, script, write  # noqa: E402


@pytest.fixture
def lab(tmp_path: Path) -> Lab:
    return Lab(tmp_path)


START = """
import asyncio, os, signal, sys
from pathlib import Path
from shopfloor.app import Shopfloor
async def main():
    repo, kind, *prompts = sys.argv[1:]
    flags = {"agent": "scripted", "check": "test ! -e broken", "max_parallel": 2, "load_per_core": 100.0}
    async with Shopfloor.open(repo, flags=flags) as floor:
        die = lambda e: os.kill(os.getpid(), signal.SIGKILL) if e.event_type == kind else None
        floor.observers.append(die)
        await floor.run([Path(p) for p in prompts])
asyncio.run(main())
"""


def run_and_die(lab: Lab, kind: E, *prompts: Path) -> None:
    """A controller that is killed as soon as it has said something of this kind."""
    argv = [sys.executable, "-c", START, str(lab.repo), kind, *map(str, prompts)]
    done = subprocess.run(argv, capture_output=True, timeout=30, check=False)
    assert done.returncode == -signal.SIGKILL, done.stderr.decode()


def resume_and_die(lab: Lab, kill_at: int, steps: Path) -> bool:
    """A resume that is killed at this step; False when it came to its end before."""
    argv = [sys.executable, __file__, str(lab.repo), str(kill_at), str(steps)]
    done = subprocess.run(argv, capture_output=True, timeout=30, check=False)
    assert done.returncode in (0, -signal.SIGKILL), done.stderr.decode()
    return done.returncode != 0


async def board_of(lab: Lab) -> dict[str, object]:
    async with lab.floor() as floor:
        return {name: record.state for name, record in records(await floor.board()).items()}


@pytest.mark.timeout(120)
@pytest.mark.parametrize("kind", [E.AGENT_STARTED, E.VERIFY_STARTED, E.LANDING_PLANNED])
async def test_a_resume_may_be_killed_at_any_step_again_and_again(lab: Lab, kind: E, tmp_path: Path) -> None:
    run_and_die(lab, kind, lab.prompt("add", script(write("new.txt"))))
    # Each life dies a few steps further on than the one before it, all in the same repository.
    lives = 0
    for kill_at in (1, 2, 3, 5, 8, 11, 14, 18, 22):
        lives += 1
        if not resume_and_die(lab, kill_at, tmp_path / f"steps{lives}"):
            break
        await until_true(lambda: not at_work_in(lab), "what the dead controller had started ends")
    states = await board_of(lab)
    if states["add"] is not State.DONE:
        await resumed(lab)
    states = await board_of(lab)
    assert lives > 3
    # Six losses are one too many; fewer must not cost it anything.
    lost = sum(e["event_type"] == E.RETRIED and e["data"]["kind"] == "lost" for e in log_of(lab))
    assert states["add"] is State.DONE or lost >= 5
    if states["add"] is State.DONE:
        assert (lab.repo / "new.txt").read_text() == "x\n"
        assert git(lab.repo, "status", "--porcelain") == "?? prompts/"


async def test_two_crashed_sessions_in_a_row_cost_two_attempts_and_no_more(lab: Lab, tmp_path: Path) -> None:
    add = lab.prompt("add", script({"wait_s": 0.2}, write("new.txt")))
    other = lab.prompt("other", script({"wait_s": 0.2}, write("other.txt")))
    run_and_die(lab, E.AGENT_STARTED, add, other)
    steps = tmp_path / "steps"
    assert resume_and_die(lab, 0, steps) is False
    report = await resumed_report(lab)
    assert report["add"][0] == report["other"][0] == "landed"
    assert report["add"][1] + report["other"][1] <= 4
    stopped = [e for e in log_of(lab) if e["event_type"] == E.CONTROLLER_STOPPED]
    assert len(stopped) == 1, "the resumed controller says that it has ended"


async def resumed_report(lab: Lab) -> dict[str, tuple[str, int]]:
    async with lab.floor() as floor:
        return {r.name: (r.outcome, r.attempts) for r in (await floor.report()).orders}


@pytest.mark.parametrize("also", ["moved", "deleted"])
async def test_a_target_that_moves_between_a_kill_and_its_resume_is_tested_and_built_upon(lab: Lab, also: str) -> None:
    run_and_die(lab, E.LANDING_PLANNED, lab.prompt("add", script(write("new.txt"))))
    ref = "refs/shopfloor/target/main"
    old = git(lab.repo, "rev-parse", ref)
    if also == "moved":
        git(lab.repo, "update-ref", ref, git(lab.repo, "commit-tree", f"{old}^{{tree}}", "-p", old, "-m", "theirs"))
    else:
        git(lab.repo, "update-ref", "-d", ref)
    report = await resumed(lab)
    assert (report.counts["landed"], row(report, "add").attempts) == (1, 1)
    assert ("theirs" in git(lab.repo, "log", "--format=%s", "main")) == (also == "moved")


async def test_a_red_commit_of_somebody_else_on_the_target_does_not_reach_the_users_branch(lab: Lab) -> None:
    after = lab.prompt("after", script(write("after.txt")), depends_on=["add"])
    run_and_die(lab, E.VERIFY_VERDICT, lab.prompt("add", script(write("new.txt"))), after)
    git(lab.repo, "update-index", "--add", "--cacheinfo", f"100644,{git(lab.repo, 'rev-parse', 'HEAD:a.txt')},broken")
    red = git(lab.repo, "commit-tree", git(lab.repo, "write-tree"), "-p", lab.start, "-m", "theirs")
    git(lab.repo, "reset", "-q")
    git(lab.repo, "update-ref", "refs/shopfloor/target/main", red)
    for _ in range(2):  # the second time it is known that the target is red
        report = await resumed(lab)
        assert report.counts["landed"] == 0
        assert "red there" in report.mirror_why
        assert git(lab.repo, "rev-parse", "main") == lab.start


async def test_a_workspace_that_has_vanished_costs_only_its_attempt(lab: Lab) -> None:
    run_and_die(lab, E.AGENT_STARTED, lab.prompt("add", script({"wait_s": 0.2}, write("new.txt"))))
    await until_true(lambda: not at_work_in(lab), "the agent has ended with its controller")
    for slot in (lab.repo / ".worktrees").glob("slot-*"):
        shutil.rmtree(slot)
    report = await resumed(lab)
    assert (report.counts["landed"], row(report, "add").attempts) == (1, 2)


def test_an_agent_that_removes_its_own_workspace_fails_and_the_others_go_on(lab: Lab) -> None:
    gone = lab.prompt("gone", script({"run": 'cd / && rm -rf "$SHOPFLOOR_WORKSPACE"'}, {"say": "done"}))
    fine = lab.prompt("fine", script(write("fine.txt")))
    report = lab.run(gone, fine, retries=0)
    assert row(report, "fine").outcome == "landed"
    assert row(report, "gone").outcome == "failed"


async def test_an_agent_that_outlived_its_controller_is_ended_before_it_is_tried_again(lab: Lab) -> None:
    run_and_die(lab, E.AGENT_STARTED, lab.prompt("add", script({"wait_s": 0.2}, write("new.txt"))))
    await until_true(lambda: not at_work_in(lab), "the agent has ended with its controller")
    stray = subprocess.Popen(["sleep", "1000"], start_new_session=True)
    try:
        # The log names this process as the agent: as if its guard had not been able to end it.
        path = lab.repo / ".work/events.jsonl"
        (started,) = [e for e in log_of(lab) if e["event_type"] == E.AGENT_STARTED]
        ticks = int(Path(f"/proc/{stray.pid}/stat").read_text().rpartition(")")[2].split()[19])
        handle = started["data"]["handle"]
        text = path.read_text()
        old = f'"pid":{handle["pid"]},"start_time":{handle["start_time"]}'
        assert text.count(old) == 1
        path.write_text(text.replace(old, f'"pid":{stray.pid},"start_time":{ticks}'))
        report = await resumed(lab)
        assert (report.counts["landed"], row(report, "add").attempts) == (1, 2)
        assert stray.poll() is not None or psutil.Process(stray.pid).status() == psutil.STATUS_ZOMBIE
        ends = [e["data"]["message"] for e in log_of(lab) if e["event_type"] == E.AGENT_STOPPED]
        assert any("was still running" in said for said in ends)
    finally:
        if stray.poll() is None:
            os.kill(stray.pid, signal.SIGKILL)
        stray.wait()


async def test_what_was_asked_while_nobody_led_is_done_by_hand_and_written_down(lab: Lab) -> None:
    async with lab.floor() as floor:
        watch = Watch(floor)
        report = await floor.run([lab.prompt("crash", script({"crash_once": "x"}, write("c.txt")))])
        assert report.counts["landed"] == 1
        assert watch.of(E.RUN_FINISHED)
        assert log_of(lab)[-1]["event_type"] == E.CONTROLLER_STOPPED
