"""Back-offs: deterministic, growing, spread, never above the cap; and what is left of one after a restart."""

from hypothesis import given
from hypothesis import strategies as st

from shopfloor.domain.policy import Policy, backoff, remaining

POLICY = Policy(backoff_s=2.0, backoff_cap_s=100.0, jitter=0.25)
SECONDS = st.floats(0.0, 1e9)


@given(st.text(max_size=8), st.integers(0, 100_000), st.floats(0, 3), st.floats(0, 1e4), st.floats(0, 1e4))
def test_a_back_off_is_never_negative_and_never_above_its_cap(
    order: str, failures: int, jitter: float, base: float, cap: float
) -> None:
    policy = Policy(backoff_s=base, backoff_cap_s=cap, jitter=jitter)
    delay = backoff(policy, order, failures)
    assert 0.0 <= delay <= cap * (1 + 1e-9)
    assert delay == backoff(policy, order, failures)


def test_it_doubles_within_its_spread() -> None:
    for failures, plain in [(0, 2.0), (1, 2.0), (2, 4.0), (3, 8.0), (5, 32.0), (50, 80.0)]:
        assert 0.75 * plain <= backoff(POLICY, "wo-a", failures) <= 1.25 * plain


def test_a_crowd_that_failed_together_does_not_come_back_together() -> None:
    for failures in (1, 60):
        delays = {backoff(POLICY, f"wo-{n}", failures) for n in range(100)}
        assert len(delays) == 100
        assert max(delays) > 1.4 * min(delays)


def test_without_jitter_it_is_the_plain_number() -> None:
    policy = Policy(backoff_s=1.0, backoff_cap_s=5.0, jitter=0.0)
    assert [backoff(policy, "x", n) for n in (1, 2, 3, 4, 5)] == [1.0, 2.0, 4.0, 5.0, 5.0]


@given(SECONDS, SECONDS, SECONDS)
def test_the_wall_clock_never_lengthens_what_is_left(delay: float, since: float, now: float) -> None:
    assert 0.0 <= remaining(delay, since, now) <= delay


def test_what_is_left() -> None:
    assert remaining(10.0, 100.0, 104.0) == 6.0
    assert remaining(10.0, 100.0, 200.0) == 0.0
    assert remaining(10.0, 100.0, 40.0) == 10.0
