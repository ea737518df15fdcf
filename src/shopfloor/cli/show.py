"""``show``: everything about one order, and what to type next."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import click
import msgspec

from shopfloor import Shopfloor
from shopfloor.cli.edge import Edge, verb
from shopfloor.cli.evidence import Checked, checked
from shopfloor.cli.glance import advice, shown, why
from shopfloor.cli.lines import clock
from shopfloor.cli.orders import find
from shopfloor.cli.status import head, opened, plain
from shopfloor.cli.words import block, clean, count, duration, few, money, table
from shopfloor.domain.board import Board
from shopfloor.domain.calls import answered
from shopfloor.domain.names import one_line
from shopfloor.domain.order import Attempt, Deliverable, Record, State

WORDS = '"…"'
_LINES, _FILES, _SAID = 20, 8, 10


@verb(example="shopfloor show fix-login")
@click.argument("order")
def show(edge: Edge, *, order: str) -> None:
    """Show everything about one order: state, attempts, checks, commits, where its work lies."""

    async def work(floor: Shopfloor) -> _Story:
        board, record = await find(floor, order)
        return _Story(board, record, floor.controller(), floor.work)

    story = edge.call(work)
    if edge.json:
        edge.put_json(story.data())
    else:
        edge.put("\n".join(story.lines()))


class _Story:
    """One order with what surrounds it."""

    def __init__(self, board: Board, record: Record, controller: dict[str, Any] | None, work: Path) -> None:
        self.record = record
        self.order = record.order
        self.work = work
        self.run = board.run_of(record)
        self.board = board
        self.glance = head(board, self.run, controller)
        self.seen = plain(record, opened(board, self.run) if self.run is not None else None)
        self.state = shown(self.seen, alive=self.glance.alive)
        self.why = why(self.seen, self.glance, time.time())

    def data(self) -> dict[str, Any]:
        """The shape of ``--json``: the record as the log has it, and what follows from facts."""
        return {
            "record": msgspec.to_builtins(self.record),
            "state": self.state,
            "why": self.why,
            "checks": [check._asdict() for check in checked(self.record)],
            "next": self.next_steps(),
        }

    def lines(self) -> list[str]:
        """The same for people."""
        order = self.order
        first = f"{clean(order.name)} ({clean(order.id)}): {click.style(self.state, bold=True)}"
        lines = [first + (f", {self.why}" if self.why and self.state not in ("failed", "cancelled") else "")]
        if order.title and order.title != order.name:
            lines.append(f"  {clean(order.title)}")
        lines += self._wish()
        lines += self._ending()
        lines += self._talk()
        lines += self._collisions()
        lines += [line for attempt in self.record.attempts for line in self._attempt(attempt)]
        lines += self._checks()
        lines += self._work()
        if steps := self.next_steps():
            lines += ["", "next:", *(f"  {step}" for step in steps)]
        return lines

    # -- parts ------------------------------------------------------------------------------------------------------

    def _wish(self) -> list[str]:
        order, records = self.order, self.board.records
        needs = [records[need].order.name if need in records else need for need in order.depends_on]
        rows = [
            ("run", clean(order.run)),
            ("from", clean(order.source)),
            ("agent", clean(order.agent or (self.run.agent if self.run else ""))),
            ("after", ", ".join(map(clean, needs))),
            ("files", ", ".join(map(clean, order.files))),
            ("cost", "" if self.record.cost_usd is None else money(self.record.cost_usd)),
        ]
        return table([row for row in rows if row[1]])

    def _ending(self) -> list[str]:
        record = self.record
        if record.state is State.ASKING:
            return ["", "question", *_indented(record.question)]
        if record.state in (State.FAILED, State.CANCELLED):
            reason = f" ({record.reason})" if record.reason else ""
            return ["", f"why{reason}", *_indented(record.message)]
        answer = record.message if answered(record) else self._handed_in()
        return ["", "answer", *_indented(answer)] if answer else []

    def _handed_in(self) -> str:
        """The answer of a session."""
        attempt, ended = self.record.attempt, self.record.state is State.DONE
        return attempt.message if attempt and ended and self.order.deliverable is Deliverable.ANSWER else ""

    def _talk(self) -> list[str]:
        told = [
            f"  {clock(said.at)}  {said.kind} ({clean(said.who)}): {clean(one_line(said.text))}"
            for said in self.record.talk[-_SAID:]
        ]
        return ["", "said:", *told] if told else []

    def _collisions(self) -> list[str]:
        told = [f"  {clean(one.field)} = {clean(one.theirs)}" for one in self.record.collisions]
        if not told:
            return []
        todo = advice(self.order.name, self.record.state.value)
        return ["", "wanted by another program, and not followed:", *told, f"  to follow it: {todo}"]

    def _attempt(self, attempt: Attempt) -> list[str]:
        how = attempt.outcome or ("under way" if self.glance.alive or self.seen.goes_on else "interrupted")
        words = [how]
        if attempt.started_at is not None:
            heard = time.time() if self.glance.alive or self.seen.goes_on else self.glance.last_at
            words.append(duration((attempt.ended_at or heard) - attempt.started_at))
        words.append(_spent(attempt))
        lines = ["", f"attempt {attempt.generation}: {', '.join(filter(None, words))}"]
        lines += _indented(attempt.message) if attempt.message and attempt.outcome != "completed" else []
        rows = [
            ("branch", "" if self.order.deliverable is Deliverable.ANSWER else clean(attempt.branch)),
            ("base", attempt.base[:12]),
            ("commit", "" if attempt.commit == attempt.base else attempt.commit[:12]),
            ("files", _files(attempt)),
            ("progress", clean(attempt.progress)),
            ("said", clean(one_line(attempt.done or ""))),
            ("server", clean(one_line(str(attempt.data.get("url", "")))) if attempt.call else ""),
            ("workspace", near(Path(attempt.workspace)) if attempt.workspace and not attempt.outcome else ""),
            ("exit code", "" if attempt.exit_code in (0, None) else str(attempt.exit_code)),
        ]
        return [*lines, *table([row for row in rows if row[1]]), *(f"  note: {clean(note)}" for note in attempt.notes)]

    def _checks(self) -> list[str]:
        found = checked(self.record)
        if not found and not self.record.verdict:
            return []
        lines = ["", f"checks: {self.record.verdict}" if self.record.verdict else "checks of an earlier attempt"]
        lines += table([(_mark(check), clean(check.command), _how(check), near(Path(check.log))) for check in found])
        if self.record.findings and self.record.verdict not in ("PASS", ""):
            lines += _indented(self.record.findings)
        return lines

    def _work(self) -> list[str]:
        record, rows = self.record, []
        if record.merge:
            rows.append(("landed", f"{record.merge[:12]} on {self.run.ref if self.run else ''}"))
        elif record.commit:
            rows.append(("verified", record.commit[:12]))
        if record.evidence:
            rows.append(("evidence", near(Path(record.evidence))))
        if record.attempt and not record.attempt.call and record.order.run:
            rows.append(("transcript", near(self.work / "attempts" / record.attempt.id / "transcript.jsonl")))
        return ["", *table(rows)] if rows else []

    def next_steps(self) -> list[str]:
        """What a person may type now."""
        name = clean(self.order.name)
        if not self.order.run:
            return [f"shopfloor claim --order {name}"] if self.state == "ready" else []
        steps = {
            "asking": [f"shopfloor answer {name} {'yes, or: no' if self.record.permission else WORDS}"],
            "running": [f"shopfloor log {name} --follow", f"shopfloor steer {name} {WORDS}", f"shopfloor stop {name}"],
            "interrupted": ["shopfloor run --resume"],
            "failed": [f"shopfloor log {name}", f"shopfloor diff {name}", f"shopfloor retry {name}"],
            "cancelled": [f"shopfloor retry {name}"],
            "ready": [] if self.glance.alive else ["shopfloor run --resume"],
            "waiting": [] if self.glance.alive else ["shopfloor run --resume"],
        }.get(self.state, [])
        if self.seen.goes_on:
            led = [] if self.glance.alive else ["shopfloor run --resume"]
            steps = [*steps[:1], f"shopfloor attach {name}", *steps[1:], *led]
        if self.state == "verified":
            waits = self.run is not None and self.run.land != "auto"
            steps = [f"shopfloor diff {name}", *([f"shopfloor accept {name}"] if waits else [])]
        if self.state == "failed" and (self.record.attempt is None or self.record.attempt.call):
            steps = steps[2:]  # there is no output, and no change
        return steps


def near(path: Path) -> str:
    """A path as it can be typed from here: relative where it lies below."""
    here = Path.cwd()
    return clean(str(path.relative_to(here) if path.is_relative_to(here) else path))


def _how(check: Checked) -> str:
    if check.passed:
        return duration(check.duration_s)
    return f"exit {check.exit_code}" if check.exit_code is not None else "ended"


def _spent(attempt: Attempt) -> str:
    if attempt.cost_usd is not None:
        return money(attempt.cost_usd)
    return "unpriced" if attempt.outcome else ""


def _files(attempt: Attempt) -> str:
    if not attempt.files:
        return ""
    return f"{count(len(attempt.files), 'file')}: {few([clean(path) for path in attempt.files], _FILES)}"


def _mark(check: Checked) -> str:
    if check.passed:
        return "pass"
    return "FAIL" if check.required else "red on the base too"


def _indented(text: str) -> list[str]:
    lines = block(text).rstrip("\n").splitlines()
    more = [f"  … {len(lines) - _LINES} lines more"] if len(lines) > _LINES else []
    return [*(f"  {line}" for line in lines[:_LINES]), *more]
