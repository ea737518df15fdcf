"""Names that are valid wherever they go: ids, slugs, branches, attempt ids."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence
from zlib import crc32

_ALPHABET = "0123456789abcdefghijklmnopqrstuvwxyz"
_DIGITS = (_ALPHABET * 8)[:256].encode()
_PAIRS = [low + high for high in _ALPHABET for low in _ALPHABET]
ORDER_ID = re.compile(r"[a-z][a-z0-9]*(-[a-z0-9]+)+(\.[0-9]+)*")
_PLAIN_PART = re.compile(r"[0-9]*[a-z][a-z0-9]*")
_UNPRINTABLE = frozenset({"Cc", "Cf", "Cs", "Zl", "Zp"})


def base36(raw: bytes, length: int) -> str:
    """``length`` characters of base 36 taken from random bytes (the caller brings the randomness)."""
    number = int.from_bytes(raw, "big")
    pairs = []
    for _ in range((length + 1) // 2):  # two at a time: every event has a name of this kind
        number, rest = divmod(number, 1296)
        pairs.append(_PAIRS[rest])
    return "".join(pairs)[:length]


def letters(raw: bytes) -> str:
    """As many characters of base 36 as there are random bytes: the cheapest way to many of them.

    Four of them are a little more likely than the others, which costs no more than a hundredth of a bit each.
    """
    return raw.translate(_DIGITS).decode()


def slug(text: str, limit: int = 40) -> str:
    """A piece that is valid in a ref, a file name and a shell: ``[a-z0-9-]``, never empty, at most ``limit`` long."""
    plain = unicodedata.normalize("NFKD", text).encode("ascii", "ignore").decode().lower()
    cut = re.sub(r"[^a-z0-9]+", "-", plain).strip("-")[:limit].strip("-")
    return cut or "order"


def branch_name(name: str, order_id: str, generation: int) -> str:
    """``shopfloor/<slug>-<id part>`` for the first attempt, ``…-<n>`` after it: unique because the id is.

    An id part that could be read in two ways (dashes, only digits, signs that a ref cannot have) gets a digest.
    """
    part = order_id.removeprefix("wo-")
    tail = re.sub(r"[^a-z0-9]+", "-", part.lower()).strip("-")
    if not _PLAIN_PART.fullmatch(part):
        tail = f"{tail}-{crc32(order_id.encode()):08x}x".lstrip("-")
    suffix = "" if generation <= 1 else f"-{generation}"
    return f"shopfloor/{slug(name)}-{tail}{suffix}"


def attempt_id(order_id: str, generation: int) -> str:
    """``<order>.a<generation>``: the name of an attempt's folder and refs."""
    return f"{order_id}.a{generation}"


def printable(text: str, limit: int = 0) -> str:
    """Text that cannot move a cursor or forge a line: control characters become ``�``; cut to ``limit`` when given."""
    if not text.isprintable():
        found = {ord(char): "\ufffd" for char in set(text) if _is_unprintable(char)}
        text = text.translate(found) if found else text
    if limit and len(text) > limit:
        return text[: limit - 1] + "…"
    return text


def one_line(text: str, limit: int = 0) -> str:
    """The same as one line: every run of white space becomes one blank."""
    return printable(" ".join(text.split()), limit)


def _is_unprintable(char: str) -> bool:
    return char not in "\n\t" and unicodedata.category(char) in _UNPRINTABLE


def few(names: Sequence[str], most: int = 5) -> str:
    """The first names of a list, and a sign that there are more."""
    return ", ".join(names[:most]) + (" …" if len(names) > most else "")
