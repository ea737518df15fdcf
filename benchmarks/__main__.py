"""Measure: `python -m benchmarks [name …] [--json]`.

Every module of this folder that has a `run()` takes part; it returns figures, as `Figure` or as a dict of its fields. A
bar that was missed says MISSED, and the exit code is 0 all the same: a slow machine is no failure.
"""

from __future__ import annotations

import argparse
import importlib
import pkgutil
import sys
from collections.abc import Callable, Iterator
from types import ModuleType
from typing import Any

import msgspec

import benchmarks
from benchmarks.figures import Figure


def modules(folder: ModuleType) -> dict[str, Callable[..., Any]]:
    """The `run` of each module of a package that has one, by the module's name."""
    found = {}
    for module in pkgutil.iter_modules(folder.__path__):
        if not module.name.startswith("_"):
            run = getattr(importlib.import_module(f"{folder.__name__}.{module.name}"), "run", None)
            if run is not None:
                found[module.name] = run
    return found


def figure(found: Figure | dict[str, Any]) -> Figure:
    """A figure as the table wants it; a bar may be a number, a missing `ok` follows from a ratio to it."""
    if isinstance(found, Figure):
        return found
    known = {name: found[name] for name in Figure.__struct_fields__ if found.get(name) is not None}
    bar = known.get("bar", "")
    if not isinstance(bar, str):
        known["bar"] = f"{bar:,g} {known.get('unit', '')}".rstrip()
        if "ratio" in known:
            known.setdefault("ok", known["ratio"] >= 1.0)
    return msgspec.convert(known, Figure)


def line(found: Figure) -> Iterator[str]:
    """The cells of one figure."""
    yield found.name
    yield _number(found.value, found.unit)
    yield found.bar
    yield "" if found.baseline is None else _number(found.baseline, found.unit)
    yield "" if found.ratio is None else f"{found.ratio:.2f}"
    yield {True: "ok", False: "MISSED", None: ""}[found.ok]


def _number(value: float, unit: str) -> str:
    """Four digits, or as many as a whole number has."""
    return f"{value:{',.0f' if abs(value) >= 1000 else '.4g'}} {unit}".rstrip()


def table(name: str, figures: list[Figure]) -> str:
    """The figures of one module as a table of plain text."""
    rows = [[name, "value", "bar", "baseline", "ratio", ""], *(list(line(f)) for f in figures)]
    widths = [max(len(row[n]) for row in rows) for n in range(len(rows[0]))]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
    return "\n".join([lines[0], "-" * max(map(len, lines)), *lines[1:], ""])


def main(words: list[str]) -> int:
    """Measure what is named, or all."""
    known = modules(benchmarks)
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description="Measure the figures to hold.")
    parser.add_argument("name", nargs="*", help=f"what to measure (default: all of {', '.join(known)})")
    parser.add_argument("--json", action="store_true", help="one JSON object instead of tables")
    asked = parser.parse_args(words)
    if unknown := [name for name in asked.name if name not in known]:
        parser.error(f"there is no benchmark {unknown[0]!r} (there are {', '.join(known)})")
    measured: dict[str, list[Figure]] = {}
    for name in asked.name or known:
        measured[name] = [figure(found) for found in known[name]()]
        if not asked.json:
            print(table(name, measured[name]), flush=True)
    if asked.json:
        print(msgspec.json.format(msgspec.json.encode(measured), indent=2).decode())
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
