# ruff: noqa: ASYNC240 - a case has its event loop to itself
"""The conformance suite of the Agent port. Whoever writes a driver runs it against theirs.

    SUBJECT = Subject(make=MyAgent, profile=Profile(name="mine", command=("my-agent",)), prompt=my_prompt)

    @pytest.mark.parametrize("case", cases(SUBJECT))
    async def test_my_agent(case, tmp_path):
        await run_case(case, SUBJECT, tmp_path)

A case tells the agent what to do by a prompt. ``Subject.prompt`` makes it from the name of a behaviour, and
``BEHAVIOURS`` says what each is; the default is a script for the scripted agent, which any driver that passes stdin on
can run.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import msgspec

from shopfloor import spawn
from shopfloor.domain.errors import Refused
from shopfloor.ports import Handle, Kind, Launch, Report
from shopfloor.spawn import Guard
from shopfloor.testing.behaviours import (
    BEHAVIOURS,
    LONG_CHARS,
    SCRIPTED,
    SCRIPTED_CLAUDE,
    SECRET,
    TERMINAL,
    Bench,
    Subject,
    check_end,
    scripted_prompt,
)

__all__ = [
    "BEHAVIOURS",
    "CASES",
    "SCRIPTED",
    "SCRIPTED_CLAUDE",
    "TERMINAL",
    "Bench",
    "Subject",
    "cases",
    "run_case",
    "scripted_prompt",
]

MOST_CHARS = 1 << 20


async def _rest(reports: AsyncIterator[Report]) -> list[Report]:
    return [report async for report in reports]


# -- the cases ----------------------------------------------------------------------------------------------------


async def probe_finds_it(bench: Bench) -> None:
    probe = await bench.agent.probe(bench.subject.profile)
    assert probe.found, probe.problem
    assert not probe.problem, "it was found, so there is no problem"


async def probe_names_what_is_missing(bench: Bench) -> None:
    profile = msgspec.structs.replace(bench.subject.profile, **bench.subject.missing)
    probe = await bench.agent.probe(profile)
    assert not probe.found
    assert bench.subject.missing_word in probe.problem
    assert probe.hint, "a hint says what to do"


async def success_is_completed(bench: Bench) -> None:
    end = check_end(await bench.run("works"), "completed")
    assert end.exit_code == _code(bench, 0)


async def it_works_in_its_workspace(bench: Bench) -> None:
    check_end(await bench.run("works"), "completed")
    assert Path(bench.last.workspace, "hello.txt").read_text() == "hello\n"


async def failure_is_an_error(bench: Bench) -> None:
    end = check_end(await bench.run("fails"), "error")
    assert end.exit_code == _code(bench, 1)


async def a_crash_is_an_error(bench: Bench) -> None:
    end = check_end(await bench.run("crashes"), "error")
    assert end.exit_code == _code(bench, 7)
    assert end.text, "the end says how it came"


async def death_by_signal_is_an_error(bench: Bench) -> None:
    end = check_end(await bench.run("dies"), "error")
    assert end.exit_code != 0


async def no_output_is_no_trouble(bench: Bench) -> None:
    end = check_end(await bench.run("silent"), "error" if bench.subject.success_needs_words else "completed")
    assert end.exit_code == _code(bench, 0)


async def the_prompt_arrives_whole(bench: Bench) -> None:
    text = "first\r\nsecond\tthird \u00e4\u4e2d\U0001f527 \u202e {prompt} {workspace} $HOME `x` \"'\\\n"
    prompt = text * (5_000_000 // len(text.encode())) + bench.subject.prompt("saves")
    check_end(await bench.run(prompt=prompt), "completed")
    assert Path(bench.last.workspace, "prompt.txt").read_bytes() == prompt.encode(), "the prompt was changed"


async def the_prompt_is_kept(bench: Bench) -> None:
    await bench.run("works")
    kept = Path(bench.last.directory, "prompt.md")
    assert kept.read_text(encoding="utf-8") == bench.last.prompt
    assert kept.stat().st_mode & 0o077 == 0, "others may read it"


async def the_environment_is_exactly_the_given(bench: Bench) -> None:
    handle, reports = await bench.until_it_hangs("hangs")
    environ = Path(f"/proc/{handle.pid}/environ")
    if environ.exists():  # Linux
        pairs = (item.partition("=") for item in environ.read_bytes().decode().split("\0") if item)
        found = {name: value for name, _, value in pairs}
        assert {name: value for name, value in found.items() if name not in bench.subject.sets} == bench.last.env
        assert bench.subject.sets <= found.keys()
    await bench.agent.stop(handle)
    check_end(await _rest(reports), "killed")


async def bytes_that_are_no_text(bench: Bench) -> None:
    reports = await bench.run("binary")
    check_end(reports, "completed")
    assert any("\ufffd\ufffd" in report.text for report in reports), "the bytes were not reported"
    assert b"\xff\xfe\x00" in Path(bench.last.directory, "stdout.log").read_bytes(), "the bytes were not kept"


async def a_long_line_is_bounded(bench: Bench) -> None:
    reports = await bench.run("long line")
    check_end(reports, "completed")
    longest = max(len(report.text) for report in reports)
    assert 0 < longest <= MOST_CHARS, f"a text has {longest} characters"


async def a_long_word_arrives_whole(bench: Bench) -> None:
    reports = await bench.run("long word")
    check_end(reports, "completed")
    said = "".join(report.text for report in reports if report.kind is not Kind.EXITED)
    assert "x" * LONG_CHARS in said, f"{said.count('x')} characters of it arrived"


async def a_banner_is_no_trouble(bench: Bench) -> None:
    check_end(await bench.run("banner"), "completed")
    assert Path(bench.last.workspace, "hello.txt").exists()


async def an_end_without_a_result_is_no_success(bench: Bench) -> None:
    """Where an agent says how it went, exit code 0 alone says nothing."""
    end = check_end(await bench.run("quits"), "error" if bench.subject.success_needs_words else "completed")
    assert end.exit_code == _code(bench, 0)
    assert end.text or not bench.subject.success_needs_words, "the end says why it is no success"


async def every_line_in_order(bench: Bench) -> None:
    reports = await bench.run("many lines")
    check_end(reports, "completed")
    numbers = [int(line) for report in reports for line in report.text.split("\n") if line.isdigit()]
    assert numbers == list(range(1, 20_001)), f"{len(numbers)} of 20000 lines were heard"


async def a_secret_is_kept_nowhere(bench: Bench) -> None:
    reports = await bench.run("tells")
    check_end(reports, "completed")
    assert not [report for report in reports if SECRET in repr(report)], "it is in a report"
    folder = Path(bench.last.directory)
    kept = [path.name for path in folder.rglob("*") if path.is_file() and SECRET.encode() in path.read_bytes()]
    assert not kept, f"it is in {kept}"
    assert Path(folder, "stdout.log").stat().st_size, "what it said was not kept at all"


async def the_transcript_is_what_was_reported(bench: Bench) -> None:
    reports = await bench.run("works")
    lines = Path(bench.last.directory, "transcript.jsonl").read_text(encoding="utf-8").splitlines()
    kept = [json.loads(line) for line in lines]
    assert [(line["kind"], line["text"]) for line in kept] == [(str(r.kind), r.text) for r in reports]
    assert all(line["time"] > 0 for line in kept)


async def cost_is_told_or_unknown(bench: Bench) -> None:
    probe = await bench.agent.probe(bench.subject.profile)
    end = check_end(await bench.run("works"), "completed")
    assert end.cost_usd == (0.01 if probe.capabilities.cost else None)


async def stop_ends_it(bench: Bench) -> None:
    handle, reports = await bench.until_it_hangs("hangs")
    await bench.agent.stop(handle)
    assert not spawn.alive(handle.pid, handle.start_time), "it still runs"
    check_end(await _rest(reports), "killed")


async def stop_ends_a_stubborn_one_and_its_family(bench: Bench) -> None:
    handle, reports = await bench.until_it_hangs("stubborn")
    family = spawn.descendants(handle.pid)
    assert family, "the behaviour has a child"
    await bench.agent.stop(handle)
    assert not [pid for pid in (handle.pid, *family) if _exists(pid)], "something still runs"
    check_end(await _rest(reports), "killed")


async def stop_without_a_follower(bench: Bench) -> None:
    handle = await bench.agent.start(bench.launch("hangs"))
    await bench.agent.stop(handle)
    assert not spawn.alive(handle.pid, handle.start_time), "it still runs"
    check_end(await _rest(bench.agent.follow(handle)), "killed")


async def stop_is_harmless_afterwards(bench: Bench) -> None:
    handle = await bench.agent.start(bench.launch("works"))
    reports = await _rest(bench.agent.follow(handle))
    await bench.agent.stop(handle)
    await bench.agent.stop(handle)
    check_end(reports, "completed")


async def what_it_leaves_behind_is_ended(bench: Bench) -> None:
    end = check_end(await bench.run("orphans"), "completed")
    orphan = int(Path(bench.last.workspace, "orphan.pid").read_text())
    assert not _exists(orphan), "it still runs"
    assert end.leftovers >= 1


async def a_killed_guard_is_a_lost_agent(bench: Bench) -> None:
    handle, reports = await bench.until_it_hangs("hangs")
    bench.guard.start()  # an agent that outlives it may have done without
    os.kill(bench.guard.pid, signal.SIGKILL)
    if bench.subject.outlives:
        assert spawn.alive(handle.pid, handle.start_time), "it ended with the guard"
        await bench.agent.stop(handle)
        check_end(await _rest(reports), "killed")
        return
    check_end(await _rest(reports), "lost")
    assert not spawn.alive(handle.pid, handle.start_time), "it still runs"


async def an_unknown_handle_is_lost(bench: Bench) -> None:
    handle = Handle(driver="x", attempt="wo-of-another-life.a1", pid=1, start_time=1)
    await bench.agent.stop(handle)
    check_end(await _rest(bench.agent.follow(handle)), "lost")


async def another_driver_takes_it_up(bench: Bench) -> None:
    """As the next controller does. Nothing is reported twice, nothing is left out, and it is not started again."""
    if not bench.subject.outlives:
        return
    handle, reports = await bench.until_it_hangs("hangs")
    bench.agent = bench.subject.make(bench.guard)  # the first one is not asked to do anything any more
    await bench.agent.stop(msgspec.json.decode(msgspec.json.encode(handle), type=Handle))
    check_end(await _rest(bench.agent.follow(handle)), "killed")
    assert not spawn.alive(handle.pid, handle.start_time), "it still runs"
    await _rest(reports)


async def a_handle_is_data(bench: Bench) -> None:
    handle = await bench.agent.start(bench.launch("works"))
    again = msgspec.json.decode(msgspec.json.encode(handle), type=Handle)
    assert again == handle
    check_end(await _rest(bench.agent.follow(again)), "completed")


async def send_is_refused_or_heard(bench: Bench) -> None:
    handle, reports = await bench.until_it_hangs("hangs")
    try:
        await bench.agent.send(handle, "hello")
    except Refused as refused:
        assert refused.hint, "a hint says what to do instead"  # noqa: PT017 - the suite does not need pytest
    await bench.agent.stop(handle)
    check_end(await _rest(reports), "killed")


async def a_missing_program_is_refused_by_name(bench: Bench) -> None:
    profile = msgspec.structs.replace(bench.subject.profile, **bench.subject.missing)
    refused = await _refusal(bench, bench.launch("works", profile=profile))
    assert bench.subject.missing_word in refused.message
    assert refused.hint


async def a_missing_workspace_is_refused_by_name(bench: Bench) -> None:
    refused = await _refusal(bench, bench.launch("works", workspace=str(bench.folder / "nowhere")))
    assert "nowhere" in refused.message


async def an_attempt_starts_once(bench: Bench) -> None:
    launch = bench.launch("works")
    handle = await bench.agent.start(launch)
    await _refusal(bench, launch)
    check_end(await _rest(bench.agent.follow(handle)), "completed")


async def many_at_once(bench: Bench) -> None:
    runs = await asyncio.gather(*(bench.run("works") for _ in range(8)))
    for reports in runs:
        check_end(reports, "completed")
    assert all(Path(launch.workspace, "hello.txt").exists() for launch in bench.launches)


async def _refusal(bench: Bench, launch: Launch) -> Refused:
    try:
        await bench.agent.start(launch)
    except Refused as refused:
        return refused
    raise AssertionError("it was not refused")


def _code(bench: Bench, code: int) -> int | None:
    """The exit code that this agent can have."""
    return code if bench.subject.program else None


def _exists(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


Case = Callable[[Bench], Awaitable[None]]

CASES: dict[str, Case] = {
    case.__name__: case
    for case in (
        probe_finds_it,
        probe_names_what_is_missing,
        success_is_completed,
        it_works_in_its_workspace,
        failure_is_an_error,
        a_crash_is_an_error,
        death_by_signal_is_an_error,
        no_output_is_no_trouble,
        the_prompt_arrives_whole,
        the_prompt_is_kept,
        the_environment_is_exactly_the_given,
        bytes_that_are_no_text,
        a_long_line_is_bounded,
        a_long_word_arrives_whole,
        a_banner_is_no_trouble,
        an_end_without_a_result_is_no_success,
        every_line_in_order,
        a_secret_is_kept_nowhere,
        the_transcript_is_what_was_reported,
        cost_is_told_or_unknown,
        stop_ends_it,
        stop_ends_a_stubborn_one_and_its_family,
        stop_without_a_follower,
        stop_is_harmless_afterwards,
        what_it_leaves_behind_is_ended,
        a_killed_guard_is_a_lost_agent,
        an_unknown_handle_is_lost,
        another_driver_takes_it_up,
        a_handle_is_data,
        send_is_refused_or_heard,
        a_missing_program_is_refused_by_name,
        a_missing_workspace_is_refused_by_name,
        an_attempt_starts_once,
        many_at_once,
    )
}
"""Every case by name."""


OF_PROGRAMS: frozenset[str] = frozenset(
    case.__name__
    for case in (
        the_environment_is_exactly_the_given,
        stop_ends_a_stubborn_one_and_its_family,
        what_it_leaves_behind_is_ended,
        a_killed_guard_is_a_lost_agent,
    )
)
"""Cases about processes of ours: they say nothing about an agent that is a server."""


def cases(subject: Subject) -> list[str]:
    """The names of the cases that this driver is held to."""
    return [name for name in CASES if subject.program or name not in OF_PROGRAMS]


async def run_case(name: str, subject: Subject, folder: Path) -> None:
    """Run one case in an empty folder. Raises AssertionError that says what the driver did wrong."""
    async with Guard() as guard:
        await CASES[name](Bench(subject, guard, subject.make(guard), folder))
