"""Every agent driver is held to the port's public suite."""

import signal
from pathlib import Path

import pytest

from shopfloor.agents._terminal import Ladder
from shopfloor.agents.acp import AcpAgent
from shopfloor.agents.claude_code import QUIET, ClaudeCodeAgent
from shopfloor.agents.command import CommandAgent
from shopfloor.agents.jsonlines import JsonLinesAgent
from shopfloor.agents.scripted import ScriptedAgent
from shopfloor.agents.tmux import TmuxAgent
from shopfloor.ports import Profile
from shopfloor.spawn import Step
from shopfloor.testing.agent import CASES, SCRIPTED, SCRIPTED_CLAUDE, TERMINAL, Subject, run_case

LADDER = (Step(signal.SIGINT, 0.3), Step(signal.SIGTERM, 0.3), Step(signal.SIGKILL, 30.0))

SUBJECTS = {
    "acp": Subject(
        make=lambda guard: AcpAgent(guard, ladder=LADDER, polite_s=1.0),
        profile=Profile(name="acp", driver="acp", preset="scripted"),
        success_needs_words=True,
    ),
    **{
        name: Subject(
            make=lambda guard: ClaudeCodeAgent(guard, ladder=LADDER, polite_s=1.0),
            profile=Profile(name="claude", driver="claude_code", command=(*SCRIPTED_CLAUDE, *family)),
            success_needs_words=True,
            sets=frozenset({*QUIET, "CLAUDE_CODE_TMPDIR"}),
        )
        for name, family in {"claude_code": (), "claude_code 2.1.197": ("--old",)}.items()
    },
    "command": Subject(
        make=lambda guard: CommandAgent(guard, ladder=LADDER),
        profile=Profile(name="command", command=SCRIPTED),
    ),
    "jsonlines": Subject(
        make=lambda guard: JsonLinesAgent(guard, ladder=LADDER),
        profile=Profile(name="jsonlines", driver="jsonlines", command=SCRIPTED),
        success_needs_words=True,
    ),
    "scripted": Subject(
        make=lambda guard: ScriptedAgent(guard, ladder=LADDER),
        profile=Profile(name="scripted", driver="scripted"),
        success_needs_words=True,
    ),
    "tmux": Subject(
        make=lambda guard: TmuxAgent(guard, tmux_ladder=Ladder(polite_s=0.3, term_s=0.3)),
        profile=Profile(name="tmux", driver="tmux", command=(*TERMINAL, "{prompt_file}")),
        sets=frozenset({"TERM"}),
        outlives=True,
    ),
}


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("driver", SUBJECTS)
async def test_driver(driver: str, case: str, tmp_path: Path) -> None:
    await run_case(case, SUBJECTS[driver], tmp_path)
