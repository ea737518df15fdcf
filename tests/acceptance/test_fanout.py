"""The fan-out as its users meet it: the command, real servers, a real queue, real databases. A test for each check."""

from __future__ import annotations

import asyncio
import json
import os
import re
import resource
import signal
import socket
import sqlite3
import subprocess
import sys
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any, NoReturn

import psycopg
import pytest
import redis as redis_client

from shopfloor import Shopfloor
from shopfloor.testing.spec_servers import Servers, serving

from .shop import CALM, COMMAND, Running, Said, until

SEEDS_INSERT = "INSERT INTO agent_results (spec_id, code, success, latency_ms) VALUES ({}, {}, {}, {})"


def fanout(folder: Path, *words: str, stdin: str = "", descriptors: int = 0, file_bytes: int = 0) -> Said:
    return said_by(folder, "fanout", *words, stdin=stdin, descriptors=descriptors, file_bytes=file_bytes)


def said_by(
    folder: Path, *words: str, stdin: str = "", descriptors: int = 0, file_bytes: int = 0,
    command: tuple[str, ...] = COMMAND,
) -> Said:  # fmt: skip
    def limit() -> None:
        for what, most in ((resource.RLIMIT_NOFILE, descriptors), (resource.RLIMIT_FSIZE, file_bytes)):
            if most:
                resource.setrlimit(what, (most, most))

    done = subprocess.run(
        [*command, *words], cwd=folder, env=os.environ | CALM, input=stdin, capture_output=True, text=True,
        timeout=50, check=False, preexec_fn=limit,
    )  # fmt: skip
    return Said(done.returncode, done.stdout, done.stderr)


@contextmanager
def started(folder: Path, *words: str, stdin: Path | None = None) -> Iterator[Running]:
    """The same, while it goes on."""
    with (stdin or Path(os.devnull)).open() as file:
        process = subprocess.Popen(
            [*COMMAND, "fanout", *words], cwd=folder, env=os.environ | CALM | {"PYTHONUNBUFFERED": "1"}, stdin=file,
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        )  # fmt: skip
    with Running(process) as running:
        yield running


def agents(servers: Servers) -> list[str]:
    return [word for url in servers.urls for word in ("--agents", url)]


def specs(folder: Path, count: int, **more: Any) -> str:
    """A file with so many of them."""
    found = [
        {"id": f"s{n}", "word": f"square-{n}", "stack_effect": "( n -- n² )", "pattern_id": "DUP_TRANSFORM_001",
         "test_cases": [{"input": [n], "output": [n * n]}]} | more for n in range(count)
    ]  # fmt: skip
    (folder / "specs.json").write_text(json.dumps(found))
    return "specs.json"


def value(out: str, label: str) -> float:
    found = re.search(rf"^{re.escape(label)} ([\d.]+)", out, re.MULTILINE)
    assert found is not None, f"no line {label!r} in:\n{out}"
    return float(found[1])


def asked(servers: Servers, path: str) -> dict[int, list[str]]:
    """By port, the specifications for which this was asked."""
    found = defaultdict(list)
    for request in servers.requests:
        if request.path == path:
            found[request.port].append(request.id)
    return dict(found)


@contextmanager
def on_the_usual_ports(cannot: Callable[[str], NoReturn]) -> Iterator[None]:
    """Ten servers where everybody expects them, started as a program."""
    for port in range(8080, 8090):
        with socket.socket() as free:
            free.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                free.bind(("127.0.0.1", port))
            except OSError:
                cannot(f"port {port} is taken here")
    command = [sys.executable, "-m", "shopfloor.testing.spec_servers", "--ports", "8080-8089"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        for _ in range(10):
            process.stdout.readline()
        try:
            yield
        finally:
            process.terminate()


def test_1_without_arguments_it_says_the_seeds_lines_in_their_order(
    tmp_path: Path, cannot: Callable[[str], NoReturn]
) -> None:
    with on_the_usual_ports(cannot):
        said = fanout(tmp_path)
    assert said.code == 0, said
    lines = said.out.splitlines()
    assert lines[0] == "Processing 100 specs with 10 agents"
    assert lines[1:11] == [f"Progress: {n}/100 completed" for n in range(10, 101, 10)]
    shapes = [
        r"Completed in \d+\.\d\d seconds", r"Average: \d+\.\d{3} seconds per spec",
        r"Throughput: \d+\.\d\d specs/second", "", "=== Results ===", "Successful: 100", "Failed: 0",
        r"Success rate: 100\.0%",
        r"Average latency per spec: \d+\.\d\dms", "", "=== Performance Comparison ===",
        r"Single-agent time: \d+\.\d\d seconds", r"Multi-agent time: \d+\.\d\d seconds",
        r"Speedup vs single-agent: \d+\.\dx \(parallelism\)", r"Each agent: \d+\.\d\d specs/second",
        r"Total speedup: \d+\.\dx .*",
    ]  # fmt: skip
    shown = [line for line in lines[11:] if not line.startswith("Moved: ")]
    assert len(shown) == len(shapes), said
    assert all(re.fullmatch(shape, line) for shape, line in zip(shapes, shown, strict=True)), said
    took_s = value(said.out, "Completed in")  # which is rounded
    assert 100 / (took_s + 0.006) < value(said.out, "Throughput:") < 100 / max(1e-6, took_s - 0.006)


def test_2_specification_i_is_offered_to_agent_i_mod_n(tmp_path: Path) -> None:
    with serving(10) as servers:
        said = fanout(tmp_path, specs(tmp_path, 100), *agents(servers))
        assert said.code == 0, said
        for place, url in enumerate(servers.urls):
            port = int(url.rsplit(":", 1)[1])
            wanted = sorted(f"s{n}" for n in range(100) if n % 10 == place)
            assert sorted(asked(servers, "/spec/validate")[port]) == wanted


@pytest.mark.parametrize("policy", ["strict", "least-busy"])
def test_2_other_policies(tmp_path: Path, policy: str) -> None:
    with serving(3, latency_ms=5) as servers:
        said = fanout(tmp_path, specs(tmp_path, 60), *agents(servers), "--policy", policy, "--in-flight", "2")
        assert said.code == 0, said
        shares = [len(ids) for ids in asked(servers, "/spec/validate").values()]
        assert sum(shares) == 60
        assert policy != "strict" or shares == [20, 20, 20]


def test_3_five_that_fail_verification_are_counted(tmp_path: Path) -> None:
    bad = ",".join(f"s{n}" for n in (3, 14, 15, 92, 65))
    with serving(10, faults=[f"mismatch={bad}"]) as servers:
        said = fanout(tmp_path, specs(tmp_path, 100), *agents(servers))
    assert said.code == 1, said
    assert "Successful: 95\nFailed: 5\nSuccess rate: 95.0%\n" in said.out
    assert re.search(r"^  \d x Stack effect mismatch", said.out, re.MULTILINE)


@pytest.mark.parametrize("place", ["sqlite", "postgres"])
def test_4_there_is_one_row_for_each_specification(tmp_path: Path, place: str, request: pytest.FixtureRequest) -> None:
    url = "sqlite:results.db" if place == "sqlite" else request.getfixturevalue("postgres")
    ask = _sqlite(tmp_path / "results.db") if place == "sqlite" else _postgres(url)
    ask("DROP TABLE IF EXISTS agent_results")
    with serving(2, faults=["mismatch=s7"]) as servers:
        said = fanout(tmp_path, specs(tmp_path, 100), *agents(servers), "--results", url)
    assert value(said.out, "Successful:") == 99, said
    rows = ask("SELECT spec_id, code, success, latency_ms, error FROM agent_results")
    assert sorted(row[0] for row in rows) == sorted(f"s{n}" for n in range(100))
    for spec, code, success, latency_ms, error in rows:
        assert latency_ms > 0
        assert bool(success) == (spec != "s7")
        assert (spec == "s7") == (error or "").startswith("Stack effect mismatch")
        assert code.startswith(f": square-{spec[1:]} ")
    ask(SEEDS_INSERT.format("'by hand'", "'x'", "true", "1.5"))
    assert len(ask("SELECT * FROM agent_results")) == 101


def _sqlite(path: Path) -> Callable[[str], list[Any]]:
    def ask(statement: str) -> list[Any]:
        with closing(sqlite3.connect(path)) as db, db:
            return db.execute(statement).fetchall()

    return ask


def _postgres(url: str) -> Callable[[str], list[Any]]:
    def ask(statement: str) -> list[Any]:
        with psycopg.connect(url, autocommit=True) as db:
            cursor = db.execute(statement.encode())
            return cursor.fetchall() if cursor.description else []

    return ask


def test_5_specifications_come_from_a_redis_list_also_those_that_others_push(tmp_path: Path, redis: str) -> None:
    other = redis_client.Redis.from_url(redis)
    flat = {"id": "from outside", "word": "twice", "stack_effect": "( n -- 2n )"}
    odd = [b"\xff nonsense", b"{}", b"[" * 5000, b"x" * 2_000_000]
    with serving(2) as servers, other:
        other.rpush("work_queue", *odd)
        said = fanout(tmp_path, specs(tmp_path, 30), *agents(servers), "--queue", redis)
        assert value(said.out, "Successful:") == 30, said
        assert "Refused: 4 from the queue that were no specifications (they are in work_queue:refused)" in said.out
        assert other.lrange("work_queue:refused", 0, -1) == odd
        other.delete("work_queue:refused")
        assert other.keys("work_queue*") == [b"work_queue:takers"], "nothing is left behind"
        words = [*agents(servers), "--queue", redis, "--results", "sqlite:results.db"]
        with started(tmp_path, *words) as running:
            running.until("Processing specs of work_queue with 2 agents")
            for _ in range(10):
                other.rpush("work_queue", json.dumps(flat))
            running.until("Progress: 10/10 completed")
            running.signal(signal.SIGINT)
            ended = running.end()
        assert ended.code == 130, ended
        assert asked(servers, "/spec/validate")
        assert _sqlite(tmp_path / "results.db")("SELECT DISTINCT spec_id, success FROM agent_results") == [
            ("from outside", 1)
        ]


def test_5_a_killed_dispatcher_gives_its_specifications_back(tmp_path: Path, redis: str) -> None:
    other = redis_client.Redis.from_url(redis)
    with serving(2, latency_ms=20) as servers, other:
        words = [*agents(servers), "--queue", redis, "--in-flight", "2", "--results", f"sqlite:{tmp_path}/results.db"]
        (tmp_path / "a").mkdir()
        (tmp_path / "b").mkdir()
        with started(tmp_path / "a", f"../{specs(tmp_path, 100)}", *words) as running:
            running.until("Progress: 30/100")
            running.signal(signal.SIGKILL)
            running.end()
        # Its lease ends at once, as if the seconds had passed.
        for name in other.keys("work_queue:alive:*"):
            other.delete(name)
        said = fanout(tmp_path / "b", *words, "--drain")
        assert said.code == 0, said
        rows = _sqlite(tmp_path / "results.db")("SELECT DISTINCT spec_id FROM agent_results")
        assert len(rows) == 100, "none is lost"
        assert other.llen("work_queue") == 0


def test_5_a_queue_that_is_away_for_a_while_is_told_of_once(tmp_path: Path, redis_server: Any) -> None:
    with serving(2, latency_ms=30) as servers:
        words = [specs(tmp_path, 200), *agents(servers), "--queue", redis_server.url, "--in-flight", "2"]
        with started(tmp_path, *words, "--drain") as running:
            running.until("Progress: 20/200")
            redis_server.kill()
            running.until("is away (")
            redis_server.start()
            running.until("is back after")
            ended = running.end()
    assert ended.code == 0, ended
    assert value(ended.out, "Successful:") == 200
    assert (ended.out.count(" is away ("), ended.out.count(" is back after ")) == (1, 1), ended
    assert f"the queue at {redis_server.url} is away (" in ended.out
    assert "it is waited for, 60 s at most: start it again\n" in ended.out


def test_6_each_specification_meets_three_steps_with_their_keys(tmp_path: Path) -> None:
    with serving(3, faults=["invalid=s4"]) as servers:
        said = fanout(tmp_path, specs(tmp_path, 30), *agents(servers), "--json", "-")
        seen = defaultdict(list)
        for request in servers.requests:
            if request.path != "/health":
                seen[request.id].append((request.path, request.keys))
    whole = ("id", "word", "stack_effect", "pattern_id", "test_cases")
    steps = [("/spec/validate", whole), ("/generate", whole), ("/verify", ("code", "effect"))]
    assert {name: found for name, found in seen.items() if found != steps} == {"s4": steps[:1]}
    assert len(seen) == 30
    beside = {"number", "run", "agent_id", "phases_ms"}
    for result in said.json["results"]:
        if result["spec_id"] == "s4":
            assert result["error"].startswith("Invalid specification")
            assert set(result) - beside == {"spec_id", "success", "error", "latency_ms"}
        else:
            assert set(result) - beside == {"spec_id", "success", "code", "tests", "latency_ms"}


def test_7_the_clock_of_a_request_starts_when_an_agent_is_free(tmp_path: Path) -> None:
    """A hundredth of the seed's own model: one thread each, 0.1 s for each specification, 0.3 s for each request."""
    with serving(10, single=True, latency_ms=100) as servers:
        said = fanout(tmp_path, specs(tmp_path, 100), *agents(servers), "--timeout", "0.3")
    assert said.code == 0, said
    assert value(said.out, "Successful:") == 100


def test_8_one_agent_is_killed_and_one_answers_500_half_way(tmp_path: Path) -> None:
    with serving(10, latency_ms=20) as servers:
        broken = servers.urls[3].rsplit(":", 1)[1]
    with serving(10, latency_ms=20, faults=[f"500@{broken}+10"]) as servers:
        words = [*agents(servers), "--in-flight", "2", "--results", "sqlite:results.db", "--json", "report.json"]
        with started(tmp_path, specs(tmp_path, 200), *words) as running:
            running.until("Progress: 100/200")
            servers.stop(7)
            ended = running.end()
    assert ended.code == 0, ended
    report = json.loads((tmp_path / "report.json").read_text())
    assert report["total_runs"] == report["successful"] == 200
    assert Counter(result["spec_id"] for result in report["results"]) == {f"s{n}": 1 for n in range(200)}
    rows = _sqlite(tmp_path / "results.db")("SELECT spec_id FROM agent_results")
    assert Counter(rows) == {(f"s{n}",): 1 for n in range(200)}
    moved = [result for result in report["results"] if result.get("moved")]
    assert moved
    assert all(r["agent_id"] in servers.urls and r["agent_id"] != servers.urls[r["number"] % 10] for r in moved)


IMPATIENT = """
import sys
from shopfloor.agents import _pool
from shopfloor.fast import main
_pool.PATIENCE_S = 2.0
sys.exit(main())
"""
"""The command, when it waits 2 s for servers that are all down, and not 15 s."""


def test_8_a_failure_keeps_the_reason_of_the_transport(tmp_path: Path) -> None:
    with serving(2, faults=["500"]) as servers:
        words = ["fanout", specs(tmp_path, 4), *agents(servers), "--json", "-", "--policy", "strict"]
        said = said_by(tmp_path, *words, command=(sys.executable, "-c", IMPATIENT))
        reached = {name for ids in asked(servers, "/spec/validate").values() for name in ids}
    assert said.code == 1, said
    reasons = {result["spec_id"]: result["error"] for result in said.json["results"]}
    assert all("answered 500 to validate" in reason for reason in reasons.values()), reasons
    told = {name for name, reason in reasons.items() if "out of luck: 100% of the stack is used" in reason}
    assert told == reached >= {"s0", "s1"}, "each has the words that were said of it, and no others"


def test_9_with_1024_descriptors_every_one_of_2000_comes_back(tmp_path: Path) -> None:
    with serving(10, latency_ms=10) as servers:
        said = fanout(tmp_path, specs(tmp_path, 2000), *agents(servers), "--in-flight", "256", descriptors=1024)
    assert said.code == 0, said
    assert value(said.out, "Successful:") == 2000
    assert said.out.count("Progress: ") == 100


RICH = {
    "word": "square", "description": "the square of a number", "properties": ["never negative"],
    "stack_effect": {"inputs": [{"name": "n", "type": "int"}], "outputs": [{"name": "n²", "type": "int"}]},
    "test_cases": [{"input": [3], "output": [9], "tags": ["base_case"]}],
}  # fmt: skip


def test_10_rich_specifications_from_lines_on_stdin_and_a_report(tmp_path: Path) -> None:
    lines = "\n".join(json.dumps(RICH | {"word": f"square-{n}"}) for n in range(20))
    with serving(2, latency_ms=5) as servers:
        said = fanout(tmp_path, "-", *agents(servers), "--validate", "strict", "--json", "report.json", stdin=lines)
        assert said.code == 0, said
        again = fanout(
            tmp_path, "-", *agents(servers), "--validate", "strict", stdin=json.dumps(RICH | {"word": "a b"})
        )
    report = json.loads((tmp_path / "report.json").read_text())
    assert report["phases"]["generation"]["p95"] >= report["phases"]["generation"]["p50"] >= 5
    assert report["p95_total_ms"] >= report["p50_total_ms"] >= report["avg_generation_ms"] / 2
    assert {result["spec_id"] for result in report["results"]} == {f"spec-{n}" for n in range(1, 21)}
    took = [ms for result in report["results"] for ms in result["phases_ms"].values()]
    assert min(took) > 0
    assert any(ms % 1 for ms in took), "parts of milliseconds are measured"
    assert again.code == 2
    assert "spec-1: word 'a b'" in again.err


def test_10_after_kill_9_nothing_finished_is_done_again(tmp_path: Path) -> None:
    with serving(4, latency_ms=20) as servers:
        words = [specs(tmp_path, 300), *agents(servers), "--in-flight", "2", "--results", "sqlite:results.db"]
        with started(tmp_path, *words) as running:
            running.until("Progress: 100/300")
            running.signal(signal.SIGKILL)
            told = running.end().out.splitlines()
        kept = {row[0] for row in _sqlite(tmp_path / "results.db")("SELECT spec_id FROM agent_results")}
        finished = asyncio.run(_finished(tmp_path))
        said = fanout(tmp_path, *words, "--resume")
        asked_for = Counter(name for ids in asked(servers, "/spec/validate").values() for name in ids)
    assert said.code == 0, said
    assert value(said.out, "Successful:") == 300
    (last,) = (int(line.split()[1].split("/")[0]) for line in told[-1:])
    assert len(finished) >= last >= 100, "what a person was told of is finished"
    assert kept <= finished, "what is stored is finished"
    assert value(said.out, "Finished earlier:") == len(finished)
    assert {asked_for[name] for name in finished} == {1}
    assert set(asked_for.values()) <= {1, 2}
    rows = _sqlite(tmp_path / "results.db")("SELECT spec_id FROM agent_results")
    assert Counter(rows) == {(f"s{n}",): 1 for n in range(300)}
    assert fanout(tmp_path, "--resume").code == 3


async def _finished(folder: Path) -> set[str]:
    """What the log says is finished."""
    async with Shopfloor.open(folder, without_git=True) as floor:
        return {outcome.order.name for outcome in await floor.answers()}


def test_10_after_kill_9_only_what_was_under_way_is_done_again(tmp_path: Path) -> None:
    hanging = {f"s{n}" for n in range(100, 108)}
    with serving(4, faults=[f"hang={','.join(hanging)}"]) as servers:
        words = [specs(tmp_path, 150), *agents(servers), "--in-flight", "2", "--results", "sqlite:results.db"]
        stored = _sqlite(tmp_path / "results.db")
        with started(tmp_path, *words) as running:
            running.until("Progress: 100/150")
            until(lambda: {name for ids in asked(servers, "/generate").values() for name in ids} >= hanging, "all hang")
            until(lambda: stored("SELECT count(*) FROM agent_results") == [(100,)], "the others are stored")
            running.signal(signal.SIGKILL)
            running.end()
        servers.knob(faults=())
        said = fanout(tmp_path, *words, "--resume")
        asked_for = Counter(name for ids in asked(servers, "/generate").values() for name in ids)
    assert said.code == 0, said
    assert value(said.out, "Finished earlier:") == 100
    assert asked_for == {f"s{n}": 2 if f"s{n}" in hanging else 1 for n in range(150)}


def test_10_ctrl_c_says_how_to_go_on_and_resume_knows_the_rest(tmp_path: Path) -> None:
    with serving(2, latency_ms=20) as servers:
        with started(tmp_path, specs(tmp_path, 100), *agents(servers), "--in-flight", "2") as running:
            running.until("Progress: 30/100")
            running.signal(signal.SIGINT)
            ended = running.end()
        assert ended.code == 130, ended
        assert "go on with: shopfloor fanout --resume" in ended.out
        assert value(ended.out, "Not done:") > 0
        said = fanout(tmp_path, "--resume")
    assert said.code == 0, said
    assert said.out.startswith("Processing 100 specs with 2 agents\n")
    assert value(said.out, "Successful:") == 100


def test_10_of_no_specifications_come_zeros(tmp_path: Path) -> None:
    (tmp_path / "none.json").write_text("[]")
    said = fanout(tmp_path, "none.json", "--json", "report.json")
    assert said.code == 0, said
    assert "Average: 0.000 seconds per spec\nThroughput: 0.00 specs/second\n" in said.out
    assert "Success rate: 0.0%\nAverage latency per spec: 0.00ms\n" in said.out
    assert json.loads((tmp_path / "report.json").read_text())["p95_total_ms"] == 0


@pytest.mark.parametrize(
    ("words", "code", "told"),
    [
        (["missing.json"], 3, "there is no file 'missing.json'"),
        (["bad.json"], 2, "bad.json: specification 2: 'word' is missing"),
        (["ok.json", "--agents", "localhost"], 2, "is no address"),
        (["ok.json", "--agents", "http://127.0.0.1:1"], 3, "no agent server answers"),
        (["ok.json", "--results", "mysql://x"], 2, "no place for results"),
        (["ok.json", "--queue", "amqp://x"], 2, "is no queue"),
        (["ok.json", "--queue", "redis://127.0.0.1:99999"], 2, "is no queue: Port out of range"),
        (["ok.json", "--path", "make=/make"], 2, "'/make' is no path for a step 'make'"),
        (["ok.json", "--path", "verify=check"], 2, "'check' is no path for a step 'verify'"),
        (["ok.json", "--queue", "redis://127.0.0.1:1"], 4, "cannot be used"),
        (["ok.json", "--json", "ok.json"], 4, "which is no report"),
        (["ok.json", "--in-flight", "many"], 2, "--in-flight 'many'"),
        (["ok.json", "--timeout", "nan"], 2, "--timeout nan is no number of seconds"),
        (["ok.json", "--json", "none/report.json"], 4, "--json cannot write 'none/report.json': no such file"),
        (["ok.json", "--results", "sqlite:none/results.db"], 4, "results cannot be kept in 'none/results.db'"),
        (["deep.json"], 2, "deep.json: is nested too deep"),
        (["levels.json"], 2, "specification 1: it is nested more than 100 levels deep"),
        (["large.json"], 2, "specification 1: it has 1100045 bytes, and 1048576 are the most"),
        (["binary.json"], 2, "binary.json: is no JSON"),
        (["empty.json"], 2, "empty.json: is empty"),
        (["twice.json", "--validate", "basic"], 2, "s: 2 specifications have this id"),
        (["."], 3, "'.' is a folder"),
        (["ok.json", "--drain"], 2, "--drain is about a queue"),
        (["--resume"], 3, "no unfinished fan-out"),
    ],
)
def test_what_cannot_be_is_refused_by_name(tmp_path: Path, words: list[str], code: int, told: str) -> None:
    one = {"word": "a", "stack_effect": "( -- n )"}
    (tmp_path / "ok.json").write_text(json.dumps([one]))
    (tmp_path / "bad.json").write_text(json.dumps([one, {"stack_effect": "( -- )"}]))
    (tmp_path / "deep.json").write_text("[" * 10_000 + "]" * 10_000)
    (tmp_path / "levels.json").write_text('[{"word":"a","stack_effect":"( -- n )","x":' + "[" * 200 + "]" * 200 + "}]")
    (tmp_path / "large.json").write_text(json.dumps([one | {"x": "y" * 1_100_000}]))
    (tmp_path / "binary.json").write_bytes(bytes(range(256)) * 9)
    (tmp_path / "empty.json").touch()
    (tmp_path / "twice.json").write_text(json.dumps([one | {"id": "s"}] * 2))
    said = fanout(tmp_path, *words)
    assert said.code == code, said
    assert told in said.err
    assert said.out == "", "nothing is said before it is known that it can be done"
    assert not list(tmp_path.glob("**/report.json"))
    assert "Traceback" not in said.err
