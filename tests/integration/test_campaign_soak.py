"""A short slice of the campaign of crews that crash."""

import pytest

from campaigns import soak
from campaigns.outcome import Options


@pytest.mark.timeout(150)
def test_a_short_slice_of_the_soak_campaign() -> None:
    outcome = soak.run(Options(seed=7, size=0.001))
    assert [figure for figure in outcome.figures if figure.ok is False] == []
    assert {f.name: f.value for f in outcome.figures}["tasks made, of them completed"] > 0
