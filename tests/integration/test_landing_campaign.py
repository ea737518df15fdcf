"""A short slice of the landing campaign: its counts, not its times."""

import pytest

from campaigns.landing import run
from campaigns.outcome import Options

TIMES = ("landings an hour", "a landing beyond the checks")


@pytest.mark.timeout(120)
def test_a_slice_of_the_landing_campaign_keeps_every_promise() -> None:
    found = {figure.name: figure for figure in run(Options(seed=7, size=0.04)).figures}
    assert [f for f in found.values() if f.ok is False and not f.name.startswith(TIMES)] == []
    assert found["landed"].value > 0
