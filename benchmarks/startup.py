"""How long the command takes to answer, against a bare interpreter in the same run. `python -m benchmarks.startup`."""

from __future__ import annotations

import compileall
import importlib.util
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import shopfloor

ROUNDS = 25
# What an installer writes; the module is found through the path, as an installed one is.
LAUNCHER = "import sys\nfrom shopfloor.fast import main\nsys.exit(main())"
BARS = {"--version": 1.5, "status": 4.0}
PROMPT = '# Task {n}\n\n```script\n[[do]]\nwrite = "file{n}.txt"\n```\n'
ORDERS = 20


def run() -> list[dict[str, Any]]:
    """Medians in ms; ``ratio`` is against the bare interpreter, ``bar`` the most it may be, in words."""
    source = Path(shopfloor.__file__).parent
    compileall.compile_dir(source, quiet=1)
    env = {**os.environ, "PYTHONPATH": str(source.parent)}
    with tempfile.TemporaryDirectory() as place:
        repo = _worked(Path(place, "repo"), env)
        commands = {
            "bare interpreter": ["-c", "pass"],
            "shopfloor --version": ["-c", LAUNCHER, "--version"],
            f"shopfloor status, {ORDERS} orders": ["-c", LAUNCHER, "status"],
            "shopfloor --help": ["-c", LAUNCHER, "--help"],
            "shopfloor show": ["-c", LAUNCHER, "show", "task-1"],
            "shopfloor mcp, to its end": ["-P", "-m", "shopfloor", "mcp"],
        }
        if importlib.util.find_spec("mcp"):  # what a server made with the usual package would begin with
            commands["package mcp, imported"] = ["-c", "import mcp.server.mcpserver"]
        medians = _medians({name: [sys.executable, *words] for name, words in commands.items()}, repo, env)
    bare = medians["bare interpreter"]
    return [_figure(name, value, value / bare, commands[name][-1]) for name, value in medians.items()]


def _worked(repo: Path, env: dict[str, str]) -> Path:
    """A repository after a run, so that ``status`` has something to say."""
    prompts = repo / "prompts"
    prompts.mkdir(parents=True)
    for number in range(ORDERS):
        (prompts / f"task-{number}.md").write_text(PROMPT.format(n=number))
    who = ["-c", "user.name=b", "-c", "user.email=b@localhost"]
    for words in (["init", "-q", "-b", "main"], ["add", "-A"], [*who, "commit", "-qm", "start"]):
        subprocess.run(["git", *words], cwd=repo, env=env, check=True)
    files = sorted(str(path) for path in prompts.iterdir())
    words = ["run", *files, "--agent", "scripted", "--no-check", "--no-land"]
    command = [sys.executable, "-c", LAUNCHER, *words]
    subprocess.run(command, cwd=repo, env={**env, "SHOPFLOOR_LOAD_PER_CORE": "100"}, check=True, capture_output=True)
    return repo


def _medians(commands: dict[str, list[str]], folder: Path, env: dict[str, str]) -> dict[str, float]:
    """Milliseconds. The commands take turns, so that a noisy moment hits all of them."""
    took: dict[str, list[float]] = {name: [] for name in commands}
    for _ in range(ROUNDS):
        for name, command in commands.items():
            began = time.perf_counter()
            subprocess.run(
                command, cwd=folder, env=env, check=True, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL
            )
            took[name].append((time.perf_counter() - began) * 1000)
    return {name: statistics.median(values) for name, values in took.items()}


def _figure(name: str, value: float, ratio: float, word: str) -> dict[str, Any]:
    bar = BARS.get(word)
    held = {} if bar is None else {"bar": f"≤ {bar:g} x", "ok": ratio <= bar}
    return {"name": name, "value": round(value, 2), "unit": "ms", "ratio": round(ratio, 2), **held}


if __name__ == "__main__":
    for figure in run():
        bar = f"  ({figure['bar']})" if "bar" in figure else ""
        print(f"{figure['name']:<30} {figure['value']:7.1f} ms  {figure['ratio']:5.2f} x{bar}")
