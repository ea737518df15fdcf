"""How many agents the machine bears."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shopfloor.domain.admission import SETTLES_S, Limits, Load, admit

LIMITS = Limits(memory_high=0.9, memory_low=0.8, cpu_high=4.0, cpu_low=3.0)


@pytest.mark.parametrize(
    ("limit", "memory", "cpu", "expected"),
    [
        (8, 0.95, 0.0, (1, "memory 95% used")),
        (8, 0.5, 5.0, (4, "load 5.0 per core")),
        (1, 0.95, 5.0, (1, "")),
        (1, 0.5, 9.0, (1, "")),
        (8, 0.85, 0.0, (8, "")),
        (8, 0.5, 3.5, (8, "")),
        (2, 0.5, 1.0, (4, "memory 50% used, load 1.0 per core")),
        (6, 0.5, 1.0, (10, "memory 50% used, load 1.0 per core")),
        (10, 0.5, 1.0, (10, "")),
    ],
)
def test_admit(limit: int, memory: float, cpu: float, expected: tuple[int, str]) -> None:
    assert admit(limit, 10, Load(memory_used=memory, cpu_per_core=cpu), LIMITS) == expected


def test_a_load_that_speaks_of_agents_that_ended_since_lowers_nothing_again() -> None:
    busy = Load(memory_used=0.5, cpu_per_core=9.0)
    assert admit(8, 10, busy, LIMITS, lowered_s=SETTLES_S - 1) == (8, "")
    assert admit(8, 10, busy, LIMITS, lowered_s=SETTLES_S) == (4, "load 9.0 per core")
    assert admit(8, 10, Load(memory_used=0.95), LIMITS, lowered_s=1.0) == (1, "memory 95% used")


@given(st.integers(1, 50), st.integers(1, 50), st.floats(0, 1), st.floats(0, 99))
def test_there_is_always_room_for_one_and_never_for_more_than_wanted(
    limit: int, most: int, memory: float, cpu: float
) -> None:
    new, why = admit(min(limit, most), most, Load(memory_used=memory, cpu_per_core=cpu), LIMITS)
    assert 1 <= new <= most
    assert bool(why) == (new != min(limit, most))
