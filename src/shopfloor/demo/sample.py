"""The sample project: a little text library, half of it not written yet, with the tests that say so."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from shopfloor import git, spawn

CHECK = "python3 -m unittest -q"
FLAGS: dict[str, object] = {"agent": "scripted", "check": CHECK, "max_parallel": 4, "rework": 1, "load_per_core": 100.0}
"""The settings of the demonstration; it is short, so a busy machine shall not slow it down further."""

_MODULES = ("slugify", "word_count", "truncate", "headline", "summary", "initials")

_TESTS = {
    "slugify": 'self.assertEqual(slugify("Hello, World!"), "hello-world")',
    "word_count": 'self.assertEqual(word_count("one two  three"), 3)',
    "truncate": 'self.assertEqual(truncate("abcdef", 4), "abc…")',
    "headline": 'self.assertEqual(headline("hello, world!"), "Hello World")',
    "summary": 'self.assertEqual(summary("one two three four", 9), "one two … (4 words)")',
    "initials": 'self.assertEqual(initials("grace brewster hopper"), "GBH")',
}

_MEDIAN = '''def median(numbers):
    """The middle of the numbers; of two middles their mean."""
    ordered = sorted(numbers)
    half = len(ordered) // 2
    if len(ordered) % 2:
        return ordered[half]
    return (ordered[half - 1] + ordered[half]) / 2
'''

_MEDIAN_TEST = """import unittest

from textkit.median import median


class MedianTest(unittest.TestCase):
    def test_odd(self):
        self.assertEqual(median([3, 1, 2]), 2)

    def test_even(self):
        self.assertEqual(median([4, 1, 3, 2]), 2.5)
"""


def _module(name: str) -> str:
    return f'def {name}(*args):\n    """Not written yet."""\n    raise NotImplementedError("{name}")\n'


def _test(name: str) -> str:
    return (
        f"import unittest\n\nfrom textkit.{name} import {name}\n\n\n"
        f"class {name.title().replace('_', '')}Test(unittest.TestCase):\n"
        f"    def test_{name}(self):\n        {_TESTS[name]}\n"
    )


def files() -> dict[str, str]:
    """Every file of the sample project by path."""
    found = {
        "README.md": "# textkit\n\nSmall helpers for text.\n",
        "CHANGELOG.md": "# Changes\n\n- The project begins.\n",
        ".gitignore": "__pycache__/\n",
        "textkit/__init__.py": "",
        "textkit/median.py": _MEDIAN,
        "tests/__init__.py": "",
        "tests/test_median.py": _MEDIAN_TEST,
    }
    for name in _MODULES:
        found[f"textkit/{name}.py"] = _module(name)
        found[f"tests/test_{name}.py"] = _test(name)
    return found


def test(root: Path, env: Mapping[str, str]) -> str:
    """The end of the project's own tests' output when they fail in the user's checkout; empty when they pass."""
    done = spawn.run(["sh", "-c", CHECK], cwd=root, env=env, timeout_s=60)
    return done.stderr.decode(errors="replace")[-500:] if done.code else ""


def make(folder: Path, prompts: Mapping[str, str], env: Mapping[str, str]) -> Path:
    """Write the project and its prompt files into an empty folder and commit the project; returns the repository."""
    root = folder / "textkit"
    for path, text in files().items():
        place = root / path
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_text(text)
    work = git.Git(root, base_env=env)
    work.call("init", "-q", "-b", "main")
    work.call("add", "-A")
    work.call("commit", "-q", "-m", "textkit: half of it is not written yet")
    for name, text in prompts.items():
        place = root / "prompts" / f"{name}.md"
        place.parent.mkdir(exist_ok=True)
        place.write_text(text)
    return root
