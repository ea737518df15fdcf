"""A slice of the fuzzing, and that it finds what is broken: a reader that raises, one that hangs, one that is wrong."""

from __future__ import annotations

import re
import subprocess
import sys

import pytest

from campaigns import fuzz
from campaigns.fuzz import engine
from campaigns.fuzz.mutate import Mutator
from campaigns.fuzz.target import READ, Check, Target, holds
from campaigns.fuzz.targets import TARGETS
from campaigns.outcome import Options
from campaigns.page import ROOT


@pytest.mark.timeout(180)
def test_a_slice_of_the_fuzzing_finds_nothing() -> None:
    outcome = fuzz.run(Options(seed=11, size=0.02))
    assert [figure for figure in outcome.figures if figure.ok is False] == []
    assert outcome.figures[0].value >= 20_000
    shown = " ".join(figure.name for figure in outcome.figures)
    assert all(f"inputs for {name} (" in shown for name in TARGETS)


def _make(m: Mutator) -> bytes:
    return m.data(b'{"a": "fine", "b": [1, 2, 3]}')


def _raises(data: bytes) -> str:
    if b"\xff" in data:
        raise KeyError("a reader that was not prepared")
    return READ


def _looks_back(data: bytes) -> str:
    # Doubles with every blank.
    return READ if re.fullmatch(r"(?:\s|\s\s)*x", " " * 60) is None else ""


def _wrong(data: bytes) -> str:
    holds(data.count(b"{") <= 1, "it reads as another", data)
    return READ


@pytest.mark.parametrize(
    ("check", "error", "needed"),
    [(_raises, "KeyError", b"\xff"), (_wrong, "AssertionError", b"{{")],
    ids=["raises", "wrong"],
)
def test_a_broken_reader_is_found_and_the_input_made_small(check: Check, error: str, needed: bytes) -> None:
    target = Target("broken", _make, check, 1)
    tally = engine.run(target, 1, range(2000))
    assert tally.failed > 0
    assert tally.inputs == 2000, "the rest goes on"
    (finding,) = tally.findings
    assert error in finding.error
    assert finding.data == repr(needed)
    answer, problem = engine.attempt(target, engine.make(target, 1, finding.number))
    assert (answer, type(problem).__name__) == ("", error), "the same number is the same input"


def test_a_reader_that_looks_back_for_ever_is_stopped() -> None:
    tally = engine.run(Target("slow", _make, _looks_back, 1), 1, range(2), limit_s=0.05)
    assert tally.failed == 2
    assert "TooSlow" in tally.findings[0].error


def test_an_input_is_shown_again() -> None:
    command = [sys.executable, "-m", "campaigns.fuzz", "decode", "--seed", "3", "--number", "7"]
    done = subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True)
    data, answer = done.stdout.splitlines()
    assert data == repr(engine.make(TARGETS["decode"], 3, 7))
    assert answer in ("read", "refused")
