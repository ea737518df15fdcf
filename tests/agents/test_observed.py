"""What a driver claims of an agent is what the real one is seen to do, and `observed.toml` says so."""

from collections.abc import Callable
from pathlib import Path

import pytest

from shopfloor.agents.observed import read_observed
from tests.agents.lab import Lab
from tests.agents.observing import ALL, SCRIPTS, SECONDS, Subject, observe
from tools.agents import Agent

pytestmark = pytest.mark.timeout(SECONDS + 30)
ANEW = "type: python tools/agents.py observe"


@pytest.mark.parametrize("subject", ALL, ids=lambda subject: subject.name)
def test_an_agent_does_what_is_claimed_of_it(
    namespace: None, installed: Callable[[str], Agent], tmp_path: Path, subject: Subject
) -> None:
    if subject.agent:
        installed(subject.agent)
    with Lab(tmp_path, SCRIPTS, bodies=True) as lab:
        seen = observe(lab, subject)
    missing = sorted(set(seen.declared) - set(seen.observed))
    assert not missing, f"claimed, but not seen: {missing}; {seen.notes}"
    key = subject.key
    rows = {(row.driver, row.preset, row.program, row.version): row for row in read_observed()}
    assert key in rows, f"observed.toml has no row for {key}; {ANEW}"
    stale = set(rows[key].capabilities) ^ set(seen.observed)
    assert not stale, f"observed.toml is stale about {sorted(stale)} of {key}; {ANEW}"
