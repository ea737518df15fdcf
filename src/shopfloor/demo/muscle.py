"""The demonstration with the built-in worker: its model's answers come from a cassette, so no model is asked.

What the orders say is part of what the worker asks its model; after a change of them, of the worker's words, or of what
its tools answer, the cassette is made anew: ``python tools/cassette.py``.
"""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

from shopfloor.demo.orders import wish
from shopfloor.domain.errors import Refused

MODEL = "openai/gpt-5"
CASSETTE = Path(__file__).with_name("muscle.cassette")

FLAGS: dict[str, object] = {
    "agent": "muscle", "agents": {"muscle": {"driver": "muscle", "model": MODEL}}, "use_gateway": "always",
    "talk": "mcp", "max_parallel": 4, "rework": 1, "load_per_core": 100.0,
}  # fmt: skip
"""The settings, but for the cassette. There is no check for all orders: what one of them gets back as findings must not
depend on which others have landed by then."""

_EXTRAS = {"gateway": ("aiohttp", "genai_prices"), "muscle": ("pydantic_ai", "openai", "genai_prices")}


def require() -> None:
    """Raises Refused with what to install where an extra is missing."""
    missing = [extra for extra, names in _EXTRAS.items() if not all(map(find_spec, names))]
    if missing:
        what = f"the demonstration with the muscle needs more than the base of shopfloor: {' and '.join(missing)}"
        raise Refused(what, hint=f"type: pip install 'shopfloor[{','.join(missing)}]'")


def _order(title: str, text: str, *front: str) -> str:
    head = "".join(f"{line}\n" for line in front)
    return f"---\n{head}---\n# {title}\n\n{text}\n"


def _checked(name: str) -> str:
    """Its own test. What that prints stays out of the findings: each version of Python words it differently."""
    return f"checks: python3 -m unittest -q tests.test_{name} 2>/dev/null"


def prompts() -> dict[str, str]:
    """Prompt files by name, as people write them."""
    return {
        "slugify": _order("Write slugify", wish("slugify"), _checked("slugify")),
        "word-count": _order("Write word_count", wish("word_count"), _checked("word_count")),
        "truncate": _order(
            "Write truncate (the first try forgets the ellipsis)", wish("truncate"), _checked("truncate")
        ),
        "headline": _order(
            "Write headline on top of slugify", "Use `slugify`; it has landed when you begin.", "depends_on: slugify",
            _checked("headline"),
        ),
        "summary": _order(
            "Write summary", "Use `truncate` and `word_count`.", "depends_on: [word-count, truncate]",
            _checked("summary"),
        ),
        "initials": _order("Write initials, in a commit of its own", "Commit as you go.", _checked("initials")),
        "overloaded": _order(
            "Explain the package (its model is overloaded at first)", "Say in `textkit` what it is for.",
            "checks: test -s textkit/__init__.py",
        ),
        "faster-median": _order(
            "Make median faster (and wrong)", "Nobody needs the mean of two middles.", _checked("median")
        ),
        "hangs": _order(
            "Think about it for ever", "Write your thoughts down, then run a command that never ends.", "timeout: 12s",
            "checks: test -s textkit/notes.txt",
        ),
        "needs-the-hanging-one": _order(
            "Use what never comes", "Build on the order that hangs.", "depends_on: hangs", "checks: test -s README.md"
        ),
        "lazy": _order("Tidy up (there is nothing to tidy)", "Remove what nobody uses.", "checks: test -s README.md"),
    }  # fmt: skip


EXPECTED = {
    "landed": {"slugify", "word-count", "truncate", "headline", "summary", "initials", "overloaded"},
    "failed": {"faster-median", "hangs", "needs-the-hanging-one", "lazy"},
}
"""What it must come to, whatever the machine's speed."""
