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

Problem = tuple[int, str]
"""Line number and what is off there."""

_FENCE = re.compile(r"---[ \t]*\r?")
_KEY = re.compile(r"([^\s:#'\"\[\]{}&*!|>%@`-][^:]*?)[ \t]*:(?:[ \t]+(.*)|)")
_ITEM = re.compile(r"[ \t]*-(?:[ \t]+(.*)|)")
_DOUBLE = re.compile(r'"(?:[^"\\]|\\.)*"')
_SINGLE = re.compile(r"'(?:[^']|'')*'")
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
    entries: list[Entry] = []
    problems: list[Problem] = []
    listing = False
    taken: set[str] = set()
    for number, line in enumerate(lines, first):
        if not line.strip() or line.lstrip().startswith("#"):
            continue
        try:
            if listing and (item := _ITEM.fullmatch(line)):
                entry = entries[-1]
                word = _read(_without_comment(item[1] or ""))
                entries[-1] = entry._replace(value=[*entry.value, word], lines=(*entry.lines, number))
                continue
            listing = False
            entry = _entry(line, number, taken)
            taken.add(entry.key)
            entries.append(entry)
            listing = not entry.lines
        except ValueError as error:
            problems.append((number, str(error)))
    bare = [entry for entry in entries if not entry.lines]
    problems += [(entry.line, f"{entry.key} has no value: write one, or remove the line") for entry in bare]
    return [entry for entry in entries if entry.lines], problems


def _entry(line: str, number: int, taken: set[str]) -> Entry:
    found = _KEY.fullmatch(line)
    if found is None:
        if line[:1] in " \t":
            raise ValueError(f"{line.strip()[:60]!r} is indented, but nothing above takes it")
        raise ValueError(f"{line.strip()[:60]!r} is not 'key: value'")
    key = found[1].strip()
    if key in taken:
        raise ValueError(f"{key} is there twice")
    text = _without_comment(found[2] or "")
    if not text:
        return Entry(key, [], number, ())
    if text.startswith("["):
        items = _flow(text)
        return Entry(key, items, number, (number,) * max(1, len(items)))
    return Entry(key, _read(text), number, (number,))


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
        raise ValueError(f"{text[:60]!r} is {what}, which is not understood here; put it in quotes if it is text")
    if text.startswith(("- ", "? ")):
        raise ValueError(f"{text[:60]!r} is not understood here; put it in quotes if it is text")
    return text


def _quoted(text: str) -> str:
    if _SINGLE.fullmatch(text):
        return text[1:-1].replace("''", "'")
    if not _DOUBLE.fullmatch(text):
        raise ValueError(f"{text[:60]!r} is not closed, or has something behind its quotes")
    try:
        found = json.loads(text, strict=False)
    except ValueError:
        raise ValueError(f"{text[:60]!r} has a backslash that means nothing; write it twice") from None
    return str(found).encode("utf-16", "surrogatepass").decode("utf-16", "replace")


def _flow(text: str) -> list[str]:
    """``[a, "b, c"]``. Raises ValueError."""
    items: list[str] = []
    at = 1
    part = re.compile(r"\s*((?:\"(?:[^\"\\]|\\.)*\"|'(?:[^']|'')*'|[^,\[\]\"'][^,\[\]]*)?)\s*([,\]]|$)")
    while True:
        found = part.match(text, at)
        if found is None or not found[2]:
            raise ValueError(f"the list {text[:60]!r} is not closed, or has a list or a quote inside a word")
        word = found[1].strip()
        if word:
            items.append(_read(word))
        elif found[2] == "," or (items and text[found.start() - 1] != ","):
            raise ValueError(f"the list {text[:60]!r} has an empty item")
        at = found.end()
        if found[2] == "]":
            break
    if rest := _without_comment(text[at:]):
        raise ValueError(f"{rest[:60]!r} stands behind the list")
    return items
