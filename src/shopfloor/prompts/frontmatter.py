"""Front matter: a small, strict part of YAML that means the same to every reader.

    key: value            text, "text" or 'text'
    key: [a, "b, c"]      a list on one line
    key:                  a list on several lines
      - a
      - b

Comments begin with ``#`` at the start of a line or after a space. Values stay the text they are; who knows the key
knows whether ``true`` is a word or a truth. Whatever YAML has beyond that is refused by name.
"""

from __future__ import annotations

import json
import re
from typing import NamedTuple

from shopfloor.domain.names import printable

Problem = tuple[int, str]
"""Line number and what is off there."""

_FENCE = re.compile(r"---[ \t]*\r?")
_KEY_BEGINS = re.compile(r"[^\s:#'\"\[\]{}&*!|>%@`-]")
_ITEM = re.compile(r"[ \t]*-(?:[ \t]+(.*)|)")
# Possessive, so that no text makes them look back: a line may have millions of characters.
_DOUBLE = re.compile(r'"(?:[^"\\]++|\\.)*+"')
_SINGLE = re.compile(r"'(?:[^']++|'')*+'")
_BLANKS = re.compile(r"\s*+")
_WORD = re.compile(rf"{_DOUBLE.pattern}|{_SINGLE.pattern}|[^,\[\]\"'\s][^,\[\]]*+")
_MOST_LINES = 10_000
_SHOWN = 60
_NOT_HERE = {
    "{": "a table in braces",
    "&": "an anchor",
    "*": "a reference",
    "!": "a tag",
    "|": "a block of text",
    ">": "a folded text",
    "%": "a directive",
    "@": "a reserved sign",
    "`": "a reserved sign",
}


class Entry(NamedTuple):
    """A key, its value, the line of the key, and the line of each item."""

    key: str
    value: str | list[str]
    line: int
    lines: tuple[int, ...]


def split(text: str) -> tuple[list[str], str] | None:
    """The lines of the front matter without their ends, and the text behind it; None when it is not closed.

    Without front matter there are no lines, and the text comes back unchanged.
    """
    lines = text.split("\n")
    if not _FENCE.fullmatch(lines[0]) or len(lines) == 1:
        return [], text
    for number, line in enumerate(lines[1:], 1):
        if _FENCE.fullmatch(line):
            return [line.rstrip("\r") for line in lines[1:number]], "\n".join(lines[number + 1 :])
    return None


def parse(lines: list[str], first: int = 2) -> tuple[list[Entry], list[Problem]]:
    """The entries in order, and every line that is off; ``first`` is the number of the first line."""
    entries: list[_Open] = []
    problems: list[Problem] = []
    listing = False
    taken: set[str] = set()
    if len(lines) > _MOST_LINES:
        problems.append((first + _MOST_LINES, f"the front matter has more than {_MOST_LINES:,} lines"))
    for number, line in enumerate(lines[:_MOST_LINES], first):
        if not line.strip() or line.lstrip().startswith("#"):
            continue
        try:
            if listing and (item := _ITEM.fullmatch(line)):
                entries[-1].items.append(_read(_without_comment(item[1] or "")))
                entries[-1].lines.append(number)
                continue
            listing = False
            entry = _entry(line, number, taken)
            taken.add(entry.key)
            entries.append(entry)
            listing = not entry.lines
        except ValueError as error:
            problems.append((number, str(error)))
    bare = [entry for entry in entries if not entry.lines]
    problems += [(entry.line, f"{_short(entry.key)} has no value: write one, or remove the line") for entry in bare]
    return [entry.closed() for entry in entries if entry.lines], problems


class _Open:
    """An entry while it is read; ``text`` is None for a list."""

    def __init__(self, key: str, line: int, text: str | None = None) -> None:
        self.key = key
        self.line = line
        self.text = text
        self.items: list[str] = []
        self.lines: list[int] = [] if text is None else [line]

    def closed(self) -> Entry:
        return Entry(self.key, self.items if self.text is None else self.text, self.line, tuple(self.lines))


def _entry(line: str, number: int, taken: set[str]) -> _Open:
    key, colon, rest = line.partition(":")
    if not colon or rest[:1] not in ("", " ", "\t") or not _KEY_BEGINS.match(key):
        if line[:1] in (" ", "\t"):
            raise ValueError(f"{_short(line.strip())!r} is indented, but nothing above takes it")
        raise ValueError(f"{_short(line.strip())!r} is not 'key: value'")
    key = key.strip()
    if key in taken:
        raise ValueError(f"{_short(key)} is there twice")
    text = _without_comment(rest)
    if not text:
        return _Open(key, number)
    if not text.startswith("["):
        return _Open(key, number, _read(text))
    entry = _Open(key, number)
    entry.items = _flow(text)
    entry.lines = [number] * max(1, len(entry.items))
    return entry


def _short(text: str) -> str:
    return printable(text, _SHOWN)


def _without_comment(text: str) -> str:
    """The text without a comment behind it; a ``#`` in quotes is none."""
    text = text.strip()
    for quoted in (_DOUBLE, _SINGLE):
        if (found := quoted.match(text)) and re.fullmatch(r"\s*|\s+#.*", text[found.end() :]):
            return found[0]
    if text.startswith("#"):
        return ""
    if text.startswith("["):
        return text
    return re.split(r"[ \t]#", text, maxsplit=1)[0].rstrip()


def _read(text: str) -> str:
    """One value. Raises ValueError for what is not understood here."""
    if text[:1] in ("'", '"'):
        return _quoted(text)
    if not text or text in ("~", "null"):
        raise ValueError("an empty value: write one, or remove the line")
    if what := _NOT_HERE.get(text[0]):
        raise ValueError(f"{_short(text)!r} is {what}, which is not understood here; put it in quotes if it is text")
    if text.startswith(("- ", "? ")):
        raise ValueError(f"{_short(text)!r} is not understood here; put it in quotes if it is text")
    return text


def _quoted(text: str) -> str:
    if _SINGLE.fullmatch(text):
        return text[1:-1].replace("''", "'")
    if not _DOUBLE.fullmatch(text):
        raise ValueError(f"{_short(text)!r} is not closed, or has something behind its quotes")
    try:
        found = json.loads(text, strict=False)
    except ValueError:
        raise ValueError(f"{_short(text)!r} has a backslash that means nothing; write it twice") from None
    return str(found).encode("utf-16", "surrogatepass").decode("utf-16", "replace")


def _flow(text: str) -> list[str]:
    """``[a, "b, c"]``; a comma may stand behind the last. Raises ValueError."""
    items: list[str] = []
    at = 1
    while True:
        at = _behind_blanks(text, at)
        if text[at : at + 1] == "]":
            break
        if text[at : at + 1] == ",":
            raise ValueError(f"the list {_short(text)!r} has an empty item")
        word = _WORD.match(text, at)
        at = _behind_blanks(text, word.end()) if word else at
        sign = text[at : at + 1]
        if word is None or sign not in (",", "]"):
            raise ValueError(f"the list {_short(text)!r} is not closed, or has a list or a quote inside a word")
        items.append(_read(word[0].strip()))
        if sign == "]":
            break
        at += 1
    if rest := _without_comment(text[at + 1 :]):
        raise ValueError(f"{_short(rest)!r} stands behind the list")
    return items


def _behind_blanks(text: str, at: int) -> int:
    found = _BLANKS.match(text, at)
    return found.end() if found else at
