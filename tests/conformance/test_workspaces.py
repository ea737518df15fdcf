"""Every kind of workspace is held to the port's public suite."""

from pathlib import Path

import pytest

from shopfloor.testing.workspaces import CASES, Subject, run_case
from shopfloor.workspaces.clone import CloneWorkspaces
from shopfloor.workspaces.worktree import WorktreeWorkspaces

SUBJECTS = {"worktree": Subject(make=WorktreeWorkspaces), "clone": Subject(make=CloneWorkspaces)}


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("kind", SUBJECTS)
async def test_workspaces(kind: str, case: str, tmp_path: Path) -> None:
    await run_case(case, SUBJECTS[kind], tmp_path)
