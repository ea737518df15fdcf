"""The pages say what is true: every command shown is run, every file named is there, every list is complete."""

from __future__ import annotations

import ast
import json
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from shopfloor.cli.main import VERBS
from shopfloor.config.settings import SETTINGS
from shopfloor.faces.fanout import read
from shopfloor.mcp.verbs import VERBS as AGENT_VERBS
from shopfloor.prompts import KEYS
from shopfloor.testing.spec_servers import serving

ROOT = Path(__file__).parents[2]
PAGES = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md")])
README = (ROOT / "README.md").read_text()
TUTORIAL = (ROOT / "docs/tutorial/first-run.md").read_text()
FAN_OUT = (ROOT / "docs/how-to/fan-out.md").read_text()
REDIS = "redis://127.0.0.1:6379/0"
WAITS = {f"shopfloor fanout --queue {REDIS}"}
"""Commands that end when they are told to."""
NOT_RUN = {
    "make test": "this is it",
    "pip install .": "the bootstrap installs the same package; a second install would change this environment",
    "cd your-project": "a placeholder; the commands below it are run in a repository",
    "make demo": "run by test_the_demonstration",
}

WITH_NOTHING_LEFT = {"claim": 1, "finish": 3, "release": 3}
"""Exit codes after a run that has landed everything: there is nothing to take, and nothing is held."""


def commands(page: str) -> list[str]:
    """What a page tells people to type."""
    return [line[2:].strip() for block in re.findall(r"```console\n(.*?)```", page, re.DOTALL)
            for line in block.splitlines() if line.startswith("$ ")]  # fmt: skip


def blocks(page: str, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", page, re.DOTALL | re.MULTILINE)


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A repository with two prompts, as a reader of the tutorial would have it."""
    identity = ["-c", "user.name=person", "-c", "user.email=person@localhost"]
    (tmp_path / "prompts").mkdir()
    (tmp_path / "README.md").write_text("# project\n")
    for args in (["init", "-q", "-b", "main"], ["add", "README.md"], [*identity, "commit", "-q", "-m", "start"]):
        subprocess.run(["git", *args], cwd=tmp_path, check=True)
    script = '```script\n[[do]]\nwrite = "ORDER.txt"\ncontent = "x"\n```\n'
    (tmp_path / "prompts" / "order.md").write_text(f"---\nchecks: test -s ORDER.txt\n---\n# An order\n\n{script}")
    notes = re.search(r"^````markdown\n(.*?)^````", TUTORIAL, re.DOTALL | re.MULTILINE)
    assert notes is not None
    (tmp_path / "prompts" / "notes.md").write_text(notes[1])
    return tmp_path


def bins(folder: Path) -> dict[str, str]:
    """An environment where the agent that the README names, and its check, are small stand-ins on PATH."""
    tools = folder / "bin"
    tools.mkdir()
    for name, body in {"claude": 'cat >/dev/null; date > "made-$SHOPFLOOR_ORDER.txt"', "pytest": "exit 0"}.items():
        (tools / name).write_text(f"#!/bin/sh\n{body}\n")
        (tools / name).chmod(0o755)
    path = os.pathsep.join([str(tools), str(Path(sys.executable).parent), os.environ["PATH"]])
    return {**os.environ, "PATH": path}


def run(command: str, cwd: Path, env: dict[str, str]) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["sh", "-c", command], cwd=cwd, env=env, capture_output=True, text=True, timeout=50, check=False
    )


# Commands that steer a run answer with a refusal when none is going on; that they are understood is what counts here.
REFUSED_WITHOUT_A_RUN = ("pause", "resume", "stop", "retry", "accept", "reject", "land", "watch")


def test_every_command_of_the_readme_runs(project: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    env = bins(tmp_path_factory.mktemp("tools"))
    (project / "prompts" / "order.md").write_text("# An order\n\nWrite something.\n")
    (project / "prompts" / "notes.md").unlink()
    _run_all(commands(README), project, env, "order")


def test_every_command_of_the_tutorial_runs(project: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    _run_all(commands(TUTORIAL), project, bins(tmp_path_factory.mktemp("tools")), "notes")


def test_the_fan_out_page_says_what_works(tmp_path: Path, redis: str) -> None:
    specs = [json.loads(block) for block in blocks(FAN_OUT, "json")]
    assert [read(json.dumps(spec).encode(), "page")[0].word for spec in specs] == ["square", "square"]
    (tmp_path / "specs.jsonl").write_text("".join(f"{json.dumps(specs[1])}\n" for _ in range(3)))
    env = bins(tmp_path)
    with serving(2, latency_ms=1) as servers:
        agents = " ".join(f"--agents {url}" for url in servers.urls)
        done = []
        for command in commands(FAN_OUT):
            typed = command.replace(" --agents http://127.0.0.1:8080-8089", "").replace(REDIS, redis)
            if not typed.startswith("shopfloor fanout") or command in WAITS:
                continue
            said = run(typed.replace("shopfloor fanout", f"shopfloor fanout {agents}"), tmp_path, env)
            assert said.returncode == (3 if typed.endswith("--resume") else 0), (typed, said)
            done.append(typed)
        assert len(done) == len(commands(FAN_OUT)) - 3
        (example,) = blocks(FAN_OUT, "python")
        example = example.replace('"http://127.0.0.1:8080-8089"', ", ".join(map(repr, servers.urls)))
        said = subprocess.run([sys.executable, "-c", example], cwd=tmp_path, env=env, capture_output=True, text=True,
                              timeout=50, check=False)  # fmt: skip
    assert said.stdout == "20 of 20\n", said.stderr


def _run_all(found: list[str], project: Path, env: dict[str, str], order: str) -> None:
    assert len(found) > 5, found
    for command in found:
        if command in NOT_RUN:
            continue
        typed = command.replace("ORDER", order)
        done = run(typed, project, env)
        verb = shlex.split(typed)[1]
        allowed = {0, 4} if verb in REFUSED_WITHOUT_A_RUN or typed.endswith("--resume") else {0}
        if typed.endswith("--resume"):
            allowed = {0, 3}
        if verb in WITH_NOTHING_LEFT:
            allowed = {WITH_NOTHING_LEFT[verb]}
        assert done.returncode in allowed, f"{typed}: exit {done.returncode}\n{done.stdout}\n{done.stderr}"
        assert "Traceback" not in done.stderr


def test_the_python_example_runs(project: Path) -> None:
    (example,) = blocks(README, "python")
    env = {**os.environ, "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"}
    done = subprocess.run(
        [sys.executable, "-c", example], cwd=project, env=env, capture_output=True, text=True, timeout=50, check=False
    )
    assert done.returncode == 0, done.stderr
    assert "'landed': 2" in done.stdout


def test_the_demonstration_comes_out_as_promised(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "shopfloor", "demo", str(tmp_path / "demo"), "--plain"],
        cwd=tmp_path, capture_output=True, text=True, timeout=55, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr
    assert "9 landed, 4 failed" in done.stdout
    assert "own tests, run in the checkout: pass" in done.stdout


def test_every_file_that_a_page_names_is_there() -> None:
    missing = []
    for page in PAGES:
        text = page.read_text()
        links = re.findall(r"\]\((?!https?:)([^)#]+)", text)
        named = [] if page.name == "CHANGELOG.md" else re.findall(r"`((?:tests|docs)/[\w./-]+)`", text)
        missing += [f"{page.name}: {link}" for link in links if not (page.parent / link).exists()]
        missing += [f"{page.name}: {name}" for name in named if not (ROOT / name).exists()]
        if page.name == "architecture.md":
            rows = re.findall(r"^\|[^|]*\| (`.*`.*) \|$", text, re.MULTILINE)
            places = [place for row in rows for place in re.findall(r"`([^`]+)`", row)]
            missing += [f"{page.name}: {p}" for p in places if not (ROOT / "src/shopfloor" / p).exists()]
    assert not missing


def test_every_pain_names_its_tests_and_every_such_test_is_named() -> None:
    rows = re.findall(r"^\| (\d+) \|(.*)\|$", (ROOT / "docs/explanation/what-breaks.md").read_text(), re.MULTILINE)
    assert [int(number) for number, _ in rows] == list(range(1, 26))
    named = {(test, number) for number, row in rows for test in re.findall(r"`(test_\w+)`", row)}
    written = set()
    for file in ROOT.glob("tests/acceptance/test_pains_*.py"):
        for test in ast.parse(file.read_text()).body:
            if isinstance(test, ast.FunctionDef) and test.name.startswith("test_"):
                said = re.match(r"Pain (\d+): ", ast.get_docstring(test) or "")
                written.add((test.name, said[1] if said else ""))
    assert named == written
    assert {number for _, number in named} == {number for number, _ in rows}


def test_every_promise_of_the_faces_names_tests_that_are_there() -> None:
    page = (ROOT / "docs/explanation/faces.md").read_text()
    rows = re.findall(r"^\| (\d+) \|(.*)\|$", page, re.MULTILINE)
    assert [int(number) for number, _ in rows] == [*range(1, 11), *range(1, 11)]
    written = {
        test.name
        for file in ROOT.glob("tests/*/test_*.py")
        for test in ast.parse(file.read_text()).body
        if isinstance(test, ast.FunctionDef | ast.AsyncFunctionDef)
    }
    for number, row in rows:
        named = set(re.findall(r"`(test_\w+)`", row))
        assert named, number
        assert named <= written, f"{number}: {named - written}"


def test_every_front_matter_key_and_every_verb_is_described() -> None:
    keys = re.findall(r"^\| (`.*?`) \|", TUTORIAL, re.MULTILINE)
    described = {key for cell in keys for key in re.findall(r"`(\w+)`", cell)}
    assert set(KEYS) <= described, set(KEYS) - described
    everything = README + TUTORIAL + (ROOT / "CHANGELOG.md").read_text()
    assert not [verb for verb in VERBS if not re.search(rf"\b{verb}\b", everything)]


def test_every_setting_is_in_what_init_writes(project: Path) -> None:
    done = subprocess.run([sys.executable, "-m", "shopfloor", "init", "--print"], cwd=project, capture_output=True,
                          text=True, check=True)  # fmt: skip
    assert not [s.key for s in SETTINGS if not re.search(rf"\b{s.key}\b", done.stdout)]


def test_every_verb_of_agents_is_in_the_reference_with_its_arguments() -> None:
    page = (ROOT / "docs/reference/talk.md").read_text()
    rows = dict(re.findall(r"^\| `(\w+)` \| (.*?) \|", page, re.MULTILINE))
    told = {name: set(re.findall(r"`(\w+)`", cell)) for name, cell in rows.items()}
    assert {name: told.get(name) for name in AGENT_VERBS} == {n: set(v.arguments) for n, v in AGENT_VERBS.items()}
