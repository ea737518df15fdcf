"""The log on disk: what it looks like, what is refused, what happens to damaged ends."""

import asyncio
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from shopfloor.domain.errors import Conflict, Refused
from shopfloor.ports import Query
from shopfloor.stores.codec import encode
from shopfloor.stores.workdir import WorkdirStore

from .workdir import event, finish, open_store, start, types


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / ".work"


def lines(folder: Path) -> list[bytes]:
    return (folder / "events.jsonl").read_bytes().split(b"\n")


async def problems(folder: Path) -> list[tuple[int, str]]:
    async with open_store(folder) as store:
        [meta] = await store.query(Query(what="meta"))
    return [(problem["line"], problem["what"]) for problem in meta["problems"]]


async def test_permissions_are_private(folder: Path) -> None:
    before = os.umask(0)
    try:
        async with open_store(folder) as store:
            await store.lead({})
            await store.append([event()])
    finally:
        os.umask(before)
    assert folder.stat().st_mode & 0o777 == 0o700
    modes = {path.name: path.stat().st_mode & 0o777 for path in folder.iterdir()}
    assert set(modes.values()) == {0o600}, modes


async def test_looking_creates_nothing(folder: Path) -> None:
    async with open_store(folder) as store:
        assert await store.query(Query()) == []
        assert not await store.wait(0, 0.0)
        assert await types(store) == []
    assert not folder.exists()


async def test_who_is_cancelled_takes_nobody_along_who_shares_the_write(folder: Path) -> None:
    async with open_store(folder) as store:
        await store.append([event("first")])
        busy = asyncio.create_task(store.query(Query()))
        both = [asyncio.create_task(store.append([event(name)])) for name in ("given.up", "waited.for")]
        await asyncio.sleep(0)
        both[0].cancel()
        await asyncio.wait([busy, *both])
        assert both[0].cancelled()
        assert [found.event_type for found in both[1].result()] == ["waited.for"]
        assert await types(store) == ["first", "given.up", "waited.for"]


async def test_a_store_that_looked_first_keeps_its_index(folder: Path) -> None:
    async with open_store(folder) as store:
        assert await store.query(Query()) == []
        await store.append([event()])
    assert (folder / "index.sqlite").exists()


async def test_a_torn_tail_is_closed_and_kept(folder: Path) -> None:
    async with open_store(folder) as store:
        await store.append([event("first")])
    torn = b'{"event_id":"evt-torn","event_ty'
    before = (folder / "events.jsonl").read_bytes() + torn
    (folder / "events.jsonl").write_bytes(before)
    assert [line for line, _ in await problems(folder)] == [3], "seen before it is closed"
    async with open_store(folder) as store:
        assert await types(store) == ["first"]
        await store.append([event("second")])
        assert await types(store) == ["first", "second"]
    after = (folder / "events.jsonl").read_bytes()
    assert after.startswith(before + b"\n{")
    assert [line for line, _ in await problems(folder)] == [3]


async def test_a_whole_line_of_ours_without_newline_was_never_acknowledged(folder: Path) -> None:
    async with open_store(folder) as store:
        await store.append([event("first")])
        [stray] = await store.append([event("stray")])
    log = folder / "events.jsonl"
    log.write_bytes(log.read_bytes().removesuffix(b"\n"))
    async with open_store(folder) as store:
        [after] = await store.append([event("after")])
        assert await types(store) == ["first", "after"]
        assert stray.sf is not None
        assert after.sf is not None
    assert [line for line, _ in await problems(folder)] == [3]


async def test_a_whole_line_of_others_without_newline_counts(folder: Path) -> None:
    async with open_store(folder) as store:
        await store.append([event("first")])
        with (folder / "events.jsonl").open("ab") as log:
            log.write(encode(event("theirs")).removesuffix(b"\n"))
        assert await types(store) == ["first"], "it may be half of a line"
        await store.append([event("second")])
        assert await types(store) == ["first", "theirs", "second"]
    assert await problems(folder) == []


async def test_a_damaged_line_in_the_middle_is_named(folder: Path) -> None:
    async with open_store(folder) as store:
        await store.append([event("first")])
        with (folder / "events.jsonl").open("ab") as log:
            log.write(b"\x1b[31mnot json\xff\n")
        await store.append([event("second")])
        assert await types(store) == ["first", "second"]
        [meta] = await store.query(Query(what="meta"))
    [problem] = meta["problems"]
    assert (problem["file"], problem["line"]) == ("events.jsonl", 3)
    assert problem["offset"] == len(b"\n".join(lines(folder)[:2])) + 1
    assert "not json" in problem["piece"]
    assert problem["piece"].isprintable()


async def test_a_log_of_a_newer_version_is_read_but_not_written(folder: Path) -> None:
    async with open_store(folder) as store:
        await store.append([event("first")])
    log = folder / "events.jsonl"
    log.write_bytes(log.read_bytes().replace(b'"schema":1', b'"schema":2'))
    async with open_store(folder) as store:
        assert await types(store) == ["first"]
        with pytest.raises(Refused, match="schema 2"):
            await store.append([event()])
    async with open_store(folder) as store:
        with pytest.raises(Refused, match="schema 2"):  # known from the index as well
            await store.append([event()])


async def test_a_file_where_the_folder_belongs(folder: Path) -> None:
    folder.write_text("")
    async with open_store(folder) as store:
        with pytest.raises(Refused, match="is a file") as caught:
            await store.append([event()])
        assert "mv " in caught.value.hint
        with pytest.raises(Refused, match="is a file"):
            await store.query(Query())


async def test_a_missing_parent(tmp_path: Path) -> None:
    async with open_store(tmp_path / "no" / ".work") as store:
        with pytest.raises(Refused, match="is not there") as caught:
            await store.lead({})
    assert str(tmp_path / "no") in caught.value.hint


async def test_a_replaced_log_stops_its_controller_only(folder: Path) -> None:
    async with open_store(folder) as leader, open_store(folder) as other:
        await leader.lead({})
        await other.append([event("first")])
        (folder / "events.jsonl").unlink()
        with pytest.raises(Conflict, match=r"events\.jsonl"):
            await leader.append([event("stray")])
        await other.append([event("second")])
        assert await types(other) == ["second"]


async def test_a_cut_log_stops_its_controller_only(folder: Path) -> None:
    async with open_store(folder) as leader, open_store(folder) as other:
        await leader.lead({})
        await other.append([event("first")])
        await leader.append([event("second")])
        log = folder / "events.jsonl"
        os.truncate(log, log.stat().st_size - 10)
        with pytest.raises(Conflict, match="became shorter"):
            await leader.append([event("stray")])
        await other.append([event("third")])
        assert await types(other) == ["first", "third"]


async def test_a_change_of_any_size_of_event_is_bounded(folder: Path) -> None:
    async with open_store(folder) as store:
        with pytest.raises(Refused, match="bytes long"):
            await store.append([event("stray", text="x" * (17 << 20))])
        await store.append([event("large", text="x" * (8 << 20))])
        assert await types(store) == ["large"]


async def test_events_of_a_torn_change_do_not_count(folder: Path) -> None:
    async with open_store(folder) as store:
        await store.append([event("first")])
        await store.append([event("torn"), event("torn"), event("torn")])
    log = folder / "events.jsonl"
    log.write_bytes(b"\n".join(lines(folder)[:-2]) + b"\n")
    with log.open("ab") as file:
        file.write(encode(event("theirs")))
    async with open_store(folder) as store:
        assert await store.wait(0, 0.0)
        assert await types(store) == ["first", "theirs"]
        rows = await store.query(Query(what="events"))
        assert [row["event_type"] for row in rows][1:] == ["first", "theirs"]
        await store.append([event("second")])
        assert await types(store) == ["first", "theirs", "second"]
    assert [line for line, _ in await problems(folder)] == [3]


# -- disks that do not play along -----------------------------------------------------------------------------------


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    place = tmp_path / "disk"
    place.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=256k", "tmpfs", str(place)], check=False, capture_output=True
    )
    if mounted.returncode:
        pytest.skip(f"cannot mount a small disk: {mounted.stderr.decode().strip()}; run it as root")
    yield place
    subprocess.run(["umount", "-l", str(place)], check=True)


async def test_a_full_disk_refuses_and_loses_nothing(small_disk: Path) -> None:
    folder = small_disk / ".work"
    acknowledged: list[str] = []

    async def fill(store: WorkdirStore) -> None:
        for number in range(10_000):
            await store.append([event(f"n.{number}", text="x" * 5_000), event(f"n.{number}")])
            acknowledged.extend([f"n.{number}"] * 2)

    async with open_store(folder) as store:
        with pytest.raises(Refused, match="no space left on device") as caught:
            await fill(store)
        assert "free space" in caught.value.hint
        assert "events.jsonl" in caught.value.message
        assert await types(store) == acknowledged, "nothing of the refused change counts"
        for path in folder.glob("index.sqlite*"):
            path.unlink()
        (folder / "feed.jsonl").unlink(missing_ok=True)
        await store.append([event("after")])
        assert await types(store) == [*acknowledged, "after"]
    async with open_store(folder) as store:
        assert await types(store) == [*acknowledged, "after"]


async def test_a_read_only_disk_is_readable(small_disk: Path) -> None:
    folder = small_disk / ".work"
    async with open_store(folder) as store:
        await store.append([event("first")])
    subprocess.run(["mount", "-o", "remount,ro", str(small_disk)], check=True)
    async with open_store(folder) as store:
        assert await types(store) == ["first"]
        assert len(await store.query(Query(what="events"))) == 2
        with pytest.raises(Refused, match="read-only file system") as caught:
            await store.append([event()])
        assert "mount it writable" in caught.value.hint
        with pytest.raises(Refused, match="read-only"):
            await store.lead({})


LIMITED = """
import msgspec, resource
from shopfloor.domain.events import Stamp
from shopfloor.stores.codec import encode

async def main():
    acknowledged: list[str] = []
    async with store:
        await store.append([event("first")])
        size = (folder / "events.jsonl").stat().st_size
        line = len(encode(msgspec.structs.replace(event("n0.a"), sf=Stamp(0, 3, 0, 2))))
        room = size + int(sys.argv[2]) * line + int(sys.argv[3])
        resource.setrlimit(resource.RLIMIT_FSIZE, (room, resource.RLIM_INFINITY))
        answers = await asyncio.gather(
            *(store.append([event(f"n{n}.a"), event(f"n{n}.b")]) for n in range(5)), return_exceptions=True
        )
        resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
        for answer in answers:
            if isinstance(answer, ShopfloorError):
                say(f"refused {answer.message} {answer.hint}")
            else:
                say("ok " + " ".join(stamped.event_id for stamped in answer))
        await store.append([event("last")])
asyncio.run(main())
"""


@pytest.mark.parametrize("lines_fit", [0, 1, 2, 4, 9])
@pytest.mark.parametrize("bytes_more", [-3, -2, -1, 0, 1, 2, 100])
async def test_a_write_that_stops_anywhere(folder: Path, lines_fit: int, bytes_more: int) -> None:
    said = finish(start(LIMITED, folder, str(lines_fit), str(max(bytes_more, 0) if not lines_fit else bytes_more)))
    counted = [name for line in said if line.startswith("ok") for name in line.split()[1:]]
    refused = [line for line in said if line.startswith("refused")]
    assert len(refused) + len(counted) // 2 == 5
    assert refused, "there is room for some only"
    assert all("file too large" in line and "ulimit" in line for line in refused)
    async with open_store(folder) as store:
        ids = [found.event_id async for _, found in store.read() if found.event_type == "note.taken"]
    assert ids == ["first", *counted, "last"]
