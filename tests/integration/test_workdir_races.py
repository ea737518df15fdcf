"""Moments that chance seldom shows: another program acts exactly in between, or the disk lies."""

import errno
import os
import threading
from pathlib import Path
from typing import Self

import msgspec
import pytest

from shopfloor.domain.errors import Refused
from shopfloor.domain.events import E, Event, Stamp
from shopfloor.ports import Query
from shopfloor.stores.codec import encode
from shopfloor.stores.files import Lock
from shopfloor.stores.follow import Follower
from shopfloor.stores.index import Index
from shopfloor.stores.log import Log
from shopfloor.stores.views import ORDERS

from .workdir import created, event, open_store, types


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / ".work"


def grow(folder: Path, *events: Event) -> None:
    """A controller appends and is gone before it wrote the index."""
    folder.mkdir(exist_ok=True)
    path = folder / "events.jsonl"
    with path.open("ab") as log:
        for one in events:
            number = 1 + path.read_bytes().count(b"\n")
            log.write(encode(msgspec.structs.replace(one, sf=Stamp(1, number))))
            log.flush()


def run_started() -> Event:
    return event(E.RUN_STARTED, run_id="run-1")


class Reader:
    """A process that reads the log, step by step."""

    def __init__(self, folder: Path) -> None:
        self.log = Log(folder)
        self.follower = Follower(self.log)

    def follow(self) -> None:
        self.follower.follow(alone=False, may_restart=False)

    def orders(self) -> list[str]:
        return [row["id"] for row in self.follower.ask(lambda index: index.orders(Query()))]

    def sessions(self) -> list[int]:
        return [row["sessions"] for row in self.follower.ask(lambda index: index.runs(Query(what="runs")))]

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.follower.close()
        self.log.close()


def test_another_process_was_faster_with_the_index(folder: Path) -> None:
    grow(folder, run_started())
    with Reader(folder) as slow, Reader(folder) as fast:
        slow.follow()
        fast.follow()
        fast.follower.flush()
        slow.follower.flush()
        assert slow.sessions() == fast.sessions() == [1], "nothing is folded in twice"


def test_another_process_is_ahead_with_the_index(folder: Path) -> None:
    grow(folder, created("wo-a1"))
    with Reader(folder) as slow, Reader(folder) as fast:
        slow.follow()
        grow(folder, run_started(), created("wo-b2"))
        fast.follow()
        fast.follower.flush()
        before = fast.follower.ask(Index.mark)
        slow.follower.flush()
        assert fast.follower.ask(Index.mark) == before, "it does not go back"
        slow.follow()
        assert slow.sessions() == fast.sessions() == [1]
        assert slow.orders() == fast.orders() == ["wo-a1", "wo-b2"]


def test_another_process_took_in_a_part(folder: Path) -> None:
    grow(folder, created("wo-a1"))
    with Reader(folder) as slow, Reader(folder) as fast:
        slow.follower.flush()
        slow.follow()
        grow(folder, run_started())
        slow.follow()
        fast.follow()
        fast.follower.flush()
        grow(folder, created("wo-b2"))
        slow.follow()
        slow.follower.flush()
        assert slow.orders() == ["wo-a1", "wo-b2"]
        assert slow.sessions() == [1]


def test_another_process_began_the_index_anew(folder: Path) -> None:
    grow(folder, created("wo-a1"), created("wo-b2"))
    with Reader(folder) as reader:
        reader.follow()
        reader.follower.flush()
        other = Index(folder / "index.sqlite")
        with other.transaction():
            other.clear()
        other.close()
        grow(folder, created("wo-c3"))
        reader.follow()
        assert reader.orders() == ["wo-a1", "wo-b2", "wo-c3"]


def test_a_lock_on_a_deleted_file_is_none(folder: Path) -> None:
    folder.mkdir()
    here, there = Lock(folder / ".lock"), Lock(folder / ".lock")
    entered = threading.Event()

    def enter() -> None:
        with here.held():
            entered.set()

    with here.held():
        pass
    (folder / ".lock").unlink()
    thread = threading.Thread(target=enter)
    with there.held():
        thread.start()
        assert not entered.wait(0.2)
    assert entered.wait(20)
    thread.join()
    here.close()
    there.close()


async def test_a_peer_appends_while_its_file_is_replaced(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    really = Path.replace
    late = [b'{"id":"wo-late","title":"t"}\n']

    def replace(self: Path, target: Path) -> Path:
        if target.name == ORDERS and target.exists() and late:
            with target.open("ab") as file:
                file.write(late.pop())
        return really(self, target)

    monkeypatch.setattr(Path, "replace", replace)
    async with open_store(folder) as store:
        await store.append([created("wo-a1")])
        await store.append([created("wo-b2")])
        assert not late
        content = (folder / ORDERS).read_bytes()
        assert b"wo-late" in content
        assert b"wo-b2" in content
        assert "view.edited" in await types(store)


async def test_what_is_acknowledged_was_synced(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    really = os.fdatasync
    synced: dict[int, int] = {}

    def fdatasync(descriptor: int) -> None:
        really(descriptor)
        there = os.fstat(descriptor)
        synced[there.st_ino] = there.st_size

    monkeypatch.setattr(os, "fdatasync", fdatasync)
    async with open_store(folder) as store:
        for _ in range(3):
            await store.append([event(), event()])
            there = (folder / "events.jsonl").stat()
            assert synced[there.st_ino] == there.st_size


async def test_names_are_synced_before_anything_is_acknowledged(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    really = os.fsync
    synced = []

    def fsync(descriptor: int) -> None:
        really(descriptor)
        synced.append(Path(f"/proc/self/fd/{descriptor}").readlink())

    monkeypatch.setattr(os, "fsync", fsync)
    async with open_store(folder) as store:
        await store.append([event()])
        assert {folder, folder.parent} <= set(synced)


async def test_a_disk_that_cannot_sync_is_believed_no_more(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fdatasync(_descriptor: int) -> None:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    async with open_store(folder) as store:
        await store.append([event("first")])
        with monkeypatch.context() as broken:
            broken.setattr(os, "fdatasync", fdatasync)
            with pytest.raises(Refused, match="make durable") as caught:
                await store.append([event("unsure")])
            assert "input/output error" in caught.value.message
        with pytest.raises(Refused, match="make durable"):
            await store.append([event("later")])
    async with open_store(folder) as store:
        await store.append([event("again")])
        assert [name for name in await types(store) if name != "unsure"] == ["first", "again"]
