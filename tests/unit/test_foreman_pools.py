"""Which pool takes an issue: rules, categories, types, and what becomes of those that fail."""

from typing import Any

import pytest

from shopfloor import UsageError
from shopfloor.faces.foreman.pools import MOST_RETRIES, Pool, Routing, Rule, routing_of
from shopfloor.faces.foreman.task import Task

CREW = Routing(
    pools=(
        Pool(name="coding", max_concurrent=3),
        Pool(name="research", worker="reader"),
        Pool(name="senior", route_types=("epic",)),
        Pool(name="testing"),
    ),
    rules=(
        Rule(if_status="blocked", and_retry_count_gte=2, then_pool="senior"),
        Rule(if_metadata_type="security", then_pool="senior"),
    ),
    default_pool="testing",
)  # fmt: skip


def task(**fields: Any) -> Task:
    return Task(id="wo-a", title="t", **fields)


@pytest.mark.parametrize(
    ("fields", "pool"),
    [
        ({"issue_type": "task"}, "coding"),
        ({"issue_type": "bug"}, "coding"),
        ({"issue_type": "chore"}, "testing"),
        ({"issue_type": "epic"}, "research"),
        ({"issue_type": "poem"}, "testing"),
        ({"issue_type": "bug", "metadata": {"category": "research"}}, "research"),
        ({"issue_type": "bug", "metadata": {"category": "unknown"}}, "coding"),
        ({"metadata": {"type": "security", "category": "research"}}, "senior"),
        ({"issue_type": "security"}, "senior"),
        ({"status": "blocked", "retries": 2}, "senior"),
        ({"status": "blocked", "retries": 1}, "coding"),
        ({"status": "open", "retries": 5}, "coding"),
    ],
)
def test_the_first_thing_that_fits_decides(fields: dict[str, Any], pool: str) -> None:
    assert CREW.pool_for(task(**fields)) == pool


def test_an_issue_that_has_just_failed_is_routed_as_a_blocked_one() -> None:
    assert CREW.pool_for(task(retries=1), failed=True) == "coding"
    assert CREW.pool_for(task(retries=2), failed=True) == "senior"
    assert CREW.pool_for(task(retries=2)) == "coding"


def test_a_rule_about_retries_alone_escalates() -> None:
    pools = (Pool(name="junior", route_types=("task",)), Pool(name="senior"))
    crew = Routing(pools=pools, rules=(Rule(then_pool="senior", and_retry_count_gte=2),))
    assert [crew.pool_for(task(retries=n)) for n in range(4)] == ["junior", "junior", "senior", "senior"]


def test_who_fails_too_often_is_given_up() -> None:
    assert [n for n in range(8) if CREW.gives_up(task(retries=n))] == list(range(MOST_RETRIES + 1, 8))


def test_without_a_default_the_first_pool_takes_the_rest() -> None:
    assert Routing(pools=(Pool(name="a"), Pool(name="b"))).pool_for(task()) == "a"
    assert Routing().pool_for(task()) == ""


def test_a_configuration_of_another_crew() -> None:
    crew = routing_of(
        {
            "worker_pools": [
                {"name": "coding-pool", "worker_bundle": "coder", "max_concurrent": 3, "route_types": ["task", "bug"]},
                {"name": "privileged", "worker_bundle": "senior", "max_concurrent": 1},
            ],
            "routing": {
                "default_pool": "coding-pool",
                "rules": [{"if_status": "blocked", "and_retry_count_gte": 2, "then_pool": "privileged"}],
            },
        }
    )
    assert [(p.name, p.profile, p.max_concurrent) for p in crew.pools] == [
        ("coding-pool", "coder", 3),
        ("privileged", "senior", 1),
    ]
    assert crew.pool_for(task(retries=2), failed=True) == "privileged"
    assert routing_of({}) == Routing()


@pytest.mark.parametrize(
    ("config", "named"),
    [
        ({"worker_pools": {}}, ""),
        ({"worker_pools": "coding"}, "worker_pools is 'coding'"),
        ({"worker_pools": [{}]}, "name"),
        ({"worker_pools": ["coding"]}, "'coding'"),
        ({"worker_pools": [{"name": "a", "max_concurrent": 0}]}, "max_concurrent of pool 'a' is 0"),
        ({"worker_pools": [{"name": "a", "max_concurrent": "2"}]}, "max_concurrent"),
        ({"worker_pools": [{"name": "a", "colour": "red"}]}, "'colour'"),
        ({"worker_pools": [{"name": "a"}, {"name": "a"}]}, "one name"),
        ({"worker_pools": [{"name": "a"}], "routing": {"default_pool": "b"}}, "default_pool is 'b'"),
        ({"worker_pools": [{"name": "a"}], "routing": {"rules": [{"then_pool": "b"}]}}, "then_pool is 'b'"),
        ({"routing": []}, ""),
        ({"routing": "x"}, "routing is 'x'"),
        ({"routing": {"max_retries": -1}}, "max_retries is -1"),
        ({"routing": {"max_retries": True}}, "max_retries is True"),
        ({"worker_pools": [{"name": ""}]}, "name is empty"),
        ({"worker_pools": [{"name": "a", "max_concurrent": 1001}]}, "max_concurrent of pool 'a' is 1001"),
        ({"routing": {"defaultpool": "a"}}, "routing has a key 'defaultpool'"),
        ({"routing": {"rules": [{"then": "a"}]}}, "routing.rules has a key 'then'"),
    ],
)
def test_what_is_off_is_named(config: dict[str, Any], named: str) -> None:
    if not named:
        assert routing_of(config) == Routing()
        return
    with pytest.raises(UsageError, match=named):
        routing_of(config)
