"""What an agent is told: the order's own words, and what became of the attempt before."""

from __future__ import annotations

from shopfloor.domain.order import Record
from shopfloor.domain.resume import AFRESH, Footing
from shopfloor.domain.talk import is_reply


def render(record: Record, stand: Footing = AFRESH) -> str:
    """The prompt of the next attempt. The first gets the instruction unchanged; later ones also get the findings.

    A session that goes on after it was interrupted is told so, and where its work is. It gets the instruction again:
    where its agent does not know the session any more, nothing else would say what to do.
    """
    text = record.order.instruction
    last = record.attempt
    kept = last is not None and last.commit not in ("", last.base)
    if stand.interrupted:
        title = "Your question was answered" if record.sent_back == "answered" else "You were interrupted"
        have = "has all that you had done" if stand.onto else "is at the current state of the target"
        found = f"\n\n{_fenced(record.findings)}" if record.findings else ""
        return f"{text.rstrip()}\n\n---\n\n## {title}\n\nGo on. Your checkout {have}.{found}\n"
    if not record.findings:
        return text
    where = f"\nThat attempt's work is on the branch `{last.branch}`.\n" if last and kept else "\n"
    reply = is_reply(record.findings)
    head, found = ("Your question", "") if reply else ("An earlier attempt was not accepted", "What was found:\n\n")
    return (
        f"{text.rstrip()}\n\n---\n\n"
        f"## {head}\n\nYou start again from the current state of the target.{where}{found}{_fenced(record.findings)}\n"
    )


def _fenced(text: str) -> str:
    fence = "```"
    while fence in text:
        fence += "`"
    return f"{fence}\n{text.rstrip()}\n{fence}"
