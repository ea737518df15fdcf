"""Running targets: every input from a seed of its own, a limit of time and memory for each, findings made small."""

from __future__ import annotations

import resource
import signal
import time
import traceback
from collections.abc import Callable
from functools import partial
from random import Random

import msgspec

from campaigns.fuzz.mutate import Mutator
from campaigns.fuzz.target import Target

LIMIT_S = 1.0
"""Seconds of processor time for one input: a reader that takes more is broken."""
MEMORY_BYTES = 3 << 30
"""Address space of one process. Whoever wants more is told that there is none, and that is a finding."""
KEPT = 3
"""Findings of one target that are made small and told."""
SHRINK_S = 10.0


class TooSlow(BaseException):
    """An input took longer than the limit. No reader can catch it by accident."""


class Finding(msgspec.Struct, frozen=True, kw_only=True):
    """An input for which a promise does not hold."""

    target: str
    seed: int
    number: int
    error: str
    where: str
    data: str
    """the input made small, as Python writes bytes"""

    def told(self) -> str:
        """For people: what, where, and how to see it again."""
        again = f"python -m campaigns.fuzz {self.target} --seed {self.seed} --number {self.number}"
        return f"{self.target}: {self.error}\n  at {self.where}\n  input {self.data}\n  again: {again}"


class Tally(msgspec.Struct, kw_only=True):
    """What became of the inputs of one target."""

    target: str
    inputs: int = 0
    refused: int = 0
    failed: int = 0
    slowest_s: float = 0.0
    spent_s: float = 0.0
    findings: list[Finding] = msgspec.field(default_factory=list)


def limit_memory() -> None:
    """For this process and until its end."""
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY_BYTES, MEMORY_BYTES))


def make(target: Target, seed: int, number: int) -> bytes:
    """One input; the same for the same seed and number."""
    return target.make(Mutator(Random(f"{target.name}:{seed}:{number}")))


def attempt(target: Target, data: bytes, limit_s: float = LIMIT_S) -> tuple[str, Exception | TooSlow | None]:
    """Its answer, or what it raised."""
    try:
        signal.setitimer(signal.ITIMER_PROF, limit_s)
        try:
            return target.check(data), None
        finally:
            signal.setitimer(signal.ITIMER_PROF, 0)
    except (Exception, TooSlow) as problem:
        return "", problem


def run(
    target: Target,
    seed: int,
    numbers: range,
    *,
    report: Callable[[Finding], None] = lambda _: None,
    limit_s: float = LIMIT_S,
) -> Tally:
    """Try these inputs. The limit of time needs the main thread."""
    tally = Tally(target=target.name)
    before = signal.signal(signal.SIGPROF, _too_slow)
    seen: set[tuple[str, str]] = set()
    try:
        for number in numbers:
            data = make(target, seed, number)
            began = time.process_time()
            answer, problem = attempt(target, data, limit_s)
            took = time.process_time() - began
            tally.inputs += 1
            tally.refused += answer == "refused"
            tally.slowest_s = max(tally.slowest_s, took)
            tally.spent_s += took
            if problem is None:
                continue
            tally.failed += 1
            kind = (type(problem).__name__, _where(problem))
            if kind not in seen and len(seen) < KEPT:
                seen.add(kind)
                small = shrink(data, partial(_fails_alike, target, problem, limit_s))
                finding = _finding(target, seed, number, small, problem)
                tally.findings.append(finding)
                report(finding)
    finally:
        signal.signal(signal.SIGPROF, before)
    return tally


def _finding(target: Target, seed: int, number: int, small: bytes, problem: Exception | TooSlow) -> Finding:
    shown = repr(small) if len(small) <= 2000 else f"{small[:2000]!r}… ({len(small)} bytes)"
    error = f"{type(problem).__name__}: {problem}"[:1000]
    return Finding(target=target.name, seed=seed, number=number, error=error, where=_where(problem), data=shown)


def _fails_alike(target: Target, problem: Exception | TooSlow, limit_s: float, data: bytes) -> bool:
    found = attempt(target, data, limit_s)[1]
    return found is not None and (type(found), _where(found)) == (type(problem), _where(problem))


def shrink(data: bytes, fails: Callable[[bytes], bool]) -> bytes:
    """A smaller input that fails in the same way: pieces are left out as long as that helps, for a while."""
    limit = time.monotonic() + SHRINK_S
    size = max(1, len(data) // 2)
    while size and time.monotonic() < limit:
        start, smaller = 0, False
        while start < len(data) and time.monotonic() < limit:
            less = data[:start] + data[start + size :]
            if fails(less):
                data, smaller = less, True
            else:
                start += size
        size = size if smaller and size == 1 else size // 2
    return data


def _where(problem: BaseException) -> str:
    """The last place in our own code, without what the harness adds."""
    frames = traceback.extract_tb(problem.__traceback__)
    ours = [f for f in frames if "shopfloor/" in f.filename and "fuzz/engine" not in f.filename] or list(frames)
    if isinstance(problem, TooSlow):
        # Where the clock ran out is chance; the first step into the package is not.
        ours = [f for f in ours if "campaigns" not in f.filename][:1] or ours
    frame = ours[-1]
    return f"{'/'.join(frame.filename.rsplit('/', 3)[1:])}:{frame.lineno} in {frame.name}"


def _too_slow(_number: int, _frame: object) -> None:
    raise TooSlow("more processor time than one input may take")
