"""No secret survives, however the data was cut."""

import json

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from shopfloor.masking import MASK, Masker

SECRET = "sk-ant-0123456789"


def cut(data: bytes, at: list[int]) -> list[bytes]:
    places = sorted(min(place, len(data)) for place in at)
    return [data[a:b] for a, b in zip([0, *places], [*places, len(data)], strict=True)]


def streamed(masker: Masker, pieces: list[bytes]) -> bytes:
    stream = masker.stream()
    return b"".join([*map(stream.feed, pieces), stream.close()])


@given(
    st.lists(st.text("ab", min_size=8, max_size=12), min_size=1, max_size=4),
    st.text("ab", max_size=60),
    st.lists(st.integers(0, 60), max_size=8),
)
@example(["aaaaaaaa"], "a" * 50, [3, 9, 20])
@example(["abababab", "babababb"], "abababababb", [1, 2, 9])
def test_no_secret_survives_any_split(secrets: list[str], text: str, places: list[int]) -> None:
    masker = Masker(secrets)
    whole = masker.data(text.encode())
    assert streamed(masker, cut(text.encode(), places)) == whole
    assert not any(secret.encode() in whole for secret in secrets)
    assert masker.text(text) == whole.decode()


@given(st.text(max_size=30), st.text(max_size=30), st.lists(st.integers(0, 200), max_size=6))
def test_every_other_byte_survives(before: str, after: str, places: list[int]) -> None:
    masker = Masker([SECRET])
    data = f"{before}{SECRET}{after}".encode()
    assert streamed(masker, cut(data, places)) == f"{before}{MASK}{after}".encode()


@given(st.text(min_size=8, max_size=30).filter(lambda text: len(text.strip()) >= 8))
def test_a_secret_in_json_is_found(secret: str) -> None:
    masker = Masker([secret])
    for ascii_only in (True, False):
        line = json.dumps({"output": f"<{secret.strip()}>"}, ensure_ascii=ascii_only)
        assert json.loads(masker.text(line)) == {"output": f"<{MASK}>"}


def test_a_multi_line_secret_is_found_line_by_line() -> None:
    masker = Masker(["-----BEGIN KEY-----\nabcdefghijkl\nshort\n-----END KEY-----\n"])
    assert "abcdefghijkl" not in masker.text("log: abcdefghijkl!")
    assert masker.text("-----BEGIN KEY-----\nabcdefghijkl\nshort\n-----END KEY-----") == MASK


def test_a_secret_in_an_address_is_found() -> None:
    assert Masker(["p@ss/word+1"]).text("https://me:p%40ss%2Fword%2B1@host/") == f"https://me:{MASK}@host/"


@pytest.mark.parametrize("value", ["", "short", "1234567", "  spaces  "[:7]])
def test_a_short_value_is_no_secret(value: str) -> None:
    masker = Masker([value])
    assert not masker
    assert masker.text(f"x{value}y") == f"x{value}y"


def test_a_stream_holds_back_less_than_a_secret() -> None:
    stream = Masker([SECRET]).stream()
    assert stream.feed(b"hello sk-") == b"hello "
    assert stream.feed(b"no") == b"sk-no"
    out = sum(len(stream.feed(b"sk-ant-012345678" * 100)) for _ in range(10))
    assert 16_000 - out < len(SECRET)
