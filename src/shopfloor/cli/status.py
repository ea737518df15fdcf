"""``status``: where the newest run stands, from facts."""

from __future__ import annotations

import time
from typing import Any

import click
import msgspec

from shopfloor.app import holders
from shopfloor.cli.edge import Edge, verb
from shopfloor.cli.glance import RANK, SHOWN, Glance, Seen, session_word, shown, text, why
from shopfloor.cli.words import screen
from shopfloor.domain import talk
from shopfloor.domain.board import Board, Run
from shopfloor.domain.errors import NotFound
from shopfloor.domain.floor import Floor, Now
from shopfloor.domain.holder import held
from shopfloor.domain.order import FINISHED, Deliverable, Record, State
from shopfloor.domain.policy import remaining


@verb(example="shopfloor status --all")
@click.option("--all", "everything", is_flag=True, help="List every order, also the finished ones.")
@click.option("--run", "run_id", default="", metavar="ID", help="Another run than the newest.")
def status(edge: Edge, *, everything: bool, run_id: str) -> None:
    """Say where the run and its orders stand."""
    board = edge.call(lambda floor: floor.board(run=run_id, state="" if run_id else "open"))
    controller = edge.floor().controller()
    run = choose(board, run_id)
    floor = opened(board, run) if run else Floor()
    seen = glance(board, run, controller, floor)
    if run is not None and seen.mirror_why and edge.floor().taken_over(run):
        seen.mirror_why = ""
    now = time.time()
    if edge.json:
        edge.put_json(_shape(seen, floor, run, controller, now))
        return
    width = screen()[0]
    edge.put(text(seen, now=now, width=width, limit=0 if everything else SHOWN))


def choose(board: Board, run_id: str = "") -> Run | None:
    """The run to speak of: the one that is named, else the unfinished one, else the newest. Raises NotFound."""
    if run_id and run_id not in board.runs:
        known = ", ".join(list(board.runs)[-5:]) or "none"
        raise NotFound(f"there is no run {run_id!r}", hint=f"the newest are: {known}")
    return board.runs.get(run_id) or board.unfinished() or next(reversed(board.runs.values()), None)


def opened(board: Board, run: Run) -> Floor:
    """A floor that only looks: it tells waiting from ready."""
    floor = Floor()
    floor.board = board
    floor.open(run.id, Now(time.time(), time.monotonic()))
    return floor


def head(board: Board, run: Run | None, controller: dict[str, Any] | None) -> Glance:
    """The run as plain values, without its orders."""
    found = Glance()
    found.alive = controller is not None
    found.pid = int((controller or {}).get("pid") or 0)
    found.paused = board.paused
    found.mail = sum(talk.for_people(message) for message in board.mail.values())
    if run is None:
        return found
    found.run, found.branch, found.land = run.id, run.branch, run.land
    found.finished_at, found.started_at, found.last_at = run.finished_at, run.session_at, run.last_at
    found.budget, found.mirror_why = run.budget_usd, run.mirror_why
    found.closed = [
        (one.name, one.reset_at if one.closed else 0.0, one.why, one.told)
        for one in board.accounts.values()
        if one.closed or one.on_trial
    ]
    held_back = f"nothing more is landed: {run.landing_held}"
    found.held = [*run.held.values(), *([held_back] if run.landing_held else [])]
    return found


def glance(board: Board, run: Run | None, controller: dict[str, Any] | None, floor: Floor | None = None) -> Glance:
    """The run as plain values; ``floor`` is one that is opened on it already."""
    found = head(board, run, controller)
    found.loose = _loose(board)
    if run is None:
        return found
    found.open = len(board.open_orders(run))
    floor = floor or opened(board, run)
    records = [board.records[order] for order in run.orders]
    prices = [record.cost_usd for record in records if record.cost_usd is not None]
    found.spent = sum(prices) if prices else None
    rank = {state: number for number, state in enumerate(RANK)}
    for record in sorted(records, key=lambda record: rank[record.state.value]):
        seen = plain(record, floor)
        word = shown(seen, alive=found.alive)
        found.counts[word] = found.counts.get(word, 0) + 1
        found.rows.append(seen)
    return found


def _loose(board: Board) -> list[Seen]:
    """Orders of no run that have not ended: those at work first, then those that were set aside."""
    left = [r for r in board.records.values() if not r.order.run and r.state not in FINISHED]
    left.sort(key=lambda record: (record.state is State.READY, not record.elsewhere))
    found = []
    for record in left:
        seen = plain(record, None)
        unfinished = (board.records[need] for need in record.order.depends_on if need in board.records)
        seen.needs = [r.order.name for r in unfinished if r.state is not State.DONE]
        found.append(seen)
    return found


def plain(record: Record, floor: Floor | None) -> Seen:
    """One order as plain values; ``floor`` is one that is opened on its run, None for an order of no run."""
    seen = Seen(record.order.name, record.state.value)
    seen.title = record.order.title
    attempt = record.attempt
    seen.reason, seen.message, seen.question = record.reason or "", record.message, record.question
    seen.merge, seen.answer = record.merge, record.order.deliverable is Deliverable.ANSWER
    seen.progress = attempt.progress if attempt and not attempt.outcome else ""
    seen.attempts = len(record.attempts)
    seen.since = attempt.begun_at if attempt else None
    seen.idle_since = attempt.idle_since if attempt else None
    seen.outcome = attempt.outcome if attempt else ""
    session = held(record)
    if session is not None:
        seen.session, seen.session_lives = session_word(session.name, session.pid), holders.alive(session)
    seen.goes_on = attempt is not None and holders.goes_on(attempt)
    seen.gateway = attempt is not None and holders.through_gateway(attempt)
    seen.taken = record.assignee or record.elsewhere
    if not record.assignee and not record.order.run:
        seen.aside = record.elsewhere
        said = record.order.metadata.get("blocking_notes") or seen.message
        seen.message = str(said or (attempt.message if attempt else ""))
    ended = record.state in FINISHED
    seen.wishes = [] if ended else [(one.field, one.theirs) for one in record.collisions]
    if record.state is State.READY and record.retry_at is not None:
        seen.wakes_in_s = remaining(record.retry_delay_s, record.retry_at, time.time())
    if record.state is State.READY and floor is not None:
        order = record.order.id
        records = floor.board.records
        seen.needs = [records[need].order.name for need in floor.plan.waits_for(order) if need in records]
        seen.held = floor.entry.held(record)
        account = floor.entry.kept_out(record)
        seen.account = account.name if account is not None else ""
        holder = floor.plan.held_by(order)
        seen.holder = records[holder].order.name if holder else ""
    return seen


def _shape(
    seen: Glance, floor: Floor, run: Run | None, controller: dict[str, Any] | None, now: float
) -> dict[str, Any]:
    orders = []
    if run is not None:
        for record in (floor.board.records[order] for order in run.orders):
            row, attempt = plain(record, floor), record.attempt
            orders.append(
                {
                    "id": record.order.id,
                    "name": record.order.name,
                    "title": record.order.title,
                    "state": shown(row, alive=seen.alive),
                    "why": why(row, seen, now),
                    "collisions": msgspec.to_builtins(record.collisions),
                    "reason": record.reason,
                    "attempts": len(record.attempts),
                    "question": record.question,
                    "permission": record.permission,
                    "progress": row.progress,
                    "agent": record.order.agent or run.agent,
                    "session": msgspec.to_builtins(held(record)),
                    "cost_usd": record.cost_usd,
                    "branch": attempt.branch if attempt else "",
                    "commit": record.commit,
                    "merge": record.merge,
                }
            )
    return {
        "run": msgspec.to_builtins(run) if run else None,
        "controller": controller,
        "paused": seen.paused,
        "accounts": [msgspec.to_builtins(one) | {"reset_at": one.reset_at} for one in floor.board.accounts.values()],
        "counts": {name: number for name, number in seen.counts.items() if number},
        "spent_usd": seen.spent,
        "orders": orders,
        "loose": [
            {"id": row.name, "title": row.title, "state": shown(row, alive=seen.alive), "why": why(row, seen, now)}
            for row in seen.loose
        ],
    }
