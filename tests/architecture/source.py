"""A package's source as data: its modules, what each imports, and the words of a violation."""

import ast
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import pytest

PACKAGE = "shopfloor"
REPOSITORY = Path(__file__).resolve().parents[2]
SRC = REPOSITORY / "src"
# A whole string that names a module is an import in waiting: a lazy command, a registry entry, `python -m`.
LAZY = re.compile(rf"{PACKAGE}(?:\.\w+)+(?::\w+)?")


@dataclass(frozen=True)
class Module:
    name: str
    path: Path
    tree: ast.Module
    lines: int

    @property
    def unit(self) -> str:
        """The box of the drawing it is in: `agents` for shopfloor.agents.codex, empty for the package."""
        return unit_of(self.name)

    def violation(self, line: int, what: str) -> str:
        return f"{self.path}:{line}: {what}"


@dataclass(frozen=True)
class Import:
    """`what` is the name taken from the module `target`, empty when it is the module itself."""

    target: str
    what: str
    line: int
    lazy: bool = False

    @property
    def ours(self) -> bool:
        return self.target.split(".")[0] == PACKAGE


@dataclass(frozen=True)
class Source:
    modules: dict[str, Module]

    def __iter__(self) -> Iterator[Module]:
        return iter(self.modules.values())

    def imports(self, module: Module) -> list[Import]:
        return [found for node in ast.walk(module.tree) for found in self._imports_of(node, module)]

    def _imports_of(self, node: ast.AST, module: Module) -> Iterator[Import]:
        match node:
            case ast.Import():
                for alias in node.names:
                    yield Import(alias.name, "", node.lineno)
            case ast.ImportFrom():
                base = absolute(node, module)
                for alias in node.names:
                    submodule = f"{base}.{alias.name}"
                    if submodule in self.modules:
                        yield Import(submodule, "", node.lineno)
                    else:
                        yield Import(base, alias.name, node.lineno)
            case ast.Constant(value=str() as text) if LAZY.fullmatch(text):
                target, _, what = text.partition(":")
                if target in self.modules:
                    yield Import(target, what, node.lineno, lazy=True)
            case _:
                pass


def unit_of(name: str) -> str:
    return name.partition(".")[2].partition(".")[0]


def absolute(node: ast.ImportFrom, module: Module) -> str:
    """The full name behind `from ..x import y`."""
    if not node.level:
        return node.module or ""
    parts = module.name.split(".")
    package = parts if module.path.name == "__init__.py" else parts[:-1]
    base = package[: len(package) - node.level + 1]
    return ".".join([*base, node.module] if node.module else base)


@cache
def load(src: Path) -> Source:
    """Every module of the package under `src`; nobody changes what is given back, which many tests look at."""
    modules = {}
    for path in sorted((src / PACKAGE).rglob("*.py")):
        text = path.read_text(encoding="utf-8")
        name = ".".join(path.relative_to(src).with_suffix("").parts).removesuffix(".__init__")
        shown = path.relative_to(src.parent)
        try:
            tree = ast.parse(text, str(shown), feature_version=(3, 11))
        except SyntaxError as error:
            pytest.fail(f"{shown}:{error.lineno}: {error.msg}; Python 3.11 must understand it", pytrace=False)
        modules[name] = Module(name, shown, tree, len(text.splitlines()))
    return Source(modules)


def dotted(node: ast.AST) -> str:
    """`a.b.c` for the expression a.b.c, empty for anything else."""
    match node:
        case ast.Name():
            return node.id
        case ast.Attribute():
            before = dotted(node.value)
            return f"{before}.{node.attr}" if before else ""
        case _:
            return ""


def refuse(violations: Iterable[str]) -> None:
    """Fail with one line for each violation."""
    if found := sorted(violations):
        pytest.fail("\n".join(found), pytrace=False)


def write_tree(folder: Path, files: dict[str, str]) -> Path:
    """A small source tree for a test to break the rules in: paths are inside the package."""
    for name, text in files.items():
        path = folder / PACKAGE / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    return folder
