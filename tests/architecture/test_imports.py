"""Dependencies point one way. There is no list of exceptions: whoever needs one changes the drawing."""

import ast
from collections.abc import Callable, Iterator
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

from .source import PACKAGE, SRC, Import, Module, Source, dotted, load, refuse, unit_of, write_tree

DRIVERS = {"agents", "workspaces", "stores", "runners", "verifiers", "landers", "notifiers", "gateway", "wire"}
ENGINE = {"engine", "office"}
EDGES = {"cli", "tui", "web", "mcp"}
PUBLIC = {"", "domain", "ports", "config"}

# What each box of the drawing may import besides itself, from the bottom up; "" is the package's __init__.py.
MAY_IMPORT: dict[str, set[str]] = {
    "_version": set(),
    "domain": set(),
    "ports": {"domain"},
    "config": {"domain", "ports"},
    "guard": set(),
    "spawn": {"domain", "ports", "guard"},
    "git": {"domain", "ports", "spawn"},
    "masking": set(),
    "prompts": {"domain", "config"},
    **{driver: {"domain", "ports", "config", "spawn", "git", "masking"} for driver in DRIVERS},
    **{part: {"domain", "ports"} for part in ENGINE},
    "app": {"domain", "ports", "config", "spawn", "git", "guard", "prompts", "masking", "muscle"} | ENGINE | DRIVERS,
    "": {"domain", "ports", "config", "app"},
    "faces": {""},
    **{edge: PUBLIC | {"app", "faces", "office"} for edge in EDGES},
    "mcp": {"domain", "config", "wire"},
    "muscle": {"domain", "config", "spawn", "mcp"},
    "cli": PUBLIC | {"app", "faces", "office", "demo", "muscle"} | EDGES,
    "demo": PUBLIC | {"app", "faces", "testing", "spawn", "git"},
    "testing": PUBLIC | {"spawn", "git"},
    "compat": {"", "faces", "cli"},
    "fast": {"config", "cli", "mcp"},
    "__main__": {"fast"},
}

# The parts of the standard library that compute and nothing else, and the codec.
PURE = {
    *(
        "__future__",
        "abc",
        "base64",
        "binascii",
        "bisect",
        "collections",
        "contextlib",
        "copy",
        "dataclasses",
    ),
    *("datetime", "decimal", "difflib", "enum", "fnmatch", "fractions", "functools", "graphlib", "hashlib"),
    *(
        "heapq",
        "hmac",
        "itertools",
        "json",
        "keyword",
        "math",
        "msgspec",
        "operator",
        "posixpath",
        "re",
        "shlex",
    ),
    *(
        "statistics",
        "string",
        "struct",
        "textwrap",
        "tomllib",
        "types",
        "typing",
        "unicodedata",
        "urllib.parse",
    ),
    "zlib",
}
PURE_NAMES = {("pathlib", "PurePath"), ("pathlib", "PurePosixPath"), ("uuid", "UUID")}
CLOCKS = {"now", "utcnow", "today"}
IMPURE_BUILTINS = {"open", "input", "print", "__import__", "eval", "exec"}

ENVIRONMENT = {"environ", "environb", "getenv", "getenvb", "putenv", "unsetenv"}
PROCESS_MODULES = {"subprocess", "multiprocessing", "pty"}
OS_PROCESSES = {
    *("system", "popen", "fork", "forkpty", "posix_spawn", "posix_spawnp"),
    *(f"{verb}{how}" for verb in ("exec", "spawn") for how in ("l", "le", "lp", "lpe", "v", "ve", "vp", "vpe")),
}
OTHER_PROCESSES = {
    *("create_subprocess_exec", "create_subprocess_shell", "subprocess_exec", "subprocess_shell"),
    "ProcessPoolExecutor",
}

Rule = Callable[[Source], Iterator[str]]


def direction(source: Source) -> Iterator[str]:
    for module in source:
        if module.unit not in MAY_IMPORT:
            why = f"{module.unit!r} has no place in the drawing; move it, or add it to MAY_IMPORT in {__file__}"
            yield module.violation(1, why)
            continue
        allowed = MAY_IMPORT[module.unit] | {module.unit, "_version"}
        if module.name.startswith(f"{PACKAGE}.cli.demo"):
            allowed = allowed | {"testing"}
        for found in source.imports(module):
            unit = unit_of(found.target)
            if found.ours and unit not in allowed:
                only = ", ".join(sorted(allowed - {""}))
                what = f"{module.unit or PACKAGE} imports {found.target}; it may import only {only}"
                yield module.violation(found.line, f"{what}: pass it in, or move this code up a layer")


def faces_stand_alone(source: Source) -> Iterator[str]:
    for module in source:
        if module.unit != "faces":
            continue
        face = module.name.split(".")[:3]
        for found in source.imports(module):
            other = found.target.split(".")[:3]
            if unit_of(found.target) == "faces" and len(other) > 2 and len(face) > 2 and other != face:
                what = f"face {face[2]} imports face {other[2]}; siblings share through the public API only"
                yield module.violation(found.line, what)


def domain_is_pure(source: Source) -> Iterator[str]:
    for module in source:
        if module.unit != "domain":
            continue
        for found in source.imports(module):
            named = {found.target, found.target.split(".")[0]}
            if not (found.ours or named & PURE or (found.target, found.what) in PURE_NAMES):
                what = f"domain imports {found.target}; only computing modules (PURE) and msgspec are allowed"
                yield module.violation(found.line, f"{what}: do this in a driver and pass the result in")
        for node in ast.walk(module.tree):
            if (impure := impurity(node)) is not None:
                yield module.violation(getattr(node, "lineno", 1), f"domain uses {impure}: pass the result in")


def impurity(node: ast.AST) -> str | None:
    match node:
        case ast.AsyncFunctionDef() | ast.AsyncFor() | ast.AsyncWith() | ast.Await():
            return "async"
        case ast.Call(func=ast.Name(id=name)) if name in IMPURE_BUILTINS:
            return f"{name}()"
        case ast.Attribute(attr=clock, value=owner) if clock in CLOCKS:
            return f"the clock ({dotted(node)})" if dotted(owner).split(".")[-1] in {"datetime", "date"} else None
        case _:
            return None


def is_agent(module: Module) -> bool:
    """A scripted agent is a program: like a real one it reads its environment and starts commands."""
    return module.name.startswith(f"{PACKAGE}.testing.scripted_")


def environment_has_one_reader(source: Source) -> Iterator[str]:
    for module in source:
        if module.unit == "config" or is_agent(module):
            continue
        imports = source.imports(module)
        lines = [item.line for item in imports if item.target == "os" and item.what in ENVIRONMENT]
        lines += [node.lineno for node in attributes(module) if of_os(node, ENVIRONMENT)]
        for line in lines:
            yield module.violation(line, "reads the environment; only config.py does: take the value from there")


def processes_have_one_door(source: Source) -> Iterator[str]:
    for module in source:
        if module.unit in {"spawn", "guard"} or is_agent(module):
            continue
        found = [(item.line, f"{item.target} {item.what}") for item in source.imports(module) if starts_process(item)]
        found += [
            (node.lineno, dotted(node) or node.attr)
            for node in attributes(module)
            if of_os(node, OS_PROCESSES) or node.attr in OTHER_PROCESSES
        ]
        for line, what in found:
            why = f"starts processes ({what.strip()}); only spawn.py and guard.py do: call spawn"
            yield module.violation(line, why)


def starts_process(item: Import) -> bool:
    if item.target == "os":
        return item.what in OS_PROCESSES
    return item.target.split(".")[0] in PROCESS_MODULES or item.what in OTHER_PROCESSES


def git_has_one_door(source: Source) -> Iterator[str]:
    for module in source:
        if module.unit == "git" or is_agent(module):
            continue
        for node in ast.walk(module.tree):
            match node:
                case ast.List(elts=[first, *_]) | ast.Tuple(elts=[first, _, *_]) if is_git(first):
                    pass
                case ast.Call(func=function, args=[first, *_]) if is_git(first) and starts_program(function):
                    pass
                case _:
                    continue
            yield module.violation(node.lineno, "invokes git; only git.py does: add what is missing there")


def is_git(node: ast.expr) -> bool:
    return isinstance(node, ast.Constant) and node.value == "git"


def starts_program(function: ast.expr) -> bool:
    parts = dotted(function).split(".")
    return "spawn" in parts or parts[-1] in {"which", "run", "start", "Popen"}


def attributes(module: Module) -> list[ast.Attribute]:
    return [node for node in ast.walk(module.tree) if isinstance(node, ast.Attribute)]


def of_os(node: ast.Attribute, names: set[str]) -> bool:
    return node.attr in names and dotted(node.value) in {"os", "posix"}


def no_cycles(source: Source) -> Iterator[str]:
    graph = {
        module.name: {
            found.target
            for found in source.imports(module)
            if found.target in source.modules and not found.lazy and found.target != module.name
        }
        for module in source
    }
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        knot: list[str] = error.args[1]
        path = " <- ".join(knot)
        yield source.modules[knot[0]].violation(1, f"import cycle: {path}; move what both need into a third module")


def imports_are_plain(source: Source) -> Iterator[str]:
    for module in source:
        hidden = [node.lineno for node in attributes(module) if node.attr == "TYPE_CHECKING"]
        for item in source.imports(module):
            if item.what == "*":
                yield module.violation(item.line, f"imports * from {item.target}; nobody can see what: name it")
            if item.what == "TYPE_CHECKING":
                hidden.append(item.line)
        for line in hidden:
            why = "TYPE_CHECKING hides an import knot: move what both sides need down a layer"
            yield module.violation(line, why)


RULES: list[Rule] = [
    direction,
    faces_stand_alone,
    domain_is_pure,
    environment_has_one_reader,
    processes_have_one_door,
    git_has_one_door,
    no_cycles,
    imports_are_plain,
]


@pytest.fixture(scope="module")
def source() -> Source:
    return load(SRC)


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.__name__)
def test_the_package_keeps(rule: Rule, source: Source) -> None:
    refuse(rule(source))


# Each rule must be seen to fail: the rule, the file that breaks it, its text, and what the message must name.
BROKEN: list[tuple[Rule, str, str, str]] = [
    (
        direction,
        "agents/codex.py",
        "from shopfloor.stores.memory import MemoryStore",
        "shopfloor.stores.memory",
    ),
    (direction, "agents/codex.py", "from ..engine import loop", "shopfloor.engine"),
    (direction, "engine/loop.py", "import shopfloor.spawn", "shopfloor.spawn"),
    (direction, "engine/loop.py", "def late():\n    from shopfloor import git", "git"),
    (direction, "domain/order.py", "from shopfloor import ports", "ports"),
    (direction, "domain/order.py", "from .. import ports", "shopfloor.ports"),
    (direction, "ports.py", "from shopfloor.git import Git", "shopfloor.git"),
    (direction, "cli/run.py", "from shopfloor.agents import codex", "shopfloor.agents.codex"),
    (direction, "cli/run.py", "from shopfloor.engine import loop", "shopfloor.engine"),
    (direction, "cli/run.py", "LAZY = 'shopfloor.agents.codex:Codex'", "shopfloor.agents.codex"),
    (direction, "faces/brain.py", "from shopfloor.app import Shopfloor", "shopfloor.app"),
    (direction, "faces/brain.py", "from shopfloor import agents", "shopfloor.agents"),
    (direction, "app.py", "from shopfloor.testing import clock", "shopfloor.testing"),
    (direction, "cli/run.py", "from shopfloor.testing import clock", "shopfloor.testing"),
    (direction, "utils.py", "", "no place in the drawing"),
    (faces_stand_alone, "faces/brain.py", "from shopfloor.faces import fanout", "face fanout"),
    (faces_stand_alone, "faces/brain.py", "from .fanout import Fanout", "face fanout"),
    (domain_is_pure, "domain/order.py", "import os", "imports os"),
    (domain_is_pure, "domain/order.py", "import urllib.request", "imports urllib.request"),
    (domain_is_pure, "domain/order.py", "from pathlib import Path", "imports pathlib"),
    (domain_is_pure, "domain/order.py", "from random import random", "imports random"),
    (domain_is_pure, "domain/order.py", "import click", "imports click"),
    (domain_is_pure, "domain/order.py", "async def decide(): ...", "async"),
    (domain_is_pure, "domain/order.py", "from datetime import datetime\ndatetime.now()", "datetime.now"),
    (domain_is_pure, "domain/order.py", "import datetime\ndatetime.date.today()", "datetime.date.today"),
    (domain_is_pure, "domain/order.py", "open('x')", "open()"),
    (environment_has_one_reader, "spawn.py", "import os\nos.environ['HOME']", "environment"),
    (environment_has_one_reader, "app.py", "from os import getenv", "environment"),
    (environment_has_one_reader, "testing/clock.py", "import os\nos.getenv('HOME')", "environment"),
    (processes_have_one_door, "git.py", "import subprocess", "subprocess"),
    (processes_have_one_door, "testing/clock.py", "from subprocess import run", "subprocess"),
    (processes_have_one_door, "agents/codex.py", "import os\nos.fork()", "os.fork"),
    (processes_have_one_door, "agents/codex.py", "from os import execv", "execv"),
    (
        processes_have_one_door,
        "runners/local.py",
        "import asyncio\nasyncio.create_subprocess_exec('x')",
        "create",
    ),
    (
        processes_have_one_door,
        "runners/local.py",
        "from concurrent.futures import ProcessPoolExecutor",
        "Pool",
    ),
    (git_has_one_door, "landers/merge.py", "command = ['git', 'merge']", "invokes git"),
    (
        git_has_one_door,
        "landers/merge.py",
        "from shopfloor import spawn\nspawn.run('git', 'merge')",
        "invokes git",
    ),
    (no_cycles, "domain/order.py", "from shopfloor.domain import plan", "shopfloor.domain.plan"),
    (no_cycles, "domain/order.py", "def late():\n    from .plan import Plan", "shopfloor.domain.plan"),
    (imports_are_plain, "engine/loop.py", "from math import *", "imports *"),
    (imports_are_plain, "engine/loop.py", "from typing import TYPE_CHECKING", "TYPE_CHECKING"),
    (imports_are_plain, "engine/loop.py", "import typing\nif typing.TYPE_CHECKING: ...", "TYPE_CHECKING"),
]

SOUND = {
    "__init__.py": "",
    "domain/plan.py": "from datetime import datetime\nfrom shopfloor.domain import order\n",
    "domain/order.py": "import msgspec\nfrom pathlib import PurePosixPath\n",
    "ports.py": "from shopfloor.domain.order import Order\n",
    "spawn.py": "import os, subprocess\nos.fork()\n",
    "git.py": "from shopfloor import spawn\nspawn.run(['git', 'status'])\n",
    "config.py": "import os\nos.environ['HOME']\n",
    "agents/__init__.py": "",
    "agents/codex.py": "from shopfloor import spawn, ports\n",
    "engine/loop.py": "from shopfloor import ports\nfrom shopfloor.domain import plan\n",
    "app.py": "DRIVERS = {'codex': 'shopfloor.agents.codex:Codex'}\nfrom shopfloor.engine import loop\n",
    "testing/clock.py": "",
    "testing/scripted_agent.py": "import os, subprocess\nsubprocess.run(['git', os.environ['X']])\n",
    "cli/demo.py": "from shopfloor.testing import clock\n",
    "faces/fanout.py": "from shopfloor import Shopfloor\n",
}


def test_a_sound_tree_breaks_no_rule(tmp_path: Path) -> None:
    source = load(write_tree(tmp_path, SOUND))
    assert [violation for rule in RULES for violation in rule(source)] == []


@pytest.mark.parametrize(("rule", "file", "text", "named"), BROKEN)
def test_a_broken_rule_is_named(rule: Rule, file: str, text: str, named: str, tmp_path: Path) -> None:
    violations = list(rule(load(write_tree(tmp_path, SOUND | {file: text}))))
    assert len(violations) == 1, violations
    line = 1 + text.count("\n")
    if rule is not no_cycles:
        assert violations[0].startswith(f"{tmp_path.name}/{PACKAGE}/{file}:{line}: ")
    assert named in violations[0]


def test_names_for_other_programs_are_thin() -> None:
    """What stands beside the package, so that programs written for another system find it, only passes on a face."""
    for folder in (path for path in SRC.iterdir() if path.is_dir() and path.name != PACKAGE):
        for file in folder.rglob("*.py"):
            tree = ast.parse(file.read_text(encoding="utf-8"))
            found = [node.module for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)]
            assert not [node for node in ast.walk(tree) if isinstance(node, ast.Import)], file
            assert all(str(name).startswith((folder.name, f"{PACKAGE}.faces.")) for name in found), (file, found)
