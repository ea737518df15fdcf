"""The conformance suite of the Verifier port. Whoever writes a verifier that runs commands runs it against theirs.

def make(repository, guard, **options):  # setup=…, limit_s=…
    return MyVerifier(…)

SUBJECT = Subject(make=make)

@pytest.mark.parametrize("case", CASES)
async def test_my_verifier(case, tmp_path):
    await run_case(case, SUBJECT, tmp_path)
"""

from __future__ import annotations

import asyncio
import hashlib
import json
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from inspect import iscoroutinefunction
from pathlib import Path
from typing import Any

import msgspec

from shopfloor.domain.verdict import Check, CheckResult, Decision, Verdict
from shopfloor.ports import CheckJob, Verifier
from shopfloor.spawn import Guard
from shopfloor.testing.repository import Repository, appears, write

MOST_LOG_BYTES = 16 << 20
MOST_TAIL_CHARS = 10_000
RED = 3
"""an exit code that nothing but the check can have given"""


@dataclass(frozen=True, kw_only=True)
class Subject:
    """``make(repository, guard, setup=…, limit_s=…)`` opens the verifier under test, for one job at a time."""

    make: Callable[..., Verifier]


class Bench:
    """What a case works with: a base that has ``ok.txt``, and a commit on it that has ``new.txt`` and no ``ok.txt``."""

    def __init__(self, subject: Subject, guard: Guard, folder: Path) -> None:
        self.subject = subject
        self.guard = guard
        self.folder = folder
        self.repository = Repository(folder / "repo")
        self.repository.git.exclude(["/.worktrees/"])
        self.base = self.repository.commit({"ok.txt": "fine\n"})
        self.commit = self.repository.commit_on(self.base, {"new.txt": "new\n", "ok.txt": None})
        self.verifier = self.open()
        self._number = 0

    def open(self, **options: Any) -> Verifier:
        return self.subject.make(self.repository, self.guard, **options)

    def job(self, *checks: str | Check, commit: str = "", **fields: Any) -> CheckJob:
        """A job; a plain string is a check that the order itself names."""
        self._number += 1
        commit = commit or self.commit
        known: dict[str, Any] = {
            "key": f"wo-1.v{self._number}",
            "commit": commit,
            "tree": self.repository.git.tree_of(commit),
            "base": self.base,
            "checks": tuple(Check(command=c, own=True) if isinstance(c, str) else c for c in checks),
            "evidence": str(self.folder / "evidence" / str(self._number)),
        }
        return CheckJob(**(known | fields))

    async def check(self, *checks: str | Check, **fields: Any) -> Verdict:
        return await self.verifier.check(self.job(*checks, **fields))


def lives(marker: Path) -> bool:
    """Whether the process whose id was written there is still there."""
    return Path(f"/proc/{int(marker.read_text())}/cmdline").exists()


def log_of(result: CheckResult) -> bytes:
    return Path(result.log).read_bytes()


def project(command: str, *, passed_on_base: bool = True) -> Check:
    """A check that the project has, whatever the order wants."""
    return Check(command=command, passed_on_base=passed_on_base)


async def what_passes_passes(bench: Bench) -> None:
    verdict = await bench.check("test -e new.txt", "true")
    assert verdict.decision is Decision.PASS
    assert [r.passed for r in verdict.results] == [True, True]
    assert [r.exit_code for r in verdict.results] == [0, 0]


async def what_fails_fails_with_its_words(bench: Bench) -> None:
    verdict = await bench.check("echo the reason why >&2; exit 3")
    assert verdict.decision is Decision.FAIL
    assert verdict.results[0].exit_code == RED
    assert "the reason why" in verdict.findings


async def the_verdict_names_what_was_checked(bench: Bench) -> None:
    verdict = await bench.check("true")
    tree = bench.repository.git.tree_of(bench.commit)
    assert (verdict.commit, verdict.tree, verdict.base) == (bench.commit, tree, bench.base)
    assert (await bench.check("true", tree="")).tree == tree


async def another_tree_is_no_verdict(bench: Bench) -> None:
    verdict = await bench.check("true", tree=bench.repository.git.tree_of(bench.base))
    assert verdict.decision is Decision.UNSURE
    assert verdict.problem


async def a_commit_that_is_not_there_is_no_verdict(bench: Bench) -> None:
    missing = msgspec.structs.replace(bench.job("true"), commit="f" * 40)
    verdict = await bench.verifier.check(missing)
    assert verdict.decision is Decision.UNSURE
    assert verdict.problem


async def it_sees_the_commit_and_nothing_else(bench: Bench) -> None:
    write(bench.repository.root, {"mine.txt": "not committed", "ok.txt": "changed"})
    before = bench.repository.look()
    verdict = await bench.check("test ! -e mine.txt && test ! -e ok.txt", "cat new.txt")
    assert verdict.decision is Decision.PASS
    assert bench.repository.look() == before


async def one_check_run_leaves_nothing_for_the_next(bench: Bench) -> None:
    trap = "test ! -e build/leftover && test ! -e plain && mkdir build && touch build/leftover plain && rm README.md"
    for _ in range(2):
        assert (await bench.check(f"test -e README.md && {trap}")).decision is Decision.PASS


async def the_checks_of_one_job_share_a_checkout(bench: Bench) -> None:
    assert (await bench.check("echo x > made", "test -e made")).decision is Decision.PASS


async def what_broke_is_run_again_on_the_base(bench: Bench) -> None:
    verdict = await bench.check(project("test -e ok.txt"))
    assert verdict.decision is Decision.FAIL
    assert verdict.results[0].base_passed is True


async def what_is_red_on_the_base_too_blames_nobody(bench: Bench) -> None:
    verdict = await bench.check(project("exit 1"))
    assert verdict.decision is Decision.UNSURE
    assert verdict.results[0].base_passed is False


async def an_own_check_must_pass_whatever_the_base_does(bench: Bench) -> None:
    verdict = await bench.check("exit 1")
    assert verdict.decision is Decision.FAIL
    assert verdict.results[0].base_passed is None


async def what_was_red_before_is_not_required(bench: Bench) -> None:
    verdict = await bench.check(project("exit 1", passed_on_base=False), "true")
    assert verdict.decision is Decision.PASS
    assert [r.required for r in verdict.results] == [False, True]
    assert verdict.results[0].base_passed is None


async def without_a_base_nothing_is_run_again(bench: Bench) -> None:
    verdict = await bench.check(project("exit 1"), base="")
    assert verdict.decision is Decision.FAIL
    assert verdict.results[0].base_passed is None


async def what_the_base_needs_for_it_is_run_there_too(bench: Bench) -> None:
    verdict = await bench.check(project("mkdir build"), project("test -e build && test -e ok.txt"))
    assert verdict.decision is Decision.FAIL, "its base was not made ready for the check"
    assert [r.base_passed for r in verdict.results] == [None, True]


def once(bench: Bench, name: str = "first") -> str:
    """A check that fails the first time, wherever it is run, and passes from then on."""
    marker = bench.folder / name
    return f"if mkdir {marker} 2>/dev/null; then echo no luck; exit 1; fi"


async def what_passes_when_run_again_is_flaky_and_blames_nobody(bench: Bench) -> None:
    verdict = await bench.check("test -e new.txt", once(bench), "true", again=1)
    assert verdict.decision is Decision.PASS
    assert [(r.passed, r.failures, r.flaky) for r in verdict.results] == [
        (True, 0, False), (True, 1, True), (True, 0, False),
    ]  # fmt: skip
    assert not verdict.findings


async def without_leave_nothing_is_run_again(bench: Bench) -> None:
    verdict = await bench.check(once(bench))
    assert (verdict.decision, verdict.results[0].failures) == (Decision.FAIL, 1)


async def what_fails_again_has_failed(bench: Bench) -> None:
    runs = bench.folder / "runs"
    verdict = await bench.check(f"echo run >> {runs}; exit 1", again=2)
    assert (verdict.decision, verdict.results[0].failures) == (Decision.FAIL, 3)
    assert len(runs.read_text().split()) == verdict.results[0].failures


async def it_is_run_again_in_a_fresh_checkout(bench: Bench) -> None:
    runs = bench.folder / "runs"
    await bench.check(f"test ! -e spoilt || echo spoilt > {runs}; touch spoilt; exit 1", again=1)
    assert not runs.exists()


async def after_a_flaky_one_the_rest_is_run_too(bench: Bench) -> None:
    verdict = await bench.check(once(bench), "exit 1", fail_fast=True, again=1)
    assert verdict.decision is Decision.FAIL
    assert [r.passed for r in verdict.results] == [True, False]
    verdict = await bench.check(once(bench, "other"), "true", fail_fast=True, again=1)
    assert [(r.command, r.passed) for r in verdict.results][1] == ("true", True)


async def what_is_known_of_a_commit_counts(bench: Bench) -> None:
    runs = bench.folder / "runs"
    check = f"echo run >> {runs}; exit 1"
    first = await bench.check(check)
    verdict = await bench.check(check, known=first.results, again=1)
    assert (verdict.decision, verdict.results[0].failures) == (Decision.FAIL, 2)
    assert len(runs.read_text().split()) == verdict.results[0].failures, "it was run once more than needed"
    flaky = once(bench)
    first = await bench.check(flaky)
    assert (await bench.check(flaky, known=first.results, again=1)).decision is Decision.PASS


async def setup_that_works_when_run_again_blames_nobody(bench: Bench) -> None:
    bench.verifier = bench.open(setup=f"test -e ok.txt || {{ {once(bench)}; }}")
    assert (await bench.check("true", again=1)).decision is Decision.PASS


async def setup_runs_before(bench: Bench) -> None:
    bench.verifier = bench.open(setup="mkdir -p build && echo ready > build/tool")
    assert (await bench.check("grep ready build/tool")).decision is Decision.PASS
    bench.verifier = bench.open()
    assert (await bench.check("grep ready build/tool")).decision is Decision.FAIL, "it was left over"


async def setup_that_the_commit_broke_is_its_fault(bench: Bench) -> None:
    bench.verifier = bench.open(setup="test -e ok.txt || { echo ok.txt is missing; exit 1; }")
    verdict = await bench.check("true")
    assert verdict.decision is Decision.FAIL
    assert "ok.txt is missing" in verdict.findings


async def setup_that_never_works_blames_nobody(bench: Bench) -> None:
    bench.verifier = bench.open(setup="exit 1")
    verdict = await bench.check("true")
    assert verdict.decision is Decision.UNSURE
    assert verdict.problem


async def the_time_limit_ends_it(bench: Bench) -> None:
    verdict = await bench.check("echo begun; setsid sleep 1000 & sleep 1000", timeout_s=0.5)
    (result,) = verdict.results
    assert (result.timed_out, result.passed, result.exit_code) == (True, False, None)
    assert "begun" in result.tail
    assert verdict.decision is Decision.FAIL


async def the_end_by_a_signal_is_a_failure(bench: Bench) -> None:
    (result,) = (await bench.check("kill -9 $$")).results
    assert not result.passed


async def nothing_it_started_lives_on(bench: Bench) -> None:
    marker = bench.folder / "pid"
    await bench.check(f"setsid sleep 1000 </dev/null >/dev/null 2>&1 & echo $! > {marker}")
    assert not lives(marker)


async def stdin_is_empty(bench: Bench) -> None:
    assert (await bench.check('test -z "$(cat)"')).decision is Decision.PASS


async def the_environment_is_the_given_one(bench: Bench) -> None:
    verdict = await bench.check('test -z "$GIT_DIR$PYTHONPATH$PYTEST_CURRENT_TEST" && test -n "$PATH"')
    assert verdict.decision is Decision.PASS


async def logs_are_kept_with_their_digest(bench: Bench) -> None:
    verdict = await bench.check("echo out; echo err >&2", "true")
    for result in verdict.results:
        assert hashlib.sha256(log_of(result)).hexdigest() == result.digest
    first, second = verdict.results
    assert log_of(first) == b"out\nerr\n"
    assert first.log != second.log


async def long_output_is_bounded(bench: Bench) -> None:
    verdict = await bench.check("echo first; yes | head -c 40000000; echo last")
    (result,) = verdict.results
    content = log_of(result)
    assert len(content) <= MOST_LOG_BYTES
    assert content.startswith(b"first\n")
    assert content.endswith(b"last\n")
    assert b"left out" in content
    assert len(result.tail) < MOST_TAIL_CHARS


async def output_that_is_no_text_is_shown_safely(bench: Bench) -> None:
    (result,) = (await bench.check(r"printf '\377\033[31mred\000'")).results
    assert "\x1b" not in result.tail
    assert "red" in result.tail
    result.tail.encode()


async def one_failure_is_enough_when_asked(bench: Bench) -> None:
    red = project("exit 1", passed_on_base=False)
    for checks, fail_fast, run in (
        (("exit 1", "true"), True, 1),
        (("exit 1", "true"), False, 2),
        ((red, "true"), True, 2),
    ):
        assert len((await bench.check(*checks, fail_fast=fail_fast)).results) == run


async def evidence_is_written_for_other_programs(bench: Bench) -> None:
    job = bench.job("test -e new.txt", "echo no; exit 3")
    await bench.verifier.check(job)
    told = json.loads((Path(job.evidence) / "verdict.json").read_text())
    assert told["verdict"] == "FAIL"
    assert told["work_order_id"] == "wo-1"
    assert told["timestamp"].endswith("Z")
    assert (told["commit"], told["base"], told["tree"]) == (job.commit, job.base, job.tree)
    assert told["summary"] == {"total": 2, "passed": 1, "failed": 1, "audited": 0}
    first, second = told["criteria"]
    assert (first["id"], first["test_type"], first["command"]) == ("AC-1", "shell", "test -e new.txt")
    assert (second["passed"], second["evidence"]["exit_code"]) == (False, RED)
    assert "no" in second["evidence"]["stdout"]


async def jobs_wait_for_each_other(bench: Bench) -> None:
    alone = f"mkdir {bench.folder}/alone && sleep 0.05 && rmdir {bench.folder}/alone"
    verdicts = await asyncio.gather(*(bench.check(alone) for _ in range(4)))
    assert [v.decision for v in verdicts] == [Decision.PASS] * 4


async def cancelling_ends_what_runs(bench: Bench) -> None:
    marker = bench.folder / "pid"
    task = asyncio.create_task(bench.check(f"echo $$ > {marker}.new; mv {marker}.new {marker}; exec sleep 1000"))
    await appears(bench.folder, marker.name)
    task.cancel()
    await asyncio.wait([task])
    assert task.cancelled()
    assert not lives(marker)
    assert (await bench.check("true")).decision is Decision.PASS


Case = Callable[[Bench], Awaitable[None]]
CASES: dict[str, Case] = {
    name: case for name, case in list(globals().items()) if iscoroutinefunction(case) and case.__module__ == __name__
}
"""Every case by its name, which says what must hold."""


async def run_case(name: str, subject: Subject, folder: Path) -> None:
    """Run one case in an empty folder. Raises AssertionError that says what is wrong."""
    async with Guard() as guard:
        await CASES[name](Bench(subject, guard, folder))
