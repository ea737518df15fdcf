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
