"""``status`` straight from ``index.sqlite``: one read-only look, no decoding of records in Python.

Only answers where it is certain to say the same as the log would; returns None otherwise.
"""

import fcntl
import os
import sqlite3
import time

from shopfloor.cli.glance import FINAL, RANK, SHOWN, Glance, Seen, shown, text
from shopfloor.cli.words import screen

SCHEMA = 1
"""The layout of the index that is understood here; see ``stores/index.py``."""
UNUSUAL = (sqlite3.Error, OSError, ValueError, TypeError)
"""What a damaged, locked or strange index raises: the full command is asked instead."""
_ROWS = f"""
SELECT name, state, reason, message, merge, attempts, json_extract(blob, '$.question'),
  json_extract(blob, '$.order.deliverable') = 'answer', json_extract(blob, '$.attempts[#-1].started_at'),
  json_extract(blob, '$.attempts[#-1].idle_since'), id,
  json_extract(blob, '$.attempts[#-1].outcome')
FROM orders WHERE run = ? AND state <> 'done'
ORDER BY CASE state {" ".join(f"WHEN '{state}' THEN {n}" for n, state in enumerate(RANK))} END, rowid LIMIT {SHOWN}
"""  # noqa: S608 - nothing in it comes from outside
_NEEDS = """
FROM orders o, json_each(o.blob, '$.order.depends_on') d JOIN orders p ON p.id = d.value
WHERE o.run = ? AND o.state = 'ready' AND p.state <> 'done' AND NOT (p.state = 'verified' AND ? = 'off')
"""
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
        if seen is None or _size(work) != db.execute("SELECT value FROM meta WHERE key = 'offset'").fetchone()[0]:
            return None
    finally:
        db.close()
    return text(seen, now=time.time(), width=screen()[0])


def _size(work: str) -> int:
    return os.stat(f"{work}/events.jsonl").st_size  # noqa: PTH116 - pathlib costs 11 ms


def _glance(db: sqlite3.Connection, work: str) -> Glance | None:
    meta = dict(db.execute("SELECT key, value FROM meta"))
    if meta.get("schema") != SCHEMA:
        return None
    found = Glance()
    found.pid = _controller(db, work)
    found.alive = found.pid > 0
    floor = meta.get("floor") or "{}"
    found.paused = bool(db.execute("SELECT json_extract(?, '$.paused')", (floor,)).fetchone()[0])
    run = db.execute("SELECT id FROM runs ORDER BY seq DESC LIMIT 1").fetchone()
    if run is None:
        return found
    found.run = run[0]
    fields = ", ".join(f"json_extract(blob, '$.{name}')" for name in _RUN)
    row = db.execute(f"SELECT {fields} FROM runs WHERE id = ?", run).fetchone()  # noqa: S608 - fixed names
    *row, held, landing_held = row
    found.branch, found.land, found.finished_at, found.started_at, found.last_at, found.budget, found.mirror_why = row
    told = held != "{}" or landing_held or found.mirror_why
    if told or _elsewhere(db, found.run) or _by_plan(db, found.run):
        return None
    _take_orders(db, found)
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
    states = ", ".join(f"'{state}'" for state in FINAL)
    query = f"SELECT 1 FROM orders WHERE run <> ? AND run <> '' AND state NOT IN ({states}) LIMIT 1"  # noqa: S608
    return db.execute(query, (run,)).fetchone() is not None


def _by_plan(db: sqlite3.Connection, run: str) -> bool:
    """True when an order may wait for a file or a time, which the plan knows and the index does not."""
    query = """SELECT 1 FROM orders WHERE run = ? AND state = 'ready' AND (
        json_array_length(blob, '$.order.files') > 0 OR json_extract(blob, '$.retry_delay_s') > 0) LIMIT 1"""
    return db.execute(query, (run,)).fetchone() is not None


def _take_orders(db: sqlite3.Connection, found: Glance) -> None:
    values = (found.run, found.land)
    for row in db.execute(_ROWS, (found.run,)).fetchall():
        seen = Seen(row[0], row[1])
        seen.reason, seen.message, seen.merge, seen.attempts, seen.question = row[2:7]
        seen.answer = bool(row[7])
        seen.since, seen.idle_since = row[8:10]
        seen.outcome = row[11] or ""
        if seen.state == "ready":
            needs = db.execute(f"SELECT p.name {_NEEDS} AND o.id = ?", (*values, row[10]))
            seen.needs = [name for (name,) in needs]
        found.rows.append(seen)
    held = db.execute(f"SELECT count(DISTINCT o.id) {_NEEDS}", values).fetchone()[0]
    grouped = db.execute(
        """SELECT state, merge <> '', json_extract(blob, '$.order.deliverable') = 'answer',
        json_extract(blob, '$.accepted'), json_extract(blob, '$.attempts[#-1].outcome') <> '', count(*), sum(cost_usd)
        FROM orders WHERE run = ? GROUP BY 1, 2, 3, 4, 5""",
        (found.run,),
    )
    for state, merged, is_answer, accepted, ended, number, cost in grouped.fetchall():
        seen = Seen("", state)
        seen.merge, seen.answer = "x" if merged else "", bool(is_answer)
        seen.outcome = "x" if ended else ""
        word = shown(seen, alive=found.alive)
        found.counts[word] = found.counts.get(word, 0) + number
        if cost is not None:
            found.spent = (found.spent or 0.0) + cost
        resting = state in FINAL or (state == "verified" and found.land != "auto" and not accepted)
        found.open += 0 if resting else number
    found.counts["ready"] = found.counts.get("ready", 0) - held
    found.counts["waiting"] = held
