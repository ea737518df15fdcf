"""``shopfloor gateway`` as a person starts it."""

import json
import os
import signal
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from shopfloor.testing.gateway import KEY, SCRIPTS, post, request
from shopfloor.testing.model import Model


@pytest.fixture
def repo(tmp_path: Path) -> Path:
    subprocess.run(["git", "init", "-q", str(tmp_path)], check=True)
    return tmp_path


@contextmanager
def standing(repo: Path, url: str, *words: str) -> Iterator[tuple[subprocess.Popen[str], dict[str, Any]]]:
    """A gateway by hand, and what it says of itself."""
    env = {**os.environ, "ANTHROPIC_API_KEY": KEY, "ANTHROPIC_BASE_URL": url}
    command = [sys.executable, "-m", "shopfloor", "gateway", "--json", "--port", "0", *words]
    with subprocess.Popen(command, cwd=repo, env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as it:
        try:
            assert it.stdout is not None
            line = it.stdout.readline()
            assert line, it.stderr.read() if it.stderr else ""
            yield it, json.loads(line)
        finally:
            it.send_signal(signal.SIGINT)
            _, problems = it.communicate(timeout=30)
            assert it.returncode == 0, problems


def get(url: str, token: str = "") -> tuple[int, Any]:
    headers = {"authorization": f"Bearer {token}"} if token else {}
    try:
        with urllib.request.urlopen(urllib.request.Request(url, headers=headers), timeout=30) as answer:
            return answer.status, json.load(answer)
    except urllib.error.HTTPError as problem:
        with problem:
            return problem.code, json.load(problem)


def test_any_tool_takes_this_way_until_the_budget_is_spent(repo: Path) -> None:
    with Model(SCRIPTS) as model, standing(repo, model.url, "--budget", "0.005") as (process, said):
        url, token = said["variables"]["ANTHROPIC_BASE_URL"], said["variables"]["ANTHROPIC_AUTH_TOKEN"]
        path, body = request("anthropic", "talk")
        assert [post(url, token, path, body).status for _ in range(2)] == [200, 401]
        assert [found.headers["x-api-key"] for found in model.requests()] == [KEY]
        assert process.stdout is not None
        calls = [json.loads(process.stdout.readline())["call"] for _ in range(2)]
        assert [call["refused"] for call in calls] == ["", "budget"]
        assert get(f"{said['address']}/health") == (200, {"ok": True})
        assert get(f"{said['address']}/costs")[0] == 401
        assert get(f"{said['address']}/costs", token)[0] == 401, "a worker's token is not the person's"
        status, costs = get(f"{said['address']}/costs", said["token"])
        assert (status, costs["total"]["cost_usd"], costs["total"]["calls"]) == (200, 0.0045, 1)
        assert costs["model"]["claude-sonnet-4-5"]["tokens_in"] == 1000
    assert len((repo / ".work/ledger.jsonl").read_text().splitlines()) == 2


def test_a_cassette_answers_without_any_model(repo: Path) -> None:
    path, body = request("anthropic", "talk")
    replies = []
    with Model(SCRIPTS) as model:
        url = model.url
        for words in (("--record", "tape"), ("--replay", "tape")):
            with standing(repo, url, *words) as (_, said):
                way = said["variables"]["ANTHROPIC_BASE_URL"]
                replies.append(post(way, said["variables"]["ANTHROPIC_AUTH_TOKEN"], path, body))
        assert len(model.requests()) == 1
    assert replies[0].body == replies[1].body
    assert KEY not in (repo / "tape").read_text()


@pytest.mark.parametrize(
    ("words", "code", "told"),
    [
        (["--port", "x"], 2, "--port 'x' must be a whole number"),
        (["--account", "nobody"], 4, "knows no account 'nobody'"),
        (["--record", "a", "--replay", "b"], 2, "exclude each other"),
        (["--replay", "nowhere"], 3, "there is no cassette"),
        (["--budget", "-1"], 2, "an amount in USD"),
    ],
)
def test_what_is_off_is_told(words: list[str], code: int, told: str, repo: Path) -> None:
    command = [sys.executable, "-m", "shopfloor", "gateway", "--port", "0", *words]
    done = subprocess.run(command, cwd=repo, capture_output=True, text=True, timeout=50, check=False)
    assert (done.returncode, told in done.stderr) == (code, True), done.stderr


def test_a_missing_extra_is_refused_with_the_command_that_installs_it(repo: Path) -> None:
    # Nothing is found in a package that is None, as if it were not installed.
    start = "import sys, importlib.util as u; real = u.find_spec\n"
    start += "u.find_spec = lambda name, *a: None if name == 'aiohttp' else real(name, *a)\n"
    start += "from shopfloor.fast import main; sys.argv[1:] = ['gateway']; sys.exit(main())"
    done = subprocess.run(
        [sys.executable, "-c", start], cwd=repo, capture_output=True, text=True, timeout=50, check=False
    )
    assert done.returncode == 4
    assert "needs aiohttp" in done.stderr
    assert "pip install 'shopfloor[gateway]'" in done.stderr
