"""Disks that are full, processes that are killed, clocks that jump, machines that are busy, checks that shout."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import msgspec
import psutil
import pytest

from shopfloor.app import Shopfloor, leading
from shopfloor.app.wiring import SystemClock
from shopfloor.domain.admission import Load
from shopfloor.domain.errors import Conflict, Refused
from shopfloor.domain.events import E, Event
from shopfloor.domain.policy import Policy
from shopfloor.stores.workdir import WorkdirStore

from .engine_lab import Watch, at_work_in, hold_file, log_of, records, resumed, swap
from .lab import Lab, row, script, write

ROOT_ONLY = pytest.mark.skipif(sys.platform != "linux" or os.geteuid() != 0, reason="mounts a small disk")


@pytest.fixture
def lab(tmp_path: Path) -> Lab:
    return Lab(tmp_path)


# -- disks ----------------------------------------------------------------------------------------------------------


class Disk:
    """A small disk of its own."""

    def __init__(self, place: Path, size: str, *options: str) -> None:
        place.mkdir(parents=True, exist_ok=True)
        self.place = place
        subprocess.run(["mount", "-t", "tmpfs", "-o", ",".join([f"size={size}", *options]), "tmpfs", place], check=True)
        self._filler = place / "filler"

    def fill(self) -> None:
        with self._filler.open("wb", buffering=0) as file:
            for size in (1 << 16, 1 << 12, 1):
                try:
                    while True:
                        file.write(bytes(size))
                except OSError:
                    continue

    def forbid(self) -> None:
        subprocess.run(["mount", "-o", "remount,ro", self.place], check=True)

    def allow(self) -> None:
        subprocess.run(["mount", "-o", "remount,rw", self.place], check=True)

    def free(self) -> None:
        self._filler.unlink()

    def close(self) -> None:
        subprocess.run(["umount", "-l", self.place], check=True)


@pytest.fixture
def disk() -> Iterator[Callable[..., Disk]]:
    made: list[Disk] = []

    def make(place: Path, size: str = "6m", *options: str) -> Disk:
        made.append(Disk(place, size, *options))
        return made[-1]

    yield make
    for one in reversed(made):
        one.close()


def once(kind: E, act: Callable[[], None]) -> Callable[[Event], None]:
    """An observer that acts at the first event of a kind."""
    left = [act]

    def see(event: Event) -> None:
        if event.event_type == kind and left:
            left.pop()()

    return see


@ROOT_ONLY
@pytest.mark.parametrize("kind", [E.RUN_STARTED, E.ASSIGNED, E.AGENT_STARTED, E.VERIFY_STARTED, E.LANDING_PLANNED])
async def test_a_full_disk_is_told_with_what_to_do_and_nothing_acknowledged_is_lost(
    kind: E, tmp_path: Path, disk: Callable[..., Disk]
) -> None:
    whole = disk(tmp_path / "disk", "12m")
    lab = Lab(whole.place)
    async with lab.floor() as floor:
        watch = Watch(floor)
        floor.observers.append(once(kind, whole.fill))
        with pytest.raises(Refused) as refused:
            await floor.run([lab.prompt("add", script({"wait_s": 0.2}, write("new.txt")))])
    assert "no space left" in refused.value.message
    assert "free space" in refused.value.hint
    assert not at_work_in(lab)
    whole.free()
    known = {e["event_id"] for e in log_of(lab)}
    assert {e.event_id for e in watch.events} <= known
    assert (await resumed(lab)).counts["landed"] == 1


@ROOT_ONLY
async def test_evidence_that_cannot_be_written_ends_the_session_and_resume_checks_again(
    lab: Lab, disk: Callable[..., Disk]
) -> None:
    evidence = disk(lab.repo / ".work" / "evidence")
    async with lab.floor() as floor:
        floor.observers.append(once(E.VERIFY_STARTED, evidence.fill))
        with pytest.raises(Refused, match="no space left") as refused:
            await floor.run([lab.prompt("add", script(write("new.txt")))])
        assert "free space" in refused.value.hint
        evidence.free()
        report = await floor.resume()
    assert (report.counts["landed"], row(report, "add").attempts) == (1, 1)


@ROOT_ONLY
@pytest.mark.parametrize("fault", ["full", "read-only"])
async def test_a_disk_that_takes_no_merge_sends_nobody_back(
    fault: str, tmp_path: Path, disk: Callable[..., Disk]
) -> None:
    whole = disk(tmp_path / "disk", "12m")
    lab = Lab(whole.place)
    disk(lab.repo / ".work", "12m")  # where the log can say what becomes of the order
    strike, mend = (whole.fill, whole.free) if fault == "full" else (whole.forbid, whole.allow)
    async with lab.floor(rework=1) as floor:
        watch = Watch(floor)
        floor.observers.append(once(E.LANDING_STARTED, strike))
        with pytest.raises(Refused, match="no space left" if fault == "full" else "read-only") as refused:
            await floor.run([lab.prompt("add", script(write("new.txt")))])
        assert "shopfloor run --resume" in refused.value.hint
        assert not watch.of(E.LANDING_REFUSED)
        assert row(await floor.report(), "add").outcome == "waiting"
        mend()
        report = await floor.resume()
        assert (report.counts["landed"], row(report, "add").attempts) == (1, 1)
        assert records(await floor.board())["add"].reworks == 0


@ROOT_ONLY
@pytest.mark.parametrize(("folder", "kind"), [(".work/attempts", E.ASSIGNED), (".worktrees", E.WORKSPACE)])
async def test_a_disk_that_is_full_for_an_attempt_costs_that_attempt_only(
    lab: Lab, disk: Callable[..., Disk], folder: str, kind: E
) -> None:
    small = disk(lab.repo / folder)
    async with lab.floor(retries=1) as floor:
        watch = Watch(floor)
        floor.observers += [once(kind, small.fill), once(E.RETRIED, small.free)]
        report = await floor.run([lab.prompt("add", script(write("new.txt", "x" * 10_000)))])
    assert (report.counts["landed"], row(report, "add").attempts) == (1, 2)
    first = watch.of(E.AGENT_STOPPED)[0].data
    assert first["transient"], first


@ROOT_ONLY
async def test_a_read_only_log_is_refused_before_anything_starts(lab: Lab, disk: Callable[..., Disk]) -> None:
    disk(lab.repo / ".work", "1m", "ro")
    async with lab.floor() as floor:
        with pytest.raises(Refused, match="read-only") as refused:
            await floor.run([lab.prompt("add", script(write("new.txt")))])
    assert "writable" in refused.value.hint


def test_an_attempts_folder_that_cannot_be_made_fails_the_order_by_name(lab: Lab) -> None:
    (lab.repo / ".work").mkdir()
    (lab.repo / ".work" / "attempts").write_text("in the way\n")
    report = lab.run(lab.prompt("add", script(write("new.txt"))), retries=0)
    assert (row(report, "add").outcome, row(report, "add").reason) == ("failed", "spawn")
    assert "attempts" in row(report, "add").message


# -- processes ------------------------------------------------------------------------------------------------------


def guards() -> list[psutil.Process]:
    """Guards of this process; their children are the keepers."""
    return [p for p in psutil.Process().children() if any(word.endswith("guard.py") for word in p.cmdline())]


def kill_guard() -> None:
    for guard in guards():
        guard.kill()


def kill_keeper() -> None:
    for guard in guards():
        for keeper in guard.children():
            keeper.kill()


@pytest.mark.parametrize("kill", [kill_guard, kill_keeper])
async def test_a_killed_guard_loses_the_attempt_which_is_taken_up_again(lab: Lab, kill: Callable[[], None]) -> None:
    async with lab.floor() as floor:
        watch = Watch(floor)
        floor.observers.append(once(E.AGENT_STARTED, kill))
        report = await floor.run([lab.prompt("add", script({"wait_s": 0.5}, write("new.txt")))])
    assert (report.counts["landed"], row(report, "add").attempts) == (1, 2)
    assert [e.data["kind"] for e in watch.of(E.RETRIED)] == ["lost"]


async def test_an_order_is_lost_a_bounded_number_of_times(lab: Lab) -> None:
    async with lab.floor() as floor:
        floor.observers.append(lambda e: kill_guard() if e.event_type == E.AGENT_STARTED else None)
        report = await floor.run([lab.prompt("hangs", script({"hang": True}))])
    hangs = row(report, "hangs")
    assert (hangs.outcome, hangs.reason, hangs.attempts) == ("failed", "lost", Policy().lost_retries + 1)


async def test_an_agent_that_somebody_kills_is_tried_again(lab: Lab) -> None:
    async with lab.floor(retries=1) as floor:
        watch = Watch(floor)
        floor.observers.append(
            once(E.AGENT_STARTED, lambda: psutil.Process(watch.of(E.AGENT_STARTED)[0].data["handle"]["pid"]).kill())
        )
        report = await floor.run([lab.prompt("add", script({"wait_s": 0.3}, write("new.txt")))])
    assert (report.counts["landed"], row(report, "add").attempts) == (1, 2)
    assert watch.of(E.AGENT_STOPPED)[0].data["exit_code"] == -9


def test_an_agent_that_takes_too_much_memory_is_ended(lab: Lab) -> None:
    hog = [sys.executable, "-c", "x = bytearray(300 << 20); import signal; signal.pause()"]
    agents = {"hog": {"command": hog, "memory_limit": "100MB"}}
    report = lab.run(lab.prompt("add", "eat"), agents=agents, agent="hog")
    assert (row(report, "add").reason, row(report, "add").attempts) == ("error", 1)
    assert "memory" in row(report, "add").message


async def test_silence_is_told_and_ends_an_agent_only_where_a_limit_is_set(
    lab: Lab, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(leading, "policy", lambda _settings: Policy(idle_s=0.3))
    hold, wait = hold_file(tmp_path)
    again = tmp_path / "again"
    again.touch()
    deeds = script({"run": wait}, {"run": wait.replace(str(hold), str(again))}, write("new.txt"))
    async with lab.floor() as floor:
        watch = Watch(floor)
        running = asyncio.create_task(floor.run([lab.prompt("add", deeds)]))
        await watch.until(E.AGENT_IDLE)
        hold.unlink()
        await watch.until(E.AGENT_IDLE, 2)
        again.unlink()
        report = await running
    assert report.counts["landed"] == 1
    assert len(watch.of(E.AGENT_WORKING)) >= 2
    async with lab.floor(silence="1s") as floor:
        report = await floor.run([lab.prompt("hangs", script({"hang": True}))])
    assert row(report, "hangs").reason == "timeout"
    assert "silent for longer" in row(report, "hangs").message


# -- clocks ---------------------------------------------------------------------------------------------------------


class Jumping(SystemClock):
    """A wall clock that somebody sets."""

    ahead_s = 0.0

    def wall(self) -> float:
        return super().wall() + self.ahead_s


def with_clock(lab: Lab, clock: Jumping, **flags: object) -> Shopfloor:
    return Shopfloor(msgspec.structs.replace(lab.floor(**flags).place, clock=clock))


@pytest.mark.parametrize("jump_s", [6 * 3600.0, -6 * 3600.0])
@pytest.mark.parametrize("kind", [E.RETRIED, E.AGENT_STARTED])
async def test_a_wall_clock_that_jumps_ends_nobody_and_delays_nothing(lab: Lab, jump_s: float, kind: E) -> None:
    clock = Jumping()
    began: list[tuple[str, int, float]] = []
    async with with_clock(lab, clock, retries=1, backoff="1s", timeout="20s", silence="20s") as floor:
        watch = Watch(floor)
        floor.observers.append(once(kind, lambda: setattr(clock, "ahead_s", jump_s)))
        floor.observers.append(lambda e: began.append((e.event_type, e.data.get("generation", 0), time.monotonic())))
        report = await floor.run([lab.prompt("flaky", script({"crash_once": "x"}, {"wait_s": 0.3}, write("f.txt")))])
    assert (report.counts["landed"], row(report, "flaky").attempts) == (1, 2)
    at = {(kind, generation): moment for kind, generation, moment in began}
    waited = at[E.ASSIGNED, 2] - at[E.RETRIED, 1]
    planned = watch.of(E.RETRIED)[0].data["delay_s"]
    assert 0.75 <= planned <= 1.25, "as the setting says, spread by a quarter"
    assert planned * 0.9 <= waited <= planned + 3.0
    assert all(r.agent_s >= 0 for r in report.orders)


async def test_a_clock_set_back_before_a_resume_does_not_lengthen_a_back_off(lab: Lab) -> None:
    clock = Jumping()
    async with with_clock(lab, clock, retries=1) as floor:
        floor.observers.append(once(E.RETRIED, floor.stop))
        report = await floor.run([lab.prompt("flaky", script({"crash_once": "x"}, write("f.txt")))])
        assert report.counts["waiting"] == 1
        clock.ahead_s = -6 * 3600.0
        floor.observers.clear()
        assert (await asyncio.wait_for(floor.resume(), 15)).counts["landed"] == 1


# -- the machine ----------------------------------------------------------------------------------------------------


async def test_under_pressure_one_order_at_a_time_is_started_and_all_again_when_it_is_over(
    lab: Lab, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    hold, wait = hold_file(tmp_path)
    used = [0.95]
    swap(monkeypatch, load=lambda _real: lambda: Load(memory_used=used[0]))
    prompts = [lab.prompt(f"p{n}", script({"run": wait}, write(f"{n}.txt"))) for n in range(4)]
    quick = lab.prompt("quick", script(write("q.txt")), priority=0)
    async with lab.floor(max_parallel=4) as floor:
        watch = Watch(floor)
        running = asyncio.create_task(floor.run([quick, *prompts]))
        await watch.until(E.AGENT_STARTED, 2)
        assert len(watch.of(E.AGENT_STOPPED)) == 1, "two at once although the machine is under pressure"
        used[0] = 0.5
        await watch.until(E.AGENT_STARTED, 5)
        hold.unlink()
        report = await running
    assert report.counts["landed"] == 5
    assert [e.data["limit"] for e in watch.of(E.ADMISSION)] == [1, 2, 4]
    assert "memory 95% used" in watch.of(E.ADMISSION)[0].data["why"]


# -- two controllers ------------------------------------------------------------------------------------------------


async def test_a_second_controller_is_refused_and_changes_nothing(lab: Lab) -> None:
    one, two = lab.floor(), lab.floor()
    async with one, two:
        watch = Watch(one)
        running = asyncio.create_task(one.run([lab.prompt("hangs", script({"hang": True}))]))
        await watch.until(E.AGENT_STARTED)
        before = (lab.repo / ".work/events.jsonl").read_bytes()
        for again in (two.run([lab.prompt("add", script(write("x")))]), two.resume()):
            with pytest.raises(Conflict, match="already at work"):
                await again
        assert (lab.repo / ".work/events.jsonl").read_bytes() == before
        assert len(at_work_in(lab)) == 1
        one.stop("enough")
        await running


async def test_a_controller_that_was_replaced_ends_its_agents_at_once(lab: Lab) -> None:
    async with lab.floor() as floor:
        watch = Watch(floor)
        running = asyncio.create_task(floor.run([lab.prompt("hangs", script({"hang": True}))]))
        await watch.until(E.AGENT_STARTED)
        (lab.repo / ".work/controller.lock").unlink()
        usurper = WorkdirStore(floor.work, clock=floor.clock)
        generation = await usurper.lead({})
        with pytest.raises(Conflict, match=f"controller {generation}"):
            await asyncio.wait_for(running, 20)
        assert not at_work_in(lab)
        await usurper.close()
    assert log_of(lab)[-1]["event_type"] == E.CONTROLLER_STARTED, "the old one wrote on"


# -- what is said ---------------------------------------------------------------------------------------------------


def test_events_stay_small_whatever_checks_and_agents_say(lab: Lab) -> None:
    shout = "head -c 100000000 /dev/zero | tr '\\0' '`'; false"
    talk = (
        "import json, os, sys; sys.stdin.read(); os.mkdir('many')\n"
        "for n in range(3000): open(f'many/a-rather-long-name-of-a-file-number-{n}', 'w').close()\n"
        "print(json.dumps({'type': 'finish', 'data': {'status': 'success', 'result': 'x' * 900_000}}))"
    )
    loud = {"loud": {"driver": "jsonlines", "command": [sys.executable, "-c", talk]}}
    report = lab.run(lab.prompt("add", "x", checks=shout), agents=loud, agent="loud", rework=1)
    assert (row(report, "add").reason, row(report, "add").attempts) == ("checks", 2)
    longest = max((lab.repo / ".work/events.jsonl").read_bytes().splitlines(), key=len)
    assert len(longest) < 40_000, longest[:300]
    second = (lab.repo / ".work/attempts" / f"{row(report, 'add').order}.a2" / "prompt.md").read_text()
    assert len(second) < 20_000
    fence = max((line for line in second.splitlines() if set(line) == {"`"}), key=len)
    assert second.count(fence) >= 2
    assert "`" * 100 in second


def test_a_run_is_quiet_under_python_dev_mode(lab: Lab) -> None:
    prompt = lab.prompt("add", script({"crash_once": "x"}, write("new.txt")))
    code = """
import asyncio, sys
from pathlib import Path
from shopfloor.app import Shopfloor
async def main():
    asyncio.get_running_loop().slow_callback_duration = 5  # 0.1 s is a matter of the machine's load
    async with Shopfloor.open(sys.argv[1], flags={"agent": "scripted", "check": "true"}) as floor:
        report = await floor.run([Path(sys.argv[2])])
        assert report.ok, report
        task = asyncio.create_task(floor.run(["```script\\n[[do]]\\nhang = true\\n```\\n"]))
        floor.observers.append(lambda e: task.cancel() if e.event_type == "agent.started" else None)
        try:
            await task
        except asyncio.CancelledError:
            pass
asyncio.run(main())
"""
    argv = [sys.executable, "-X", "dev", "-W", "error", "-c", code, str(lab.repo), str(prompt)]
    done = subprocess.run(argv, capture_output=True, text=True, timeout=25, check=False)
    assert (done.returncode, done.stderr) == (0, "")


def test_work_that_git_would_not_take_is_not_called_nothing(lab: Lab) -> None:
    report = lab.run(lab.prompt("odd", script(write("git~1"))))  # a name that git refuses
    odd = row(report, "odd")
    assert (odd.outcome, odd.reason) == ("failed", "error")
    assert "could not be kept and lies in" in odd.message
    assert "git~1" in odd.message
    (slot,) = lab.repo.glob(".worktrees/*/git~1")
    assert slot.is_file()
