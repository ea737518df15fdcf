"""What the checks found, and whom it blames."""

import pytest

from shopfloor.domain.verdict import Check, CheckResult, Decision, Verdict, decide, how_it_ended, required_checks


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
