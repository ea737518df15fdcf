"""Every lander is held to the port's public suite."""

from pathlib import Path

import pytest

from shopfloor.landers.merge import MergeLander
from shopfloor.testing.lander import CASES, Subject, run_case

SUBJECTS = {"merge": Subject(make=MergeLander)}


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("lander", SUBJECTS)
async def test_lander(lander: str, case: str, tmp_path: Path) -> None:
    await run_case(case, SUBJECTS[lander], tmp_path)
