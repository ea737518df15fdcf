"""The live picture as plain lines: what fits into a terminal of a given size, and nothing more. No terminal here."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from pathlib import Path

from shopfloor.cli.lines import clock, line
from shopfloor.cli.report import COLORS
from shopfloor.cli.tail import last_words, running_check
from shopfloor.cli.words import clean, columns, count, duration, fit, money, pad
from shopfloor.domain.events import E, Event, tells_end
from shopfloor.domain.floor import Floor
from shopfloor.domain.order import Record, State
from shopfloor.domain.report import OUTCOMES, outcome
from shopfloor.domain.situation import situation

Part = tuple[str, str]
"""Text, and the name of its style."""
Line = list[Part]

STYLE = {
    **COLORS,
    "waiting": "",  # that is nothing to worry about while the run goes on
    "running": "cyan",
    "asking": "bold magenta",
    "checking": "yellow",
    "landing": "green",
}
_COUNTED = (*OUTCOMES[:-1], "running", "asking", "checking", "landing", "ready", "waiting")
_NEWS = frozenset(
    {
        *(E.AGENT_ASKED, E.VERIFY_VERDICT, E.LANDING_LANDED, E.LANDING_REFUSED, E.RETRIED, E.ADMISSION),
        *(E.TARGET_MOVED, E.MIRROR_HELD, E.HANDLED, E.PROBLEM, E.AGENT_IDLE, E.SNAPSHOT, E.UPDATED),
        *(E.AGENT_RETRYING, E.ACCOUNT_CLOSED, E.ACCOUNT_OPENED),
        *(E.AGENT_HELD, E.LANDING_TESTED, E.LANDING_HELD, E.VIEW_COLLISION),
    }
)
_FIRST = (State.ASKING, State.RUNNING, State.CHECKING, State.LANDING)
SPINNER = "⠋⠙⠹⠸⠼⠴⠦⠧⠇⠏"
PLAIN_SPINNER = "|/-\\"
NEWS_LINES = 8
SURVEY_S = 0.2
"""Seconds between two looks at all orders; more when there are very many of them."""


class Stage:
    """What is to be seen of a floor, from its events and its state."""

    def __init__(self, floor: Callable[[], Floor | None], work: Path, *, unicode: bool = True) -> None:
        self._floor = floor
        self._work = work
        self._spinner = SPINNER if unicode else PLAIN_SPINNER
        self._news: deque[str] = deque(maxlen=NEWS_LINES)
        self._frame = 0
        self._surveyed = float("-inf")
        self._dirty = True
        self._counts: dict[str, int] = {}
        self._active: list[Record] = []
        self.doing = ""
        """what goes on before there is a run"""
        self.note = ""
        """a word to the person, e.g. that the run is being stopped"""

    def tell(self, text: str, at: float) -> None:
        """Say what goes on before there are events, and keep it as news."""
        self.doing = clean(text)
        self._news.append(f"{clock(at)}  {self.doing}")

    def see(self, event: Event) -> None:
        """Take an event in; its floor has folded it already."""
        self._dirty = True
        if event.event_type == E.RUN_STARTED:
            self.doing = ""
        floor = self._floor()
        if floor is not None and (event.event_type in _NEWS or tells_end(event)):
            text = line(event, floor.board)
            if text:
                self._news.append(text)

    def picture(self, width: int, height: int, now: float) -> list[Line]:
        """At most ``height`` lines of at most ``width`` columns. ``now`` is wall seconds."""
        self._frame += 1
        floor = self._floor()
        run = floor.run if floor else None
        if floor is None or run is None:
            lines: list[Line] = [[(f"{self._spin()} {self.doing or 'starting'}", "")]]
            return _cut([*lines, *self._noted()], width, height)
        self._survey(floor, now)
        head: list[Line] = [self._header(floor, now), self._counted()]
        foot = self._noted()
        room = max(1, height - len(head) - len(foot) - 1)
        rows = self._rows(floor, room, width // 3, now)
        news = list(self._news)[-max(0, room - len(rows) - 1) :] if room - len(rows) > 1 else []
        body = [*rows, *([[("", "")]] if news and rows else []), *([(text, "dim")] for text in news)]
        return _cut([*head, [("", "")], *body, *foot], width, height)

    def _survey(self, floor: Floor, now: float) -> None:
        """Count all orders and find those at work, not more often than is worth it."""
        run = floor.run
        if run is None or not self._dirty or now - self._surveyed < SURVEY_S + len(run.orders) / 50_000:
            return
        self._dirty, self._surveyed = False, now
        counts: dict[str, int] = {}
        active = []
        for order in run.orders:
            record = floor.board.records[order]
            word = outcome(record, run)
            if word == "waiting":
                word = situation(floor, record)[0].value
            counts[word] = counts.get(word, 0) + 1
            if record.state in _FIRST:
                active.append(record)
        self._counts = counts
        self._active = sorted(active, key=lambda record: _FIRST.index(record.state))

    def _header(self, floor: Floor, now: float) -> Line:
        run = floor.run
        assert run is not None
        limit = min(run.limit or run.max_parallel, run.max_parallel)
        spent = money(floor.spent_usd) + (f" of {money(run.budget_usd)}" if run.budget_usd is not None else "")
        calls = sum(record.attempt is not None and record.attempt.call for record in self._active)
        words = [duration(now - run.session_at)]
        words += [f"calls {calls}"] if calls else [f"slots {len(floor.live)}/{limit}"]
        words += [spent] if floor.spent_usd or run.budget_usd is not None else []
        where = f" on {clean(run.branch)}  " if run.branch else "  "
        first: Line = [(clean(run.id), "bold"), (where, ""), ("  ".join(words), "")]
        return [*first, ("  paused", "bold yellow")] if floor.board.paused else first

    def _counted(self) -> Line:
        total = sum(self._counts.values())
        parts: Line = [(count(total, "order") + ":", "")]
        for word in _COUNTED:
            if number := self._counts.get(word):
                parts.append((f" {number} {word}", STYLE.get(word, "")))
        return parts

    def _rows(self, floor: Floor, room: int, widest: int, now: float) -> list[Line]:
        active = [record for record in self._active if record.state in _FIRST]  # some have ended since the last look
        shown = active[: room - 1] if len(active) > room else active
        names = min(widest, max((columns(clean(record.order.name)) for record in shown), default=0))
        rows = [self._row(record, floor, names, now) for record in shown]
        left = len(active) - len(shown)
        return [*rows, [(f"  and {left} more at work", "dim")]] if left else rows

    def _row(self, record: Record, floor: Floor, names: int, now: float) -> Line:
        state, attempt = record.state.value, record.attempt
        name = pad(fit(clean(record.order.name), names), names)
        number = f"#{attempt.generation}" if attempt else ""
        since = attempt.begun_at if attempt else None
        if record.state in (State.CHECKING, State.LANDING) or (attempt and attempt.outcome):
            since = record.updated_at
        elapsed = duration(now - since) if since else ""
        mark = "?" if record.state is State.ASKING else self._spin()
        return [
            (f"{mark} {state.ljust(8)} ", STYLE.get(state, "")),
            (f"{name} {number.ljust(2)} {elapsed.rjust(6)}  ", ""),
            (self._saying(record, floor), "dim"),
        ]

    def _saying(self, record: Record, floor: Floor) -> str:
        attempt, run = record.attempt, floor.run
        if record.state is State.ASKING:
            return f"asks: {clean(record.question, 400)}"
        if attempt is None or run is None or record.state is State.LANDING:
            return ""
        if record.state is State.CHECKING:
            folder = self._work / "evidence" / record.order.id / "runs" / f"{record.generation}.{record.verifications}"
            return running_check(folder, [*record.order.checks, *run.checks])
        if attempt.outcome:
            return "its agent has ended; waits to be checked"
        if attempt.call:
            return ""  # nobody hears of it before it ends
        if attempt.started_at is None:
            return "preparing its workspace"
        if attempt.idle_since is not None:
            return "silent"
        words = last_words(self._work / "attempts" / attempt.id / "transcript.jsonl")
        return " · ".join(filter(None, (clean(attempt.progress), words)))

    def _spin(self) -> str:
        return self._spinner[self._frame % len(self._spinner)]

    def _noted(self) -> list[Line]:
        return [[(self.note, "bold yellow")]] if self.note else []


def _cut(lines: list[Line], width: int, height: int) -> list[Line]:
    """The lines that fit; the last one, which may be a note, stays."""
    if len(lines) > height:
        lines = [*lines[: height - 1], lines[-1]]
    found = []
    for parts in lines:
        left, kept = width, []
        for text, style in parts:
            piece = fit(text, left)
            kept.append((piece, style))
            left -= columns(piece)
        found.append(kept)
    return found
