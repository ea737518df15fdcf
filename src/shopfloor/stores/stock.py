"""A board from the index: the fold of the log without reading the log, whole or as much of it as is needed."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import msgspec

from shopfloor.domain.board import Board, Request, Run, at_rest
from shopfloor.domain.order import AT_WORK, FINAL, Record, State
from shopfloor.domain.quota import Account
from shopfloor.domain.talk import Message
from shopfloor.ports import Query

AT_ONCE = 500
"""Ids in one question."""

_record_decoder = msgspec.json.Decoder(Record)
_run_decoder = msgspec.json.Decoder(Run)
_BUSY = sorted(AT_WORK | {State.VERIFIED})


def floor_of(board: Board) -> str:
    """What the index keeps of a board beside its records and runs, as JSON."""
    known = {
        "paused": board.paused,
        "uncounted": board.uncounted,
        "controller": board.controller,
        "controller_info": board.controller_info,
        "last_event": board.last_event,
        "requests": list(board.requests.values()),
        "mail": list(board.mail.values()),
        "accounts": board.accounts,
    }
    return msgspec.json.encode(known).decode()


def bare(db: sqlite3.Connection) -> Board:
    """The board without a single order."""
    board = Board()
    row = db.execute("SELECT value FROM meta WHERE key = 'floor'").fetchone()
    floor: dict[str, Any] = msgspec.json.decode(row[0]) if row else {}
    board.paused = floor.get("paused", False)
    board.uncounted = floor.get("uncounted", 0)
    board.controller = floor.get("controller", 0)
    board.controller_info = floor.get("controller_info", {})
    board.last_event = floor.get("last_event", "")
    board.accounts = msgspec.convert(floor.get("accounts", {}), dict[str, Account])
    for request in msgspec.convert(floor.get("requests", []), list[Request]):
        board.requests[request.event_id] = request
    for message in msgspec.convert(floor.get("mail", []), list[Message]):
        board.mail[message.id] = message
    for (blob,) in db.execute("SELECT blob FROM runs ORDER BY seq"):
        run = _run_decoder.decode(blob)
        board.runs[run.id] = run
    return board


def take(db: sqlite3.Connection, query: Query, meant: Sequence[str]) -> Board:
    """The board that a query asks for; ``meant`` are the ids of the orders that it names."""
    board = bare(db)
    if query.order:
        _put(board, _around(db, board, meant))
        board.absent = set(board.runs)
    elif query.run or query.state:
        _whole_runs(db, board, _open_runs(db, board) if query.state else {query.run})
    else:
        _put(board, _decoded(db.execute("SELECT blob FROM orders ORDER BY rowid")))
    return board


def _put(board: Board, records: Iterable[Record]) -> None:
    for record in records:
        order = record.order
        board.records[order.id] = record
        if order.run in board.runs:
            board.runs[order.run].orders.append(order.id)


def _decoded(rows: Iterable[tuple[bytes]]) -> Iterator[Record]:
    return (_record_decoder.decode(blob) for (blob,) in rows)


def _open_runs(db: sqlite3.Connection, board: Board) -> set[str]:
    """Runs that were not seen to finish, those that have an order which is not at rest, the newest, and none at all."""
    found = {run.id for run in board.runs.values() if run.finished_at is None} | {"", *list(board.runs)[-1:]}
    final = ", ".join(f"'{state}'" for state in sorted(FINAL))
    groups = f"SELECT DISTINCT run, state, accepted FROM tallies WHERE number > 0 AND state NOT IN ({final})"  # noqa: S608
    for run, state, accepted in db.execute(groups):
        rests = state == State.VERIFIED and not accepted and run in board.runs and board.runs[run].land != "auto"
        found |= set() if rests else {run}
    return found


def _whole_runs(db: sqlite3.Connection, board: Board, wanted: set[str]) -> None:
    """All orders of these runs, and of the runs in which lies what they wait for."""
    here: set[str] = set()
    found: dict[int, Record] = {}
    while wanted:
        here |= wanted
        needs: set[str] = set()
        for run in wanted:
            for row, blob in db.execute("SELECT rowid, blob FROM orders WHERE run = ?", (run,)):
                record = found[row] = _record_decoder.decode(blob)
                needs.update(record.order.depends_on)
        needs.difference_update([record.order.id for record in found.values()])
        wanted = {run for (run,) in of(db, "run", needs)} - here
    _put(board, (found[row] for row in sorted(found)))
    board.absent = board.runs.keys() - here


def _around(db: sqlite3.Connection, board: Board, meant: Sequence[str]) -> Iterator[Record]:
    """These orders; when only one is meant, also what it waits for and what is at work beside it."""
    found = {row: _record_decoder.decode(blob) for row, blob in of(db, "rowid, blob", meant)}
    if len(found) == 1:
        (order,) = (record.order for record in found.values())
        run = board.runs.get(order.run)
        beside = [*of(db, "rowid, blob", order.depends_on)]
        if run is not None and order.files:
            states = ", ".join("?" * len(_BUSY))
            sql = f"SELECT rowid, blob FROM orders WHERE run = ? AND state IN ({states})"  # noqa: S608 - values are bound
            if run.land != "auto":
                sql += f" AND (state <> '{State.VERIFIED}' OR accepted)"
            beside += db.execute(sql, (order.run, *_BUSY))
        for row, blob in beside:
            record = _record_decoder.decode(blob)
            if row not in found and (record.order.id in order.depends_on or not at_rest(record, run)):
                found[row] = record
    return (found[row] for row in sorted(found))


def of(
    db: sqlite3.Connection, columns: str, orders: Iterable[str], *, table: str = "orders"
) -> Iterator[tuple[Any, ...]]:
    """Columns of these orders, as far as they are there, in any order."""
    ids = list(orders)
    for first in range(0, len(ids), AT_ONCE):
        some = ids[first : first + AT_ONCE]
        marks = ", ".join("?" * len(some))
        yield from db.execute(f"SELECT {columns} FROM {table} WHERE id IN ({marks})", some)  # noqa: S608 - values are bound


def put_generations(db: sqlite3.Connection, generations: Mapping[str, int]) -> None:
    """Keep what was claimed; no generation falls."""
    db.executemany(
        "INSERT INTO generations VALUES (?, ?) "
        "ON CONFLICT(id) DO UPDATE SET generation = max(generation, excluded.generation)",
        generations.items(),
    )
