"""What can be told of a specification here, before any agent is asked."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterator, Sequence

from shopfloor.faces.fanout.specs import TYPES, Item, Specification, StackEffect, TestCase, Value, parse_effect

WORD = re.compile(r"[a-zA-Z0-9_\-+*/<>=!?]+")
TAGS = frozenset({"base_case", "edge_case", "boundary", "error", "performance", "property"})
_OPERATOR = re.compile(r"<=|>=|!=|<>|==|<|>|=")
_BOUND = re.compile(r"\s*(?P<name>[^\s<>=]*)\s*(?P<sign>>=|>)\s*(?P<least>-?\d+)\s*")
_ABOVE: dict[str, Callable[[int, int], bool]] = {">=": lambda value, least: value >= least, ">": int.__gt__}


def problems(spec: Specification, *, strict: bool = False) -> list[str]:
    """Everything that is off; empty: nothing is.

    ``strict`` also wants a description, properties, test cases, and one of them tagged ``base_case``.
    """
    return [*_basic(spec), *(_strict(spec) if strict else ())]


def _basic(spec: Specification) -> Iterator[str]:
    if not WORD.fullmatch(spec.word):
        yield f"word {spec.word!r} is not made of letters, digits and _-+*/<>=!?"
    try:
        effect = spec.effect or parse_effect(spec.stack_effect)
    except ValueError as problem:
        yield str(problem)
        return
    if not (effect.inputs or effect.outputs):
        yield "the stack effect has neither inputs nor outputs"
    for item in (*effect.inputs, *effect.outputs):
        if item.constraint and not _OPERATOR.search(item.constraint):
            yield f"constraint {item.constraint!r} compares nothing: it has none of < <= > >= = == != <>"
    for number, case in enumerate(spec.test_cases, 1):
        yield from (f"test case {number}: {problem}" for problem in _case(case, effect))


def _case(case: TestCase, effect: StackEffect) -> Iterator[str]:
    if unknown := [tag for tag in case.tags if tag not in TAGS]:
        yield f"tag {unknown[0]!r} is none of {', '.join(sorted(TAGS))}"
    # A case of an error says what it is given; what it leaves is not on the stack.
    sides = [("input", case.input, effect.inputs), ("output", case.output, effect.outputs)]
    for side, values, items in sides[:1] if "error" in case.tags else sides:
        if len(values) != len(items):
            yield f"{len(values)} {side} values, but the stack effect has {len(items)}"
            continue
        for value, item in zip(values, items, strict=True):
            yield from (f"{side} {problem}" for problem in _value(value, item))


def _value(value: Value, item: Item) -> Iterator[str]:
    if not _fits(value, item.type):
        yield f"{value!r} is no {item.type}"
    elif item.type == "uint" and isinstance(value, int) and value < 0:
        yield f"{value!r} is negative, and a uint is not"
    bound = _BOUND.fullmatch(item.constraint)
    if bound and type(value) is int and bound["name"] in (item.name, "value", ""):
        least = int(bound["least"])
        if not _ABOVE[bound["sign"]](value, least):
            yield f"{value!r} breaks the constraint {item.constraint!r}"


def _fits(value: Value, kind: str) -> bool:
    assert kind in TYPES
    match kind:
        case "any":
            return True
        case "bool":
            return isinstance(value, bool) or value in (0, -1, 1)
        case "char":
            return (isinstance(value, str) and len(value) == 1) or type(value) is int
        case "addr":
            return isinstance(value, str) or type(value) is int
        case _:
            return type(value) is int


def _strict(spec: Specification) -> Iterator[str]:
    for key in ("description", "properties"):
        if not spec.more.get(key):
            yield f"has no {key}"
    if not spec.test_cases:
        yield "has no test cases"
    elif not any("base_case" in case.tags for case in spec.test_cases):
        yield "has no test case with the tag 'base_case'"


def all_problems(specs: Sequence[Specification], *, strict: bool = False) -> list[str]:
    """The same for many, each behind the id of its specification; and the ids that several have."""
    found = [f"{spec.id}: {problem}" for spec in specs for problem in problems(spec, strict=strict)]
    several = (item for item in Counter(spec.id for spec in specs).items() if item[1] > 1)
    return [*found, *(f"{name}: {count} specifications have this id" for name, count in several)]
