"""What the driver for tmux does beyond the port's suite: exact names, exact words, people who look and answer."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest

from shopfloor.agents._screen import PlainScreen
from shopfloor.agents._terminal import Ladder
from shopfloor.agents._tmux import Tmux, pasted, session_name
from shopfloor.agents.tmux import TmuxAgent
from shopfloor.domain.errors import Refused
from shopfloor.domain.order import Order
from shopfloor.ports import Delivery, Handle, Kind, Launch, Profile, Report
from shopfloor.spawn import Guard, alive, start_time_of
from shopfloor.testing.agent import TERMINAL

from .engine_lab import until_true
from .lab import script, write

LADDER = Ladder(polite_s=1.0, term_s=0.5)
WAITS = script({"hang": True})


@pytest.fixture(autouse=True)
def _tmux(need: Callable[[str, str], str]) -> None:
    need("tmux", "apt install tmux")


@contextlib.asynccontextmanager
async def agent() -> AsyncIterator[TmuxAgent]:
    async with Guard() as guard:
        yield TmuxAgent(guard, environment={"PATH": os.environ["PATH"]}, tmux_ladder=LADDER)


def launch(folder: Path, prompt: str, *, attempt: str = "wo-abc.a1", preset: str = "claude", **more: Any) -> Launch:
    workspace = folder / "workspace"
    workspace.mkdir(exist_ok=True, parents=True)
    directory = folder / "work" / "attempts" / attempt.replace("/", "_")
    env = {"PATH": os.environ["PATH"], "HOME": str(folder), "SHOPFLOOR_ATTEMPT_DIR": str(directory)}
    return Launch(
        order=Order(id="wo-abc", name="n", title="A title"), attempt=attempt, prompt=prompt, workspace=str(workspace),
        profile=Profile(name="mine", driver="tmux", preset=preset, command=TERMINAL, **more), branch="shopfloor/n",
        directory=str(directory), env=env,
    )  # fmt: skip


async def until(reports: AsyncIterator[Report], kind: Kind, status: str = "", text: str = "") -> Report:
    async for report in reports:
        if report.kind is kind and status in ("", report.status) and text in report.text:
            return report
    raise AssertionError(f"{kind} {status} never came")


def server(folder: Path) -> Tmux:
    return Tmux(folder / "work", "tmux", {"PATH": os.environ["PATH"]})


@pytest.mark.parametrize(
    "hostile", ["wo-1.a1;", "wo:1.a1", "=wo.a1", "wo 1.a1", "$(id).a1", "#{pid}.a1", "../x.a1", "ü.a1"]
)
async def test_hostile_names_become_sessions_of_their_own(hostile: str, tmp_path: Path) -> None:
    async with agent() as subject:
        handle = await subject.start(launch(tmp_path, WAITS, attempt=hostile))
        assert await server(tmp_path).names() == [session_name(hostile)]
        await subject.stop(handle)
        assert await server(tmp_path).names() == []


def test_no_two_attempts_have_the_same_session() -> None:
    attempts = ["wo-1.a1", "wo-1.a10", "wo-1-a1.a1", "wo:1.a1", "wo.1.a1", "wo/1.a1", "WO-1.a1", "w" * 300, "w" * 301]
    names = [session_name(attempt) for attempt in attempts]
    assert len(set(names)) == len(names)
    assert all(name.replace("-", "").replace("_", "").isalnum() for name in names)


async def test_a_session_whose_name_begins_the_same_is_left_alone(tmp_path: Path) -> None:
    async with agent() as subject:
        first = await subject.start(launch(tmp_path, WAITS, attempt="wo-abc.a1"))
        other = await subject.start(launch(tmp_path, WAITS, attempt="wo-abc.a10"))
        await subject.stop(first)
        tmux = server(tmp_path)
        assert await tmux.names() == ["wo-abc-a10"]
        await tmux.end("wo-abc-a1")
        assert not await tmux.keys("wo-abc-a1", "x")
        assert not await tmux.paste("wo-abc-a1", "x")
        await subject.stop(first)
        assert alive(other.pid, other.start_time), "the wrong one was ended"
        await subject.stop(other)


async def test_a_server_that_does_not_answer_is_not_one_without_sessions(tmp_path: Path) -> None:
    place = tmp_path / "work"
    place.mkdir()
    tmux = server(tmp_path)

    async def hangs_up(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.close()

    strange = await asyncio.start_unix_server(hangs_up, place / "tmux.sock")
    async with strange:
        for asked in (tmux.names(), tmux.there("wo-abc-a1"), tmux.pane("wo-abc-a1")):
            with pytest.raises(Refused, match="does not tell which sessions there are") as told:
                await asked
            assert "list-sessions" in told.value.hint
    with socket.socket(socket.AF_UNIX) as left:  # whoever closes his server by asyncio removes it, since Python 3.13
        (place / "tmux.sock").unlink(missing_ok=True)
        left.bind(str(place / "tmux.sock"))
    # its socket is there still, and nobody listens
    assert (await tmux.names(), await tmux.there("wo-abc-a1"), await tmux.pane("wo-abc-a1")) == ([], False, 0)
    (place / "tmux.sock").unlink()
    assert (await tmux.names(), await tmux.there("wo-abc-a1"), await tmux.pane("wo-abc-a1")) == ([], False, 0)


async def test_a_server_that_is_just_ending_is_asked_again(tmp_path: Path) -> None:
    (tmp_path / "work").mkdir()
    tmux = server(tmp_path)

    async def ends(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        ending.close()
        writer.close()

    ending = await asyncio.start_unix_server(ends, tmp_path / "work/tmux.sock")
    assert await tmux.names() == []
    ending = await asyncio.start_unix_server(ends, tmp_path / "work/tmux.sock")
    assert await tmux.new("wo-abc-a1", ["sleep", "60"], ["cat"]) > 0
    assert await tmux.names() == ["wo-abc-a1"]
    await tmux.end("wo-abc-a1")


async def test_a_paste_to_a_program_that_has_ended_leaves_the_others_alone(tmp_path: Path) -> None:
    (tmp_path / "work").mkdir()
    tmux = server(tmp_path)
    other = await tmux.new("other", ["sleep", "1000"], ["cat"])
    await tmux.call("set-hook", "-g", "pane-died", "wait-for -S died")
    await tmux.new("ended", ["true"], ["cat"])
    await tmux.call("wait-for", "died")
    assert not await tmux.paste("ended", "hello")
    assert sorted(await tmux.names()) == ["ended", "other"]
    assert await tmux.pane("other") == other
    assert await tmux.paste("other", "hello")
    assert not (await tmux.call("list-buffers")).stdout, "what was not pasted is kept"
    await tmux.call("kill-server")


async def test_two_floors_have_nothing_to_do_with_each_other(tmp_path: Path) -> None:
    async with agent() as one, agent() as two:
        here = await one.start(launch(tmp_path / "one", WAITS))
        there = await two.start(launch(tmp_path / ("long " * 40) / "two", WAITS))
        await one.stop(here)
        assert alive(there.pid, there.start_time)
        await two.stop(there)


async def test_any_words_arrive_as_they_are(tmp_path: Path) -> None:
    words = "-- ; \\; 'q' \"d\" $HOME `id` #{pane_pid} %H \t tab\n\nü 中 🔧 \u202e ;\n" * 200
    prompt = words + script({"save_prompt": "prompt.txt"})
    async with agent() as subject:
        what = launch(tmp_path, prompt)
        handle = await subject.start(what)
        reports = [report async for report in subject.follow(handle)]
    assert reports[-1].status == "completed", reports[-3:]
    assert Path(what.workspace, "prompt.txt").read_text() == prompt


def test_a_paste_cannot_press_keys() -> None:
    assert pasted("a\x1b[201~b\x1b[200~\r\nc\rd\x03\x04\x7f\x9b31m\ud800") == "ab\nc\nd\u2403\u2404\u2421\ufffd31m?"


async def test_words_reach_it_while_it_works_and_it_says_so(tmp_path: Path) -> None:
    async with agent() as subject:
        handle = await subject.start(launch(tmp_path, WAITS))
        reports = subject.follow(handle)
        await until(reports, Kind.LOG, text="hangs until")
        assert await subject.send(handle, "hello; you") is Delivery.SEEN
        assert "hello; you" in (await until(reports, Kind.LOG, "prompt", "hello")).text
        await subject.stop(handle)
        assert (await until(reports, Kind.EXITED)).status == "killed"
        with pytest.raises(Refused):
            await subject.send(handle, "late")


@pytest.mark.parametrize(("answer", "status"), [("yes", "allowed"), ("no", "denied")])
async def test_a_question_is_asked_and_answered(answer: str, status: str, tmp_path: Path) -> None:
    async with agent() as subject:
        what = launch(tmp_path, script({"ask": "may I?"}, write("asked.txt")), permissions="ask")
        handle = await subject.start(what)
        reports = subject.follow(handle)
        asked = await until(reports, Kind.PERMISSION)
        assert asked.status == "asked"
        assert "may I?" in asked.text
        assert await subject.send(handle, answer) is Delivery.SEEN
        assert (await until(reports, Kind.PERMISSION)).status == status
        await until(reports, Kind.EXITED)
    assert Path(what.workspace, "asked.txt").exists() == (answer == "yes")


async def test_a_failed_turn_is_an_error(tmp_path: Path) -> None:
    async with agent() as subject:
        handle = await subject.start(launch(tmp_path, script({"exit": 3})))
        reports = [report async for report in subject.follow(handle)]
    assert [r.status for r in reports if r.kind is Kind.TURN_END] == ["failed"]
    assert reports[-1].status == "error"


async def test_whoever_types_in_it_keeps_it_when_it_is_done(tmp_path: Path) -> None:
    async with agent() as subject:
        handle = await subject.start(launch(tmp_path, WAITS))
        reports = subject.follow(handle)
        await until(reports, Kind.LOG, text="hangs until")
        with person(tmp_path, "attach-session", "-t", "=wo-abc-a1"):
            await until_true(lambda: clients(tmp_path), "a person is attached")
            await server(tmp_path).keys("wo-abc-a1", "Escape")
            assert await subject.send(handle, script(write("more.txt"))) is Delivery.SEEN
            await until(reports, Kind.TURN_END, "success")
            assert not await ended_within(handle, 2.5), "it was taken from them"
        end = await until(reports, Kind.EXITED)
        assert end.status == "completed"


async def ended_within(handle: Handle, wait_s: float) -> bool:
    with contextlib.suppress(TimeoutError):
        await asyncio.wait_for(until_true(lambda: not alive(handle.pid, handle.start_time)), wait_s)
        return True
    return False


async def test_a_killed_keeper_takes_everything_with_it(tmp_path: Path) -> None:
    async with agent() as subject:
        orphan = "setsid sleep 86400 >/dev/null 2>&1 & echo $! > orphan.pid"
        what = launch(tmp_path, script({"run": orphan}, {"hang": True}))
        handle = await subject.start(what)
        reports = subject.follow(handle)
        await until(reports, Kind.LOG, text="hangs until")
        os.kill(int(handle.detail["keeper"]), signal.SIGKILL)
        end = await until(reports, Kind.EXITED)
    left = int(Path(what.workspace, "orphan.pid").read_text())
    assert end.status == "lost"
    await until_true(
        lambda: not Path(f"/proc/{left}").exists() or "Z" in Path(f"/proc/{left}/stat").read_text(), "ends"
    )
    assert await server(tmp_path).names() == []


async def test_one_that_has_ended_ends_once_though_its_keeper_still_lives(tmp_path: Path) -> None:
    """Its keeper notes the end before it goes itself; whoever stops it in between must not take it up again."""
    async with agent() as subject:
        what = launch(tmp_path, script({"say": "x"}))
        handle = await subject.start(what)
        await until(subject.follow(handle), Kind.EXITED)
        with subprocess.Popen(["sleep", "60"]) as keeper:
            still = {"keeper": str(keeper.pid), "keeper_start": str(start_time_of(keeper.pid))}
            await subject.stop(msgspec.structs.replace(handle, detail={**handle.detail, **still}))
            keeper.kill()
    kept = Path(what.directory, "transcript.jsonl").read_text().splitlines()
    assert [json.loads(line)["kind"] for line in kept].count("exited") == 1


async def test_nothing_secret_is_left_in_its_folder(tmp_path: Path) -> None:
    secret = "sk-a-secret-of-ours"
    async with agent() as subject:
        what = launch(tmp_path, script({"run": "echo $MY_KEY"}, {"say": "x"}))
        env = {**what.env, "MY_KEY": secret}
        what = Launch(**{**{f: getattr(what, f) for f in what.__struct_fields__}, "env": env, "secrets": (secret,)})
        handle = await subject.start(what)
        reports = [report async for report in subject.follow(handle)]
    assert reports[-1].status == "completed"
    files = [path for path in Path(what.directory).rglob("*") if path.is_file()]
    assert not [path.name for path in files if secret.encode() in path.read_bytes()]
    assert not [path.name for path in files if path.stat().st_mode & 0o077], "others may read it"


def test_what_moves_the_cursor_is_no_text() -> None:
    from shopfloor.agents._lines import Line

    screen = PlainScreen("x")
    drawn = b"\x1b]0;title\x07\x1b[2K\rhalf\r\x1b[1;32mwhole\x1b[0m\x1b(B line\x1b[?25h\r"
    assert [report.text for report in screen.heard("stdout", Line(drawn))] == ["whole line"]
    assert screen.heard("stdout", Line(b"\x1b[2J\x1b[H")) == []


def clients(folder: Path) -> list[str]:
    argv = ["tmux", "-S", "tmux.sock", "list-clients", "-F", "#{client_readonly}"]
    return subprocess.run(argv, cwd=folder / "work", capture_output=True, text=True, check=False).stdout.split()


@contextlib.contextmanager
def person(folder: Path, *words: str) -> Any:
    """Somebody at a terminal of their own: an outer tmux, whose screen can be looked at."""
    outer = ["tmux", "-u", "-S", str(folder / "outer"), "-f", os.devnull]
    inner = ["env", "-u", "TMUX", "tmux", "-u", "-S", "tmux.sock", *words]
    start = [*outer, "new-session", "-d", "-s", "person", "-x", "120", "-y", "40", "-c", str(folder / "work"), *inner]
    subprocess.run(start, check=True)
    try:
        yield outer
    finally:
        subprocess.run([*outer, "kill-server"], check=False)


async def test_attach_shows_its_screen_and_lets_nobody_type_unasked(tmp_path: Path) -> None:
    from .test_tmux_outlives import TmuxLab, begin_and_kill

    lab = TmuxLab(tmp_path)
    await begin_and_kill(lab, "typed")
    outer = ["tmux", "-u", "-S", str(tmp_path / "outer"), "-f", os.devnull]
    command = [sys.executable, "-m", "shopfloor", "-C", str(lab.repo), "attach", "add"]
    start = [*outer, "new-session", "-d", "-s", "person", "-x", "120", "-y", "40"]
    subprocess.run([*start, *command], check=True)
    try:
        argv = [*outer, "capture-pane", "-p", "-t", "=person:"]

        def shown() -> str:
            return subprocess.run(argv, capture_output=True, text=True, check=False).stdout

        await until_true(lambda: '"content": "at work"' in shown(), "its screen is shown")
        assert "detach with C-b d" in shown()
        listed = ["tmux", "-S", "tmux.sock", "list-clients", "-F", "#{client_readonly}"]
        seen = subprocess.run(listed, cwd=lab.repo / ".work", capture_output=True, text=True, check=True).stdout
        assert seen.split() == ["1"]
        # An outer key goes to the inner one, which takes no key but that which leaves.
        subprocess.run([*outer, "send-keys", "-t", "=person:", "C-c"], check=True)
        subprocess.run([*outer, "send-keys", "-t", "=person:", "C-b", "d"], check=True)
        await until_true(lambda: subprocess.run([*outer, "has-session"], capture_output=True, check=False).returncode)
        assert lab.lives(), "it ended when they left"
    finally:
        subprocess.run([*outer, "kill-server"], capture_output=True, check=False)
    told = subprocess.run([*command, "--json"], capture_output=True, text=True, check=True).stdout
    assert json.loads(told)["session"] == lab.sessions()[0]
    refused = subprocess.run(command, capture_output=True, text=True, stdin=subprocess.DEVNULL, check=False)
    assert refused.returncode == 4
    assert "shopfloor log add --follow" in refused.stderr
    async with lab.floor(agent="typed") as floor:
        await floor.ask("stop", next(iter((await floor.board()).records)))
    late = subprocess.run(command, capture_output=True, text=True, check=False)
    assert late.returncode == 4
    assert "nobody works on 'add'" in late.stderr


async def test_gc_and_doctor_name_sessions_that_nobody_owns(tmp_path: Path) -> None:
    from .test_tmux_outlives import TmuxLab

    lab = TmuxLab(tmp_path)
    async with lab.floor(agent="typed") as floor:
        await floor.run([lab.prompt("add", script(write("new.txt")))])
    start = ["tmux", "-S", "tmux.sock", "-f", os.devnull, "new-session", "-d", "-s", "stray", "sleep", "86400"]
    subprocess.run(start, cwd=lab.repo / ".work", check=True)
    async with lab.floor() as floor:
        assert any("stray" in found.what for found in await floor.doctor())
        assert "stray" in [found.where for found in await floor.gc(apply=False)]
        assert lab.sessions() == ["stray"]
        await floor.gc(apply=True)
    assert lab.sessions() == []
