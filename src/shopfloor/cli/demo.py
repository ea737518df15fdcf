"""``shopfloor demo``: the whole main job on a project made on the spot, in under a minute, without any model."""

from __future__ import annotations

import asyncio
import tempfile
from pathlib import Path

import click

from shopfloor import Report, Shopfloor
from shopfloor.cli.edge import Edge, verb
from shopfloor.cli.run import perform
from shopfloor.config import environment
from shopfloor.demo import orders, sample
from shopfloor.domain.errors import Refused

WHO = "The agents are scripted: a real program that follows the script in its prompt. No model, no network, no cost."


@verb(example="shopfloor demo")
@click.argument("folder", required=False, type=click.Path(path_type=Path))
@click.option("--plain", is_flag=True, help="One line for each event, also in a terminal.")
def demo(edge: Edge, *, folder: Path | None, plain: bool) -> int:
    """Make a small project in FOLDER (default: a new temporary one) and let a crew of scripted agents work on it."""
    place = folder or Path(tempfile.mkdtemp(prefix="shopfloor-demo-"))
    if place.exists() and any(place.iterdir()):
        raise Refused(f"folder {str(place)!r} is not empty", hint="name a new one, or none")
    prompts = orders.prompts()
    root = sample.make(place, prompts, environment())
    _say(edge, f"A project with failing tests and {len(prompts)} orders, made in {root}\n{WHO}\n")
    floor = Shopfloor.open(root, flags=sample.FLAGS)
    files = [root / "prompts" / f"{name}.md" for name in prompts]
    perform(edge, floor, lambda: floor.run(files), plain=plain)
    report = asyncio.run(_report(root))
    surprises = [
        f"{row.name}: {row.outcome}" for row in report.orders if row.name not in orders.EXPECTED.get(row.outcome, ())
    ]
    red = sample.test(root, environment())
    _say(edge, f"\nThe project's own tests, run in the checkout: {'red' if red else 'pass'}")
    _say(edge, f"Look around: cd {root} && shopfloor status && shopfloor show hangs && git log --graph --oneline")
    if surprises or red:
        _say(edge, f"This is not what should have come out: {', '.join(surprises)} {red}".rstrip())
        return 1
    return 0


def _say(edge: Edge, text: str) -> None:
    if not edge.json:
        edge.put(text)


async def _report(root: Path) -> Report:
    async with Shopfloor.open(root) as floor:
        return await floor.report()
