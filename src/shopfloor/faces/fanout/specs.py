"""Specifications in both forms in which people write them, and the one form in which agents get them.

The *flat* form has ``stack_effect`` as a text, ``( n -- n² )``; the *rich* form has it as an object with typed inputs
and outputs, and says more beside it. Agents get the flat keys; what a rich specification says beside them goes along
under its own keys, so that nothing is lost to an agent that can read it.
"""

from __future__ import annotations

import math
import re
from codecs import BOM_UTF8
from collections.abc import Iterator, Mapping, Sequence
from sys import intern
from typing import Any, Literal, get_args

import msgspec

from shopfloor import UsageError

Value = int | bool | str
Type = Literal["int", "uint", "bool", "char", "addr", "any"]
TYPES: tuple[Type, ...] = get_args(Type)
MOST_LEVELS = 100
"""of objects and arrays inside each other"""
MOST_BYTES = 1 << 20
"""of one specification as JSON"""
FLAT_KEYS = ("id", "word", "stack_effect", "pattern_id", "test_cases")
_NAME_OF = {"int": "n", "uint": "u", "bool": "flag", "char": "char", "addr": "addr", "any": "x"}
_TYPE_OF: dict[str, Type] = {
    "n": "int", "i": "int", "d": "int", "u": "uint", "ud": "uint", "flag": "bool", "f": "bool", "bool": "bool",
    "char": "char", "c": "char", "addr": "addr", "a-addr": "addr", "c-addr": "addr", "x": "any", "any": "any",
}  # fmt: skip
_EFFECT = re.compile(r"\s*\(\s*(.*?)\s*\)\s*", re.DOTALL)
_NUMBERED = re.compile(r"(.*?)[\d₀-₉²³]*'*")


class TestCase(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """What a word makes of a stack: values from the bottom up."""

    __test__ = False  # or pytest would take it for a test of its own

    input: tuple[Value, ...] = ()
    output: tuple[Value, ...] = ()
    description: str = ""
    tags: tuple[str, ...] = ()

    def document(self) -> dict[str, Any]:
        """As JSON has it; a word that takes nothing has an empty ``input`` all the same."""
        found: dict[str, Any] = {"input": list(self.input), "output": list(self.output)}
        if self.description:
            found["description"] = self.description
        if self.tags:
            found["tags"] = list(self.tags)
        return found


class Item(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One value of a rich stack effect. ``constraint`` compares it (``n >= 0``), ``value`` says how it is made."""

    name: str = ""
    type: Type
    constraint: str = ""
    value: str = ""


class StackEffect(msgspec.Struct, frozen=True, kw_only=True):
    """What a word takes from the stack and leaves on it, the top of the stack last."""

    inputs: tuple[Item, ...] = ()
    outputs: tuple[Item, ...] = ()

    def document(self) -> dict[str, Any]:
        """As JSON has it in the rich form."""
        sides = {"inputs": self.inputs, "outputs": self.outputs}
        return {name: [msgspec.to_builtins(item) for item in side] for name, side in sides.items()}

    def text(self) -> str:
        """As the flat form has it, e.g. ``( n -- n² )``. A value without a name gets that of its type."""
        sides = (" ".join(item.name or _NAME_OF[item.type] for item in side) for side in (self.inputs, self.outputs))
        before, after = sides
        return " ".join(filter(None, ("(", before, "--", after, ")")))


def parse_effect(text: str) -> StackEffect:
    """The flat form as the rich one; a type is told from the name by the usual letters (``n``, ``u``, ``flag`` …).

    Raises ValueError for a text without parentheses or ``--``.
    """
    inside = _EFFECT.fullmatch(text)
    words = inside[1].split() if inside else []
    if words.count("--") != 1:
        raise ValueError(f"{text!r} is no stack effect such as ( n -- n² )")
    middle = words.index("--")
    return StackEffect(inputs=_items(words[:middle]), outputs=_items(words[middle + 1 :]))


def _items(names: Sequence[str]) -> tuple[Item, ...]:
    return tuple(Item(name=name, type=_type_of(name)) for name in names)


def _type_of(name: str) -> Type:
    stem = _NUMBERED.fullmatch(name)
    return _TYPE_OF.get(name.lower()) or _TYPE_OF.get(stem[1].lower() if stem else "", "any")


class Specification(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """One word that is wanted."""

    id: str
    word: str
    stack_effect: str
    """flat: ``( n -- n² )``"""
    pattern_id: str = ""
    test_cases: tuple[TestCase, ...] = ()
    effect: StackEffect | None = None
    """with types and constraints, where it was written so"""
    more: dict[str, Any] = msgspec.field(default_factory=dict)
    """what else was written, under its own keys: description, properties, complexity, implementation, metadata …"""

    @property
    def timeout_s(self) -> float:
        """Seconds that one request for it may take; 0: as long as is usual."""
        return float(self.more.get("timeout_s") or 0.0)

    def document(self) -> dict[str, Any]:
        """As agents and queues get it: the flat keys first, then whatever else was written."""
        flat = {
            "id": self.id, "word": self.word, "stack_effect": self.stack_effect, "pattern_id": self.pattern_id,
            "test_cases": [case.document() for case in self.test_cases],
        }  # fmt: skip
        return flat | self.more if self.more else flat

    def rich(self) -> dict[str, Any]:
        """In the rich form; types that were never written are told from names. Raises ValueError for a bad effect."""
        effect = self.effect or parse_effect(self.stack_effect)
        pattern = {"implementation": {"pattern": self.pattern_id}} if self.pattern_id else {}
        cases = {"test_cases": [case.document() for case in self.test_cases]} if self.test_cases else {}
        return {"word": self.word, "stack_effect": effect.document(), **cases, **pattern, **self.more}


def specification(document: object, *, number: int = 0) -> Specification:
    """Read one specification in either form; one without an id is called ``spec-<number + 1>``.

    Raises ValueError that names the key that is off.
    """
    if not isinstance(document, Mapping):
        raise ValueError(f"a specification is an object, not {_kind(document)}")  # noqa: TRY004 - as _text
    wanted = dict(document)
    effect: StackEffect | None = None
    text = wanted.pop("stack_effect", None)
    if isinstance(text, Mapping):
        effect = _converted(text, StackEffect, "stack_effect")
        text = effect.text()
    # What many of them have in common is kept once, and a dict that was emptied is larger than an empty one.
    found = {
        "id": _text(wanted.pop("id", ""), "id") or f"spec-{number + 1}",
        "word": _text(wanted.pop("word", ""), "word", needed=True),
        "stack_effect": intern(_text("" if text is None else text, "stack_effect", needed=True)),
        "pattern_id": intern(_text(wanted.pop("pattern_id", ""), "pattern_id") or _pattern(wanted)),
        "test_cases": _converted(wanted.pop("test_cases", None) or (), tuple[TestCase, ...], "test_cases"),
    }
    _refuse_time(wanted.get("timeout_s"))
    if any(isinstance(value, dict | list) and _deeper(value, MOST_LEVELS) for value in wanted.values()):
        raise ValueError(f"it is nested more than {MOST_LEVELS} levels deep")
    return Specification(**found, effect=effect, more=dict(wanted))


def _refuse_time(value: object) -> None:
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    if value is not None and not (is_number and 0 < float(str(value)) < math.inf):
        raise ValueError(f"'timeout_s' is a number of seconds above 0, not {value!r}")


def _deeper(value: object, levels: int) -> bool:
    """Whether it has objects or arrays inside each other deeper than that."""
    inside = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    if not levels:
        return True
    return any(_deeper(one, levels - 1) for one in inside if isinstance(one, dict | list))


def _pattern(wanted: Mapping[str, Any]) -> str:
    made = wanted.get("implementation")
    pattern = made.get("pattern", "") if isinstance(made, Mapping) else ""
    return pattern if isinstance(pattern, str) else ""


def _text(value: object, key: str, *, needed: bool = False) -> str:
    if not isinstance(value, str):
        raise ValueError(f"{key!r} is a text, not {_kind(value)}")  # noqa: TRY004 - one kind for all that is off
    if needed and not value.strip():
        raise ValueError(f"{key!r} is missing")
    return value


def _converted(value: object, kind: Any, key: str) -> Any:
    try:
        return msgspec.convert(value, kind)
    except msgspec.ValidationError as problem:
        raise ValueError(f"{key!r}: {problem}") from None


def _kind(value: object) -> str:
    names = {dict: "an object", list: "an array", str: "a text", bool: "a truth value", type(None): "null"}
    return names.get(type(value), "a number")


def story(count: int = 100) -> Iterator[Specification]:
    """What is asked for when nobody names a file: squares, each under a name of its own."""
    for number in range(count):
        yield Specification(
            id=f"spec-{number + 1:03d}", word=f"square-{number + 1}", stack_effect="( n -- n² )",
            pattern_id="DUP_TRANSFORM_001",
            test_cases=tuple(TestCase(input=(n,), output=(n * n,)) for n in (0, number + 2, -3)),
        )  # fmt: skip


def read(text: bytes, where: str) -> list[Specification]:
    """Every specification of a JSON document (one, an array, or ``{"specs": [...]}``) or of JSON Lines.

    Raises UsageError that names the file and each line, or place in the array, that is off.
    """
    text = text.removeprefix(BOM_UTF8)  # which some editors begin a file with
    problems: list[str] = []
    found: list[Specification] = []
    for place, piece in _documents(text, where, problems):
        if isinstance(piece, msgspec.Raw) and (plain := _plain(piece, len(found))) is not None:
            found.append(plain)
            continue
        try:
            document = _decoded(piece) if isinstance(piece, msgspec.Raw) else piece
            found.append(specification(document, number=len(found)))
            if len(text) > MOST_BYTES and (size := len(msgspec.json.encode(document))) > MOST_BYTES:
                problems.append(f"{where}{place}: {_too_large(size)}")
        except ValueError as problem:
            problems.append(f"{where}{place}: {problem}")
    refuse(problems, where)
    return found


class _Flat(msgspec.Struct, frozen=True, gc=False, forbid_unknown_fields=True):
    """The flat form, and nothing beside it."""

    word: str
    stack_effect: str
    id: str = ""
    pattern_id: str = ""
    test_cases: tuple[TestCase, ...] = ()


_flat = msgspec.json.Decoder(_Flat)


def _plain(text: msgspec.Raw, number: int) -> Specification | None:
    """What nearly all of very many are, read at less than half the cost; None: it is something else, or is off."""
    if len(memoryview(text)) > MOST_BYTES:
        return None
    try:
        it = _flat.decode(text)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None
    if not (it.word.strip() and it.stack_effect.strip()):
        return None
    return Specification(
        id=it.id or f"spec-{number + 1}", word=it.word, stack_effect=intern(it.stack_effect),
        pattern_id=intern(it.pattern_id), test_cases=it.test_cases,
    )  # fmt: skip


MOST_TOLD = 20


def refuse(problems: Sequence[str], where: str) -> None:
    """Raise UsageError that lists them, when there are any."""
    if problems:
        more = f"\n  and {len(problems) - MOST_TOLD} more" if len(problems) > MOST_TOLD else ""
        told = "".join(f"\n  {problem}" for problem in problems[:MOST_TOLD])
        what = "1 problem" if len(problems) == 1 else f"{len(problems)} problems"
        raise UsageError(f"{what} in {where}; nothing was started:{told}{more}")


def _documents(text: bytes, where: str, problems: list[str]) -> Iterator[tuple[str, object]]:
    """Each document, or its text, and its place: ``:line`` of JSON Lines, ``[n]`` of an array."""
    try:
        if text.lstrip()[:1] == b"[":  # each by itself: all of them at once as objects would take ten times as much
            pieces = _decoded(text, list[msgspec.Raw])
            yield from ((f": specification {n}", one) for n, one in enumerate(pieces, 1))
            return
        whole = _decoded(text)
    except ValueError as problem:
        lines = [line for line in text.split(b"\n") if line.strip()]
        if len(lines) < 2 or not _is_json(lines[0]):  # noqa: PLR2004 - one line is no JSON Lines
            problems.append(f"{where}: {problem}")
            return
        yield from _lines(text, where, problems)
        return
    if isinstance(whole, dict) and "specs" in whole:
        whole = whole["specs"]
    if isinstance(whole, list):
        yield from ((f": specification {n}", one) for n, one in enumerate(whole, 1))
    else:
        yield "", whole


def _lines(text: bytes, where: str, problems: list[str]) -> Iterator[tuple[str, object]]:
    for number, line in enumerate(text.split(b"\n"), 1):
        if line.strip():
            try:
                yield f":{number}", _decoded(line)
            except ValueError as problem:
                problems.append(f"{where}:{number}: {problem}")


def _is_json(line: bytes) -> bool:
    try:
        _decoded(line)
    except ValueError:
        return False
    return True


def _decoded(text: bytes | msgspec.Raw, kind: Any = Any) -> Any:
    """Raises ValueError that says what is off."""
    try:
        return msgspec.json.decode(text, type=kind)
    except (msgspec.DecodeError, UnicodeDecodeError) as problem:
        raise ValueError("is empty" if not bytes(text).strip() else f"is no JSON: {problem}") from None
    except RecursionError:
        raise ValueError("is nested too deep") from None


def decoded(text: bytes) -> Specification:
    """One specification as a queue has it. Raises ValueError."""
    if len(text) > MOST_BYTES:
        raise ValueError(_too_large(len(text)))
    return specification(_decoded(text))


def _too_large(size: int) -> str:
    return f"it has {size} bytes, and {MOST_BYTES} are the most"
