"""Results, and what many of them come to. Every number is measured; of nothing come zeros."""

from __future__ import annotations

import math
from array import array
from collections import Counter
from collections.abc import Sequence

import msgspec

PHASES = {"validation": "validate", "generation": "generate", "verification": "verify"}
"""Phases as reports have them, and the step of each."""
TIMES = {step: f"{step}_ms" for step in PHASES.values()}
"""Steps, and the key under which an agent's answer says how long each took."""


class Result(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What came of one specification; in JSON ``code``, ``tests`` and ``error`` are left out when empty."""

    spec_id: str
    success: bool
    code: str = ""
    tests: tuple[str, ...] = ()
    error: str = ""
    latency_ms: float
    """wall time of its three requests, without waiting for a free agent"""


class Finished(Result, frozen=True, kw_only=True, omit_defaults=True):
    """A result, and where it came from."""

    number: int | None = None
    """of the specification in its run, from 0; None: it belongs to none"""
    run: str | None = None
    agent_id: str = ""
    """the address of the agent on which it ended; empty: none ever had it"""
    attempt: int = 1
    """which try it came from"""
    moved: bool = False
    """it ended on another agent than the one it was meant for"""
    phases_ms: dict[str, float] = msgspec.field(default_factory=dict)
    """milliseconds by step: validate, generate, verify"""

    def plain(self) -> Result:
        """The result alone."""
        return Result(**{name: getattr(self, name) for name in Result.__struct_fields__})


class Spread(msgspec.Struct, frozen=True, kw_only=True):
    """Milliseconds."""

    avg: float = 0.0
    p50: float = 0.0
    p95: float = 0.0


def spread(values: Sequence[float]) -> Spread:
    """Mean and percentiles (the smallest value that so many percent do not exceed); zeros of nothing."""
    if not values:
        return Spread()
    ordered = sorted(values)
    return Spread(avg=math.fsum(ordered) / len(ordered), p50=_rank(ordered, 0.50), p95=_rank(ordered, 0.95))


def _rank(ordered: Sequence[float], share: float) -> float:
    return ordered[max(0, math.ceil(share * len(ordered)) - 1)]


class FanoutReport(msgspec.Struct, frozen=True, kw_only=True):
    """What a fan-out came to. Seconds and milliseconds; rates in percent."""

    total_runs: int
    successful: int
    failed: int
    success_rate: float
    agents: int
    wall_s: float
    """this session's, from the first specification that is given to an agent to the last result; what an earlier
    session had finished is not in the rates below"""
    throughput: float
    """specifications a second"""
    avg_s: float
    """wall seconds for each specification"""
    latency_s: float
    """the latencies of all added up: what one agent would have taken for the same, one after the other, if no request
    had to wait inside its agent for others (as with one thread and more than one ``in_flight``)"""
    speed_up: float
    """``latency_s / wall_s``"""
    avg_validation_ms: float
    avg_generation_ms: float
    avg_verification_ms: float
    avg_total_ms: float
    """of the successful ones, as in the console line"""
    p50_total_ms: float
    p95_total_ms: float
    phases: dict[str, Spread]
    per_agent: dict[str, int]
    """how many ended on each address"""
    errors: dict[str, int]
    """how often each reason was given"""
    moved: int
    """specifications that ended on another agent than the one they were meant for"""
    retried: int
    """specifications that needed more than one try"""
    earlier: int
    """finished before this session began, and not done again"""
    waiting: int
    """not finished: the run was stopped, or nothing more was started"""
    held: str = ""
    """why nothing more was started"""
    refused: int = 0
    """what the queue had that was no specification; it is in the list ``work_queue:refused``"""
    results: tuple[Finished, ...] = ()


class Tally:
    """Counts results as they come, in a few numbers each."""

    def __init__(self) -> None:
        self.successful = 0
        self.failed = 0
        self.earlier = 0
        self.moved = 0
        self.retried = 0
        self._now_ms = array("d")
        self._good_ms = array("d")
        self._phases = {name: array("d") for name in PHASES}
        self._per_agent: Counter[str] = Counter()
        self._errors: Counter[str] = Counter()

    @property
    def done(self) -> int:
        """How many there are."""
        return self.successful + self.failed

    def add(self, result: Finished, *, earlier: bool = False) -> None:
        """Count one; ``earlier`` ones were finished before this session."""
        if result.success:
            self.successful += 1
            self._good_ms.append(result.latency_ms)
        else:
            self.failed += 1
            self._errors[result.error] += 1
        if earlier:
            self.earlier += 1
        else:
            self._now_ms.append(result.latency_ms)
        self.moved += result.moved
        self.retried += result.attempt > 1
        if result.agent_id:
            self._per_agent[result.agent_id] += 1
        for name, step in PHASES.items():
            if step in result.phases_ms:
                self._phases[name].append(result.phases_ms[step])

    def report(self, *, agents: int, wall_s: float, waiting: int = 0, results: Sequence[Finished] = ()) -> FanoutReport:
        """What they come to after ``wall_s`` seconds."""
        phases = {name: spread(values) for name, values in self._phases.items()}
        good, latency_s, now = spread(self._good_ms), math.fsum(self._now_ms) / 1000, len(self._now_ms)
        return FanoutReport(
            total_runs=self.done, successful=self.successful, failed=self.failed,
            success_rate=_share(100.0 * self.successful, self.done), agents=agents, wall_s=wall_s,
            throughput=_share(now, wall_s), avg_s=_share(wall_s, now), latency_s=latency_s,
            speed_up=_share(latency_s, wall_s), avg_validation_ms=phases["validation"].avg,
            avg_generation_ms=phases["generation"].avg, avg_verification_ms=phases["verification"].avg,
            avg_total_ms=good.avg, p50_total_ms=good.p50, p95_total_ms=good.p95, phases=phases,
            per_agent=dict(sorted(self._per_agent.items())), errors=dict(self._errors.most_common()), moved=self.moved,
            retried=self.retried, earlier=self.earlier, waiting=waiting, results=tuple(results),
        )  # fmt: skip


def _share(part: float, whole: float) -> float:
    return part / whole if whole > 0 else 0.0
