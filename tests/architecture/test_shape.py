"""Modules and functions stay small, errors are caught at the edge, and importing the package does nothing."""

import ast
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from .source import PACKAGE, SRC, Source, dotted, load, refuse, write_tree

LINES_IN_A_FILE = 400
LINES_IN_A_FUNCTION = 60
BROAD_HANDLERS = 4
BROAD = {"Exception", "BaseException"}
# What `import shopfloor` may load: the version and what a lazy __getattr__ needs.
PLAIN_IMPORTS = {"__future__", "importlib", "typing", f"{PACKAGE}._version"}

Rule = Callable[[Source], Iterator[str]]


def files_are_short(source: Source) -> Iterator[str]:
    for module in source:
        if module.lines > LINES_IN_A_FILE:
            what = f"{module.lines} lines, at most {LINES_IN_A_FILE}: split it by what changes together"
            yield module.violation(1, what)


def functions_are_short(source: Source) -> Iterator[str]:
    for module in source:
        for node in ast.walk(module.tree):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                lines = (node.end_lineno or node.lineno) - node.lineno + 1
                if lines > LINES_IN_A_FUNCTION:
                    what = f"{node.name} has {lines} lines, at most {LINES_IN_A_FUNCTION}: name its steps"
                    yield module.violation(node.lineno, what)


def broad_handlers_are_few(source: Source) -> Iterator[str]:
    broad = [
        module.violation(node.lineno, f"broad handler, more than {BROAD_HANDLERS} in all: name the errors meant")
        for module in source
        for node in ast.walk(module.tree)
        if isinstance(node, ast.ExceptHandler | ast.Call) and catches_all(node)
    ]
    if len(broad) > BROAD_HANDLERS:
        yield from broad


def catches_all(node: ast.ExceptHandler | ast.Call) -> bool:
    match node:
        case ast.ExceptHandler(type=None):
            return True
        case ast.ExceptHandler(type=ast.Tuple(elts=caught)):
            pass
        case ast.ExceptHandler(type=ast.expr() as error):
            caught = [error]
        case ast.Call(func=function, args=caught) if dotted(function).split(".")[-1] == "suppress":
            pass
        case _:
            return False
    return any(dotted(error).split(".")[-1] in BROAD for error in caught)


def importing_does_nothing(source: Source) -> Iterator[str]:
    """The package's `__init__.py` holds constants, a lazy `__getattr__` and next to no imports."""
    root = source.modules.get(PACKAGE)
    if root is None:
        return
    for found in source.imports(root):
        if not found.lazy and found.target not in PLAIN_IMPORTS:
            yield root.violation(found.line, f"imports {found.target} at once; load it in __getattr__ by its name")
    for statement in root.tree.body:
        match statement:
            case ast.Import() | ast.ImportFrom() | ast.FunctionDef() | ast.Expr(value=ast.Constant()):
                works = False
            case ast.Assign(value=value) | ast.AnnAssign(value=value) if value is not None:
                works = any(isinstance(node, ast.Call | ast.Await) for node in ast.walk(value))
            case _:
                works = True
        if works:
            what = "works while it is imported; only names, constants and __getattr__ may stand here"
            yield root.violation(statement.lineno, what)


RULES: list[Rule] = [files_are_short, functions_are_short, broad_handlers_are_few, importing_does_nothing]


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.__name__)
def test_the_package_keeps(rule: Rule) -> None:
    refuse(rule(load(SRC)))


def test_importing_the_package_loads_nothing_else() -> None:
    show = f"import sys; before = set(sys.modules); import {PACKAGE}; print(*sorted(set(sys.modules) - before))"
    command = [sys.executable, "-I", "-c", show]
    loaded = subprocess.run(command, check=True, capture_output=True, text=True).stdout.split()
    ours = {name for name in loaded if name.startswith(f"{PACKAGE}.")}
    assert ours <= {f"{PACKAGE}._version"}
    assert not {"asyncio", "click", "msgspec", "psutil", "rich", "sqlite3"} & set(loaded)


HANDLERS = ["except:", "except Exception:", "except (OSError, BaseException):", "except builtins.Exception:"]
TRIES = [f"try: ...\n{handler} ..." for handler in HANDLERS]
SUPPRESS = "with contextlib.suppress(Exception): ..."

BROKEN: list[tuple[Rule, str, str, str]] = [
    (files_are_short, "app.py", "x = 1\n" * 401, "401 lines"),
    (functions_are_short, "app.py", "def f():\n" + "    x = 1\n" * 60, "f has 61 lines"),
    (functions_are_short, "app.py", "async def g():\n" + "    x = 1\n" * 60, "g has 61 lines"),
    (broad_handlers_are_few, "app.py", "\n".join([*TRIES, SUPPRESS]), "broad handler"),
    (importing_does_nothing, "__init__.py", "import asyncio", "imports asyncio"),
    (importing_does_nothing, "__init__.py", "from shopfloor.app import Shopfloor", "imports shopfloor.app"),
    (importing_does_nothing, "__init__.py", "print('hello')", "works while it is imported"),
    (importing_does_nothing, "__init__.py", "names = sorted([])", "works while it is imported"),
    (importing_does_nothing, "__init__.py", "if True: ...", "works while it is imported"),
]

SOUND = {
    "__init__.py": (
        '"""Words."""\nfrom shopfloor._version import __version__\n__all__ = ["App"]\n'
        'NAMES = {"App": "shopfloor.app:App"}\ndef __getattr__(name): ...\n'
    ),
    "_version.py": "__version__ = '0'\n",
    "app.py": "\n".join(TRIES) + "\nx = 1" * 390,
    "fast.py": "def f():\n" + "    x = 1\n" * 59,
}


def test_a_sound_tree_breaks_no_rule(tmp_path: Path) -> None:
    source = load(write_tree(tmp_path, SOUND))
    assert [violation for rule in RULES for violation in rule(source)] == []


@pytest.mark.parametrize(("rule", "file", "text", "named"), BROKEN)
def test_a_broken_rule_is_named(rule: Rule, file: str, text: str, named: str, tmp_path: Path) -> None:
    violations = list(rule(load(write_tree(tmp_path, {file: text}))))
    assert violations
    assert all(violation.startswith(f"{tmp_path.name}/{PACKAGE}/{file}:") for violation in violations)
    assert all(named in violation for violation in violations)
