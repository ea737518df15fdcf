"""A first ``.shopfloor.toml``: how the project seems to be prepared and checked, and every setting as a comment."""

from __future__ import annotations

import json
import re
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from shopfloor.config.settings import FILE, SETTINGS

_LARGEST = 1 << 20  # bytes of a project file that are looked at


SUBMODULES = "git submodule update --init --recursive"
"""A fresh checkout has only empty folders for them."""


class Finding(NamedTuple):
    """Commands that fit the project, and what they were concluded from; an empty command: none is known."""

    setup: str
    check: str
    why: str


def proposal(root: Path) -> str:
    """The text of a ``.shopfloor.toml`` for the project at ``root``; it only looks, it runs nothing."""
    found = list(findings(root))
    first = next((finding for finding in found if finding.check), None)
    lines = [
        f"# {FILE}: how shopfloor works on this repository. Flags and SHOPFLOOR_* variables come before it.",
        "",
        *_commands(found, first),
        *_settings(),
        *_AGENTS,
    ]
    return "\n".join(lines) + "\n"


def _commands(found: list[Finding], first: Finding | None) -> Iterator[str]:
    """``setup`` and ``check`` with their reason, further findings as comments."""
    if first is None:
        yield "# Nothing here says how the project is checked. Without a check nothing can be verified:"
        yield '# check = "…"'
    for finding in found:
        mark = "" if finding is first else "# "
        yield f"# {finding.why}"
        if finding.setup:
            yield f"{mark}setup = {json.dumps(finding.setup, ensure_ascii=False)}"
        if finding.check:
            yield f"{mark}check = {json.dumps(finding.check, ensure_ascii=False)}"
    yield ""


def _settings() -> Iterator[str]:
    yield "# Everything else that can be set, with an example or the default:"
    for setting in SETTINGS:
        if setting.example:
            yield f"# {setting.key} = {setting.example}".ljust(44) + f"  # {setting.about}"


_AGENTS = (
    "",
    "# Agents by name. {prompt_file}, {prompt}, {workspace}, {branch}, {order} and {title} are replaced in command;",
    "# without the first two the prompt comes on stdin. Agents see none of your variables but harmless ones, and",
    "# those that pass_env names. Accounts pay for model calls that go through the gateway; without any the usual",
    "# keys count. Prices are USD for a million tokens, of models whose price nobody knows.",
    "# [agents.claude]",
    '# driver = "claude_code"                     # or command (then say which), jsonlines, acp, muscle, scripted',
    '# permissions = "ask"                        # when it asks whether it may: allow, deny, or ask a person',
    '# pass_env = ["ANTHROPIC_API_KEY"]',
    '# env = { CI = "true" }',
    '# memory_limit = "2GB"',
    "",
    "# [gateway.accounts.main]",
    '# dialect = "anthropic"                      # anthropic, openai or gemini',
    '# key = "ANTHROPIC_API_KEY"                  # a variable; or key_file = "~/.keys/main"',
    '# spill = ["second"]                         # takes over while nothing is left',
    "# [gateway.accounts.second]",
    '# dialect = "anthropic"',
    '# url = "https://proxy.example.com/v1"',
    '# key = "SECOND_KEY"',
    "# models = { 'large-model' = 'small-model' }  # asked for instead",
    "# [gateway.prices.'my-model']",
    "# input = 3.0",
    "# output = 15.0",
    "# cached = 0.3",
)


# -- what the files of a project say ------------------------------------------------------------------------------


def findings(root: Path) -> Iterator[Finding]:
    """What the files at ``root`` say, the most specific first."""
    fetch = SUBMODULES if (root / ".gitmodules").exists() else ""
    for look in (_python, _node, _rust, _go, _maven, _gradle, _elixir, _ruby, _make):
        finding = look(root)
        if finding is not None:
            yield finding._replace(setup=" && ".join(filter(None, (fetch, finding.setup))))


def _text(path: Path) -> str | None:
    """The beginning of a file, None when there is none to read."""
    try:
        with path.open("rb") as file:
            return file.read(_LARGEST).decode(errors="replace") if path.is_file() else None
    except OSError:
        return None


def _document(path: Path) -> dict[str, Any]:
    """A TOML or JSON file as a table; empty when it is not there or not well-formed."""
    text = _text(path)
    try:
        found = None if text is None else json.loads(text) if path.suffix == ".json" else tomllib.loads(text)
    except (ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}


def _has(root: Path, *names: str) -> str:
    """The first of these names that exists, or an empty string."""
    return next((name for name in names if (root / name).exists()), "")


def _python(root: Path) -> Finding | None:
    if not _has(root, "pyproject.toml", "setup.py", "setup.cfg", "tox.ini", "requirements.txt"):
        return None
    project = _document(root / "pyproject.toml")
    tool = project.get("tool") if isinstance(project.get("tool"), dict) else {}
    assert isinstance(tool, dict)
    if lock := _has(root, "uv.lock"):
        setup, run = "uv sync", "uv run "
    elif lock := _has(root, "poetry.lock"):
        setup, run = "poetry install", "poetry run "
    else:
        lock = _has(root, "requirements.txt")
        what = f"-r {lock}" if lock else "-e ."
        setup, run = f"python3 -m venv .venv && .venv/bin/pip install {what}", ".venv/bin/"
    why = f"{lock or 'a Python project'} says how it is installed"
    if "pytest" in tool or _has(root, "pytest.ini", "conftest.py", "tests/conftest.py"):
        return Finding(setup, f"{run}pytest -q", f"{why}; pytest is configured")
    if "tox" in tool or _has(root, "tox.ini", "tox.toml"):
        return Finding("", "tox", "tox is configured; it makes its own environments")
    test = next((found for found in ("tests", "test") if (root / found).is_dir()), "")
    if test and "pytest" in (_text(root / "pyproject.toml") or "") + (_text(root / "requirements.txt") or ""):
        return Finding(setup, f"{run}pytest -q", f"{why}; pytest is among the dependencies")
    if test:
        return Finding(setup, f"{run}python -m unittest discover -s {test}", f"{why}; {test}/ and no other test runner")
    return Finding(setup, "", f"{why}; no tests were found")


_LOCKS = {
    "pnpm-lock.yaml": ("pnpm install --frozen-lockfile", "pnpm"),
    "yarn.lock": ("yarn install --frozen-lockfile", "yarn"),
    "package-lock.json": ("npm ci", "npm"),
}


def _node(root: Path) -> Finding | None:
    package = _document(root / "package.json")
    if not package:
        return None
    scripts = package.get("scripts")
    has_test = isinstance(scripts, dict) and "no test specified" not in str(scripts.get("test", "no test specified"))
    lock = _has(root, *_LOCKS)
    setup, tool = _LOCKS.get(lock, ("npm install", "npm"))
    why = f"package.json{' with ' + lock if lock else ''}"
    return Finding(
        setup, f"{tool} test" if has_test else "", f"{why}; {'it has' if has_test else 'it has no'} test script"
    )


def _rust(root: Path) -> Finding | None:
    return Finding("", "cargo test", "Cargo.toml: a Rust project") if _has(root, "Cargo.toml") else None


def _go(root: Path) -> Finding | None:
    return Finding("", "go test ./...", "go.mod: a Go module") if _has(root, "go.mod") else None


def _maven(root: Path) -> Finding | None:
    mvn = "./mvnw" if _has(root, "mvnw") else "mvn"
    return Finding("", f"{mvn} --batch-mode test", "pom.xml: a Maven project") if _has(root, "pom.xml") else None


def _gradle(root: Path) -> Finding | None:
    build = _has(root, "build.gradle", "build.gradle.kts")
    gradle = "./gradlew" if _has(root, "gradlew") else "gradle"
    return Finding("", f"{gradle} test", f"{build}: a Gradle project") if build else None


def _elixir(root: Path) -> Finding | None:
    return Finding("mix deps.get", "mix test", "mix.exs: a Mix project") if _has(root, "mix.exs") else None


def _ruby(root: Path) -> Finding | None:
    if not _has(root, "Gemfile"):
        return None
    runner = "rspec" if _has(root, ".rspec", "spec") else "rake test"
    return Finding("bundle install", f"bundle exec {runner}", "Gemfile: a Ruby project")


def _make(root: Path) -> Finding | None:
    name = _has(root, "GNUmakefile", "makefile", "Makefile")
    target = re.search(r"^(test|check)[ \t]*:(?!=)", (_text(root / name) or "") if name else "", re.MULTILINE)
    return Finding("", f"make {target[1]}", f"{name} has a target {target[1]!r}") if target else None
