"""What other programs want of orders: followed where that is theirs to say, told of once where it is not."""

import json
import os
from pathlib import Path
from typing import Any

import pytest

from shopfloor.domain.events import E, Event
from shopfloor.domain.order import State
from shopfloor.ports import Query
from shopfloor.stores.views import ORDERS
from shopfloor.stores.workdir import WorkdirStore

from .workdir import claimed, created, event, open_store

GO_KEYS = ["id", "title", "description", "status", "priority", "issue_type", "created_at", "updated_at", "created_by"]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / ".work"


def view(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / ORDERS).read_text(encoding="utf-8").splitlines()]


def rewrite(folder: Path, lines: list[dict[str, Any]]) -> None:
    """As a peer does it; dated back, so that the file counts as left alone."""
    path = folder / ORDERS
    path.write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
    past = path.stat().st_mtime - 10
    os.utime(path, (past, past))


def through_go(line: dict[str, Any]) -> dict[str, Any]:
    """A line as a program that knows nine keys and dependencies writes it back: the rest dropped, times trimmed."""
    kept = {key: line[key] for key in GO_KEYS}
    if line.get("dependencies"):
        kept["dependencies"] = line["dependencies"]
    return {**kept, "created_at": line["created_at"].replace(".000Z", "Z")}


async def record(store: WorkdirStore, order: str = "wo-a1") -> dict[str, Any]:
    [row] = await store.query(Query(order=order))
    found: dict[str, Any] = row["record"]
    return found


async def wishes(store: WorkdirStore) -> list[tuple[str, dict[str, Any]]]:
    return [(found.event_type, found.data) async for _, found in store.read() if found.actor.startswith("file:")]


def led(order: str, kind: E, **data: Any) -> Event:
    return event(kind, work_order_id=order, generation=1, **data)


async def prepared(folder: Path, state: str) -> None:
    """An order in a state, by a controller that has ended."""
    done = [led("wo-a1", E.AGENT_STOPPED, outcome="completed", commit="c1", base="b0")]
    verified = [*done, led("wo-a1", E.VERIFY_VERDICT, verdict="PASS", commit="c1")]
    events = {
        "ready": [],
        "running": [claimed("wo-a1")],
        "verified": [claimed("wo-a1"), *verified],
        "done": [claimed("wo-a1"), *verified, led("wo-a1", E.LANDING_LANDED, commit="m1")],
        "failed": [claimed("wo-a1"), *done],
        "cancelled": [],
    }[state]
    if state in ("done", "failed", "cancelled"):
        events.append(event(E.SETTLED, work_order_id="wo-a1", outcome=state))
    async with open_store(folder) as store:
        await store.lead({})
        await store.append([created("wo-a1"), created("wo-b2")])
        for one in events:
            await store.append([one])
    assert (await peek(folder))["state"] == state


async def peek(folder: Path) -> dict[str, Any]:
    async with open_store(folder) as store:
        return await record(store)


async def edited(folder: Path, **changes: Any) -> tuple[dict[str, Any], list[tuple[str, dict[str, Any]]]]:
    """A peer changes fields of the first order; the record afterwards, and all that was logged of others so far."""
    first, *rest = view(folder)
    rewrite(folder, [{**first, **changes, "updated_at": "2027-01-01T00:00:00Z"}, *rest])
    async with open_store(folder) as store:
        return await record(store), await wishes(store)


EDITABLE: dict[str, Any] = {"priority": 0, "issue_type": "bug", "labels": ["x"], "x_team": "infra"}
WORDS: dict[str, Any] = {"title": "Other", "description": "new words", "dependencies": [{"depends_on_id": "wo-b2"}]}


@pytest.mark.parametrize("state", ["ready", "running", "verified", "done", "failed", "cancelled"])
async def test_what_means_little_changes_at_any_time(folder: Path, state: str) -> None:
    await prepared(folder, state)
    found, [(kind, data)] = await edited(folder, **EDITABLE)
    assert (kind, data["changes"]) == (E.UPDATED, EDITABLE)
    order = found["order"]
    assert (order["priority"], order["issue_type"], order["labels"]) == (0, "bug", ["x"])
    assert order["extra"] == {"x_team": "infra"}
    assert found["state"] == state
    assert {key: view(folder)[0][key] for key in EDITABLE} == EDITABLE


@pytest.mark.parametrize("state", ["ready", "failed", "cancelled"])
async def test_words_change_while_nobody_works_from_them(folder: Path, state: str) -> None:
    await prepared(folder, state)
    found, [(_, data)] = await edited(folder, **WORDS)
    order = found["order"]
    assert (order["title"], order["instruction"], order["depends_on"]) == ("Other", "new words", ["wo-b2"])
    assert data["generation"] == found["generation"], "a claim that was decided before is refused"


@pytest.mark.parametrize("state", ["running", "verified", "done"])
async def test_words_that_are_worked_from_stay(folder: Path, state: str) -> None:
    await prepared(folder, state)
    found, [(kind, data)] = await edited(folder, **WORDS)
    assert kind == E.VIEW_COLLISION
    assert {one["field"]: one["theirs"] for one in data["refused"]} == WORDS
    assert all(str(state) in one["why"] for one in data["refused"])
    assert found["order"]["title"] == "a title"
    assert len(found["collisions"]) == 3
    kept = (folder / data["kept"]).read_text(encoding="utf-8")
    assert json.loads(kept)["title"] == "Other"
    assert view(folder)[0]["title"] == "a title"


@pytest.mark.parametrize(
    ("state", "status", "then"),
    [
        ("ready", "closed", "cancelled"),
        ("failed", "closed", "cancelled"),
        ("failed", "open", "ready"),
        ("cancelled", "open", "ready"),
    ],
)
async def test_closing_gives_up_and_opening_begins_again(folder: Path, state: str, status: str, then: str) -> None:
    await prepared(folder, state)
    found, [(kind, data)] = await edited(folder, status=status)
    assert (kind, data["changes"]) == (E.UPDATED, {"status": status})
    assert (found["state"], found["reason"]) == (then, "closed" if then == "cancelled" else None)
    assert found["merge"] == ""


@pytest.mark.parametrize("state", ["running", "verified", "done", "failed", "cancelled"])
@pytest.mark.parametrize("changes", [{"status": "assigned", "assignee": "ann"}, {"assignee": "ann"}])
async def test_a_claim_of_what_is_ours_collides(folder: Path, state: str, changes: dict[str, Any]) -> None:
    await prepared(folder, state)
    before = await peek(folder)
    found, [(kind, data)] = await edited(folder, **changes)
    assert kind == E.VIEW_COLLISION
    assert {one["field"]: one["theirs"] for one in data["refused"]} == changes
    assert {**found, "collisions": []} == before


@pytest.mark.parametrize(("state", "status"), [("running", "closed"), ("verified", "closed"), ("done", "open")])
async def test_what_the_engine_has_decided_stays(folder: Path, state: str, status: str) -> None:
    await prepared(folder, state)
    found, [(kind, data)] = await edited(folder, status=status)
    assert (kind, data["refused"][0]["theirs"]) == (E.VIEW_COLLISION, status)
    assert found["state"] == state
    for number in range(3):  # a peer that goes on with what it has in memory
        again, told = await edited(folder, status=status, x_number=number)
        assert [kind for kind, _ in told].count(E.VIEW_COLLISION) == 1, "told once"
        assert again["order"]["extra"] == {"x_number": number}


async def test_a_claim_of_what_has_not_begun_is_theirs(folder: Path) -> None:
    await prepared(folder, "ready")
    found, _ = await edited(folder, status="assigned", assignee="orchard/workers/slot2")
    assert (found["state"], found["elsewhere"]) == (State.READY, "assigned")
    assert found["assignee"] == "orchard/workers/slot2"
    assert (view(folder)[0]["status"], view(folder)[0]["assignee"]) == ("assigned", "orchard/workers/slot2")
    found, _ = await edited(folder, status="open", assignee="")
    assert (found["elsewhere"], found["assignee"]) == ("", "")


async def test_fields_that_different_programs_changed_are_merged(folder: Path) -> None:
    await prepared(folder, "ready")
    first, second = view(folder)
    await edited(folder, priority=0)
    # Another program still has the first version, without the keys that it does not know.
    rewrite(folder, [{**through_go(first), "title": "Other", "updated_at": "2027-02-01T00:00:00Z"}, second])
    async with open_store(folder) as store:
        found = await record(store)
    assert (found["order"]["priority"], found["order"]["title"]) == (0, "Other")


async def test_a_field_that_was_changed_twice_stays_and_is_told(folder: Path) -> None:
    await prepared(folder, "ready")
    first, second = view(folder)
    await edited(folder, priority=0)
    rewrite(folder, [{**first, "priority": 4}, second])
    async with open_store(folder) as store:
        found, told = await record(store), await wishes(store)
    assert found["order"]["priority"] == 0
    assert told[-1][1]["refused"] == [{"field": "priority", "theirs": 4, "ours": 0, "why": "it was changed here too"}]


async def test_an_older_state_in_a_newer_line_is_a_wish(folder: Path) -> None:
    await prepared(folder, "ready")
    first, second = view(folder)
    await edited(folder, priority=0)
    again = {**through_go(first), "updated_at": "2030-01-01T00:00:00Z"}
    rewrite(folder, [again, second])
    assert (await peek(folder))["order"]["priority"] == 2, "somebody wants the old value back"
    await edited(folder, priority=1)
    rewrite(folder, [{**again, "updated_at": first["updated_at"]}, second])
    assert (await peek(folder))["order"]["priority"] == 1, "this one only wrote back what it had read"


async def test_values_that_no_field_can_have_are_told(folder: Path) -> None:
    await prepared(folder, "ready")
    found, [(first, wish), (kind, data)] = await edited(
        folder, priority="high", created_by="me", labels=[3], title="", x=1
    )
    assert (first, wish["changes"]) == (E.UPDATED, {"x": 1})
    refused = {one["field"] for one in data["refused"]}
    assert (kind, refused) == (E.VIEW_COLLISION, {"priority", "created_by", "labels", "title"})
    assert found["order"]["title"] == "a title"


async def wishes_of(folder: Path) -> list[tuple[str, dict[str, Any]]]:
    async with open_store(folder) as store:
        return await wishes(store)


async def test_a_circle_of_dependencies_is_refused(folder: Path) -> None:
    await prepared(folder, "ready")
    first, second = view(folder)
    first["dependencies"] = [{"depends_on_id": "wo-b2"}]
    second["dependencies"] = ["wo-a1"]
    rewrite(folder, [first, second])
    async with open_store(folder) as store:
        assert (await record(store))["order"]["depends_on"] == ["wo-b2"]
        other = await record(store, "wo-b2")
    assert other["order"]["depends_on"] == []
    assert other["collisions"] == [{"field": "dependencies", "theirs": '["wo-a1"]'}]
    found, told = await edited(folder, dependencies=[{"depends_on_id": "wo-none"}])
    assert found["order"]["depends_on"] == ["wo-b2"]
    assert "wo-none" in told[-1][1]["refused"][0]["why"]


async def test_what_a_go_program_drops_from_a_dependency_stays(folder: Path) -> None:
    await prepared(folder, "ready")
    need = {"issue_id": "wo-a1", "depends_on_id": "wo-b2", "type": "related", "created_at": "2026-02-01T00:00:00Z"}
    found, _ = await edited(folder, dependencies=[need])
    assert found["order"]["depends_on"] == [], "only blocks does"
    first, second = view(folder)
    go = {key: need[key] for key in ("depends_on_id", "type", "created_at")}
    rewrite(folder, [{**through_go(first), "dependencies": [go, {"depends_on_id": "wo-b2", "type": "blocks"}]}, second])
    found = await peek(folder)
    assert found["order"]["depends_on"] == ["wo-b2"]
    assert view(folder)[0]["dependencies"][0] == need


LINE = (
    '{"id":"wo-k3m9p","title":"Guard x \\u003c y \\u0026\\u0026 z","description":"","status":"open","priority":1,'
    '"issue_type":"bug","created_at":"2026-02-03T08:15:30.4521-05:00","updated_at":"2026-02-03t13:16:02z",'
    '"created_by":"ceo","assignee":null,"labels":null,"metadata":null,"dependencies":null,"x_team":"infra"}\n'
)


@pytest.mark.parametrize("end", ["\n", ""])
async def test_a_line_as_go_writes_it_becomes_an_order(folder: Path, end: str) -> None:
    await prepared(folder, "ready")
    with (folder / ORDERS).open("a", encoding="utf-8") as file:
        file.write(LINE.rstrip("\n") + end)
    os.utime(folder / ORDERS, (1, 1))
    async with open_store(folder) as store:
        found = await record(store, "wo-k3m9p")
        assert [kind for kind, _ in await wishes(store)] == [E.CREATED]
    order = found["order"]
    assert (order["title"], order["priority"], order["created_by"]) == ("Guard x < y && z", 1, "ceo")
    assert (order["issue_type"], order["extra"]) == ("bug", {"x_team": "infra"})
    assert view(folder)[-1]["created_at"] == "2026-02-03T13:15:30.452Z"
    with (folder / ORDERS).open("a", encoding="utf-8") as file:
        file.write(LINE)
    assert len(await wishes_of(folder)) == 1, "the same line again is no news"
    assert len(view(folder)) == 3


async def test_a_closed_line_of_another_program_is_no_work_that_is_done(folder: Path) -> None:
    await prepared(folder, "ready")
    rewrite(folder, [*view(folder), {"id": "wo-c3", "title": "t", "status": "closed", "type": "chore"}])
    async with open_store(folder) as store:
        found = await record(store, "wo-c3")
    assert (found["state"], found["reason"], found["order"]["issue_type"]) == ("cancelled", "closed", "chore")
    assert view(folder)[-1]["status"] == "closed"


async def test_a_line_that_stands_only_in_the_feed_is_no_event(folder: Path) -> None:
    await prepared(folder, "ready")
    line = (
        b'{"event_id":"evt-x","event_type":"work_order.created","timestamp":"2026-01-06T12:00:00Z","actor":"ceo",'
        b'"data":{"work_order_id":"wo-feed"}}'
    )
    with (folder / "feed.jsonl").open("ab") as feed:
        feed.write(line)
    async with open_store(folder) as store:
        await store.append([created("wo-c3")])
        assert {row["id"] for row in await store.query(Query())} == {"wo-a1", "wo-b2", "wo-c3"}
    lines = (folder / "feed.jsonl").read_bytes().splitlines()
    assert lines[-2] == line
    assert b"wo-c3" in lines[-1], "on a line of its own"


async def test_an_event_line_of_a_peer_follows_the_same_rules(folder: Path) -> None:
    await prepared(folder, "running")

    def peers(**changes: Any) -> bytes:
        line = {
            "event_id": "evt-p", "event_type": "work_order.updated", "timestamp": "2026-01-06T12:00:00Z",
            "actor": "ceo", "data": {"work_order_id": "wo-a1", "changes": changes},
        }  # fmt: skip
        return json.dumps(line).encode() + b"\n"

    with (folder / "events.jsonl").open("ab") as log:
        log.write(peers(priority=1, status="closed", type="bug", assignee=None, updated_at="x"))
    found = await peek(folder)
    assert (found["order"]["priority"], found["order"]["issue_type"], found["state"]) == (1, "bug", "running")
    assert [one["field"] for one in found["collisions"]] == ["status"]


@pytest.mark.parametrize("need", [[None], {"a": {}}, 7, None])
async def test_a_dependency_on_what_is_no_id_is_told_and_ends_nobody(folder: Path, need: object) -> None:
    async with open_store(folder) as store:
        await store.append([created("wo-a1")])
        await store.append(
            [event(E.UPDATED, work_order_id="wo-a1", changes={"dependencies": [{"depends_on_id": "wo-b2"}]})]
        )
    (line,) = view(folder)
    line["dependencies"][0]["depends_on_id"] = need
    rewrite(folder, [line])
    async with open_store(folder) as store:
        assert (await record(store))["order"]["depends_on"] == ["wo-b2"]
