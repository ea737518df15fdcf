"""Batches as one step of the target, failures told from flakes, and nobody blamed for what did not land."""

from __future__ import annotations

import math
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from shopfloor.domain.errors import ShopfloorError
from shopfloor.domain.events import E
from shopfloor.domain.report import Report
from shopfloor.git import GitError
from shopfloor.ports import Landed, Target

from .engine_lab import Lander0, resumed, swap
from .lab import Lab, git, row, script, write

TARGET = "refs/shopfloor/target/main"
TOGETHER = "test $(ls | grep -c '^half-') -lt 2 || test -e whole"
"""Two halves are red together, unless the whole is there."""


@pytest.fixture
def lab(tmp_path: Path) -> Lab:
    return Lab(tmp_path)


def verified(lab: Lab, *names: str, **flags: object) -> Report:
    """Orders that each add a file of their name, worked on and verified, none landed."""
    report = lab.run(*[lab.prompt(n, script(write(n))) for n in names], land="off", **flags)
    assert report.counts["verified"] == len(names)
    return report


def steps(lab: Lab) -> list[str]:
    """The target's commits since the start by first parents, oldest first."""
    return git(lab.repo, "rev-list", "--first-parent", "--reverse", f"{lab.start}..{TARGET}").split()


def red_steps(lab: Lab, check: str) -> list[str]:
    """Those of them on which a check fails, tried in a checkout of its own."""
    place = lab.repo.with_name("walk")
    git(lab.repo, "worktree", "add", "-q", "--detach", str(place), lab.start)
    red = []
    for commit in steps(lab):
        git(place, "checkout", "-q", "--detach", commit)
        if subprocess.run(["sh", "-c", check], cwd=place, check=False).returncode:
            red.append(commit)
    return red


def status(lab: Lab) -> str:
    """What `shopfloor status` prints."""
    done = subprocess.run([sys.executable, "-m", "shopfloor", "status"], cwd=lab.repo, capture_output=True, check=True)
    return done.stdout.decode()


def refusals(lab: Lab) -> Iterator[str]:
    """Why orders were sent back, those left out that only queue again."""
    return (str(e.data["reason"]) for e in lab.seen(E.LANDING_REFUSED) if not e.data.get("again"))


# -- one step -----------------------------------------------------------------------------------------------------


def test_every_step_of_the_target_was_tested_though_the_merges_inside_are_not_all_green(lab: Lab) -> None:
    report = verified(lab, "half-1", "half-2", "whole", check=TOGETHER)
    lab.ask("land")
    assert lab.report().counts["landed"] == 3
    (step,) = steps(lab)
    (tested,) = lab.seen(E.LANDING_TESTED)
    assert (tested.data["commit"], tested.data["verdict"]) == (step, "PASS")
    assert red_steps(lab, TOGETHER) == []
    assert git(lab.repo, "rev-parse", "main") == step
    assert git(lab.repo, "show", "-s", "--format=%s", step) == "Merge 3 orders: half-1, half-2, whole"
    assert set(step_orders(lab, step)) == {r.order for r in report.orders}


def step_orders(lab: Lab, step: str) -> list[str]:
    return git(lab.repo, "show", "-s", "--format=%(trailers:key=Shopfloor-Orders,valueonly)", step).split(", ")


def test_each_order_of_a_batch_has_a_merge_that_names_it_and_can_be_taken_back(lab: Lab) -> None:
    verified(lab, "one", "two", "three")
    lab.ask("land")
    report = lab.report()
    for name in ("one", "two", "three"):
        landed = row(report, name)
        found = git(lab.repo, "log", "--format=%H", f"--grep=Shopfloor-Order: {landed.order}$", "--merges", "main")
        assert found == landed.merge
    git(lab.repo, "revert", "-m", "1", "--no-edit", row(report, "two").merge)
    assert git(lab.repo, "ls-files", "one", "two", "three").split() == ["one", "three"]


def test_a_batch_of_one_is_its_own_step(lab: Lab) -> None:
    verified(lab, "one")
    lab.ask("land")
    assert steps(lab) == [row(lab.report(), "one").merge]


class EndsAfterTheMove(Lander0):
    """The target is moved, and then nothing more is heard."""

    async def land(self, target: Target, *, old: str, new: str) -> Landed:
        await self.real.land(target, old=old, new=new)
        raise GitError(["update-ref"], 128, b"the machine is gone")


async def test_a_batch_cut_off_after_the_move_has_landed_whole(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    prompts = [lab.prompt(n, script(write(n))) for n in ("one", "two", "three")]
    async with lab.floor(land="review") as floor:
        await floor.run(list(prompts))
    with monkeypatch.context() as patch:
        swap(patch, lander=EndsAfterTheMove)
        async with lab.floor() as floor:
            with pytest.raises(ShopfloorError, match="the machine is gone"):
                await floor.ask("land")
    assert git(lab.repo, "rev-parse", "main") == lab.start
    report = await resumed(lab)
    assert report.counts["landed"] == 3
    assert len(steps(lab)) == 1
    assert git(lab.repo, "rev-parse", "main") == git(lab.repo, "rev-parse", TARGET)


# -- one bad among many -------------------------------------------------------------------------------------------


@pytest.mark.timeout(120)
def test_a_batch_of_twenty_with_one_bad_one_costs_about_log2_extra_tests(lab: Lab) -> None:
    check = "test ! -e o12 || test ! -e o00"
    verified(lab, *[f"o{n:02}" for n in range(20)], check=check, max_parallel=4)
    lab.ask("land")
    report = lab.report()
    assert report.counts["landed"] == 19
    assert row(report, "o12").merge == ""
    assert "on top of what has landed since" in next(
        e.data["message"] for e in lab.seen(E.LANDING_REFUSED) if e.data.get("reason") == "checks"
    )
    commits = [e.data["commit"] for e in lab.seen(E.LANDING_TESTED)]
    assert len(set(commits)) - 1 <= math.ceil(math.log2(20)) + 1, "its halves, and the rest once more"
    assert len(commits) - len(set(commits)) == 1, "nothing is tested twice but the one that is blamed"
    assert red_steps(lab, check) == []


def test_a_conflict_with_what_did_not_land_sends_nobody_back(lab: Lab) -> None:
    deeds = {
        "half-1": [write("half-1")],
        "half-2": [write("half-2"), write("same", "of the bad one\n")],
        "good": [write("same", "of the good one\n")],
    }
    report = lab.run(*[lab.prompt(n, script(*d)) for n, d in deeds.items()], land="off", check=TOGETHER)
    assert report.counts["verified"] == 3
    lab.ask("land")
    report = lab.report()
    assert row(report, "good").outcome == "landed"
    assert list(refusals(lab)) == ["checks"], "only the bad one was sent back"
    assert git(lab.repo, "show", "main:same") == "of the good one"


def test_an_orders_own_checks_guard_it_against_those_it_lands_with_and_not_against_later_ones(lab: Lab) -> None:
    deeds = {"a": "test ! -e b && test ! -e c", "b": "true"}
    lab.run(*[lab.prompt(n, script(write(n)), checks=check) for n, check in deeds.items()], land="off", check="true")
    lab.ask("land")
    report = lab.report()
    assert (row(report, "a").outcome, row(report, "b").merge) == ("landed", "")
    assert "test ! -e b" in next(e.data["message"] for e in lab.seen(E.LANDING_REFUSED))
    lab.ask("stop", text="cancel")
    later = lab.run(lab.prompt("c", script(write("c"))), check="true")
    assert later.counts["landed"] == 1, "what must hold for good has to be a check of the project"


# -- flakes ---------------------------------------------------------------------------------------------------------


def first_time_red(folder: Path, when: str = "true") -> str:
    """A check that fails the first time on every commit on which ``when`` holds."""
    return f"if {when}; then ! mkdir {folder}/seen-$(git rev-parse HEAD) 2>/dev/null; fi"


def test_a_check_that_is_green_when_run_again_blames_nobody_and_is_told(lab: Lab, tmp_path: Path) -> None:
    check = first_time_red(tmp_path, "test -e new.txt")
    report = lab.run(lab.prompt("add", script(write("new.txt"))), check=check)
    assert (report.counts["landed"], row(report, "add").attempts) == (1, 1)
    assert report.flaky == {check: 1}
    (test,) = lab.seen(E.VERIFY_TEST)
    assert (test.data["flaky"], test.data["passed"]) == (True, True)


def test_a_base_that_is_red_for_nothing_still_protects(lab: Lab, tmp_path: Path) -> None:
    check = f"{first_time_red(tmp_path)} && test ! -e broken"
    report = lab.run(lab.prompt("breaks", script(write("broken"))), check=check, rework=0)
    assert (row(report, "breaks").outcome, row(report, "breaks").reason) == ("failed", "checks")


def test_what_is_red_twice_is_no_flake(lab: Lab) -> None:
    report = lab.run(lab.prompt("bad", script(write("broken"))), check="test ! -e broken", rework=0)
    assert row(report, "bad").reason == "checks"
    assert report.flaky == {}


def test_a_batch_whose_tests_are_all_red_the_first_time_lands_whole(lab: Lab, tmp_path: Path) -> None:
    names = ["a", "b", "c", "d"]
    check = first_time_red(tmp_path, "test -e a && test -e b")
    verified(lab, *names, check=check)
    lab.ask("land")
    report = lab.report()
    assert report.counts["landed"] == len(names)
    assert list(refusals(lab)) == []
    assert report.flaky[check] >= 1
    assert all(row(report, n).attempts == 1 for n in names)


def test_a_check_that_is_red_on_the_target_too_blames_nobody_and_holds_the_run(lab: Lab, tmp_path: Path) -> None:
    switch = tmp_path / "out-of-order"
    verified(lab, "one", "two", "three", check=f"test ! -e {switch}")
    switch.touch()
    lab.ask("land")
    report = lab.report()
    assert report.counts["verified"] == 3
    assert list(refusals(lab)) == []
    assert "has become red on" in report.landing_held
    assert "shopfloor land" in report.landing_held
    assert report.landing_held in status(lab)
    assert steps(lab) == []
    switch.unlink()
    lab.ask("land")
    report = lab.report()
    assert (report.counts["landed"], report.landing_held) == (3, "")
    assert all(r.attempts == 1 for r in report.orders)


def test_what_breaks_setup_only_together_with_others_is_found_and_sent_back(lab: Lab) -> None:
    verified(lab, "a", "b", "c", "d", "e", setup="test ! -e b || test ! -e d")
    lab.ask("land")
    report = lab.report()
    assert report.counts["landed"] == 4
    assert row(report, "d").merge == ""
    assert list(refusals(lab)) == ["checks"]
