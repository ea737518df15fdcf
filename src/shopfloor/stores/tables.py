"""``index.sqlite``: what the log says, ready to be asked. Derived; delete it at any time.

Tables, for programs that read it with nothing but sqlite3 (open it with ``mode=ro``):

``meta(key, value)``
    ``layout``    number of this layout; anything else means: do not read on. ``shape``: fields of the records in here
    ``offset``    bytes of ``events.jsonl`` that are in here. Equal to the file's size: the index is as new as the log
    ``line``      lines before ``offset``
    ``identity``  digest of how the log begins and of the 4096 bytes before ``offset``
    ``events``    events that count; ``last`` is the position behind the newest of them
    ``sequence``  greatest sequence of a logical change; ``controller`` greatest generation of a controller;
                  ``schema`` greatest schema that a ``log.opened`` names
    ``floor``     JSON: ``paused``, ``uncounted``, ``controller_info``, ``requests`` (those that wait for an answer),
                  ``accounts`` (those that said they have nothing left)
    ``view``      offset that ``work_orders.jsonl`` was last published at; ``view_digest`` of its bytes then,
                  ``view_strangers`` JSON: digests of lines in it that speak of no order of ours
``orders(id, name, title, state, reason, message, priority, run, agent, generation, attempts, cost_usd, updated_at,
commit_id, merge, created_seq, changed, blob, accepted, answer, ended, planned, delivered, nano, files,
others, holder, waits)``
    one row for each order; ``reason`` and other texts are empty when there is none; ``rowid`` orders them by
    creation; ``changed`` is the position behind the last event about it; ``blob`` is the whole record as JSON.
    Yes or no: ``answer`` its deliverable is one, ``ended`` its newest attempt has, ``delivered`` nobody has to
    wait for it any more, ``waits`` it is ready, but for orders that are not delivered. ``planned``: it is ready, but a
    file (1) or a time (2) may keep it from starting. ``nano``: its cost in nano-USD; ``files``: paths, one a line;
    ``others``: another program has taken it, or wants of it what it does not get (1), or a person ends it (2);
    ``holder``: handle of the session that holds it, as JSON
``tallies(run, state, merged, answer, accepted, ended, waits, planned, number, priced, nano)``
    how many orders are alike in this, how many of them have a price, and the sum
``needs(id, need)``
    who waits for whom
``generations(id, generation)``
    the greatest generation claimed for an order, also for orders whose creation is not in the log
``events(start, size, event_type, order_id, run, timestamp)``
    where each event that counts lies in the log, newline included
``runs(id, seq, blob)``
    one row for each run in the order of their first start; ``blob`` is the run as JSON, without its list of orders
``problems(offset, line, what, piece)``
    lines that do not count
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable

from shopfloor.stores import tally

LAYOUT = 3
TABLES = (
    "CREATE TABLE meta(key TEXT PRIMARY KEY, value) WITHOUT ROWID",
    """CREATE TABLE orders(id TEXT PRIMARY KEY, name TEXT, title TEXT, state TEXT, reason TEXT, message TEXT,
    priority INTEGER, run TEXT, agent TEXT, generation INTEGER, attempts INTEGER, cost_usd REAL, updated_at REAL,
    commit_id TEXT, merge TEXT, created_seq INTEGER, changed INTEGER, blob BLOB, accepted INTEGER, answer INTEGER,
    ended INTEGER, planned INTEGER, delivered INTEGER, nano INTEGER, files TEXT, others INTEGER,
    holder TEXT, waits INTEGER)""",
    "CREATE TABLE generations(id TEXT PRIMARY KEY, generation INTEGER) WITHOUT ROWID",
    """CREATE TABLE events(start INTEGER PRIMARY KEY, size INTEGER, event_type TEXT, order_id TEXT, run TEXT,
    timestamp TEXT)""",
    "CREATE TABLE runs(id TEXT PRIMARY KEY, seq INTEGER, blob BLOB)",
    "CREATE TABLE problems(offset INTEGER PRIMARY KEY, line INTEGER, what TEXT, piece TEXT)",
    *tally.TABLES,
)
INDEXES = (
    "CREATE INDEX orders_state ON orders(state, priority)",
    "CREATE INDEX orders_run ON orders(run, state)",
    "CREATE INDEX orders_name ON orders(name)",
    "CREATE INDEX orders_changed ON orders(changed)",
    "CREATE INDEX orders_planned ON orders(run, name, files, id, planned) WHERE planned AND NOT waits",
    "CREATE INDEX orders_others ON orders(run) WHERE others",
    "CREATE INDEX events_order ON events(order_id, start) WHERE order_id <> ''",
    "CREATE INDEX events_run ON events(run, start) WHERE run <> ''",
    *tally.INDEXES,
)
"""What makes questions quick; much is taken in sooner without them, see :func:`drop_indexes`."""


def create(db: sqlite3.Connection) -> None:
    """Start again with nothing."""
    for (name,) in db.execute(_NAMED.format("table")).fetchall():
        db.execute(f'DROP TABLE "{name}"')
    for statement in TABLES:
        db.execute(statement)
    create_indexes(db)
    tally.start(db)


def drop_indexes(db: sqlite3.Connection) -> None:
    """Leave tables alone: what is written now is neither indexed nor counted."""
    for kind in ("index", "trigger"):
        for (name,) in db.execute(_NAMED.format(kind)).fetchall():
            db.execute(f'DROP {kind} "{name}"')


def create_indexes(db: sqlite3.Connection, going: Callable[[], None] = lambda: None) -> None:
    """Index what is there, and what comes; ``going`` is called before each step."""
    for statement in INDEXES:
        going()
        db.execute(statement)


_NAMED = "SELECT name FROM sqlite_master WHERE type = '{}' AND name NOT LIKE 'sqlite_%'"
