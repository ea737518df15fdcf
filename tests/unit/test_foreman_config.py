"""Mount plans of every shape, and who in a crew is for what."""

from typing import Any

import pytest

from shopfloor.faces.foreman.briefs import last_word
from shopfloor.faces.foreman.config import Plan, WorkerConfig, category_of, read_plan, whole_plan
from shopfloor.faces.foreman.pools import Pool, Routing
from shopfloor.faces.foreman.task import Wish
from shopfloor.faces.foreman.team import team_of

SHORT = {"mounts": {"system_prompt": "Be.", "provider": "anthropic", "model": "claude-x", "tools": ["bash", "issue"]}}
WHOLE = {
    "session": {"orchestrator": {"module": "loop-streaming"}, "context": {"module": "context-persistent"}},
    "providers": [{"module": "provider-openai", "config": {"default_model": "gpt-x", "base_url": "${BASE}/v1"}}],
    "tools": [
        {"module": "tool-filesystem"},
        {"module": "tool-issue", "config": {"actor": "x"}},
        {"module": "tool-web"},
    ],
}
BY_BEHAVIOUR = {
    "behaviors": {"context": {"provider": "context-anthropic", "config": {"model": "claude-y", "api_key": "${KEY}"}}},
    "tools": {"issue_manager": {"provider": "tool-issue"}, "read_file": {"provider": "tool-filesystem"}},
}


@pytest.mark.parametrize(
    ("plan", "said"),
    [
        (SHORT, Plan(system_prompt="Be.", model="anthropic/claude-x", tools=("bash", "issue"))),
        (
            WHOLE,
            Plan(
                model="openai/gpt-x", tools=("read", "edit", "issue"), unknown=("tool-web",),
                access={"MINI_API_BASE": "http://here/v1"},
            ),
        ),
        (
            BY_BEHAVIOUR,
            Plan(model="anthropic/claude-y", tools=("issue", "read"), access={"MINI_API_KEY": "secret"}),
        ),
        ({}, Plan()),
    ],
)  # fmt: skip
def test_a_plan_of_any_shape_is_read(plan: dict[str, Any], said: Plan) -> None:
    assert read_plan(plan, {"BASE": "http://here", "KEY": "secret"}) == said


def test_only_the_short_shape_is_written_out_for_others() -> None:
    assert whole_plan(WHOLE) == WHOLE
    whole = whole_plan(SHORT)
    assert whole["session"].keys() == {"orchestrator", "context"}
    assert whole["providers"] == [
        {"module": "provider-anthropic", "source": "local", "config": {"default_model": "claude-x"}}
    ]
    assert [tool["module"] for tool in whole["tools"]] == ["tool-bash"], "the issue tool is ours"
    assert read_plan(whole, {}).model == read_plan(SHORT, {}).model


def test_a_worker_says_what_it_is() -> None:
    assert WorkerConfig("coding-worker", 2) == WorkerConfig(profile="coding-worker", count=2)
    assert WorkerConfig(name="x", config={}).label == "x"
    with pytest.raises(TypeError, match="profile="):
        WorkerConfig(count=2)
    assert [category_of(name) for name in ("my-coding", "research-2", "writer")] == ["coding", "research", "general"]


def test_specialists_take_their_own_and_the_rest_is_for_the_general_ones() -> None:
    configs = [WorkerConfig("coding-worker", 2), WorkerConfig("writer", 1), WorkerConfig("research-worker", 0)]
    team = team_of(configs, Routing())
    assert [job.name for job in team] == ["coding-worker-0", "coding-worker-1", "writer-2"]
    assert team[0].wish == Wish(metadata={"category": ("coding",)})
    assert team[2].wish == Wish(without={"category": ("coding",)})


def test_without_general_ones_nothing_of_no_kind_is_left_lying() -> None:
    (job,) = team_of([WorkerConfig("research-worker", 1)], Routing())
    assert job.wish == Wish(without={"category": ("coding",)})


def test_pools_are_workers_too() -> None:
    routing = Routing(pools=(Pool(name="fast", worker="coding-worker", max_concurrent=2),))
    team = team_of([WorkerConfig("writer", 1)], routing)
    assert [job.name for job in team] == ["writer-0", "fast-1", "fast-2"]
    assert team[0].wish.metadata == {"pool": ("",)}
    assert {job.config.profile for job in team[1:]} == {"coding-worker"}
    assert team[1].wish == Wish(metadata={"pool": ("fast",)})


@pytest.mark.parametrize(
    ("answer", "what", "words"),
    [
        ("I did it.", "done", "I did it."),
        ("I looked.\nQUESTION: Which one?\nOr both?", "asks", "Which one?\nOr both?"),
        ("BLOCKED: no network", "stuck", "no network"),
        ("The word QUESTION: is in the middle", "done", "The word QUESTION: is in the middle"),
        ("QUESTION:", "asks", "QUESTION:"),
    ],
)
def test_the_last_word_tells_how_it_went(answer: str, what: str, words: str) -> None:
    assert last_word(answer) == (what, words)
