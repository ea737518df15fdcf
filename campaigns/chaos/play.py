"""One round: a fresh repository, a run, a fault at a seeded moment, a look, a resume to the end, a second look."""

from __future__ import annotations

import re
import shutil
import signal
import subprocess
import time
from pathlib import Path
from random import Random

import msgspec

from campaigns.chaos import faults, look, processes, scene
from campaigns.chaos.faults import KINDS, SECOND, Act, Kind
from campaigns.chaos.look import LOST, OTHER, Facts, Found
from campaigns.chaos.scene import GOOD, Scene
from shopfloor.domain.order import Reason, State

MOST_RESUMES = 6
LONGEST_S = 40.0


class Round(msgspec.Struct, frozen=True, kw_only=True):
    """What came of one round."""

    number: int
    kind: str
    second: str
    hit: bool
    second_hit: bool
    problems: list[tuple[str, str]]
    took_s: float
    sessions: int
    known_after_s: float
    """from an agent's death to its line in the log; 0: none was killed"""


def play(template: Path, folder: Path, seed: int, number: int) -> Round:
    """Play round ``number``; its folder is left when a promise did not hold."""
    random = Random(f"{seed}:{number}")
    kind = list(KINDS)[(number - 1) % len(KINDS)]
    second = random.choice(SECOND) if random.random() < 0.6 else ""
    began = time.monotonic()
    stage = scene.copy(template, folder)
    found = Found()
    player = _Player(stage, random, found)
    try:
        player.play(kind, second)
    except (subprocess.SubprocessError, OSError) as problem:
        found.expect(None, OTHER, f"the round came to no end: {problem!r}")
    finally:
        for process in processes.of(folder):
            faults.kill(process.pid)
        if not found.problems:
            faults.free_everything(stage)
            shutil.rmtree(folder, ignore_errors=True)
    return Round(
        number=number, kind=kind, second=second, hit=player.hit, second_hit=player.second_hit, problems=found.problems,
        took_s=time.monotonic() - began, sessions=player.sessions, known_after_s=stage.known_after_s,
    )  # fmt: skip


class _Player:
    def __init__(self, stage: Scene, random: Random, found: Found) -> None:
        self.scene = stage
        self.random = random
        self.found = found
        self.hit = self.second_hit = False
        self.sessions = 0

    def play(self, name: str, second: str) -> None:
        kind = KINDS[name]
        orders = self._orders()
        kind.prepare(self.scene, self.random)
        self.hit = self._session(kind, "run", "--plain", *self.scene.prompts(orders))
        kind.after(self.scene, self.random)
        facts = look.at_any_moment(self.scene, self.found)
        if second and facts.board.unfinished() is not None:
            self.second_hit = self._session(KINDS[second], "run", "--plain", "--resume")
            facts = look.at_any_moment(self.scene, self.found)
        facts = self._to_the_end(facts, orders, kind)
        if kind.excuse:
            facts = self._try_again(facts, orders, kind)
        self._look_at_the_end(facts, orders, kind)

    def _orders(self) -> list[str]:
        """Some of them, always with a dependency in it."""
        more = self.random.sample(("orphan", "untidy", "bad", "pair"), 2)
        pair = ["left", "right"] if "pair" in more else []
        return ["first", "second", *(name for name in more if name != "pair"), *pair]

    def _session(self, kind: Kind, *words: str) -> bool:
        """One command with one fault in it; whether it hit."""
        self.sessions += 1
        child = self.scene.start(*words)
        act = Act(self.scene, child, self.random)
        try:
            if not kind.early:
                self._moment(act)
            hit = kind.strike(act)
            if not processes.until(act.over, LONGEST_S):
                child.send_signal(signal.SIGUSR1)  # the round's folder then has where it stood
                processes.until((self.scene.folder / "stood.txt").exists, LONGEST_S)
                self.found.expect(None, OTHER, f"{words[0]} did not end within {LONGEST_S:g} s")
        finally:
            if not act.over():
                child.kill()
            child.wait()
        return hit

    def _moment(self, act: Act) -> None:
        """Wait until the log has so many lines more, and a little longer."""
        before = _lines(self.scene.log)
        lines, pause_s = before + self.random.randint(1, 80), self.random.uniform(0.0, 0.03)
        processes.until(lambda: act.over() or _lines(self.scene.log) >= lines, LONGEST_S)
        if not act.over():
            time.sleep(pause_s)

    def _to_the_end(self, facts: Facts, orders: list[str], kind: Kind) -> Facts:
        for resumed in range(MOST_RESUMES):
            if facts.board.records and (facts.board.unfinished() is None or (kind.holds and resumed and _held(facts))):
                return facts
            again = ("--resume",) if facts.board.runs else tuple(self.scene.prompts(orders))
            self._session(_NOTHING, "run", "--plain", *again)
            facts = Facts(self.scene)
        self.found.expect(None, OTHER, f"not finished after {MOST_RESUMES} resumes")
        return facts

    def _try_again(self, facts: Facts, orders: list[str], kind: Kind) -> Facts:
        """Good orders that failed for a reason that the fault explains must land once it is gone."""
        failed = []
        for name in orders:
            record = facts.record(name)
            if record is not None and record.state is State.FAILED and name != "bad":
                text = f"{record.reason}: {record.message}"
                excused = re.search(kind.excuse, text, re.IGNORECASE) or record.reason is Reason.DEPENDENCY
                self.found.expect(excused, LOST, f"{name} failed for no reason that the fault explains: {text}")
                failed.append(name)
        for name in failed:
            if (record := Facts(self.scene).record(name)) is not None and record.state is State.FAILED:
                self._session(_NOTHING, "retry", name)
        return self._to_the_end(Facts(self.scene), orders, kind) if failed else facts

    def _look_at_the_end(self, facts: Facts, orders: list[str], kind: Kind) -> None:
        stage, found = self.scene, self.found
        facts = look.at_any_moment(stage, found)
        found.expect(
            len(facts.board.records) == len(orders), LOST, f"{len(facts.board.records)} orders of {len(orders)}"
        )
        for name in orders:
            record = facts.record(name)
            if record is None:
                found.expect(None, LOST, f"order {name} is not in the log")
                continue
            text = f"{name} ended as {record.state}: {record.reason}: {record.message}"
            if kind.holds and _held(facts) and record.state in (State.VERIFIED, State.READY):
                continue  # it waits for a person to look at the red target, and so does what waits for it
            if name in GOOD:
                found.expect(record.state is State.DONE, LOST, text)
            elif kind.excuse and re.search(kind.excuse, record.message, re.IGNORECASE):
                found.expect(record.state is State.FAILED, OTHER, text)
            else:
                found.expect(record.state is State.FAILED and record.reason is Reason.CHECKS, OTHER, text)
        look.nothing_is_lost(facts, found)
        look.nothing_is_doubled(facts, found)
        held = kind.branch_held or _locked(facts) or _left_alone(facts, kind)
        look.checkout_is_the_users(facts, found, held=held)


def _locked(facts: Facts) -> bool:
    """The user's branch stays behind because a git that was killed has locked it, and the run names that lock."""
    repo = facts.scene.repo
    named = [run.mirror_why for run in facts.board.runs.values() if "main.lock" in run.mirror_why]
    return bool(named) and (repo / ".git/refs/heads/main.lock").exists()


def _left_alone(facts: Facts, kind: Kind) -> bool:
    """The last landing met with the fault while the branch was brought along, and the run says so and what to type."""
    told = [run.mirror_why for run in facts.board.runs.values()][-1]
    why, _, how = told.partition("; take the result with: git merge")
    return bool(kind.excuse and how) and re.search(kind.excuse, why, re.IGNORECASE) is not None


def _held(facts: Facts) -> bool:
    """Nothing lands any more, and the run says why."""
    return any(run.land == "review" and "red" in run.mirror_why for run in facts.board.runs.values())


_NOTHING = Kind(lambda _act: False, early=True)


def _lines(log: Path) -> int:
    try:
        return log.read_bytes().count(b"\n")
    except FileNotFoundError:
        return 0
