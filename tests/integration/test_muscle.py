"""The built-in worker, with a scripted model behind real addresses."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from shopfloor.domain.events import E
from shopfloor.domain.order import Order
from shopfloor.mcp.verbs import VERBS
from shopfloor.muscle.program import Task, endpoint_of, in_words, perform
from shopfloor.muscle.tools import MOST_BYTES, Tools
from shopfloor.ports import Kind, Launch, Profile, Route
from shopfloor.spawn import Guard
from shopfloor.testing.model import Model

from .engine_lab import until_true
from .lab import Lab, row

SONNET = "anthropic/claude-sonnet-4-6"
ENVELOPE = {"type", "data", "v", "run_id", "seq", "timestamp"}
SCRIPTS: dict[str, Any] = {
    "edit": [
        {"say": "I write it.", "call": {"name": "edit", "input": {"path": "a.txt", "old": "", "new": "one\ntwo\n"}}},
        {"call": {"name": "edit", "input": {"path": "a.txt", "old": "two", "new": "three"}}},
        {"bash": "cat a.txt; exit 3"},
        {"text": "Done."},
    ],
    "endless": [{"bash": "echo again", "usage": {"in": 1000, "out": 100}}] * 30,
    "fails": [{"fail": {"status": 400, "message": "no such thing"}}],
    "locked": [{"fail": {"status": 401, "message": "bad key"}}],
    "env": [{"bash": "env"}, {"text": "Looked."}],
    "asks": [{"call": {"name": "ask", "input": {"question": "Which?", "wait_s": 600}}}],
    "speaks": [
        {"call": {"name": "assignment", "input": {}}},
        {"calls": [{"call": {"name": "ready", "input": {}}}, {"call": {"name": "show", "input": {}}}]},
        {
            "calls": [
                {"call": {"name": "progress", "input": {"text": "half way"}}},
                {"call": {"name": "progress", "input": {}}},
            ]
        },
        {"call": {"name": "ask", "input": {"question": "Which?"}}},
        {"call": {"name": "send", "input": {"to": "human", "body": "hello"}}},
        {"call": {"name": "claim", "input": {"order": "second"}}},
        {"call": {"name": "show", "input": {"order": "nobody"}}},
        {"call": {"name": "edit", "input": {"path": "first.txt", "old": "", "new": "x"}}},
        {"call": {"name": "done", "input": {"text": "all of it"}}},
        {"text": "Done."},
    ],
    "second": [{"call": {"name": "edit", "input": {"path": "second.txt", "old": "", "new": "x"}}}, {"text": "Done."}],
    "sleeps": [{"bash": "echo $$ > pid; setsid sleep 600 & echo started; sleep 600"}],
    "slow": [{"bash": "echo first"}, {"delay": 1.5, "text": "Late."}],
}


@pytest.fixture(scope="module")
def model() -> Iterator[Model]:
    with Model(SCRIPTS) as running:
        yield running


def endpoint(model: Model, provider: str = "anthropic") -> dict[str, str]:
    base = model.url if provider == "anthropic" else f"{model.url}/v1"
    return {"PATH": os.environ["PATH"], "MINI_API_BASE": base, "MINI_API_KEY": "throw-away", "HOME": "/nowhere"}


class Heard:
    """What the worker said, and how it ended."""

    def __init__(self) -> None:
        self.code = -1
        self.lines: list[dict[str, Any]] = []

    def write(self, line: bytes) -> None:
        assert line.endswith(b"\n")
        self.lines.append(json.loads(line))

    @property
    def types(self) -> list[str]:
        return [line["type"] for line in self.lines]

    def data(self, kind: str) -> dict[str, Any]:
        return next(line["data"] for line in reversed(self.lines) if line["type"] == kind)


async def work(folder: Path, env: dict[str, str], script: str, name: str = SONNET, **limits: Any) -> Heard:
    heard = Heard()
    text = script and f"[[script {script}]]"
    heard.code = await perform(Task(text=text, model=name, folder=folder, **limits), env, heard.write)
    return heard


@pytest.mark.parametrize("provider", ["anthropic", "openai"])
async def test_it_edits_runs_and_says_so_in_order(model: Model, tmp_path: Path, provider: str) -> None:
    name = SONNET if provider == "anthropic" else "openai/gpt-4o"
    heard = await work(tmp_path, endpoint(model, provider), "edit", name)
    assert heard.code == 0
    assert (tmp_path / "a.txt").read_text() == "one\nthree\n"
    assert heard.types == ["start", "thought", "step", "step", "step", "finish", "cost"]
    assert all(line.keys() == ENVELOPE for line in heard.lines)
    assert [line["seq"] for line in heard.lines] == list(range(1, 8))
    assert heard.data("start") == {"task": "[[script edit]]", "model": name, "workdir": str(tmp_path)}
    step = heard.data("step")
    assert (step["step"], step["action"], step["returncode"]) == (3, "cat a.txt; exit 3", 3)
    assert step["output"] == "one\nthree\n"
    assert heard.data("finish")["status"] == "success"
    assert heard.data("finish")["result"] == "Done."
    cost = heard.data("cost")
    # 3 USD in and 15 USD out for a million tokens of one, 2.50 and 10 of the other
    assert cost["total"] == pytest.approx(4 * (0.003 + 0.00075) if provider == "anthropic" else 4 * (0.0025 + 0.0005))
    assert (cost["calls"], cost["tokens_in"], cost["tokens_out"]) == (4, 4000, 200)


async def test_without_a_floor_there_is_nobody_to_speak_to(model: Model, tmp_path: Path) -> None:
    seen = len(model.requests())
    await work(tmp_path, endpoint(model), "env")
    assert {request.tools for request in model.requests()[seen:]} == {("bash", "edit")}
    assert "nobody can answer: decide for yourself" in str(model.requests()[seen].body["system"])


async def test_a_limit_of_money_or_steps_ends_it_before_the_next_call(model: Model, tmp_path: Path) -> None:
    seen = len(model.requests())
    heard = await work(tmp_path, endpoint(model), "endless", cost_limit=0.01)  # 0.0045 a call
    assert heard.code == 1
    assert heard.data("finish")["status"] == "limit"
    assert heard.data("cost")["total"] == pytest.approx(0.0135)
    assert len(model.requests()) == seen + 3
    heard = await work(tmp_path, endpoint(model), "endless", step_limit=2)
    assert (heard.code, heard.data("finish")["status"], heard.data("cost")["calls"]) == (1, "limit", 2)


@pytest.mark.parametrize(
    ("script", "kind"), [("fails", "ModelRequestRejectedError"), ("locked", "auth"), ("", "UsageError")]
)
async def test_what_goes_wrong_is_an_error_and_exit_code_1(
    model: Model, tmp_path: Path, script: str, kind: str
) -> None:
    heard = await work(tmp_path, endpoint(model), script)
    assert heard.code == 1
    assert heard.types == ["start", "error", "cost"]
    assert heard.data("error")["type"] == kind


async def test_an_unknown_price_is_never_zero_and_keeps_no_limit(model: Model, tmp_path: Path) -> None:
    heard = await work(tmp_path, endpoint(model, "openai"), "edit", "openai/nobody-knows-it")
    assert heard.code == 0
    assert heard.data("cost")["total"] is None
    assert heard.data("step")["cost_so_far"] is None
    heard = await work(tmp_path, endpoint(model, "openai"), "edit", "openai/nobody-knows-it", cost_limit=1.0)
    assert heard.code == 1
    assert "price" in heard.data("error")["error"]
    assert heard.data("cost")["calls"] == 1


async def test_commands_do_not_see_the_key(model: Model, tmp_path: Path) -> None:
    heard = await work(tmp_path, endpoint(model), "env")
    assert "throw-away" not in json.dumps(heard.lines)
    assert "HOME=/nowhere" in heard.data("step")["output"]


def test_a_model_of_no_known_provider_and_no_key_are_told() -> None:
    assert endpoint_of("claude-opus-4-1", {"ANTHROPIC_API_KEY": "k"})["provider"] == "anthropic"
    found = endpoint_of("openai/x", {"OPENAI_BASE_URL": "http://127.0.0.1:1/v1"})
    assert found == {"provider": "openai", "name": "x", "url": "http://127.0.0.1:1/v1", "key": "none"}
    with pytest.raises(Exception, match="'telepathy/x' is of no provider"):
        endpoint_of("telepathy/x", {})
    with pytest.raises(Exception, match="there is no key for 'openai'"):
        endpoint_of("gpt-4o", {})


async def test_edit_stays_inside_and_wants_one_place(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_bytes(b"x\r\nx\r\n")
    (tmp_path / "out").symlink_to("/tmp")
    async with Guard() as guard:
        tools = Tools(guard, tmp_path, dict(os.environ), timeout_s=5)
        for path in ("../b.txt", "/tmp/shopfloor-b.txt", "out/shopfloor-b.txt"):
            assert "lies outside" in tools.edit(path, "", "no").text
        assert "2 times" in tools.edit("a.txt", "x", "y").text
        assert "is not there" in tools.edit("a.txt", "z", "y").text
        assert "not changed" in tools.edit("none.txt", "z", "y").text
        assert tools.edit("a.txt", "x\r\nx", "y\r\nx").text == "changed a.txt"
    assert (tmp_path / "a.txt").read_bytes() == b"y\r\nx\r\n"
    assert not Path("/tmp/shopfloor-b.txt").exists()


async def test_a_command_is_bounded_in_time_and_output(tmp_path: Path) -> None:
    async with Guard() as guard:
        tools = Tools(guard, tmp_path, dict(os.environ), timeout_s=0.5)
        late = await tools.bash("echo begun; setsid sleep 600 & sleep 600")
        assert late.code == 124
        assert late.text.startswith("begun\n")
        long = await Tools(guard, tmp_path, dict(os.environ), timeout_s=20).bash("yes | head -c 3000000; echo end")
        assert long.code == 0
        assert len(long.text) < MOST_BYTES + 100
        assert "bytes are left out here" in long.text
        assert long.text.endswith("end\n")


def command(*words: str) -> list[str]:
    """In the dialect whose client is the quicker one to import: each is a process of its own."""
    return [sys.executable, "-P", "-m", "shopfloor", "muscle", "--model", "openai/gpt-4o", *words]


def test_the_first_step_is_heard_long_before_the_end(model: Model, tmp_path: Path) -> None:
    words = command("--headless", "--task", "[[script slow]]")
    with subprocess.Popen(words, cwd=tmp_path, env=endpoint(model, "openai"), stdout=subprocess.PIPE) as program:
        assert program.stdout is not None
        lines = []
        for raw in program.stdout:
            lines.append(json.loads(raw))
            if lines[-1]["type"] == "step":
                assert program.poll() is None
    assert [line["type"] for line in lines] == ["start", "step", "finish", "cost"]
    assert program.returncode == 0


def test_sigterm_has_last_words_and_leaves_nothing(model: Model, tmp_path: Path) -> None:
    words, pipe = command("--headless", "--task", "[[script sleeps]]"), tmp_path / "pid"
    os.mkfifo(pipe)
    with subprocess.Popen(words, cwd=tmp_path, env=endpoint(model, "openai"), stdout=subprocess.PIPE) as program:
        assert program.stdout is not None
        assert json.loads(program.stdout.readline())["type"] == "start"
        shell = int(pipe.read_text())  # returns once the command writes to it
        program.send_signal(signal.SIGTERM)
        rest = [json.loads(line) for line in program.stdout]
    assert program.returncode == 128 + signal.SIGTERM
    assert [line["type"] for line in rest] == ["error", "cost"]
    state = Path(f"/proc/{shell}/stat")
    assert not state.exists() or state.read_text().rpartition(")")[2].split()[0] == "Z"


def test_who_is_held_up_by_a_reader_that_reads_nothing_ends_with_the_second_signal(
    model: Model, tmp_path: Path
) -> None:
    reading, writing = os.pipe()
    os.set_blocking(writing, False)
    with suppress(BlockingIOError):
        while True:
            os.write(writing, b"x" * 1000)
    os.set_blocking(writing, True)
    words = command("--headless", "--task", "[[script edit]]")
    with subprocess.Popen(words, cwd=tmp_path, env=endpoint(model, "openai"), stdout=writing) as program:
        asyncio.run(until_true(lambda: _catches(program.pid, signal.SIGTERM), "it answers signals"))
        program.send_signal(signal.SIGTERM)
        with pytest.raises(subprocess.TimeoutExpired):
            program.wait(0.5)
        program.send_signal(signal.SIGTERM)
        assert program.wait(20) == 128 + signal.SIGTERM
    os.close(reading)
    os.close(writing)


def _catches(pid: int, number: int) -> bool:
    status = dict(line.split(":", 1) for line in Path(f"/proc/{pid}/status").read_text().splitlines())
    return bool(int(status["SigCgt"], 16) >> (number - 1) & 1)


def test_sigterm_does_not_wait_for_an_answer(model: Model, tmp_path: Path) -> None:
    """A floor that has taken a question and says nothing more holds up no end."""
    place = tmp_path / ".work"
    place.mkdir()
    identity = {"FLOOR": str(place), "ORDER": "wo-1", "ATTEMPT": "wo-1.a1", "GENERATION": "1", "TOKEN": "t" * 64}
    env = {**endpoint(model, "openai"), **{f"SHOPFLOOR_{name}": value for name, value in identity.items()}}
    words = command("--headless", "--task", "[[script asks]]")
    with socket.socket(socket.AF_UNIX) as floor:
        floor.bind(str(place / "controller.sock"))
        floor.listen()
        floor.settimeout(30)
        with subprocess.Popen(words, cwd=tmp_path, env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as program:
            link, _ = floor.accept()
            with link:
                asked = json.loads(link.makefile("rb").readline())
                program.send_signal(signal.SIGTERM)
                out, err = program.communicate(timeout=20)
    assert (asked["what"], asked["question"], asked["speaker"]["order"]) == ("ask", "Which?", "wo-1")
    assert program.returncode == 128 + signal.SIGTERM
    assert [json.loads(line)["type"] for line in out.splitlines()] == ["start", "error", "cost"]
    assert err == b""


async def test_it_speaks_about_its_work_order_with_the_floor_that_started_it(model: Model, tmp_path: Path) -> None:
    lab = Lab(tmp_path)
    settings = {"accounts": {"lab": {"dialect": "openai", "url": model.url}}}
    worker = {"driver": "muscle", "model": "openai/gpt-4o", "account": "lab"}
    more = {"agent": "worker", "agents": {"worker": worker}, "gateway": settings, "max_parallel": 1}
    orders = [lab.prompt(name, f"[[script {name}]]") for name in ("speaks", "second")]
    seen = len(model.requests())
    async with lab.floor(**more, on_question="decline") as floor:
        report = await floor.run(orders)
        mail = [letter for letter in await floor.mail.inbox() if letter.sender.endswith("/speaks")]
    assert report.counts["landed"] == 2, report
    offered = {request.tools for request in model.requests()[seen:]}
    assert offered == {("bash", "edit", *VERBS)}
    told = {line["action"]: line["output"] for line in steps(lab, row(report, "speaks").order)}
    assert told["assignment"] == f"ASSIGNED: {row(report, 'speaks').order}"
    assert told["ready"].startswith("second")
    assert "state: running" in told["show"]
    assert told["progress half way"] == "noted"
    assert "'progress' needs 'text'" in told["progress"]
    assert "decide" in told["ask Which?"]
    assert "is yours" in told["claim second"]
    assert "there is no order 'nobody'" in told["show nobody"]
    assert "End your turn now" in told["done all of it"]
    assert [event.data["text"] for event in lab.seen(E.AGENT_PROGRESS)] == ["half way"]
    assert [event.data["text"] for event in lab.seen(E.AGENT_DONE)] == ["all of it"]
    assert [letter.body for letter in mail] == ["hello"]
    held = [event for event in lab.seen(E.ASSIGNED) if event.order_id == row(report, "second").order]
    assert len(held) == 2, "claimed by the first agent, given back when that ended, and then worked on"


def steps(lab: Lab, order: str) -> list[dict[str, Any]]:
    """What it said of its steps, as the floor has kept it."""
    lines = (lab.repo / ".work/attempts" / f"{order}.a1" / "transcript.jsonl").read_text().splitlines()
    events = [json.loads(line).get("data") or {} for line in lines]
    return [event["data"] for event in events if event.get("type") == "step"]


def test_it_reads_well_for_a_person() -> None:
    told: list[str] = []
    write = in_words(told.append)
    asyncio.run(perform(Task(text="", model=SONNET, folder=Path()), {}, write))
    assert "UsageError: there is no task" in told[1]
    assert told[-1] == "0 model calls, 0 + 0 tokens, 0.0000 USD"


async def test_the_driver_runs_it_through_its_route(model: Model, tmp_path: Path) -> None:
    from shopfloor.agents.muscle import MuscleAgent

    launch = Launch(
        order=Order(id="wo-1", name="one", title="one"), attempt="wo-1.a1", prompt="[[script edit]]",
        profile=Profile(name="muscle", driver="muscle", model=SONNET), workspace=str(tmp_path), branch="b",
        directory=str(tmp_path / "attempt"), env={"PATH": os.environ["PATH"]}, budget_usd=1.0,
        route=Route(url=model.url, token="of-the-route"),
    )  # fmt: skip
    async with Guard() as guard:
        agent = MuscleAgent(guard)
        probe = await agent.probe(launch.profile)
        assert probe.found
        assert probe.capabilities.gateway
        assert not (await agent.probe(Profile(name="muscle", driver="muscle"))).found
        reports = [report async for report in agent.follow(await agent.start(launch))]
    assert reports[-1].kind is Kind.EXITED
    assert reports[-1].status == "completed", reports
    assert reports[-1].cost_usd == pytest.approx(0.015)
    assert (tmp_path / "a.txt").read_text() == "one\nthree\n"
