"""Sessions as real processes: they race, are killed, and are treated as they treat others."""

import asyncio
import json
import os
import random
import signal
import socket
import subprocess
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace

from benchmarks._race import Ack, Controller, Sessions, board_of, fill, journal, open_store, sessions
from shopfloor import spawn
from shopfloor.app import holders
from shopfloor.domain.board import creation
from shopfloor.domain.errors import Led, Refused
from shopfloor.domain.events import E
from shopfloor.domain.holder import Holder, Wanted, held
from shopfloor.domain.order import Order, State
from shopfloor.engine.direct import Direct
from shopfloor.engine.hands import Back
from shopfloor.engine.journal import Draft
from shopfloor.ports import Query
from shopfloor.wire.client import HungUp, Wire
from shopfloor.wire.server import SocketDoor

MANY = 12
_META = Query(what="meta")


class Nobody:
    """Who answers that there is nothing."""

    async def answer(self, _caller: object, _request: object) -> dict[str, Any]:
        return {}

    async def gone(self, _caller: object) -> None: ...


@asynccontextmanager
async def controller(folder: Path, orders: int) -> AsyncIterator[Controller]:
    found = Controller(folder / ".work")
    await found.open(orders)
    try:
        yield found
    finally:
        await found.close()


def race(running: Sessions, *, kill: bool) -> dict[int, list[Ack]]:
    running.go()
    if kill:
        os.kill(random.choice(running.pids), signal.SIGKILL)
    running.wait()
    return running.acks()


def claimed_once(acks: dict[int, list[Ack]]) -> set[str]:
    every = [(ack.order, ack.generation) for found in acks.values() for ack in found]
    assert len(every) == len(set(every)), "claimed twice"
    return {order for order, _ in every}


@asynccontextmanager
async def direct(work: Path, holder: Holder | None = None) -> AsyncIterator[Direct]:
    async with open_store(work) as store:
        yield Direct(journal(store), holder or holders.holder(), alive=holders.alive)


@pytest.mark.timeout(120)
async def test_sessions_race_directly_and_one_is_killed(tmp_path: Path) -> None:
    await fill(tmp_path / ".work", 60)
    with sessions("direct", tmp_path / ".work", tmp_path / "acks", MANY, 2) as running:
        acks = race(running, kill=True)
        claimed_once(acks)
        board = await board_of(tmp_path / ".work")
        for pid, found in acks.items():
            for ack in found:
                attempt = board.records[ack.order].attempts[ack.generation - 1]
                assert attempt.handle["pid"] == pid, "acknowledged, and not in the log"
        running.end()
    async with direct(tmp_path / ".work") as one:
        await one.return_lost()
    board = await board_of(tmp_path / ".work")
    assert {r.state for r in board.records.values()} == {State.READY}
    assert not any(held(r) for r in board.records.values())


@pytest.mark.timeout(120)
async def test_sessions_race_by_the_socket_and_one_is_killed(tmp_path: Path) -> None:
    async with controller(tmp_path, 200) as led:
        block = sessions("socket", tmp_path / ".work", tmp_path / "acks", MANY, 1)
        running = await asyncio.to_thread(block.__enter__)
        try:
            acks = await asyncio.to_thread(lambda: race(running, kill=True))
            claimed_once(acks)
            counts = sorted(len(found) for found in acks.values())[1:]  # one was killed
            assert counts[-1] <= 2 * counts[0], "each has its turn"
            await asyncio.to_thread(running.end)
        finally:
            block.__exit__(None, None, None)
        async with asyncio.timeout(20):
            while led.journal.floor.held:  # it returns at once, when the system tells that they have hung up
                await led.store.wait((await led.store.query(_META))[0]["position"], 0.2)
    board = await board_of(tmp_path / ".work")
    assert {r.state for r in board.records.values()} == {State.READY}


async def test_what_a_session_held_returns_with_its_last_connection(tmp_path: Path) -> None:
    async with controller(tmp_path, 2) as led:
        floor, freed = led.journal.floor, asyncio.Event()
        first, second = await Wire.connect(tmp_path / ".work"), await Wire.connect(tmp_path / ".work")
        assert first is not None
        assert second is not None
        claim = {"verb": "claim", "limit": 1, "holder": _me()}
        await first.ask(claim)
        await second.ask(claim)
        await first.close()
        assert not (await second.ask(claim))["orders"], "its other connection still holds both"
        led.journal.observers.append(lambda _event: None if floor.held else freed.set())
        await second.close()
        await asyncio.wait_for(freed.wait(), 20)  # though this process lives


def _held_by(led: Any, name: str) -> int:
    return Counter(holder.name for holder in led.journal.floor.held.values())[name]


async def test_one_that_asks_all_the_time_starves_nobody(tmp_path: Path) -> None:
    async with controller(tmp_path, 120) as led:
        noisy, quiet = await _raw(tmp_path), await Wire.connect(tmp_path / ".work")
        assert quiet is not None
        claim = {"verb": "claim", "limit": 1, "holder": {**_me("noisy"), "pid": 1}}
        noisy[1].write(b"".join(json.dumps(claim).encode() + b"\n" for _ in range(100)))
        turns = []
        for _ in range(20):
            before = _held_by(led, "noisy")
            assert (await quiet.ask({**claim, "holder": _me("quiet")}))["orders"]
            turns.append(_held_by(led, "noisy") - before)
        assert _held_by(led, "quiet") == 20
        # One that was under way, one in turn, and one while the answer was on its way. What it gets while nobody else
        # asks is nobody's loss.
        assert max(turns) <= 3, f"it got more than its turns: {turns}"
        await quiet.close()
        noisy[1].close()


@pytest.mark.parametrize(
    ("line", "kind"),
    [
        (b"{nonsense\n", "no JSON object"),
        (b"\xff\xfe\n", "no JSON object"),
        (b"[1, 2]\n", "no JSON object"),
        (b'{"verb": "destroy"}\n', "there is no request 'destroy'"),
        (b'{"verb": ["claim"]}\n', "there is no request"),
        (b'{"verb": "claim", "limit": 1}\n', "holder"),
        (b'{"verb": "claim", "limit": -1, "holder": {"name": "x", "pid": 1}}\n', "1 to 1000"),
        (b'{"verb": "finish", "order": "wo-n0", "holder": {"name": "x", "pid": 1}}\n', "no session holds"),
        (b"[" * 100_000 + b"\n", "no JSON object"),
    ],
)
async def test_garbage_is_refused_and_the_rest_goes_on(line: bytes, kind: str, tmp_path: Path) -> None:
    async with controller(tmp_path, 1):
        reader, writer = await _raw(tmp_path)
        for _ in range(2):
            writer.write(line)
            reply = json.loads(await reader.readline())
            assert not reply["ok"]
            assert kind in reply["error"]["message"]
        writer.write(json.dumps({"verb": "claim", "limit": 1, "holder": _me()}).encode() + b"\n")
        assert len(json.loads(await reader.readline())["orders"]) == 1
        writer.close()


async def test_a_request_that_is_too_long_is_refused_and_the_rest_goes_on(tmp_path: Path) -> None:
    async with controller(tmp_path, 1):
        reader, writer = await _raw(tmp_path)
        writer.write(
            b"x" * (1 << 22) + b"\n" + json.dumps({"verb": "claim", "limit": 1, "holder": _me()}).encode() + b"\n"
        )
        said = json.loads(await reader.readline())["error"]["message"]
        assert said == "a request is 4194305 bytes long, at most 1048576 are taken"
        assert json.loads(await reader.readline())["orders"]
        writer.close()


async def test_who_is_silent_or_does_not_read_keeps_nobody(tmp_path: Path) -> None:
    async with controller(tmp_path, 3):
        _, silent = await _raw(tmp_path)
        silent.write(b'{"verb": "cla')
        deaf = socket.socket(socket.AF_UNIX)
        deaf.connect(str(tmp_path / ".work/controller.sock"))
        deaf.setblocking(False)
        while await _sent(deaf, b'{"verb": "' + b"x" * 4000 + b'"}\n'):  # until nothing goes in as nothing comes out
            continue
        wire = await Wire.connect(tmp_path / ".work")
        assert wire is not None
        async with asyncio.timeout(10):
            assert (await wire.ask({"verb": "claim", "limit": 1, "holder": _me()}))["orders"]
        await wire.close()
        silent.close()
        deaf.close()


async def test_a_socket_in_a_deep_folder(tmp_path: Path) -> None:
    deep = tmp_path / ("d" * 90) / ("e" * 90)
    deep.mkdir(parents=True)
    async with controller(deep, 1):
        wire = await Wire.connect(deep / ".work")
        assert wire is not None
        assert (await wire.ask({"verb": "claim", "limit": 5, "holder": _me()}))["orders"]
        await wire.close()
    assert await Wire.connect(deep / ".work") is None


async def test_a_stale_socket_is_nobody_and_is_replaced(tmp_path: Path) -> None:
    (tmp_path / ".work").mkdir()
    stale = socket.socket(socket.AF_UNIX)
    stale.bind(str(tmp_path / ".work/controller.sock"))
    stale.close()
    assert await Wire.connect(tmp_path / ".work") is None
    async with controller(tmp_path, 1):
        assert (tmp_path / ".work/controller.sock").stat().st_mode & 0o777 == 0o600
        wire = await Wire.connect(tmp_path / ".work")
        assert wire is not None
        await wire.close()


async def test_what_others_open_meanwhile_is_not_taken_for_a_deep_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    deep = tmp_path / ("d" * 90) / ("e" * 90)
    deep.mkdir(parents=True)

    def close(descriptor: int) -> None:
        """Another thread opens a file just then, and is given the number."""
        os.dup2(device, descriptor)

    door = SocketDoor(deep)
    device = os.open(os.devnull, os.O_RDONLY)
    with monkeypatch.context() as patched:
        patched.setattr(os, "close", close)
        await door.open(Nobody())
    wire = await Wire.connect(deep)
    assert wire is not None
    await wire.close()
    await door.close()
    os.close(device)


async def test_where_nothing_can_listen_it_is_said(tmp_path: Path) -> None:
    with pytest.raises(Refused, match=r"cannot listen at '.*controller\.sock'"):
        await SocketDoor(tmp_path / "not-there").open(Nobody())


async def test_a_session_keeps_what_it_holds_when_the_controller_ends(tmp_path: Path) -> None:
    async with controller(tmp_path, 2):
        wire = await Wire.connect(tmp_path / ".work")
        assert wire is not None
        [claim] = (await wire.ask({"verb": "claim", "limit": 1, "holder": _me()}))["orders"]
    with pytest.raises(HungUp):
        await wire.ask({"verb": "claim", "limit": 1, "holder": _me()})
    await wire.close()
    async with direct(tmp_path / ".work") as one:
        assert await one.return_lost() == 0
        await one.release(claim["id"], Back(why="enough"))
        assert len(await one.claim(5, Wanted())) == 2


async def test_nobody_claims_directly_beside_a_controller(tmp_path: Path) -> None:
    async with controller(tmp_path, 2), direct(tmp_path / ".work") as one:
        with pytest.raises(Led):
            await one.claim(1, Wanted())


async def test_the_dead_are_told_from_the_living(tmp_path: Path) -> None:
    me = holders.holder()
    assert holders.alive(me)
    with subprocess.Popen(["sleep", "60"]) as process:
        other = holders.holder("x", process.pid)
        assert holders.alive(other)
        process.kill()
        os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
        assert not holders.alive(other), "a zombie is dead"
    assert holders.alive(replace(other, host="elsewhere")), "another machine is not judged"
    assert holders.alive(replace(other, boot=f"{me.boot.partition('/')[0]}/1")), "nor another process table"
    assert not holders.alive(replace(other, boot="earlier/1")), "nothing survives a reboot"
    assert spawn.boot() == me.boot


async def test_two_that_need_one_file_are_not_both_given_it(tmp_path: Path) -> None:
    async with open_store(tmp_path / ".work") as store:
        made = journal(store)
        wishes = [Order(id=f"wo-n{n}", name=f"n{n}", title="t", files=(f"src/{'x' * n}",)) for n in range(2)]
        wishes.append(Order(id="wo-n2", name="n2", title="t", files=("src",)))
        await store.append([made.event(Draft(E.CREATED, creation(w)), None) for w in wishes])
    second = holders.holder("other", os.getppid())
    async with direct(tmp_path / ".work") as one, direct(tmp_path / ".work", second) as other:
        await one._look(1)
        assert [claim.id for claim in await other.claim(5, Wanted(orders=("wo-n2",)))] == ["wo-n2"]
        assert await one.claim(1, Wanted()) == [], "it is given back: the other was first"
        board = await board_of(tmp_path / ".work")
        assert [r.order.id for r in board.records.values() if r.live] == ["wo-n2"]


def _me(name: str = "me") -> dict[str, Any]:
    me = holders.holder(name)
    return {"name": me.name, "pid": me.pid, "start_time": me.start_time, "host": me.host, "boot": me.boot}


async def _sent(link: socket.socket, line: bytes) -> bool:
    try:
        link.send(line)
    except BlockingIOError:
        return False
    await asyncio.sleep(0)
    return True


async def _raw(folder: Path) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    return await asyncio.open_unix_connection(str(folder / ".work/controller.sock"), limit=1 << 24)
