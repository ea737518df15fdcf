"""``shopfloor demo``: the whole main job on a project made on the spot, in under a minute, without any model."""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import NamedTuple

import click

from shopfloor import Report, Shopfloor
from shopfloor.cli.edge import Edge, verb
from shopfloor.cli.run import perform
from shopfloor.config import environment
from shopfloor.demo import muscle, orders, sample
from shopfloor.domain.errors import Refused


class Show(NamedTuple):
    """One demonstration: what is to be done, with which settings, what must come of it, and who does it."""

    prompts: Mapping[str, str]
    flags: Mapping[str, object]
    expected: Mapping[str, Collection[str]]
    who: str


def scripted() -> Show:
    """With agents that need nothing."""
    who = (
        "The agents are scripted: a real program that follows the script in its prompt. No model, no network, no cost."
    )
    return Show(orders.prompts(), sample.FLAGS, orders.EXPECTED, who)


def with_muscle() -> Show:
    """With our own worker. Raises Refused where its libraries are not installed."""
    muscle.require()
    who = (
        "The agents are the built-in worker (shopfloor muscle). It speaks with its model through the gateway, which "
        "answers\nfrom a cassette: no key, no network, no cost."
    )
    flags = {**muscle.FLAGS, "replay": str(muscle.CASSETTE)}
    return Show(muscle.prompts(), flags, muscle.EXPECTED, who)


SHOWS = {"scripted": scripted, "muscle": with_muscle}


@verb(example="shopfloor demo --agent muscle")
@click.argument("folder", required=False, type=click.Path(path_type=Path))
@click.option("--agent", type=click.Choice(tuple(SHOWS)), default="scripted", help="Who works; default: scripted.")
@click.option("--plain", is_flag=True, help="One line for each event, also in a terminal.")
def demo(edge: Edge, *, folder: Path | None, agent: str, plain: bool) -> int:
    """Make a small project in FOLDER (default: a new temporary one) and let a crew work on it, without any model.

    The agents are scripted, or (--agent muscle) the built-in worker with the recorded answers of a model.
    """
    show = SHOWS[agent]()
    place = folder or Path(tempfile.mkdtemp(prefix="shopfloor-demo-"))
    if place.exists() and any(place.iterdir()):
        raise Refused(f"folder {str(place)!r} is not empty", hint="name a new one, or none")
    root = sample.make(place, show.prompts, environment())
    _say(edge, f"A project with failing tests and {len(show.prompts)} orders, made in {root}\n{show.who}\n")
    floor = Shopfloor.open(root, flags=show.flags)
    files = [root / "prompts" / f"{name}.md" for name in show.prompts]
    perform(edge, floor, lambda: floor.run(files), plain=plain)
    report = asyncio.run(_report(root))
    surprises = [
        f"{row.name}: {row.outcome}" for row in report.orders if row.name not in show.expected.get(row.outcome, ())
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
