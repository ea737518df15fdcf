"""What the index says of the orders of no run: all of them, those that changed lately, or a piece of them at a time."""

from __future__ import annotations

import sqlite3
from typing import Any

from shopfloor.domain.order import FINISHED, State
from shopfloor.ports import Query

_FINISHED = ", ".join(f"'{state}'" for state in sorted(FINISHED))
_STATES = {"finished": f"IN ({_FINISHED})", "unfinished": f"NOT IN ({_FINISHED})"}
_STATES |= {str(state): f"= '{state}'" for state in State}
_NEWEST = "SELECT coalesce(max(rowid), 0) FROM orders"
_LAST = "SELECT coalesce(max(value), 0) FROM meta WHERE key = 'last'"
_COUNTS = "SELECT state, sum(number) FROM tallies WHERE run = '' AND number > 0 GROUP BY state"


def row(db: sqlite3.Connection, query: Query) -> dict[str, Any]:
    """The answer to a question about ``loose``, as of one moment: other processes may be writing the index."""
    # The plus keeps SQLite from looking through all of them for the few that changed.
    plus = "+" if (query.after or query.limit) and not query.urgent else ""
    by = ("priority, rowid" if query.urgent else "changed") + f" LIMIT {int(query.limit)}" if query.limit else "+rowid"
    state = f" AND {plus}state {_STATES[query.state]}" if query.state in _STATES else ""
    where = f"{plus}run = '' AND changed > ?{state}"
    sql = f"SELECT rowid, changed, blob FROM orders WHERE {where} ORDER BY {by}"  # noqa: S608 - values are bound
    db.execute("BEGIN")
    try:
        rows = db.execute(sql, (query.after,)).fetchall()
        (newest,) = db.execute(_NEWEST).fetchone()
        (last,) = db.execute(_LAST).fetchone()
        states = dict(db.execute(_COUNTS).fetchall())
    finally:
        if db.in_transaction:  # some errors have ended it
            db.execute("COMMIT")
    return {
        "position": rows[-1][1] if 0 < query.limit == len(rows) else last,
        "records": [found[2] for found in rows],
        "ages": [found[0] for found in rows],
        "newest": newest,
        "states": states,
    }
