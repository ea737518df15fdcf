"""The graph seen as a whole."""

import time
from itertools import combinations, pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shopfloor.domain.errors import UsageError
from shopfloor.domain.graph import check_acyclic, collisions, critical_path, depth_below, overlap, waves

from .events_of import order

DIAMOND = {"a": [], "b": ["a"], "c": ["a"], "d": ["b", "c"], "e": []}


@st.composite
def acyclic(draw: st.DrawFn) -> dict[str, list[str]]:
    nodes = [f"n{i}" for i in range(draw(st.integers(0, 8)))]
    edges = {n: draw(st.lists(st.sampled_from([*nodes[:i], "outside"]), max_size=3)) for i, n in enumerate(nodes)}
    return {n: edges[n] for n in draw(st.permutations(nodes))}


def test_a_circle_is_named_in_the_direction_of_waiting() -> None:
    edges = {"a": ["b"], "b": ["c"], "c": ["a"], "d": ["a"]}
    with pytest.raises(UsageError) as caught:
        check_acyclic(edges, {"a": "Anna", "b": "Bo"})
    names = caught.value.message.removeprefix("the orders wait for each other in a circle: ").split(" waits for ")
    assert names[0] == names[-1]
    assert set(names) == {"'Anna'", "'Bo'", "'c'"}
    waits = {"'Anna'": "'Bo'", "'Bo'": "'c'", "'c'": "'Anna'"}
    assert all(waits[one] == other for one, other in pairwise(names))
    assert "depends_on" in caught.value.hint


def test_an_order_that_waits_for_itself_is_a_circle() -> None:
    with pytest.raises(UsageError, match="'a' waits for 'a'"):
        check_acyclic({"a": ["a"]}, {})


@given(acyclic())
def test_no_circle_is_seen_where_there_is_none(edges: dict[str, list[str]]) -> None:
    check_acyclic(edges, {})


def test_waves() -> None:
    assert waves(DIAMOND) == [["a", "e"], ["b", "c"], ["d"]]
    assert waves({}) == []
    assert waves({"b": ["somebody elses"], "a": []}) == [["b", "a"]]


@given(acyclic())
def test_each_order_is_in_the_wave_after_the_last_it_waits_for(edges: dict[str, list[str]]) -> None:
    found = waves(edges)
    wave = {node: n for n, nodes in enumerate(found) for node in nodes}
    assert sorted(wave) == sorted(edges)
    for node, needs in edges.items():
        assert wave[node] == 1 + max((wave[n] for n in needs if n in edges), default=-1)
    assert all(nodes == [n for n in edges if n in nodes] for nodes in found)


def test_the_critical_path_is_the_longest_chain() -> None:
    assert critical_path(DIAMOND) == ["a", "b", "d"]
    assert critical_path({}) == []
    assert critical_path({"x": ["outside"], "y": ["x"]}) == ["x", "y"]


@given(acyclic())
def test_the_critical_path_is_a_chain_as_long_as_there_are_waves(edges: dict[str, list[str]]) -> None:
    path = critical_path(edges)
    assert len(path) == len(waves(edges))
    assert all(one in edges[other] for one, other in pairwise(path))
    below = depth_below(edges)
    assert [below[node] for node in path] == list(range(len(path)))[::-1]


def test_depth_below() -> None:
    assert depth_below(DIAMOND) == {"a": 2, "b": 1, "c": 1, "d": 0, "e": 0}


def test_collisions_name_the_pairs_and_what_they_share() -> None:
    orders = [
        order("a", files=("src/", "x")),
        order("b", files=("docs", "./src/m.py")),
        order("c", files=("src/m.py", "x")),
        order("d", files=("",)),
        order("e", files=(".",)),
    ]
    assert collisions(orders) == [
        ("a", "b", ["src/m.py"]),
        ("a", "c", ["src/m.py", "x"]),
        ("a", "e", ["src", "x"]),
        ("b", "c", ["src/m.py"]),
        ("b", "e", ["docs", "src/m.py"]),
        ("c", "e", ["src/m.py", "x"]),
    ]


@given(
    st.lists(st.lists(st.sampled_from(["a", "a/b", "a/b/c", "d", ".", ""]), max_size=3), max_size=6), st.integers(1, 9)
)
def test_two_orders_collide_exactly_when_paths_overlap(files: list[list[str]], most: int) -> None:
    orders = [order(f"o{n}", files=tuple(paths)) for n, paths in enumerate(files)]
    pairs = [
        (one.name, other.name)
        for one, other in combinations(orders, 2)
        if any(overlap(f, g) for f in one.files for g in other.files)
    ]
    assert [(a, b) for a, b, _ in collisions(orders)] == pairs
    assert [(a, b) for a, b, _ in collisions(orders, most=most)] == pairs[:most]


@pytest.mark.parametrize("files", [("hot.py",), ("src/o{n}.py",), ("src", "src/o{n}.py"), ("own{n}", "hot.py")])
def test_collisions_of_many_orders_do_not_cost_their_square(files: tuple[str, ...]) -> None:
    orders = [order(f"o{n}", files=tuple(f.format(n=n) for f in files)) for n in range(20_000)]
    began = time.process_time()
    assert len(collisions(orders)) in (0, 1000)
    assert time.process_time() - began < 10.0  # the square takes minutes
