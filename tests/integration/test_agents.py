"""What the drivers do beyond the port's suite, with real processes."""

import asyncio
import json
import os
import signal
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from shopfloor.agents import DRIVERS, driver, drivers
from shopfloor.agents._process import ProcessAgent
from shopfloor.agents._run import AHEAD_BYTES, CHUNK, KEPT_BYTES
from shopfloor.agents.command import CommandAgent
from shopfloor.agents.jsonlines import JsonLinesAgent
from shopfloor.agents.scripted import ScriptedAgent
from shopfloor.domain.errors import NotFound, Refused
from shopfloor.domain.order import Order
from shopfloor.masking import MASK
from shopfloor.ports import Kind, Launch, Profile, Report
from shopfloor.spawn import Guard, Step

SECRET = "sk-integration-0123"


@asynccontextmanager
async def agent(make: Callable[..., ProcessAgent] = CommandAgent, **more: Any) -> AsyncIterator[ProcessAgent]:
    async with Guard() as guard:
        yield make(guard, **more)


def launch(folder: Path, *command: str, prompt: str = "the prompt\n", number: int = 1, **changes: Any) -> Launch:
    workspace = folder / "workspace"
    workspace.mkdir(exist_ok=True)
    values: dict[str, Any] = {
        "order": Order(id="wo-abc", name="n", title="A title; $(rm x)"),
        "attempt": f"wo-abc.a{number}",
        "profile": Profile(name="mine", command=command),
        "prompt": prompt,
        "workspace": str(workspace),
        "branch": "shopfloor/n-abc",
        "directory": str(folder / f"attempt{number}"),
        "env": {"PATH": os.defpath},
        "secrets": (SECRET,),
    }
    return Launch(**{**values, **changes})


async def run(subject: ProcessAgent, what: Launch) -> list[Report]:
    handle = await subject.start(what)
    return [report async for report in subject.follow(handle)]


def texts(reports: list[Report]) -> list[str]:
    return [report.text for report in reports if report.kind is Kind.TEXT]


async def test_words_are_replaced_once_and_inside_a_word(tmp_path: Path) -> None:
    words = ["{order}", "<{branch}>", "{title}", "{workspace}/x", "{unknown}", "{}", "{{order}}", "{prompt}"]
    what = launch(tmp_path, "printf", "%s\\n", *words, prompt="say {order}")
    async with agent() as subject:
        found = texts(await run(subject, what))
    assert found == [
        "wo-abc",
        "<shopfloor/n-abc>",
        "A title; $(rm x)",
        f"{what.workspace}/x",
        "{unknown}",
        "{}",
        "{wo-abc}",
        "say {order}",
    ]


async def test_a_prompt_file_is_exact_while_it_runs_and_masked_afterwards(tmp_path: Path) -> None:
    script = 'cp "$1" seen; wc -c'
    prompt = f"use {SECRET}\n"
    what = launch(tmp_path, "sh", "-c", script, "sh", "{prompt_file}", prompt=prompt)
    async with agent() as subject:
        reports = await run(subject, what)
    assert Path(what.workspace, "seen").read_text() == prompt
    assert Path(what.directory, "prompt.md").read_text() == f"use {MASK}\n"
    assert [text.strip() for text in texts(reports)] == ["0"], "stdin is empty then"


async def test_a_prompt_on_stdin_is_exact_and_kept_masked(tmp_path: Path) -> None:
    what = launch(tmp_path, "sh", "-c", "cat > seen", prompt=f"use {SECRET}")
    async with agent() as subject:
        await run(subject, what)
    assert Path(what.workspace, "seen").read_text() == f"use {SECRET}"
    assert Path(what.directory, "prompt.md").read_text() == f"use {MASK}"


@pytest.mark.parametrize(
    ("prompt", "told"), [("x" * 131_072, "longer than 131071 bytes"), ("a\0b", "NUL")], ids=["long", "nul"]
)
async def test_a_prompt_that_fits_no_argument_is_refused(prompt: str, told: str, tmp_path: Path) -> None:
    async with agent() as subject:
        with pytest.raises(Refused, match=told) as caught:
            await subject.start(launch(tmp_path, "echo", "{prompt}", prompt=prompt))
    assert "{prompt_file}" in caught.value.hint


async def test_stderr_is_text_that_says_so(tmp_path: Path) -> None:
    async with agent() as subject:
        reports = await run(subject, launch(tmp_path, "sh", "-c", "echo out; echo err >&2"))
    streams = {report.text: report.data.get("stream", "stdout") for report in reports if report.kind is Kind.TEXT}
    assert streams == {"out": "stdout", "err": "stderr"}
    assert (tmp_path / "attempt1" / "stderr.log").read_text() == "err\n"


async def test_an_agent_waits_for_a_slow_follower_and_loses_nothing(tmp_path: Path) -> None:
    size = 3 * AHEAD_BYTES
    what = launch(tmp_path, "sh", "-c", f"yes {'x' * 400} | head -c {size}")
    async with agent() as subject:
        handle = await subject.start(what)
        live = subject._attempts.get(what.attempt)
        assert live is not None
        while not live.mailbox.full:  # noqa: ASYNC110 - it tells nobody
            await asyncio.sleep(0)
        for _ in range(1000):  # it may go on, but not get anywhere
            await asyncio.sleep(0)
        assert live.mailbox._held < AHEAD_BYTES + 20 * CHUNK
        heard = sum([len(r.text) + 1 async for r in subject.follow(handle) if r.kind is Kind.TEXT])
    assert heard - 1 <= size <= heard + 1


async def test_a_waiting_agent_that_nobody_follows_can_be_stopped(tmp_path: Path) -> None:
    what = launch(tmp_path, "yes", "x" * 400)
    async with agent() as subject:
        handle = await subject.start(what)
        live = subject._attempts.get(what.attempt)
        assert live is not None
        while not live.mailbox.full:  # noqa: ASYNC110 - it tells nobody
            await asyncio.sleep(0)
        await subject.stop(handle)
        reports = [report async for report in subject.follow(handle)]
    assert reports[-1].status == "killed"


async def test_the_beginning_of_a_secret_at_the_very_end_is_kept(tmp_path: Path) -> None:
    what = launch(tmp_path, "printf", "%s", f"it begins {SECRET[:-1]}")
    async with agent() as subject:
        assert texts(await run(subject, what)) == [f"it begins {SECRET[:-1]}"]
    assert Path(what.directory, "stdout.log").read_text() == f"it begins {SECRET[:-1]}"


async def test_what_is_kept_is_bounded(tmp_path: Path) -> None:
    size = KEPT_BYTES + (1 << 20)
    what = launch(tmp_path, "sh", "-c", f"yes {'x' * 1000} | head -c {size}")
    async with agent() as subject:
        reports = await run(subject, what)
    folder = Path(what.directory)
    assert reports[-1].status == "completed"
    log = (folder / "stdout.log").stat().st_size
    assert KEPT_BYTES < log < KEPT_BYTES + 200
    with (folder / "stdout.log").open("rb") as file:
        file.seek(-100, os.SEEK_END)
        assert b"is not kept]" in file.read()
    assert (folder / "transcript.jsonl").stat().st_size < KEPT_BYTES + 1000
    *_, note, last = (folder / "transcript.jsonl").read_text().splitlines()
    assert "only the end is added" in json.loads(note)["text"]
    assert json.loads(last)["kind"] == "exited"


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full here")
async def test_a_full_disk_costs_the_agent_nothing(tmp_path: Path) -> None:
    what = launch(tmp_path, "sh", "-c", "echo one; echo two")
    Path(what.directory).mkdir()
    Path(what.directory, "stdout.log").symlink_to("/dev/full")
    async with agent() as subject:
        reports = await run(subject, what)
    warnings = [report.text for report in reports if report.kind is Kind.LOG]
    assert warnings == ["stdout.log is not kept any more: no space left on device"]
    assert texts(reports) == ["one", "two"]
    assert reports[-1].status == "completed"


async def test_a_folder_that_cannot_be_made_is_refused(tmp_path: Path) -> None:
    (tmp_path / "attempt1").write_text("in the way")
    async with agent() as subject:
        with pytest.raises(Refused, match=r"cannot write .*attempt1"):
            await subject.start(launch(tmp_path, "true"))
        again = launch(tmp_path, "true", directory=str(tmp_path / "elsewhere"))
        assert (await run(subject, again))[-1].status == "completed", "a refused start may be tried again"


async def test_a_log_that_cannot_be_made_is_refused(tmp_path: Path) -> None:
    what = launch(tmp_path, "sleep", "86400")
    Path(what.directory, "stderr.log").mkdir(parents=True)
    async with agent() as subject:
        with pytest.raises(Refused, match=r"was not started: cannot write .*stderr\.log"):
            await subject.start(what)


@pytest.mark.skipif(sys.platform != "linux", reason="needs /proc")
async def test_a_stream_that_somebody_else_holds_open_does_not_hold_the_end(tmp_path: Path) -> None:
    async with agent() as subject:
        handle = await subject.start(launch(tmp_path, "sh", "-c", "echo ready; sleep 86400"))
        reports = subject.follow(handle)
        async for report in reports:
            if report.text == "ready":
                break
        held = os.open(f"/proc/{handle.pid}/fd/1", os.O_WRONLY)
        try:
            os.kill(handle.pid, signal.SIGKILL)
            (end,) = [report async for report in reports]
        finally:
            os.close(held)
    assert (end.kind, end.status, end.exit_code) == (Kind.EXITED, "error", -9)


async def test_one_follower_at_a_time(tmp_path: Path) -> None:
    async with agent() as subject:
        handle = await subject.start(launch(tmp_path, "sh", "-c", "echo a; cat >/dev/null; sleep 86400"))
        first = subject.follow(handle)
        await anext(first)
        with pytest.raises(Refused, match="followed already"):
            await anext(subject.follow(handle))
        await subject.stop(handle)
        assert [report.kind async for report in first][-1] is Kind.EXITED


async def test_following_again_after_the_end_gives_the_end(tmp_path: Path) -> None:
    async with agent() as subject:
        handle = await subject.start(launch(tmp_path, "sh", "-c", "exit 3"))
        first = [report async for report in subject.follow(handle)]
        assert [report async for report in subject.follow(handle)] == first[-1:]


async def test_a_follower_that_was_cancelled_can_be_replaced(tmp_path: Path) -> None:
    async with agent() as subject:
        handle = await subject.start(launch(tmp_path, "sleep", "86400"))

        async def listen() -> list[Report]:
            return [report async for report in subject.follow(handle)]

        task = asyncio.create_task(listen())
        live = subject._attempts.get(handle.attempt)
        assert live is not None
        while not live.followed:  # noqa: ASYNC110
            await asyncio.sleep(0)
        task.cancel()
        await asyncio.wait({task})
        await subject.stop(handle)
        assert (await listen())[-1].status == "killed"


async def test_memory_is_that_of_the_family(tmp_path: Path) -> None:
    async with agent() as subject:
        handle = await subject.start(launch(tmp_path, "sleep", "86400"))
        assert subject.memory_bytes(handle) > 0
        await subject.stop(handle)
        assert subject.memory_bytes(handle) == 0


async def test_probe_looks_on_the_path_of_the_profile(tmp_path: Path) -> None:
    program = tmp_path / "bin" / "my-agent"
    program.parent.mkdir()
    program.write_text("#!/bin/sh\n")
    async with agent(environment={"PATH": os.defpath}, root=tmp_path) as subject:
        plain = Profile(name="p", command=("my-agent",))
        assert not (await subject.probe(plain)).found
        there = Profile(name="p", command=("my-agent",), env={"PATH": str(program.parent)})
        assert not (await subject.probe(there)).found, "it is not executable yet"
        program.chmod(0o755)
        assert (await subject.probe(there)).found
        assert (await subject.probe(Profile(name="p", command=("bin/my-agent",)))).found
        nothing = await subject.probe(Profile(name="p"))
        assert "no command" in nothing.problem
        assert "[agents.p]" in nothing.hint


async def test_a_relative_program_is_one_of_the_workspace(tmp_path: Path) -> None:
    what = launch(tmp_path, "tools/agent.sh")
    program = Path(what.workspace, "tools", "agent.sh")
    program.parent.mkdir()
    program.write_text("#!/bin/sh\npwd\n")
    program.chmod(0o755)
    async with agent() as subject:
        assert texts(await run(subject, what)) == [what.workspace]


async def test_last_words_after_sigterm_are_heard(tmp_path: Path) -> None:
    prompt = "```script\n[[do]]\ncost = 0.25\n[[do]]\nhang = true\n```"
    async with agent(ScriptedAgent, ladder=[Step(signal.SIGTERM, 30.0)]) as subject:
        handle = await subject.start(launch(tmp_path, prompt=prompt))
        reports = subject.follow(handle)
        async for report in reports:
            if "hangs" in report.text:
                break
        await subject.stop(handle)
        turn, usage, end = [report async for report in reports]
    assert (turn.kind, turn.status, turn.text) == (Kind.TURN_END, "failed", "stopped by SIGTERM")
    assert (usage.kind, usage.cost_usd) == (Kind.USAGE, 0.25)
    assert (end.status, end.exit_code, end.cost_usd) == ("killed", 143, 0.25)


async def test_a_module_in_the_workspace_does_not_replace_the_scripted_agent(tmp_path: Path) -> None:
    what = launch(tmp_path, prompt="```script\n[[do]]\nnothing = true\n```")
    what.env["PYTHONPATH"] = what.workspace
    for name in ("json.py", "shopfloor.py", "tomllib.py"):
        Path(what.workspace, name).write_text("raise SystemExit('replaced')")
    async with agent(ScriptedAgent) as subject:
        assert (await run(subject, what))[-1].status == "completed"


async def test_an_event_comes_while_the_agent_works(tmp_path: Path) -> None:
    line = json.dumps({"type": "thought", "data": {"content": "hm"}})
    async with agent(JsonLinesAgent) as subject:
        handle = await subject.start(launch(tmp_path, "sh", "-c", f"echo '{line}'; exec sleep 86400"))
        reports = subject.follow(handle)
        assert (await anext(reports)).text == "hm"
        await subject.stop(handle)
        assert [report.status async for report in reports] == ["killed"]


async def test_the_registry_has_every_driver() -> None:
    async with Guard() as guard:
        made = drivers(guard, {"PATH": os.defpath})
        assert {name: found.driver for name, found in made.items()} == {name: name for name in DRIVERS}
        with pytest.raises(NotFound, match="no agent driver 'telepathy'"):
            driver("telepathy", guard)
