"""A run while other programs write into `work_orders.jsonl`: their wishes come in like any other line of the log."""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from shopfloor.cli.main import root
from shopfloor.domain.events import E
from shopfloor.domain.order import State
from shopfloor.engine.outset import Outset
from shopfloor.stores.views import ORDERS

from .engine_lab import Watch, hold_file, records, until_true
from .lab import Lab, git, row, script, write


@pytest.fixture
def lab(tmp_path: Path) -> Lab:
    return Lab(tmp_path)


def edit(lab: Lab, changes: Mapping[str, Mapping[str, Any]]) -> None:
    """What a peer does: read everything, change fields of some orders by name, write everything."""
    path = lab.repo / ".work" / ORDERS
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    for line in lines:
        line.update(changes.get(line["metadata"]["shopfloor"]["name"], {}))
    temporary = path.with_name("theirs.tmp")
    temporary.write_text("".join(json.dumps(line) + "\n" for line in lines))
    temporary.replace(path)


def published(lab: Lab) -> dict[str, dict[str, Any]]:
    path = lab.repo / ".work" / ORDERS
    lines = [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []
    return {line["metadata"]["shopfloor"]["name"]: line for line in lines}


async def test_a_run_follows_what_is_theirs_to_say_and_nothing_else(lab: Lab, tmp_path: Path) -> None:
    hold, waits = hold_file(tmp_path)
    prompts = [
        lab.prompt("first", script({"run": waits}, write("first.txt")), priority=0),
        *(lab.prompt(name, script(write(f"{name}.txt"))) for name in ("closed", "reworded", "taken", "later")),
        lab.prompt("needs-closed", script(write("n.txt")), depends_on=["closed"]),
    ]
    async with lab.floor(max_parallel=1) as floor:
        watch = Watch(floor)
        running = asyncio.create_task(floor.run(prompts))
        await watch.until(E.AGENT_STARTED)
        await until_true(lambda: published(lab).get("first", {}).get("status") == "in_progress", "the view")
        edit(lab, {
            "first": {"status": "closed", "title": "no"},
            "closed": {"status": "closed"},
            "reworded": {"description": "# reworded\n\n" + script(write("other.txt"))},
            "taken": {"status": "assigned", "assignee": "orchard/workers/slot1"},
            "later": {"dependencies": [{"depends_on_id": published(lab)["reworded"]["id"], "type": "blocks"}],
                      "priority": 0},
        })  # fmt: skip
        await watch.until(E.VIEW_COLLISION)
        await watch.until(E.UPDATED, 4)
        found = records(await floor.board())
        assert (found["closed"].state, found["taken"].elsewhere) == (State.CANCELLED, "assigned")
        hold.unlink()
        report = await asyncio.wait_for(running, 40)
    assert row(report, "first").outcome == "landed"
    assert row(report, "reworded").outcome == "landed"
    assert row(report, "later").outcome == "landed"
    assert row(report, "closed").outcome == "cancelled"
    assert row(report, "taken").outcome == "waiting"
    assert (row(report, "needs-closed").outcome, row(report, "needs-closed").reason) == ("failed", "dependency")
    files = git(lab.repo, "ls-tree", "--name-only", "main").split()
    assert "other.txt" in files
    assert not {"reworded.txt", "closed.txt", "taken.txt", "n.txt"} & set(files)
    started = [watch.events.index(e) for e in watch.of(E.AGENT_STARTED)]
    assert len(started) == 3
    edit(lab, {"taken": {"status": "open", "assignee": ""}, "closed": {"status": "open"}})
    os.utime(lab.repo / ".work" / ORDERS, (1, 1))
    async with lab.floor() as floor:
        report = await floor.resume()
    assert row(report, "taken").outcome == "landed"
    assert row(report, "closed").outcome == "landed"
    assert report.counts["landed"] == 5


async def test_a_wish_between_a_decision_and_its_claim_comes_first(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    really = Outset._base
    edited: list[int] = []

    async def base(self: Outset, record: Any) -> str:
        """The last thing before the claim."""
        if record.order.name == "mine" and not edited:
            edited.append(1)
            await until_true(lambda: "mine" in published(lab), "the view")
            edit(lab, {"mine": {"description": script(write("theirs.txt"))}})
            path = lab.repo / ".work/events.jsonl"
            await until_true(lambda: b'"work_order.updated"' in path.read_bytes(), "the import")
        return await really(self, record)

    monkeypatch.setattr(Outset, "_base", base)
    async with lab.floor() as floor:
        report = await floor.run([lab.prompt("mine", script(write("ours.txt")))])
    assert row(report, "mine").outcome == "landed"
    files = git(lab.repo, "ls-tree", "--name-only", "main").split()
    assert ("theirs.txt" in files, "ours.txt" in files) == (True, False)


def test_a_collision_is_seen_where_people_look(lab: Lab) -> None:
    report = lab.run(lab.prompt("red", script(write("broken"))), rework=0)
    assert row(report, "red").outcome == "failed"
    edit(lab, {"red": {"status": "assigned", "assignee": "ann"}})
    path = lab.repo / ".work" / ORDERS
    with path.open("a") as file:
        file.write('{"id":"nonsense"}\n')
    os.utime(path, (1, 1))
    said = {}
    for command in (["status"], ["show", "red"], ["doctor"]):
        said[command[0]] = CliRunner().invoke(root, ["-C", str(lab.repo), *command]).output
    assert "another program wants status" in said["status"]
    assert 'status = "assigned"' in said["status"]
    assert "shopfloor retry red" in said["status"]
    assert 'assignee = "ann"' in said["show"]
    assert "not followed" in said["show"]
    assert "'red'" in said["doctor"]
    assert "line 2: an id is like wo-abc12" in said["doctor"]
