"""What an earlier fan-out in the same folder has left."""

from __future__ import annotations

from pathlib import Path

import pytest

from shopfloor import NotFound, Shopfloor
from shopfloor.faces.fanout import earlier

from .answering import Scripted, flags, wish


@pytest.fixture(autouse=True)
def agent() -> type[Scripted]:
    return Scripted.fresh()


async def test_a_run_that_ended_because_no_agent_answers_is_not_over(tmp_path: Path) -> None:
    nothing = [{"failed": "connection refused"}] * 9
    async with Shopfloor.open(tmp_path, without_git=True, flags=flags()) as floor:
        ended = [outcome async for outcome in floor.outcomes(wish(f"s{n}", *nothing) for n in range(200))]
        assert "connection refused" in (await floor.report()).held["scripted-answers"]
        left = await earlier(floor)
    assert len(ended) < 200
    assert len(left.orders) == 200
    assert not left.over


async def test_one_that_is_over_is_found_when_its_results_are_wanted_again(tmp_path: Path) -> None:
    async with Shopfloor.open(tmp_path, without_git=True, flags=flags()) as floor:
        with pytest.raises(NotFound, match="there is no fan-out here"):
            await earlier(floor, also_over=True)
        assert len([outcome async for outcome in floor.outcomes(wish(f"s{n}") for n in range(20))]) == 20
        with pytest.raises(NotFound, match="there is no unfinished fan-out here"):
            await earlier(floor)
        found = await earlier(floor, also_over=True)
    assert found.over
    assert len(found.orders) == 20
