"""A short slice of the campaign: everything that it counts must be right; what it times is not looked at."""

from __future__ import annotations

import pytest

from campaigns import scale
from campaigns._many_agents import chains, diamonds, fans
from campaigns.outcome import Options


@pytest.mark.timeout(150)
def test_a_short_slice_of_it_holds() -> None:
    outcome = scale.run(Options(size=0.004))
    assert [figure for figure in outcome.figures if figure.ok is False] == []
    held = {figure.name for figure in outcome.figures if figure.ok}
    for promise in ("did not land", "not done", "spawned", "differs", "claimed twice", "commands that failed"):
        assert any(promise in name for name in held), f"nothing was found out about {promise!r}"
    assert outcome.untested


def test_its_orders_wait_for_each_other_in_no_circle() -> None:
    for shape in (chains, diamonds, fans):
        wishes = shape(30)
        names = [wish.name for wish in wishes]
        assert len(set(names)) == 30
        for place, wish in enumerate(wishes):
            assert set(wish.needs) <= set(names[:place])
