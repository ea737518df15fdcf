"""Events as plain lines, one for each that matters to a person: ``12:03:01  alpha  started (attempt 1)``."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import datetime
from typing import Any

from shopfloor.cli.glance import advice, closed_word
from shopfloor.cli.words import clean, columns, count, duration, fit, money, pad
from shopfloor.domain.board import Board
from shopfloor.domain.events import E, Event, read_time
from shopfloor.domain.names import one_line
from shopfloor.domain.order import Record
from shopfloor.domain.values import texts

NAME_COLUMNS = 24
_Words = Callable[[Record, dict[str, Any]], str]


def line(event: Event, board: Board) -> str:
    """What to say about an event that is folded into the board already; empty for what nobody needs to see."""
    record = board.records.get(event.order_id)
    words = _ORDER.get(event.event_type)
    if record is not None and words is not None:
        return _said(event, record.order.name, words(record, event.data), board)
    general = _RUN.get(event.event_type)
    text = general(event.data, board, event.correlation_id or "") if general is not None else ""
    return _said(event, "", text, board) if text else ""


def clock(at: float) -> str:
    """Local time of day; dashes for what is no time."""
    try:
        return datetime.fromtimestamp(at).astimezone().strftime("%H:%M:%S")
    except (OverflowError, ValueError, OSError):
        return "--:--:--"


def _said(event: Event, name: str, text: str, board: Board) -> str:
    if not text:
        return ""
    at = clock(read_time(event.timestamp))
    if not name:
        return f"{at}  {clean(text)}"
    run = board.runs.get(event.correlation_id or "")
    names = [board.records[order].order.name for order in run.orders[:200]] if run else [name]
    wide = min(NAME_COLUMNS, max(map(columns, names), default=0))
    return f"{at}  {pad(clean(name), wide)}  {clean(text)}"


# -- orders -------------------------------------------------------------------------------------------------------


def _started(record: Record, _d: dict[str, Any]) -> str:
    return f"started (attempt {len(record.attempts)})"


def _idle(_r: Record, d: dict[str, Any]) -> str:
    silent = d.get("idle_since")
    if d.get("from_start") and isinstance(silent, int | float):
        return f"was started {duration(silent)} ago and has reported nothing yet"
    return f"has said nothing for {duration(silent)}" if isinstance(silent, int | float) else "is silent"


def _retrying(_r: Record, d: dict[str, Any]) -> str:
    delay = d.get("delay_s")
    when = f" in {duration(delay)}" if isinstance(delay, int | float) and delay > 0 else ""
    return f"its model answers {d.get('status') or 'with an error'}; it tries again{when}"


def _adopted(_r: Record, _d: dict[str, Any]) -> str:
    return "its agent went on while no controller lived, and is followed again"


def _asked(record: Record, d: dict[str, Any]) -> str:
    words = "yes, or: no" if d.get("permission") is True else '"…"'
    return f"asks: {d.get('question', '')}  (shopfloor answer {record.order.name} {words})"


def _answered(_r: Record, d: dict[str, Any]) -> str:
    return f"is answered by {d.get('by')}: {_short(d.get('answer'))}" if d.get("answer") else "has read the answer"


def _steered(_r: Record, d: dict[str, Any]) -> str:
    return f"is told by {d.get('by')}: {_short(d.get('text'))} ({d.get('delivery')})"


def _progress(_r: Record, d: dict[str, Any]) -> str:
    return _first(d.get("text"))


def _handed(_r: Record, d: dict[str, Any]) -> str:
    words = _first(d.get("text"))
    return "asks to be verified" + (f": {words}" if words else "")


def _mail(_r: Record, d: dict[str, Any]) -> str:
    return f"mail from {d.get('from')} to {d.get('to')}: {_short(d.get('subject'))}"


def _stopped(record: Record, d: dict[str, Any]) -> str:
    attempt = record.attempt
    cost = f", {money(attempt.cost_usd)}" if attempt and attempt.cost_usd else ""
    if d.get("outcome") != "completed":
        return f"its agent ended: {d.get('outcome')}: {d.get('message') or '(no words)'}{cost}"
    took = ""
    if attempt and attempt.ended_at is not None and attempt.started_at is not None:
        took = f" after {duration(attempt.ended_at - attempt.started_at)}"
    return f"its agent is done{took}, {count(len(attempt.files) if attempt else 0, 'file')} changed{cost}"


def _checking(_r: Record, d: dict[str, Any]) -> str:
    number = d.get("run", 1)
    return "checking" + (f" (again, {number})" if isinstance(number, int) and number > 1 else "")


def _verdict(_r: Record, d: dict[str, Any]) -> str:
    if d.get("verdict") == "PASS":
        return "verified"
    how = "the checks failed" if d.get("verdict") == "FAIL" else "the checks could not tell"
    first = next((text for text in str(d.get("reasoning", "")).splitlines() if text.strip()), "")
    return f"{how}: {first}" if first else how


def _landed(_r: Record, d: dict[str, Any]) -> str:
    return f"landed as {str(d.get('commit', ''))[:12]}"


def _refused(_r: Record, d: dict[str, Any]) -> str:
    again = ", is tried again" if d.get("again") else ""
    return f"not landed{again}: {_first(d.get('message'))}"


def _retried(_r: Record, d: dict[str, Any]) -> str:
    delay = d.get("delay_s")
    when = f" in {duration(delay)}" if isinstance(delay, int | float) and delay else ""
    return f"goes back{when}: {_first(d.get('why'))}"


def _settled(record: Record, d: dict[str, Any]) -> str:
    outcome = str(d.get("outcome", ""))
    if outcome == "done":
        return "" if record.merge else "done"
    return f"{outcome.upper()}: {d.get('message') or d.get('reason') or ''}"


def _closed_with(record: Record, d: dict[str, Any]) -> str:
    return _settled(record, d) if "end" in d else ""


def _updated(_r: Record, d: dict[str, Any]) -> str:
    changes = d.get("changes")
    known = changes.items() if isinstance(changes, dict) else ()
    wanted = ", ".join(f"{field} -> {_short(value)}" for field, value in known)
    return f"changed by another program: {wanted}" if wanted else ""


def _collided(record: Record, d: dict[str, Any]) -> str:
    refused = d.get("refused")
    told = [
        f"another program wants {one.get('field')} = {_short(one.get('theirs'))}; not followed: {one.get('why')}"
        for one in (refused if isinstance(refused, list) else [])
        if isinstance(one, dict)
    ]
    return f"{'; '.join(told)}  ({advice(record.order.name, record.state.value)})" if told else ""


def _short(value: object) -> str:
    text = value if isinstance(value, str) else json.dumps(value)
    return fit(clean(one_line(text)), 40)


def _first(text: object) -> str:
    return next((line for line in str(text or "").splitlines() if line.strip()), "")


_ORDER: dict[str, _Words] = {
    E.AGENT_STARTED: _started,
    E.AGENT_ADOPTED: _adopted,
    E.AGENT_IDLE: _idle,
    E.AGENT_RETRYING: _retrying,
    E.AGENT_ASKED: _asked,
    E.AGENT_ANSWERED: _answered,
    E.AGENT_STEERED: _steered,
    E.AGENT_PROGRESS: _progress,
    E.AGENT_DONE: _handed,
    E.MAIL_SENT: _mail,
    E.AGENT_STOPPED: _stopped,
    E.VERIFY_STARTED: _checking,
    E.VERIFY_VERDICT: _verdict,
    E.LANDING_LANDED: _landed,
    E.LANDING_REFUSED: _refused,
    E.RETRIED: _retried,
    E.SETTLED: _settled,
    E.CLOSED: _closed_with,
    E.UPDATED: _updated,
    E.VIEW_COLLISION: _collided,
}


# -- the run ------------------------------------------------------------------------------------------------------


def _run_started(d: dict[str, Any], board: Board, run_id: str) -> str:
    run = board.runs.get(str(d.get("run_id", "")) or run_id)
    if run is None:
        return ""
    where = f"on {run.branch}, at most {run.max_parallel} side by side"
    if run.sessions > 1:
        return f"{run.id} goes on {where}: {count(len(board.open_orders(run)), 'order')} left"
    return f"{run.id} {where}"


def _run_finished(_d: dict[str, Any], board: Board, run_id: str) -> str:
    run = board.runs.get(run_id)
    left = len(board.open_orders(run)) if run else 0
    return f"the run can do no more; {count(left, 'order')} left" if left else "the run is finished"


def _closed(d: dict[str, Any], board: Board, _run: str) -> str:
    one = board.accounts.get(str(d.get("account", "")))
    return "" if one is None else closed_word(one.name, one.reset_at, one.why, one.told, now=one.closed_at)


def _opened(d: dict[str, Any], _board: Board, _run: str) -> str:
    return f"account {d.get('account')!r} is open again"


def _handled(d: dict[str, Any], _board: Board, _run: str) -> str:
    return f"{d.get('verb')}: {d.get('text')}" if d.get("text") else ""


def _orphan(d: dict[str, Any]) -> str:
    where = str(d.get("ref", "")) or str(d.get("workspace", ""))
    problem = f" ({_first(d.get('problem'))})" if d.get("problem") else ""
    return f"found work that a killed controller had left behind, kept in {where}{problem}"


def _moved(d: dict[str, Any], _board: Board, _run: str) -> str:
    return f"the target was moved: {_first(d.get('why'))}"


def _tested(d: dict[str, Any], _board: Board, _run: str) -> str:
    if flaky := texts(d, "flaky"):
        return f"flaky: {', '.join(flaky)} was red and then green on the same commit; nobody is blamed"
    if d.get("verdict") == "PASS":
        return ""  # what has landed is said
    what = ", ".join(texts(d, "failed")) or _first(d.get("problem"))
    return f"{count(len(texts(d, 'orders')), 'order')} merged: red: {what}"


_RUN: dict[str, Callable[[dict[str, Any], Board, str], str]] = {
    E.RUN_STARTED: _run_started,
    E.RUN_FINISHED: _run_finished,
    E.AGENT_HELD: lambda d, _board, _run: f"nothing more is started with {d.get('profile')}: {_first(d.get('why'))}",
    E.ACCOUNT_CLOSED: _closed,
    E.ACCOUNT_OPENED: _opened,
    E.ADMISSION: lambda d, _board, _run: f"slots: {d.get('from')} -> {d.get('limit')}: {d.get('why')}",
    E.LANDING_TESTED: _tested,
    E.LANDING_HELD: lambda d, _board, _run: f"nothing more is landed: {_first(d.get('why'))}",
    E.TARGET_MOVED: _moved,
    E.MIRROR_ADVANCED: lambda d, _board, _run: f"{d.get('branch')} is at {str(d.get('to', ''))[:12]}",
    E.MIRROR_HELD: lambda d, _board, _run: f"{d.get('branch')} was left alone: {_first(d.get('why'))}",
    E.SNAPSHOT: lambda d, _board, _run: _orphan(d),
    E.HANDLED: _handled,
    E.PROBLEM: lambda d, _board, _run: f"problem: {_first(d.get('message') or d.get('what') or d)}",
}
