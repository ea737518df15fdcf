"""What is found of the known agents on this machine; programs are asked for their version and nothing else."""

import os
from pathlib import Path

from shopfloor.agents.observed import Observed, names
from shopfloor.agents.scripted import ScriptedAgent
from shopfloor.app.crew import known_agents, version_of

TOLD = "#!/bin/sh\n[ \"$*\" = --version ] && echo 'the tool 1.2.3 (by somebody)'\n"


def program(folder: Path, name: str, body: str) -> dict[str, str]:
    (folder / name).write_text(body)
    (folder / name).chmod(0o755)
    return {"PATH": f"{folder}{os.pathsep}{os.environ['PATH']}", "HOME": str(folder)}


async def test_an_agent_that_is_here_tells_its_version(tmp_path: Path) -> None:
    env = program(tmp_path, "tool", TOLD)
    rows = [
        Observed(
            driver="scripted",
            program="tool",
            version=version,
            date="2026-01-31",
            capabilities=names(ScriptedAgent.capabilities),
        )
        for version in ("1.2.3", "1.2.2")
    ]
    rows.append(Observed(driver="command", program="absent", version="1", date="2026-01-31"))
    same, other, absent = await known_agents(env, tmp_path, rows)
    assert (same.found, same.here, same.state) == (True, "1.2.3", "as seen")
    assert (other.here, other.state) == ("1.2.3", "another version")
    assert (absent.found, absent.here, absent.state) == (False, "", "not here")
    assert absent.problem


def test_a_program_that_tells_no_version_has_none(tmp_path: Path) -> None:
    for body in ("#!/bin/sh\nexit 3\n", "#!/bin/sh\necho usage\n", "no program"):
        assert version_of("tool", program(tmp_path, "tool", body), tmp_path) == ""
    assert version_of("nowhere", {"PATH": str(tmp_path)}, tmp_path) == ""
