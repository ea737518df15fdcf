"""``agents``: what each kind of agent can do, as it was seen, and which are here."""

from __future__ import annotations

from pathlib import Path

import click

from shopfloor.cli.edge import Edge, verb
from shopfloor.cli.words import clean, table


@verb(example="shopfloor agents")
@click.option("--here", is_flag=True, help="Only those that are found on this machine.")
def agents(edge: Edge, *, here: bool) -> None:
    """Say what each kind of agent was seen to do, in which version, and which are on this machine."""
    from shopfloor.app.crew import known_agents
    from shopfloor.config import environment

    known = edge.perform(known_agents(environment(), Path.cwd()))
    shown = [one for one in known if one.found or not here]
    if edge.json:
        edge.put_json({"agents": shown})
        return
    if not shown:
        edge.put("none of the agents that are known is on this machine; see all: shopfloor agents")
        return
    rows = [("driver", "preset", "seen", "on", "here", "", "was seen to")]
    for one in shown:
        can = " ".join(one.observed) or "nothing beyond its work"
        name = clean(one.preset or one.program or "any")
        rows.append(
            (one.driver, name, one.version, one.date, clean(one.here) or ("?" if one.found else "-"), one.state, can)
        )
    edge.put("\n".join(table(rows, indent="")))
    for one in shown:
        if one.stand_in:
            edge.put(f"{one.driver} {one.preset or 'any'} was seen with a stand-in: {one.stand_in}")
    edge.put("")
    edge.put('use one: write driver = "…" and preset = "…" under [agents.NAME] in .shopfloor.toml')
