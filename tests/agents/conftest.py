"""What the tests of real agents share. They are slow and large: `make agents` runs them, `make test` does not."""

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.agents.lab import Lab, why_not
from tests.agents.recipes import SCRIPTS
from tests.conftest import REQUIRE_ALL
from tools.agents import Agent, agent

SECONDS = 240
HERE = Path(__file__).parent


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if item.path.is_relative_to(HERE) and item.get_closest_marker("timeout") is None:
            item.add_marker(pytest.mark.timeout(SECONDS))


@pytest.fixture(scope="session")
def installed() -> Callable[[str], Agent]:
    """An agent by its name in `tools/agents.py`; the test is skipped, with what to type, where it is not there.

    With SHOPFLOOR_TEST_REQUIRE_ALL set it fails instead, unless its installation was tried and failed. Where AGENTS
    names some, the others are left out.
    """
    chosen = os.environ.get("AGENTS", "").split()

    def find(name: str) -> Agent:
        wanted = agent(name)
        if chosen and name not in chosen:
            pytest.skip(f"{name} is not among AGENTS={' '.join(chosen)!r}")
        if wanted.missing:
            if os.environ.get(REQUIRE_ALL) and wanted.client and not wanted.failed.exists():
                pytest.fail(f"{wanted.missing} (a failure, because {REQUIRE_ALL} is set)", pytrace=False)
            pytest.skip(wanted.missing)
        return wanted

    return find


@pytest.fixture(scope="session")
def namespace() -> None:
    if reason := why_not():
        pytest.skip(reason)


@pytest.fixture
def lab(namespace: None, tmp_path: Path) -> Iterator[Lab]:
    """A repository, and the scripted model, where there is no way out."""
    with Lab(tmp_path, SCRIPTS) as opened:
        yield opened
