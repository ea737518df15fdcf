"""The plan against a slow and plain model of it: the best startable order is always the next one popped."""

import time
from collections.abc import Callable, Collection, Iterable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from shopfloor.domain.graph import overlap
from shopfloor.domain.paths import folders_above, plain_path
from shopfloor.domain.plan import AGEING_S, Key, Plan, ageing_key

PATHS = ["src", "src/a.py", "src/sub/c.py", "docs", "."]


def key(n: int, priority: int = 0, created_at: float = 0.0) -> Key:
    return ageing_key(created_at, priority, 0, n)


def plan_of(*files: Collection[str]) -> Plan:
    """Orders o0, o1, … with these files."""
    plan = Plan()
    for n, paths in enumerate(files):
        plan.add(f"o{n}", key(n), (), paths)
    return plan


def drain(plan: Plan) -> list[str]:
    return list(iter(plan.pop, None))


class Model:
    """A plan, and what it should do written as it is said: look at every order each time."""

    def __init__(self) -> None:
        self.plan = Plan()
        self.keys: dict[str, Key] = {}
        self.needs: dict[str, set[str]] = {}
        self.files: dict[str, tuple[str, ...]] = {}
        self.delivered: set[str] = set()
        self.waiting: set[str] = set()
        self.holding: set[str] = set()
        self.ended: dict[str, tuple[set[str], tuple[str, ...]]] = {}

    def add(self, name: str, age: int, priority: int, needs: Iterable[str], files: Iterable[str]) -> None:
        self.keys[name] = ageing_key(age * 1000.0, priority, 0, len(self.keys))
        self.take_in(name, set(needs), tuple(files))

    def take_in(self, name: str, needs: set[str], files: tuple[str, ...]) -> None:
        self.needs[name], self.files[name] = needs, files
        self.plan.add(name, self.keys[name], needs, files)
        self.waiting.add(name)

    def meet(self, one: str, other: str) -> bool:
        return any(overlap(f, g) for f in self.files[one] for g in self.files[other])

    def startable(self) -> list[str]:
        return [
            o
            for o in self.waiting
            if self.needs[o] <= self.delivered and not any(self.meet(o, p) for p in self.holding - {o})
        ]

    def pop(self, _: str = "") -> None:
        best = min(self.startable(), key=self.keys.__getitem__, default=None)
        assert self.plan.pop() == best
        if best is not None:
            self.waiting.discard(best)
            self.holding.add(best)

    def retry(self, order: str) -> None:
        if order in self.holding:
            self.plan.free(order)
            self.plan.queue(order)
            self.holding.discard(order)
            self.waiting.add(order)

    def put_aside(self, order: str) -> None:
        if order in self.holding:
            self.plan.free(order)
            self.plan.unqueue(order)
            self.holding.discard(order)

    def sleep(self, order: str) -> None:
        if order not in self.holding:
            self.plan.unqueue(order)
            self.waiting.discard(order)

    def wake(self, order: str) -> None:
        if order in self.files and order not in self.holding:
            self.plan.queue(order)
            self.waiting.add(order)

    def take_up(self, order: str) -> None:
        """It is at work, as seen after a restart."""
        if order in self.files and order not in self.holding and not any(self.meet(order, p) for p in self.holding):
            self.plan.unqueue(order)
            self.plan.hold(order)
            self.plan.hold(order)
            self.waiting.discard(order)
            self.holding.add(order)

    def deliver(self, order: str) -> None:
        self.plan.deliver(order)
        self.delivered.add(order)

    def withdraw(self, order: str) -> None:
        self.plan.withdraw(order)
        self.delivered.discard(order)

    def drop(self, order: str) -> None:
        self.plan.drop(order)
        if order in self.files:
            self.ended[order] = (self.needs.pop(order), self.files.pop(order))
            self.waiting.discard(order)
            self.holding.discard(order)

    def come_back(self, order: str) -> None:
        if order in self.ended:
            self.take_in(order, *self.ended.pop(order))

    def agrees(self) -> None:
        assert len(self.plan) == len(self.files)
        for order, needs in self.needs.items():
            assert order in self.plan
            assert self.plan.waits_for(order) == needs - self.delivered
            assert self.plan.is_queued(order) == (order in self.waiting and needs <= self.delivered)
            holders = {p for p in self.holding - {order} if self.meet(order, p)}
            found = self.plan.held_by(order)
            assert found in holders if holders else found is None
        assert not any(self.meet(a, b) for a in self.holding for b in self.holding - {a})

    def end_well(self) -> None:
        """In the end everything is delivered and given back, and nobody was forgotten."""
        for order in self.files:
            self.plan.free(order)
            self.plan.queue(order)
        for need in set[str]().union(*self.needs.values()):
            self.plan.deliver(need)
        popped = []
        while (order_ := self.plan.pop()) is not None:
            popped.append(order_)
            self.plan.drop(order_)
        assert sorted(popped) == sorted(self.files)


ACTS = [
    *(Model.pop, Model.pop, Model.pop, Model.retry, Model.put_aside, Model.sleep, Model.wake, Model.take_up),
    *(Model.deliver, Model.deliver, Model.withdraw, Model.drop, Model.drop, Model.come_back),
]
NAMES = [f"o{n}" for n in range(7)]
WISHES = st.tuples(
    st.integers(0, 3),
    st.integers(0, 4),
    st.sets(st.sampled_from(NAMES), max_size=1),
    st.sets(st.sampled_from(PATHS), max_size=2),
)


@settings(max_examples=200)
@given(
    st.lists(WISHES, min_size=7, max_size=7),
    st.lists(st.tuples(st.sampled_from(ACTS), st.sampled_from(NAMES)), min_size=20, max_size=60),
)
def test_the_best_startable_order_is_always_the_next(
    wishes: list[tuple[int, int, set[str], set[str]]], acts: list[tuple[Callable[[Model, str], None], str]]
) -> None:
    model = Model()
    for name, wish in zip(NAMES, wishes, strict=True):
        model.add(name, *wish)
    for act, name in acts:
        act(model, name)
        model.agrees()
    model.end_well()


def test_urgent_ones_start_first_and_old_ones_before_younger() -> None:
    plan = Plan()
    plan.add("late", key(0, 2, 100.0), (), ())
    plan.add("urgent", key(1, 0, 100.0), (), ())
    plan.add("early", key(2, 2, 50.0), (), ())
    assert drain(plan) == ["urgent", "early", "late"]


def test_an_order_of_lower_priority_overtakes_after_its_time() -> None:
    plan = Plan()
    plan.add("old", key(0, 3, 0.0), (), ())
    plan.add("new", key(1, 2, AGEING_S + 1.0), (), ())
    plan.add("young", key(2, 2, AGEING_S - 1.0), (), ())
    assert drain(plan) == ["young", "old", "new"]


def test_the_longer_chain_behind_it_breaks_a_tie_then_the_order_of_creation() -> None:
    plan = Plan()
    for n, (name, below) in enumerate([("first", 0), ("second", 0), ("long", 3)]):
        plan.add(name, ageing_key(0.0, 2, below, n), (), ())
    assert drain(plan) == ["long", "first", "second"]


def test_orders_below_a_freed_folder_start_side_by_side() -> None:
    plan = plan_of(["src"], ["src/a"], ["src/b"], ["src"], ["src/c"])
    assert drain(plan) == ["o0"]
    plan.drop("o0")
    assert drain(plan) == ["o1", "o2", "o4"]
    for name in ("o1", "o2", "o4"):
        assert plan.pop() is None
        assert plan.held_by("o3") is not None
        plan.drop(name)
    assert drain(plan) == ["o3"]


def test_orders_of_one_folder_take_turns_when_what_lies_in_it_is_done() -> None:
    plan = plan_of(["src/a"], ["src"], ["src"], ["src"])
    for n in range(4):
        assert drain(plan) == [f"o{n}"]
        plan.drop(f"o{n}")


def test_what_was_popped_is_not_ready_again_because_a_need_came_and_went() -> None:
    plan = Plan()
    plan.add("a", key(0), ("need",), ())
    plan.deliver("need")
    assert drain(plan) == ["a"]
    plan.withdraw("need")
    plan.deliver("need")
    assert drain(plan) == []


def test_who_is_barred_holds_none_of_its_files() -> None:
    plan = plan_of(["src"], ["src/a", "docs"], ["docs"])
    assert plan.pop() == "o0"
    plan.hold("o1")
    assert plan.held_by("o1") == "o0"
    assert plan.pop() == "o2"


def test_a_wake_that_was_consumed_below_a_held_folder_is_not_lost() -> None:
    plan = plan_of(["src/a"], ["src/a"], ["src/a"])
    assert drain(plan) == ["o0"]
    plan.add("folder", key(9, -1), (), ("src",))
    plan.drop("o0")
    assert drain(plan) == ["folder"]
    plan.drop("o1")  # it had been woken, and stood in the folder's line since
    plan.drop("folder")
    assert drain(plan) == ["o2"]


def test_an_order_that_names_a_folder_and_what_lies_in_it_does_not_bar_itself() -> None:
    plan = plan_of(["src/a.py", "./src/", "src//a.py"])
    assert drain(plan) == ["o0"]
    assert plan.held_by("o0") is None
    plan.free("o0")
    plan.queue("o0")
    assert drain(plan) == ["o0"]


def test_an_unknown_order_changes_nothing() -> None:
    plan = plan_of([])
    for act in (plan.queue, plan.unqueue, plan.free, plan.drop, plan.deliver, plan.withdraw):
        act("nobody")
    assert plan.held_by("nobody") is None
    assert plan.waits_for("nobody") == frozenset()
    assert plan.behind("nobody") == []
    assert drain(plan) == ["o0"]


def test_behind_names_those_that_still_wait() -> None:
    plan = Plan()
    for n, name in enumerate("abc"):
        plan.add(name, key(n), ("x", "y"), ())
    plan.drop("b")
    assert plan.behind("x") == ["a", "c"]
    plan.deliver("x")
    assert plan.behind("x") == []
    assert plan.behind("y") == ["a", "c"]


@given(st.lists(st.sampled_from(["a", "b", ".", "..", ""]), max_size=5))
def test_a_path_is_compared_in_one_spelling(parts: list[str]) -> None:
    plain = plain_path("/".join(parts))
    assert plain == plain_path(plain) == plain_path(f"./{plain}/" if plain else "")
    assert all(overlap(plain, above) for above in folders_above(plain) if plain)


@pytest.mark.parametrize(
    ("one", "other", "meet"),
    [
        ("src", "src/a.py", True),
        ("src/", "src", True),
        ("src", "srcs/a.py", False),
        ("a/b", "a/c", False),
        ("a/./b", "a//b/", True),
        (".", "a", True),
        ("/", "a/b", True),
        (".", ".", True),
        ("", "a", False),
        ("", "", False),
    ],
)
def test_overlap(one: str, other: str, meet: bool) -> None:
    assert overlap(one, other) is meet
    assert overlap(other, one) is meet


def counted_pops(plan: Plan, take: int) -> int:
    """Heap entries that were looked at while ``take`` orders started and ended one after the other."""
    looked = 0
    barred = plan._barred

    def look(order: str) -> object:
        nonlocal looked
        looked += 1
        return barred(order)

    plan._barred = look  # type: ignore[method-assign, assignment] # counts, and asks the real one
    for _ in range(take):
        popped = plan.pop()
        assert popped is not None
        assert plan.pop() is None
        plan.drop(popped)
    return looked


def test_a_hot_file_costs_one_look_for_each_start() -> None:
    most = 20_000
    plan = plan_of(*(["hot.py", f"own{n}.py"] for n in range(most)))
    assert counted_pops(plan, most) <= 3 * most


def test_many_orders_on_one_folder_cost_a_few_looks_each() -> None:
    most = 20_000
    plan = plan_of(*(["src/hot"] if n % 2 else ["src/hot/a.py"] for n in range(most)))
    assert counted_pops(plan, most) <= 4 * most


def test_a_hundred_thousand_behind_one_are_released_at_once() -> None:
    plan = Plan()
    for n in range(100_000):
        plan.add(f"o{n}", key(n), ("gate",), ("hot.py",))
    assert plan.pop() is None
    began = time.process_time()
    plan.deliver("gate")
    for n in range(100):
        assert plan.pop() == f"o{n}"
        plan.drop(f"o{n}")
    assert time.process_time() - began < 20.0  # a quadratic release takes hours
