"""Good input to begin with, written by the package itself."""

from __future__ import annotations

from typing import Any

import msgspec

from shopfloor.domain.board import Board, creation
from shopfloor.domain.events import E, Event, Stamp, stamp_time
from shopfloor.domain.order import Deliverable, Order
from shopfloor.domain.records import work_order
from shopfloor.stores.codec import encode
from shopfloor.stores.sheet import render

START_S = 1_767_700_800.0
RUN = "run-1"
SECRET = "s3cr3t/v4lue+with=signs"
"""What must not be kept anywhere; it stands in the good input of everything that masks."""

ORDERS = (
    Order(id="wo-a", name="alpha", title="Make alpha", run=RUN, created_at=START_S, files=("src/a", "docs")),
    Order(
        id="wo-b", name="beta", title="Überarbeite β", run=RUN, created_at=START_S, depends_on=("wo-a",), priority=0,
        instruction="Do it.\nThen say so.\n", checks=("make test",), agent="claude", timeout_s=60.0, source="b.md",
    ),
    Order(id="wo-c", name="gamma", title="Say", run=RUN, created_at=START_S, deliverable=Deliverable.ANSWER),
)  # fmt: skip


def _life(order: str, generation: int) -> list[tuple[str, dict[str, Any]]]:
    of: dict[str, Any] = {"work_order_id": order, "generation": generation}
    usage = {"cost_usd": 0.25, "tokens_in": 10, "tokens_out": 5, "steps": 2, "session": "s-1"}
    claim = {"attempt": f"{order}.a{generation}", "agent": "a", "base": "b" * 40, "branch": f"shopfloor/{order}"}
    end = {"outcome": "completed", "message": "", "exit_code": 0, "commit": "c" * 40, "tree": "d" * 40}
    verdict = {"verdict": "PASS", "evidence": "e", "reasoning": "", "passed": ["make test"], "commit": "c" * 40}
    plan = {"merges": [{"order": order, "merge": "m" * 40}], "old": "b" * 40, "new": "m" * 40, "tree": "d" * 40}
    return [
        (E.ASSIGNED, {**of, **claim}),
        (E.WORKSPACE, {**of, "path": ".worktrees/slot-1"}),
        (
            E.AGENT_STARTED,
            {**of, "handle": {"driver": "command", "pid": 7, "start_time": 9, "detail": {"program": "x"}}},
        ),
        (E.AGENT_USAGE, {**of, **usage}),
        (E.AGENT_IDLE, {**of, "idle_since": 61.0}),
        (E.AGENT_ASKED, {**of, "question": "Which?"}),
        (E.AGENT_WORKING, of),
        (E.AGENT_ANSWERED, {**of, "question": "Which?", "answer": "this", "delivery": "seen", "by": "human"}),
        (E.AGENT_PROGRESS, {**of, "text": "half"}),
        (E.AGENT_STEERED, {**of, "text": "leave it", "delivery": "delivered", "by": "human"}),
        (E.AGENT_DONE, {**of, "text": "all is well"}),
        (E.AGENT_STOPPED, {**of, **end, **usage, "files": ["src/a"], "notes": ["kept"], "transient": False}),
        (E.VERIFY_STARTED, {**of, "run": 1}),
        (E.VERIFY_TEST, {**of, "command": "make test", "passed": True, "duration_s": 1.5}),
        (E.VERIFY_VERDICT, {**of, **verdict, "tree": "d" * 40, "base": "b" * 40, "duration_s": 1.5}),
        (E.LANDING_STARTED, {**of, "commit": "c" * 40, "onto": "b" * 40}),
        (E.LANDING_PLANNED, {**plan, "ref": "refs/shopfloor/target/main", "passed": ["make test"]}),
        (E.LANDING_LANDED, {**of, "commit": "m" * 40, "observed": "m" * 40, "passed": ["make test"]}),
        (E.SETTLED, {"work_order_id": order, "outcome": "done", "message": "landed"}),
        (E.CLOSED, {"work_order_id": order, "outcome": "done", "reason": "done", "end": {"outcome": "completed"}}),
    ]


def _story() -> list[tuple[str, dict[str, Any]]]:
    run = {"run_id": RUN, "branch": "main", "ref": "refs/shopfloor/target/main", "base": "b" * 40, "land": "auto"}
    more = {"checks": ["make test"], "passed_on_base": ["make test"], "max_parallel": 2, "budget_usd": 5.0}
    profiles = {"claude": {"name": "claude", "driver": "command", "command": ["claude", "-p"]}}
    of = {"work_order_id": "wo-b", "generation": 1}
    refused = {"commit": "c" * 40, "reason": "conflict", "message": "both changed a", "files": ["a"], "again": False}
    return [
        (E.LOG_OPENED, {"schema": 1}),
        (E.CONTROLLER_STARTED, {"generation": 1, "pid": 4711, "host": "h", "since": stamp_time(START_S)}),
        (E.RUN_STARTED, {**run, **more, "profiles": profiles, "timeout_s": 1800.0, "tip": "b" * 40}),
        *((str(E.CREATED), creation(order)) for order in ORDERS),
        *_life("wo-a", 1),
        (E.MIRROR_PLANNED, {"branch": "main", "to": "m" * 40, "from": "b" * 40}),
        (E.MIRROR_ADVANCED, {"branch": "main", "to": "m" * 40}),
        (E.MIRROR_HELD, {"branch": "main", "why": "2 tracked files are modified"}),
        (E.TARGET_MOVED, {"from": "m" * 40, "to": "n" * 40, "by": "others", "why": "somebody", "hold": True}),
        *_life("wo-b", 1)[:15],
        (E.LANDING_REFUSED, {**of, **refused}),
        (E.RETRIED, {"work_order_id": "wo-b", "kind": "rework", "why": "conflict", "findings": "x", "delay_s": 2.0}),
        (E.REQUEST, {"verb": "stop", "work_order_id": "wo-b", "text": "please"}),
        (E.HANDLED, {"verb": "stop", "work_order_id": "wo-b", "result": "ok", "text": "stopped"}),
        (
            E.MAIL_SENT,
            {
                "message_id": "msg-1",
                "from": "human",
                "to": "shopfloor/workers/beta",
                "work_order_id": "wo-b",
                "subject": "s",
                "body": "b",
                "priority": "urgent",
                "metadata": {"x": 1},
            },
        ),
        (E.MAIL_READ, {"message_id": "msg-1", "reader": "shopfloor/workers/beta", "read_at": stamp_time(START_S)}),
        (E.ADMISSION, {"from": 2, "limit": 1, "why": "load"}),
        (E.SNAPSHOT, {"ref": "refs/shopfloor/kept/1", "workspace": ".worktrees/slot-1"}),
        (
            E.VIEW_COLLISION,
            {"work_order_id": "wo-a", "refused": [{"field": "title", "theirs": "x", "why": "done"}]},
        ),
        (E.UPDATED, {"work_order_id": "wo-c", "changes": {"priority": 1, "labels": ["x"], "x_team": "infra"}}),
        (E.PROBLEM, {"message": "a word"}),
        *_life("wo-b", 2),
        (E.SETTLED, {"work_order_id": "wo-c", "outcome": "failed", "reason": "timeout", "message": "too long"}),
        (E.RUN_FINISHED, {"run_id": RUN}),
        (E.CONTROLLER_STOPPED, {"generation": 1}),
        ("note.taken", {"text": "of another program", "work_order_id": "wo-a"}),
    ]


def event(number: int, kind: str, data: dict[str, Any], sf: Stamp | None) -> Event:
    """A line of the story."""
    actor = "shopfloor" if sf is not None and sf.controller else "somebody"
    cause = "evt-40" if kind == E.HANDLED else None
    return Event(f"evt-{number}", kind, stamp_time(START_S + number), actor, RUN, data, cause, sf)


def _stamped() -> list[Event]:
    found, sequence = [], 0
    story = _story()
    for number, (kind, data) in enumerate(story):
        if kind in (E.REQUEST, "note.taken"):
            found.append(event(number, kind, data, None))
            continue
        in_group = kind in (E.VERIFY_VERDICT, E.LANDING_STARTED)  # the two are one change
        sequence += kind != E.LANDING_STARTED
        place = Stamp(1, sequence, int(kind == E.LANDING_STARTED), 2) if in_group else Stamp(1, sequence)
        if kind == E.VERIFY_VERDICT and story[number + 1][0] != E.LANDING_STARTED:
            place = Stamp(1, sequence)
        found.append(event(number, kind, data, place))
    return found


EVENTS = _stamped()
LINES = [encode(e) for e in EVENTS]
LOG = b"".join(LINES)
LOGS = (LOG, b"".join(LINES[:8]), b"".join(LINES[15:30]), b"", LOG[:-1], b"\n".join(LINES[::2]))


def board_of(events: list[Event]) -> Board:
    """The fold of these."""
    board = Board()
    for one in events:
        board.apply(one)
    return board


RECORDS = list(board_of(EVENTS).records.values())
STRANGER = (
    b'{"id":"vm-17","title":"Theirs","status":"open","priority":1,"labels":["x"],'
    b'"metadata":{"tool":"other"},"extra":[1]}'
)
SHEET = b"".join([*(render(record) + b"\n" for record in RECORDS), STRANGER + b"\n"])
SHEETS = (SHEET, STRANGER + b"\n", b"", SHEET + b"not JSON\n" + SHEET, SHEET[:-20])
OBJECTS = [*(work_order(record) for record in RECORDS), msgspec.json.decode(STRANGER)]

PROMPTS = tuple(
    text.encode()
    for text in (
        "# Fix the login\n\nIt fails for names with an ä.\n",
        "---\ntitle: \"Fix\"\npriority: high\nfiles: [a, 'b c']\nchecks:\n  - make test\n  - 'true'\n---\n# T\ngo\n",
        "---\ntimeout: 30m # half an hour\nallow_no_changes: true\ntype: bug\nagent: claude\n---\nx\n",
        "---\n# a comment\ndepends_on: other\n---\n```\n# no title\n```\n## a\n# Title here #\n",
        "\ufeffjust text\r\nwith other ends\r\n",
        "---\nnever closed\n",
    )
)

CONFIG = (
    b'agent = "claude"\nchecks = ["make lint", "make test"]\nsetup = "uv sync"\nmax_parallel = 4\ntimeout = "30m"\n'
    b'silence = "none"\nbudget = 5.00\nland = "review"\ntarget = "main"\nworkspace = "clone"\nworktrees = ".wt"\n'
    b'copies = [".env.test"]\ncaches = [{ path = ".venv", key = "uv.lock" }]\nretries = 3\nrework = 1\n'
    b"load_per_core = 2.0\nmemory_free = 0.1\nallow_red_base = false\n"
    b'[agents.claude]\ndriver = "command"\ncommand = "claude -p"\npass_env = ["ANTHROPIC_API_KEY"]\n'
    b'env = { CI = "true" }\nmemory_limit = "2GB"\n'
)
CONFIGS = (CONFIG, b"", b'check = "true"\n', b"# nothing\n\n\n", CONFIG[:200], b'[agents."odd name"]\ncommand = []\n')

SPEECH: tuple[dict[str, Any], ...] = (
    {"type": "start", "run_id": "r", "data": {"task": "do", "session_id": "s-9"}},
    {"type": "step", "data": {"step": 1, "action": "edit", "tokens_in": 10, "tokens_out": 3, "cost_so_far": 0.01}},
    {"type": "thought", "data": {"content": f"hm, {SECRET}"}},
    {"type": "log", "data": {"content": "x", "level": "info"}},
    {"type": "ask", "data": {"question": "which?"}},
    {"type": "cost", "data": {"total": 0.5, "tokens_in": 100, "tokens_out": 50}},
    {"type": "error", "data": {"error": "broken", "type": "ValueError"}},
    {"type": "odd", "x": [SECRET, {SECRET: 1}]},
    {"type": "finish", "data": {"status": "success", "result": "done"}},
)
SPOKEN = tuple(msgspec.json.encode(one) for one in SPEECH)
TALKS = (b"\n".join(SPOKEN) + b"\n", b"plain words\r\nand " + SECRET.encode() + b" more\n", b"", SPOKEN[0])
TRAJECTORIES: tuple[dict[str, Any], ...] = (
    {
        "info": {
            "exit_status": "Submitted",
            "submission": SECRET,
            "model_stats": {"instance_cost": 0.5, "api_calls": 2},
        },
        "messages": [
            {"role": "system", "content": "do"},
            {
                "role": "assistant",
                "content": f"hm, {SECRET}",
                "extra": {
                    "actions": [{"command": f"echo {SECRET}"}],
                    "response": {"usage": {"prompt_tokens": 10, "completion_tokens": 3}},
                },
            },
            {"role": "tool", "content": "", "extra": {"raw_output": SECRET, "returncode": 0}},
            {"role": "user", "content": "no tool", "extra": {"interrupt_type": "FormatError"}},
            {"role": "exit", "content": "", "extra": {"exit_status": "Submitted"}},
        ],
    },
    {"info": {"exit_status": "AuthenticationError"}, "messages": [{"role": "exit", "content": f"budget {SECRET}"}]},
)
ANSWERS: tuple[dict[str, Any], ...] = (
    *SPEECH,
    {"status": "success", "result": SECRET, "cost": {"total": 0.5, "tokens_in": 7}, "files": {"a/b": "x", "c": None}},
    {"success": True, "code": "dup *", "cost": 0.5, "files": {"../a": SECRET}},
    {"success": False, "error": f"no {SECRET}"},
)
