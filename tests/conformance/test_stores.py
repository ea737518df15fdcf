"""Every store is held to the port's public suite."""

from collections import defaultdict
from pathlib import Path

import pytest

from shopfloor.ports import Clock
from shopfloor.stores.lead import NAME
from shopfloor.stores.memory import MemoryLog, MemoryStore
from shopfloor.stores.workdir import WorkdirStore
from shopfloor.testing.store import CASES, OpenStore, Subject, run_case


def memory() -> Subject:
    logs: dict[Path, MemoryLog] = defaultdict(MemoryLog)

    def make(folder: Path, clock: Clock) -> OpenStore:
        return MemoryStore(logs[folder], clock=clock)

    def depose(folder: Path) -> None:
        logs[folder].leader = None

    return Subject(make=make, depose=depose)


def workdir() -> Subject:
    def make(folder: Path, clock: Clock) -> OpenStore:
        return WorkdirStore(folder, clock=clock)

    def depose(folder: Path) -> None:
        (folder / NAME).unlink()

    return Subject(make=make, depose=depose)


SUBJECTS = {"memory": memory, "workdir": workdir}


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("store", SUBJECTS)
async def test_store(store: str, case: str, tmp_path: Path) -> None:
    await run_case(case, SUBJECTS[store](), tmp_path / ".work")


def test_suite_has_its_size() -> None:
    assert 20 <= len(CASES) <= 40
