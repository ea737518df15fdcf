"""Nothing survives: whatever a command starts ends with the command, the engine, the guard or its keeper."""

import asyncio
import itertools
import math
import os
import pty
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import pytest

import shopfloor
from shopfloor import guard as guard_program
from shopfloor.spawn import DEFAULT_LADDER, Guard, Process, SpawnError, Step, alive, descendants

from .engine_lab import until_true

ENV = {"PATH": os.environ["PATH"]}
SOURCE = str(Path(shopfloor.__file__).parents[1])
KILL = (Step(signal.SIGKILL, math.inf),)

pytestmark = [
    pytest.mark.timeout(30),
    pytest.mark.skipif(sys.platform != "linux", reason="elsewhere the guard is weaker, and says so"),
]

WILD = '''
"""Start what is hard to end, say "ready", then exit or stay. All of it has the mark among its arguments."""
import os, signal, subprocess, sys, time

mark, kind, then = sys.argv[1:]


def session():
    subprocess.Popen(["sleep", mark], start_new_session=True, stdout=subprocess.DEVNULL)


def daemon():
    if (middle := os.fork()) == 0:
        os.setsid()
        if os.fork() == 0:
            os.chdir("/")
            os.closerange(0, 10)
            os.execvpe("env", ["env", "-i", "sleep", mark], {"PATH": os.environ["PATH"]})
        os._exit(0)
    os.waitpid(middle, 0)


def respawn(budget):
    """Replace every child that is killed."""
    for _ in range(budget):
        if (child := os.fork()) == 0:
            os.setsid()
            signal.pause()
        os.waitpid(child, 0)


def flee(budget):
    """A chain in which each process forks the next and is gone."""
    for _ in range(budget):
        if os.fork():
            os._exit(0)
        time.sleep(0.001)
    signal.pause()


def storm():
    for run in [respawn] * 10 + [flee] * 10:
        if os.fork() == 0:
            os.setsid()
            os.closerange(0, 3)
            run(200 if run is respawn else 3000)
            os._exit(0)


def deaf():
    for sig in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(sig, signal.SIG_IGN)


def stubborn():
    deaf()
    session()


for name in kind.split("+"):
    globals()[name]()
print("ready", flush=True)
while then == "stay":
    signal.pause()
'''

ENGINE = """
import asyncio, os, sys
from pathlib import Path
from shopfloor.spawn import Guard

async def main():
    guard = await Guard().__aenter__()
    commands = [await guard.spawn(sys.argv[1:], cwd=Path("/"), env=dict(os.environ)) for _ in range(2)]
    for command in commands:
        await command.stdout.readuntil(b"ready\\n")
    print(guard.pid, *(command.pid for command in commands), flush=True)
    if sys.stdin.read(1):
        os._exit(0)  # no farewell to the guard
    while True:  # busy starting more of them until it is killed
        await guard.spawn(sys.argv[1:], cwd=Path("/"), env=dict(os.environ))

asyncio.run(main())
"""

KINDS = ["session", "daemon", "storm", "stubborn", "session+daemon+storm+stubborn"]


def running(pids: list[int]) -> list[int]:
    found = []
    for pid in pids:
        with suppress(OSError):
            if guard_program.stat(pid)[0] != b"Z":
                found.append(pid)
    return found


class Wild:
    """The command, and who of it runs: found by the mark among the arguments, which no fork can shed."""

    numbers = itertools.count()

    def __init__(self, folder: Path) -> None:
        self.script = folder / "wild.py"
        self.script.write_text(WILD)
        self.mark = f"1000.{os.getpid()}{next(self.numbers):04}"

    def argv(self, kind: str, then: str = "stay") -> list[str]:
        return [sys.executable, "-I", "-S", str(self.script), self.mark, kind, then]

    def running(self) -> list[int]:
        numbers = map(int, filter(str.isdigit, (entry.name for entry in Path("/proc").iterdir())))
        return running([pid for pid in numbers if self.marked(pid)])

    def marked(self, pid: int) -> bool:
        try:
            return self.mark.encode() in Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
        except OSError:
            return False

    async def start(self, guard: Guard, kind: str, then: str = "stay") -> Process:
        process = await guard.spawn(self.argv(kind, then), cwd=Path("/"), env=ENV)
        assert process.stdout
        assert await process.stdout.readline() == b"ready\n"
        if then == "stay":
            await until_true(lambda: len(self.running()) > 1)
        return process


@pytest.fixture
def wild(tmp_path: Path) -> Iterator[Wild]:
    wild = Wild(tmp_path)
    yield wild
    while left := wild.running():  # only after a failure
        for pid in left:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)


@pytest.mark.parametrize("kind", KINDS)
async def test_nothing_survives_the_end_of_the_command(wild: Wild, kind: str) -> None:
    async with Guard() as guard:
        process = await wild.start(guard, kind, then="end")
        end = await process.wait()
        assert wild.running() == []
        assert (end.code, end.lost) == (0, False)
        assert end.leftovers >= 1


@pytest.mark.parametrize("kind", KINDS)
async def test_nothing_survives_stop(wild: Wild, kind: str) -> None:
    async with Guard() as guard:
        process = await wild.start(guard, kind)
        await process.stop((Step(signal.SIGTERM, 0.2), *KILL))
        assert wild.running() == []


@pytest.mark.parametrize("kind", KINDS)
async def test_nothing_survives_close(wild: Wild, kind: str) -> None:
    async with Guard() as guard:
        process = await wild.start(guard, kind)
    assert wild.running() == []
    end = await process.wait()
    assert (end.signal, end.lost) == (signal.SIGKILL, False)


@pytest.mark.parametrize("kind", KINDS)
async def test_nothing_survives_a_killed_guard(wild: Wild, kind: str) -> None:
    async with Guard() as guard:
        process = await wild.start(guard, kind)
        os.kill(guard.pid, signal.SIGKILL)
        end = await process.wait()
        assert wild.running() == []
        assert (end.code, end.signal, end.lost) == (None, None, True)


@pytest.mark.parametrize("kind", KINDS)
async def test_nothing_survives_a_killed_keeper(wild: Wild, kind: str) -> None:
    async with Guard() as guard:
        process = await wild.start(guard, kind)
        other = await guard.spawn(["cat"], cwd=Path("/"), env=ENV, pipe_stdin=True)
        os.kill(process._keeper, signal.SIGKILL)
        end = await process.wait()
        assert wild.running() == []
        assert end.lost
        assert alive(other.pid, other.start_time)
        assert other.stdin
        other.stdin.close()
        assert (await other.wait()).code == 0


@asynccontextmanager
async def engine(*argv: str) -> AsyncIterator[tuple[subprocess.Popen[bytes], list[int]]]:
    """An engine in a process of its own that runs the command twice; and the guard, with all that it started."""
    command = [sys.executable, "-c", ENGINE, *argv]
    pipe = subprocess.PIPE
    with subprocess.Popen(command, stdin=pipe, stdout=pipe, env=ENV | {"PYTHONPATH": SOURCE}) as popen:
        assert popen.stdout
        guard, *_ = map(int, popen.stdout.readline().split())
        try:
            yield popen, [guard, *descendants(guard)]
        finally:
            popen.kill()


@pytest.mark.parametrize("kind", KINDS)
async def test_nothing_survives_a_killed_engine(wild: Wild, kind: str) -> None:
    async with engine(*wild.argv(kind)) as (popen, started):
        popen.kill()
        await until_true(lambda: not running(started))
        await until_true(lambda: not wild.running())


async def test_nothing_survives_an_engine_that_just_exits(wild: Wild) -> None:
    async with engine(*wild.argv("session+daemon")) as (popen, started):
        popen.communicate(b"x")
        await until_true(lambda: not running(started))
        await until_true(lambda: not wild.running())  # some may have begun after we looked who there is


async def test_nothing_survives_an_engine_killed_while_it_starts_commands(wild: Wild) -> None:
    async with engine(*wild.argv("session")) as (popen, started):
        assert popen.stdin
        popen.stdin.close()
        before = len(wild.running())
        await until_true(lambda: len(wild.running()) > before + 20)
        popen.kill()
        await until_true(lambda: not running(started))
        await until_true(lambda: not wild.running())


async def test_nothing_survives_engine_and_guard_killed_together(wild: Wild) -> None:
    async with engine(*wild.argv("session+daemon")) as (popen, started):
        popen.kill()
        with suppress(ProcessLookupError):
            os.kill(started[0], signal.SIGKILL)
        await until_true(lambda: not running(started))
        await until_true(lambda: not wild.running())  # some may have begun after we looked who there is


# --- after a loss ---


async def test_the_next_spawn_starts_a_new_guard(wild: Wild) -> None:
    async with Guard() as guard:
        guard.start()
        lost = guard.pid
        process = await wild.start(guard, "session")
        os.kill(lost, signal.SIGKILL)
        for _ in range(2):  # also before the loss was noticed
            following = await guard.spawn(["true"], cwd=Path("/"), env=ENV)
            assert (await following.wait()).code == 0
        assert guard.pid != lost
        assert (await process.wait()).lost


async def test_a_spawn_on_a_dying_guard_starts_the_command_once(tmp_path: Path) -> None:
    async with Guard() as guard:
        guard.start()
        for number in range(20):
            log = tmp_path / str(number)
            os.kill(guard.pid, signal.SIGKILL)
            process = await guard.spawn(["echo", "once"], cwd=Path("/"), env=ENV, stdout=log)
            await process.wait()
            assert log.read_text() == "once\n"


async def test_many_spawns_survive_one_dying_guard() -> None:
    async with Guard() as guard:
        guard.start()
        for _ in range(5):
            os.kill(guard.pid, signal.SIGKILL)
            starting = (guard.spawn(["true"], cwd=Path("/"), env=ENV) for _ in range(20))
            ends = [await process.wait() for process in await asyncio.gather(*starting)]
            assert [end.code for end in ends] == [0] * 20


async def test_what_ended_before_the_loss_is_not_lost() -> None:
    async with Guard() as guard:
        process = await guard.spawn(["sh", "-c", "exit 7"], cwd=Path("/"), env=ENV)
        assert (await process.wait()).code == 7
        os.kill(guard.pid, signal.SIGKILL)
        assert await process.stop() == (await process.wait(), 0)
        assert (await process.wait()).code == 7


async def test_a_guard_runs_no_process_before_it_has_something_to_guard() -> None:
    async with Guard() as guard:
        assert guard_program.children(os.getpid()) == []
        with pytest.raises(RuntimeError, match="does not run"):
            _ = guard.pid
        await (await guard.spawn(["true"], cwd=Path("/"), env=ENV)).wait()
        assert guard_program.children(os.getpid()) == [guard.pid]


async def test_a_guard_that_was_left_starts_nothing() -> None:
    async with Guard() as guard:
        guard.start()
        pid = guard.pid
    await guard.close()
    assert running([pid]) == []
    with pytest.raises(SpawnError, match="the guard is closed"):
        await guard.spawn(["true"], cwd=Path("/"), env=ENV)


@pytest.mark.parametrize("sig", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
async def test_guard_and_keeper_shrug_off_what_an_agent_sends_by_name(sig: int) -> None:
    async with Guard() as guard:
        guard.start()
        pid = guard.pid
        process = await guard.spawn(["cat"], cwd=Path("/"), env=ENV, pipe_stdin=True)
        for target in (pid, process._keeper):
            assert "python" not in Path(f"/proc/{target}/comm").read_text()
            os.kill(target, sig)
        assert process.stdin
        process.stdin.close()
        assert (await process.wait()).code == 0
        assert guard.pid == pid
        assert running([pid]) == [pid]


# --- signals and the ladder ---


def obeys(*sigs: int) -> list[str]:
    """A command that ignores SIGINT, SIGTERM and SIGHUP but for those given, and says "ready"."""
    ignored = {signal.SIGINT, signal.SIGTERM, signal.SIGHUP} - set(sigs)
    code = f"import signal\nfor s in {list(map(int, ignored))}: signal.signal(s, signal.SIG_IGN)\n"
    code += f"for s in {list(map(int, sigs))}: signal.signal(s, signal.SIG_DFL)\n"
    return [sys.executable, "-c", code + "print('ready', flush=True)\nwhile True: signal.pause()"]


@pytest.mark.parametrize(
    ("sigs", "steps", "by"),
    [
        ((signal.SIGINT,), 1, signal.SIGINT),
        ((signal.SIGTERM,), 2, signal.SIGTERM),
        ((), 3, signal.SIGKILL),
    ],
)
async def test_the_ladder_is_climbed_as_far_as_needed(sigs: tuple[int, ...], steps: int, by: int) -> None:
    ladder = (Step(signal.SIGINT, 0.2), Step(signal.SIGTERM, 0.2), *KILL)
    assert [step.signal for step in DEFAULT_LADDER] == [step.signal for step in ladder]
    async with Guard() as guard:
        process = await guard.spawn(obeys(*sigs), cwd=Path("/"), env=ENV)
        assert process.stdout
        await process.stdout.readline()
        end, taken = await process.stop(ladder if steps > 1 else DEFAULT_LADDER)
    assert (taken, end.signal, end.code) == (steps, by, None)


async def test_a_ladder_that_is_too_short_says_so() -> None:
    async with Guard() as guard:
        process = await guard.spawn(obeys(), cwd=Path("/"), env=ENV)
        assert process.stdout
        await process.stdout.readline()
        with pytest.raises(TimeoutError, match="SIGKILL"):
            await process.stop((Step(signal.SIGTERM, 0.05),))
        assert alive(process.pid, process.start_time)


async def test_a_stopped_command_can_be_killed() -> None:
    async with Guard() as guard:
        process = await guard.spawn(["sleep", "1000"], cwd=Path("/"), env=ENV)
        process.signal(signal.SIGSTOP)
        await until_true(lambda: guard_program.stat(process.pid)[0] == b"T")
        end, taken = await process.stop((Step(signal.SIGTERM, 0.05), *KILL))
    assert (end.signal, taken) == (signal.SIGKILL, 2)


async def test_a_signal_reaches_the_group_and_with_tree_everything(wild: Wild) -> None:
    async with Guard() as guard:
        process = await wild.start(guard, "session+deaf")
        process.signal(signal.SIGTERM)
        process.signal(signal.SIGSTOP)
        await until_true(lambda: guard_program.stat(process.pid)[0] == b"T")
        (sleeper,) = set(wild.running()) - {process.pid}
        assert guard_program.stat(sleeper)[0] == b"S"
        process.signal(signal.SIGTERM, tree=True)
        await until_true(lambda: wild.running() == [process.pid])


async def test_a_signal_that_does_not_exist_is_refused_and_one_too_late_ignored() -> None:
    async with Guard() as guard:
        process = await guard.spawn(["true"], cwd=Path("/"), env=ENV)
        with pytest.raises(ValueError, match="99 is not a signal"):
            process.signal(99)
        await process.wait()
        process.signal(signal.SIGKILL)
        assert (await process.wait()).code == 0


async def test_the_terminals_interrupt_does_not_reach_a_command(tmp_path: Path) -> None:
    code = """
import asyncio, fcntl, os, signal, sys, termios
from pathlib import Path
from shopfloor.spawn import Guard, Step

async def main():
    fcntl.ioctl(0, termios.TIOCSCTTY, 0)
    interrupted = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGINT, interrupted.set)
    async with Guard() as guard:
        command = await guard.spawn(["sleep", "1000"], cwd=Path("/"), env=dict(os.environ))
        print("ready", flush=True)
        await interrupted.wait()
        end, _ = await command.stop([Step(signal.SIGTERM, 10)])
        print("ended by", end.signal, end.lost, flush=True)

asyncio.run(main())
"""
    ours, terminal = pty.openpty()
    with subprocess.Popen(
        [sys.executable, "-c", code],
        stdin=terminal,
        stdout=terminal,
        stderr=terminal,
        env=ENV | {"PYTHONPATH": SOURCE},
        start_new_session=True,
    ):
        os.close(terminal)
        seen = b""
        with suppress(OSError):  # how Linux says that the terminal's last user is gone
            while chunk := os.read(ours, 4096):
                if b"ready" in chunk:
                    os.write(ours, b"\x03")
                seen += chunk
    os.close(ours)
    assert f"ended by {int(signal.SIGTERM)} False" in seen.decode()


# --- waiting and cancelling ---


async def test_several_may_wait_and_one_may_give_up() -> None:
    async with Guard() as guard:
        process = await guard.spawn(["cat"], cwd=Path("/"), env=ENV, pipe_stdin=True)
        waiting = [asyncio.create_task(process.wait()) for _ in range(3)]
        await asyncio.sleep(0)
        waiting[0].cancel()
        await asyncio.sleep(0)
        assert alive(process.pid, process.start_time)
        assert process.stdin
        process.stdin.close()
        assert waiting[0].cancelled()
        assert [end.code for end in await asyncio.gather(*waiting[1:])] == [0, 0]


def descriptors(*pids: int) -> Counter[tuple[int, str]]:
    """What each of these processes holds open. Compare by what came: what others left may close at any time."""
    held: Counter[tuple[int, str]] = Counter()
    for pid in pids:
        for link in Path(f"/proc/{pid}/fd").iterdir():
            with suppress(FileNotFoundError):
                held[pid, str(link.readlink())] += 1
    return held


async def test_a_cancelled_spawn_leaves_nothing(wild: Wild) -> None:
    async with Guard() as guard:
        await (await guard.spawn(["true"], cwd=Path("/"), env=ENV, stdin=b"x", pipe_stdin=False)).wait()
        await until_true(lambda: guard_program.children(guard.pid) == [])
        before = descriptors(os.getpid(), guard.pid)
        cancelled = 0
        for delay_s in [0.0] * 20 + [number * 0.0002 for number in range(40)]:
            task = asyncio.create_task(guard.spawn(wild.argv("session"), cwd=Path("/"), env=ENV, pipe_stdin=True))
            for _ in range(cancelled % 20):
                await asyncio.sleep(0)
            await asyncio.sleep(delay_s)
            task.cancel()
            try:
                process = await task
            except asyncio.CancelledError:
                cancelled += 1
            else:
                await process.stop(KILL)
                assert process.stdin
                process.stdin.close()
        assert cancelled > 20
        await until_true(lambda: guard_program.children(guard.pid) == [])
        assert wild.running() == []
        await until_true(lambda: not descriptors(os.getpid(), guard.pid) - before)


async def test_fifty_commands_leave_no_descriptor_behind() -> None:
    async with Guard() as guard:
        for number in range(51):
            process = await guard.spawn(["true"], cwd=Path("/"), env=ENV)
            assert process.stdout
            assert process.stderr
            await asyncio.gather(process.wait(), process.stdout.read(), process.stderr.read())
            if number == 0:
                await until_true(lambda: guard_program.children(guard.pid) == [])
                before = descriptors(os.getpid(), guard.pid)
        await until_true(lambda: guard_program.children(guard.pid) == [])
        await until_true(lambda: not descriptors(os.getpid(), guard.pid) - before)


async def test_an_exec_failure_leaves_nothing() -> None:
    async with Guard() as guard:
        for _ in range(20):
            with pytest.raises(SpawnError):
                await guard.spawn(["no-such-program"], cwd=Path("/"), env=ENV)
        await until_true(lambda: guard_program.children(guard.pid) == [])


def name_of(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/comm").read_text().strip()
    except OSError:
        return "gone"


async def test_orphans_that_end_early_are_collected() -> None:
    script = "for i in 1 2 3 4 5; do (setsid true &); done; echo ready; cat"
    async with Guard() as guard:
        process = await guard.spawn(["sh", "-c", script], cwd=Path("/"), env=ENV, pipe_stdin=True)
        assert process.stdout
        await process.stdout.readline()
        await until_true(lambda: sorted(map(name_of, descendants(process._keeper))) == ["cat", "sh"])
        assert process.stdin
        process.stdin.close()
        assert (await process.wait()).leftovers == 0
