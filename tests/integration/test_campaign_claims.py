"""A short slice of the campaign of many processes."""

import pytest

from campaigns import claims
from campaigns.outcome import Options


@pytest.mark.timeout(120)
def test_a_short_slice_of_the_claims_campaign() -> None:
    outcome = claims.run(Options(seed=7, size=0.01))
    assert [figure for figure in outcome.figures if figure.ok is False] == []
    found = {f.name: f for f in outcome.figures}
    for way in ("by the socket", "directly"):
        killed = found[f"{way}: sessions, of them killed"].baseline
        unheard = found[f"{way}: claims whose session was killed before it heard"].value
        acknowledged = found[f"{way}: claims acknowledged"].value
        assert killed == 1
        assert acknowledged + unheard >= claims.FEWEST_ORDERS
        assert unheard <= max(claims.LIMITS), "who is killed does not live to hear of its last call, and of no other"
