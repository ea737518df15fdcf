"""``plan``: what a run would do; it starts and writes nothing."""

from __future__ import annotations

from typing import Any

import click
import msgspec

from shopfloor import Shopfloor
from shopfloor.app import PlanView
from shopfloor.cli.edge import Edge, verb
from shopfloor.cli.options import Wanted, open_floor, prompts, work_options
from shopfloor.cli.words import clean, count, table


@verb(example="shopfloor plan prompts/*.md --agent 'claude -p' --check 'make test'")
@click.argument("files", nargs=-1, required=True, metavar="PROMPTS…")
@work_options
def plan(edge: Edge, *, files: tuple[str, ...], **options: Any) -> None:
    """Say what a run of these prompts would do. Starts and writes nothing."""
    floor = open_floor(edge, Wanted(**options))
    view = edge.perform(_look(floor, files))
    if edge.json:
        edge.put_json(msgspec.to_builtins(view))
    else:
        edge.put("\n".join(render(view, floor)))


async def _look(floor: Shopfloor, files: tuple[str, ...]) -> PlanView:
    async with floor:
        return await floor.plan(prompts(files))


def render(view: PlanView, floor: Shopfloor) -> list[str]:
    """The plan as lines."""
    names = [name for wave in view.waves for name in wave]
    target = floor.settings.target or floor.repository.branch
    land = {"auto": "lands on", "review": "lands, once accepted, on", "off": "is based on, and does not land on,"}
    first = f"{count(len(names), 'order')} in {count(len(view.waves), 'wave')}"
    lines = [f"{first}, at most {view.max_parallel} side by side; verified work {land[floor.settings.land]} {target}"]
    for number, wave in enumerate(view.waves, 1):
        lines += ["", f"wave {number}"]
        rows = [(clean(name), view.agents.get(name, "") or "no agent", _after(view, name)) for name in wave]
        lines += table(rows)
    lines += _collisions(view)
    if len(view.critical_path) > 1:
        lines += ["", "longest chain: " + " → ".join(map(clean, view.critical_path))]
    lines += _checks(view)
    if view.problems:
        lines += ["", "a run of these would be refused:", *(f"  {clean(problem)}" for problem in view.problems)]
    return lines


def _after(view: PlanView, name: str) -> str:
    needs = view.depends_on.get(name, [])
    return f"after {', '.join(map(clean, needs))}" if needs else ""


def _collisions(view: PlanView) -> list[str]:
    if not view.collisions:
        return []
    rows = [(f"{clean(a)}, {clean(b)}", ", ".join(map(clean, paths))) for a, b, paths in view.collisions]
    return ["", "not side by side, because they share files:", *table(rows)]


def _checks(view: PlanView) -> list[str]:
    """Every set of checks once, with the orders it decides over."""
    groups: dict[tuple[str, ...], list[str]] = {}
    for name, checks in view.checks.items():
        groups.setdefault(tuple(checks), []).append(name)
    if set(groups) == {()}:
        return ["", "checks: none"]
    lines = ["", "checks"]
    for commands, names in groups.items():
        whose = "every order" if len(groups) == 1 else ", ".join(map(clean, names))
        lines += [f"  {whose}:", *(f"    {clean(command)}" for command in commands or ("none",))]
    return lines
