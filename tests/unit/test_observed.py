"""What agents were seen to do: the file that comes with the package, and what it says about the one that is here."""

import msgspec
import pytest

from shopfloor.agents.observed import NAMES, Observed, names, read_observed, written
from shopfloor.app.crew import judged
from shopfloor.ports import Capabilities, Probe

ROW = Observed(
    driver="acp", preset="x", program="x-acp", version="1.2.3", date="2026-01-31", capabilities=("resume", "mcp")
)


def test_rows_are_written_and_read_in_order() -> None:
    other = Observed(driver="acp", preset="a", program='"a"', version="1", date="2026-01-01")
    text = written([ROW, other])
    assert read_observed(text) == [other, ROW]
    assert written(read_observed(text)) == text


def test_the_file_of_the_package_is_whole() -> None:
    rows = read_observed()
    assert len({(row.driver, row.preset, row.program, row.version) for row in rows}) == len(rows)
    for row in rows:
        assert set(row.capabilities) <= set(NAMES)


@pytest.mark.parametrize(
    ("found", "here", "claimed", "state"),
    [
        (False, "", Capabilities(), "not here"),
        (True, "1.2.3", Capabilities(resume=True), "as seen"),
        (True, "", Capabilities(resume=True, mcp=True), "as seen"),
        (True, "1.2.4", Capabilities(resume=True), "another version"),
        (True, "1.2.3", Capabilities(resume=True, cost=True), "claims more"),
    ],
)
def test_an_observation_is_held_against_what_is_here(
    *, found: bool, here: str, claimed: Capabilities, state: str
) -> None:
    assert judged(ROW, Probe(found=found, capabilities=claimed), here) == state


@pytest.mark.parametrize(
    ("program", "found", "claimed", "state"),
    [
        ("", False, Capabilities(), "yours to name"),
        ("tool", False, Capabilities(), "not here"),
        ("tool", True, Capabilities(resume=True), "as its stand-in"),
        ("tool", True, Capabilities(cost=True), "claims more"),
    ],
)
def test_what_was_seen_of_a_stand_in_is_told_as_that(
    *, program: str, found: bool, claimed: Capabilities, state: str
) -> None:
    row = msgspec.structs.replace(ROW, preset="", program=program, stand_in="something like it")
    assert judged(row, Probe(found=found, capabilities=claimed), "") == state


def test_claims_have_names() -> None:
    assert names(Capabilities(tokens=True, resume=True)) == ("resume", "tokens")
