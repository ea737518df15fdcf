"""Moments that chance seldom shows: another program acts exactly in between, or the disk lies."""

import asyncio
import errno
import os
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Self

import msgspec
import pytest

from shopfloor.domain.errors import Refused
from shopfloor.domain.events import E, Event, Stamp
from shopfloor.ports import Query
from shopfloor.stores import files, views
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


LATE = b'{"id":"wo-late","title":"t"}\n'


def append_late(path: Path) -> None:
    with path.open("ab") as file:
        file.write(LATE)


def append_without_an_end(path: Path) -> None:
    with path.open("ab") as file:
        file.write(LATE[:-1])


def rename_over(path: Path) -> None:
    there = path.with_name("theirs")
    there.write_bytes(LATE)
    there.replace(path)


def truncate(path: Path) -> None:
    path.write_bytes(LATE)


async def test_a_peer_replaces_our_file_as_soon_as_it_is_there(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    really = files.sync_folder
    peers = [rename_over]

    def sync_folder(place: Path) -> None:
        really(place)
        if peers and (folder / ORDERS).exists():
            peers.pop()(folder / ORDERS)

    monkeypatch.setattr(files, "sync_folder", sync_folder)
    async with open_store(folder) as store:
        await store.append([created("wo-a1")])
        assert "wo-late" in {row["id"] for row in await store.query(Query())}


@pytest.mark.parametrize("peer", [append_late, append_without_an_end, rename_over, truncate])
async def test_a_peer_writes_while_its_file_is_replaced(
    folder: Path, monkeypatch: pytest.MonkeyPatch, peer: Callable[[Path], None]
) -> None:
    really = files._exchange
    peers = [peer]

    def exchange(one: Path, other: Path) -> bool:
        if peers:
            peers.pop()(other)
        return really(one, other)

    async with open_store(folder) as store:
        await store.lead({})
        await store.append([created("wo-a1")])
        async with asyncio.timeout(20):
            while not (folder / ORDERS).exists():
                await store.wait(1 << 40, 0.05)
        monkeypatch.setattr(files, "_exchange", exchange)
        monkeypatch.setattr(views, "LATE_S", 0.05)
        await store.append([created("wo-b2")])
        async with asyncio.timeout(20):
            while {row["id"] for row in await store.query(Query())} != {"wo-a1", "wo-b2", "wo-late"}:
                await store.wait(1 << 40, 0.05)
        made = [one.order_id async for _, one in store.read() if one.event_type == E.CREATED]
        assert made.count("wo-late") == 1
    there = sorted(line.split(b'"')[3] for line in (folder / ORDERS).read_bytes().splitlines())
    assert there == [b"wo-a1", b"wo-b2", b"wo-late"]


async def test_where_names_cannot_be_exchanged_a_file_is_replaced(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def exchange(_one: Path, other: Path) -> bool:
        append_late(other)
        return False

    async with open_store(folder) as store:
        await store.append([created("wo-a1")])
        with monkeypatch.context() as elsewhere:
            elsewhere.setattr(files, "_exchange", exchange)
            await store.append([created("wo-b2")])
        assert "wo-late" in {row["id"] for row in await store.query(Query())}


@pytest.mark.parametrize("moment", [0, 1])
async def test_a_peers_unended_line_and_ours_on_one_line_both_count(
    folder: Path, monkeypatch: pytest.MonkeyPatch, moment: int
) -> None:
    really = os.write
    theirs = encode(event("theirs"))[:-1]
    written = []

    def write(descriptor: int, data: bytes) -> int:
        written.append(data)
        if len(written) == moment + 1:
            with (folder / "events.jsonl").open("ab") as log:
                log.write(theirs)
        return really(descriptor, data)

    async with open_store(folder) as store:
        await store.append([event("first")])
        monkeypatch.setattr(os, "write", write)
        await asyncio.gather(store.append([event("one"), event("two")]), store.append([event("three")]))
        await store.append([event("last")])
        monkeypatch.undo()
        found = await types(store)
        assert sorted(found) == sorted(["first", "theirs", "one", "two", "three", "last"])
    async with open_store(folder) as store:
        assert await types(store) == found


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


def test_a_lock_is_waited_for_while_its_holder_says_that_it_is_busy(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder.mkdir()
    monkeypatch.setattr(files, "LOCK_TIMEOUT_S", 0.2)
    holder, other = Lock(folder / ".lock"), Lock(folder / ".lock")
    refused, entered = threading.Event(), threading.Event()

    def enter() -> None:
        try:
            with other.held():
                entered.set()
        except Refused:
            refused.set()

    with holder.held():
        thread = threading.Thread(target=enter)
        thread.start()
        end = time.monotonic() + 4 * files.LOCK_TIMEOUT_S
        while time.monotonic() < end:
            holder.busy()
            assert not refused.wait(0.01)
    thread.join(timeout=20)
    assert entered.is_set()
    with holder.held(), pytest.raises(Refused, match=r"has held .* for"), other.held():
        pass
    for lock in (holder, other):
        lock.close()
