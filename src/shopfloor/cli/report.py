"""What a run came to, as text: every order with its outcome, the figures, and where everything lies."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import PurePath

import click

from shopfloor.cli.glance import closed_word
from shopfloor.cli.words import clean, columns, count, duration, fit, money, pad, table
from shopfloor.domain.board import Board
from shopfloor.domain.order import Reason, State
from shopfloor.domain.report import OUTCOMES, Report, Row

COLORS = {
    "landed": "green",
    "answered": "green",
    "unchanged": "green",
    "verified": "cyan",
    "failed": "red",
    "cancelled": "yellow",
    "waiting": "yellow",
}
LISTED = 100
"""Orders in the table at the most; what needs a person comes first then."""
SOME = 10
_FIRST = ("failed", "waiting", "cancelled", "verified", "unchanged", "answered", "landed")


def render(report: Report, *, questions: Mapping[str, str] | None = None, width: int = 0, work: str = ".work") -> str:
    """The report as styled text.

    ``questions`` are those of orders that wait for an answer, by order id; ``width`` in columns cuts the table, 0:
    nothing is cut.
    """
    questions = questions or {}
    lines = [_title(report), "", *_table(report, questions, width), "", *_figures(report)]
    closed = [closed_word(one.name, one.reset_at, one.why, one.told, now=one.closed_at) for one in report.closed]
    lines += ["", *closed] if closed else []
    lines += ["", *(clean(why) for why in report.held.values())] if report.held else []
    if lying := _lying(report, work):
        lines += ["", *lying]
    if following := next_steps(report, questions):
        lines += ["", "next:", *table(following)]
    return "\n".join(lines)


def _title(report: Report) -> str:
    counted = ", ".join(
        click.style(f"{report.counts[name]} {name}", fg=COLORS[name]) for name in OUTCOMES if report.counts.get(name)
    )
    return f"{clean(report.run)}: {count(len(report.orders), 'order')}: {counted or 'none'}"


def _table(report: Report, questions: Mapping[str, str], width: int) -> Iterable[str]:
    rows = list(report.orders)
    if len(rows) > LISTED:
        rows.sort(key=lambda row: _FIRST.index(row.outcome))
    listed = rows[:LISTED]
    names = min(40, max((columns(clean(row.name)) for row in listed), default=0))
    for row in listed:
        name = pad(fit(clean(row.name), names), names)
        mark = click.style(row.outcome.ljust(9), fg=COLORS.get(row.outcome))
        rest = f"asks: {clean(questions[row.order])}" if row.order in questions else why(row)
        room = width - 2 - names - 2 - 9 - 2 if width else 0
        yield f"  {name}  {mark}  {fit(rest, max(8, room)) if width else rest}".rstrip()
    if len(rows) > LISTED:
        yield f"  and {len(rows) - LISTED} more: shopfloor status --all"


def why(row: Row) -> str:
    """What is to be said about one order in a line."""
    words = []
    if row.outcome == "landed":
        words.append(row.merge[:12])
    elif row.message:
        words.append(clean(row.message))
    elif row.reason:
        words.append(row.reason)
    if row.attempts > 1:
        words.append(count(row.attempts, "attempt"))
    if row.attempts:
        words.append(duration(row.agent_s))
    if row.cost_usd:
        words.append(money(row.cost_usd))
    return ", ".join(words)


def _figures(report: Report) -> list[str]:
    lines = [f"took {duration(report.wall_s)}"]
    if report.speed_up is not None:
        sessions = f" in {report.sessions} sessions" if report.sessions > 1 else ""
        lines[0] += f"{sessions}, {report.speed_up:.1f} x the speed of one after the other"
        work = f"agents {duration(report.agent_s)}, checks {duration(report.check_s)}"
        lines.append(f"{work}; preparing their workspaces {duration(report.prepare_s)}")
        lines.append(f"neither agents nor checks at work: {duration(report.overhead_s)} of the time")
        lines.append(f"at most {report.peak_parallel} of {report.max_parallel} agents at once")
    priced = "" if report.cost_usd is None else money(report.cost_usd)
    unpriced = count(report.unpriced_attempts, "attempt") + " unpriced" if report.unpriced_attempts else ""
    tape = PurePath(report.replay).name
    played = f"model calls were answered from {clean(tape)!r}, which costs nothing" if tape else ""
    cost = ", ".join(filter(None, (priced, unpriced, played)))
    lines += [f"cost: {cost}"] if cost else []
    flaky = (f"{clean(check)} ({count(times, 'time')})" for check, times in report.flaky.items())
    return lines + _some("flaky:", [f"{line}: red and green on the same commit, nobody blamed" for line in flaky])


def _lying(report: Report, work: str) -> list[str]:
    lines: list[str] = []
    if report.counts.get("landed"):
        lines.append(f"result:    {report.target} at {report.tip[:12]}")
        if report.mirror == report.tip:
            lines.append(f"           {clean(report.branch)} is there too")
        elif report.mirror_why:
            lines.append(f"           {clean(report.branch)} was left alone: {clean(report.mirror_why)}")
        else:
            lines.append(f"           {clean(report.branch)} was left alone; take it with: git merge {report.target}")
    if report.landing_held:
        lines.append(f"held:      nothing more was landed: {clean(report.landing_held)}")
    kept = [row.branch for row in report.orders if row.outcome != "landed" and _has_work(row)]
    lines += _some("kept:", kept)
    lines += _some("notes:", [f"{clean(row.name)}: {clean(note)}" for row in report.orders for note in row.notes])
    if any(row.attempts for row in report.orders):
        lines.append(f"evidence:  {work}/evidence, transcripts: {work}/attempts (shopfloor log ORDER)")
    return lines


def _has_work(row: Row) -> bool:
    return bool(row.branch and row.commit) and row.reason != Reason.NO_CHANGES and row.outcome != "unchanged"


def _some(word: str, items: list[str]) -> list[str]:
    """The first items below each other, behind their word."""
    lines = [f"{word if not number else '':<10} {item}" for number, item in enumerate(items[:SOME])]
    return [*lines, f"{'':<10} and {len(items) - SOME} more: shopfloor show ORDER"] if len(items) > SOME else lines


def next_steps(report: Report, questions: Mapping[str, str]) -> list[tuple[str, str]]:
    """What a person may type now, and what it does."""
    steps = []
    asking = next((row for row in report.orders if row.order in questions), None)
    if asking is not None:
        steps.append((f'shopfloor answer {clean(asking.name)} "…"', "answers the agent's question"))
    if report.counts.get("waiting"):
        mended = ", once that is mended" if report.held else ""
        steps.append(("shopfloor run --resume", f"goes on with what is left{mended}"))
    failed = next((row for row in report.orders if row.outcome == "failed"), None)
    if failed is not None:
        name = clean(failed.name)
        steps += [(f"shopfloor show {name}", "says what went wrong"), (f"shopfloor retry {name}", "tries it again")]
    verified = next((row for row in report.orders if row.outcome == "verified"), None)
    if verified is not None:
        name = clean(verified.name)
        steps += [(f"shopfloor diff {name}", "shows what it changed"), (f"shopfloor accept {name}", "lands it")]
    return steps


def open_questions(board: Board) -> dict[str, str]:
    """The questions that wait for an answer, by order id."""
    return {order: record.question for order, record in board.records.items() if record.state is State.ASKING}
