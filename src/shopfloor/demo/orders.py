"""The demonstration's orders: what people would write, with the script that the scripted agent follows."""

from __future__ import annotations

SLUGIFY = '''import re


def slugify(text):
    """Lower case, words joined by dashes."""
    return "-".join(re.findall(r"[a-z0-9]+", text.lower()))
'''
WORD_COUNT = '''def word_count(text):
    """How many words a text has."""
    return len(text.split())
'''
TRUNCATE = '''def truncate(text, width):
    """At most `width` characters, with an ellipsis where something is missing."""
    return text if len(text) <= width else text[: width - 1] + "…"
'''
HEADLINE = '''from textkit.slugify import slugify


def headline(text):
    """Every word with a capital letter, without punctuation."""
    return " ".join(word.capitalize() for word in slugify(text).split("-"))
'''
SUMMARY = '''from textkit.truncate import truncate
from textkit.word_count import word_count


def summary(text, width):
    """The beginning of a text and how long it is in words."""
    return f"{truncate(text, width)} ({word_count(text)} words)"
'''
INITIALS = '''def initials(name):
    """The first letters of a name, in capitals."""
    return "".join(word[0].upper() for word in name.split())
'''
FAST_MEDIAN = '''def median(numbers):
    """The middle of the numbers, quickly."""
    return sorted(numbers)[len(numbers) // 2]
'''


def _order(title: str, wish: str, script: str, front: str = "") -> str:
    head = f"---\n{front.strip()}\n---\n" if front else ""
    return f"{head}# {title}\n\n{wish}\n\n```script\n{script.strip()}\n```\n"


def _write(name: str, code: str, wait_s: float = 0.8, more: str = "") -> str:
    return (
        f'[[do]]\nsay = "reading textkit/{name}.py"\n\n[[do]]\nwait_s = {wait_s}\n\n'
        f"[[do]]\nwrite = \"textkit/{name}.py\"\ncontent = '''\n{code}'''\n\n{more}"
    )


def _check(name: str) -> str:
    return f"checks: python3 -m unittest -q tests.test_{name}"


def prompts() -> dict[str, str]:
    """Prompt files by name."""
    line = '[[do]]\nwait_s = 1.0\n\n[[do]]\nappend = "CHANGELOG.md"\ncontent = "- {}\\n"\n'
    commit = '[[do]]\ncommit = "Write initials()"\n\n[[do]]\nrun = "python3 -m unittest -q tests.test_initials"\n'
    hang = (
        '[[do]]\nwrite = "textkit/notes.txt"\ncontent = "half of a thought\\n"\n\n'
        "[[do]]\nspawn_orphan = true\n\n[[do]]\nhang = true\nstubborn = true\n"
    )
    thanks = "One line in CHANGELOG.md, where the other order writes too."
    crashes = '[[do]]\nwait_s = 0.5\n\n[[do]]\ncrash_once = "first"\n\n'
    explains = '[[do]]\nwrite = "textkit/__init__.py"\ncontent = "# Small helpers for text.\\n"\n'
    change = "checks: test -s CHANGELOG.md"
    both = f"depends_on: [word-count, truncate]\n{_check('summary')}"
    return {
        "slugify": _order("Write slugify", wish("slugify"), _write("slugify", SLUGIFY), _check("slugify")),
        "word-count": _order(
            "Write word_count", wish("word_count"), _write("word_count", WORD_COUNT, 1.0), _check("word_count")
        ),
        "truncate": _order(
            "Write truncate", wish("truncate"), _write("truncate", TRUNCATE, 1.2), _check("truncate")
        ),
        "headline": _order(
            "Write headline on top of slugify", "Use `slugify`; it has landed when you begin.",
            _write("headline", HEADLINE), f"depends_on: slugify\n{_check('headline')}",
        ),
        "summary": _order("Write summary", "Use `truncate` and `word_count`.", _write("summary", SUMMARY), both),
        "initials": _order(
            "Write initials, in commits of its own", "Commit as you go.", _write("initials", INITIALS, 0.6, commit),
            _check("initials"),
        ),
        "changelog-added": _order(
            "Tell about the new functions", "One line in CHANGELOG.md.", line.format("New: slugify."), change
        ),
        "changelog-thanks": _order(
            "Thank the contributors", thanks, line.format("Thanks to everybody who sent a patch."), change
        ),
        "crashes-once": _order(
            "Explain the package (its agent crashes the first time)", "Say what textkit is for.", crashes + explains,
            "checks: test -s textkit/__init__.py",
        ),
        "faster-median": _order(
            "Make median faster (and wrong)", "Nobody needs the mean of two middles.", _write("median", FAST_MEDIAN),
            _check("median"),
        ),
        "hangs": _order(
            "Think about it for ever", "The agent hangs, with a child in a session of its own.", hang,
            "timeout: 4s\nchecks: test -s textkit/notes.txt",
        ),
        "needs-the-hanging-one": _order(
            "Use what never comes", "Build on the order that hangs.", '[[do]]\nsay = "never reached"\n',
            "depends_on: hangs\nchecks: test -s README.md",
        ),
        "lazy": _order(
            "Tidy up (its agent does nothing)", "Remove what nobody uses.",
            "[[do]]\nwait_s = 0.4\n\n[[do]]\nnothing = true\n", "checks: test -s README.md",
        ),
    }  # fmt: skip


def wish(name: str) -> str:
    """What is wanted of a function of the sample project."""
    return f"Make `textkit.{name}` do what its test says."


EXPECTED = {
    "landed": {
        "slugify", "word-count", "truncate", "headline", "summary", "initials", "changelog-added", "changelog-thanks",
        "crashes-once",
    },
    "failed": {"faster-median", "hangs", "needs-the-hanging-one", "lazy"},
}  # fmt: skip
"""What the demonstration must come to, whatever the machine's speed."""
