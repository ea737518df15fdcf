"""Several programs on one folder: nothing acknowledged is lost, one controller at a time."""

import asyncio
import os
import signal
import threading
from pathlib import Path

import pytest

from shopfloor.domain.errors import Conflict
from shopfloor.ports import Query
from shopfloor.stores.codec import encode
from shopfloor.stores.lead import controller_alive

from .workdir import event, finish, open_store, running, start, types, until


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / ".work"


APPENDER = """
async def main():
    async with store:
        for number in range(int(sys.argv[3])):
            stamped = await store.append([event(f"p{sys.argv[2]}.{number}.{part}") for part in range(1 + number % 3)])
            say(" ".join(found.event_id for found in stamped))
asyncio.run(main())
"""

LEADER = """
async def main():
    async with store:
        await store.lead({"from": "a test"})
        say("leads")
        await asyncio.Event().wait()
asyncio.run(main())
"""


async def test_eight_appenders_and_a_stranger(folder: Path) -> None:
    async with open_store(folder) as store:
        await store.append([event("first")])
    processes = [start(APPENDER, folder, str(number), "200") for number in range(8)]
    foreign = []
    with (folder / "events.jsonl").open("ab", buffering=0) as log:  # as another program: no lock, no stamp
        while any(process.poll() is None for process in processes[:1]):
            foreign.append(event("theirs"))
            log.write(encode(foreign[-1]))
            threading.Event().wait(0.001)
    said = [line.split() for process in processes for line in finish(process)]
    async with open_store(folder) as store:
        found = [found async for _, found in store.read() if found.event_type == "note.taken"]
        strangers = [found.event_id async for _, found in store.read() if found.event_type == "theirs"]
        [meta] = await store.query(Query(what="meta"))
    assert strangers == [one.event_id for one in foreign]
    ids = [one.event_id for one in found]
    assert sorted(ids) == sorted(name for change in said for name in change)
    at = {name: place for place, name in enumerate(ids)}
    assert all(
        [at[name] for name in change] == list(range(at[change[0]], at[change[0]] + len(change))) for change in said
    )
    numbers = [one.sf.sequence for one in found if one.sf is not None and one.sf.index == 0]
    assert numbers == sorted(set(numbers)), "every change has its own number, in the order of the log"
    assert meta["problems"] == []
    assert meta["events"] == len(found) + len(foreign) + 2


FLOOD = """
async def one(worker):
    number = 0
    while True:
        stamped = await store.append([event(f"w{worker}.{number}.{part}") for part in range(3)])
        say(" ".join(found.event_id for found in stamped))
        number += 1
async def main():
    await store.lead({})
    await asyncio.gather(*(one(worker) for worker in range(20)))
asyncio.run(main())
"""


@pytest.mark.parametrize("lines_said", [1, 7, 300])
async def test_what_was_acknowledged_survives_a_kill(folder: Path, lines_said: int) -> None:
    acknowledged: list[str] = []
    process = start(FLOOD, folder)
    assert process.stdout is not None
    for _ in range(lines_said):
        acknowledged += process.stdout.readline().split()
    process.send_signal(signal.SIGKILL)
    rest, err = process.communicate()
    assert acknowledged, err
    acknowledged += " ".join(rest.split("\n")[:-1]).split()
    async with open_store(folder) as store:
        assert await store.lead({}) == 2, "the kernel freed the claim"
        ids = [found.event_id async for _, found in store.read() if found.event_type == "note.taken"]
        assert set(acknowledged) <= set(ids)
        changes = [name.rpartition(".")[0] for name in ids]
        assert changes[::3] == changes[1::3] == changes[2::3]
        [meta] = await store.query(Query(what="meta"))
        assert meta["problems"] == []
        assert (folder / "feed.jsonl").read_bytes() == (folder / "events.jsonl").read_bytes()


async def test_a_second_controller_is_told_of_the_first(folder: Path) -> None:
    assert controller_alive(folder) is None
    with running(LEADER, folder) as process:
        alive = controller_alive(folder)
        assert alive is not None
        assert (alive["pid"], alive["from"]) == (process.pid, "a test")
        async with open_store(folder) as store:
            with pytest.raises(Conflict, match=f"pid {process.pid} since 2026-01-06T12:00:00") as caught:
                await store.lead({})
            assert "shopfloor stop" in caught.value.hint
            await store.append([event("request.made")])
            assert controller_alive(folder) is not None
    assert controller_alive(folder) is None
    async with open_store(folder) as store:
        assert await store.lead({}) == 2
        alive = controller_alive(folder)
        assert alive is not None
        assert alive["pid"] == os.getpid()
    assert controller_alive(folder) is None


async def test_looking_for_a_controller_is_in_nobodys_way(folder: Path) -> None:
    async with open_store(folder) as store:
        await store.append([event()])
    (folder / "controller.lock").touch()
    stop = threading.Event()

    def look() -> None:
        while not stop.is_set():
            controller_alive(folder)

    lookers = [threading.Thread(target=look) for _ in range(2)]
    for looker in lookers:
        looker.start()
    try:
        for number in range(1, 20):
            async with open_store(folder) as store:
                assert await store.lead({}) == number
    finally:
        stop.set()
        for looker in lookers:
            looker.join()


async def test_an_append_of_another_process_wakes(folder: Path) -> None:
    async with open_store(folder) as store:
        await store.append([event("first")])
        after = [position async for position, _ in store.read()][-1]
        process = start(APPENDER, folder, "1", "1")
        assert await store.wait(after, 20.0)
        assert await types(store, after) == ["note.taken"]
        finish(process)
        [after] = [position async for position, _ in store.read(after)]
        assert not await store.wait(after, 0.0)


async def test_a_feed_that_a_crash_cut_off_is_mended(folder: Path) -> None:
    async with open_store(folder) as store:
        for _ in range(5):
            await store.append([event(), event()])
    log, feed = folder / "events.jsonl", folder / "feed.jsonl"
    whole = log.read_bytes()
    for lost in range(6):
        feed.write_bytes(b"".join(whole.splitlines(keepends=True)[: 11 - lost]))
        async with open_store(folder) as store:
            await store.lead({})
        assert feed.read_bytes() == log.read_bytes()
        whole = log.read_bytes()


async def test_a_hole_that_power_loss_left_in_the_feed_is_mended(folder: Path) -> None:
    async with open_store(folder) as store:
        for _ in range(3):
            await store.append([event(), event()])
    log, feed = folder / "events.jsonl", folder / "feed.jsonl"
    lines = log.read_bytes().splitlines(keepends=True)
    with log.open("ab") as file:
        file.write(b"not an event\n")
    feed.write_bytes(b"".join([*lines[:2], b"\0" * len(lines[2]), lines[3][9:], *lines[4:]]))
    async with open_store(folder) as store:
        await store.lead({})
    fed = feed.read_bytes().splitlines(keepends=True)
    assert set(lines) < set(fed)
    assert len(fed) == len(set(fed)), "nothing is told twice"
    assert b"not an event\n" not in fed


async def test_a_feed_that_cannot_be_written_is_only_reported(folder: Path) -> None:
    async with open_store(folder) as store:
        await store.append([event("first")])
        (folder / "feed.jsonl").unlink()
        (folder / "feed.jsonl").mkdir()
        await store.append([event("second")])
        assert await types(store) == ["first", "second"]
        [meta] = await store.query(Query(what="meta"))
    [problem] = meta["problems"]
    assert problem["file"] == "feed.jsonl"
    assert "watchers miss events" in problem["what"]


async def test_deleting_the_lock_file_loses_nothing(folder: Path) -> None:
    processes = [start(APPENDER, folder, str(number), "60") for number in range(3)]
    lock = folder / ".lock"
    until(lock.exists)
    removed = 0
    while processes[0].poll() is None:
        lock.unlink(missing_ok=True)
        removed += 1
        threading.Event().wait(0.005)
    said = [name for process in processes for line in finish(process) for name in line.split()]
    async with open_store(folder) as store:
        ids = [found.event_id async for _, found in store.read() if found.event_type == "note.taken"]
    assert removed
    assert sorted(ids) == sorted(said)


@pytest.mark.parametrize("turns", range(6))
async def test_a_wait_that_is_cancelled_as_it_is_woken_ends(folder: Path, turns: int) -> None:
    async with open_store(folder) as store:
        waiting = asyncio.create_task(store.wait(1 << 20, 30.0))
        await store.append([event("note.taken")])
        await store.query(Query(what="meta"))  # after its first look, which is done on the same thread
        await store.append([event("note.taken")])  # wakes it
        for _ in range(turns):
            await asyncio.sleep(0)
        waiting.cancel()
        async with asyncio.timeout(5.0):
            await asyncio.wait({waiting})
        assert waiting.cancelled()
