"""Agent servers that are started, looked after and ended together: with real processes."""

import asyncio
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from shopfloor.app.agent_servers import News, Wanted, stand
from shopfloor.domain.errors import Refused, ShopfloorError, UsageError
from shopfloor.spawn import alive, start_time_of

SERVER = (sys.executable, "-m", "shopfloor.testing.spec_servers", "--port", "{port}")
ENV = {"PATH": os.environ["PATH"]}
SCRIPT = Path(__file__).parents[2] / "src" / "shopfloor" / "compat" / "start_agent_servers.sh"


def free_ports(count: int) -> int:
    """The first of some ports in a row that nobody has."""
    for first in range(20_000 + os.getpid() % 8_000, 32_000, count):
        try:
            for port in range(first, first + count):
                with socket.socket() as probe:
                    probe.bind(("127.0.0.1", port))
        except OSError:
            continue
        return first
    raise AssertionError("no port is free")


def running(pid: int) -> bool:
    return alive(pid, start_time_of(pid))


def wanted(count: int, command: tuple[str, ...] = SERVER, *, ready_s: float = 20.0, restarts: int = 0) -> Wanted:
    return Wanted(count=count, command=command, port=free_ports(count), ready_s=ready_s, restarts=restarts)


class Heard:
    """The news, and who waits for some."""

    def __init__(self) -> None:
        self.news: list[News] = []
        self._more = asyncio.Event()

    def __call__(self, news: News) -> None:
        self.news.append(news)
        self._more.set()

    async def until(self, count: int) -> None:
        while len(self.news) < count:
            self._more.clear()
            await self._more.wait()


async def test_they_come_up_one_is_told_of_when_it_dies_and_none_is_left(tmp_path: Path) -> None:
    heard = Heard()

    async def until() -> None:
        await heard.until(3)
        os.kill(heard.news[1].pid, signal.SIGKILL)
        await heard.until(4)

    plan = wanted(3)
    gone = await stand(plan, ENV, tmp_path, told=heard, until=until)
    assert [(news.number, news.ended) for news in heard.news[:3]] == [(0, ""), (1, ""), (2, "")]
    assert heard.news[3].ended.startswith("it was ended by signal 9; it said: http://127.0.0.1:")
    assert gone == [f"http://localhost:{plan.port + 1}"]
    assert not [news.pid for news in heard.news if running(news.pid)]


async def test_one_that_ends_is_started_again_as_often_as_is_wanted(tmp_path: Path) -> None:
    heard = Heard()

    async def until() -> None:
        for count in (1, 3):
            await heard.until(count)
            os.kill(heard.news[-1].pid, signal.SIGKILL)
        await asyncio.Event().wait()

    gone = await stand(wanted(1, restarts=1), ENV, tmp_path, told=heard, until=until)
    assert ["started again" in news.ended for news in heard.news] == [False, True, False, False]
    assert len(gone) == 1


async def test_who_does_not_come_up_is_named_with_its_last_words(tmp_path: Path) -> None:
    heard = Heard()
    broken = ("sh", "-c", 'case {port} in *[02468]) exec "$0" "$@";; *) echo no luck >&2; exit 3;; esac', *SERVER)
    plan = wanted(2, broken)
    odd = plan.port + 1 - plan.port % 2
    with pytest.raises(ShopfloorError) as caught:
        await stand(plan, ENV, tmp_path, told=heard, until=asyncio.Event().wait)
    assert caught.value.message == (
        "1 of 2 servers did not come up, so all were ended:\n"
        f"http://localhost:{odd}: it ended with exit code 3; it said: no luck"
    )
    assert not [news.pid for news in heard.news if running(news.pid)]


async def test_a_port_that_somebody_else_has_is_not_taken_for_ours(tmp_path: Path) -> None:
    heard, second = Heard(), Heard()
    plan = wanted(1)

    async def until() -> None:
        await heard.until(1)
        with pytest.raises(Refused, match=f"another program has port {plan.port}"):
            await stand(plan, ENV, tmp_path, told=second, until=asyncio.Event().wait)

    await stand(plan, ENV, tmp_path, told=heard, until=until)
    assert second.news == []


async def test_one_that_never_answers_is_not_waited_for_for_ever(tmp_path: Path) -> None:
    with pytest.raises(
        ShopfloorError, match=r"it did not answer within 0\.2 s \(connection refused\); it said nothing"
    ):
        await stand(wanted(1, ("sleep", "99"), ready_s=0.2), ENV, tmp_path, told=Heard(), until=asyncio.Event().wait)


async def test_a_command_that_cannot_be_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="the command has no"):
        await stand(wanted(2, ("sleep", "9")), ENV, tmp_path, told=Heard(), until=asyncio.Event().wait)
    with pytest.raises(UsageError, match="beyond 65535"):
        await stand(Wanted(count=9, port=65_530), ENV, tmp_path, told=Heard(), until=asyncio.Event().wait)
    with pytest.raises(Refused, match="'no-such-server-4711'"):
        await stand(wanted(1, ("no-such-server-4711",)), ENV, tmp_path, told=Heard(), until=asyncio.Event().wait)


@contextmanager
def script(*words: str) -> Iterator["subprocess.Popen[str]"]:
    path = f"{Path(sys.executable).parent}{os.pathsep}{ENV['PATH']}"
    with subprocess.Popen(
        ["bash", str(SCRIPT), *words], env={"PATH": path}, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        try:
            yield process
        finally:
            process.kill()


def test_the_script_says_what_it_always_said_and_ends_with_ctrl_c() -> None:
    first = free_ports(2)
    with script("2", "--port", str(first), "--command", " ".join(SERVER)) as process:
        assert process.stdout is not None
        lines = [process.stdout.readline() for _ in range(3)]
        process.send_signal(signal.SIGINT)
        assert process.wait(20) == 0
    pids = [int(line.rpartition("PID: ")[2].rstrip(")\n")) for line in lines[:2]]
    assert lines == [
        f"  Agent 0: http://localhost:{first} (PID: {pids[0]})\n",
        f"  Agent 1: http://localhost:{first + 1} (PID: {pids[1]})\n",
        "All 2 agents started!\n",
    ]
    assert not [pid for pid in pids if running(pid)]


def test_the_script_fails_loudly() -> None:
    with script(
        "1", "--port", str(free_ports(1)), "--command", "sh -c 'echo out of luck at {port}; exit 7'"
    ) as process:
        out, err = process.communicate(timeout=20)
        assert process.returncode == 1
    assert out == ""
    assert "it ended with exit code 7; it said: out of luck at" in err
