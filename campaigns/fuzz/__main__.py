"""One share of the inputs, or one input again: `python -m campaigns.fuzz [TARGET …] [--seed N] [--number N]`."""

from __future__ import annotations

import argparse
import sys
import traceback

import msgspec

from campaigns.fuzz import Share, engine, told
from campaigns.fuzz.target import Target
from campaigns.fuzz.targets import TARGETS


def main(words: list[str]) -> int:
    """Run a share and print its tally as JSON; with ``--number`` show one input and what becomes of it."""
    parser = argparse.ArgumentParser(prog="python -m campaigns.fuzz", description=__doc__)
    parser.add_argument("target", nargs="*", help=f"which (default: all of {', '.join(TARGETS)})")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--inputs", type=int, default=10_000, help="how many in all")
    parser.add_argument("--part", default="0/1", help="which share of them, e.g. 1/2")
    parser.add_argument("--number", type=int, help="try this one input again and show it")
    asked = parser.parse_args(words)
    if unknown := [name for name in asked.target if name not in TARGETS]:
        parser.error(f"there is no target {unknown[0]!r} (there are {', '.join(TARGETS)})")
    chosen = [TARGETS[name] for name in asked.target or TARGETS]
    if asked.number is not None:
        return again(chosen[0], asked.seed, asked.number)
    engine.limit_memory()
    part, of = map(int, asked.part.split("/"))
    whole = sum(target.share for target in chosen)
    tallies = []
    for target in chosen:
        count = -(-asked.inputs * target.share // whole)
        tally = engine.run(target, asked.seed, range(part, count, of), report=told)
        print(f"fuzz {asked.part}: {line(tally)}", file=sys.stderr, flush=True)
        tallies.append(tally)
    sys.stdout.buffer.write(msgspec.json.encode(Share(tallies=tallies)) + b"\n")
    return 0


def line(tally: engine.Tally) -> str:
    """A target in one line."""
    each_us = tally.spent_s / max(1, tally.inputs) * 1e6
    return (
        f"{tally.target}: {tally.inputs} inputs, {tally.refused} refused, {tally.failed} failed, "
        f"{each_us:.0f} µs each, slowest {tally.slowest_s * 1000:.0f} ms"
    )


def again(target: Target, seed: int, number: int) -> int:
    """Show one input and how it goes."""
    data = engine.make(target, seed, number)
    print(repr(data))
    try:
        print(target.check(data))
    except Exception:
        traceback.print_exc()
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
