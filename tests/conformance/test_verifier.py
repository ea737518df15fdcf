"""Every verifier that runs commands is held to the port's public suite."""

import time
from pathlib import Path

import pytest

from shopfloor.ports import Verifier
from shopfloor.spawn import Guard
from shopfloor.testing.repository import Repository
from shopfloor.testing.verifier import CASES, Subject, run_case
from shopfloor.verifiers.commands import CommandVerifier
from shopfloor.workspaces.clone import CloneWorkspaces
from shopfloor.workspaces.worktree import WorktreeWorkspaces


class RealClock:
    def wall(self) -> float:
        return time.time()

    def awake(self) -> float:
        return time.monotonic()


def commands(kind: type[WorktreeWorkspaces | CloneWorkspaces]) -> Subject:
    def make(repository: Repository, guard: Guard, *, setup: str = "") -> Verifier:
        folder = repository.root / ".worktrees"
        pool = kind(repository.git, guard, folder=folder, env=repository.env, setup=setup)
        return CommandVerifier(pool, guard, env=repository.env, clock=RealClock())

    return Subject(make=make)


SUBJECTS = {"commands": commands(WorktreeWorkspaces), "commands in clones": commands(CloneWorkspaces)}


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("verifier", SUBJECTS)
async def test_verifier(verifier: str, case: str, tmp_path: Path) -> None:
    await run_case(case, SUBJECTS[verifier], tmp_path)
