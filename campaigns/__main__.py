"""Try to break it: `python -m campaigns [name …] [--seed N] [--size F] [--write]`.

Every module of this folder that has a `run(options)` is a campaign. The exit code is 1 when a promise did not hold.
`--write` puts what was found into the page of results, one section for each campaign.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable

import campaigns
from benchmarks.__main__ import modules, table
from campaigns import page
from campaigns.outcome import Options, Outcome


def main(words: list[str]) -> int:
    """Run what is named, or all."""
    known: dict[str, Callable[[Options], Outcome]] = modules(campaigns)
    parser = argparse.ArgumentParser(prog="python -m campaigns", description="Try to break the promises.")
    parser.add_argument("name", nargs="*", help=f"which campaign (default: all of {', '.join(known)})")
    parser.add_argument("--seed", type=int, default=1, help="where the random choices start (default: 1)")
    parser.add_argument("--size", type=float, default=1.0, help="part of the whole to run, e.g. 0.02 (default: 1)")
    parser.add_argument("--write", action="store_true", help=f"write the results to {page.PAGE.name}")
    asked = parser.parse_args(words)
    if unknown := [name for name in asked.name if name not in known]:
        parser.error(f"there is no campaign {unknown[0]!r} (there are {', '.join(known)})")
    options = Options(seed=asked.seed, size=asked.size)
    broken = False
    for name in asked.name or known:
        began = time.monotonic()
        outcome = known[name](options)
        print(table(name, outcome.figures), flush=True)
        broken |= any(figure.ok is False for figure in outcome.figures)
        if asked.write:
            page.write(name, outcome, options, took_s=time.monotonic() - began)
    return int(broken)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
