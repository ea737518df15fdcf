"""An index that was made of much at once is the one that was kept with every change, table by table."""

from __future__ import annotations

import contextlib
import errno
import sqlite3
from pathlib import Path
from typing import Any

import pytest

from campaigns._history import write as write_history
from shopfloor.domain.board import creation
from shopfloor.domain.events import E
from shopfloor.domain.order import Order
from shopfloor.ports import Query
from shopfloor.stores import database, follow, index, log, tally
from shopfloor.stores.index import Index

from .test_workdir_boards import told, write
from .workdir import open_store, start

MANY = 10**6

_ALL = {"events_order", "needs_behind", "orders", "orders_change", "orders_new", "orders_run", "tallies"}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / ".work"


def tables(folder: Path) -> dict[str, list[Any]]:
    """Every row of every table, and what there is beside tables."""
    with contextlib.closing(sqlite3.connect(folder / "index.sqlite")) as db:
        made = db.execute("SELECT name, type, sql FROM sqlite_master ORDER BY name").fetchall()
        found = {name: db.execute(f"SELECT * FROM {name}").fetchall() for name, kind, _ in made if kind == "table"}
        found["birth"] = db.execute("SELECT id FROM orders ORDER BY rowid").fetchall()
    # Counts that came down to nothing; what was published when.
    found["tallies"] = [row for row in found["tallies"] if row[-3]]
    found["meta"] = [row for row in found["meta"] if not row[0].startswith("view")]
    assert {name for name, _, _ in made} >= _ALL
    in_order = found.pop("birth")
    return {"made": made, "birth": in_order, **{name: sorted(rows, key=repr) for name, rows in found.items()}}


async def written(folder: Path, seed: int) -> dict[str, list[Any]]:
    """Write a story, with an index that takes in a few changes at a time."""
    async with open_store(folder) as store:
        await write(store, seed)
    return tables(folder)


def in_leaps(
    monkeypatch: pytest.MonkeyPatch, events: int, kept: int, *, opened: int = 3, bytes_from: int = -1
) -> list[int]:
    """Make every step a leap; how many events each of them took in is in the list."""
    monkeypatch.setattr(follow, "LEAP", bytes_from)
    monkeypatch.setattr(follow, "MOST_AT_ONCE", events)
    monkeypatch.setattr(index, "MOST_OPEN", opened)
    monkeypatch.setattr(index, "MORE_KEPT", kept)
    monkeypatch.setattr(log, "CHUNK", 1 << 11 if bytes_from < 0 else log.CHUNK)
    taken = []
    leap = index.Index.advance_far

    def counted(self: index.Index, *of: Any) -> None:
        before = self.mark().events
        leap(self, *of)
        taken.append(self.mark().events - before)

    monkeypatch.setattr(index.Index, "advance_far", counted)
    return taken


@pytest.mark.parametrize(
    ("seed", "events", "most"),
    [
        (0, MANY, (MANY, 3)),
        (1, MANY, (3, 3)),
        (2, 60, (MANY, 3)),
        (3, 5, (3, 3)),
        (4, MANY, (3, MANY)),
        (5, 60, (5, MANY)),
    ],
)
async def test_it_is_the_same(
    folder: Path, seed: int, events: int, most: tuple[int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    want = await written(folder, seed)
    database.remove(folder)
    taken = in_leaps(monkeypatch, events, most[0], opened=most[1])
    async with open_store(folder) as store:
        await store.query(Query(limit=1))
    assert tables(folder) == want
    assert (len(taken) == 1) == (events == MANY)
    assert sum(taken) > len(want["events"]) / 2, "the rest is less than a quarter of what is there"


def test_a_long_log_is_taken_in_so(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_history(folder, orders=1_200, base="b" * 40)
    taken = in_leaps(monkeypatch, MANY, MANY, bytes_from=follow.LEAP)
    made = follow_all(folder)
    assert taken == [len(made["events"])]
    database.remove(folder)
    monkeypatch.setattr(follow, "LEAP", 1 << 40)
    assert follow_all(folder) == made
    assert len(taken) == 1
    assert len(made["needs"]) == 480


def follow_all(folder: Path) -> dict[str, list[Any]]:
    follower = follow.Follower(log.Log(folder))
    follower.follow(alone=False, may_restart=False)
    follower.flush()
    follower.close()
    return tables(folder)


KILLED = """
import os, signal
from shopfloor.stores import follow, log, tally
follow.LEAP = -1
tally.count = lambda *_: os.kill(os.getpid(), signal.SIGKILL)
follower = follow.Follower(log.Log(folder))
follower.follow(alone=False, may_restart=False)
"""


async def test_killed_half_way_nothing_of_it_was_kept(folder: Path) -> None:
    want = await written(folder, 4)
    database.remove(folder)
    process = start(KILLED, folder)
    process.communicate(timeout=30)
    assert process.returncode == -9
    with contextlib.closing(sqlite3.connect(folder / "index.sqlite")) as db:
        assert db.execute("SELECT count(*) FROM events").fetchone() == (0,)
        assert db.execute("SELECT count(*) FROM sqlite_master WHERE type = 'trigger'").fetchone() == (2,)
    assert follow_all(folder) == want


async def test_a_failure_half_way_leaves_nothing_out(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    want = await written(folder, 5)
    database.remove(folder)
    in_leaps(monkeypatch, MANY, MANY)
    count = tally.count
    full = iter([sqlite3.OperationalError("the disk is full"), KeyboardInterrupt()])

    def fails(*of: Any) -> None:
        problem = next(full, None)
        if problem is not None:
            raise problem
        count(*of)

    monkeypatch.setattr(tally, "count", fails)
    follower = follow.Follower(log.Log(folder))
    with pytest.raises(KeyboardInterrupt):
        follower.follow(alone=False, may_restart=False)
    follower.follow(alone=False, may_restart=False)
    follower.flush()
    follower.close()
    assert tables(folder) == want


@pytest.mark.parametrize("late", [False, True])
async def test_what_a_run_lands_changes_who_waits(folder: Path, monkeypatch: pytest.MonkeyPatch, *, late: bool) -> None:
    """Verified work counts as delivered from when its run does not land any more, or is first heard of."""
    runs = [[told(E.RUN_STARTED, "run-1", run_id="run-1", land=land)] for land in ("auto", "off")]
    orders = [Order(id="wo-1", name="1", title="t"), Order(id="wo-2", name="2", title="t", depends_on=("wo-1",))]
    about: dict[str, Any] = {"work_order_id": "wo-1", "generation": 1}
    life = [
        [told(E.CREATED, "run-1", **creation(order)) for order in orders],
        [told(E.ASSIGNED, "run-1", **about, attempt="wo-1.a1")],
        [told(E.AGENT_STOPPED, "run-1", **about, outcome="completed", commit="c")],
        [told(E.VERIFY_VERDICT, "run-1", **about, verdict="PASS", commit="c")],
    ]
    async with open_store(folder) as store:
        await store.lead({})
        for change in [*life, *runs[1:]] if late else [runs[0], *life, *runs[1:]]:
            await store.append(change)
            await store.query(Query(limit=1))
    want = tables(folder)
    assert [row[-1] for row in want["orders"]] == [0, 0], "nobody waits"
    database.remove(folder)
    in_leaps(monkeypatch, MANY, 0)
    monkeypatch.setattr(log, "CHUNK", 1)
    assert follow_all(folder) == want


def test_who_had_the_old_one_open_goes_over_to_the_new_one(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_history(folder, orders=100, base="b" * 40)
    slow, fast = follow.Follower(log.Log(folder)), follow.Follower(log.Log(folder))
    assert slow.published() == 0, "it has an index of nothing open"
    in_leaps(monkeypatch, MANY, MANY)
    fast.follow(alone=False, may_restart=False)
    want = fast.ask(lambda made: list(made.rows("SELECT id FROM orders ORDER BY id")))
    assert len(want) == 100
    assert slow.ask(lambda made: list(made.rows("SELECT id FROM orders ORDER BY id"))) == want
    slow.ask(lambda made: made.put(view=7))
    assert fast.published() == 7, "both have the same one"
    for follower in (slow, fast):
        follower.close()
    assert sorted(path.name for path in folder.glob("index*")) == ["index.sqlite"]


def test_one_that_came_in_between_is_replaced(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Somebody finds no index while the old one is gone and the new one not there yet, and begins one."""
    folder.mkdir()
    place = folder / "index.sqlite"
    others = [Index(place)]
    link = Path.hardlink_to

    def late(self: Path, new: Path) -> None:
        if len(others) < 3:
            others.append(Index(place))
        link(self, new)

    monkeypatch.setattr(Path, "hardlink_to", late)
    with database.beside(place) as db:
        made = Index(place, db)
        with made.transaction():
            made.put(view=9)
    assert [other.lost() for other in others] == [True] * 3
    for other in others:
        with other.transaction():
            other.put(view=1)
        other.close()
    with contextlib.closing(sqlite3.connect(place)) as db:
        assert db.execute("SELECT value FROM meta WHERE key = 'view'").fetchall() == [(9,)]
        assert db.execute("PRAGMA integrity_check").fetchall() == [("ok",)]


def test_one_that_is_replaced_while_it_is_opened_is_opened_again(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder.mkdir()
    place = folder / "index.sqlite"
    Index(place).close()
    which, left = database.which, [2]

    def replaced(path: Path) -> database.File | None:
        found = which(path)
        if path == place and left[0]:
            left[0] -= 1
            with database.beside(place) as db:
                Index(place, db)
        return found

    monkeypatch.setattr(database, "which", replaced)
    found = Index(place)
    monkeypatch.undo()
    assert not found.lost()
    assert left == [0]
    found.close()


def test_a_failure_leaves_the_old_one(folder: Path) -> None:
    folder.mkdir()
    place = folder / "index.sqlite"
    old = Index(place)
    (folder / "index.sqlite.new").write_bytes(b"left by a process that was killed")
    with pytest.raises(sqlite3.OperationalError, match="full"), database.beside(place):
        raise sqlite3.OperationalError("the disk is full")
    assert not old.lost()
    old.close()
    assert [path.name for path in folder.iterdir()] == ["index.sqlite"]


def test_one_is_made_where_the_file_system_has_no_links(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(*_of: object) -> None:
        raise PermissionError(errno.EPERM, "Operation not permitted")

    monkeypatch.setattr(Path, "hardlink_to", refused)
    place = tmp_path / "index.sqlite"
    with database.beside(place) as db:
        db.execute("CREATE TABLE whole (done)")
    with contextlib.closing(sqlite3.connect(place)) as db:
        assert db.execute("SELECT name FROM sqlite_master").fetchall() == [("whole",)]
    assert list(tmp_path.iterdir()) == [place]
