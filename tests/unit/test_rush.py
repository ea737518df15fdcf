"""When more comes in than is brought up piece by piece."""

from __future__ import annotations

from shopfloor.stores.rush import CALM, RUSH, Rush


def test_a_rush_is_over_when_it_was_calm_for_a_while() -> None:
    rush, events = Rush(), 0
    assert not rush
    for _ in range(3):
        events += RUSH
        assert [rush.look(events) for _ in range(CALM + 1)] == [*[True] * CALM, False]
        assert not rush
    assert not rush.look(events + RUSH - 1)
