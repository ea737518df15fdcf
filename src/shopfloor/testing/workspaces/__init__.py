"""The conformance suite of the Workspaces port. Whoever writes a kind of workspace runs it against theirs.

    SUBJECT = Subject(make=MyWorkspaces)

    @pytest.mark.parametrize("case", CASES)
    async def test_my_workspaces(case, tmp_path):
        await run_case(case, SUBJECT, tmp_path)

``make(git, guard, folder=…, setup=…, copies=…, caches=…, env=…)`` opens one more pool over the slots in a folder.
Each case makes a repository, lets an agent do something in a workspace, and looks at what was kept.
"""

from pathlib import Path

from shopfloor.spawn import Guard
from shopfloor.testing.workspaces import giving, histories, keeping
from shopfloor.testing.workspaces.bench import Bench, Case, Subject

__all__ = ["CASES", "Subject", "run_case"]

CASES: dict[str, Case] = {case.__name__: case for module in (giving, keeping, histories) for case in module.CASES}
"""Every case by its name, which says what must hold."""


async def run_case(name: str, subject: Subject, folder: Path) -> None:
    """Run one case in an empty folder. Raises AssertionError that says what is wrong."""
    async with Guard() as guard:
        await CASES[name](Bench(subject, guard, folder))
