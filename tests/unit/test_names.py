"""Names are valid wherever they go."""

import re
import unicodedata

from hypothesis import example, given
from hypothesis import strategies as st

from shopfloor.domain.names import ORDER_ID, attempt_id, base36, branch_name, few, printable, slug

PIECE = re.compile(r"[a-z0-9]+(-[a-z0-9]+)*")
IDS = st.from_regex(ORDER_ID, fullmatch=True).filter(str.isascii)


@given(st.binary(min_size=16, max_size=16), st.integers(1, 20))
def test_base36(raw: bytes, length: int) -> None:
    assert re.fullmatch(r"[0-9a-z]*", base36(raw, length))
    assert len(base36(raw, length)) == length
    assert base36(b"\x00" * 15 + b"\x25", 2) == "11"


@given(st.text(), st.integers(1, 60))
@example("Ünïcode, naïve — Ω", 40)
@example("../../etc/passwd", 40)
@example("", 40)
def test_a_slug_fits_in_a_ref_a_file_name_and_a_shell(text: str, limit: int) -> None:
    found = slug(text, limit)
    assert PIECE.fullmatch(found)
    assert len(found) <= limit or found == "order"


def test_slugs() -> None:
    assert slug("Ünïcode, naïve!") == "unicode-naive"
    assert slug("a" * 39 + " b") == "a" * 39
    assert slug("Ω") == "order"


@given(st.text(max_size=20), st.text(max_size=12), st.integers(1, 99))
@example("x", "wo-a.lock", 1)
@example("x", "wo-..", 1)
@example("x", "", 1)
def test_a_branch_is_a_valid_ref(name: str, order: str, generation: int) -> None:
    branch = branch_name(name, order, generation)
    assert re.fullmatch(r"shopfloor/[a-z0-9]+(-[a-z0-9]+)*", branch)


@given(st.tuples(st.text(max_size=6), IDS, st.integers(1, 30)), st.tuples(st.text(max_size=6), IDS, st.integers(1, 30)))
@example(("x", "wo-a-b", 1), ("x a", "wo-b", 1))
@example(("x", "wo-ab", 2), ("x ab", "wo-2", 1))
@example(("x", "wo-a.1", 1), ("x", "wo-a-1", 1))
@example(("x", "a-b", 1), ("x", "wo-a-b", 1))
def test_two_attempts_never_share_a_branch(one: tuple[str, str, int], other: tuple[str, str, int]) -> None:
    if one[1:] != other[1:]:
        assert branch_name(*one) != branch_name(*other)


def test_branches() -> None:
    assert branch_name("Add login", "wo-k3m9p", 1) == "shopfloor/add-login-k3m9p"
    assert branch_name("Add login", "wo-k3m9p", 3) == "shopfloor/add-login-k3m9p-3"
    assert attempt_id("wo-k3m9p", 3) == "wo-k3m9p.a3"


@given(st.text(), st.integers(0, 10))
@example("\x1b[2Jgone", 0)
@example("safe\u202egnp.exe", 0)
@example("two\u2028lines\x85three\rfour", 0)
def test_printable_text_cannot_move_a_cursor_or_forge_a_line(text: str, limit: int) -> None:
    shown = printable(text, limit)
    assert shown.count("\n") <= text.count("\n")
    assert all(c.isprintable() or c in "\t\n" or unicodedata.category(c) in ("Zs", "Cn", "Co") for c in shown)
    assert len(shown) <= (limit or len(text))
    assert len(shown.splitlines()) <= 1 + text.count("\n")


def test_what_is_cut_says_so() -> None:
    assert printable("abcdef", 4) == "abc…"
    assert printable("abcd", 4) == "abcd"
    assert printable("a\tb\nc") == "a\tb\nc"


def test_a_few_names() -> None:
    assert few(["a", "b"]) == "a, b"
    assert few(list("abcdef")) == "a, b, c, d, e …"
    assert few(list("abc"), 2) == "a, b …"
