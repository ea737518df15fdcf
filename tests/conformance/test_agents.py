"""Every agent driver is held to the port's public suite."""

import json
import os
import signal
import sys
from pathlib import Path

import pytest

from shopfloor.agents._terminal import Ladder
from shopfloor.agents.acp import AcpAgent
from shopfloor.agents.claude_code import QUIET, ClaudeCodeAgent
from shopfloor.agents.command import CommandAgent
from shopfloor.agents.http import HttpAgent
from shopfloor.agents.jsonlines import JsonLinesAgent
from shopfloor.agents.mini import MiniAgent
from shopfloor.agents.scripted import ScriptedAgent
from shopfloor.agents.specs import SpecsAgent
from shopfloor.agents.tmux import TmuxAgent
from shopfloor.ports import Profile
from shopfloor.spawn import Step
from shopfloor.testing.agent import SCRIPTED, SCRIPTED_CLAUDE, TERMINAL, Subject, cases, run_case
from shopfloor.testing.behaviours import SECRET, SECRET_NAME
from shopfloor.testing.scripted_server import serving
from shopfloor.testing.spec_servers import serving as spec_serving

LADDER = (Step(signal.SIGINT, 0.3), Step(signal.SIGTERM, 0.3), Step(signal.SIGKILL, 30.0))

LIKE = Path(__file__).parent
GOCORE_SETS = frozenset({"MINI_WORKDIR", "MINI_HEADLESS", "MSWEA_SILENT_STARTUP", "LITELLM_LOCAL_MODEL_COST_MAP"})
MINI_SETS = frozenset(
    {"MSWEA_CONFIGURED", "MSWEA_SILENT_STARTUP", "MSWEA_GLOBAL_CONFIG_DIR", "LITELLM_LOCAL_MODEL_COST_MAP"}
)


def like(program: str) -> tuple[str, ...]:
    return (sys.executable, "-I", "-S", str(LIKE / program))


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
    "jsonlines-gocore": Subject(
        make=lambda guard: JsonLinesAgent(guard, ladder=LADDER),
        profile=Profile(name="gocore", driver="jsonlines", preset="gocore", command=like("like_gocore.py")),
        success_needs_words=True,
        sets=GOCORE_SETS,
    ),
    "mini": Subject(
        make=lambda guard: MiniAgent(guard, ladder=LADDER),
        profile=Profile(name="mini", driver="mini", command=like("like_mini.py")),
        success_needs_words=True,
        sets=MINI_SETS,
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


AWAY = "http://127.0.0.1:9"


def served(url: str) -> Subject:
    return Subject(
        make=lambda guard: HttpAgent(guard, patience_s=0.0),
        profile=Profile(name="http", driver="http", urls=(url,)),
        success_needs_words=True,
        program=False,
        missing={"urls": (AWAY,)},
        missing_word=AWAY,
    )


@pytest.mark.parametrize(("driver", "case"), [(name, case) for name in SUBJECTS for case in cases(SUBJECTS[name])])
async def test_driver(driver: str, case: str, tmp_path: Path) -> None:
    await run_case(case, SUBJECTS[driver], tmp_path)


@pytest.mark.parametrize("case", cases(served(AWAY)))
async def test_server(case: str, tmp_path: Path) -> None:
    # One for each case: a server answers a key that it has answered before from memory.
    with serving(env={"PATH": os.defpath, SECRET_NAME: SECRET}) as url:
        await run_case(case, served(url), tmp_path)


# What is there of it in an answer to a spec: no workspace, no streams, no words before the end.
OF_ANSWERS = (
    "probe_finds_it", "probe_names_what_is_missing", "success_is_completed", "failure_is_an_error",
    "the_prompt_is_kept", "the_transcript_is_what_was_reported", "cost_is_told_or_unknown",
    "stop_without_a_follower", "stop_is_harmless_afterwards", "an_unknown_handle_is_lost", "a_handle_is_data",
    "a_missing_program_is_refused_by_name", "a_missing_workspace_is_refused_by_name", "an_attempt_starts_once",
)  # fmt: skip


def spec_prompt(behaviour: str) -> str:
    return json.dumps({"id": behaviour, "word": "square", "stack_effect": "( n -- n² )"})


def answered(url: str) -> Subject:
    return Subject(
        make=lambda guard: SpecsAgent(guard, patience_s=0.0),
        profile=Profile(name="specs", driver="specs", urls=(url,)),
        prompt=spec_prompt,
        success_needs_words=True,
        program=False,
        missing={"urls": (AWAY,)},
        missing_word=AWAY,
    )


@pytest.mark.parametrize("case", OF_ANSWERS)
async def test_server_of_specs(case: str, tmp_path: Path) -> None:
    with spec_serving(1, faults=["error=fails", "hang=hangs"]) as servers:
        await run_case(case, answered(servers.urls[0]), tmp_path)
