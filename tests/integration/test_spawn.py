"""Short commands, facts about processes, and what a command under the guard sees. Real processes only."""

import asyncio
import hashlib
import os
import select
import signal
import stat
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from shopfloor import guard as guard_program
from shopfloor.spawn import (
    CommandTimeout,
    Exit,
    Guard,
    Process,
    SpawnError,
    alive,
    descendants,
    end_process,
    identity,
    run,
    tree_bytes,
)

from .engine_lab import until_true

ENV = {"PATH": os.environ["PATH"]}
MEGABYTE = 1 << 20

pytestmark = pytest.mark.timeout(30)


async def everything(process: Process) -> tuple[bytes, bytes, Exit]:
    assert process.stdout
    assert process.stderr
    stdout, stderr = await asyncio.gather(process.stdout.read(), process.stderr.read())
    return stdout, stderr, await process.wait()


async def output_of(guard: Guard, cwd: Path, *argv: str, **how: object) -> bytes:
    process = await guard.spawn(argv, cwd=cwd, **({"env": ENV} | how))  # type: ignore[arg-type]
    stdout, stderr, end = await everything(process)
    assert (stderr, end.code) == (b"", 0)
    return stdout


def python(code: str, *words: str) -> list[str]:
    return [sys.executable, "-I", "-S", "-c", code, *words]


# --- run ---


def test_run_returns_code_and_both_outputs(tmp_path: Path) -> None:
    done = run(["sh", "-c", "pwd; echo no >&2; exit 3"], cwd=tmp_path, env=ENV)
    assert done.argv == ("sh", "-c", "pwd; echo no >&2; exit 3")
    assert (done.code, done.stdout, done.stderr) == (3, f"{tmp_path}\n".encode(), b"no\n")


def test_run_tells_a_signal_as_a_negative_code(tmp_path: Path) -> None:
    assert run(["sh", "-c", "kill -KILL $$"], cwd=tmp_path, env=ENV).code == -signal.SIGKILL


def test_run_gives_input_or_nothing(tmp_path: Path) -> None:
    data = os.urandom(20 * MEGABYTE)
    assert run(["cat"], cwd=tmp_path, env=ENV, input=data).stdout == data
    assert run(["cat"], cwd=tmp_path, env=ENV).stdout == b""


def test_run_passes_only_the_environment_given(tmp_path: Path) -> None:
    assert run(["env"], cwd=tmp_path, env={"PATH": ENV["PATH"], "A": "1"}).stdout.split() == [
        f"PATH={ENV['PATH']}".encode(),
        b"A=1",
    ]


def test_run_leaves_the_session(tmp_path: Path) -> None:
    done = run(python("import os; print(os.getsid(0) == os.getpid())"), cwd=tmp_path, env=ENV)
    assert done.stdout == b"True\n"


async def test_run_kills_the_group_after_its_time_and_keeps_the_output(tmp_path: Path) -> None:
    script = "sleep 1000 & echo $!; echo half >&2; wait"
    with pytest.raises(CommandTimeout) as caught:
        run(["sh", "-c", script], cwd=tmp_path, env=ENV, timeout_s=0.3)
    assert caught.value.stderr == b"half\n"
    sleeper = int(caught.value.stdout)
    await until_true(lambda: not is_running(sleeper))


def test_run_does_not_wait_for_a_daemon_that_holds_the_output(tmp_path: Path) -> None:
    script = "setsid sleep 1000 & echo $!; wait"
    try:
        with pytest.raises(CommandTimeout) as caught:
            run(["sh", "-c", script], cwd=tmp_path, env=ENV, timeout_s=0.3)
    finally:
        os.kill(int(caught.value.stdout), signal.SIGKILL)


def kill(*pids: int) -> None:
    """End what a failed test would leave behind."""
    for pid in filter(is_running, pids):
        os.kill(pid, signal.SIGKILL)


def is_running(pid: int) -> bool:
    try:
        return guard_program.stat(pid)[0] not in {b"Z", b"X"}
    except OSError:
        return False


# --- what cannot be started, by either way ---


@pytest.fixture(params=["run", "guard"])
def start(request: pytest.FixtureRequest) -> Callable[[list[str], Path, dict[str, str]], None]:
    async def guarded(argv: list[str], cwd: Path, env: dict[str, str]) -> None:
        async with Guard() as guard:
            try:
                await guard.spawn(argv, cwd=cwd, env=env)
            finally:
                assert await output_of(guard, Path("/"), "echo", "next") == b"next\n"

    def started(argv: list[str], cwd: Path, env: dict[str, str]) -> None:
        if request.param == "run":
            run(argv, cwd=cwd, env=env)
        else:
            asyncio.run(guarded(argv, cwd, env))

    return started


Start = Callable[[list[str], Path, dict[str, str]], None]


def test_a_program_that_is_not_there(start: Start, tmp_path: Path) -> None:
    with pytest.raises(SpawnError, match=r"cannot start 'no-such-program' in .*no such program") as caught:
        start(["no-such-program", "x"], tmp_path, ENV)
    assert caught.value.reason == "not_found"
    assert str(tmp_path) in str(caught.value)


@pytest.mark.parametrize("program", ["./tool", "tool"], ids=["path", "name"])
def test_a_program_that_may_not_be_executed(start: Start, tmp_path: Path, program: str) -> None:
    (tmp_path / "tool").write_text("#!/bin/sh\n")
    with pytest.raises(SpawnError, match=rf"'{program}'.*permission denied") as caught:
        start([program], tmp_path, {"PATH": str(tmp_path)})
    assert caught.value.reason == "not_executable"


@pytest.mark.parametrize(
    ("content", "reason"), [("echo hello\n", "not_executable"), ("#!/no/such/interpreter\n", "not_found")]
)
def test_a_script_that_nothing_can_read(start: Start, tmp_path: Path, content: str, reason: str) -> None:
    (tmp_path / "tool").write_text(content)
    (tmp_path / "tool").chmod(0o755)
    with pytest.raises(SpawnError, match=r"'\./tool'") as caught:
        start(["./tool"], tmp_path, ENV)
    assert caught.value.reason == reason


@pytest.mark.parametrize("cwd", ["missing", "file"])
def test_a_directory_that_is_none(start: Start, tmp_path: Path, cwd: str) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(SpawnError, match=rf"cannot start 'true' in '{tmp_path / cwd}'") as caught:
        start(["true"], tmp_path / cwd, ENV)
    assert caught.value.reason == "cwd"


@pytest.mark.parametrize(
    ("argv", "env"),
    [
        ([], ENV),
        (["echo", "a\0b"], ENV),
        (["echo"], ENV | {"A": "\0"}),
        (["echo"], ENV | {"A=B": ""}),
        (["echo", "\ud800"], ENV),
        (["echo", "x" * 5 * MEGABYTE], ENV),
    ],
    ids=["empty", "nul", "nul in a variable", "name", "surrogate", "too long"],
)
def test_what_no_program_can_be_given(start: Start, tmp_path: Path, argv: list[str], env: dict[str, str]) -> None:
    with pytest.raises(SpawnError) as caught:
        start(argv, tmp_path, env)
    assert caught.value.reason == "other"


async def test_an_output_that_cannot_be_opened(tmp_path: Path) -> None:
    async with Guard() as guard:
        with pytest.raises(SpawnError, match=r"cannot open .*missing/log"):
            await guard.spawn(["true"], cwd=tmp_path, env=ENV, stdout=tmp_path / "missing" / "log")


# --- what a command under the guard sees ---


async def test_exit_code_and_outputs(tmp_path: Path) -> None:
    async with Guard() as guard:
        process = await guard.spawn(["sh", "-c", "pwd; echo no >&2; exit 3"], cwd=tmp_path, env=ENV)
        stdout, stderr, end = await everything(process)
    assert (stdout, stderr) == (f"{tmp_path}\n".encode(), b"no\n")
    assert (end.code, end.signal, end.lost, end.leftovers) == (3, None, False, 0)


async def test_death_by_a_signal(tmp_path: Path) -> None:
    async with Guard() as guard:
        process = await guard.spawn(["sh", "-c", "kill -SEGV $$"], cwd=tmp_path, env=ENV)
        end = await process.wait()
    assert (end.code, end.signal, end.lost) == (None, signal.SIGSEGV, False)


async def test_a_signal_that_comes_too_late_does_not_hide_how_it_ended(tmp_path: Path) -> None:
    async with Guard() as guard:
        process = await guard.spawn(["sh", "-c", "exit 7"], cwd=tmp_path, env=ENV)
        hung_up = select.poll()
        hung_up.register(process._channel.get_extra_info("socket").fileno(), 0)
        assert hung_up.poll(10_000), "its keeper has not hung up"  # the loop stands still: nobody has read why
        process.signal(signal.SIGINT)
        process.signal(signal.SIGTERM)
        end = await process.wait()
    assert (end.code, end.lost) == (7, False)


async def test_the_environment_is_what_was_given(tmp_path: Path) -> None:
    odd = {"PATH": ENV["PATH"], "TWO": "1\n2", "UTF": "ü", "BYTES": os.fsdecode(b"\xff")}
    async with Guard() as guard:
        seen = await output_of(guard, tmp_path, "env", "-0", env=odd)
    assert seen == b"".join(os.fsencode(f"{name}={value}\0") for name, value in odd.items())


async def test_the_program_is_looked_up_on_the_path_given(tmp_path: Path) -> None:
    tool = tmp_path / "bin" / "tool"
    tool.parent.mkdir()
    tool.write_text("#!/bin/sh\necho found\n")
    tool.chmod(0o755)
    async with Guard() as guard:
        assert await output_of(guard, tmp_path, "tool", env={"PATH": str(tool.parent)}) == b"found\n"
        assert await output_of(guard, tool.parent, "./tool") == b"found\n"


async def test_arguments_and_environment_of_a_megabyte(tmp_path: Path) -> None:
    words = ["x" * 100_000] * 5
    big = ENV | {f"V{number}": "y" * 100_000 for number in range(5)}
    async with Guard() as guard:
        seen = await output_of(guard, tmp_path, *python("import sys; print(sys.argv[1:])", *words), env=big)
    assert seen == f"{words}\n".encode()


@pytest.fixture
def inheritable() -> Iterator[int]:
    readable, writable = os.pipe()
    os.set_inheritable(writable, True)
    yield writable
    os.close(readable)
    os.close(writable)


async def test_a_command_has_three_descriptors_and_a_keeper_one_socket(tmp_path: Path, inheritable: int) -> None:
    listing = "import os; print(sorted(map(int, os.listdir('/proc/self/fd')))[:-1])"  # the last lists
    async with Guard() as guard:
        for _ in range(2):  # the first still runs when the second starts
            process = await guard.spawn(["cat"], cwd=tmp_path, env=ENV, pipe_stdin=True)
            assert await output_of(guard, tmp_path, *python(listing)) == b"[0, 1, 2]\n"
            links = [str(fd.readlink()) for fd in Path(f"/proc/{process._keeper}/fd").iterdir()]
            assert len([link for link in links if link.startswith("socket:")]) == 1
            assert str(Path(f"/proc/self/fd/{inheritable}").readlink()) not in links


async def test_signals_are_as_a_program_expects_them(tmp_path: Path) -> None:
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGUSR1])
    try:
        async with Guard() as guard:
            status = await output_of(guard, tmp_path, "grep", "-E", "Sig(Ign|Blk)", "/proc/self/status")
    finally:
        signal.signal(signal.SIGHUP, before)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGUSR1])
    # Signals 32 and 33 are the C library's own: whoever started us may ignore them, and no program can ask for more.
    reserved = 1 << 31 | 1 << 32
    assert [int(mask, 16) & ~reserved for mask in status.split()[1::2]] == [0, 0]


async def test_no_stdin_is_an_empty_one(tmp_path: Path) -> None:
    async with Guard() as guard:
        assert await output_of(guard, tmp_path, "cat") == b""


async def test_stdin_from_a_file(tmp_path: Path) -> None:
    (tmp_path / "prompt").write_bytes(b"do it")
    async with Guard() as guard:
        assert await output_of(guard, tmp_path, "cat", stdin=tmp_path / "prompt") == b"do it"


async def test_stdin_of_50_megabytes(tmp_path: Path) -> None:
    data = os.urandom(MEGABYTE) * 50
    async with Guard() as guard:
        process = await guard.spawn(["cat"], cwd=tmp_path, env=ENV, stdin=data)
        stdout, _, end = await everything(process)
    assert end.code == 0
    assert hashlib.sha256(stdout).digest() == hashlib.sha256(data).digest()


async def test_stdin_that_nobody_reads(tmp_path: Path) -> None:
    async with Guard() as guard:
        assert await output_of(guard, tmp_path, "true", stdin=bytes(50 * MEGABYTE)) == b""


async def test_stdin_as_a_pipe(tmp_path: Path) -> None:
    async with Guard() as guard:
        process = await guard.spawn(["cat"], cwd=tmp_path, env=ENV, pipe_stdin=True)
        assert process.stdin
        assert process.stdout
        for line in (b"one\n", b"two\n"):
            process.stdin.write(line)
            await process.stdin.drain()
            assert await process.stdout.readline() == line
        process.stdin.close()
        assert await process.stdout.read() == b""
        assert (await process.wait()).code == 0


async def test_output_is_appended_to_files_only_we_can_read(tmp_path: Path) -> None:
    log = tmp_path / "log"
    async with Guard() as guard:
        for word in ("one", "two"):
            process = await guard.spawn(
                ["sh", "-c", f"echo {word}; echo {word} >&2"], cwd=tmp_path, env=ENV, stdout=log, stderr=log
            )
            assert process.stdout is process.stderr is None
            await process.wait()
    assert log.read_text() == "one\none\ntwo\ntwo\n"
    assert stat.S_IMODE(log.stat().st_mode) == 0o600


async def test_output_closed_early(tmp_path: Path) -> None:
    async with Guard() as guard:
        script = "exec >&- 2>&-; read _; exit 5"
        process = await guard.spawn(["sh", "-c", script], cwd=tmp_path, env=ENV, pipe_stdin=True)
        assert process.stdin
        assert process.stdout
        assert await process.stdout.read() == b""
        assert alive(process.pid, process.start_time)
        process.stdin.close()
        assert (await process.wait()).code == 5


async def test_a_line_of_100_megabytes(tmp_path: Path) -> None:
    code = "import os\nfor _ in range(100): os.write(1, bytes(1 << 20))"
    async with Guard() as guard:
        process = await guard.spawn(python(code), cwd=tmp_path, env=ENV)
        assert process.stdout
        size = 0
        while chunk := await process.stdout.read(MEGABYTE):
            size += len(chunk)
        assert (await process.wait()).code == 0
    assert size == 100 * MEGABYTE


async def test_output_that_nobody_reads_keeps_nobody_from_stopping(tmp_path: Path) -> None:
    async with Guard() as guard:
        process = await guard.spawn(["cat", "/dev/zero"], cwd=tmp_path, env=ENV)
        assert process.stdout
        await process.stdout.readexactly(1)
        end, steps = await process.stop()
        assert (end.signal, steps) == (signal.SIGINT, 1)


async def test_sixteen_at_once(tmp_path: Path) -> None:
    async with Guard() as guard:
        words = [str(number) for number in range(40)]
        seen = await asyncio.gather(*(output_of(guard, tmp_path, "echo", word) for word in words))
    assert seen == [f"{word}\n".encode() for word in words]


async def test_resources_count_the_descendants(tmp_path: Path) -> None:
    busy = "import time; block = b'x' * (80 << 20)\nwhile time.process_time() < 0.2: pass"
    async with Guard() as guard:
        process = await guard.spawn(["sh", "-c", '"$@" & wait', "sh", *python(busy)], cwd=tmp_path, env=ENV)
        end = await process.wait()
    assert end.max_rss_bytes > 80 * MEGABYTE
    assert 0.2 <= end.cpu_s < 5


# --- facts ---


async def test_memory_counts_what_left_the_session(tmp_path: Path) -> None:
    hold = "block = b'x' * (60 << 20); print('ready', flush=True); import signal; signal.pause()"
    async with Guard() as guard:
        process = await guard.spawn(["sh", "-c", 'setsid "$@" & wait', "sh", *python(hold)], cwd=tmp_path, env=ENV)
        assert process.stdout
        await process.stdout.readuntil(b"ready\n")
        assert 60 * MEGABYTE < process.memory_bytes() < 120 * MEGABYTE
        await process.stop()
        assert process.memory_bytes() == 0


async def test_alive_knows_reused_ids_and_zombies(tmp_path: Path) -> None:
    with subprocess.Popen(["cat"], stdin=subprocess.PIPE) as child:
        start_time = int(guard_program.stat(child.pid)[19])
        assert alive(child.pid, start_time)
        assert not alive(child.pid, start_time - 1)
        assert child.stdin
        child.stdin.close()
        await until_true(lambda: guard_program.stat(child.pid)[0] == b"Z")
        assert not alive(child.pid, start_time)
    assert not alive(child.pid, start_time)


def test_descendants_by_either_way() -> None:
    script = "sh -c 'sleep 1000 & echo ready; wait' & wait"
    with subprocess.Popen(["sh", "-c", script], stdout=subprocess.PIPE) as child:
        assert child.stdout
        child.stdout.readline()
        inner, sleeper = family = descendants(child.pid)
        try:
            assert guard_program.children(child.pid) == guard_program.children_by_scan(child.pid) == [inner]
            assert guard_program.children_by_scan(inner) == [sleeper]
        finally:
            kill(child.pid, *family)


def test_identity_is_this_process() -> None:
    pid, start_time = identity()
    assert pid == os.getpid()
    assert alive(pid, start_time)
    assert not alive(pid, start_time + 1)


@pytest.mark.parametrize("ignored", ["", "TERM"], ids=["obedient", "deaf"])
async def test_a_process_of_somebody_else_is_ended_with_its_descendants(ignored: str) -> None:
    script = f"trap '' {ignored or 'URG'}; setsid sleep 1000 & echo ready; wait; sleep 1000"
    with subprocess.Popen(["sh", "-c", script], stdout=subprocess.PIPE) as child:
        assert child.stdout
        child.stdout.readline()
        start_time = int(guard_program.stat(child.pid)[19])
        family = [child.pid, *descendants(child.pid)]
        try:
            assert len(family) == 2
            assert tree_bytes(child.pid) > tree_bytes(family[1]) > 0
            assert not await end_process(child.pid, start_time + 1)
            assert all(map(is_running, family))
            began = time.monotonic()
            assert await end_process(child.pid, start_time, grace_s=0.3)
            assert not any(map(is_running, family))
            assert (time.monotonic() - began >= 0.3) == bool(ignored)
            assert not await end_process(child.pid, start_time)
        finally:
            kill(*family)
