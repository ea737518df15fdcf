"""What an agent is told: the order's own words, and what became of the attempt before."""

from __future__ import annotations

from shopfloor.domain.order import Record
from shopfloor.domain.talk import is_reply


def render(record: Record, *, resumed: bool = False) -> str:
    """The prompt of the next attempt. The first gets the instruction unchanged; later ones also get the findings.

    ``resumed``: its agent goes on with its own session, so it knows the instruction and is told only what is new.
    """
    text = record.order.instruction
    if not record.findings:
        return _GO_ON if resumed else text
    last = record.attempt
    kept = last is not None and last.commit not in ("", last.base)
    where = f"\nThat attempt's work is on the branch `{last.branch}`.\n" if last and kept else "\n"
    reply = is_reply(record.findings)
    head, found = ("Your question", "") if reply else ("An earlier attempt was not accepted", "What was found:\n\n")
    news = (
        f"## {head}\n\nYou start again from the current state of the target.{where}{found}{_fenced(record.findings)}\n"
    )
    return news if resumed else f"{text.rstrip()}\n\n---\n\n{news}"


_GO_ON = "Go on with your work. You start again from the current state of the target, in a fresh checkout.\n"


def _fenced(text: str) -> str:
    fence = "```"
    while fence in text:
        fence += "`"
    return f"{fence}\n{text.rstrip()}\n{fence}"
