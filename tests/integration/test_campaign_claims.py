"""A short slice of the campaign of many processes."""

import pytest

from campaigns import claims
from campaigns.outcome import Options


@pytest.mark.timeout(120)
def test_a_short_slice_of_the_claims_campaign() -> None:
    outcome = claims.run(Options(seed=7, size=0.01))
    assert [figure for figure in outcome.figures if figure.ok is False] == []
    found = {f.name: f.value for f in outcome.figures}
    for way in ("by the socket", "directly"):
        # Who is killed at the wrong moment does not live to hear what it got: that order was claimed all the same.
        unheard = found[f"{way}: claims whose session was killed before it heard"]
        assert found[f"{way}: claims acknowledged"] + unheard >= claims.FEWEST_ORDERS
        assert found[f"{way}: claims acknowledged"] >= claims.FEWEST_ORDERS / 2
