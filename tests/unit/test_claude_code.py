"""Claude Code's stream-json: streams in the shapes of both families, and what is answered and made of them."""

import json
from collections.abc import Iterator
from itertools import count, pairwise
from pathlib import Path
from typing import Any, Literal

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from shopfloor.agents._claude_result import judge
from shopfloor.agents._claude_talk import BACKGROUND_S, EXIT_S, HELLO_S, LINE_BYTES, NEXT_S, Talk
from shopfloor.agents._lines import Lines
from shopfloor.agents.claude_code import ClaudeCodeAgent
from shopfloor.domain.order import Order
from shopfloor.ports import Delivery, Kind, Launch, Profile, Report, Route, Server
from shopfloor.spawn import Guard

GOLDEN = Path(__file__).parents[1] / "golden" / "claude_code"
PLAIN = msgspec.structs.asdict(Report(kind=Kind.LOG))
SECRET = "sk-0123456789abcdef"
NOW_S = 1_790_000_000.0


def launch(permissions: Literal["allow", "deny", "ask"] = "allow", **changes: Any) -> Launch:
    values: dict[str, Any] = {
        "order": Order(id="wo-abc", name="n", title="t"),
        "attempt": "wo-abc.a1",
        "profile": Profile(name="c", driver="claude_code", permissions=permissions),
        "prompt": "do it",
        "workspace": "/w",
        "branch": "b",
        "directory": "/attempts/wo-abc.a1",
        "env": {"PATH": "/bin"},
        "secrets": (SECRET,),
    }
    return Launch(**{**values, **changes})


def talk(permissions: Literal["allow", "deny", "ask"] = "allow", **changes: Any) -> Talk:
    keys = count(1)
    made = Talk(launch(permissions, **changes), wall=lambda: NOW_S, key=lambda: f"u{next(keys)}")
    made.started()
    return made


def pending_s(subject: Talk) -> float:
    """How long what it waits for may take."""
    return subject.waits.most_s if subject.waits else 0.0


def finished(subject: Talk) -> bool:
    return subject.done


def said(subject: Talk) -> list[dict[str, Any]]:
    return [json.loads(line) for line in subject.taken().splitlines()]


def hear(subject: Talk, *events: dict[str, Any] | bytes, stream: str = "stdout") -> list[Report]:
    data = b"".join(e if isinstance(e, bytes) else json.dumps(e).encode() + b"\n" for e in events)
    lines = Lines(LINE_BYTES)
    return [r for line in (*lines.feed(data), *lines.close()) for r in subject.heard(stream, line)]


def told(report: Report) -> dict[str, Any]:
    fields = msgspec.structs.asdict(report)
    return {name: value for name, value in fields.items() if name == "kind" or value != PLAIN[name]}


@pytest.mark.parametrize("name", sorted(path.stem for path in GOLDEN.glob("*.stdout")))
def test_golden(name: str) -> None:
    subject = talk("deny" if name.startswith("denied") else "allow")
    subject.taken()
    reports = hear(subject, (GOLDEN / f"{name}.stdout").read_bytes())
    expected = json.loads((GOLDEN / f"{name}.json").read_text())
    found = {"said": said(subject), "reports": [told(report) for report in (*reports, subject.ended(0))]}
    assert json.loads(json.dumps(found)) == {key: expected[key] for key in found}
    assert subject.done is (name != "no_result")


def init(**fields: Any) -> dict[str, Any]:
    return {"type": "system", "subtype": "init", "session_id": "s-1", "model": "m", "mcp_servers": [], **fields}


def result(**fields: Any) -> dict[str, Any]:
    return {"subtype": "success", "is_error": False, "result": "done", "type": "result", **fields}


def replay(key: str) -> dict[str, Any]:
    return {"type": "user", "uuid": key, "isReplay": True, "message": {"role": "user", "content": "x"}}


def may(tool: str, key: str = "k1", **given: Any) -> dict[str, Any]:
    request = {"subtype": "can_use_tool", "tool_name": tool, "input": given, "tool_use_id": f"use-{key}"}
    return {"type": "control_request", "request_id": key, "request": request}


def test_the_first_words_are_the_prompt() -> None:
    hello, prompt = said(talk(prompt="a\ud800\n\u2028b"))
    assert (hello["type"], hello["request"]["subtype"]) == ("control_request", "initialize")
    assert prompt["message"] == {"role": "user", "content": "a\ud800\n\u2028b"}
    assert (prompt["type"], prompt["uuid"]) == ("user", "u1")


def test_a_person_says_yes_and_no() -> None:
    subject = talk("ask")
    subject.taken()
    asked = hear(subject, init(), may("Bash", "k1", command="a"), may("Write", "k2", file_path="b"))[1:]
    assert [(r.kind, r.status, r.text) for r in asked] == [
        (Kind.PERMISSION, "asked", "Bash"),
        (Kind.PERMISSION, "asked", "Write"),
    ]
    assert not subject.taken(), "nothing is answered yet"
    assert subject.told("No: use make instead.") == ""
    assert subject.told("yes") == ""
    answers = [answer["response"] for answer in said(subject)]
    assert [(a["request_id"], a["response"]["behavior"]) for a in answers] == [("k1", "deny"), ("k2", "allow")]
    assert answers[0]["response"]["message"] == "use make instead."
    assert answers[1]["response"]["updatedInput"] == {"file_path": "b"}
    assert [(r.status, r.text) for r in subject.aside()] == [("denied", "Bash"), ("allowed", "Write")]


def test_words_that_are_no_answer_stay_words() -> None:
    subject = talk("ask")
    hear(subject, init(), may("Bash"))
    subject.taken()
    assert subject.told("hurry up") == "u2"
    assert said(subject)[0]["message"]["content"] == "hurry up"
    assert subject.delivery is Delivery.DELIVERED
    assert hear(subject, replay("u2"))[0].status == "seen"
    assert "u2" in subject.seen


def test_a_question_is_answered_with_words() -> None:
    subject = talk("deny")
    questions = [{"question": "Which port?", "options": [{"label": "80"}, {"label": "81"}]}]
    (asked,) = hear(subject, may("AskUserQuestion", questions=questions))
    assert (asked.kind, asked.text) == (Kind.ASKED, "Which port? (80 / 81)")
    subject.taken()
    subject.told("no, 8080")
    (answer,) = said(subject)
    assert answer["response"]["response"]["updatedInput"] == {
        "questions": questions,
        "answers": {"Which port?": "no, 8080"},
    }


def test_a_request_that_was_taken_back_is_not_answered() -> None:
    subject = talk("ask")
    hear(subject, may("Bash"), {"type": "control_cancel_request", "request_id": "k1"})
    subject.taken()
    assert subject.told("yes") == "u2", "these are words now"


def test_tools_of_ours_are_always_allowed_and_what_is_not_served_is_refused() -> None:
    subject = talk("deny", servers=(Server(name="board", command=("x",)),))
    subject.taken()
    hear(subject, may("mcp__board__claim", "k1"), may("mcp__boards__claim", "k2"))
    hear(subject, {"type": "control_request", "request_id": "k3", "request": {"subtype": "hook_callback"}})
    first, second, third = (answer["response"] for answer in said(subject))
    assert (first["response"]["behavior"], second["response"]["behavior"]) == ("allow", "deny")
    assert third["subtype"] == "error"


@pytest.mark.parametrize(("status", "warned"), [("connected", 0), ("pending", 0), ("failed", 1), ("needs-auth", 1)])
def test_a_server_without_its_tools_is_told(status: str, warned: int) -> None:
    subject = talk(servers=(Server(name="board", command=("x",)),))
    servers = [{"name": "board", "status": status}]
    assert len([r for r in hear(subject, init(mcp_servers=servers)) if r.status == "warning"]) == warned
    assert not hear(subject, init(mcp_servers=[])), "the start is told once"


def test_a_server_that_is_not_named_is_missing() -> None:
    subject = talk(servers=(Server(name="board", command=("x",)),))
    assert hear(subject, init())[1].text == "it has no tools of MCP server 'board': missing"


def test_stdin_is_closed_when_nothing_is_pending() -> None:
    subject = talk()
    hear(subject, init(), replay("u1"))
    key = subject.told("more")
    hear(subject, result())
    assert not finished(subject), "the model has not seen what was sent"
    hear(subject, init(), replay(key), result())
    assert subject.done
    assert pending_s(subject) == EXIT_S


@pytest.mark.parametrize("newer", [True, False])
def test_it_waits_for_what_runs_in_the_background(newer: bool) -> None:
    subject = talk()
    started: dict[str, Any] = {"type": "system", "subtype": "task_started", "task_id": "b1"}
    changed: dict[str, Any] = {"type": "system", "subtype": "background_tasks_changed", "tasks": [{"task_id": "b1"}]}
    ended: dict[str, Any] = {"type": "system", "subtype": "task_notification", "task_id": "b1", "status": "completed"}
    if newer:
        ended = {**changed, "tasks": []}
    hear(subject, init(), replay("u1"), changed if newer else started, result(result="first"))
    assert not finished(subject)
    assert pending_s(subject) == BACKGROUND_S
    hear(subject, ended)
    assert pending_s(subject) == NEXT_S
    hear(subject, init(), result(result="second"))
    assert subject.done
    assert subject.ended(0).text == "second"


def test_what_never_ends_in_the_background_is_ended() -> None:
    subject = talk()
    hear(subject, init(), replay("u1"), {"type": "system", "subtype": "task_started", "task_id": "b1"}, result())
    subject.taken()
    (warning,) = subject.overdue()
    assert (warning.kind, warning.status) == (Kind.LOG, "warning")
    assert said(subject)[0]["request"]["subtype"] == "end_session"
    assert subject.ended(None).status == "completed", "it had finished, and was only told to go"


def test_one_that_says_nothing_is_given_up() -> None:
    subject = talk()
    assert pending_s(subject) == HELLO_S
    (error,) = subject.overdue()
    assert (error.kind, error.status) == (Kind.ERROR, "timeout")
    assert subject.ended(None).status == "error"


def test_the_polite_end_is_an_interrupt() -> None:
    subject = talk()
    subject.taken()
    subject.leave()
    assert [line["request"]["subtype"] for line in said(subject)] == ["interrupt", "end_session"]
    assert subject.done


def tool(name: str, key: str = "t1", *, bad: bool = False) -> Iterator[dict[str, Any]]:
    use = {"type": "tool_use", "id": key, "name": name, "input": {}}
    yield {"type": "assistant", "message": {"id": "m1", "model": "m", "content": [use]}}
    block = {"type": "tool_result", "tool_use_id": key, "content": "x", "is_error": bad}
    yield {"type": "user", "message": {"role": "user", "content": [block]}}


@pytest.mark.parametrize(
    ("worked", "status"), [("Read", "error"), ("Task", "error"), ("", "error"), ("Bash", "completed")]
)
def test_a_run_in_which_only_looking_was_allowed_is_no_success(worked: str, status: str) -> None:
    subject = talk("deny")
    denial = {"tool_name": "Write", "tool_use_id": "w1", "tool_input": {}}
    events = list(tool(worked)) if worked else []
    reports = hear(subject, init(), replay("u1"), *events, result(permission_denials=[denial]))
    end = subject.ended(0)
    assert (end.status, reports[-1].status) == (status, "success" if status == "completed" else "failed")
    assert status == "completed" or "Write" in end.text
    assert [(r.status, r.text) for r in reports if r.kind is Kind.PERMISSION] == [("denied", "Write")]


@pytest.mark.parametrize(
    ("fields", "status", "fault"),
    [
        ({}, "success", ""),
        ({"is_error": True, "result": "API Error: 429 slow down", "api_error_status": 429}, "failed", "quota"),
        ({"is_error": True, "result": "Credit balance is too low", "api_error_status": 400}, "failed", "quota"),
        ({"is_error": True, "result": "Not logged in · Please run /login"}, "failed", "auth"),
        ({"is_error": True, "result": "x", "api_error_status": 401}, "failed", "auth"),
        ({"is_error": True, "result": "API Error: 400 the budget of this attempt is spent"}, "failed", "budget"),
        ({"is_error": True, "subtype": "error_max_budget_usd", "errors": ["Reached"]}, "limit", "budget"),
        ({"is_error": True, "subtype": "error_max_turns"}, "limit", ""),
        ({"subtype": "error_during_execution"}, "failed", "error"),
        ({"is_error": True, "terminal_reason": "aborted_tools"}, "failed", "aborted_tools"),
        ({"is_error": True, "errors": ["No conversation found with session ID: x"]}, "failed", "session"),
        ({"is_error": None}, "failed", "error"),
        ({"subtype": None}, "failed", "error"),
    ],
)
def test_what_a_result_means(fields: dict[str, Any], status: str, fault: str) -> None:
    verdict = judge(result(**fields), now_s=NOW_S, reset_at=None)
    assert (verdict.status, verdict.fault.status if verdict.fault else "") == (status, fault)
    assert verdict.why


def test_a_quota_says_when_it_ends() -> None:
    subject = talk()
    info = {"status": "rejected", "resetsAt": 1_795_000_000, "rateLimitType": "five_hour"}
    limited = result(is_error=True, api_error_status=429, result="You've hit your session limit")
    reports = hear(subject, init(), {"type": "rate_limit_event", "rate_limit_info": info}, limited)
    (error,) = (report for report in reports if report.kind is Kind.ERROR)
    assert (error.status, error.data["reset_at"]) == ("quota", 1_795_000_000.0)
    older = judge(result(is_error=True, result="Claude AI usage limit reached|1795000001"), now_s=0.0, reset_at=None)
    assert older.fault is not None
    assert older.fault.reset_at == 1_795_000_001.0


def test_retries_are_told() -> None:
    retry = {"type": "system", "subtype": "api_retry", "attempt": 2, "max_retries": 10, "retry_delay_ms": 1230.5,
             "error_status": 429, "error": "rate_limit"}  # fmt: skip
    found, refused = hear(talk(), retry, {**retry, "error_status": None})
    assert (found.kind, found.status, found.data["delay_s"]) == (Kind.RETRYING, "429", 1.2305)
    assert refused.status == ""


@pytest.mark.parametrize(("code", "status"), [(0, "completed"), (1, "error"), (None, "error")])
def test_an_exit_code_can_contradict(code: int | None, status: str) -> None:
    subject = talk()
    hear(subject, init(), replay("u1"), result())
    assert subject.ended(code).status == status


def test_without_a_result_its_last_error_is_why() -> None:
    subject = talk()
    hear(subject, b"--dangerously-skip-permissions cannot be used\n", stream="stderr")
    end = subject.ended(0)
    assert (end.status, end.text) == ("error", "exit 0 without a result: --dangerously-skip-permissions cannot be used")
    assert end.cost_usd is None, "it did not say"


def test_secrets_are_masked_but_answered_as_they_are() -> None:
    subject = talk()
    subject.taken()
    reports = hear(
        subject, init(), may("Bash", command=f"echo {SECRET}"), result(result=SECRET), f"{SECRET}\n".encode()
    )
    assert SECRET not in repr([*reports, subject.ended(0)])
    assert said(subject)[0]["response"]["response"]["updatedInput"]["command"] == f"echo {SECRET}"


KINDS = ["system", "assistant", "user", "result", "control_request", "control_cancel_request", "rate_limit_event", "x"]
SUBTYPES = ["init", "api_retry", "permission_denied", "task_started", "task_updated", "background_tasks_changed",
            "can_use_tool"]  # fmt: skip
KEYS = ["message", "content", "request", "subtype", "uuid", "isReplay", "tasks", "patch", "task_id", "tool_use_id",
        "mcp_servers", "permission_denials", "modelUsage", "errors", "result", "rate_limit_info", "input",
        "is_error", "total_cost_usd", "request_id", "tool_name", "questions", "type", "retry_delay_ms"]  # fmt: skip
ANY = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5) | st.sampled_from(SUBTYPES),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(KEYS), inner, max_size=5),
    max_leaves=12,
)


@given(st.lists(st.tuples(st.sampled_from(KINDS), st.dictionaries(st.sampled_from(KEYS), ANY, max_size=6)), max_size=6))
def test_nothing_it_says_ends_the_reader(events: list[tuple[str, dict[str, Any]]]) -> None:
    subject = talk("ask")
    reports = hear(subject, *({**fields, "type": kind} for kind, fields in events))
    msgspec.json.encode([*reports, subject.ended(0), *subject.aside()])
    for line in subject.taken().splitlines():
        json.loads(line)


# -- how it is started ------------------------------------------------------------------------------------------------


def test_arguments_of_an_attempt() -> None:
    agent = ClaudeCodeAgent(Guard())
    profile = Profile(name="c", driver="claude_code", model="opus")
    server = Server(name="board", command=("shopfloor", "mcp"), env={"A": "{prompt}"})
    words = agent.arguments(launch(profile=profile, session="s-1", budget_usd=0.25, servers=(server,)))
    assert words[0] == "-p"
    found = dict(pairwise(words))
    assert (found["--model"], found["--resume"], found["--max-budget-usd"]) == ("opus", "s-1", "0.250000")
    (entry,) = json.loads(found["--mcp-config"])["mcpServers"].items()
    assert entry == (
        "board",
        {"type": "stdio", "command": "shopfloor", "args": ["mcp"], "env": {"A": "{prompt}"}, "alwaysLoad": True},
    )
    assert "--strict-mcp-config" in agent.arguments(launch())
    assert "--mcp-config" not in agent.arguments(launch())


def test_variables_of_an_attempt(monkeypatch: pytest.MonkeyPatch) -> None:
    agent = ClaudeCodeAgent(Guard())
    plain = agent.environment(launch(env={"ANTHROPIC_API_KEY": "k", "DISABLE_TELEMETRY": "0"}))
    assert plain["ANTHROPIC_API_KEY"] == "k", "a person's own way to the model stays"
    assert plain["DISABLE_TELEMETRY"] == "0", "what the profile says stands"
    assert plain["CLAUDE_CODE_TMPDIR"] == "/attempts/wo-abc.a1/scratch"
    assert not {"CLAUDE_CONFIG_DIR", "IS_SANDBOX", "ANTHROPIC_BASE_URL"} & plain.keys()
    route = Route(url="http://127.0.0.1:1/r", token="throw-away")
    routed = agent.environment(launch(env={"ANTHROPIC_API_KEY": "k", "CLAUDE_CODE_USE_BEDROCK": "1"}, route=route))
    assert routed["ANTHROPIC_BASE_URL"] == "http://127.0.0.1:1/r"
    assert routed["ANTHROPIC_AUTH_TOKEN"] == "throw-away"
    assert not {"ANTHROPIC_API_KEY", "CLAUDE_CODE_USE_BEDROCK"} & routed.keys()
    bypass = Profile(name="c", driver="claude_code", args=("--dangerously-skip-permissions",))
    for uid, sandbox in ((0, "1"), (1000, None)):
        monkeypatch.setattr("os.geteuid", lambda uid=uid: uid)
        assert agent.environment(launch(profile=bypass)).get("IS_SANDBOX") == sandbox
        assert "IS_SANDBOX" not in agent.environment(launch())
