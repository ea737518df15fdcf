"""What the checks found, and whom it blames."""

import pytest

from shopfloor.domain.verdict import (
    Check,
    CheckResult,
    Decision,
    Verdict,
    decide,
    how_it_ended,
    required_checks,
    tally,
    undecided,
)


def result(*, passed: bool, required: bool = True, base: bool | None = None) -> CheckResult:
    return CheckResult(command="make", passed=passed, exit_code=0 if passed else 2, required=required, base_passed=base)


GOOD, RED = result(passed=True), result(passed=False)


@pytest.mark.parametrize(
    ("results", "decision"),
    [
        ((), Decision.PASS),
        ((GOOD,), Decision.PASS),
        ((GOOD, RED), Decision.FAIL),
        ((GOOD, result(passed=False, required=False)), Decision.PASS),
        ((result(passed=False, base=True),), Decision.FAIL),
        ((result(passed=False, base=False), GOOD), Decision.UNSURE),
        ((result(passed=False, base=False), RED), Decision.FAIL),
    ],
)
def test_decide(results: tuple[CheckResult, ...], decision: Decision) -> None:
    assert decide(results) is decision


def test_an_order_must_pass_its_own_checks_and_keep_what_was_green() -> None:
    assert required_checks(("a", "b", "a"), ("b", "c", "d", "c"), frozenset({"c", "b"})) == (
        Check(command="a", own=True),
        Check(command="b", own=True),
        Check(command="c", passed_on_base=True),
        Check(command="d", passed_on_base=False),
    )


def test_findings_are_the_required_checks_that_failed() -> None:
    bad = CheckResult(command="make", passed=False, exit_code=2, tail="boom\n")
    cut = CheckResult(command="slow", passed=False, timed_out=True, duration_s=30.4)
    other = result(passed=False, required=False)
    verdict = Verdict(decision=Decision.FAIL, commit="c", tree="t", base="b", results=(GOOD, bad, cut, other))
    assert verdict.findings == "check failed: make\nexit 2\nboom\n\ncheck failed: slow\ntime limit after 30 s"


def test_a_problem_says_why_nothing_could_be_checked() -> None:
    verdict = Verdict(decision=Decision.UNSURE, commit="c", tree="t", base="b", results=(RED,), problem="no setup")
    assert verdict.findings == "no setup"


def test_how_it_ended() -> None:
    assert how_it_ended(CheckResult(command="x", passed=False)) == "ended by a signal"
    assert how_it_ended(RED) == "exit 2"


A, B, C = (Check(command=name) for name in "abc")


def ran(**passed: bool) -> tuple[CheckResult, ...]:
    """One run of checks, by name."""
    return tuple(CheckResult(command=name, passed=how) for name, how in passed.items())


def after(*runs: tuple[CheckResult, ...]) -> tuple[CheckResult, ...]:
    known: tuple[CheckResult, ...] = ()
    for results in runs:
        known = tally(known, results)
    return known


@pytest.mark.parametrize(
    ("runs", "passed", "failures", "flaky"),
    [
        ([True], True, 0, False),
        ([False], False, 1, False),
        ([False, True], True, 1, True),
        ([True, False], True, 1, True),
        ([False, False], False, 2, False),
        ([False, False, True], True, 2, True),
    ],
)
def test_a_check_that_passed_once_on_a_commit_is_no_failure_there(
    runs: list[bool], passed: bool, failures: int, flaky: bool
) -> None:
    (result,) = after(*(ran(a=how) for how in runs))
    assert (result.passed, result.failures, result.flaky) == (passed, failures, flaky)


@pytest.mark.parametrize(
    ("runs", "again", "left"),
    [
        ([], 0, (A, B, C)),
        ([ran(a=True, b=True, c=True)], 3, ()),
        ([ran(a=True, b=False, c=True)], 0, ()),
        ([ran(a=True, b=False, c=True)], 1, (A, B)),
        ([ran(a=True, b=False, c=True), ran(a=True, b=True)], 1, ()),
        ([ran(a=True, b=False, c=True), ran(a=True, b=False)], 1, ()),
        ([ran(a=True, b=False, c=True), ran(a=True, b=False)], 2, (A, B)),
        # It stopped at the first that failed: the others are still to be run.
        ([ran(a=False)], 1, (A, B, C)),
        ([ran(a=False), ran(a=True, b=False)], 1, (A, B, C)),
        ([ran(a=False), ran(a=False)], 1, ()),
        # One that is sure to have failed is enough.
        ([ran(a=False, b=True, c=False), ran(a=False, b=True, c=True)], 1, ()),
    ],
)
def test_what_failed_is_run_again_with_what_comes_before_it(
    runs: list[tuple[CheckResult, ...]], again: int, left: tuple[Check, ...]
) -> None:
    assert undecided((A, B, C), after(*runs), again) == left


def test_what_is_not_required_is_not_run_again() -> None:
    red = (CheckResult(command="a", passed=False, required=False),)
    assert undecided((A,), tally((), red), 5) == ()
