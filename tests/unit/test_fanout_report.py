import json
import math
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from shopfloor.domain.errors import UsageError
from shopfloor.faces.fanout import Finished, MemoryResults, Result, SqliteResults, lines, shown
from shopfloor.faces.fanout.results import FanoutReport, Tally, spread
from shopfloor.faces.fanout.stores import open_results


def finished(number: int, **changes: Any) -> Finished:
    known: dict[str, Any] = {
        "spec_id": f"s{number}", "success": True, "code": "x", "latency_ms": 2.0, "number": number, "run": "r",
        "agent_id": f"http://h:{number % 3}", "phases_ms": {"validate": 0.5, "generate": 1.0, "verify": 0.5},
    }  # fmt: skip
    return Finished(**(known | changes))


def report(results: list[Finished], wall_s: float = 10.0, **more: Any) -> FanoutReport:
    tally = Tally()
    for result in results:
        tally.add(result)
    return tally.report(agents=10, wall_s=wall_s, **more)


def test_the_keys_of_a_result_are_the_seeds_and_empty_ones_are_left_out() -> None:
    good = Result(spec_id="a", success=True, code=": a ;", tests=("t",), latency_ms=1.5)
    assert json.loads(msgspec.json.encode(good)) == {
        "spec_id": "a", "success": True, "code": ": a ;", "tests": ["t"], "latency_ms": 1.5,
    }  # fmt: skip
    bad = finished(1, success=False, code="", error="Stack effect mismatch").plain()
    assert json.loads(msgspec.json.encode(bad)) == {
        "spec_id": "s1", "success": False, "error": "Stack effect mismatch", "latency_ms": 2.0,
    }  # fmt: skip


def test_the_lines_come_in_their_order_with_their_formats() -> None:
    results = [finished(n, latency_ms=1000.0) for n in range(95)]
    results += [finished(n, success=False, error="100% odd", latency_ms=1000.0) for n in range(95, 100)]
    assert list(lines.closing(report(results, 10.5))) == [
        "Completed in 10.50 seconds",
        "Average: 0.105 seconds per spec",
        "Throughput: 9.52 specs/second",
        "",
        "=== Results ===",
        "Successful: 95",
        "Failed: 5",
        "Success rate: 95.0%",
        "Average latency per spec: 1000.00ms",
        "  5 x 100% odd",
        "",
        "=== Performance Comparison ===",
        "Single-agent time: 100.00 seconds",
        "Multi-agent time: 10.50 seconds",
        "Speedup vs single-agent: 9.5x (parallelism)",
        "Each agent: 0.95 specs/second",
        "Total speedup: 9.5x (all latencies together, waiting inside agents included / wall time)",
    ]


@pytest.mark.parametrize("results", [[], [finished(1, success=False, error="no")]])
def test_of_nothing_come_zeros(results: list[Finished]) -> None:
    for wall_s in (0.0, 1.0):
        found = report(results, wall_s)
        assert found.success_rate == found.avg_total_ms == 0.0
        text = "\n".join(lines.closing(found)) + msgspec.json.encode(found).decode()
        assert "nan" not in text.lower()
        assert "inf" not in text.lower()


def test_what_an_earlier_session_finished_is_counted_but_not_in_the_rates() -> None:
    tally = Tally()
    tally.add(finished(0), earlier=True)
    tally.add(finished(1))
    found = tally.report(agents=1, wall_s=2.0, waiting=3)
    assert (found.total_runs, found.earlier, found.waiting, found.throughput) == (2, 1, 3, 0.5)
    assert "Finished earlier: 1 (not done again)" in lines.closing(found)


@given(st.lists(st.floats(0, 1e6), min_size=1))
def test_percentiles_are_values_that_were_measured(values: list[float]) -> None:
    found = spread(values)
    assert found.p50 in values
    assert found.p95 in values
    assert sum(v <= found.p95 for v in values) >= 0.95 * len(values) - 1e-9
    assert math.isclose(found.avg, sum(values) / len(values), abs_tol=1e-6)


@pytest.mark.parametrize("total", [0, 1, 9, 10, 100, 105, 1000, 1001, 9999, 10_000, 123_456])
def test_progress_is_told_every_tenth_and_never_in_more_than_a_hundred_lines(total: int) -> None:
    told = [text for done in range(total + 1) if (text := lines.progress(done, total))]
    assert len(told) <= 100
    if 10 <= total <= 1000:
        assert told == [f"Progress: {n}/{total} completed" for n in range(10, total + 1, 10)]


@pytest.mark.parametrize(
    ("url", "path"), [("sqlite:a.db", "a.db"), ("sqlite:///a.db", "a.db"), ("sqlite:////t/a.db", "/t/a.db")]
)
def test_addresses_of_files(url: str, path: str) -> None:
    store = open_results(url)
    assert isinstance(store, SqliteResults)
    assert str(store.path) == path
    assert isinstance(open_results(None), MemoryResults)


@pytest.mark.parametrize("url", ["mysql://x", "sqlite:", "sqlite://host/a.db", "results.db", ""])
def test_other_addresses_are_refused(url: str) -> None:
    with pytest.raises(UsageError, match="no place for results"):
        open_results(url)


def test_a_password_is_not_shown() -> None:
    assert shown("postgresql://ada:geheim@h:5/d") == "postgresql://ada:***@h:5/d"
    assert shown("redis://:geheim@h/0") == "redis://:***@h/0"
    assert shown("redis://h/0") == "redis://h/0"
