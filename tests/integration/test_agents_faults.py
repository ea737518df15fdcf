"""What programs that report in JSON Lines, or in a trajectory, do wrong: each is a real process."""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path

import pytest

from shopfloor.agents.jsonlines import JsonLinesAgent
from shopfloor.agents.mini import MiniAgent
from shopfloor.domain.order import Order
from shopfloor.ports import Kind, Launch, Profile, Report
from shopfloor.spawn import Guard

EVENTS = """
import json, signal, sys, time
def event(kind, **data):
    print(json.dumps({"type": kind, "data": data}), flush=True)
event("start", task="t")
"""
TRAJECTORY = """
import json, os, pathlib, signal, sys, time
path = sys.argv[sys.argv.index("--output") + 1]
def write(status, *said):
    messages = [{"role": "assistant", "content": one} for one in said]
    pathlib.Path(path + ".new").write_text(json.dumps({"info": {"exit_status": status}, "messages": messages}))
    os.replace(path + ".new", path)
"""
DEAF = """
signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
{ready}
while True:
    time.sleep(0.05)
"""
PRESETS = {"jsonlines": ("jsonlines", ""), "gocore": ("jsonlines", "gocore"), "mini": ("mini", "")}


async def run(folder: Path, program: str, which: str = "jsonlines", *, term_at: Kind | None = None) -> list[Report]:
    """Everything that it reports; ``term_at``: with that it gets a SIGTERM of somebody else."""
    driver, preset = PRESETS[which]
    workspace = folder / "workspace"
    workspace.mkdir()
    launch = Launch(
        order=Order(id="wo-abc", name="n", title="t"), attempt="wo-abc.a1",
        profile=Profile(name="x", driver=driver, preset=preset, command=(sys.executable, "-I", "-c", program)),
        prompt="do it", workspace=str(workspace), branch="b", directory=str(folder / "attempt"),
        env={"PATH": os.defpath},
    )  # fmt: skip
    async with Guard() as guard:
        agent = MiniAgent(guard) if driver == "mini" else JsonLinesAgent(guard)
        handle = await agent.start(launch)
        reports = []
        async for report in agent.follow(handle):
            reports.append(report)
            if report.kind is term_at:
                os.kill(handle.pid, signal.SIGTERM)
    return reports


@pytest.mark.parametrize("which", ["jsonlines", "gocore"])
async def test_exit_code_0_after_sigterm_is_no_success(which: str, tmp_path: Path) -> None:
    program = EVENTS + DEAF.format(ready='event("thought", content="hm")')
    end = (await run(tmp_path, program, which, term_at=Kind.TEXT))[-1]
    assert (end.status, end.exit_code) == ("error", 0)
    assert "without reporting an end" in end.text


async def test_exit_code_0_of_one_with_a_trajectory_is_no_success_after_sigterm(tmp_path: Path) -> None:
    program = TRAJECTORY + DEAF.format(ready='write("", "hm")')
    end = (await run(tmp_path, program, "mini", term_at=Kind.TEXT))[-1]
    assert (end.status, end.exit_code) == ("error", 0)
    assert "without an end in its trajectory" in end.text


@pytest.mark.parametrize("which", ["jsonlines", "gocore"])
@pytest.mark.parametrize(("first", "last"), [("success", "failed"), ("failed", "success")])
async def test_two_results_in_one_run_and_the_last_one_counts(
    which: str, first: str, last: str, tmp_path: Path
) -> None:
    program = EVENTS + "".join(f'event("finish", status="{word}", result="{word}!")\n' for word in (first, last))
    reports = await run(tmp_path, program, which)
    assert [report.status for report in reports if report.kind is Kind.TURN_END] == [first, last]
    assert reports[-1].status == ("completed" if last == "success" else "error")


async def test_a_storm_of_429_is_told_and_names_the_quota(tmp_path: Path) -> None:
    program = EVENTS + (
        "for _ in range(50):\n"
        '    event("retrying", error="slow down", status=429, delay_s=0.5)\n'
        'event("error", error="RateLimitError: 429 slow down", type="RateLimitError")\n'
        "sys.exit(1)\n"
    )
    reports = await run(tmp_path, program)
    retrying = [report for report in reports if report.kind is Kind.RETRYING]
    assert [(report.status, report.data["delay_s"]) for report in retrying] == [("429", 0.5)] * 50
    assert [report.status for report in reports if report.kind is Kind.ERROR] == ["quota"]
    assert reports[-1].status == "error"


async def test_a_storm_of_429_ends_a_trajectory(tmp_path: Path) -> None:
    program = TRAJECTORY + 'write("RateLimitError", "litellm.RateLimitError: 429 slow down")\nsys.exit(1)\n'
    reports = await run(tmp_path, program, "mini")
    assert [report.status for report in reports if report.kind is Kind.ERROR] == ["quota"]
    assert reports[-1].status == "error"
