r"""A small verifier of Forth: how many cells a piece of code takes from the stack, and how many it leaves there.

It knows definitions, comments, numbers, strings, the common words, ``if … else … then`` and loops; nothing of types.
``effect_of("dup *")`` is ``Effect(1, 1)``. A word that it does not know is an error, by name.
"""

from __future__ import annotations

import re
from typing import NamedTuple

WORDS: dict[str, tuple[int, int]] = {
    **dict.fromkeys(("+", "-", "*", "/", "mod", "and", "or", "xor", "min", "max", "lshift", "rshift"), (2, 1)),
    **dict.fromkeys(("=", "<>", "<", ">", "<=", ">=", "u<", "u>"), (2, 1)),
    **dict.fromkeys(("1+", "1-", "2+", "2-", "2*", "2/", "negate", "abs", "invert", "not", "square"), (1, 1)),
    **dict.fromkeys(("0=", "0<", "0>", "0<>", "cells", "cell+", "chars", "char+", "@", "c@"), (1, 1)),
    "dup": (1, 2), "drop": (1, 0), "swap": (2, 2), "over": (2, 3), "rot": (3, 3), "-rot": (3, 3), "nip": (2, 1),
    "tuck": (2, 3), "2dup": (2, 4), "2drop": (2, 0), "2swap": (4, 4), "2over": (4, 6), "*/": (3, 1), "/mod": (2, 2),
    "!": (2, 0), "c!": (2, 0), "+!": (2, 0), "execute": (1, 0), ".": (1, 0), "u.": (1, 0), "emit": (1, 0),
    "type": (2, 0), "cr": (0, 0), "space": (0, 0), "spaces": (1, 0), "bl": (0, 1), "true": (0, 1), "false": (0, 1),
    "here": (0, 1), "key": (0, 1), "depth": (0, 1), "i": (0, 1), "j": (0, 1), ">r": (1, 0), "r>": (0, 1),
    "r@": (0, 1), "within": (3, 1), "count": (1, 2), "s>d": (1, 2),
}  # fmt: skip
"""cells that each word takes and leaves"""
STRINGS = {'."': 0, 's"': 2, 'c"': 1, ".(": 0}
_NUMBER = re.compile(r"[-+]?(?:[0-9]+|\$[0-9a-f]+|%[01]+)\.?|'.'")
_EFFECT = re.compile(r"\(\s([^()]*?)\s?--\s?([^()]*?)\s?\)")


class Wrong(ValueError):
    """The code, or the effect, cannot be understood; the message says why."""


class Effect(NamedTuple):
    """Cells that are taken, and cells that are left."""

    takes: int
    leaves: int

    def __str__(self) -> str:
        return f"( {'x ' * self.takes}-- {'x ' * self.leaves})"


class _Flow:
    """The depth of the stack on the way through a piece of code."""

    def __init__(self) -> None:
        self.depth = 0
        self.lowest = 0

    def step(self, takes: int, leaves: int) -> None:
        self.lowest = min(self.lowest, self.depth - takes)
        self.depth += leaves - takes

    @property
    def effect(self) -> Effect:
        return Effect(-self.lowest, self.depth - self.lowest)


def declared(text: str) -> Effect:
    """The effect that ``( a b -- c )`` speaks of. Raises Wrong."""
    found = _EFFECT.fullmatch(text.strip())
    if found is None:
        raise Wrong(f"{text!r} is no stack effect such as ( n -- n )")
    return Effect(len(found[1].split()), len(found[2].split()))


def effect_of(code: str) -> Effect:
    """What the code does: the body of a word, or definitions, of which the last one counts. Raises Wrong."""
    tokens, known = list(_tokens(code)), dict(WORDS)
    body: list[str] = []
    last: Effect | None = None
    while tokens:
        word = tokens.pop(0)
        if word != ":":
            body.append(word)
            continue
        if not tokens or ";" not in tokens:
            raise Wrong("a definition has no end: ; is missing")
        name, end = tokens[0], tokens.index(";")
        last = known[name] = _walk(tokens[1:end], known)
        del tokens[: end + 1]
    if last is not None and not body:
        return last
    return _walk(body, known)


def fits(code: str, effect: str) -> tuple[bool, Effect, Effect]:
    """Whether the code does what the effect says, what it does, and what was said. Raises Wrong.

    Cells that it is given and does not touch are none of its business.
    """
    does, said = effect_of(code), declared(effect)
    well = does.takes <= said.takes and does.leaves - does.takes == said.leaves - said.takes
    return well, does, said


def _tokens(code: str) -> list[str]:
    """Words, without comments; a string is one word."""
    found, at = [], 0
    pattern = re.compile(r"\S+")
    while (match := pattern.search(code, at)) is not None:
        word, at = match[0].lower(), match.end()
        if word == "\\":
            at = code.find("\n", at) % (len(code) + 1)
        elif word == "(" or word in STRINGS:
            end = code.find(")" if word in ("(", ".(") else '"', at)
            if end < 0:
                raise Wrong(f"{word} has no end")
            at = end + 1
            if word != "(":
                found.append(word)
        else:
            found.append(word)
    return found


def _walk(words: list[str], known: dict[str, tuple[int, int]]) -> Effect:
    flow, open_ones = _Flow(), list[tuple[str, int, int]]()
    for word in words:
        if word in ("if", "begin", "do", "?do"):
            flow.step({"begin": 0, "if": 1}.get(word, 2), 0)
            open_ones.append((word, flow.depth, 0))
        elif word in _CLOSES:
            _close(word, flow, open_ones)
        elif word in known:
            flow.step(*known[word])
        elif word in STRINGS:
            flow.step(0, STRINGS[word])
        elif _NUMBER.fullmatch(word):
            flow.step(0, 1)
        else:
            raise Wrong(f"{word!r} is no word that is known here")
    if open_ones:
        raise Wrong(f"{open_ones[-1][0]} has no end")
    return flow.effect


_CLOSES = {
    "else": ("if",), "then": ("if", "else"), "until": ("begin",), "again": ("begin",), "while": ("begin",),
    "repeat": ("while",), "loop": ("do", "?do"), "+loop": ("do", "?do"),
}  # fmt: skip


def _close(word: str, flow: _Flow, open_ones: list[tuple[str, int, int]]) -> None:
    """What the word ends must have left the stack as it was, or as the other branch left it."""
    if not open_ones or open_ones[-1][0] not in _CLOSES[word]:
        raise Wrong(f"{word} without {' or '.join(_CLOSES[word])}")
    opened, before, other = open_ones.pop()
    if word in ("until", "while", "+loop"):
        flow.step(1, 0)
    if word == "else":
        open_ones.append(("else", before, flow.depth))
        flow.depth = before
        return
    if word == "while":
        open_ones.append(("while", before, flow.depth))
        return
    expected = other if opened == "else" else before
    if flow.depth != expected:
        raise Wrong(f"{opened} … {word} leaves the stack {flow.depth - expected:+d} cells off")
    if word == "repeat":
        flow.depth = other
