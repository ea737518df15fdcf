"""The lines on the console, in their order."""

from __future__ import annotations

import math
from collections.abc import Iterator

from shopfloor.faces.fanout.results import FanoutReport

MOST_LINES = 100
"""of progress: every tenth specification has one up to 1,000, then every so many more"""


def opening(specs: int, agents: int, *, queue: str = "") -> str:
    """The first line; ``queue`` names what is waited for where nobody knows how many there will be."""
    return (
        f"Processing specs of {queue} with {agents} agents"
        if queue
        else f"Processing {specs} specs with {agents} agents"
    )


def step(total: int) -> int:
    """After how many specifications there is a line of progress: 10, and a multiple of it for more than 1,000."""
    return 10 * max(1, math.ceil(total / (10 * MOST_LINES)))


def progress(done: int, total: int) -> str:
    """How far it is; empty where nothing is to be said."""
    return f"Progress: {done}/{total} completed" if done and done % step(total) == 0 else ""


def closing(report: FanoutReport) -> Iterator[str]:
    """What it came to."""
    yield f"Completed in {report.wall_s:.2f} seconds"
    yield f"Average: {report.avg_s:.3f} seconds per spec"
    yield f"Throughput: {report.throughput:.2f} specs/second"
    yield ""
    yield "=== Results ==="
    yield f"Successful: {report.successful}"
    yield f"Failed: {report.failed}"
    yield f"Success rate: {report.success_rate:.1f}%"
    yield f"Average latency per spec: {report.avg_total_ms:.2f}ms"
    yield from _beside(report)
    yield ""
    yield "=== Performance Comparison ==="
    yield f"Single-agent time: {report.latency_s:.2f} seconds"
    yield f"Multi-agent time: {report.wall_s:.2f} seconds"
    yield f"Speedup vs single-agent: {report.speed_up:.1f}x (parallelism)"
    each = report.throughput / report.agents if report.agents else 0.0
    yield f"Each agent: {each:.2f} specs/second"
    yield f"Total speedup: {report.speed_up:.1f}x (all latencies together, waiting inside agents included / wall time)"


def _beside(report: FanoutReport) -> Iterator[str]:
    """What the reader would otherwise miss; nothing when all went well."""
    if report.earlier:
        yield f"Finished earlier: {report.earlier} (not done again)"
    if report.moved:
        yield f"Moved: {report.moved} ended on another agent than the one they were meant for"
    if report.retried:
        yield f"Retried: {report.retried} needed more than one try"
    if report.waiting:
        yield f"Not done: {report.waiting}"
    if report.refused:
        yield f"Refused: {report.refused} from the queue that were no specifications (they are in work_queue:refused)"
    if report.held:
        yield f"  nothing more was started: {_one_line(report.held)}"
    for reason, count in list(report.errors.items())[:MOST_REASONS]:
        yield f"  {count} x {_one_line(reason)}"
    if len(report.errors) > MOST_REASONS:
        yield f"  and {len(report.errors) - MOST_REASONS} other reasons"


MOST_REASONS = 5
MOST_CHARS = 200


def _one_line(text: str) -> str:
    flat = " ".join(text.split())
    return flat if len(flat) <= MOST_CHARS else f"{flat[:MOST_CHARS]}…"
