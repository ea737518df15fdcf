import json
from contextlib import suppress
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shopfloor.domain.errors import UsageError
from shopfloor.faces.fanout import (
    StackEffect,
    TestCase,
    all_problems,
    parse_effect,
    problems,
    read,
    specification,
    story,
)
from shopfloor.faces.fanout.specs import TYPES, Item

FLAT = {
    "id": "s1", "word": "square", "stack_effect": "( n -- n² )", "pattern_id": "DUP_TRANSFORM_001",
    "test_cases": [{"input": [3], "output": [9]}],
}  # fmt: skip
RICH: dict[str, Any] = {
    "word": "square", "description": "the square", "properties": ["never negative"],
    "stack_effect": {
        "inputs": [{"name": "n", "type": "int", "constraint": "n >= 0"}],
        "outputs": [{"type": "uint", "value": "n * n"}],
    },
    "test_cases": [{"input": [0], "output": [0], "tags": ["base_case"], "description": "nothing"}],
    "complexity": {"time": "O(1)", "space": "O(1)"},
    "implementation": {"pattern": "DUP_TRANSFORM_001", "hints": ["dup"]},
    "metadata": {"author": "nobody"},
}  # fmt: skip


def test_a_flat_specification_goes_to_agents_as_it_came() -> None:
    assert specification(FLAT).document() == FLAT


def test_a_rich_one_gets_the_flat_keys_and_keeps_its_own() -> None:
    spec = specification(RICH, number=6)
    sent = spec.document()
    flat = {"id": "spec-7", "word": "square", "stack_effect": "( n -- u )", "pattern_id": "DUP_TRANSFORM_001"}
    assert {key: sent[key] for key in flat} == flat
    assert {k: sent[k] for k in ("description", "complexity", "implementation", "metadata")} == {
        k: RICH[k] for k in ("description", "complexity", "implementation", "metadata")
    }
    assert spec.rich() == RICH


def test_a_flat_one_can_be_made_rich() -> None:
    rich = specification(FLAT).rich()
    assert rich["stack_effect"] == {
        "inputs": [{"name": "n", "type": "int"}],
        "outputs": [{"name": "n²", "type": "int"}],
    }
    assert rich["implementation"] == {"pattern": "DUP_TRANSFORM_001"}
    assert specification(rich).stack_effect == "( n -- n² )"


@given(st.lists(st.sampled_from(TYPES), max_size=4), st.lists(st.sampled_from(TYPES), max_size=4))
def test_types_survive_the_way_through_the_flat_form(before: list[Any], after: list[Any]) -> None:
    effect = StackEffect(inputs=tuple(Item(type=t) for t in before), outputs=tuple(Item(type=t) for t in after))
    back = parse_effect(effect.text())
    assert [item.type for item in back.inputs] == before
    assert [item.type for item in back.outputs] == after
    assert parse_effect(back.text()) == back


@pytest.mark.parametrize("text", ["n -- n", "( n n )", "", "( a -- b -- c )", "(n -- n"])
def test_an_effect_without_parentheses_or_dashes_is_none(text: str) -> None:
    with pytest.raises(ValueError, match="no stack effect"):
        parse_effect(text)


def test_one_an_array_an_object_of_them_and_lines_are_read() -> None:
    two = [FLAT, RICH]
    forms = [json.dumps(two), json.dumps({"specs": two}), "\n".join(map(json.dumps, two)) + "\n\n"]
    for form in forms:
        assert [spec.id for spec in read(form.encode(), "specs")] == ["s1", "spec-2"]
        assert [spec.id for spec in read(form.encode("utf-8-sig"), "specs")] == ["s1", "spec-2"]
    assert [spec.id for spec in read(json.dumps(FLAT, indent=2).encode(), "one.json")] == ["s1"]
    assert read(b"[]", "none.json") == []


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ('{"word": "a"}', "x.json: 'stack_effect' is missing"),
        ('[{"word": 1}]', "x.json: specification 1: 'word' is a text, not a number"),
        ('{"word": "a", "stack_effect": "( -- )"}\n{"word": "b"}\n{"word": "c", "stack', "x.json:2: 'stack_effect'"),
        ('{"word": "a", "stack_effect": "( -- )"}\n[1]\nnonsense\n', "x.json:3: is no JSON"),
        ('{"word": "a", "stack_effect": {"inputs": [{"type": "float"}]}}', "'stack_effect': Invalid enum value"),
        ('{"word": "a", "stack_effect": "( -- )", "test_cases": [{"input": 3}]}', "'test_cases'"),
        ("", "x.json: is empty"),
        ("3", "a specification is an object, not a number"),
    ],
)
def test_what_is_off_is_named_with_its_place(text: str, named: str) -> None:
    with pytest.raises(UsageError) as told:
        read(text.encode(), "x.json")
    assert named in told.value.message


_VALUES = st.none() | st.booleans() | st.integers(-3, 3) | st.just(1.5) | st.text(max_size=3) | st.just([1, ["a"]])
_CASES = st.lists(
    st.fixed_dictionaries({}, optional={"input": _VALUES, "output": _VALUES, "tags": _VALUES}), max_size=2
)


@given(
    st.fixed_dictionaries(
        {"word": st.sampled_from(["w", "ü", "w w", " ", 1]), "stack_effect": st.sampled_from([*["( n -- n )"] * 4, 0])},
        optional={"id": _VALUES, "pattern_id": _VALUES, "test_cases": _CASES | _VALUES, "timeout_s": _VALUES},
    )
)
def test_the_short_way_through_an_array_leads_to_the_same_as_the_long_one(document: dict[str, Any]) -> None:
    text = json.dumps(document).encode()
    outcomes: list[object] = []
    for form in (b"[%s]" % text, b'{"specs": [%s]}' % text):
        try:
            outcomes.append(read(form, "it"))
        except UsageError as problem:
            outcomes.append(problem.message)
    assert outcomes[0] == outcomes[1]


def test_very_many_problems_are_told_in_few_lines() -> None:
    with pytest.raises(UsageError) as told:
        read(json.dumps([{} for _ in range(500)]).encode(), "x.json")
    assert "500 problems" in told.value.message
    assert "and 480 more" in told.value.message
    assert told.value.message.count("\n") < 30


@given(st.binary(max_size=200))
def test_bytes_are_specifications_or_refused(text: bytes) -> None:
    with suppress(UsageError):
        assert all(spec.word for spec in read(text, "x"))


def _rich(**changes: Any) -> dict[str, Any]:
    return RICH | changes


def _case(case: dict[str, Any]) -> dict[str, Any]:
    return _rich(test_cases=[case])


EFFECT = RICH["stack_effect"]


@pytest.mark.parametrize(
    ("document", "named"),
    [
        (_rich(word="a b"), "word 'a b'"),
        (_rich(stack_effect={"inputs": [], "outputs": []}, test_cases=[]), "neither inputs nor outputs"),
        (_rich(stack_effect="n"), "no stack effect"),
        (_rich(stack_effect=EFFECT | {"inputs": [{"name": "n", "type": "int", "constraint": "positive"}]}), "compares"),
        (_case({"input": [1, 2], "output": [1]}), "2 input values, but the stack effect has 1"),
        (_case({"input": [1], "output": []}), "0 output values"),
        (_case({"input": ["a"], "output": [1]}), "'a' is no int"),
        (_case({"input": [True], "output": [1]}), "True is no int"),
        (_case({"input": [1], "output": [-1]}), "-1 is negative"),
        (_case({"input": [-1], "output": [1]}), "-1 breaks the constraint 'n >= 0'"),
        (_case({"input": [1], "output": [1], "tags": ["odd"]}), "tag 'odd'"),
    ],
)
def test_the_validator_names_what_is_off(document: dict[str, Any], named: str) -> None:
    (problem,) = problems(specification(document))
    assert named in problem


BOUNDS = [("n > 3", 3, False), ("n > 3", 4, True), ("> -2", -2, False), ("n >= 3", 3, True), ("m > 3", 1, True)]


@pytest.mark.parametrize(("constraint", "value", "fits"), BOUNDS)
def test_values_obey_lower_bounds(constraint: str, value: int, *, fits: bool) -> None:
    effect = {"inputs": [{"name": "n", "type": "int", "constraint": constraint}], "outputs": []}
    spec = specification(_rich(stack_effect=effect, test_cases=[{"input": [value], "output": []}]))
    assert (not problems(spec)) is fits


def test_strict_also_wants_words_and_a_base_case() -> None:
    assert problems(specification(RICH), strict=True) == []
    assert problems(specification(FLAT)) == []
    assert problems(specification(FLAT), strict=True) == [
        "has no description", "has no properties", "has no test case with the tag 'base_case'",
    ]  # fmt: skip
    assert "has no test cases" in problems(specification(_rich(test_cases=[])), strict=True)
    assert all_problems([specification(FLAT | {"word": ""} | {"word": "ü"})])[0].startswith("s1: word 'ü'")


def test_a_case_of_an_error_need_not_leave_anything() -> None:
    assert problems(specification(_case({"input": [1], "output": [], "tags": ["error"]}))) == []


def test_the_generated_ones_are_a_hundred_that_are_in_order() -> None:
    specs = list(story())
    assert len({spec.id for spec in specs}) == len({spec.word for spec in specs}) == 100
    assert all_problems(specs) == []
    assert specs[1].test_cases[1] == TestCase(input=(3,), output=(9,))
