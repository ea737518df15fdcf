"""Sessions in tmux go on when their controller is killed, and the next one takes them up. Real tmux, real kills."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import urllib.request
from collections.abc import Callable
from pathlib import Path
from urllib.parse import urlsplit

import msgspec
import pytest

from shopfloor.domain.errors import Refused
from shopfloor.domain.events import E
from shopfloor.domain.order import State
from shopfloor.ports import Route
from shopfloor.spawn import alive
from shopfloor.testing.agent import TERMINAL
from shopfloor.testing.model import Model

from .engine_lab import Watch, at_work_in, log_of, records, resumed, until_true
from .lab import FLAGS, Lab, row, script, write

LEAD = """
import asyncio, sys, json
from pathlib import Path
from shopfloor.app import Shopfloor
async def main():
    repo, flags, *prompts = sys.argv[1:]
    async with Shopfloor.open(repo, flags=json.loads(flags)) as floor:
        await floor.run([Path(p) for p in prompts])
asyncio.run(main())
"""


class TmuxLab(Lab):
    """A lab with an agent that is typed its prompt, and one that has hooks too."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        command = json.dumps(TERMINAL)
        (self.repo / ".shopfloor.toml").write_text(
            f'[agents.typed]\ndriver = "tmux"\ncommand = {command}\n'
            f'[agents.hooked]\ndriver = "tmux"\npreset = "claude"\ncommand = {command}\n'
        )
        self.hold, self.begun, self.starts = folder / "hold", folder / "begun", folder / "starts"
        self.hold.touch()

    def waiting(self) -> str:
        """A script that has begun, waits, and then writes something."""
        wait = f"echo x >> {self.starts}; touch {self.begun}; while [ -e {self.hold} ]; do sleep 0.02; done"
        return script({"say": "at work"}, {"run": wait}, write("new.txt"))

    def lead(self, agent: str, *prompts: Path) -> subprocess.Popen[bytes]:
        """A controller in a process of its own."""
        flags = json.dumps({**FLAGS, "agent": agent})
        argv = [sys.executable, "-c", LEAD, str(self.repo), flags, *map(str, prompts)]
        return subprocess.Popen(argv, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)

    def handle(self) -> dict[str, object]:
        (started,) = [e for e in log_of(self) if e["event_type"] == E.AGENT_STARTED]
        found: dict[str, object] = started["data"]["handle"]
        return found

    def lives(self) -> bool:
        handle = self.handle()
        pid, start_time = handle["pid"], handle["start_time"]
        assert isinstance(pid, int)
        assert isinstance(start_time, int)
        return alive(pid, start_time)

    def sessions(self) -> list[str]:
        argv = ["tmux", "-S", "tmux.sock", "list-sessions", "-F", "#{session_name}"]
        return subprocess.run(argv, cwd=self.repo / ".work", capture_output=True, text=True, check=False).stdout.split()


@pytest.fixture
def lab(tmp_path: Path, need: Callable[[str, str], str]) -> TmuxLab:
    need("tmux", "apt install tmux")
    return TmuxLab(tmp_path)


async def begin_and_kill(lab: TmuxLab, agent: str) -> None:
    """A controller that is killed while its agent works."""
    controller = lab.lead(agent, lab.prompt("add", lab.waiting()))
    try:
        await until_true(lab.begun.exists, "the agent begins")
    finally:
        controller.kill()
        out, _ = controller.communicate()
    assert controller.returncode == -signal.SIGKILL, out.decode()


@pytest.mark.parametrize("agent", ["typed", "hooked"])
async def test_the_next_controller_takes_it_up(lab: TmuxLab, agent: str) -> None:
    await begin_and_kill(lab, agent)
    assert lab.lives(), "it ended with its controller"
    async with lab.floor(agent=agent) as floor:
        watch = Watch(floor)
        going = asyncio.create_task(floor.resume())
        await watch.until(E.AGENT_ADOPTED)
        assert lab.lives()
        lab.hold.unlink()
        report = await going
        record = records(await floor.board())["add"]
    assert row(report, "add").outcome == "landed", record.message
    assert len(record.attempts) == 1
    assert lab.starts.read_text() == "x\n", "it was started twice"
    lines = (lab.repo / ".work/attempts" / record.attempts[0].id / "transcript.jsonl").read_text().splitlines()
    told = [json.loads(line) for line in lines]
    assert sum(line["kind"] == "started" for line in told) == 1, "something was reported twice"
    assert told[-1]["kind"] == "exited"
    assert not lab.sessions()
    assert not at_work_in(lab)


@pytest.mark.parametrize("agent", ["typed", "hooked"])
async def test_what_it_did_while_nobody_led_counts(lab: TmuxLab, agent: str) -> None:
    await begin_and_kill(lab, agent)
    lab.hold.unlink()
    if agent == "typed":
        await until_true(lambda: not lab.lives(), "it ends by itself")
    report = await resumed(lab, agent=agent)
    assert row(report, "add").outcome == "landed"
    assert lab.starts.read_text() == "x\n", "it was started twice"
    assert not lab.sessions()


async def test_the_next_controller_may_be_killed_too(lab: TmuxLab) -> None:
    await begin_and_kill(lab, "typed")
    resume = LEAD.replace("floor.run([Path(p) for p in prompts])", "floor.resume()")
    flags = json.dumps({**FLAGS, "agent": "typed"})

    def adopted() -> int:
        return sum(e["event_type"] == E.AGENT_ADOPTED for e in log_of(lab))

    for life in (1, 2):
        second = subprocess.Popen([sys.executable, "-c", resume, str(lab.repo), flags])
        try:
            await until_true(lambda: adopted() >= life, "it is taken up")  # noqa: B023
        finally:
            second.kill()
            second.wait()
        assert lab.lives()
    lab.hold.unlink()
    assert row(await resumed(lab, agent="typed"), "add").outcome == "landed"
    assert lab.starts.read_text() == "x\n"


def payer(lab: TmuxLab, model: Model) -> Path:
    """An agent in a terminal that goes through the gateway; a prompt with a call on each side of its waiting."""
    ours = 'SCRIPTED_MODEL_URL="$ANTHROPIC_BASE_URL" SCRIPTED_MODEL_KEY="$ANTHROPIC_AUTH_TOKEN" exec "$@"'
    (lab.repo / ".shopfloor.toml").write_text(
        f'[agents.payer]\ndriver = "tmux"\npreset = "claude"\naccount = "lab"\n'
        f"command = {json.dumps(['sh', '-c', ours, 'sh', *TERMINAL])}\n"
        f'[gateway.accounts.lab]\ndialect = "anthropic"\nurl = "{model.url}"\n'
    )
    wait = f"echo x >> {lab.starts}; touch {lab.begun}; while [ -e {lab.hold} ]; do sleep 0.02; done"
    return lab.prompt("add", script({"model_call": 1}, {"run": wait}, {"model_call": 1}, write("new.txt")))


async def kill_the_payers_controller(lab: TmuxLab, model: Model) -> Route:
    """The way of its agent, which goes on."""
    controller = lab.lead("payer", payer(lab, model))
    try:
        await until_true(lab.begun.exists, "the agent begins")
    finally:
        controller.kill()
        controller.communicate()
    (file,) = (lab.repo / ".work/attempts").glob("*/route.json")
    assert file.stat().st_mode & 0o777 == 0o600
    return msgspec.json.decode(file.read_bytes(), type=Route)


def is_open(route: Route) -> bool:
    """Whether somebody answers there, as clients look before their first call."""
    look = urllib.request.Request(f"{route.url}/", method="HEAD", headers={"x-api-key": route.token})
    with contextlib.suppress(OSError), urllib.request.urlopen(look, timeout=5):
        return True
    return False


async def test_its_way_to_its_models_is_opened_again_where_it_was(lab: TmuxLab) -> None:
    with Model() as model:
        route = await kill_the_payers_controller(lab, model)
        async with lab.floor(agent="payer", budget=1.0) as floor:
            watch = Watch(floor)
            going = asyncio.create_task(floor.resume())
            await watch.until(E.AGENT_ADOPTED)
            await until_true(lambda: is_open(route), "its way is open")
            lab.hold.unlink()
            report = await going
            record = records(await floor.board())["add"]
        asked = len(model.requests())
    assert row(report, "add").outcome == "landed", record.message
    assert (len(record.attempts), asked) == (1, 2)
    assert record.cost_usd == pytest.approx(2 * (1000 * 3e-6 + 50 * 15e-6)), "both calls, each once"
    assert not list((lab.repo / ".work/attempts").glob("*/route.json"))
    log = (lab.repo / ".work/events.jsonl").read_text()
    assert route.token not in log
    assert route.url.rpartition("/")[2] not in log


async def test_without_its_way_it_is_ended_and_its_order_goes_on(lab: TmuxLab) -> None:
    with Model() as model:
        route = await kill_the_payers_controller(lab, model)
        argv = [sys.executable, "-m", "shopfloor", "status"]
        said = subprocess.run(argv, cwd=lab.repo, capture_output=True, text=True, check=True).stdout
        assert "cut off from its models until a controller is back" in said
        with socket.create_server(("127.0.0.1", urlsplit(route.url).port or 0)):
            async with lab.floor(agent="payer") as floor:
                watch = Watch(floor)
                going = asyncio.create_task(floor.resume())
                await watch.until(E.AGENT_STOPPED)
                lab.hold.unlink()
                report = await going
                record = records(await floor.board())["add"]
    assert row(report, "add").outcome == "landed", record.message
    assert [attempt.outcome for attempt in record.attempts] == ["lost", "completed"]
    assert "its way to its models is gone: " in record.attempts[0].message
    assert not lab.sessions()
    assert not at_work_in(lab)


async def test_status_says_that_it_goes_on(lab: TmuxLab) -> None:
    await begin_and_kill(lab, "typed")

    def said(*words: str) -> str:
        argv = [sys.executable, "-m", "shopfloor", *words]
        return subprocess.run(argv, cwd=lab.repo, capture_output=True, text=True, check=True).stdout

    assert "running" in said("status")
    assert "in its terminal" in said("status")
    assert "shopfloor attach add" in said("show", "add")
    async with lab.floor(agent="typed") as floor:
        await floor.ask("stop", next(iter((await floor.board()).records)))
    assert "interrupted" not in said("status")
    assert "in its terminal" not in said("status")


async def test_who_comes_for_something_else_leaves_it_alone(lab: TmuxLab) -> None:
    await begin_and_kill(lab, "typed")
    async with lab.floor(agent="typed") as floor:
        order = next(iter((await floor.board()).records))
        with pytest.raises(Refused):
            await floor.ask("accept", order)
    assert lab.lives(), "it was ended"
    async with lab.floor(agent="typed") as floor:
        await floor.ask("stop", order)
        record = records(await floor.board())["add"]
    assert record.state is State.CANCELLED
    assert not lab.lives(), "it still runs"
    assert not lab.sessions()
    assert not at_work_in(lab)


async def test_one_that_has_not_got_its_prompt_is_ended_and_begun_again(lab: TmuxLab) -> None:
    kill = LEAD.replace("        await floor.run", "        import os, signal\n        floor.observers.append("
                        "lambda e: os.kill(os.getpid(), signal.SIGKILL) if e.event_type == 'agent.started' else None)\n"
                        "        await floor.run")  # fmt: skip
    flags = json.dumps({**FLAGS, "agent": "hooked"})
    argv = [sys.executable, "-c", kill, str(lab.repo), flags, str(lab.prompt("add", script(write("new.txt"))))]
    done = subprocess.run(argv, capture_output=True, check=False)
    assert done.returncode == -signal.SIGKILL, done.stderr.decode()
    async with lab.floor(agent="hooked") as floor:
        report = await floor.resume()
        record = records(await floor.board())["add"]
    assert row(report, "add").outcome == "landed"
    assert [a.outcome for a in record.attempts] == ["lost", "completed"]
    assert not lab.sessions()


async def test_ctrl_c_ends_its_sessions(lab: TmuxLab) -> None:
    await begin_by_command(lab)
    assert not lab.lives(), "it still runs"
    assert not lab.sessions()
    lab.hold.unlink()
    assert row(await resumed(lab, agent="typed"), "add").outcome == "landed"


async def begin_by_command(lab: TmuxLab) -> None:
    """The command as a person runs it, interrupted while its agent works."""
    prompt = lab.prompt("add", lab.waiting())
    words = ["run", str(prompt), "--agent", "typed", "--check", "test ! -e broken"]
    argv = [sys.executable, "-m", "shopfloor", *words]
    command = subprocess.Popen(argv, cwd=lab.repo, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    try:
        await until_true(lab.begun.exists, "the agent begins")
        os.kill(command.pid, signal.SIGINT)
        out, _ = await asyncio.to_thread(command.communicate, timeout=30)
    finally:
        command.kill()
    assert command.returncode == 130, out.decode()
