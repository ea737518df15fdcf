"""The page of results: prose that people keep, and between two marks for each campaign what was measured last."""

from __future__ import annotations

import os
import platform
import re
import subprocess
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

from benchmarks.__main__ import line
from campaigns.outcome import Options, Outcome

ROOT = Path(__file__).resolve().parents[1]
PAGE = ROOT / "docs/reference/reliability.md"


def write(name: str, outcome: Outcome, options: Options, *, took_s: float, file: Path = PAGE) -> None:
    """Replace the section of one campaign. Raises ValueError when the page has no such section."""
    text = file.read_text()
    section = re.compile(rf"(<!-- {re.escape(name)} -->\n).*?(<!-- /{re.escape(name)} -->)", re.DOTALL)
    if not section.search(text):
        raise ValueError(
            f"{file.name} has no section {name!r}: add <!-- {name} --> and <!-- /{name} --> where it belongs"
        )
    body = "\n".join(_section(outcome, options, took_s))
    file.write_text(section.sub(lambda found: f"{found[1]}{body}\n{found[2]}", text))


def _section(outcome: Outcome, options: Options, took_s: float) -> Iterator[str]:
    yield f"Seed {options.seed}, size {options.size:g}, {took_s:,.0f} s, on {datetime.now(UTC):%Y-%m-%d}"
    yield f"at commit `{commit()}`, {machine()}."
    yield ""
    yield "| what | value | bar | baseline | ratio | |"
    yield "|---|---|---|---|---|---|"
    for figure in outcome.figures:
        yield "| " + " | ".join(_cell(text) for text in line(figure)) + " |"
    if outcome.untested:
        yield ""
        yield "Not tested:"
        yield ""
        yield from (f"- {sentence}" for sentence in outcome.untested)


def _cell(text: str) -> str:
    return text.replace("|", "\\|")


def commit() -> str:
    """What was tested, with `+` when it was not all committed."""
    git = ["git", "-C", str(ROOT)]
    head = subprocess.run([*git, "rev-parse", "--short=12", "HEAD"], capture_output=True, text=True, check=True)
    ours = [*git, "status", "--porcelain", "--", "src", "campaigns", "benchmarks"]
    dirty = subprocess.run(ours, capture_output=True, text=True, check=True)
    return head.stdout.strip() + ("+" if dirty.stdout.strip() else "")


def machine() -> str:
    """Cores, memory, system and interpreter."""
    memory_gib = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / (1 << 30)
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    system = f"{platform.system()} {platform.release().split('-')[0]}"
    return (
        f"{cores} cores, {memory_gib:.0f} GiB, {system}, {platform.python_implementation()} {platform.python_version()}"
    )
