"""Where results are kept: in memory, in an SQLite file, in PostgreSQL.

The table is ``agent_results``. Its first four columns are ``spec_id, code, success, latency_ms``, and whatever stands
behind them may be left out, so an INSERT that knows only these four works. A row of ours is named by its run and the
number of its specification: stored twice, it is one row.
"""

from __future__ import annotations

import asyncio
import sqlite3
import threading
from collections.abc import Awaitable, Callable, Sequence
from contextlib import closing
from importlib import import_module
from pathlib import Path
from typing import Any, Protocol

import msgspec

from shopfloor import Refused, ShopfloorError, UsageError
from shopfloor.faces.fanout.away import PATIENCE_S, Away, nobody, shown
from shopfloor.faces.fanout.results import Finished

INSTALL = "type: pip install 'shopfloor[fanout]'"
TABLE = "agent_results"
FIRST = ("spec_id", "code", "success", "latency_ms")
MORE = ("agent_id", "error", "tests", "attempt", "run", "number")
_POSTGRES = {
    "spec_id": "text", "code": "text", "success": "boolean", "latency_ms": "double precision", "agent_id": "text",
    "error": "text", "tests": "text", "attempt": "integer", "run": "text", "number": "integer",
    "created_at": "timestamptz DEFAULT now()",
}  # fmt: skip
_SQLITE = _POSTGRES | {"created_at": "text"}
"""a column that is added later can have no changing default in SQLite: the time is written with the row"""
_COLUMNS = ", ".join((*FIRST, *MORE))
_NEW = ", ".join(f"{name} = excluded.{name}" for name in (*FIRST, "agent_id", "error", "tests", "attempt"))
_ONCE = f"ON CONFLICT (run, number) DO UPDATE SET {_NEW}"
KEPT_HINT = "what has come back is in the log, and is stored when you go on: say it again with --resume"


class ResultStore(Protocol):
    """Keeps results."""

    async def open(self) -> None:
        """Connect and make the table. Raises Refused where that cannot be."""
        ...

    async def store(self, results: Sequence[Finished]) -> None:
        """Keep all of them or none; the same result again changes nothing. Raises ShopfloorError."""
        ...

    async def close(self) -> None:
        """Let go of it."""
        ...


def open_results(url: str | None, say: Callable[[str], None] = nobody) -> ResultStore:
    """The store that an address names: ``postgresql://…``, ``sqlite:FILE``; None is memory.

    ``say`` is told in a line when its server is away, and when it is back. Raises UsageError for any other address,
    Refused where the client is not installed.
    """
    if url is None or url == "memory":
        return MemoryResults()
    scheme, _, rest = url.partition(":")
    if scheme in ("postgresql", "postgres") and rest.startswith("//"):
        return PostgresResults(url, say=say)
    # As other programs write it, `sqlite:///` stands before a relative path and `sqlite:////` before an absolute one.
    path = rest.removeprefix("///")
    if scheme == "sqlite" and path and not path.startswith("//"):
        return SqliteResults(Path(path))
    raise UsageError(
        f"{shown(url)!r} is no place for results", hint="give postgresql://HOST/DATABASE or sqlite:FILE.db"
    )


class MemoryResults:
    """As long as this process lives."""

    def __init__(self) -> None:
        self.results: dict[tuple[str | None, int | None], Finished] = {}

    async def open(self) -> None:
        """Nothing."""

    async def store(self, results: Sequence[Finished]) -> None:
        """Keep them."""
        self.results.update({(result.run, result.number): result for result in results})

    async def close(self) -> None:
        """Nothing."""


class SqliteResults:
    """One file."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._db: sqlite3.Connection | None = None
        self._turn = threading.Lock()
        """whoever stops waiting for what is stored does not stop that"""

    async def open(self) -> None:
        """Make the file and the table where they are missing. Raises Refused."""
        try:
            await asyncio.to_thread(self._in_turn, self._open)
        except sqlite3.Error as problem:
            hint = "name a file that can be written, or leave --results out"
            raise Refused(f"results cannot be kept in {str(self.path)!r}: {problem}", hint=hint) from None

    async def store(self, results: Sequence[Finished]) -> None:
        """In one transaction."""
        try:
            await asyncio.to_thread(self._in_turn, self._store, [_row(result) for result in results])
        except sqlite3.Error as problem:
            told = f"results cannot be kept in {str(self.path)!r}: {problem}"
            raise ShopfloorError(told, hint=KEPT_HINT) from None

    async def close(self) -> None:
        """Close the file."""
        await asyncio.to_thread(self._in_turn, self._close)

    def _in_turn(self, act: Callable[..., None], *words: object) -> None:
        with self._turn:
            act(*words)

    def _close(self) -> None:
        if self._db is not None:
            self._db.close()
            self._db = None

    def _open(self) -> None:
        db = self._db = sqlite3.connect(self.path, check_same_thread=False, timeout=30)
        with db:
            db.execute(f"CREATE TABLE IF NOT EXISTS {TABLE} ({_declared(_SQLITE)})")
            with closing(db.execute(f"PRAGMA table_info({TABLE})")) as rows:
                there = {row[1] for row in rows}
            for name, kind in _SQLITE.items():
                if name not in there:
                    db.execute(f"ALTER TABLE {TABLE} ADD COLUMN {name} {kind}")
            db.execute(f"CREATE UNIQUE INDEX IF NOT EXISTS {TABLE}_once ON {TABLE} (run, number)")

    def _store(self, rows: Sequence[tuple[object, ...]]) -> None:
        assert self._db is not None
        marks = ", ".join("?" * (len(FIRST) + len(MORE)))
        now = "strftime('%Y-%m-%dT%H:%M:%fZ', 'now')"
        with self._db as db:
            db.executemany(
                f"INSERT INTO {TABLE} ({_COLUMNS}, created_at) VALUES ({marks}, {now}) {_ONCE}", rows  # noqa: S608
            )  # fmt: skip


class PostgresResults:
    """A PostgreSQL database. A lost connection is made again; a batch is stored whole or not at all."""

    def __init__(self, url: str, *, patience_s: float = PATIENCE_S, say: Callable[[str], None] = nobody) -> None:
        self.url = url
        self._driver = client("psycopg")
        self._away = Away("the database", url, (self._driver.OperationalError,), say, patience_s)
        self._db: Any = None

    async def open(self) -> None:
        """Connect and make the table. Raises Refused."""
        try:
            await self._connect()
        except self._driver.Error as problem:
            told = str(problem).strip().replace(self.url, shown(self.url))
            raise Refused(f"results cannot be kept in {shown(self.url)}: {told}", hint="is it up?") from None

    async def _connect(self) -> None:
        await self.close()
        db = self._db = await self._driver.AsyncConnection.connect(self.url, autocommit=True, connect_timeout=10)
        async with db.transaction():
            # Two that come at the same moment would both see no table, and one of them would fail to make it.
            await db.execute("SELECT pg_advisory_xact_lock(hashtext(%s))", (TABLE,))
            await db.execute(f"CREATE TABLE IF NOT EXISTS {TABLE} ({_declared(_POSTGRES)})")
            for name, kind in _POSTGRES.items():
                await db.execute(f"ALTER TABLE {TABLE} ADD COLUMN IF NOT EXISTS {name} {kind}")
            await db.execute(f"CREATE UNIQUE INDEX IF NOT EXISTS {TABLE}_once ON {TABLE} (run, number)")

    async def store(self, results: Sequence[Finished]) -> None:
        """One statement for all of them. Raises ShopfloorError, for a database that went away after a minute."""
        rows = [_row(result, without_nul=True) for result in results]
        columns = [list(column) for column in zip(*rows, strict=True)]
        kinds = ", ".join(f"%s::{_POSTGRES[name]}[]" for name in (*FIRST, *MORE))
        statement = f"INSERT INTO {TABLE} ({_COLUMNS}) SELECT * FROM unnest({kinds}) {_ONCE}"  # noqa: S608
        try:
            await self._away.patiently(lambda: self._execute(statement, columns))
        except self._driver.Error as problem:
            told = str(problem).strip().replace(self.url, shown(self.url))
            where = f"results cannot be kept in {shown(self.url)}"
            raise ShopfloorError(f"{where}: {told}", hint=KEPT_HINT) from None

    async def _execute(self, statement: str, columns: Sequence[Sequence[object]]) -> None:
        if self._db is None or self._db.closed:
            await self._connect()
        await self._db.execute(statement, columns)

    async def close(self) -> None:
        """Disconnect."""
        if self._db is not None:
            await self._db.close()
            self._db = None


def client(module: str) -> Any:
    """A client that comes with the extra. Raises Refused where it is not installed."""
    try:
        return import_module(module)
    except ImportError as problem:
        raise Refused(f"{module} is not installed: {problem}", hint=INSTALL) from None


def _declared(columns: dict[str, str]) -> str:
    return ", ".join(f"{name} {kind}" for name, kind in columns.items())


def _row(result: Finished, *, without_nul: bool = False) -> tuple[object, ...]:
    tests = msgspec.json.encode(result.tests).decode() if result.tests else None
    code, error = result.code, result.error
    if without_nul:  # which PostgreSQL takes in no text
        code, error = code.replace("\0", "�"), error.replace("\0", "�")
    first = (result.spec_id, code, result.success, result.latency_ms)
    return (*first, result.agent_id or None, error or None, tests, result.attempt, result.run, result.number)


LINGER_S = 0.02


class Writer:
    """Stores results in batches as they come: what comes while one is under way, or shortly before it, is the next."""

    def __init__(self, store: ResultStore, then: Callable[[Sequence[Finished]], Awaitable[None]]) -> None:
        """``then`` is awaited with every batch once it is stored."""
        self._store = store
        self._then = then
        self._waiting: dict[tuple[str | None, int | None], Finished] = {}
        self._some = asyncio.Event()
        self._closed = False

    def add(self, result: Finished) -> None:
        """Store this one soon."""
        self._waiting[result.run, result.number] = result
        self._some.set()

    def close(self) -> None:
        """Nothing more comes: ``run`` ends when all is stored."""
        self._closed = True
        self._some.set()

    async def run(self) -> None:
        """Store until closed. Raises ShopfloorError when the store does not take them."""
        while self._waiting or not self._closed:
            await self._some.wait()
            self._some.clear()  # before anything is taken: what comes from now on is seen by the next turn
            if not self._closed:
                await asyncio.sleep(LINGER_S)
            batch, self._waiting = list(self._waiting.values()), {}
            if batch:
                await self._store.store(batch)
                await self._then(batch)
