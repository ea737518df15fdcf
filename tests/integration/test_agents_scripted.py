"""The scripted agent as a program of its own."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from shopfloor.agents.scripted import PROGRAM

COMMAND = [sys.executable, "-I", "-S", str(PROGRAM)]


def follow(folder: Path, script: str, *, generation: int = 1, fence: str = "```") -> tuple[int, list[dict[str, Any]]]:
    """The exit code and the events."""
    done = subprocess.run(
        COMMAND,
        input=f"# A title\n\n{fence}script\n{script}\n{fence}\n".encode(),
        cwd=folder,
        env={"PATH": os.defpath, "SHOPFLOOR_GENERATION": str(generation), "HOME": str(folder)},
        stdout=subprocess.PIPE,
        check=False,
    )
    return done.returncode, [json.loads(line) for line in done.stdout.decode().splitlines()]


def kinds(events: list[dict[str, Any]]) -> list[str]:
    return [event["type"] for event in events]


def test_the_protocol(tmp_path: Path) -> None:
    code, events = follow(tmp_path, "[[do]]\nsay = 'hm'\n[[do]]\ncost = 0.1\ntokens_in = 5\n[[do]]\nnothing = true")
    assert code == 0
    assert kinds(events) == ["start", "log", "thought", "step", "step", "finish", "cost"]
    assert [event["seq"] for event in events] == list(range(1, 8))
    assert {event["v"] for event in events} == {1}
    assert events[0]["data"] == {"task": "# A title", "model": "none", "workdir": str(tmp_path)}
    assert events[1]["data"]["content"] == "scripted agent: follows the script in its prompt; no model"
    assert events[3]["data"]["cost_so_far"] == 0.1
    assert events[-2]["data"]["status"] == "success"
    assert events[-1]["data"]["total"] == 0.1
    assert events[-1]["data"]["tokens_in"] == 5


def test_files(tmp_path: Path) -> None:
    (tmp_path / "old.txt").write_text("a b a")
    (tmp_path / "gone.txt").write_text("")
    script = """
[[do]]
write = "deep/new.txt"
content = "one\\n"
[[do]]
append = "deep/new.txt"
content = "two\\n"
[[do]]
replace = "old.txt"
old = "a"
new = "c"
[[do]]
delete = "gone.txt"
"""
    assert follow(tmp_path, script)[0] == 0
    assert (tmp_path / "deep" / "new.txt").read_text() == "one\ntwo\n"
    assert (tmp_path / "old.txt").read_text() == "c b a"
    assert not (tmp_path / "gone.txt").exists()


def test_run_and_commit(tmp_path: Path) -> None:
    subprocess.run(["git", "init", "-q", str(tmp_path)], check=True)
    script = """
[[do]]
run = "echo out; echo err >&2; exit 3"
[[do]]
write = "a.txt"
content = "a"
[[do]]
commit = "it's \\"quoted\\"; $HOME"
"""
    code, events = follow(tmp_path, script)
    assert code == 0, "a command that fails does not end the script"
    steps = [event["data"] for event in events if event["type"] == "step"]
    assert (steps[0]["output"], steps[0]["returncode"]) == ("out\nerr\n", 3)
    assert steps[2]["returncode"] == 0, steps[2]["output"]
    log = ["git", "-C", str(tmp_path), "log", "--format=%s"]
    assert subprocess.run(log, check=True, capture_output=True, text=True).stdout == 'it\'s "quoted"; $HOME\n'


@pytest.mark.parametrize(
    ("script", "code", "last"),
    [
        ("[[do]]\nexit = 0", 0, ["finish", "cost"]),
        ("[[do]]\nexit = 4", 4, ["finish", "cost"]),
        ("[[do]]\ncrash = 9", 9, ["start", "log"]),
        ("[[do]]\ncrash = 'SIGKILL'", -9, ["start", "log"]),
        ("[[do]]\ncrash = 'SIGTERM'", -15, ["start", "log"]),
        ("[[do]]\nreplace = 'absent'\nold = 'x'\nnew = 'y'", 1, ["error", "cost"]),
        ("[[do]]\ndelete = 'absent'", 1, ["error", "cost"]),
        ("", 2, ["error", "cost"]),
        ("[[do]", 2, ["error", "cost"]),
        ("[[do]]\nfly = true", 2, ["error", "cost"]),
        ("[[do]]\nsay = 'a'\nwrite = 'b'", 2, ["error", "cost"]),
        ("[[do]]\nwait_s = true", 2, ["error", "cost"]),
        ("[[do]]\nwrite = 'b'\ncontnt = 'x'", 2, ["error", "cost"]),
        ("silnt = true\n[[do]]\nnothing = true", 2, ["error", "cost"]),
        ("silent = true\n[[do]]\nnothing = true", 0, []),
    ],
    ids=str,
)
def test_how_it_ends(script: str, code: int, last: list[str], tmp_path: Path) -> None:
    found, events = follow(tmp_path, script)
    assert (found, kinds(events)[-2:]) == (code, last)


def test_nothing_is_done_when_the_script_is_off_further_down(tmp_path: Path) -> None:
    assert follow(tmp_path, "[[do]]\nwrite = 'a'\n[[do]]\nfly = true")[0] == 2
    assert not (tmp_path / "a").exists()


def test_what_stops_once_stops_the_attempt_of_its_number(tmp_path: Path) -> None:
    script = "[[do]]\ncrash_once = 'a'\n[[do]]\nask = 'which port?'\n[[do]]\nwrite = 'done'\ncontent = ''"
    assert follow(tmp_path, script, generation=1)[0] == 3
    code, events = follow(tmp_path, script, generation=2)
    assert (code, kinds(events)) == (0, ["start", "log", "ask", "finish", "cost"])
    assert events[2]["data"] == {"question": "which port?"}
    assert not (tmp_path / "done").exists()
    assert follow(tmp_path, script, generation=3)[0] == 0
    assert (tmp_path / "done").exists()


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_told_to_stop_it_ends_properly(number: int, code: int, tmp_path: Path) -> None:
    program = subprocess.Popen(COMMAND, stdin=subprocess.PIPE, stdout=subprocess.PIPE, cwd=tmp_path, env={})
    assert program.stdin
    assert program.stdout
    with program:
        program.stdin.write(b"```script\n[[do]]\nhang = true\n```\n")
        program.stdin.close()
        events = [json.loads(program.stdout.readline()) for _ in range(3)]
        program.send_signal(number)
        events += [json.loads(line) for line in program.stdout]
    assert program.returncode == code
    assert kinds(events) == ["start", "log", "log", "finish", "cost"]
    assert events[3]["data"]["status"] == "cancelled"


def test_fences(tmp_path: Path) -> None:
    script = "[[do]]\nwrite = 'a.md'\ncontent = '''\n```sh\nls\n```\n'''"
    assert follow(tmp_path, script, fence="````")[0] == 0
    assert (tmp_path / "a.md").read_text() == "```sh\nls\n```\n"
    assert follow(tmp_path, "[[do]]\nwrite = 'b'", fence="~~~")[0] == 0
    assert (tmp_path / "b").exists()
