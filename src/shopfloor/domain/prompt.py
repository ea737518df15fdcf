"""What an agent is told: the order's own words, and what became of the attempt before."""

from __future__ import annotations

from shopfloor.domain.order import Record


def render(record: Record) -> str:
    """The prompt of the next attempt. The first gets the instruction unchanged; later ones also get the findings."""
    text = record.order.instruction
    if not record.findings:
        return text
    last = record.attempt
    kept = last is not None and last.commit not in ("", last.base)
    where = f"\nThat attempt's work is on the branch `{last.branch}`.\n" if last and kept else "\n"
    return (
        f"{text.rstrip()}\n\n---\n\n"
        f"## An earlier attempt was not accepted\n\n"
        f"You start again from the current state of the target.{where}"
        f"What was found:\n\n{_fenced(record.findings)}\n"
    )


def _fenced(text: str) -> str:
    fence = "```"
    while fence in text:
        fence += "`"
    return f"{fence}\n{text.rstrip()}\n{fence}"
