"""Whatever a driver claims of an agent was seen, and is written down: no driver and no preset is left out."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Mapping
from pathlib import Path

import msgspec
import pytest

from shopfloor.agents import DRIVERS, _acp_presets, drivers, presets, tmux
from shopfloor.agents.observed import NAMES, names, read_observed
from shopfloor.ports import Profile
from shopfloor.spawn import Guard
from shopfloor.testing.scripted_server import serving
from tests.agents.observing import ALL, PAGE, page

PRESETS: Mapping[str, tuple[str, ...]] = {
    **{driver: tuple(known) for driver, known in presets.PRESETS.items()},
    "acp": tuple(filter(None, _acp_presets.PRESETS)),
    "tmux": tmux.PRESETS,
}
KINDS = [(driver, preset) for driver in DRIVERS for preset in ("", *PRESETS.get(driver, ()))]
ANEW = "type: python tools/agents.py observe"


@pytest.mark.parametrize(("driver", "preset"), KINDS)
async def test_what_is_claimed_was_seen(
    driver: str, preset: str, tmp_path: Path, need: Callable[[str, str], str]
) -> None:
    need("tmux", "apt install tmux")
    profile = Profile(name="any", driver=driver, preset=preset, model="openai/any", command=("true",))
    async with Guard() as guard:
        subject = drivers(guard, {"PATH": os.environ["PATH"]}, root=tmp_path)[driver]
        with serving() as url:
            probe = await subject.probe(msgspec.structs.replace(profile, urls=(url,)))
    assert probe.found, probe.problem
    preset = preset or getattr(subject, "preset", "")
    rows = [row for row in read_observed() if (row.driver, row.preset) == (driver, preset)]
    claimed = set(names(probe.capabilities))
    assert rows or not claimed, f"{sorted(claimed)} are claimed, and nobody has looked; {ANEW}"
    for row in rows:
        unseen = sorted(claimed - set(row.capabilities))
        assert not unseen, f"claimed, but not seen with {row.program or row.stand_in} {row.version}: {unseen}; {ANEW}"


def test_every_row_is_of_an_agent_and_a_version_that_is_driven() -> None:
    rows = {(row.driver, row.preset, row.program, row.version) for row in read_observed()}
    wanted = {subject.key for subject in ALL}
    assert rows == wanted, f"stale: {sorted(rows - wanted)}; missing: {sorted(wanted - rows)}; {ANEW}"


def test_the_page_shows_every_row_and_every_kind_of_agent() -> None:
    text = PAGE.read_text(encoding="utf-8")
    assert text == page(read_observed()), ANEW
    described = dict(re.findall(r"^\| `(\w+)` \| (.*)$", text, re.MULTILINE))
    assert set(DRIVERS) <= described.keys()
    assert not [(driver, preset) for driver, preset in KINDS if preset and f"`{preset}`" not in described[driver]]
    assert not [name for name in NAMES if f"| `{name}`" not in text and f", `{name}` |" not in text]
