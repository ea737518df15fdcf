"""Inputs that once broke a reader, or took it for ever: each is refused by name, or carried."""

from __future__ import annotations

import gc
import json
import re
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import msgspec
import pytest

from shopfloor import guard
from shopfloor.agents._lines import Line
from shopfloor.agents._tidy import TEXT_CHARS
from shopfloor.agents.jsonlines import EventReader
from shopfloor.cli.edge import escaped, harmless
from shopfloor.cli.lines import clock, line
from shopfloor.cli.log import render
from shopfloor.cli.tail import last_words
from shopfloor.config.load import load
from shopfloor.domain.board import Board
from shopfloor.domain.errors import UsageError
from shopfloor.domain.events import E, Event, read_time, stamp_time
from shopfloor.domain.fold import fold
from shopfloor.domain.names import one_line, printable
from shopfloor.domain.records import work_order
from shopfloor.git import output
from shopfloor.landers._repair import Journal
from shopfloor.masking import Masker
from shopfloor.prompts import MOST_PROBLEMS, order_from_text
from shopfloor.prompts.frontmatter import parse

A = "a" * 40
LINE = 200_000
"""Characters of a line that is long, and yet read in no time by whoever reads it once."""


def in_no_time(read: Callable[[], object]) -> None:
    # What a look for circles of references costs depends on all that other tests have left in this process.
    gc.disable()
    try:
        before = time.thread_time()
        read()
        took_s = time.thread_time() - before
    finally:
        gc.enable()
    assert took_s < 1.0


# -- times --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "text",
    ["0001-01-01T00:00:00+23:59", "9999-12-31T23:59:59-23:59", "9999-12-31T23:59:59Z", "1969-12-31T23:59:59Z"],
)
def test_a_time_that_cannot_be_written_back_is_none(text: str) -> None:
    assert read_time(text, 7.0) == 7.0
    strange = Event("e", E.CREATED, text, "somebody", None, {"work_order_id": "vm-1"})
    record = fold(None, strange)
    assert record is not None
    assert work_order(record)["created_at"] == stamp_time(0.0)


@pytest.mark.parametrize("when", [1e38, 999254740993, -1e300, float("nan"), float("inf")])
def test_a_time_of_day_that_there_is_not(when: float) -> None:
    assert clock(when) == "--:--:--"


# -- transcripts, which an agent can write to -------------------------------------------------------------------


@pytest.mark.parametrize(
    "line",
    [
        b'{"kind":{},"text":"x"}',
        b'{"kind":["text"],"text":"x","time":1e38}',
        b'{"kind":"text","text":"\\u001b]0;x\\u0007","time":"now"}',
        b'{"kind":"usage","cost_usd":1e308,"text":{}}',
        b"[" * LINE,
        b'{"a":' * LINE,
        b"\xff\xfe",
        b"null",
    ],
    ids=lambda line: line[:40],
)
def test_a_line_of_a_transcript_is_shown_or_left_out(line: bytes, tmp_path: Path) -> None:
    path = tmp_path / "transcript.jsonl"
    path.write_bytes(b'{"kind":"text","text":"before"}\n' + line + b"\n")
    assert "\x1b" not in render(line).replace("\x1b[0m", "")
    assert "\x1b" not in last_words(path)


# -- prompt files -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "head",
    [
        "a" + " " * LINE,
        "a: [" + " " * LINE,
        "a: [" + "[ " * LINE,
        "a: [" + "a " * LINE + "[",
        'a: "' + '\\"' * LINE,
        "a: '" + "''" * LINE,
        "a: x" + " #" * LINE,
        "a:\n" + "- b\n" * LINE,
        "a: [" + "b, " * LINE + "]",
        "".join(f"k{number}: b\n" for number in range(LINE)),
        "- " * LINE,
    ],
    ids=lambda head: head[:8],
)
def test_front_matter_is_read_once(head: str) -> None:
    in_no_time(lambda: parse(head.split("\n")))


@pytest.mark.parametrize(
    "text",
    [
        "# a" + " #" * LINE + "x",
        "# a" + " " * LINE + "x",
        "#" * LINE,
        "`" * LINE + "\n" + "~" * LINE,
        "".join(f"k{number}: b\n" for number in range(LINE)),
        "---\ndepends_on:\n" + "- nobody\n" * LINE + "---\nx",
        "---\n" + "".join(f"k{number}: b\n" for number in range(5000)) + "---\nx",
    ],
    ids=lambda text: text[:12],
)
def test_a_prompt_is_read_once(text: str) -> None:
    def read() -> None:
        with suppress(UsageError):
            order_from_text(text)

    in_no_time(read)


def test_there_may_be_more_problems_than_anybody_reads() -> None:
    head = "".join(f"key{number}: x\n" for number in range(MOST_PROBLEMS + 30))
    with pytest.raises(UsageError) as refused:
        order_from_text(f"---\n{head}{'- x' * 5}\n---\ngo\n")
    assert refused.value.message.count("\n") == MOST_PROBLEMS
    assert "text:2: there is no key 'key0'" in refused.value.message
    assert refused.value.message.endswith("text: mend these first, there may be more")


def test_half_of_a_character_is_refused_with_its_line() -> None:
    with pytest.raises(UsageError, match=r"text:2: has half of a character, U\+D800"):
        order_from_text("# Go\nto \ud800")


@pytest.mark.parametrize(
    ("text", "title"),
    [
        ("# a\tb\n", "a b"),
        ("# a #\n", "a"),
        ("# a ## \n", "a"),
        ("# a#\n", "a#"),
        ("# #\n", "#"),
        ("#a\n# b\n", "b"),
        ("    # a\n# b\n", "b"),
        ("# \n# b\n", "b"),
        ("# \u202ea\x1b[2J\n", "\ufffda\ufffd[2J"),
    ],
)
def test_a_title_is_one_safe_line(text: str, title: str) -> None:
    assert order_from_text(text + "go").title == title


@pytest.mark.parametrize(
    ("line", "value"),
    [
        ('k: [a, b c , \'d, e\', "f\\"]", ]', ["a", "b c", "d, e", 'f"]']),
        ("k: []  # none", []),
        ("k: [it's]", ["it's"]),
        ("k: ['a''b']", ["a'b"]),
        ("k : v", "v"),
        ("k: 'a: b' # c", "a: b"),
    ],
)
def test_front_matter_means_what_it_meant(line: str, value: object) -> None:
    (entry,), problems = parse([line])
    assert (entry.key, entry.value, problems) == ("k", value, [])


@pytest.mark.parametrize("line", ["k: [a", "k: [,a]", "k: [a,,b]", "k: [a [b]]", "k: ['a' b]", "k: [a] b", "k:v", ":"])
def test_what_is_no_front_matter_is_told(line: str) -> None:
    entries, [(number, what)] = parse([line])
    assert (entries, number, bool(what)) == ([], 2, True)


# -- settings -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "text",
    [
        "retries = " + "9" * 5000,
        "retries = 0x" + "f" * 5000,
        "caches = " + "[" * LINE,
        "\n" * 500_000 + "unknown = 1",
        '[agents."' + "x" * LINE + '"]\ncommand = "c"',
        '[agents.c]\n"' + "x" * LINE + '" = 1',
        '"\\u001b]0;x\\u0007" = 1',
        "x = 1\n" * 200_000,
    ],
    ids=lambda text: text[:12],
)
def test_settings_are_refused_by_name_and_in_no_time(text: str, tmp_path: Path) -> None:
    (tmp_path / ".shopfloor.toml").write_text(text)

    def read() -> None:
        with pytest.raises(UsageError, match=re.escape(str(tmp_path / ".shopfloor.toml"))) as refused:
            load(tmp_path, environment={})
        assert len(refused.value.message) < 5000
        assert printable(refused.value.message) == refused.value.message

    in_no_time(read)


def test_a_variable_that_is_no_toml_is_refused_by_name(tmp_path: Path) -> None:
    for text in ("9" * 5000, "[" * LINE):
        with pytest.raises(UsageError, match="SHOPFLOOR_CACHES"):
            load(tmp_path, environment={"SHOPFLOOR_CACHES": text})


# -- agents -------------------------------------------------------------------------------------------------------


def test_no_half_of_a_secret_is_kept_where_a_text_is_cut() -> None:
    secret = "s3cr3t-" * 4
    text = "x" * (TEXT_CHARS - 10) + secret
    line = json.dumps({"type": "thought", "data": {"content": text}}).encode()
    (report,) = EventReader(Masker((secret,))).heard("stdout", Line(line))
    assert "s3cr3t" not in report.text
    assert "s3cr3t" not in msgspec.json.encode(report.data).decode()


# -- git, the guard, journals -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("read", "printed"),
    [
        (output.refs, b"what\n"),
        (output.refs, f"{A} --upload-pack=x\n".encode()),
        (output.worktrees, b"HEAD x\0"),
        (output.worktrees, f"worktree /x\0HEAD {A}\0branch --help\0".encode()),
        (lambda raw: output.merge(raw, clean=True), b""),
        (lambda raw: output.merge(raw, clean=True), b"--help\0"),
        (output.differences, f":100644 100644 {A} {A}\0a\0".encode()),
        (output.differences, f":100644 100644 {A} {A} M\0".encode()),
        (lambda raw: list(output.status([raw.decode()])), b"1 M"),
        (lambda raw: list(output.status([raw.decode()])), b"2 R. N... x"),
        (lambda raw: list(output.status([raw.decode()])), b"?"),
    ],
)
def test_what_git_does_not_print_is_refused(read: Callable[[bytes], object], printed: bytes) -> None:
    with pytest.raises(output.Unreadable, match="is not understood"):
        read(printed)


def test_refs_may_hold_what_ends_a_line_elsewhere() -> None:
    names = ["refs/heads/a\u2028b", "refs/heads/c\x85d", "refs/heads/e\xa0"]
    printed = "".join(f"{A} {name}\n" for name in names).encode()
    assert output.refs(printed) == dict.fromkeys(names, A)


@pytest.mark.parametrize(
    "raw",
    [
        b"",
        b"DIRC\0\0\0\2",
        b'{"shopfloor":"mirror","ref":"\xff"}',
        b"[" * LINE,
        json.dumps({"shopfloor": "mirror", "ref": "HEAD", "old": A, "new": A}).encode(),
        json.dumps({"shopfloor": "mirror", "ref": "--upload-pack=x", "old": A, "new": A}).encode(),
        json.dumps({"shopfloor": "mirror", "ref": "refs/heads/main", "old": "--output=x", "new": A}).encode(),
    ],
    ids=lambda raw: raw[:50],
)
def test_what_is_no_journal_of_ours_is_left_alone(raw: bytes) -> None:
    assert Journal.decode(raw) is None
    good = Journal(ref="refs/heads/main", old=A, new=A)
    assert Journal.decode(good.encode()) == good


@pytest.mark.parametrize("body", [b"/", b"/\0x", b"/\x000", b"/\x002\0a", b"/\0-1\0a", b"/\x001_0" + b"\0a" * 10])
def test_a_request_that_no_engine_writes_is_none(body: bytes) -> None:
    with pytest.raises(ValueError, match=r"words|int|unpack"):
        guard.decode_request(body)


# -- what goes to a terminal --------------------------------------------------------------------------------------


def test_only_colours_reach_a_terminal() -> None:
    assert harmless("a\n\x1b[1;32mb\x1b[0m\tc") == "a\n\x1b[1;32mb\x1b[0m\tc"
    assert (
        harmless("\x1b]0;x\x07\x1b[2J\x9bm\u202e\r\x1b[31") == "\ufffd]0;x\ufffd\ufffd[2J\ufffdm\ufffd\ufffd\ufffd[31"
    )


def test_json_says_the_same_and_does_nothing() -> None:
    value = {"a": "\x7f\x9b\u202e\u2028\U000e0001\U0001f41b ä\n"}
    document = escaped(msgspec.json.encode(value).decode())
    assert json.loads(document) == value
    assert document.isprintable()
    assert "\U0001f41b ä" in document, "what can be shown is shown"


def test_one_line() -> None:
    assert one_line(" a\n\tb\u2028c\x1b ") == "a b c\ufffd"
    assert one_line("x" * 50, 10) == "x" * 9 + "…"


@pytest.mark.parametrize("changes", [7, None, [], "x", {}])
def test_an_edit_that_says_nothing_has_no_words(changes: object) -> None:
    board = Board()
    board.apply(Event("e1", E.CREATED, "2026-01-06T12:00:00.000Z", "human", None, {"work_order_id": "wo-a"}))
    update = Event(
        "e2", E.UPDATED, "2026-01-06T12:00:00.000Z", "x", None, {"work_order_id": "wo-a", "changes": changes}
    )
    board.apply(update)
    assert not line(update, board)
