"""A short slice of the campaign of many specifications."""

import pytest

from campaigns import fanout
from campaigns.outcome import Options


@pytest.mark.timeout(120)
def test_a_short_slice_of_the_fanout_campaign() -> None:
    outcome = fanout.run(Options(seed=3, size=0.02))
    assert [figure for figure in outcome.figures if figure.ok is False] == []
    found = {figure.name: figure.value for figure in outcome.figures}
    assert found["specifications"] == 2 * 200
    assert found["dispatchers killed with -9"] >= 1
