"""The talk in the Agent Client Protocol: recorded agents, and what their ends are worth."""

import json
import os
from pathlib import Path
from typing import Any

import msgspec
import pytest

from shopfloor.agents._acp_files import Outside, WorkspaceFiles
from shopfloor.agents._acp_presets import PRESETS, environment
from shopfloor.agents._acp_talk import LINE_BYTES, Talk
from shopfloor.agents._lines import Lines
from shopfloor.domain.order import Order
from shopfloor.masking import MASK
from shopfloor.ports import Kind, Launch, Profile, Report, Route, Server

GOLDEN = Path(__file__).parents[1] / "golden" / "acp"
PLAIN = msgspec.structs.asdict(Report(kind=Kind.LOG))
SECRET = "sk-0123456789abcdef"
NOW_S = 1_800_000_000.0
HELLO = {"id": 1, "result": {"protocolVersion": 1, "agentCapabilities": {"loadSession": True}}}
SESSION = {"id": 2, "result": {"sessionId": "s1"}}


def talk(preset: str = "", workspace: str = "/workspace", **changes: Any) -> Talk:
    profile = Profile(name="x", driver="acp", preset=preset, permissions=changes.pop("permissions", "allow"))
    launch = Launch(
        order=Order(id="wo-x.1", name="x", title="t"),
        attempt="wo-x.1.a1",
        profile=profile,
        prompt="do it",
        workspace=workspace,
        branch="b",
        directory="/attempt",
        env={},
        secrets=(SECRET,),
    )
    made = Talk(msgspec.structs.replace(launch, **changes), PRESETS[preset], wall=lambda: NOW_S, hello_s=60.0)
    made.started()
    return made


def hear(spoken: Talk, *messages: dict[str, Any] | bytes) -> list[Report]:
    lines = [m if isinstance(m, bytes) else json.dumps({"jsonrpc": "2.0", **m}).encode() for m in messages]
    return [
        report for line in Lines(LINE_BYTES).feed(b"\n".join([*lines, b""])) for report in spoken.heard("stdout", line)
    ]


def update(**fields: Any) -> dict[str, Any]:
    return {"method": "session/update", "params": {"sessionId": "s1", "update": fields}}


def asks(tool: str = "t1", *kinds: str) -> dict[str, Any]:
    options = [
        {"optionId": f"id-{kind}", "name": kind, "kind": kind} for kind in kinds or ("allow_once", "reject_once")
    ]
    params = {"sessionId": "s1", "toolCall": {"toolCallId": tool, "title": "write"}, "options": options}
    return {"id": "q1", "method": "session/request_permission", "params": params}


def said(spoken: Talk) -> list[dict[str, Any]]:
    return [json.loads(line) for line in spoken.taken().splitlines()]


def told(report: Report) -> dict[str, Any]:
    fields = msgspec.structs.asdict(report)
    return {name: value for name, value in fields.items() if name == "kind" or value != PLAIN[name]}


@pytest.mark.parametrize("name", sorted(path.stem for path in GOLDEN.glob("*.stdout")))
def test_golden(name: str) -> None:
    preset, _, what = name.partition("_")
    spoken = talk(preset, permissions="deny" if what == "denied" else "allow")
    lines = Lines(LINE_BYTES)
    reports = [r for line in lines.feed((GOLDEN / f"{name}.stdout").read_bytes()) for r in spoken.heard("stdout", line)]
    found = json.loads(json.dumps([told(report) for report in (*reports, spoken.ended(0))]))
    file = GOLDEN / f"{name}.json"
    if "GOLDEN_WRITE" in os.environ:
        file.write_text(json.dumps(found, indent=1, ensure_ascii=False) + "\n")
    assert found == json.loads(file.read_text())


@pytest.mark.parametrize("preset", sorted({path.stem.partition("_")[0] for path in GOLDEN.glob("*.stdout")}))
@pytest.mark.parametrize(("what", "status"), [("edit", "completed"), ("denied", "error"), ("error", "error")])
def test_what_each_agent_did_is_told_as_it_was(preset: str, what: str, status: str) -> None:
    kept = json.loads((GOLDEN / f"{preset}_{what}.json").read_text())
    if (preset, what) == ("codex", "denied"):
        status = "completed"  # its sandbox refuses, and neither the model nor anybody else is asked
    assert kept[-1]["status"] == status
    if what == "error":
        assert [report["status"] for report in kept if report["kind"] == "error"]


@pytest.mark.parametrize(
    ("reason", "status"),
    [("end_turn", "success"), ("max_tokens", "limit"), ("max_turn_requests", "limit"), ("refusal", "failed"),
     ("cancelled", "failed")],
)  # fmt: skip
def test_stop_reasons(reason: str, status: str) -> None:
    spoken = talk()
    reports = hear(spoken, HELLO, SESSION, {"id": 3, "result": {"stopReason": reason}})
    assert reports[-1].kind is Kind.TURN_END
    assert reports[-1].status == status
    assert spoken.ended(0).status == ("completed" if status == "success" else "error")


@pytest.mark.parametrize(
    ("error", "status", "reset_at"),
    [
        ({"code": -32000, "message": "Authentication required"}, "auth", None),
        ({"code": 401, "message": "invalid key"}, "auth", None),
        ({"code": 429, "message": "slow down, retry after 20 s"}, "quota", NOW_S + 20),
        ({"code": -32603, "message": "x", "data": {"errorKind": "rate_limit", "status": 429}}, "quota", None),
        ({"code": -32603, "message": "usage limit", "data": {"resets_at": 1_800_009_999}}, "quota", 1_800_009_999.0),
        ({"code": 402, "message": "budget of the attempt is spent"}, "budget", None),
        ({"code": -32603, "message": "Internal error", "data": {"errorName": "APIError"}}, "APIError", None),
        ({"code": 500, "message": "Internal error"}, "error", None),
    ],
)  # fmt: skip
def test_errors_have_names(error: dict[str, Any], status: str, reset_at: float | None) -> None:
    spoken = talk()
    reports = hear(spoken, HELLO, SESSION, {"id": 3, "error": error})
    assert [r.status for r in reports if r.kind is Kind.ERROR] == [status]
    assert reports[-1].data.get("reset_at") == reset_at
    assert spoken.done
    assert spoken.ended(0).status == "error"


def test_without_the_end_of_the_turn_nothing_is_completed() -> None:
    spoken = talk()
    hear(spoken, HELLO, SESSION, update(sessionUpdate="agent_message_chunk", content={"type": "text", "text": "Done"}))
    assert spoken.ended(0).status == "error"


@pytest.mark.parametrize(
    ("rule", "kinds", "option"),
    [
        ("allow", ("allow_always", "reject_once", "allow_once"), "id-allow_once"),
        ("allow", ("allow_always", "reject_once"), "id-allow_always"),
        ("deny", ("reject_always", "allow_once", "reject_once"), "id-reject_once"),
        ("deny", ("allow_once",), None),
    ],
)
def test_options_are_chosen_by_their_kind(rule: str, kinds: tuple[str, ...], option: str | None) -> None:
    spoken = talk(permissions=rule)
    hear(spoken, HELLO, SESSION)
    said(spoken)
    reports = hear(spoken, asks("t1", *kinds))
    outcome = said(spoken)[0]["result"]["outcome"]
    assert outcome.get("optionId") == option
    assert [r.status for r in reports if r.kind is Kind.PERMISSION] == ["allowed" if rule == "allow" else "denied"]


@pytest.mark.parametrize(
    ("words", "option", "rest"), [("allow", "id-allow_once", []), ("No, use tabs", "id-reject_once", ["use tabs"])]
)
def test_a_person_answers(words: str, option: str, rest: list[str]) -> None:
    spoken = talk(permissions="ask")
    reports = hear(spoken, HELLO, SESSION, asks())
    assert reports[-1].status == "asked"
    said(spoken)
    spoken.told(words)
    assert said(spoken)[0]["result"]["outcome"]["optionId"] == option
    assert [report.kind for report in spoken.aside()] == [Kind.PERMISSION]
    reports = hear(spoken, {"id": 3, "result": {"stopReason": "end_turn"}})
    assert [report.text for report in reports if report.status == "delivered"] == rest
    assert spoken.done == (not rest)


def test_words_that_come_one_by_one_are_told_together() -> None:
    spoken = talk()
    hear(spoken, HELLO, SESSION)
    words = [
        update(sessionUpdate="agent_message_chunk", content={"type": "text", "text": w}) for w in ("I ", "am ", "here")
    ]
    assert hear(spoken, *words) == []
    waits = [spoken.waits is not None]
    assert [report.text for report in spoken.overdue()] == ["I am here"]
    assert not spoken.dismissed
    waits.append(spoken.waits is not None)
    assert waits == [True, False]
    assert hear(spoken, *words) == []
    assert hear(spoken, {"id": 3, "result": {"stopReason": "end_turn"}})[0].text == "I am here"


def test_words_wait_for_the_end_of_the_turn() -> None:
    spoken = talk()
    hear(spoken, HELLO, SESSION)
    said(spoken)
    key = spoken.told("and more")
    assert spoken.delivery == "queued"
    assert said(spoken) == []
    hear(spoken, {"id": 3, "result": {"stopReason": "end_turn"}})
    assert said(spoken)[0]["params"]["prompt"] == [{"type": "text", "text": "and more"}]
    assert key in spoken.seen
    assert not spoken.done


def test_a_refused_agent_that_goes_on_and_succeeds_has_succeeded() -> None:
    spoken = talk(permissions="deny")
    hear(spoken, HELLO, SESSION, asks())
    for tool, status in (("t1", "failed"), ("t2", "completed")):
        hear(spoken, update(sessionUpdate="tool_call", toolCallId=tool, title=tool, status=status))
    hear(spoken, {"id": 3, "result": {"stopReason": "end_turn"}})
    assert spoken.ended(0).status == "completed"


def test_a_replayed_session_is_not_told_again_and_not_paid_again() -> None:
    spoken = talk(session="s0")
    spent = {"sessionUpdate": "usage_update", "used": 1, "size": 2}
    before = update(**spent, cost={"amount": 2.0, "currency": "USD"})
    old = update(sessionUpdate="agent_message_chunk", content={"type": "text", "text": "old"})
    reports = hear(spoken, HELLO, old, before, {"id": 2, "result": {}})
    assert [report.kind for report in reports] == [Kind.STARTED]
    assert reports[0].session == "s0"
    reports = hear(spoken, update(**spent, cost={"amount": 2.5, "currency": "USD"}))
    assert reports[-1].cost_usd == 0.5


def test_a_session_that_is_gone_is_told_and_a_new_one_begins() -> None:
    spoken = talk(session="s0")
    reports = hear(spoken, HELLO, {"id": 2, "error": {"code": -32002, "message": "Resource not found"}})
    assert "s0" in reports[0].text
    assert hear(spoken, {"id": 3, "result": {"sessionId": "s1"}})[0].session == "s1"


def test_a_mode_that_cannot_be_set_ends_an_agent_that_was_not_to_do_everything() -> None:
    for rule, ends in (("deny", True), ("allow", False)):
        spoken = talk("goose", permissions=rule)
        hear(spoken, HELLO, SESSION, {"id": 3, "error": {"code": -32602, "message": "no such mode"}})
        assert spoken.done is ends


def test_leaving_cancels_the_turn_and_what_is_asked() -> None:
    spoken = talk(permissions="ask")
    hear(spoken, HELLO, SESSION, asks())
    said(spoken)
    spoken.leave()
    assert [(m.get("method"), m.get("result")) for m in said(spoken)] == [
        (None, {"outcome": {"outcome": "cancelled"}}),
        ("session/cancel", None),
    ]
    assert not spoken.done
    hear(spoken, {"id": 3, "result": {"stopReason": "cancelled"}})
    assert spoken.done


def test_an_agent_that_does_not_answer_is_overdue() -> None:
    spoken = talk()
    assert spoken.waits is not None
    (error,) = spoken.overdue()
    assert error.kind is Kind.ERROR
    assert error.status == "timeout"
    assert "initialize" in spoken.ended(None).text


def test_noise_and_odd_messages_end_nothing() -> None:
    spoken = talk()
    odd: list[dict[str, Any] | bytes] = [
        *(b"Welcome {to} it", b"{", b"[]", b'{"id": true, "result": 1}'),
        *({"id": 99, "result": {}}, {"id": "a", "method": "terminal/create"}, {"id": [1], "method": "x"}),
        *({"method": "_x/y"}, {"method": "session/update", "params": [1]}, update(sessionUpdate="of_tomorrow")),
    ]
    reports = hear(spoken, HELLO, SESSION, *odd)
    assert {report.kind for report in reports[1:]} <= {Kind.NOISE, Kind.LOG}
    hear(spoken, {"id": 3, "result": {"stopReason": "end_turn"}})
    assert spoken.ended(0).status == "completed"


def test_capabilities_that_are_off_are_none() -> None:
    spoken = talk(session="s0")
    hello = {"id": 1, "result": {"protocolVersion": 1, "agentCapabilities": {"loadSession": {"x": []}, "auth": 7}}}
    (warning,) = hear(spoken, hello)
    assert "a new one begins" in warning.text


def test_secrets_are_masked() -> None:
    spoken = talk()
    text = {"type": "text", "text": f"the key is {SECRET}"}
    call = update(sessionUpdate="tool_call", toolCallId="t", title=SECRET, rawInput={"command": f"echo {SECRET}"})
    reports = hear(
        spoken, HELLO, SESSION, update(sessionUpdate="agent_message_chunk", content=text), call, SECRET.encode()
    )
    reports += hear(spoken, {"id": 3, "error": {"code": 1, "message": SECRET, "data": {"details": SECRET}}})
    assert SECRET not in repr(reports)
    assert MASK in repr(reports)


def test_a_broken_route_is_no_way_round_the_gateway() -> None:
    route = Route(url="http://127.0.0.1:1/r/x", token="throw-away")
    for name, preset in PRESETS.items():
        profile = Profile(name="x", driver="acp", preset=name, model="m1")
        env = {"ANTHROPIC_API_KEY": "real", "OPENAI_API_KEY": "real", "GEMINI_API_KEY": "real"}
        launch = msgspec.structs.replace(talk()._launch, profile=profile, env=env, route=route)
        made = environment(preset, launch)
        if preset.route_env:
            assert preset.capabilities.gateway, name
            assert "http://127.0.0.1:1/r/x" in repr(made)
            assert "throw-away" in repr(made)
        assert all(isinstance(value, str) for value in made.values())
        assert "{" not in repr([v for v in made.values() if not v.startswith("{")])


def test_what_the_user_set_is_kept_and_tables_are_joined() -> None:
    mine = {"OPENCODE_CONFIG_CONTENT": '{"theme": "x", "permission": {"edit": "deny"}}', "GOOSE_DISABLE_KEYRING": "0"}
    launch = msgspec.structs.replace(talk()._launch, env=mine)
    joined = json.loads(environment(PRESETS["opencode"], launch)["OPENCODE_CONFIG_CONTENT"])
    assert joined["theme"] == "x"
    assert joined["permission"]["bash"] == "allow"
    assert environment(PRESETS["goose"], launch)["GOOSE_DISABLE_KEYRING"] == "0"


def test_servers_are_offered() -> None:
    spoken = talk(servers=(Server(name="board", command=("/bin/board", "-x"), env={"A": "b"}),))
    said(spoken)
    hear(spoken, HELLO)
    (new,) = said(spoken)
    server = {"name": "board", "command": "/bin/board", "args": ["-x"], "env": [{"name": "A", "value": "b"}]}
    assert new["params"] == {"cwd": "/workspace", "mcpServers": [server]}


# -- files ------------------------------------------------------------------------------------------------------------


def test_files_of_the_workspace(tmp_path: Path) -> None:
    files = WorkspaceFiles(str(tmp_path))
    files.write(str(tmp_path / "a" / "b.txt"), "one\ntwo\nthree\n")
    files.write(str(tmp_path / "a" / "b.txt"), "1\n2\n3\n")
    assert files.read(str(tmp_path / "a" / "b.txt"), None, None) == "1\n2\n3\n"
    assert files.read(str(tmp_path / "a" / "b.txt"), 2, 1) == "2\n"
    with pytest.raises(FileNotFoundError):
        files.read(str(tmp_path / "nothing"), None, None)


def test_no_other_file(tmp_path: Path) -> None:
    work, outside = tmp_path / "work", tmp_path / "outside"
    work.mkdir()
    outside.mkdir()
    (outside / "secret").write_text("s")
    (work / "link").symlink_to(outside / "secret")
    (work / "folder").symlink_to(outside)
    (work / "new").symlink_to(outside / "not-there-yet")
    (work / "loop").symlink_to(work / "loop")
    os.mkfifo(work / "pipe")
    files = WorkspaceFiles(str(work))
    paths = ["link", "folder/secret", "../outside/secret", "new", "pipe", "", "x/../../outside/secret"]
    for path in [*(f"{work}/{name}" for name in paths), "hello.txt", "/etc/passwd", f"{work}2/x", f"{work}/a\0b"]:
        with pytest.raises((Outside, OSError)):
            files.read(path, None, None)
        with pytest.raises((Outside, OSError)):
            files.write(path, "x")
    with pytest.raises(Outside):
        files.write(f"{work}/.git", "gitdir: elsewhere")
    assert [path.name for path in outside.iterdir()] == ["secret"]
    assert (outside / "secret").read_text() == "s"
