"""The landing lane against everything that can happen to a target, with a lander that goes wrong at one place."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Mapping
from pathlib import Path

import pytest

from shopfloor.domain.errors import ShopfloorError
from shopfloor.domain.events import E, Event
from shopfloor.git import GitError
from shopfloor.ports import CheckJob, Landed, Lander, Mirrored, Proposal, Target, Verifier

from .engine_lab import Lander0, resumed, swap
from .lab import Lab, git, row, script, write

TARGET = "refs/shopfloor/target/main"


@pytest.fixture
def lab(tmp_path: Path) -> Lab:
    return Lab(tmp_path)


class CountingVerifier:
    """The real one; remembers the commit of each tip that it checked."""

    def __init__(self, real: Verifier, tips: list[str]) -> None:
        self.real = real
        self.tips = tips

    async def check(self, job: CheckJob) -> object:
        if ".tip." in job.key:
            self.tips.append(job.commit)
        return await self.real.check(job)


def verified(lab: Lab, *prompts: Path, **flags: object) -> dict[str, str]:
    """Run without landing; ids by name."""
    report = lab.run(*prompts, land="off", **flags)
    assert report.counts["verified"] == len(prompts)
    return {r.name: r.order for r in report.orders}


def test_a_red_one_in_the_middle_of_a_batch_is_found_by_halving(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    tips: list[str] = []
    # Each is green alone; whichever of the two comes second makes the sum red.
    check = "test $(ls | grep -c '^half-') -lt 2"
    names = ["a", "b", "half-1", "c", "half-2", "d", "e", "f"]
    verified(lab, *[lab.prompt(n, script(write(n))) for n in names], check=check)
    swap(monkeypatch, verifier=lambda real: CountingVerifier(real, tips))
    assert "8 verified orders" in lab.ask("land")
    report = lab.report()
    assert report.counts["landed"] == 7
    refused = [e for e in lab.seen(E.LANDING_REFUSED) if not e.data.get("again")]
    assert [row(report, n).merge == "" for n in ("half-1", "half-2")].count(True) == 1
    assert len(refused) == 1
    assert len(set(tips)) <= 1 + math.ceil(math.log2(8)) + 1, "the batch, its halves, and the rest once more"
    assert len(tips) == len(set(tips)) + 1, "the one that is blamed is tested twice, and no other"
    assert git(lab.repo, "rev-parse", "main") == git(lab.repo, "rev-parse", TARGET)


def test_a_conflict_in_the_middle_of_a_batch_does_not_keep_the_others(lab: Lab) -> None:
    deeds = {"a": write("a"), "b": write("same", "b\n"), "c": write("same", "c\n"), "d": write("d")}
    verified(lab, *[lab.prompt(n, script(deed)) for n, deed in deeds.items()])
    lab.ask("land")
    report = lab.report()
    assert report.counts["landed"] == 3
    (conflict,) = [e for e in lab.seen(E.LANDING_REFUSED) if e.data.get("reason") == "conflict"]
    assert "same" in conflict.data["message"]
    assert len(lab.seen(E.LANDING_LANDED)) == 3


def test_work_that_the_target_holds_already_is_landed_without_a_move(lab: Lab) -> None:
    ids = verified(lab, lab.prompt("one", script(write("one"))), lab.prompt("two", script(write("two"))))
    branch = next(b for b in git(lab.repo, "branch", "--list", "--format=%(refname:short)").split() if "/one-" in b)
    git(lab.repo, "update-ref", TARGET, branch)
    lab.ask("land")
    report = lab.report()
    assert report.counts["landed"] == 2
    assert set(ids) == {"one", "two"}
    assert git(lab.repo, "ls-tree", "--name-only", "main", "one", "two").split() == ["one", "two"]


class MovedBetween(Lander0):
    """Somebody moves the target after the merge was made and tested, once."""

    moved = False

    def __init__(self, real: Lander, repo: Path) -> None:
        super().__init__(real)
        self.repo = repo

    async def land(self, target: Target, *, old: str, new: str) -> Landed:
        if not self.moved:
            MovedBetween.moved = True
            theirs = git(self.repo, "commit-tree", f"{old}^{{tree}}", "-p", old, "-m", "theirs")
            git(self.repo, "update-ref", target.ref, theirs)
        return await self.real.land(target, old=old, new=new)


def test_a_target_that_moves_under_a_tested_merge_is_tested_again(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(MovedBetween, "moved", False)
    swap(monkeypatch, lander=lambda real: MovedBetween(real, lab.repo))
    report = lab.run(lab.prompt("add", script(write("new.txt"))))
    assert report.counts["landed"] == 1
    assert [e.data["by"] for e in lab.seen(E.TARGET_MOVED)] == ["unknown"]
    assert "theirs" in git(lab.repo, "log", "--format=%s", "main")


def test_a_deleted_target_is_put_back_and_attempts_start_from_what_has_landed(lab: Lab) -> None:
    one = lab.prompt("one", script(write("one"), {"run": f"git update-ref -d {TARGET}"}))
    two = lab.prompt("two", script({"run": "cp one two"}), depends_on="one", checks="test -e two")
    gone = lab.prompt("gone", script({"run": f"git update-ref -d {TARGET}; cp two three"}), depends_on="two")
    report = lab.run(one, two, gone)
    assert report.counts["landed"] == 3
    assert git(lab.repo, "ls-tree", "--name-only", "main", "one", "two", "three").split() == ["one", "three", "two"]


def test_a_target_put_where_it_lacks_what_has_landed_holds_the_run_and_says_so(lab: Lab) -> None:
    one = lab.prompt("one", script(write("one")))
    aside = f"git update-ref {TARGET} $(git -c user.name=p -c user.email=p@x commit-tree HEAD^{{tree}} -m aside)"
    two = lab.prompt("two", script(write("two"), {"run": aside}), depends_on="one")
    report = lab.run(one, two)
    assert report.counts["landed"] == 1
    assert row(report, "two").outcome == "verified"
    assert "lacks" in report.mirror_why


class NoMerge(Lander0):
    """Git cannot merge the commits of one order."""

    async def propose(self, onto: str, commit: str, *, message: str, trailers: Mapping[str, str]) -> Proposal:
        if "poison" in message:
            raise GitError(["merge-tree"], 128, b"fatal: bad object")
        return await self.real.propose(onto, commit, message=message, trailers=trailers)


def test_one_commit_that_git_cannot_merge_does_not_keep_the_others(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    swap(monkeypatch, lander=NoMerge)
    report = lab.run(
        lab.prompt("poison", script(write("p"))), lab.prompt("fine", script(write("fine"))), rework=0
    )  # fmt: skip
    assert row(report, "fine").outcome == "landed"
    assert (row(report, "poison").outcome, row(report, "poison").reason) == ("failed", "error")
    assert "bad object" in row(report, "poison").message


class NoLanding(Lander0):
    async def land(self, target: Target, *, old: str, new: str) -> Landed:
        raise GitError(["update-ref"], 128, b"fatal: cannot lock ref")


async def test_a_target_that_cannot_be_moved_ends_the_session_and_resume_lands(
    lab: Lab, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        swap(patch, lander=NoLanding)
        async with lab.floor() as floor:
            with pytest.raises(ShopfloorError, match="cannot lock ref"):
                await floor.run([lab.prompt("add", script(write("new.txt")))])
    assert git(lab.repo, "rev-parse", "main") == lab.start
    report = await resumed(lab)
    assert (report.counts["landed"], row(report, "add").attempts) == (1, 1)


class SlowLanding(Lander0):
    """Says when the ref is about to be moved, and waits for leave."""

    def __init__(self, real: Lander, reached: asyncio.Event, leave: asyncio.Event) -> None:
        super().__init__(real)
        self.reached, self.leave = reached, leave

    async def land(self, target: Target, *, old: str, new: str) -> Landed:
        self.reached.set()
        await self.leave.wait()
        return await self.real.land(target, old=old, new=new)


@pytest.mark.parametrize("how", ["stop", "cancel", "stop the order", "pause"])
async def test_a_landing_under_way_is_finished_whatever_is_asked(
    lab: Lab, monkeypatch: pytest.MonkeyPatch, how: str
) -> None:
    reached, leave = asyncio.Event(), asyncio.Event()
    swap(monkeypatch, lander=lambda real: SlowLanding(real, reached, leave))
    async with lab.floor() as floor:
        running = asyncio.create_task(floor.run([lab.prompt("add", script(write("new.txt")))]))
        await asyncio.wait_for(reached.wait(), 20)
        (order,) = (await floor.board()).records
        match how:
            case "stop":
                floor.stop("enough")
            case "cancel":
                running.cancel()
            case "pause":
                await floor.ask("pause")
            case _:
                await floor.ask("stop", order)
        leave.set()
        (outcome,) = await asyncio.gather(running, return_exceptions=True)
        assert isinstance(outcome, asyncio.CancelledError) == (how == "cancel")
        report = await floor.report()
        assert report.finished
    assert report.counts["landed"] == 1
    assert git(lab.repo, "rev-parse", "main") == git(lab.repo, "rev-parse", TARGET)


class NoMirror(Lander0):
    async def mirror(self, target: Target, *, old: str, new: str) -> Mirrored:
        raise PermissionError(13, "Permission denied", "index")


def test_a_branch_that_cannot_be_written_does_not_cost_the_landing(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    swap(monkeypatch, lander=NoMirror)
    report = lab.run(lab.prompt("add", script(write("new.txt"))))
    assert report.counts["landed"] == 1
    assert report.mirror_why.endswith("permission denied; take the result with: git merge refs/shopfloor/target/main")


class Unsure:
    """The first verification of a tip cannot tell."""

    def __init__(self, real: Verifier) -> None:
        self.real = real
        self.told = False

    async def check(self, job: CheckJob) -> object:
        from shopfloor.domain.verdict import Decision, Verdict

        if ".tip." in job.key and not self.told:
            self.told = True
            return Verdict(decision=Decision.UNSURE, commit=job.commit, tree=job.tree, base="", problem="no checkout")
        return await self.real.check(job)


def test_nobody_goes_back_because_a_tip_could_not_be_checked(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    swap(monkeypatch, verifier=Unsure)
    report = lab.run(
        lab.prompt("one", script(write("one"))), lab.prompt("two", script({"wait_s": 0.3}, write("two"))), rework=0
    )  # fmt: skip
    assert report.counts["landed"] == 2


class SlowMirror(Lander0):
    """The first move of the user's branch takes until the next batch has landed."""

    def __init__(self, real: Lander) -> None:
        super().__init__(real)
        self.landings = 0
        self.again = asyncio.Event()

    async def land(self, target: Target, *, old: str, new: str) -> Landed:
        landed = await super().land(target, old=old, new=new)
        self.landings += 1
        if self.landings == 2:
            self.again.set()
        return landed

    async def mirror(self, target: Target, *, old: str, new: str) -> Mirrored:
        await asyncio.wait_for(self.again.wait(), 20)
        return await super().mirror(target, old=old, new=new)


def test_a_batch_that_lands_while_the_branch_is_being_moved_moves_it_on(
    lab: Lab, monkeypatch: pytest.MonkeyPatch
) -> None:
    swap(monkeypatch, lander=SlowMirror)
    prompts = [lab.prompt("one", script(write("one"))), lab.prompt("two", script(write("two")), depends_on=["one"])]
    report = lab.run(*prompts)
    assert report.counts["landed"] == 2
    assert lab.seen(E.MIRROR_HELD) == []
    assert git(lab.repo, "rev-parse", "main") == git(lab.repo, "rev-parse", TARGET)


async def test_nobody_starts_from_a_target_that_somebody_has_set_back(lab: Lab) -> None:
    bases: list[str] = []

    def set_back(event: Event) -> None:
        if event.event_type == E.LANDING_LANDED and not bases:
            git(lab.repo, "update-ref", TARGET, lab.start)
            bases.append(event.data["observed"])
        elif event.event_type == E.ASSIGNED and bases:
            bases.append(event.data["base"])

    first = lab.prompt("first", script(write("first.txt")))
    after = lab.prompt("after", script(write("after.txt")), depends_on=["first"])
    async with lab.floor() as floor:
        floor.observers.append(set_back)
        report = await floor.run([first, after])
    assert report.counts["landed"] == 2
    assert bases == [bases[0]] * 2


class CutOffMirror(SlowMirror):
    """The branch is moved, the next batch lands, and nobody lives to say that the branch was moved."""

    async def mirror(self, target: Target, *, old: str, new: str) -> Mirrored:
        await self.real.mirror(target, old=old, new=new)
        await self.again.wait()
        raise RuntimeError("cut off")


async def test_a_branch_that_was_moved_unheard_while_the_target_went_on_is_moved_on(
    lab: Lab, monkeypatch: pytest.MonkeyPatch
) -> None:
    prompts = [lab.prompt("one", script(write("one"))), lab.prompt("two", script(write("two")), depends_on=["one"])]
    with monkeypatch.context() as cut:
        swap(cut, lander=CutOffMirror)
        async with lab.floor() as floor:
            with pytest.raises(RuntimeError, match="cut off"):
                await floor.run(prompts)
    assert len(lab.seen(E.LANDING_LANDED)) == 2
    report = await resumed(lab)
    assert report.counts["landed"] == 2
    assert lab.seen(E.MIRROR_HELD) == []
    assert git(lab.repo, "rev-parse", "main") == git(lab.repo, "rev-parse", TARGET)
