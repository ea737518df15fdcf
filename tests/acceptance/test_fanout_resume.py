"""Going on with a fan-out that was killed, whatever its specifications came from."""

from __future__ import annotations

import json
import os
import re
import signal
import sqlite3
import subprocess
from collections import Counter
from contextlib import closing, suppress
from pathlib import Path

import pytest

from shopfloor.testing.spec_servers import Servers, serving

from .shop import CALM, COMMAND, until
from .test_fanout import agents, asked, fanout, said_by, specs, started, value

MANY = 1700
"""more than are taken in at once"""


def killed(folder: Path, servers: Servers, *words: str, stdin: Path | None = None) -> int:
    """A fan-out that is killed early; how many were finished by then."""
    servers.knob(latency_ms=100)  # so that it cannot be over before it is killed
    with started(folder, *words, *agents(servers), "--in-flight", "8", stdin=stdin) as running:
        line = running.until("Progress: ")
        running.signal(signal.SIGKILL)
        running.end()
    servers.knob(latency_ms=0)
    return int(line.split()[1].split("/")[0])


def finished_once(servers: Servers, count: int) -> None:
    """Every one was asked for, and only what was under way when it was killed for a second time."""
    again = Counter(name for ids in asked(servers, "/generate").values() for name in ids)
    assert set(again) == {f"s{n}" for n in range(count)}
    assert sum(times - 1 for times in again.values()) <= 200


@pytest.mark.parametrize("source", ["a file", "-", "/dev/stdin"])
def test_resume_alone_goes_on_with_everything_that_was_asked_for(tmp_path: Path, source: str) -> None:
    file = tmp_path / specs(tmp_path, MANY)
    with serving(2, latency_ms=5) as servers:
        words = ["--timeout", "7", "specs.json" if source == "a file" else source]
        done = killed(tmp_path, servers, *words, stdin=None if source == "a file" else file)
        if source != "a file":
            file.unlink()
        said = fanout(tmp_path, "--resume")
        finished_once(servers, MANY)
    assert said.code == 0, said
    assert said.out.startswith(f"Processing {MANY} specs with 2 agents\n")
    assert value(said.out, "Successful:") == MANY
    assert value(said.out, "Finished earlier:") >= done
    assert not list(tmp_path.glob(".work/specs/*")), "what was kept is needed no more"
    log = (tmp_path / ".work" / "events.jsonl").read_text()
    limits = re.findall(r'"timeout_s":([\d.]+),"source"', log)
    assert set(limits) == {"7.0"}, "what was begun with a limit goes on with it"


def test_what_ended_where_it_was_meant_to_has_not_moved_when_other_agents_go_on(tmp_path: Path) -> None:
    with serving(2) as first, serving(3) as second, serving(1) as third:
        killed(tmp_path, first, specs(tmp_path, 300), "--policy", "strict")
        second.knob(latency_ms=50)
        with started(tmp_path, "--resume", *agents(second), "--in-flight", "2") as running:
            running.until("Progress: ")
            running.signal(signal.SIGINT)
            running.end()
        said = fanout(tmp_path, "--resume", *agents(third), "--json")
    ended = Counter(result["agent_id"] for result in said.json["results"])
    assert said.code == 0, said
    assert all(any(url in ended for url in servers.urls) for servers in (first, second, third)), ended
    assert (said.json["moved"], said.json["earlier"]) == (0, 300 - ended[third.urls[0]])


def test_a_file_that_has_changed_or_is_gone_is_not_taken_for_what_it_was(tmp_path: Path) -> None:
    file = tmp_path / specs(tmp_path, MANY)
    text = file.read_bytes()
    with serving(2) as servers:
        killed(tmp_path, servers, "specs.json")
        specs(tmp_path, MANY + 1)
        changed = fanout(tmp_path, "--resume")
        other = fanout(tmp_path, "specs.json", "--resume")
        file.unlink()
        gone = fanout(tmp_path, "--resume")
        (tmp_path / "elsewhere.json").write_bytes(text)
        said = fanout(tmp_path, "elsewhere.json", "--resume")
    assert (changed.code, other.code, gone.code) == (4, 4, 3)
    assert (
        f" of {MANY} specifications are not in the log yet, and 'specs.json', where they came from, has" in changed.err
    )
    assert "not the specifications that the unfinished run was begun with" in other.err
    assert "cannot be read: no such file" in gone.err
    assert "put 'specs.json' back" in gone.err
    assert said.code == 0, said
    assert value(said.out, "Successful:") == MANY


def test_a_run_that_is_not_finished_is_not_run_over(tmp_path: Path) -> None:
    with serving(2, faults=["hang=s59"]) as servers:
        words = [specs(tmp_path, 60), *agents(servers), "--in-flight", "1"]
        with started(tmp_path, *words) as running:
            running.until("Progress: 10/60")
            beside = fanout(tmp_path, *words)
            running.signal(signal.SIGKILL)
            running.end()
        after = fanout(tmp_path, *words)
    assert beside.code == 5, beside
    assert "another run is going on in this folder" in beside.err
    assert after.code == 4, after
    assert "unfinished orders\n  go on with it: shopfloor fanout --resume" in after.err
    assert beside.out == after.out == ""


def test_a_specification_may_have_a_time_limit_of_its_own(tmp_path: Path) -> None:
    own: list[dict[str, object]] = [{"id": f"s{n}", "word": "a", "stack_effect": "( -- n )"} for n in range(10)]
    own[3]["timeout_s"] = 0.3
    (tmp_path / "specs.json").write_text(json.dumps(own))
    with serving(2, faults=["hang=s3"]) as servers:
        said = fanout(tmp_path, "specs.json", *agents(servers), "--json")
    failed = {result["spec_id"]: result["error"] for result in said.json["results"] if "error" in result}
    assert set(failed) == {"s3"}
    assert "no answer to POST /generate within 0.3 s" in failed["s3"]


def test_results_that_were_not_stored_when_all_was_done_are_stored_by_resume(tmp_path: Path) -> None:
    words = ["--results", "sqlite:results.db"]
    with closing(sqlite3.connect(tmp_path / "results.db")) as other, serving(2, latency_ms=50) as servers:
        with started(tmp_path, specs(tmp_path, 100), *agents(servers), "--in-flight", "1", *words) as running:
            running.until("Progress: 10/100")
            other.execute("BEGIN EXCLUSIVE")
            running.until("Progress: 100/100")
            running.signal(signal.SIGKILL)
            running.end()
        other.rollback()
        assert other.execute("SELECT count(*) < 100 FROM agent_results").fetchall() == [(1,)]
        said = fanout(tmp_path, "--resume", *words)
        assert said.code == 0, said
        assert value(said.out, "Finished earlier:") == 100
        assert other.execute("SELECT count(*), count(DISTINCT spec_id) FROM agent_results").fetchall() == [(100, 100)]
        finished_once(servers, 100)
    assert len(fanout(tmp_path, "--resume", "--json").json["results"]) == 100
    nothing = fanout(tmp_path, "--resume")
    assert nothing.code == 3
    assert "there is no unfinished fan-out here" in nothing.err


def test_what_every_message_says_works_run_resume_goes_on_with_a_fan_out(tmp_path: Path) -> None:
    with serving(2) as servers:
        killed(tmp_path, servers, specs(tmp_path, MANY))
        said = said_by(tmp_path, "run", "--resume")
    assert said.code == 0, said
    assert value(said.out, "Successful:") == MANY


def test_a_run_with_a_queue_goes_on_with_one_and_one_without_does_not(tmp_path: Path, redis: str) -> None:
    queue = ["--queue", redis, "--drain"]
    with serving(2, latency_ms=20) as servers:
        killed(tmp_path, servers, specs(tmp_path, 200), *queue)
        without = fanout(tmp_path, "--resume")
        said = fanout(tmp_path, "--resume", *queue)
        killed(tmp_path, servers, specs(tmp_path, 200))
        other = fanout(tmp_path, "--resume", *queue)
    assert (without.code, said.code, other.code) == (4, 0, 4)
    assert "takes from a queue\n  give it again" in without.err
    assert value(said.out, "Successful:") == 200
    assert "does not take from a queue\n  leave --queue out" in other.err


def test_where_nothing_can_be_written_it_is_said_whether_something_has_begun(tmp_path: Path) -> None:
    with serving(2) as servers:
        words = [specs(tmp_path, 200), *agents(servers)]
        first = fanout(tmp_path, *words, file_bytes=300)
        again = fanout(tmp_path, *words, file_bytes=200_000)
        said = fanout(tmp_path, "--resume")
    limit = "file too large\n  raise the file size limit (ulimit -f), then"
    assert first.code == again.code == 4, (first, again)
    assert f"{limit} say it again: nothing has begun\n" in first.err
    assert f"{limit} type: shopfloor run --resume\n" in again.err
    assert said.code == 0, said
    assert value(said.out, "Successful:") == 200


def test_a_queue_keeps_what_was_put_into_it_where_the_run_cannot_begin(tmp_path: Path, redis: str) -> None:
    with serving(2) as servers:
        words = [*agents(servers), "--queue", redis, "--drain"]
        first = fanout(tmp_path, specs(tmp_path, 20), *words, file_bytes=300)
        said = fanout(tmp_path, *words)
    assert "nothing has begun; the specifications are in the queue by now, and are not to be given again" in first.err
    assert value(said.out, "Successful:") == 20


def test_who_is_held_up_by_a_reader_that_reads_nothing_ends_with_the_second_signal(tmp_path: Path) -> None:
    reading, writing = os.pipe()
    with suppress(BlockingIOError):
        os.set_blocking(writing, False)
        while True:
            os.write(writing, b"x" * 1000)
    os.set_blocking(writing, True)
    with serving(2) as servers:
        command = [*COMMAND, "fanout", specs(tmp_path, 60), *agents(servers)]
        with subprocess.Popen(command, cwd=tmp_path, env=os.environ | CALM, stdout=writing, stderr=subprocess.PIPE,
                              text=True) as process:  # fmt: skip
            until((tmp_path / ".work" / "events.jsonl").exists, "a log")
            process.send_signal(signal.SIGTERM)
            with pytest.raises(subprocess.TimeoutExpired):
                process.wait(0.5)
            process.send_signal(signal.SIGTERM)
            assert process.wait(20) == 143
            assert process.stderr is not None
            assert process.stderr.read().endswith("killed; go on with: shopfloor fanout --resume\n")
        os.close(reading)
        os.close(writing)
        said = fanout(tmp_path, "--resume", "--json")
    assert said.code == 0, said
    assert said.json["successful"] == 60
