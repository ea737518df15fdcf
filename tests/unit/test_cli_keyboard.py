"""A line that is typed while others speak: keys become lines, and what is typed is drawn again below what is said."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shopfloor.cli.keyboard import MOST_CHARS, Screen, Typed


@pytest.mark.parametrize(
    ("sent", "lines", "left"),
    [
        (b"hello\n", ["hello\n"], ""),
        (b"one\rtwo\nthr", ["one\n", "two\n"], "thr"),
        (b"gru\x7f\xc3\xbcn\n", ["gr\xfcn\n"], ""),
        ("be\u0301\x7ful\x08y\n".encode(), ["buy\n"], ""),
        (b"not this\x15but this\n", ["but this\n"], ""),
        (b"paint the door \x17wall\n", ["paint the wall\n"], ""),
        (b"a\x1b[D\x1b[1;5C\x1bOA\x1bbb\x00\x07\tc\n", ["ab c\n"], ""),
        (b"\x04more\n", [""], ""),
        (b"half\x04\n", ["half\n"], ""),
        (b"\xff\n", ["\ufffd\n"], ""),
    ],
)
def test_keys_become_lines(sent: bytes, lines: list[str], left: str) -> None:
    for size in (1, 3, len(sent)):
        typed, found = Typed(), list[str]()
        for start in range(0, len(sent), size):
            found += typed.take(sent[start : start + size])
            if "" in found:
                break
        assert (found, typed.text if "" not in found else "") == (lines, left)


@given(st.lists(st.binary(max_size=40), max_size=20))
def test_nothing_that_is_sent_moves_a_cursor(pieces: list[bytes]) -> None:
    typed = Typed()
    said = "".join(line for piece in pieces for line in typed.take(piece)) + typed.text
    assert said.replace("\n", "").isprintable()


def test_a_line_is_as_long_as_it_may_be() -> None:
    typed = Typed()
    typed.take(b"x" * (MOST_CHARS + 5))
    assert typed.take(b"\n") == ["x" * MOST_CHARS + "\n"]


def test_what_is_typed_stands_below_what_is_said(capsys: pytest.CaptureFixture[str]) -> None:
    screen = Screen(print, prompts=True)
    screen.prompt()
    screen.typed("half a li")
    capsys.readouterr()
    screen.say("[crew] completed: wo-1")
    assert capsys.readouterr().out == "\r\x1b[J[crew] completed: wo-1\n> half a li"
    screen.entered("half a line")
    screen.say("heard")
    assert capsys.readouterr().out == "\r\x1b[J> half a line\nheard\n"
    screen.prompt()
    screen.typed("long " * 50)
    screen.say("news")
    assert "\r\x1b[3A\x1b[Jnews\n> long" in capsys.readouterr().out, "it takes three lines more"
    screen.typed("x" * 3)
    screen.again()
    assert capsys.readouterr().out.endswith("> xxx> xxx")
    screen.typed("x" * 3)
    assert capsys.readouterr().out == "", "what stands there already is not drawn again"
    screen.close()
    screen.say("bye")
    assert capsys.readouterr().out == "\r\x1b[Jbye\n"


def test_without_a_terminal_there_is_no_prompt(capsys: pytest.CaptureFixture[str]) -> None:
    screen = Screen(print, prompts=False)
    screen.prompt()
    screen.say("heard")
    assert capsys.readouterr().out == "heard\n"
