"""Making bad input of good: a small mutator over bytes and over JSON values, with all of its choices from one seed."""

from __future__ import annotations

import json
from collections.abc import Sequence
from random import Random
from typing import Any

LONGEST = 1 << 16
"""Bytes of an input at the most: what matters for time is how they are arranged. Few inputs come near it."""

NASTY = (
    *("", " ", "\t", "\n", "\r\n", "\0", "\x07", "\x1b[2J", "\x1b]0;title\x07", "\x1b]52;c;aGk=\x07", "\x7f", "\x85"),
    *(
        "\x1b]8;;http://x\x1b\\link\x1b]8;;\x1b\\",
        "\x9b31m",
        "\u2028",
        "\u2029",
        "\u202e",
        "\u2066",
        "\u200b",
        "\ufeff",
    ),
    *("e\u0301", "\U0001f468\u200d\U0001f469", "\ufffd", "\ud800", "\U0010ffff", "İ", "ß", "ﬁ"),
    *("../../x", "/etc/passwd", "~root", "..", ".", "//", "a/../b", ".git/config", ".git", "C:\\x", "CON"),
    *("-rf", "--upload-pack=x", "--", "-", "refs/heads/main", "HEAD", "@{-1}", "a..b", "x.lock", "x.", "~^:?*[\\"),
    *("[red]x[/]", "<script>alert(1)</script>", "![x](y)", "`x`", "$(x)", "%s%n", "{0}", "{prompt}", "{title}"),
    *("'", '"', "\\", "\\u0000", "\\ud800", "null", "true", "NaN", "Infinity", "-0", "1e999", "0x" + "f" * 5000),
    *("9" * 5000, "18446744073709551616", "9007199254740993", "-1", "0", "1.5", "1e308", "{", "}", "[", "]", ":", ","),
    *("#", "---", "---\n", "- ", "&a", "*a", "!!python/object:x", "|", ">", "%YAML", "? ", "<<: *a", "x: ", "x = 1"),
    *("0001-01-01T00:00:00+23:59", "9999-12-31T23:59:59-23:59", "1970-01-01T00:00:00Z", "2026-01-06T12:00:00.000Z"),
    *("wo-a", "wo-b", "run-1", "shopfloor", "operations", "completed", "PASS", "done"),
)
"""Words that have meant something to some program at some time."""

TOKENS = (
    *(word.encode("utf-8", "surrogatepass") for word in NASTY),
    *(b"\xff", b"\xfe\xff", b"\xc0\xaf", b"\xed\xa0\x80", b"\xf4\x90\x80\x80", b"\xc3", b"\xef\xbb\xbf", b"\0\0"),
    *(b" " * 300, b"[" * 300, b'{"a":' * 200, b"- a\n" * 100, b"\n" * 100, b"'" * 99, b'"' * 99, b"\\" * 99, b"#" * 99),
)
LONG = (
    b" ",
    b"\t",
    b"[",
    b"a",
    b"#",
    b"'",
    b'"',
    b"\\",
    b"-",
    b"\n",
    b"[ ",
    b"# ",
    b"{}",
    b"a: b\n",
    b"x=1\n",
    b"\xff",
)
"""What stands many times behind each other now and then: patterns that look back take a square of the time."""

VALUES: tuple[Any, ...] = (
    *(None, True, False, 0, -1, 1, 2**31, 2**53 + 1, 2**63, 2**64, -(2**63) - 1, 10**30, 0.5, -0.0, 1e308, -1e308),
    *([], {}, [[]], [None], [1, "x"], {"a": None}, {"": ""}, {"shopfloor": {}}, {"0": [0]}),
)


class Mutator:
    """Choices for one input."""

    def __init__(self, random: Random) -> None:
        self.random = random

    def data(self, seed: bytes, others: Sequence[bytes] = ()) -> bytes:
        """The seed after one to six changes; sometimes none, so that good input is tried too."""
        rounds = self.random.choice((0, 1, 1, 1, 2, 2, 3, 6))
        for _ in range(rounds):
            seed = self._change(seed, others)
        return seed[:LONGEST]

    def _change(self, data: bytes, others: Sequence[bytes]) -> bytes:
        random = self.random
        a, b = sorted((random.randint(0, len(data)), random.randint(0, len(data))))
        if random.random() < 0.7:  # most damage is small
            b = min(b, a + random.randint(0, 16))
        match random.randrange(9):
            case 0 if data:
                place = random.randrange(len(data))
                return data[:place] + bytes([data[place] ^ 1 << random.randrange(8)]) + data[place + 1 :]
            case 1:
                return data[:a] + data[b:]
            case 2:
                return data[:b] + data[a:b] * random.choice((1, 2, 30)) + data[b:]
            case 3:
                return data[:a]
            case 4 if others:
                other = random.choice(others)
                return data[:a] + other[random.randint(0, len(other)) :]
            case 5:
                return data[:a] + random.randbytes(random.randint(1, 8)) + data[b:]
            case 6 if random.random() < 0.15:
                return data[:a] + random.choice(LONG) * random.choice((100, 3000, 30000)) + data[b:]
            case 7:
                lines = data.split(b"\n")
                random.shuffle(lines)
                return b"\n".join(lines)
            case _:
                return data[:a] + random.choice(TOKENS) + data[b:]

    def word(self) -> str:
        """A nasty word, or a few joined."""
        word = self.random.choice(NASTY)
        while self.random.random() < 0.3:
            word += self.random.choice(NASTY)
        return word

    def value(self) -> Any:
        """A value of any type."""
        return self.word() if self.random.random() < 0.5 else self.random.choice(VALUES)

    def tree(self, value: Any, depth: int = 0) -> Any:
        """A JSON value with one place in it changed: another type, another value, a key more or less."""
        random = self.random
        if depth and random.random() < 0.2:
            return self.value()
        if isinstance(value, dict) and value:
            key = random.choice(list(value))
            match random.randrange(8):
                case 0:
                    return {name: item for name, item in value.items() if name != key}
                case 1:
                    return {**value, self.word(): self.value()}
                case _:
                    return {**value, key: self.tree(value[key], depth + 1)}
        if isinstance(value, list) and value:
            place = random.randrange(len(value))
            return [*value[:place], self.tree(value[place], depth + 1), *value[place + 1 :]]
        return self.value()

    def json(self, value: Any) -> bytes:
        """A changed value as one line. Lone surrogates are written as the escapes that only some readers take."""
        for _ in range(self.random.choice((0, 1, 1, 2, 4))):
            value = self.tree(value)
        text = json.dumps(value, ensure_ascii=self.random.random() < 0.5)
        return text.encode("utf-8", "surrogatepass")


def cut(data: bytes, random: Random) -> list[bytes]:
    """Data in pieces of any size, none and all of it among them; often just before or behind the end of a line."""
    places = [random.randint(0, len(data)) for _ in range(random.choice((0, 1, 2, 5, 20)))]
    if random.random() < 0.5:
        ends = (data.find(b"\n", place) + random.randint(0, 1) for place in places)
        places = [max(0, end) for end in ends]
    places.sort()
    if len(data) < 40 and random.random() < 0.2:
        places = list(range(len(data)))
    return [data[a:b] for a, b in zip([0, *places], [*places, len(data)], strict=True)]
