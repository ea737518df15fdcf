"""A short slice of the campaign of foreign programs: three of them beside a controller."""

import pytest

from campaigns.foreign import run
from campaigns.outcome import Options


@pytest.mark.timeout(60)
def test_three_programs_beside_a_controller_lose_and_double_nothing() -> None:
    figures = {figure.name: figure for figure in run(Options(seed=3, size=0.025)).figures}
    assert {name: figure.value for name, figure in figures.items() if figure.ok is False} == {}
    assert figures["orders appended by a peer"].value > 0
    assert figures["edits by peers"].value > 0
