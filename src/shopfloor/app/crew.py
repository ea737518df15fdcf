"""The agents that are known: what each was seen to do, and what is found of them on this machine."""

from __future__ import annotations

import asyncio
import re
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Literal

import msgspec

from shopfloor import spawn
from shopfloor.agents import drivers
from shopfloor.agents.observed import Observed, names, read_observed
from shopfloor.config import worker_environment
from shopfloor.ports import Agent, Probe, Profile
from shopfloor.spawn import CommandTimeout, Guard, SpawnError

VERSION_S = 10.0
_VERSION = re.compile(rb"\b\d+\.\d+(?:\.\d+)?(?:[-.+]\w+)*\b")

State = Literal["as seen", "another version", "claims more", "not here", "as its stand-in", "yours to name"]


class Known(msgspec.Struct, frozen=True, kw_only=True):
    """One kind of agent."""

    driver: str
    preset: str
    program: str
    observed: tuple[str, ...]
    """the capabilities that were seen, in the version and on the day that follow"""
    version: str
    date: str
    stand_in: str
    """what was run, where it was not the program itself"""
    found: bool
    """whether it can be used here"""
    here: str = ""
    """the version that is here; empty: not found, or it does not tell"""
    state: State
    problem: str = ""
    hint: str = ""


async def known_agents(environment: Mapping[str, str], root: Path, rows: Sequence[Observed] = ()) -> list[Known]:
    """Every agent that was observed, newest version first. Programs are asked for their version, and nothing else.

    ``rows`` are those of the file that comes with the package, unless others are given.
    """
    env = worker_environment(environment, workspace=str(root))
    async with Guard() as guard:
        by_name = drivers(guard, environment, root=root)
        wanted = [row for row in rows or read_observed() if row.driver in by_name]
        return await asyncio.gather(*(_known(row, by_name[row.driver], env, root) for row in wanted))


async def _known(row: Observed, agent: Agent, env: Mapping[str, str], root: Path) -> Known:
    name = row.preset or row.program or row.driver
    probe = await agent.probe(Profile(name=name, driver=row.driver, preset=row.preset, model=row.model))
    tells = probe.found and not row.stand_in
    here = await asyncio.to_thread(version_of, row.program, env, root) if tells else ""
    return Known(
        driver=row.driver,
        preset=row.preset,
        program=row.program,
        observed=row.capabilities,
        version=row.version,
        date=row.date,
        stand_in=row.stand_in,
        found=probe.found,
        here=here,
        state=judged(row, probe, here),
        problem=probe.problem,
        hint=probe.hint,
    )


def judged(row: Observed, probe: Probe, here: str) -> State:
    """What an observation says about the one that is here. A version that is not told is taken for the same."""
    if not probe.found:
        return "not here" if row.preset or row.program else "yours to name"
    if here and here != row.version:
        return "another version"
    if not set(names(probe.capabilities)) <= set(row.capabilities):
        return "claims more"
    return "as its stand-in" if row.stand_in else "as seen"


def version_of(program: str, env: Mapping[str, str], root: Path) -> str:
    """What ``PROGRAM --version`` says; empty when it says nothing that looks like one."""
    found = shutil.which(program, path=env.get("PATH"))
    if found is None:
        return ""
    try:
        done = spawn.run([found, "--version"], cwd=root, env=env, timeout_s=VERSION_S)
    except (SpawnError, CommandTimeout):
        return ""
    said = _VERSION.search(done.stdout) if done.code == 0 else None
    return said[0].decode() if said else ""
