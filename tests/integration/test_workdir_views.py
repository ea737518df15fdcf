"""`work_orders.jsonl`: what other programs read there, and what happens to what they write there."""

import asyncio
import json
import os
import sqlite3
import threading
import tracemalloc
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from shopfloor.domain.events import E
from shopfloor.ports import Query
from shopfloor.stores import revision
from shopfloor.stores.views import ORDERS
from shopfloor.stores.workdir import WorkdirStore

from .workdir import claimed, created, event, finish, open_store, running, start


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / ".work"


def view(folder: Path) -> list[dict[str, Any]]:
    content = (folder / ORDERS).read_text(encoding="utf-8")
    assert content.endswith("\n")
    return [json.loads(line) for line in content.splitlines()]


def rewrite(folder: Path, lines: list[dict[str, Any]]) -> bytes:
    """As a peer does it: truncate and write. Dated back, so that the file counts as left alone."""
    path = folder / ORDERS
    content = "".join(json.dumps(line, separators=(",", ":")) + "\n" for line in lines).encode()
    path.write_bytes(content)
    past = path.stat().st_mtime - 10
    os.utime(path, (past, past))
    return content


async def told(store: WorkdirStore) -> list[tuple[str, dict[str, Any]]]:
    """What was taken in from other programs, or told of."""
    return [(found.event_type, found.data) async for _, found in store.read() if found.actor.startswith("file:")]


async def until_told(store: WorkdirStore, count: int = 1) -> list[tuple[str, dict[str, Any]]]:
    async with asyncio.timeout(20):
        while len(found := await told(store)) < count:
            await store.wait(1 << 40, 0.05)
    return found


async def wait_for_view(store: WorkdirStore, folder: Path, states: list[str]) -> None:
    async with asyncio.timeout(20):
        while (
            not (folder / ORDERS).exists() or [one["metadata"]["shopfloor"]["state"] for one in view(folder)] != states
        ):
            await store.wait(1 << 40, 0.05)


async def test_without_a_controller_it_is_there_at_once(folder: Path) -> None:
    async with open_store(folder) as store:
        for number in range(3):
            await store.append([created(f"wo-n{number}")])
            assert [line["id"] for line in view(folder)] == [f"wo-n{n}" for n in range(number + 1)]
        assert view(folder)[0]["title"] == "a title"


async def test_with_a_controller_it_follows_soon(folder: Path) -> None:
    async with open_store(folder) as store:
        await store.lead({})
        await store.append([created("wo-a1"), created("wo-b2")])
        await wait_for_view(store, folder, ["ready", "ready"])
        await store.append([claimed("wo-a1")])
        await wait_for_view(store, folder, ["running", "ready"])
        assert view(folder)[0]["assignee"] == "robot"


async def test_a_program_beside_a_controller_leaves_it_alone(folder: Path) -> None:
    script = """
    async def main():
        async with store:
            await store.lead({})
            say("leads")
            await asyncio.Event().wait()
    asyncio.run(main())
    """
    with running(script, folder):
        async with open_store(folder) as store:
            await store.append([created("wo-a1")])
        assert not (folder / ORDERS).exists(), "the controller never looked"


async def test_closing_leaves_it_up_to_date(folder: Path) -> None:
    async with open_store(folder) as store:
        await store.lead({})
        await store.append([created("wo-a1"), claimed("wo-a1")])
    assert [line["status"] for line in view(folder)] == ["in_progress"]


async def test_what_a_killed_controller_left_is_brought_up_to_date(folder: Path) -> None:
    async with open_store(folder) as store:
        await store.append([created("wo-a1"), created("wo-b2")])
    before = (folder / ORDERS).read_bytes()
    async with open_store(folder) as store:
        await store.lead({})
        await store.append([claimed("wo-b2")])
    (folder / ORDERS).write_bytes(before)  # as if it had been killed before it got that far
    async with open_store(folder) as store:
        await store.lead({})
        await wait_for_view(store, folder, ["ready", "running"])
        assert await told(store) == [], "an echo is no edit"


async def test_lines_keep_their_order_and_untouched_ones_their_bytes(folder: Path) -> None:
    async with open_store(folder) as store:
        await store.lead({})
        await store.append([created(f"wo-n{number}") for number in range(5)])
        await wait_for_view(store, folder, ["ready"] * 5)
        before = (folder / ORDERS).read_bytes().splitlines()
        await store.append([claimed("wo-n2")])
        await wait_for_view(store, folder, ["ready", "ready", "running", "ready", "ready"])
        after = (folder / ORDERS).read_bytes().splitlines()
    assert [n for n in range(5) if before[n] != after[n]] == [2]


async def test_a_file_with_many_lines_is_brought_up_to_date_without_having_it_in_memory(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(revision, "CHUNK", 1 << 14)
    async with open_store(folder) as store:
        await store.append([created(f"wo-n{number}") for number in range(4_000)])
        await store.append([created("wo-last")])
        size = (folder / ORDERS).stat().st_size
        assert size > 1 << 20
        tracemalloc.start()
        try:
            for number in range(20, 40):
                await store.append([event(E.UPDATED, work_order_id=f"wo-n{number}", changes={"title": "Anew"})])
            left, most = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
    assert [line["id"] for line in view(folder) if line["title"] == "Anew"] == [f"wo-n{n}" for n in range(20, 40)]
    assert most < size / 4
    assert left < size / 8


async def test_nor_when_who_wrote_it_last_was_killed_before_it_could_say_so(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(revision, "CHUNK", 1 << 14)
    said = "key IN ('view', 'view_digest', 'view_signature')"
    async with open_store(folder) as store:
        await store.append([created(f"wo-n{number}") for number in range(4_000)])
        with closing(sqlite3.connect(folder / "index.sqlite")) as index:
            before = index.execute(f"SELECT key, value FROM meta WHERE {said}").fetchall()
        await store.append([event(E.UPDATED, work_order_id="wo-n7", changes={"title": "Anew, and longer"})])
    assert view(folder)[7]["title"] == "Anew, and longer"
    with closing(sqlite3.connect(folder / "index.sqlite")) as index, index:
        index.executemany("UPDATE meta SET value = ? WHERE key = ?", [(value, key) for key, value in before])
    async with open_store(folder) as store:
        tracemalloc.start()
        try:
            await store.append([event(E.UPDATED, work_order_id="wo-n8", changes={"title": "Anew as well"})])
            _, most = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
    assert [line["title"] for line in view(folder)[6:9]] == ["a title", "Anew, and longer", "Anew as well"]
    assert most < (folder / ORDERS).stat().st_size / 4


async def test_foreign_keys_stay_and_foreign_lines_become_orders(folder: Path) -> None:
    async with open_store(folder) as store:
        await store.append([created("wo-a1"), created("wo-b2")])
    lines = view(folder)
    lines[0]["x_team"] = "infra"
    lines[0]["labels"] = ["urgent"]
    lines[0]["metadata"]["their"] = {"deep": [1]}
    stranger = {"id": "wo-theirs", "title": "theirs", "status": "hooked", "zzz": None, "yyy": 3}
    rewrite(folder, [stranger, *lines])
    async with open_store(folder) as store:
        await store.lead({})
        await store.append([claimed("wo-a1")])
    theirs, first, _second = view(folder)
    assert (theirs["id"], theirs["title"], theirs["status"], theirs["yyy"]) == ("wo-theirs", "theirs", "hooked", 3)
    assert (first["status"], first["x_team"], first["labels"]) == ("in_progress", "infra", ["urgent"])
    assert first["metadata"]["their"] == {"deep": [1]}
    (folder / ORDERS).unlink()
    (folder / "index.sqlite").unlink()
    async with open_store(folder) as store:
        await store.append([event()])
        assert view(folder)[0]["x_team"] == "infra", "the log has it"


async def test_an_edit_while_the_controller_runs_is_taken_in(folder: Path) -> None:
    async with open_store(folder) as store:
        await store.lead({})
        await store.append([created("wo-a1")])
        await wait_for_view(store, folder, ["ready"])
        lines = view(folder)
        lines[0]["priority"] = 0
        rewrite(folder, lines)
        [(kind, edit)] = await until_told(store)
        assert (kind, edit["work_order_id"], edit["changes"]) == (E.UPDATED, "wo-a1", {"priority": 0})
        [row] = await store.query(Query())
        assert row["priority"] == 0


async def test_an_echo_is_no_edit(folder: Path) -> None:
    async with open_store(folder) as store:
        await store.lead({})
        await store.append([created("wo-a1"), created("wo-b2")])
        await wait_for_view(store, folder, ["ready", "ready"])
        old = view(folder)
        await store.append([claimed("wo-b2")])
        await store.append([created("wo-c3")])
    (folder / "index.sqlite").unlink()
    go = [{key: line[key] for key in list(line)[:9]} for line in old]
    go[0]["created_at"] = go[0]["created_at"].replace(".000Z", "Z")
    for foreign in (old, list(reversed(old)), go, []):
        rewrite(folder, foreign)
        async with open_store(folder) as store:
            await store.append([event()])
            assert await told(store) == []
        found = {line["id"]: line["status"] for line in view(folder)}
        assert found == {"wo-a1": "open", "wo-b2": "in_progress", "wo-c3": "open"}, "a missing id is no deletion"
        assert all("metadata" in line for line in view(folder))


async def test_damaged_lines_stay_and_are_told_of_once(folder: Path) -> None:
    async with open_store(folder) as store:
        await store.append([created("wo-a1")])
    path = folder / ORDERS
    damaged = b'{"id":"wo-a1","sta\xff\n[]\n{"id":"wo-x","title":7}\n{"id":"../x","title":"t"}\n'
    path.write_bytes(damaged + path.read_bytes())
    os.utime(path, (1, 1))
    for number in range(3):
        async with open_store(folder) as store:
            await store.append([created(f"wo-n{number}")])
            [(kind, report)] = await told(store)
        assert kind == E.PROBLEM
        lines = sorted((one["line"], one["value"]) for one in report["lines"])
        assert lines == [(1, '{"id":"wo-a1","sta\ufffd'), (2, "[]"), (3, "7"), (4, '"../x"')]
        assert path.read_bytes().startswith(damaged)
        assert path.read_bytes().count(b'{"id":"wo-a1"') == 2
        path.write_bytes(path.read_bytes() + b"\n")
        os.utime(path, (1, 1))


async def test_two_lines_for_one_order_become_one_and_the_newest_counts(folder: Path) -> None:
    async with open_store(folder) as store:
        await store.append([created("wo-a1"), created("wo-b2")])
    first, second = view(folder)
    newest = {**second, "priority": 1, "updated_at": "2031-01-01T00:00:00Z"}
    older = {**second, "priority": 3, "title": "newer title", "updated_at": "2030-01-01T00:00:00Z"}
    strangers = [{"id": "wo-s", "title": "one", "updated_at": "2030-01-01T00:00:00Z"}, {"id": "wo-s", "title": "two"}]
    rewrite(folder, [first, second, first, newest, older, *strangers])
    async with open_store(folder) as store:
        await store.append([created("wo-c3")])
    lines = {line["id"]: line for line in view(folder)}
    assert [line["id"] for line in view(folder)] == ["wo-a1", "wo-b2", "wo-s", "wo-c3"]
    assert (lines["wo-b2"]["priority"], lines["wo-b2"]["title"]) == (1, "newer title")
    assert lines["wo-s"]["title"] == "one"


async def test_a_peer_in_the_middle_of_writing_is_waited_for(folder: Path) -> None:
    async with open_store(folder) as store:
        await store.lead({})
        await store.append([created("wo-a1")])
        await wait_for_view(store, folder, ["ready"])
        lines = view(folder)
        lines[0]["priority"] = 1
        whole = "".join(json.dumps(line) + "\n" for line in [*lines, {"id": "wo-theirs", "title": "t"}])
        path = folder / ORDERS
        with path.open("w", encoding="utf-8") as file:
            file.write(whole[:50])
            file.flush()
            await store.append([created("wo-b2")])
            assert not await store.wait(1 << 40, 0.6), "time enough for a hasty rewrite"
            assert path.read_text(encoding="utf-8") == whole[:50]
            file.write(whole[50:])
        edits = await until_told(store, 2)
        wanted = [(E.UPDATED, "wo-a1"), (E.CREATED, "wo-theirs")]
        assert [(kind, edit["work_order_id"]) for kind, edit in edits] == wanted


async def test_peers_that_append_all_the_time_lose_nothing(folder: Path) -> None:
    stop = threading.Event()
    names: list[str] = []

    def peer() -> None:
        while not stop.is_set():
            name = f"wo-peer{len(names)}"
            descriptor = os.open(folder / ORDERS, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
            os.write(descriptor, json.dumps({"id": name, "title": "t"}).encode() + b"\n")
            os.close(descriptor)
            names.append(name)
            stop.wait(0.15)

    async with open_store(folder) as store:
        await store.lead({})
        await store.append([created("wo-a1")])
        await wait_for_view(store, folder, ["ready"])
        thread = threading.Thread(target=peer)
        thread.start()
        try:
            for number in range(12):
                await store.append([created(f"wo-n{number}")])
                await store.wait(1 << 40, 0.1)
        finally:
            stop.set()
            thread.join()
    found = [line["id"] for line in view(folder)]
    assert sorted(found) == sorted(["wo-a1", *names, *(f"wo-n{number}" for number in range(12))])


async def test_a_view_that_cannot_be_written_is_only_reported(folder: Path) -> None:
    folder.mkdir()
    (folder / ORDERS).mkdir()
    async with open_store(folder) as store:
        await store.append([created("wo-a1")])
        assert [row["id"] for row in await store.query(Query())] == ["wo-a1"]
        [meta] = await store.query(Query(what="meta"))
    [problem] = meta["problems"]
    assert problem["file"] == ORDERS


SEVERAL = """
async def main():
    from shopfloor.domain.board import creation
    from shopfloor.domain.order import Order
    async with store:
        for number in range(25):
            order = f"wo-p{sys.argv[2]}n{number}"
            await store.append([Event(order, "work_order.created", "2026-01-06T12:00:00.000Z", "human", None,
                                      creation(Order(id=order, name=order, title="t")))])
            assert f'"{order}"' in (folder / "work_orders.jsonl").read_text(), "there at once"
asyncio.run(main())
"""


async def test_several_programs_without_a_controller(folder: Path) -> None:
    for process in [start(SEVERAL, folder, str(number)) for number in range(4)]:
        finish(process)
    assert len({line["id"] for line in view(folder)}) == len(view(folder)) == 100
    async with open_store(folder) as store:
        assert await told(store) == []
