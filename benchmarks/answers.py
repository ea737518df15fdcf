"""What the floor itself costs where an order is one call: 10,000 of them, by an agent that answers at once."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import msgspec

from benchmarks.figures import Figure

ORDERS, FEW = 10_000, 100
BAR_CPU_MS, BAR_MB = 0.15, 80.0
_ROOT = Path(__file__).parent.parent
OWN = Path(__file__).with_name("_own.py")


def measured(number: int) -> dict[str, Any]:
    """One run in a process of its own. Raises RuntimeError when an order was lost, or its answer is not its own."""
    with tempfile.TemporaryDirectory() as folder:
        took = Path(folder, "took")
        words = [sys.executable, "-I", "-S", str(OWN), str(took), "0"]
        words += [sys.executable, "-m", "benchmarks._answers", folder, str(number)]
        done = subprocess.run(words, cwd=_ROOT, env=dict(os.environ), check=True, capture_output=True, text=True)
        _, peak_kb, code = took.read_text().split()
        if code != "0":
            raise RuntimeError(f"it ended with {code}: {done.stderr}")
        found: dict[str, Any] = msgspec.json.decode(done.stdout) | {"peak_mb": int(peak_kb) / 1000}
    if not found["ended"] == found["good"] == number:
        raise RuntimeError(f"of {number} orders {found['ended']} ended, {found['good']} of them well")
    return found


def run() -> list[Figure]:
    """CPU for each order, memory at the peak, and how many are durably done in a second."""
    few, many = measured(FEW), measured(ORDERS)
    each_ms = 1e3 * many["cpu_s"] / ORDERS
    more_ms = 1e3 * (many["cpu_s"] - few["cpu_s"]) / (ORDERS - FEW)
    return [
        Figure(name=f"CPU for each of {ORDERS:,} answers, all that was once included", value=each_ms, unit="ms",
               bar=f"≤ {BAR_CPU_MS:g} ms", ok=each_ms <= BAR_CPU_MS, ratio=BAR_CPU_MS / each_ms),
        Figure(name=f"CPU for each answer more (against {FEW})", value=more_ms, unit="ms"),
        Figure(name="memory at the peak", value=many["peak_mb"], unit="MB", bar=f"≤ {BAR_MB:g} MB",
               ok=many["peak_mb"] <= BAR_MB, baseline=few["peak_mb"], ratio=BAR_MB / many["peak_mb"]),
        Figure(name="answers a second, durable", value=ORDERS / many["wall_s"], unit="1/s"),
        Figure(name="log for each answer", value=1e6 * many["log_mb"] / ORDERS, unit="B"),
    ]  # fmt: skip
