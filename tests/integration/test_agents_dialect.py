"""The two-way channel to local programs, with a small dialect and real processes."""

import asyncio
import os
import signal
import sys
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from shopfloor.agents import _dialect
from shopfloor.agents._dialect import Dialect
from shopfloor.agents._lines import Line
from shopfloor.agents._process import ProcessAgent
from shopfloor.agents._run import Reader
from shopfloor.domain.errors import Refused
from shopfloor.domain.order import Order
from shopfloor.ports import Delivery, Handle, Kind, Launch, Profile, Report
from shopfloor.spawn import Guard

SECRET = "sk-dialect-0123456"


class Parrot(Dialect):
    """Says the prompt; answers ``?x`` with ``x``; ``seen x`` confirms words; ``bye`` is its polite end."""

    line_bytes = 1 << 16

    def __init__(self, prompt: str) -> None:
        super().__init__()
        self._prompt = prompt

    def started(self) -> Sequence[Report]:
        self.say(self._prompt.encode() + b"\n")
        return [Report(kind=Kind.STARTED)]

    def heard(self, stream: str, line: Line) -> Sequence[Report]:
        text = line.data.decode()
        if text.startswith("?"):
            self.say(text[1:].encode() + b"\n")
        elif text.startswith("seen "):
            self.seen.add(text.removeprefix("seen "))
        elif text == "done":
            self.done = True
        return [Report(kind=Kind.TEXT, text=text)]

    def ended(self, code: int | None) -> Report:
        return Report(kind=Kind.EXITED, status="completed" if code == 0 else "error")

    def told(self, text: str) -> str:
        if text == "nonsense":
            raise Refused("nothing can be done with that", hint="say something else")
        self.say(text.encode() + b"\n")
        return text

    def leave(self) -> None:
        self.say(b"bye\n")


class ParrotAgent(ProcessAgent):
    driver = "parrot"

    def reader(self, launch: Launch) -> Reader:
        return Parrot(launch.prompt)

    def arguments(self, launch: Launch) -> tuple[str, ...]:
        return ("{title}",) if launch.session else ()

    def environment(self, launch: Launch) -> dict[str, str]:
        return {**launch.env, "ADDED": "1"}


@asynccontextmanager
async def parrot(polite_s: float = 30.0) -> AsyncIterator[ProcessAgent]:
    async with Guard() as guard:
        yield ParrotAgent(guard, polite_s=polite_s)


def launch(
    folder: Path, script: str, *, prompt: str = "hello", session: str = "", args: tuple[str, ...] = ()
) -> Launch:
    workspace = folder / "workspace"
    workspace.mkdir(exist_ok=True)
    profile = Profile(name="mine", command=(sys.executable, "-uc", script), args=args)
    env = {"PATH": os.defpath}
    return Launch(
        order=Order(id="wo-abc", name="n", title="A title"),
        attempt="wo-abc.a1",
        profile=profile,
        prompt=prompt,
        workspace=str(workspace),
        branch="b",
        directory=str(folder / "attempt"),
        env=env,
        secrets=(SECRET,),
        session=session,
    )


async def until(reports: AsyncIterator[Report], text: str) -> None:
    async for report in reports:
        if report.text == text:
            return
    raise AssertionError(f"it never said {text!r}")


async def begun(subject: ProcessAgent, what: Launch, text: str) -> tuple[Handle, AsyncIterator[Report]]:
    handle = await subject.start(what)
    reports = subject.follow(handle)
    await until(reports, text)
    return handle, reports


async def rest(reports: AsyncIterator[Report]) -> list[Report]:
    return [report async for report in reports]


async def test_it_is_answered_and_closing_ends_it(tmp_path: Path) -> None:
    script = f"print('?one {SECRET}'); a = input(); b = input(); print(a); print(b == 'one {SECRET}'); print('done')\n"
    script += "import sys; print('rest', repr(sys.stdin.read()))"
    async with parrot() as subject:
        reports = await rest(subject.follow(await subject.start(launch(tmp_path, script))))
    said = [report.text for report in reports if report.kind is Kind.TEXT]
    assert said[1:] == ["hello", "True", "done", "rest ''"]
    assert reports[-1].status == "completed"
    assert SECRET.encode() not in (tmp_path / "attempt" / "stdout.log").read_bytes()


async def test_words_of_the_driver_stand_between_and_nothing_is_replaced_in_them(tmp_path: Path) -> None:
    script = "import os, sys; print(sys.argv[1:], os.environ['ADDED']); print('done')"
    async with parrot() as subject:
        what = launch(tmp_path, script, session="s", args=("-x", "{order}"))
        reports = await rest(subject.follow(await subject.start(what)))
    assert reports[1].text == "['{title}', '-x', 'wo-abc'] 1"


async def test_sent_words_are_seen_or_only_delivered(tmp_path: Path) -> None:
    script = "input(); print('ready'); print('seen ' + input()); x = input(); print('got ' + x); print('done')"
    async with parrot() as subject:
        handle, reports = await begun(subject, launch(tmp_path, script), "ready")
        assert await subject.send(handle, "look") is Delivery.SEEN
        with pytest.raises(Refused, match="nothing can be done"):
            await subject.send(handle, "nonsense")
        assert await subject.send(handle, "again") is Delivery.DELIVERED
        found = await rest(reports)
        assert "got again" in [report.text for report in found]
        with pytest.raises(Refused) as caught:
            await subject.send(handle, "too late")
    assert caught.value.hint


async def test_one_that_does_not_read_blocks_nobody(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_dialect, "UNREAD_BYTES", 1 << 20)
    script = "for n in range(200): print('?' + 'x' * 60000)\nprint('all said')\nimport time; time.sleep(600)"
    async with parrot(polite_s=0.1) as subject:
        handle = await subject.start(launch(tmp_path, script, prompt="p" * 300_000))
        reports = subject.follow(handle)
        warnings = []
        async for report in reports:
            if report.kind is Kind.LOG:
                warnings.append(report.text)
            if report.text == "all said":
                break
        assert set(warnings) == {"it does not read what it is told: an answer to it was dropped"}
        with pytest.raises(Refused, match="has not read"):
            await subject.send(handle, "hello")
        await subject.stop(handle)
        assert (await rest(reports))[-1].status == "killed"


async def test_one_that_closed_its_stdin_goes_on(tmp_path: Path) -> None:
    script = "import os; os.close(0); print('closed'); print('?a'); print('?b'); os.write(1, b'end\\n'); os._exit(0)"
    async with parrot() as subject:
        reports = await rest(subject.follow(await subject.start(launch(tmp_path, script, prompt="p" * 300_000))))
    assert [report.text for report in reports if report.kind is Kind.TEXT] == ["closed", "?a", "?b", "end"]
    assert not [report for report in reports if report.kind is Kind.LOG]


async def test_stop_is_polite_first(tmp_path: Path) -> None:
    script = "input(); print('ready'); print('heard ' + input())"
    async with parrot() as subject:
        handle, reports = await begun(subject, launch(tmp_path, script), "ready")
        await subject.stop(handle)
        found = await rest(reports)
    assert [report.text for report in found[:-1]] == ["heard bye"]
    assert (found[-1].status, found[-1].exit_code) == ("killed", 0)


async def test_politeness_has_an_end(tmp_path: Path) -> None:
    script = "input(); print('ready'); print('heard ' + input()); import time; time.sleep(600)"
    async with parrot(polite_s=0.3) as subject:
        handle, reports = await begun(subject, launch(tmp_path, script), "ready")
        await asyncio.gather(subject.stop(handle), subject.stop(handle))
        found = await rest(reports)
    assert (found[-1].status, found[-1].exit_code) == ("killed", -signal.SIGINT)
