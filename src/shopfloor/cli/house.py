"""``doctor`` and ``gc``: is everything in order, and what is not needed any more."""

from __future__ import annotations

import click
import msgspec

from shopfloor.cli.edge import Edge, verb
from shopfloor.cli.words import clean, count, size, table

MARKS = {"ok": ("ok", "green"), "warn": ("warn", "yellow"), "bad": ("BAD", "red")}


@verb(example="shopfloor doctor")
def doctor(edge: Edge) -> int:
    """Look whether everything is in order; exit 1 when something would stop a run."""
    findings = edge.call(lambda floor: floor.doctor())
    bad = sum(finding.level == "bad" for finding in findings)
    if edge.json:
        edge.put_json({"ok": not bad, "findings": msgspec.to_builtins(findings)})
        return 1 if bad else 0
    for finding in findings:
        word, color = MARKS.get(finding.level, (finding.level, "white"))
        edge.put(f"{click.style(word.ljust(4), fg=color)}  {clean(finding.what)}")
        if finding.hint:
            edge.put(f"      {clean(finding.hint)}")
    edge.put("")
    edge.put(f"{count(bad, 'thing')} to mend" if bad else "everything that a run needs is there")
    return 1 if bad else 0


@verb(example="shopfloor gc --yes")
@click.option("--yes", is_flag=True, help="Do it; without this it only says what would go.")
def gc(edge: Edge, *, yes: bool) -> None:
    """Remove what is not needed any more; work that has not landed is never touched."""
    dropped = edge.call(lambda floor: floor.gc(apply=yes))
    if edge.json:
        edge.put_json({"applied": yes, "dropped": msgspec.to_builtins(dropped)})
        return
    if not dropped:
        edge.put("there is nothing to remove")
        return
    rows = [(clean(d.what), size(d.size_bytes), clean(d.where), clean(d.why)) for d in dropped]
    edge.put("\n".join(table(rows, indent="")))
    total = f"{count(len(dropped), 'thing')}, {size(sum(d.size_bytes for d in dropped))}"
    edge.put(f"\nremoved: {total}" if yes else f"\nwould be removed: {total}; do it with: shopfloor gc --yes")
