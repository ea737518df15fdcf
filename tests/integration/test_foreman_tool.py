"""The tool ``issue_manager`` on a real log: every operation, who may do what, what is refused and how it says so."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from shopfloor import Shopfloor
from shopfloor.faces.foreman.pools import Pool, Routing, Rule
from shopfloor.faces.foreman.progress import HEAD, MOST_NAMED, Progress, after_failure, worker_status
from shopfloor.faces.foreman.tasks import Tasks
from shopfloor.faces.foreman.tool import IssueTool, ToolResult

CREW = Routing(
    pools=(Pool(name="coding"), Pool(name="research"), Pool(name="senior", route_types=("none",))),
    rules=(Rule(if_status="blocked", and_retry_count_gte=2, then_pool="senior"),),
    max_retries=2,
)


class Crew:
    """A foreman and two workers at one log."""

    def __init__(self, floor: Shopfloor) -> None:
        self.floor = floor
        self.tasks = {name: Tasks(floor, name) for name in ("foreman", "coder-0", "coder-1")}
        self.tools = {name: IssueTool(tasks, routing=CREW) for name, tasks in self.tasks.items()}

    async def call(self, who: str, operation: str, **params: Any) -> ToolResult:
        return await self.tools[who].execute({"operation": operation, **params})

    async def do(self, who: str, operation: str, **params: Any) -> dict[str, Any]:
        result = await self.call(who, operation, **params)
        assert result.success, result.error
        assert result.output is not None
        return result.output

    async def refused(self, who: str, operation: str, **params: Any) -> str:
        result = await self.call(who, operation, **params)
        assert not result.success, result.output
        assert result.error is not None
        assert result.output is None
        return result.error.message

    async def create(self, title: str = "t", **params: Any) -> str:
        return str((await self.do("foreman", "create", title=title, **params))["issue"]["id"])

    async def issue(self, name: str) -> dict[str, Any]:
        found: dict[str, Any] = (await self.do("foreman", "get", issue_id=name))["issue"]
        return found

    async def status(self, name: str) -> str:
        return str((await self.issue(name))["status"])

    async def ready(self) -> list[str]:
        return [issue["id"] for issue in (await self.do("foreman", "get_ready"))["ready_issues"]]


@asynccontextmanager
async def at_work(folder: Path) -> AsyncIterator[Crew]:
    async with Shopfloor.open(folder, without_git=True) as floor:
        found = Crew(floor)
        yield found
        for tasks in found.tasks.values():
            await tasks.end()


async def test_an_issue_has_every_field(tmp_path: Path) -> None:
    async with at_work(tmp_path) as crew:
        parent = await crew.create("whole")
        name = await crew.create(
            "scrape", description="the page", priority="high", issue_type="feature", category="research",
            metadata={"size": 3}, parent_id=parent, discovered_from=parent, assignee="coder-1",
        )  # fmt: skip
        issue = await crew.issue(name)
        told = {key: issue[key] for key in ("title", "description", "priority", "issue_type", "status", "category")}
        assert told == {
            "title": "scrape", "description": "the page", "priority": 1, "issue_type": "feature", "status": "open",
            "category": "research",
        }  # fmt: skip
        assert (issue["parent_id"], issue["discovered_from"], issue["assignee"]) == (parent, parent, "coder-1")
        assert issue["metadata"]["size"] == 3
        assert issue["metadata"]["pool"] == "research"
        assert issue["created_at"].endswith("Z")
        assert [issue[key] for key in ("closed_at", "blocking_notes", "result")] == [None] * 3
        assert issue["created_by"] == "foreman"


async def test_words_are_flat_or_nested_and_ids_cut_short(tmp_path: Path) -> None:
    async with at_work(tmp_path) as crew:
        name = await crew.create()
        nested = await crew.tools["foreman"].execute({"operation": "get", "params": {"id": name[:9]}})
        assert nested.as_dict()["output"]["issue"]["id"] == name
        await crew.create()
        assert "may be 2 orders" in await crew.refused("foreman", "get", issue_id="wo-")
        assert "no order 'wo-nothing'" in await crew.refused("foreman", "get", issue_id="wo-nothing")


async def test_a_list_by_what_is_wanted(tmp_path: Path) -> None:
    async with at_work(tmp_path) as crew:
        first = await crew.create("one", priority=4, issue_type="bug", metadata={"area": "web", "n": 1})
        second = await crew.create("two", priority=0, category="research", metadata={"area": "web"})
        third = await crew.create("three", metadata={"area": "db"})

        async def listed(**wanted: Any) -> list[str]:
            found = await crew.do("foreman", "list", **wanted)
            assert found["count"] == len(found["issues"])
            return [issue["id"] for issue in found["issues"]]

        assert await listed() == [second, third, first], "by priority"
        assert await listed(metadata={"area": "web"}) == [second, first]
        assert await listed(metadata={"area": "web", "n": 1}) == [first]
        assert await listed(issue_type="bug") == [first]
        assert await listed(priority="critical") == [second]
        assert await listed(category="research") == [second]
        assert await listed(status="done") == []
        few = await crew.do("foreman", "list", limit=1)
        assert (len(few["issues"]), few["count"], few["left_out"]) == (1, 3, 2)


async def test_a_claim_is_for_one(tmp_path: Path) -> None:
    async with at_work(tmp_path) as crew:
        name = await crew.create()
        claimed = await crew.do("coder-0", "claim", issue_id=name, assignee="coder-0")
        assert (claimed["issue"]["status"], claimed["issue"]["assignee"]) == ("in_progress", "coder-0")
        assert "in_progress by coder-0" in await crew.refused("coder-1", "claim", issue_id=name)
        assert "coder-0" in await crew.refused("coder-1", "update", issue_id=name, status="completed", result="mine")
        assert "coder-0" in await crew.refused("coder-1", "release", issue_id=name)
        again = await crew.do("coder-0", "claim", issue_id=name)
        assert again["issue"]["assignee"] == "coder-0", "one's own is no double claim"
        await crew.do("coder-0", "release", issue_id=name, reason="not today")
        assert (await crew.do("coder-1", "update", issue_id=name, status="in_progress"))["issue"][
            "assignee"
        ] == "coder-1"


async def test_of_many_who_claim_one_wins(tmp_path: Path) -> None:
    async with at_work(tmp_path) as crew:
        names = [await crew.create(str(n)) for n in range(3)]
        for name in names:
            calls = [crew.call(who, "claim", issue_id=name) for who in crew.tools for _ in range(1)]
            won = [result for result in await asyncio.gather(*calls) if result.success]
            assert len(won) == 1


async def test_work_is_completed_once_with_its_result(tmp_path: Path) -> None:
    async with at_work(tmp_path) as crew:
        name = await crew.create()
        await crew.do("coder-0", "claim", issue_id=name)
        done = await crew.do("coder-0", "complete", issue_id=name, result="42")
        issue = done["issue"]
        assert (issue["status"], issue["result"], issue["assignee"]) == ("completed", "42", "coder-0")
        assert issue["closed_at"].endswith("Z")
        again = await crew.do("coder-1", "complete", issue_id=name, result="43")
        assert again["issue"]["result"] == "42"
        assert "not opened again" in await crew.refused("foreman", "update", issue_id=name, status="open")
        assert "is completed" in await crew.refused("coder-1", "claim", issue_id=name)
        closed = await crew.do("foreman", "close", issue_id=name)
        assert closed["issue"]["status"] == "completed", "closing what is finished changes nothing"


async def test_closing_is_idempotent_and_lets_others_go_on(tmp_path: Path) -> None:
    async with at_work(tmp_path) as crew:
        first = await crew.create("first")
        second = await crew.create("second", depends_on=[first])
        assert await crew.ready() == [first]
        for _ in range(2):
            closed = await crew.do("foreman", "close", issue_id=first, reason="not wanted")
            assert (closed["issue"]["status"], closed["issue"]["closed_at"] is None) == ("closed", False)
        assert await crew.ready() == [second]
        assert "not opened again" in await crew.refused("foreman", "update", issue_id=first, status="open")


async def test_what_somebody_works_on_is_closed_by_force_only(tmp_path: Path) -> None:
    async with at_work(tmp_path) as crew:
        name = await crew.create()
        await crew.do("coder-0", "claim", issue_id=name)
        assert "coder-0" in await crew.refused("foreman", "close", issue_id=name)
        await crew.do("foreman", "close", issue_id=name, force=True)
        assert await crew.status(name) == "closed"
        assert "closed" in await crew.refused("coder-0", "complete", issue_id=name, result="late")


async def test_a_question_and_its_answer(tmp_path: Path) -> None:
    async with at_work(tmp_path) as crew:
        name = await crew.create(description="paint it")
        await crew.do("coder-0", "claim", issue_id=name)
        assert "reason is missing" in await crew.refused("coder-0", "request_user_input", issue_id=name)
        asked = await crew.do("coder-0", "request_user_input", issue_id=name, reason="which colour?")
        assert (asked["issue"]["status"], asked["issue"]["blocking_notes"]) == ("pending_user_input", "which colour?")
        assert await crew.ready() == []
        assert "pending_user_input" in await crew.refused("coder-1", "claim", issue_id=name)
        blocked = await crew.do("foreman", "get_blocked")
        assert [issue["id"] for issue in blocked["blocked_issues"]] == [name]
        opened = await crew.do("foreman", "unblock", issue_id=name, info="green")
        assert opened["issue"]["status"] == "open"
        assert opened["issue"]["blocking_notes"] is None
        assert "which colour?" in opened["issue"]["description"]
        assert opened["issue"]["description"].rstrip().endswith("green")
        assert (await crew.do("coder-1", "claim", issue_id=name))["issue"]["status"] == "in_progress"
        assert "nothing to unblock" in await crew.refused("foreman", "unblock", issue_id=name)


async def test_statuses_by_update_mean_the_same(tmp_path: Path) -> None:
    async with at_work(tmp_path) as crew:
        name = await crew.create()
        await crew.do("coder-0", "update", issue_id=name, status="in_progress")
        await crew.do("coder-0", "update", issue_id=name, status="waiting", comment="which colour?")
        assert (await crew.issue(name))["blocking_notes"] == "which colour?"
        await crew.do("foreman", "update", issue_id=name, status="open")
        await crew.do("coder-0", "update", issue_id=name, status="in_progress")
        await crew.do("coder-0", "update", issue_id=name, status="blocked", block_reason="no key")
        assert (await crew.issue(name))["blocking_notes"] == "no key"
        await crew.do("foreman", "update", issue_id=name, status="open", info="here it is")
        await crew.do("coder-1", "update", issue_id=name, status="done", result="painted")
        assert (await crew.issue(name))["result"] == "painted"


async def test_fields_are_changed_and_comments_kept(tmp_path: Path) -> None:
    async with at_work(tmp_path) as crew:
        name = await crew.create()
        changed = await crew.do(
            "foreman", "update", issue_id=name, title="new", priority="low", issue_type="chore", metadata={"a": 1},
            comment="because",
        )  # fmt: skip
        issue = changed["issue"]
        assert [issue[k] for k in ("title", "priority", "issue_type")] == ["new", 3, "chore"]
        assert issue["metadata"]["a"] == 1
        await crew.do("coder-0", "claim", issue_id=name)
        assert "cannot be changed" in await crew.refused("foreman", "update", issue_id=name, title="other")
        await crew.do("coder-0", "update", issue_id=name, comment="half done")
        events = (await crew.do("foreman", "get_events", issue_id=name))["events"]
        assert [e["actor"] for e in events] == ["foreman", "foreman", "coder-0", "coder-0"], (
            "the real one, not the foreman"
        )
        assert events[1]["changes"]["title"] == {"old": "t", "new": "new"}
        assert events[3]["changes"] == {"comment": {"old": "because", "new": "half done"}}


async def test_dependencies_of_every_kind(tmp_path: Path) -> None:
    async with at_work(tmp_path) as crew:
        first, second, third = [await crew.create(title) for title in ("first", "second", "third")]
        made = await crew.do("foreman", "add_dependency", from_id=second, to_id=first)
        assert made["dependency"] == {"from_id": second, "to_id": first, "dependency_type": "blocks"}
        await crew.do("foreman", "add_dependency", from_id=third, to_id=second, dep_type="blocks")
        for kind in ("related", "parent-child", "discovered_from"):
            await crew.do("foreman", "add_dependency", from_id=first, to_id=third, dependency_type=kind)
        assert "wait for itself" in await crew.refused("foreman", "add_dependency", from_id=first, to_id=third)
        assert "wait" in await crew.refused("foreman", "add_dependency", from_id=first, to_id=first)
        assert "dependency type is 'needs'" in await crew.refused(
            "foreman", "add_dependency", from_id=first, to_id=third, dependency_type="needs"
        )
        assert await crew.ready() == [first]
        blocked = (await crew.do("foreman", "get_blocked"))["blocked_issues"]
        assert [issue["id"] for issue in blocked] == [second, third]
        assert "waits for others" in await crew.refused("coder-0", "claim", issue_id=second)
        await crew.do("coder-0", "claim", issue_id=first)
        await crew.do("foreman", "add_dependency", from_id=first, to_id=second, dependency_type="related")
        await crew.do("coder-0", "complete", issue_id=first)
        assert await crew.ready() == [second]
        await crew.do("foreman", "remove_dependency", from_id=third, to_id=second)
        assert await crew.ready() == [second, third]


async def test_what_is_ready_comes_by_priority(tmp_path: Path) -> None:
    async with at_work(tmp_path) as crew:
        low, high, middle = [await crew.create(priority=p) for p in (4, 0, 2)]
        assert await crew.ready() == [high, middle, low]


async def test_who_worked_on_it(tmp_path: Path) -> None:
    async with at_work(tmp_path) as crew:
        name = await crew.create()
        await crew.do("coder-0", "claim", issue_id=name)
        await crew.do("coder-0", "release", issue_id=name, reason="too hard")
        await crew.do("coder-1", "complete", issue_id=name, result="done")
        sessions = (await crew.do("foreman", "get_sessions", issue_id=name))["linked_sessions"]
        assert [(s["worker"], s["outcome"]) for s in sessions] == [("coder-0", "stopped"), ("coder-1", "completed")]
        assert all(s["session_id"] and s["started_at"] and s["ended_at"] for s in sessions)


@pytest.mark.parametrize(
    ("call", "named"),
    [
        ({}, "no operation None"),
        ({"operation": "destroy"}, "no operation 'destroy'"),
        ({"operation": ["create"]}, "no operation"),
        ({"operation": "create"}, "title is missing"),
        ({"operation": "create", "title": "t", "colour": "red"}, "no parameter 'colour'"),
        ({"operation": "create", "title": "t", "priority": 9}, "priority is 9"),
        ({"operation": "create", "title": "t", "issue_type": "poem"}, "issue_type is 'poem'"),
        ({"operation": "create", "title": "t", "depends_on": ["wo-nothing"]}, "no order 'wo-nothing'"),
        ({"operation": "create", "params": "title"}, "params is 'title'"),
        ({"operation": "list", "status": "ready"}, "status is 'ready'"),
        ({"operation": "list", "limit": 0}, "limit is 0"),
        ({"operation": "update"}, "issue_id is missing"),
        ({"operation": "add_dependency", "from_id": "x"}, "to_id is missing"),
    ],
)
async def test_what_is_off_is_an_answer_and_no_exception(call: dict[str, Any], named: str, tmp_path: Path) -> None:
    async with at_work(tmp_path) as crew:
        result = await crew.tools["foreman"].execute(call)
        assert not result.success
        assert result.error is not None
        assert named in result.error.message
        assert result.as_dict() == {"success": False, "error": {"message": result.error.message}}


async def test_the_schema_names_every_operation(tmp_path: Path) -> None:
    async with at_work(tmp_path) as crew:
        tool = crew.tools["foreman"]
        assert set(tool.input_schema["properties"]["operation"]["enum"]) == set(tool.operations)
        assert all(operation in tool.description for operation in tool.operations)


async def test_an_issue_is_an_order_of_the_one_log(tmp_path: Path) -> None:
    async with at_work(tmp_path) as crew:
        name = await crew.create("seen by others")
        board = await crew.floor.board(order=name)
        assert board.records[name].order.title == "seen by others"
        assert {path.name for path in (tmp_path / ".work").glob("*.jsonl")} <= {
            "events.jsonl", "feed.jsonl", "work_orders.jsonl", "messages.jsonl",
        }  # fmt: skip


# -- what the foreman is told, and what becomes of failures ------------------------------------------------------------


async def test_progress_is_told_once(tmp_path: Path) -> None:
    async with at_work(tmp_path) as crew:
        old = await crew.create("old")
        await crew.do("coder-0", "complete", issue_id=old, result="before")
        progress = Progress(crew.tasks["foreman"])
        await progress.begin()
        assert await progress.block() == ""
        one, two, three = [await crew.create(title) for title in ("one", "two", "three")]
        await crew.do("coder-0", "claim", issue_id=one)
        await crew.do("coder-1", "complete", issue_id=two, result="it works")
        await crew.do("coder-1", "claim", issue_id=three)
        await crew.do("coder-1", "request_user_input", issue_id=three, reason="which colour?")
        progress.trouble("mount plan 'x' is missing")
        progress.trouble("mount plan 'x' is missing")
        told = await progress.block()
        assert told.startswith(HEAD)
        for words in (f"{two} two: it works", f"{one} one (coder-0)", f"{three} three: which colour?"):
            assert words in told
        assert told.count("mount plan 'x' is missing") == 1
        assert old not in told
        again = await progress.block()
        assert "it works" not in again
        assert "mount plan" not in again
        assert "which colour?" in again, "a question is asked until it is answered"
        assert f"{one} one (coder-0)" in again
        status = worker_status(await crew.tasks["foreman"].all())
        assert (status[one], status[two], status[old]) == ("running", "completed", "completed")


async def test_what_is_completed_is_told_as_it_stands_and_refused_when_it_was_taken_back(tmp_path: Path) -> None:
    async with at_work(tmp_path) as crew:
        held, free, lost = [await crew.create(f"number {n}", category="coding") for n in range(3)]
        await crew.do("coder-0", "claim", issue_id=held)
        for name in (held, free):
            issue = (await crew.do("coder-0", "complete", issue_id=name, result="it works"))["issue"]
            assert (issue["status"], issue["result"], issue["assignee"]) == ("completed", "it works", "coder-0")
            assert issue == await crew.issue(name)
            assert (await crew.do("coder-0", "complete", issue_id=name, result="again"))["issue"] == issue
        await crew.do("coder-0", "claim", issue_id=lost)
        for operation in ("release", "request_user_input"):
            issue = (await crew.do("coder-0", operation, issue_id=lost, reason="which colour?"))["issue"]
            assert issue == await crew.issue(lost)
            if operation == "request_user_input":
                await crew.do("foreman", "unblock", issue_id=lost)
            await crew.do("coder-0", "claim", issue_id=lost)
        await crew.do("foreman", "close", issue_id=lost, reason="no need", force=True)
        assert "'coder-0' does not hold it" in await crew.refused("coder-0", "complete", issue_id=lost)
        assert crew.tasks["coder-0"].held == {lost}
        crew.tasks["coder-0"].forget(lost)


async def test_many_completions_are_counted_the_most_urgent_named_and_none_told_again(tmp_path: Path) -> None:
    async with at_work(tmp_path) as crew:
        progress = Progress(crew.tasks["foreman"])
        await progress.begin()
        names = [await crew.create(f"number {n}", priority=4 - n // 4) for n in range(MOST_NAMED + 2)]
        for name in names:
            await crew.do("coder-0", "complete", issue_id=name, result="it works")
        told = await progress.block()
        assert f"completed since you were last told: {len(names)}" in told
        assert [name in told for name in names] == [True, True, False, False] + [True] * (MOST_NAMED - 2)
        assert told.index(names[-1]) < told.index(names[1])
        await crew.do("foreman", "update", issue_id=names[-1], comment="well done")
        assert await progress.block() == ""
        blocked = await crew.create("stuck")
        await crew.do("coder-0", "update", issue_id=blocked, status="blocked", block_reason="no key")
        assert "no key" in await progress.block()
        assert await progress.block() == ""
        await crew.do("foreman", "unblock", issue_id=blocked)
        assert await progress.block() == ""
        await crew.do("coder-0", "update", issue_id=blocked, status="blocked", block_reason="no door")
        assert "no door" in await progress.block()


async def test_a_list_has_what_is_to_be_done_first_and_counts_the_rest(tmp_path: Path) -> None:
    async with at_work(tmp_path) as crew:
        names = [await crew.create(f"number {n}", priority=n % 3, category="coding") for n in range(9)]
        for name in names[:6]:
            await crew.do("coder-0", "complete", issue_id=name)
        await crew.do("foreman", "close", issue_id=names[6])

        async def listed(**params: Any) -> tuple[list[int], int]:
            found = await crew.do("foreman", "list", **params)
            assert found.get("left_out", 0) == found["count"] - len(found["issues"])
            return [names.index(issue["id"]) for issue in found["issues"]], found["count"]

        assert await listed() == ([7, 8, 0, 3, 6, 1, 4, 2, 5], 9)
        assert await listed(limit=4) == ([7, 8, 0, 3], 9)
        assert await listed(limit=1) == ([7], 9)
        assert await listed(status="completed", limit=2) == ([0, 3], 6)
        assert await listed(status="closed") == ([6], 1)
        assert await listed(status="open") == ([7, 8], 2)
        assert await listed(priority=0, category="coding", limit=1) == ([0], 3)
        assert await listed(assignee="coder-0", metadata={"category": "coding"}, limit=5) == ([0, 3, 1, 4, 2], 6)
        assert await crew.tasks["foreman"].counts() == {"open": 2, "completed": 6, "closed": 1}


async def test_who_fails_goes_to_another_pool_and_then_to_a_person(tmp_path: Path) -> None:
    async with at_work(tmp_path) as crew:
        name = await crew.create()
        tasks = crew.tasks["coder-0"]
        pools = []
        for _ in range(3):
            await tasks.claim(name)
            await tasks.release(name, "it broke", failed=True)
            pools.append(await after_failure(tasks, CREW, name))
        assert pools == ["coding", "senior", ""]
        issue = await crew.issue(name)
        assert (issue["status"], issue["retries"], issue["metadata"]["pool"]) == ("blocked", 3, "senior")
        assert "failed 3 times" in issue["blocking_notes"]
        assert worker_status(await tasks.all())[name] == "failed"
