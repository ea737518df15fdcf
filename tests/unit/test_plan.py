"""The plan against a slow and plain model of it: the best startable order is always the next one popped."""

import time
from collections.abc import Iterable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, invariant, rule

from shopfloor.domain.graph import overlap
from shopfloor.domain.paths import folders_above, plain_path
from shopfloor.domain.plan import AGEING_S, Key, Plan, ageing_key

PATHS = ["src", "src/a.py", "src/b.py", "src/sub", "src/sub/c.py", "docs", "docs/x.md", ".", "README.md"]


def key(n: int, priority: int = 0, created_at: float = 0.0) -> Key:
    return ageing_key(created_at, priority, 0, n)


def plan_of(*files: Iterable[str]) -> Plan:
    """Orders o0, o1, … with these files."""
    plan = Plan()
    for n, paths in enumerate(files):
        plan.add(f"o{n}", key(n), (), paths)
    return plan


def drain(plan: Plan) -> list[str]:
    return list(iter(plan.pop, None))


class Model(RuleBasedStateMachine):
    """What the plan should do, written as it is said: look at every order each time."""

    orders = Bundle("orders")

    def __init__(self) -> None:
        super().__init__()
        self.plan = Plan()
        self.keys: dict[str, Key] = {}
        self.needs: dict[str, set[str]] = {}
        self.files: dict[str, tuple[str, ...]] = {}
        self.delivered: set[str] = set()
        self.waiting: set[str] = set()
        self.holding: set[str] = set()

    @rule(
        target=orders,
        age=st.integers(0, 3),
        priority=st.integers(0, 4),
        needs=st.lists(orders, max_size=2),
        unknown=st.integers(0, 9),
        files=st.lists(st.sampled_from(PATHS), max_size=3),
    )
    def add(self, age: int, priority: int, needs: list[str], unknown: int, files: list[str]) -> str:
        name = f"o{len(self.keys)}"
        needs = needs + ([f"o{len(self.keys) + 1}"] if unknown == 0 else [])
        self.keys[name] = ageing_key(age * 1000.0, priority, 0, len(self.keys))
        self.needs[name] = set(needs)
        self.files[name] = tuple(files)
        self.plan.add(name, self.keys[name], needs, files)
        self.waiting.add(name)
        return name

    def startable(self) -> list[str]:
        return [
            o
            for o in self.waiting
            if self.needs[o] <= self.delivered
            and not any(overlap(f, g) for p in self.holding - {o} for f in self.files[o] for g in self.files[p])
        ]

    @rule()
    def pop(self) -> None:
        best = min(self.startable(), key=self.keys.__getitem__, default=None)
        assert self.plan.pop() == best
        if best is not None:
            self.waiting.discard(best)
            self.holding.add(best)

    @rule(order=orders)
    def retry(self, order: str) -> None:
        if order in self.holding:
            self.plan.free(order)
            self.plan.queue(order)
            self.holding.discard(order)
            self.waiting.add(order)

    @rule(order=orders)
    def put_aside(self, order: str) -> None:
        if order in self.holding:
            self.plan.free(order)
            self.plan.unqueue(order)
            self.holding.discard(order)

    @rule(order=orders)
    def sleep(self, order: str) -> None:
        if order in self.files and order not in self.holding:
            self.plan.unqueue(order)
            self.waiting.discard(order)

    @rule(order=orders)
    def wake(self, order: str) -> None:
        if order in self.files and order not in self.holding:
            self.plan.queue(order)
            self.waiting.add(order)

    @rule(order=orders)
    def take_up(self, order: str) -> None:
        """It is at work, as seen after a restart."""
        mine = self.files.get(order, ())
        taken = any(overlap(f, g) for p in self.holding for f in mine for g in self.files[p])
        if order in self.files and order not in self.holding and not taken:
            self.plan.unqueue(order)
            self.plan.hold(order)
            self.plan.hold(order)
            self.waiting.discard(order)
            self.holding.add(order)

    @rule(order=orders)
    def deliver(self, order: str) -> None:
        self.plan.deliver(order)
        self.delivered.add(order)

    @rule(order=orders)
    def withdraw(self, order: str) -> None:
        self.plan.withdraw(order)
        self.delivered.discard(order)

    @rule(order=consumes(orders), again=st.booleans())
    def drop(self, order: str, again: bool) -> None:
        needs, files = self.needs.pop(order), self.files.pop(order)
        self.plan.drop(order)
        self.plan.drop(order)
        self.waiting.discard(order)
        self.holding.discard(order)
        if again:
            self.needs[order], self.files[order] = needs, files
            self.plan.add(order, self.keys[order], needs, files)
            self.waiting.add(order)

    @invariant()
    def answers_agree(self) -> None:
        assert len(self.plan) == len(self.files)
        for order, needs in self.needs.items():
            assert order in self.plan
            assert self.plan.waits_for(order) == needs - self.delivered
            assert self.plan.is_queued(order) == (order in self.waiting and needs <= self.delivered)
            holders = {
                p
                for p in self.holding - {order}
                if any(overlap(f, g) for f in self.files[order] for g in self.files[p])
            }
            found = self.plan.held_by(order)
            assert found in holders if holders else found is None

    @invariant()
    def nobody_shares_a_file(self) -> None:
        held = [(o, f) for o in self.holding for f in self.files[o]]
        assert not any(a != b and overlap(f, g) for a, f in held for b, g in held)

    def teardown(self) -> None:
        """In the end everything is delivered and given back, and nobody was forgotten."""
        for order in list(self.files):
            self.plan.free(order)
            self.plan.queue(order)
        self.waiting |= self.files.keys()
        self.holding.clear()
        for needs in list(self.needs.values()):
            for need in needs:
                self.plan.deliver(need)
                self.delivered.add(need)
        popped = []
        while (order_ := self.plan.pop()) is not None:
            popped.append(order_)
            self.plan.drop(order_)
        assert sorted(popped) == sorted(self.waiting)


TestModel = Model.TestCase
TestModel.settings = settings(max_examples=80, stateful_step_count=40)


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
