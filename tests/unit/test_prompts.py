"""Prompt files: what they say is taken as it is, and every problem of every file is told at once."""

import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shopfloor.domain.errors import UsageError
from shopfloor.domain.order import Deliverable
from shopfloor.prompts import KEYS, LARGEST_BYTES, PromptOrder, order_from_text, read_prompts
from shopfloor.prompts.frontmatter import parse, split


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def files(**texts: str) -> list[str]:
    for name, text in texts.items():
        Path(f"{name}.md").write_text(text, encoding="utf-8", newline="")
    return [f"{name}.md" for name in texts]


def one(text: str) -> PromptOrder:
    (order,) = read_prompts(files(a=text))
    return order


def problems(*paths: str, agents: list[str] | None = None) -> list[str]:
    with pytest.raises(UsageError) as caught:
        read_prompts(paths, agents=agents)
    first, *rest = caught.value.message.splitlines()
    assert "nothing was started" in first
    return [line.strip() for line in rest]


def test_a_plain_file() -> None:
    assert one("do this\n") == PromptOrder(name="a", title="a", instruction="do this\n", source="a.md")


def test_everything_in_front_matter() -> None:
    (order, _, _) = read_prompts(
        files(
            a="""---
# what it is
title: "Fix: the \\"parser\\""   # quoted
depends_on:
  - b
  - ./c.md
files: [src/x.py, './docs//a b']
checks: make test # fast
priority: P1
agent: claude
timeout: 1h30m
allow_no_changes: true
deliverable: answer
type: bug
---
# Not this
text
""",
            b="b",
            c="c",
        )
    )
    assert order == PromptOrder(
        name="a",
        title='Fix: the "parser"',
        instruction="# Not this\ntext\n",
        deliverable=Deliverable.ANSWER,
        depends_on=("b", "c"),
        files=("src/x.py", "docs/a b"),
        checks=("make test",),
        priority=1,
        agent="claude",
        timeout_s=5400.0,
        allow_no_changes=True,
        issue_type="bug",
        source="a.md",
    )


def test_every_key_is_known_to_the_test_above() -> None:
    assert set(KEYS) == {
        *("title", "depends_on", "files", "checks", "priority", "agent", "timeout", "budget"),
        *("allow_no_changes", "deliverable", "type"),
    }


@pytest.mark.parametrize(
    ("text", "title"),
    [
        ("# One\n# Two", "One"),
        ("text\n\n# Later #\n", "Later"),
        ("## Second\n# First", "First"),
        ("```sh\n# a comment\n```\n# Real", "Real"),
        ("~~~\n```\n# no\n~~~\n# Real", "Real"),
        ("#tag\ntext", "a"),
        ("# \ntext", "a"),
        ("---\ntitle: Mine\n---\n# Other", "Mine"),
        ("# Bell\x07 \u202ehidden", "Bell\ufffd \ufffdhidden"),
        ("\ufeff# With a mark", "With a mark"),
    ],
)
def test_titles(text: str, title: str) -> None:
    assert one(text).title == title


@pytest.mark.parametrize(
    ("text", "number"),
    [("critical", 0), ("HIGH", 1), ("medium", 2), ("low", 3), ("backlog", 4), ("0", 0), ("'4'", 4), ("p3", 3)],
)
def test_priorities(text: str, number: int) -> None:
    assert one(f"---\npriority: {text}\n---\nx").priority == number


def test_windows_line_ends() -> None:
    order = one("---\r\ntitle: T\r\nchecks:\r\n- a\r\n- b\r\n---\r\nbody\r\n")
    assert (order.title, order.checks, order.instruction) == ("T", ("a", "b"), "body\r\n")


def test_a_rule_later_in_the_text_is_no_front_matter() -> None:
    assert one("text\n---\nmore\n---\n").instruction == "text\n---\nmore\n---\n"


def test_names_are_kept_unique() -> None:
    for name in ("Fix It!.md", "fix-it.md", "\u6570\u636e.md"):
        Path(name).write_text("text")
    orders = read_prompts(["Fix It!.md", "fix-it.md", "\u6570\u636e.md"])
    assert [order.name for order in orders] == ["fix-it", "fix-it-2", "order"]


def test_two_files_of_one_name_are_refused_and_both_are_named() -> None:
    for folder in ("x", "y"):
        Path(folder).mkdir()
        Path(folder, "fix.md").write_text("text")
    with pytest.raises(UsageError, match=r"y/fix\.md: has the same name as x/fix\.md: rename one"):
        read_prompts(["x/fix.md", "y/fix.md"])


@pytest.mark.parametrize("word", ["b", "B", "b.md", "./b.md", "'b'"])
def test_a_dependency_by_any_of_its_names(word: str) -> None:
    first, _ = read_prompts(files(a=f"---\ndepends_on: {word}\n---\nx", b="b"))
    assert first.depends_on == ("b",)


def test_a_dependency_on_an_order_that_is_there_already() -> None:
    (order,) = read_prompts(files(a="---\ndepends_on: [wo-abc12, wo-abc12]\n---\nx"), known=["wo-abc12"])
    assert order.depends_on == ("wo-abc12",)


@pytest.mark.parametrize(
    ("line", "told"),
    [
        ("depend_on: b", "no key 'depend_on'; did you mean 'depends_on'?"),
        ("depends_on: a", "waits for itself"),
        ("depends_on: nothing", "waits for 'nothing', which is not there"),
        ("priority: urgent", "priority = 'urgent': it must be 0 to 4"),
        ("priority: 5", "priority = '5'"),
        ("priority: [1]", "one value, not a list"),
        ("timeout: soon", "a duration"),
        ("timeout: 0", "a duration"),
        ("allow_no_changes: yes", "true or false"),
        ("deliverable: chnage", "did you mean 'change'?"),
        ("type: bugg", "did you mean 'bug'?"),
        ("files: ../x", "inside it"),
        ("files: [/etc/passwd]", "inside it"),
        ('files: ["a\\nb"]', "one line of text"),
        ("checks: []", ""),
        ("checks:", "checks has no value"),
        ("title: {a: b}", "a table in braces"),
        ("title: |", "a block of text"),
        ("title: &x y", "an anchor"),
        ("title: *x", "a reference"),
        ("title: !!str x", "a tag"),
        ("title: 'open", "not closed"),
        ("title: 'a' b", "behind its quotes"),
        ('title: "\\q"', "a backslash that means nothing"),
        ("title: ''", "a text that is not empty"),
        ("files: [a, [b]]", "is not closed, or has a list"),
        ("files: [a,, b]", "an empty item"),
        ("files: [a] b", "stands behind the list"),
        ("files: [a", "is not closed"),
        ("just words", "is not 'key: value'"),
        ("  indented: x", "is indented"),
        ("- item", "is not 'key: value'"),
        ("title: a\ntitle: b", "title is there twice"),
        ("agent: claud", "did you mean 'claude'?"),
    ],
)
def test_a_line_that_is_off_is_named(line: str, told: str) -> None:
    paths = files(a=f"---\n{line}\n---\ntext")
    if not told:
        assert read_prompts(paths)
        return
    found = problems(*paths, agents=["claude"])
    number = 2 + line.count("\n")
    assert [problem for problem in found if problem.startswith(f"a.md:{number}: ") and told in problem], found


def test_all_problems_of_all_files_in_order() -> None:
    paths = files(
        good="x", a="---\nprioritty: 1\ntimeout: x\n---\n", b="---\ntitle: x\n", c="---\ndepends_on: [goood, c]\n---\nx"
    )
    Path("latin.md").write_bytes(b"caf\xe9")
    Path("folder").mkdir()
    os.mkfifo("pipe.md")
    Path("big.md").write_bytes(b"x" * (LARGEST_BYTES + 1))
    Path("empty.md").write_text(" \n\n")
    odd = ["latin.md", "folder", "god.md", "pipe.md", "big.md", "empty.md", "./good.md", "bad\nname.md", "nul\0.md"]
    found = problems(*paths, *odd)
    expected = [
        "a.md:2: there is no key 'prioritty'; did you mean 'priority'?",
        "a.md:3: timeout = 'x'",
        "a.md:5: is empty",
        "b.md:1: the front matter is not closed",
        "c.md:2: waits for 'goood', which is not there; did you mean 'good'?",
        "c.md:2: waits for itself ('c')",
        "latin.md: is not UTF-8: byte 3 is 0xe9",
        "folder: is a folder",
        "god.md: there is no such file; did you mean 'good.md'?",
        "pipe.md: is not a regular file",
        "big.md: has 10000001 bytes",
        "empty.md:3: is empty",
        "'bad\\nname.md': the name contains a control character",
        "'nul\\x00.md': the name contains a control character",
        "./good.md: is given twice (as good.md before)",
    ]
    assert len(found) == len(expected)
    for line, beginning in zip(found, expected, strict=True):
        assert line.startswith(beginning)


def test_an_unreadable_file_is_named(tmp_path: Path) -> None:
    Path("loop.md").symlink_to("loop.md")
    assert problems("loop.md") == ["loop.md: cannot be read: too many levels of symbolic links"]


def test_a_name_that_may_be_two_files_is_not_guessed() -> None:
    for folder in ("x", "y"):
        Path(folder).mkdir()
        Path(folder, "a.md").write_text("text")
    _, problem = problems("x/a.md", "y/a.md", *files(b="---\ndepends_on: a.md\n---\nx"))
    assert "may be x/a.md, y/a.md; write the path" in problem


def test_no_file_is_refused() -> None:
    with pytest.raises(UsageError, match="no prompt file"):
        read_prompts([])


def test_a_text() -> None:
    order = order_from_text("---\npriority: high\n---\n# Say hello\nplease")
    assert (order.name, order.title, order.priority, order.source) == ("say-hello", "Say hello", 1, "")
    assert order_from_text("fix the parser\nnow").title == "fix the parser"
    assert order_from_text("x", name="Mine").name == "mine"


@pytest.mark.parametrize("text", ["", "  \n", "---\ntitle: x\n", "---\nx: y\n---\nz"])
def test_a_text_that_is_off(text: str) -> None:
    with pytest.raises(UsageError, match=r"^text:\d"):
        order_from_text(text)


def test_splitting_does_not_change_the_text() -> None:
    text = "a\x0b\x0c\x1c\x85\u2028---\n---\n"
    assert split(text) == ([], text)


@given(st.binary(max_size=200))
def test_any_bytes_are_an_order_or_refused(data: bytes) -> None:
    Path("any.md").write_bytes(data)
    try:
        (order,) = read_prompts(["any.md"])
    except UsageError as error:
        assert "any.md" in error.message  # noqa: PT017 - both outcomes are right
    else:
        assert order.instruction.strip()
        assert data.decode().endswith(order.instruction)


LINES = st.lists(
    st.text("ab:#-[],'\"\\ \t&*!|>{}~.0", max_size=16)
    | st.sampled_from(["depends_on:", "- a", "files: [a, b]", "title: x", "priority: 1", "checks:"]),
    max_size=6,
)


@given(LINES)
def test_any_front_matter_is_read_or_refused(lines: list[str]) -> None:
    entries, off = parse(lines)
    assert all(2 <= line < 2 + len(lines) for line, _ in off)
    text = "\n".join(lines)
    for entry in entries:
        assert entry.key in text
        for value in entry.value if isinstance(entry.value, list) else [entry.value]:
            assert all(character in text or character in "\n\t\b\f\r" for character in value), "it was invented"


@given(st.text(min_size=1, max_size=30).filter(lambda text: text.isprintable() and text.strip()))
def test_a_quoted_value_is_taken_as_it_is(text: str) -> None:
    single = text.replace("'", "''")
    (entry, other), off = parse([f"a: '{single}'  # comment", f"b: ['{single}', \"x\"]"])
    assert not off
    assert (entry.value, other.value) == (text, [text, "x"])
