"""What the checks found, and which of them may blame an order."""

from __future__ import annotations

from enum import StrEnum

import msgspec


class Decision(StrEnum):
    """``unsure``: the checks could not tell (the check itself could not run, or it is red on the base too)."""

    PASS = "pass"
    FAIL = "fail"
    UNSURE = "unsure"


class Check(msgspec.Struct, frozen=True, kw_only=True):
    """One command to run in a clean checkout. ``own``: named by the order, so it must pass whatever the base does."""

    command: str
    own: bool = False
    passed_on_base: bool = True


class CheckResult(msgspec.Struct, frozen=True, kw_only=True):
    """One check that ran: exit code (None: ended by a signal or the time limit), seconds, where its log lies."""

    command: str
    passed: bool
    exit_code: int | None = None
    duration_s: float = 0.0
    timed_out: bool = False
    required: bool = True
    """False: it was red on the base before, so it cannot blame this order"""
    log: str = ""
    """path of the full log"""
    digest: str = ""
    """SHA-256 of that log"""
    tail: str = ""
    """the last lines, for people and for the agent that gets it back"""
    base_passed: bool | None = None
    """how the rerun on the base went; None when it was not rerun"""
    failures: int = 0
    """how often it failed on this commit, all its runs there together"""

    @property
    def flaky(self) -> bool:
        """True when it failed and passed on the same commit: it blames nobody."""
        return self.passed and self.failures > 0


class Verdict(msgspec.Struct, frozen=True, kw_only=True):
    """The evidence for one commit on one base."""

    decision: Decision
    commit: str
    tree: str
    base: str
    results: tuple[CheckResult, ...] = ()
    problem: str = ""
    """why no check could run at all (setup failed, no checkout), if so"""

    @property
    def findings(self) -> str:
        """What an agent or a person should read: each required check that failed, with the end of its log."""
        if self.problem:
            return self.problem
        failed = [r for r in self.results if r.required and not r.passed]
        return "\n\n".join(f"check failed: {r.command}\n{how_it_ended(r)}\n{r.tail}".rstrip() for r in failed)


def tally(before: tuple[CheckResult, ...], now: tuple[CheckResult, ...]) -> tuple[CheckResult, ...]:
    """What is known of a commit after one more run of its checks there: what has passed once stays passed."""
    known = {r.command: r for r in before}
    for result in now:
        old = known.get(result.command)
        failures = (old.failures if old else 0) + (not result.passed)
        newest = old if old is not None and old.passed and not result.passed else result
        known[result.command] = msgspec.structs.replace(newest, failures=failures)
    return tuple(known.values())


def undecided(checks: tuple[Check, ...], results: tuple[CheckResult, ...], again: int) -> tuple[Check, ...]:
    """The checks to run once more on the same commit before it is judged; empty when nothing more can be learnt.

    A required check counts as failed after it failed ``again`` times more, and then nothing else matters. What comes
    before an open check is run with it: the checks of one commit share a checkout.
    """
    known = {r.command: r for r in results}
    red = [r for r in results if r.required and not r.passed]
    if any(r.failures > again for r in red):
        return ()
    waiting = {r.command for r in red}
    last = max((n for n, c in enumerate(checks, 1) if c.command not in known or c.command in waiting), default=0)
    return checks[:last]


def how_it_ended(result: CheckResult) -> str:
    """``exit 1``, ``time limit after 30 s`` or ``ended by a signal``."""
    if result.timed_out:
        return f"time limit after {result.duration_s:.0f} s"
    return "ended by a signal" if result.exit_code is None else f"exit {result.exit_code}"


def decide(results: tuple[CheckResult, ...]) -> Decision:
    """Pass when every required check passed; one that failed but is red on the base too tells nothing of the order."""
    required = [r for r in results if r.required]
    failed = [r for r in required if not r.passed]
    if not failed:
        return Decision.PASS
    return Decision.UNSURE if all(r.base_passed is False for r in failed) else Decision.FAIL


def required_checks(
    own: tuple[str, ...], project: tuple[str, ...], passed_on_base: frozenset[str]
) -> tuple[Check, ...]:
    """The checks that decide over an order: its own always, the project's where they passed on the base.

    A project check that is red on the base still runs (it may have become green) but cannot blame the order.
    """
    mine = [Check(command=c, own=True) for c in dict.fromkeys(own)]
    others = (c for c in dict.fromkeys(project) if c not in own)
    rest = [Check(command=c, passed_on_base=c in passed_on_base) for c in others]
    return (*mine, *rest)
