"""A short slice of the campaign of many processes."""

import pytest

from campaigns import claims
from campaigns.outcome import Options


@pytest.mark.timeout(120)
def test_a_short_slice_of_the_claims_campaign() -> None:
    outcome = claims.run(Options(seed=7, size=0.01))
    assert [figure for figure in outcome.figures if figure.ok is False] == []
    acknowledged = {f.name: f.value for f in outcome.figures}
    assert acknowledged["by the socket: claims acknowledged"] >= claims.FEWEST_ORDERS
    assert acknowledged["directly: claims acknowledged"] >= claims.FEWEST_ORDERS / 2
