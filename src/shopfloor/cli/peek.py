"""``status`` straight from ``index.sqlite``: one read-only look, no decoding of records in Python.

Only answers where it is certain to say the same as the log would; returns None otherwise.
"""

import fcntl
import os
import sqlite3
import time

from shopfloor.cli.glance import FINAL, RANK, SHOWN, Glance, Seen, session_word, shown, text
from shopfloor.cli.words import screen
from shopfloor.domain.plan import Plan

SCHEMA, LAYOUT = 1, 3
"""The log and the layout of the index that are understood here; see ``stores/tables.py``."""
UNUSUAL = (sqlite3.Error, OSError, ValueError, TypeError)
"""What a damaged, locked or strange index raises: the full command is asked instead."""
_ROWS = """
SELECT name, state, reason, message, merge, attempts, json_extract(blob, '$.question'), answer,
  coalesce(json_extract(blob, '$.attempts[#-1].started_at'), CASE WHEN json_extract(blob, '$.attempts[#-1].call')
    THEN json_extract(blob, '$.attempts[#-1].claimed_at') END), json_extract(blob, '$.attempts[#-1].idle_since'), id,
  json_extract(blob, '$.attempts[#-1].outcome'), waits, json_extract(blob, '$.attempts[#-1].handle.driver'),
  json_extract(blob, '$.attempts[#-1].handle.name'), json_extract(blob, '$.attempts[#-1].handle.pid'),
  json_extract(blob, '$.attempts[#-1].progress')
FROM orders WHERE run = ? AND state = ? ORDER BY rowid LIMIT ?
"""
_NEEDS = "SELECT p.name FROM needs JOIN orders p ON p.id = needs.need WHERE needs.id = ? AND NOT p.delivered"
# SQLite knows no sizes here, and would look through all orders of the run; without the index the full command answers.
_PLANNED = """
SELECT id, name, files, planned FROM orders INDEXED BY orders_planned WHERE run = ? AND planned AND NOT waits
"""
_OTHERS = "SELECT 1 FROM orders INDEXED BY orders_others WHERE run = ? AND others AND others = 1 LIMIT 1"
_RETRY = "SELECT json_extract(blob, '$.retry_at'), json_extract(blob, '$.retry_delay_s') FROM orders WHERE id = ?"
_BUSY = """
SELECT id, name, files, state, accepted, ended FROM orders WHERE run = ? AND files <> ''
AND state IN ('running', 'asking', 'checking', 'verified', 'landing') ORDER BY rowid
"""
_MAIL = """SELECT count(*) FROM json_each(?, '$.mail') WHERE json_extract(value, '$.to') = 'human'
OR json_extract(value, '$.to') GLOB 'human:*'"""
_FINAL = ", ".join(f"'{state}'" for state in FINAL)
_ENDED = "'done', 'cancelled'"
_TIMED = 2
_RUN = (
    *("branch", "land", "finished_at", "session_at", "last_at", "budget_usd", "mirror_why", "held", "landing_held"),
)


def answer(work: str) -> str | None:
    """The text of ``status``, or None where only the full command can know."""
    path = f"{work}/index.sqlite".replace("%", "%25").replace("?", "%3f").replace("#", "%23")
    db = sqlite3.connect(f"file:{path}?mode=ro", uri=True, timeout=0.2, isolation_level=None)
    try:
        db.execute("BEGIN")
        seen = _glance(db, work)
        if seen is None or _edited(db, work, alive=seen.alive):
            return None
        if _size(work) != db.execute("SELECT value FROM meta WHERE key = 'offset'").fetchone()[0]:
            return None
    finally:
        db.close()
    return text(seen, now=time.time(), width=screen()[0])


def _edited(db: sqlite3.Connection, work: str, *, alive: bool) -> bool:
    """True when another program wrote the orders' file and nobody has looked at it yet."""
    if alive:
        return False  # the controller does
    try:
        there = os.stat(f"{work}/work_orders.jsonl")  # noqa: PTH116 - as below
    except FileNotFoundError:
        return False
    row = db.execute("SELECT value FROM meta WHERE key = 'view_signature'").fetchone()
    return row is None or row[0] != f"{there.st_ino}:{there.st_size}:{there.st_mtime_ns}"


def _size(work: str) -> int:
    return os.stat(f"{work}/events.jsonl").st_size  # noqa: PTH116 - pathlib costs 11 ms


def _glance(db: sqlite3.Connection, work: str) -> Glance | None:
    meta = dict(db.execute("SELECT key, value FROM meta"))
    if (meta.get("schema"), meta.get("layout")) != (SCHEMA, LAYOUT):
        return None
    found = Glance()
    found.pid = _controller(db, work)
    found.alive = found.pid > 0
    floor = meta.get("floor") or "{}"
    both = "SELECT json_extract(:floor, '$.paused'), json_extract(:floor, '$.accounts')"
    paused, accounts = db.execute(both, {"floor": floor}).fetchone()
    if accounts not in (None, "{}"):
        return None
    found.paused = bool(paused)
    found.mail = db.execute(_MAIL, (floor,)).fetchone()[0]
    if _loose(db):
        return None
    run = db.execute("SELECT id FROM runs ORDER BY seq DESC LIMIT 1").fetchone()
    if run is None:
        return found
    found.run = run[0]
    fields = ", ".join(f"json_extract(blob, '$.{name}')" for name in _RUN)
    row = db.execute(f"SELECT {fields} FROM runs WHERE id = ?", run).fetchone()  # noqa: S608 - fixed names
    *row, held, landing_held = row
    found.branch, found.land, found.finished_at, found.started_at, found.last_at, found.budget, found.mirror_why = row
    if held != "{}" or landing_held or found.mirror_why or _elsewhere(db, found.run) or _others(db, found.run):
        return None
    if not found.alive and (_sessions(db, found.run) or _terminals(work)):
        return None
    _take_orders(db, found, _Waiting(db, found))
    return found


def _controller(db: sqlite3.Connection, work: str) -> int:
    """The pid of the living controller, 0 without one: a fact from its lock."""
    try:
        descriptor = os.open(f"{work}/controller.lock", os.O_RDONLY)
    except FileNotFoundError:
        return 0
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        note = os.pread(descriptor, 4096, 0).decode()
        return int(db.execute("SELECT json_extract(?, '$.pid')", (note,)).fetchone()[0])
    finally:
        os.close(descriptor)
    return 0


def _elsewhere(db: sqlite3.Connection, run: str) -> bool:
    """True when an older run may be the one to show."""
    query = f"SELECT 1 FROM tallies WHERE run NOT IN (?, '') AND number > 0 AND state NOT IN ({_FINAL}) LIMIT 1"  # noqa: S608
    return db.execute(query, (run,)).fetchone() is not None


def _loose(db: sqlite3.Connection) -> bool:
    """True when orders of no run have not ended: somebody has to look who works on them."""
    query = f"SELECT 1 FROM tallies WHERE run = '' AND number > 0 AND state NOT IN ({_ENDED}) LIMIT 1"  # noqa: S608
    return db.execute(query).fetchone() is not None


class _Waiting:
    """The orders of a run that are ready but for a file or a time, as the plan would tell."""

    def __init__(self, db: sqlite3.Connection, found: Glance) -> None:
        self.holder: dict[str, str] = {}
        """order -> the name of the one that holds a file it needs"""
        self.wakes_in_s: dict[str, float] = {}
        plan = _at_work(db, found) if _any(db, found.run) else None
        if plan is None:
            return
        now, names = time.time(), {order: name for order, name, *_ in db.execute(_BUSY, (found.run,))}
        for order, _name, files, planned in db.execute(_PLANNED, (found.run,)):
            if planned == _TIMED:
                at, delay = db.execute(_RETRY, (order,)).fetchone()
                left = min(delay, max(0.0, delay - max(0.0, now - at))) if at is not None else 0.0
                self.wakes_in_s |= {order: left} if left > 0 else {}
            if files:
                plan.add(order, (0.0, 0, 0), (), files.split("\n"))
                held = plan.held_by(order)
                self.holder |= {order: names[held]} if held is not None else {}

    def __len__(self) -> int:
        return len(self.holder.keys() | self.wakes_in_s.keys())


def _any(db: sqlite3.Connection, run: str) -> bool:
    query = "SELECT 1 FROM tallies WHERE run = ? AND planned AND NOT waits AND number > 0 LIMIT 1"
    return db.execute(query, (run,)).fetchone() is not None


def _others(db: sqlite3.Connection, run: str) -> bool:
    """True when another program has taken an order of the run, or wants of it what it does not get."""
    return db.execute(_OTHERS, (run,)).fetchone() is not None


def _sessions(db: sqlite3.Connection, run: str) -> bool:
    """True when sessions hold orders of the run: without a controller somebody has to look whether they live."""
    query = "SELECT 1 FROM orders WHERE run = ? AND state = 'running' AND NOT ended AND agent GLOB 'session/*' LIMIT 1"
    return db.execute(query, (run,)).fetchone() is not None


def _terminals(work: str) -> bool:
    """True when agents may go on without a controller: somebody has to look which do."""
    try:
        os.stat(f"{work}/tmux.sock")  # noqa: PTH116 - as above
    except FileNotFoundError:
        return False
    return True


def _at_work(db: sqlite3.Connection, found: Glance) -> Plan:
    """A plan of what is at work, with its files held."""
    plan = Plan()
    for order, _name, files, state, accepted, ended in db.execute(_BUSY, (found.run,)).fetchall():
        rests = (state == "asking" and ended) or (state == "verified" and found.land != "auto" and not accepted)
        if not rests:
            plan.add(order, (0.0, 0, 0), (), files.split("\n"))
            plan.unqueue(order)
            plan.hold(order)
    return plan


def _take_orders(db: sqlite3.Connection, found: Glance, waiting: _Waiting) -> None:
    for state in RANK[:-1]:
        for row in db.execute(_ROWS, (found.run, state, SHOWN - len(found.rows))).fetchall():
            seen = Seen(row[0], row[1])
            seen.reason, seen.message, seen.merge, seen.attempts, seen.question = row[2:7]
            seen.answer = bool(row[7])
            seen.since, seen.idle_since = row[8:10]
            seen.outcome = row[11] or ""
            seen.progress = "" if seen.outcome else row[16] or ""
            if row[13] == "session" and not seen.outcome:
                seen.session = session_word(row[14], row[15])
            if row[12]:
                seen.needs = [name for (name,) in db.execute(_NEEDS, (row[10],))]
            seen.holder, seen.wakes_in_s = waiting.holder.get(row[10], ""), waiting.wakes_in_s.get(row[10], 0.0)
            found.rows.append(seen)
    nano = None
    for state, merged, is_answer, accepted, ended, waits, number, priced, cost in db.execute(
        """SELECT state, merged, answer, accepted, ended, waits, sum(number), sum(priced), sum(nano)
        FROM tallies WHERE run = ? AND number > 0 GROUP BY 1, 2, 3, 4, 5, 6""",
        (found.run,),
    ).fetchall():
        seen = Seen("", state)
        seen.merge, seen.answer = "x" if merged else "", bool(is_answer)
        seen.outcome = "x" if ended else ""
        seen.needs = ["x"] if waits else []
        word = shown(seen, alive=found.alive)
        found.counts[word] = found.counts.get(word, 0) + number
        nano = (nano or 0) + cost if priced else nano
        resting = state in FINAL or (state == "verified" and found.land != "auto" and not accepted)
        found.open += 0 if resting else number
    if len(waiting):
        found.counts["ready"] -= len(waiting)
        found.counts["waiting"] = found.counts.get("waiting", 0) + len(waiting)
    found.spent = None if nano is None else nano / 1e9
