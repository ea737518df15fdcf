"""What every test may use. Warnings are errors and a test ends after 60 s; both are set in pyproject.toml."""

import asyncio
import inspect
import os
import shutil
from collections import Counter
from collections.abc import Callable

import pytest

REQUIRE_ALL = "SHOPFLOOR_TEST_REQUIRE_ALL"


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
    found = shutil.which(program)
    if found is not None:
        return found
    reason = f"{program!r} is not on PATH; type: {install}"
    if os.environ.get(REQUIRE_ALL):
        pytest.fail(f"{reason} (it is a failure, not a skip, because {REQUIRE_ALL} is set)", pytrace=False)
    pytest.skip(reason)


@pytest.fixture(scope="session")
def need() -> Callable[[str, str], str]:
    """The path of a program the test cannot do without: `need("tmux", "apt install tmux")`.

    Where it is missing the test is skipped and says what to install; with SHOPFLOOR_TEST_REQUIRE_ALL set,
    as in CI, it fails.
    """
    return find_program
