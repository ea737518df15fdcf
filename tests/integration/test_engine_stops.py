"""Ends of all kinds: a stop at any moment, a cancelled call, an observer that raises; and going on afterwards."""

from __future__ import annotations

import asyncio
import json
import time
from pathlib import Path

import pytest

from shopfloor.app.leading import new_event_id, person
from shopfloor.domain.errors import Conflict, NotFound, Refused
from shopfloor.domain.events import E, Event
from shopfloor.domain.floor import Floor
from shopfloor.engine.journal import Draft, Journal

from .engine_lab import Watch, at_work_in, hold_file, log_of, records, resumed, until_true
from .lab import Lab, row, script, write


@pytest.fixture
def lab(tmp_path: Path) -> Lab:
    return Lab(tmp_path)


HANG = script(write("half.txt"), {"hang": True})


# -- stop at any moment ---------------------------------------------------------------------------------------------


async def test_a_stop_before_or_during_the_base_check_starts_nothing(lab: Lab) -> None:
    add = lab.prompt("add", script(write("new.txt")))
    began = time.monotonic()
    async with lab.floor(check="sleep 60") as floor:
        floor.stop("early")
        with pytest.raises(Refused, match="stopped while the base was checked"):
            await floor.run([add])

        def stop_soon(_text: str) -> None:
            asyncio.get_running_loop().call_soon(floor.stop)

        floor.say = stop_soon
        with pytest.raises(Refused, match="stopped while the base was checked"):
            await floor.run([add])
    assert time.monotonic() - began < 20
    assert not lab.seen(E.RUN_STARTED)


async def test_a_stop_during_setup_does_not_wait_for_its_end(lab: Lab) -> None:
    async with lab.floor(check=None, no_check=True, setup="sleep 60") as floor:
        watch = Watch(floor)
        running = asyncio.create_task(floor.run([lab.prompt("add", script(write("new.txt")))]))
        await watch.until(E.ASSIGNED)
        await until_true(lambda: bool(at_work_in(lab)), "the setup command runs")
        floor.stop("enough")
        report = await asyncio.wait_for(running, 15)
    assert report.counts["waiting"] == 1
    assert not at_work_in(lab)
    assert (await resumed(lab, check=None, setup="true")).counts["landed"] == 1


async def test_a_stop_during_a_verification_is_made_good_by_resume(lab: Lab, tmp_path: Path) -> None:
    hold, wait = hold_file(tmp_path)
    async with lab.floor(check=f"test ! -e new.txt || {{ {wait}; }}") as floor:
        watch = Watch(floor)
        running = asyncio.create_task(floor.run([lab.prompt("add", script(write("new.txt")))]))
        await watch.until(E.VERIFY_STARTED)
        await until_true(lambda: bool(at_work_in(lab)), "the check runs")
        floor.stop("enough")
        report = await asyncio.wait_for(running, 20)
    assert report.counts["waiting"] == 1
    assert not at_work_in(lab)
    hold.unlink()
    report = await resumed(lab, check=None)
    assert report.counts["landed"] == 1
    assert row(report, "add").attempts == 1


async def test_an_order_that_is_being_checked_can_be_stopped_and_its_check_ends(lab: Lab, tmp_path: Path) -> None:
    _hold, wait = hold_file(tmp_path)
    async with lab.floor(check=f"test ! -e new.txt || {{ {wait}; }}") as floor:
        watch = Watch(floor)
        running = asyncio.create_task(
            floor.run([lab.prompt("slow", script(write("new.txt"))), lab.prompt("hangs", HANG)])
        )
        await watch.until(E.VERIFY_STARTED)
        order = watch.of(E.VERIFY_STARTED)[0].order_id
        await floor.ask("stop", order)
        await until_true(lambda: len(at_work_in(lab)) <= 1, "the check has ended")
        await watch.until(E.AGENT_STARTED, 2)
        await floor.ask("stop", next(r.order.id for r in records(await floor.board()).values() if r.order.id != order))
        report = await asyncio.wait_for(running, 20)
    assert report.counts["cancelled"] == 2
    assert report.finished


async def test_a_stop_during_back_off_keeps_the_order_for_resume(lab: Lab) -> None:
    async with lab.floor(retries=1) as floor:
        watch = Watch(floor)
        running = asyncio.create_task(floor.run([lab.prompt("flaky", script({"crash_once": "x"}, write("f.txt")))]))
        await watch.until(E.RETRIED)
        floor.stop("enough")
        report = await asyncio.wait_for(running, 10)
    assert report.counts["waiting"] == 1
    assert (await resumed(lab)).counts["landed"] == 1


async def test_a_run_that_ends_while_it_is_stopped_is_finished(lab: Lab) -> None:
    async with lab.floor() as floor:
        floor.observers.append(lambda e: floor.stop("late") if e.event_type == E.SETTLED else None)
        report = await floor.run([lab.prompt("add", script(write("new.txt")))])
    assert report.finished
    with pytest.raises(NotFound, match="no unfinished run"):
        await resumed(lab)


async def test_a_cancelled_call_ends_its_agents_and_leaves_a_run_to_go_on_with(lab: Lab) -> None:
    async with lab.floor() as floor:
        watch = Watch(floor)
        running = asyncio.create_task(floor.run([lab.prompt("hangs", HANG), lab.prompt("also", HANG)]))
        await watch.until(E.AGENT_STARTED, 2)
        running.cancel()
        with pytest.raises(asyncio.CancelledError):
            await running
        assert not at_work_in(lab)
        assert [e.data["outcome"] for e in watch.of(E.AGENT_STOPPED)] == ["stopped", "stopped"]
        assert log_of(lab)[-1]["event_type"] == E.CONTROLLER_STOPPED
        again = asyncio.create_task(floor.resume())
        await watch.until(E.AGENT_STARTED, 4)
        floor.stop("enough")
        report = await again
    assert report.counts["waiting"] == 2
    assert floor.floor is not None
    assert all(record.lost == 0 for record in records(floor.floor.board).values())


# -- observers ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", [E.RUN_STARTED, E.ASSIGNED, E.AGENT_STARTED, E.VERIFY_STARTED, E.LANDING_PLANNED])
async def test_an_observer_that_raises_ends_the_session_in_good_order(lab: Lab, kind: E) -> None:
    def raises(event: Event) -> None:
        if event.event_type == kind:
            raise RuntimeError("the screen is gone")

    async with lab.floor() as floor:
        floor.observers.append(raises)
        with pytest.raises(RuntimeError, match="the screen is gone"):
            await floor.run([lab.prompt("add", script(write("new.txt"))), lab.prompt("other", script(write("o.txt")))])
        assert not at_work_in(lab)
        assert log_of(lab)[-1]["event_type"] == E.CONTROLLER_STOPPED
        floor.observers.remove(raises)
        report = await floor.resume()
    assert report.counts["landed"] == 2


# -- people ---------------------------------------------------------------------------------------------------------


async def test_one_floor_may_run_ask_and_run_again(lab: Lab) -> None:
    async with lab.floor() as floor:
        watch = Watch(floor)
        running = asyncio.create_task(floor.run([lab.prompt("hangs", HANG)]))
        await watch.until(E.AGENT_STARTED)
        with pytest.raises(Conflict, match="already"):
            await floor.run([lab.prompt("add", script(write("new.txt")))])
        assert "nothing new" in await floor.ask("pause")
        with pytest.raises(Refused, match="no request 'dance'"):
            await floor.ask("dance")
        order = watch.of(E.AGENT_STARTED)[0].order_id
        with pytest.raises(Refused, match="has not failed"):
            await floor.ask("retry", order)
        assert "is stopped" in await floor.ask("stop", order)
        report = await asyncio.wait_for(running, 20)
        assert report.counts["cancelled"] == 1
        assert floor.controller() is None
        assert "to be tried again" in await floor.ask("retry", order)
        assert "given up" in await floor.ask("stop", text="cancel")
        report = await floor.run([lab.prompt("add", script(write("new.txt")))])
    assert report.counts["landed"] == 1, "the pause of an earlier run keeps a new one from starting"
    await floor.__aexit__()


async def test_requests_of_all_kinds_at_once_are_each_answered_once(lab: Lab) -> None:
    one, other = lab.floor(), lab.floor()
    async with one, other:
        watch = Watch(one)
        running = asyncio.create_task(one.run([lab.prompt("hangs", HANG)]))
        await watch.until(E.AGENT_STARTED)
        order = watch.of(E.AGENT_STARTED)[0].order_id
        foreign = {"event_id": "evt-foreign", "event_type": "request.made", "timestamp": "x", "actor": "tool",
                   "data": {"verb": 7, "work_order_id": ["no"], "text": None}}  # fmt: skip
        with (lab.repo / ".work/events.jsonl").open("a") as log:
            log.write(json.dumps(foreign) + "\nnot json\n")
        verbs = [("pause", ""), ("resume", ""), ("accept", order), ("reject", order), ("answer", order), ("land", ""),
                 ("retry", order), ("stop", order), ("stop", order), ("nonsense", "wo-none")]  # fmt: skip
        answers = await asyncio.gather(*(other.ask(v, o) for v, o in verbs), return_exceptions=True)
        report = await asyncio.wait_for(running, 20)
    assert [isinstance(a, Refused) for a in answers] == [0, 0, 1, 1, 1, 0, 1, 0, 0, 1]
    assert report.counts["cancelled"] == 1
    handled = [e["caused_by"] for e in log_of(lab) if e["event_type"] == E.HANDLED and "caused_by" in e]
    assert len(handled) == len(set(handled)) == len(verbs) + 1
    assert "evt-foreign" in handled


async def test_what_was_asked_of_a_dead_session_does_not_befall_the_next(lab: Lab) -> None:
    async with lab.floor() as floor:
        watch = Watch(floor)
        running = asyncio.create_task(floor.run([lab.prompt("wait", script({"wait_s": 0.1}, write("w.txt")))]))
        await watch.until(E.AGENT_STARTED)
        floor.stop("enough")
        await running
        journal = Journal(floor.store, Floor(), floor.clock, new_event_id)
        for text in ("", "cancel"):
            draft = Draft(E.REQUEST, {"verb": "stop", "work_order_id": "", "text": text}, person())
            await floor.store.append([journal.event(draft, None)])
        report = await floor.resume()
    assert report.counts["landed"] == 1
    assert sum(e["event_type"] == E.HANDLED and e["data"]["result"] == "refused" for e in log_of(lab)) == 2


def test_who_failed_over_the_budget_can_be_tried_again_with_a_greater_one(lab: Lab) -> None:
    prompts = [lab.prompt(f"p{n}", script({"cost": 1.0}, write(f"{n}.txt"))) for n in range(3)]
    report = lab.run(*prompts, budget=0.5, max_parallel=1)
    assert {r.reason for r in report.orders if r.outcome == "failed"} == {"budget"}
    failed = [r.order for r in report.orders if r.outcome == "failed"]
    for order in failed:
        assert "tried again" in lab.ask("retry", order)
    assert lab.resume(budget=10.0).counts["landed"] == 3


def test_a_new_run_beside_an_unfinished_one_is_refused_with_a_hint_that_works(lab: Lab) -> None:
    one, two = lab.prompt("one", script(write("one.txt"))), lab.prompt("two", script(write("two.txt")))
    asyncio.run(stopped_at_once(lab, one))
    with pytest.raises(Refused, match="1 unfinished orders") as refused:
        lab.run(two)
    assert "shopfloor stop --cancel" in refused.value.hint
    assert "1 orders are given up" in lab.ask("stop", text="cancel")
    assert lab.run(two).counts["landed"] == 1


async def stopped_at_once(lab: Lab, prompt: Path) -> None:
    async with lab.floor() as floor:
        floor.observers.append(lambda e: floor.stop("x") if e.event_type == E.RUN_STARTED else None)
        assert (await floor.run([prompt])).counts["waiting"] == 1


def test_an_order_of_an_older_run_can_be_tried_again_and_lands_on_what_came_after_it(lab: Lab) -> None:
    old = lab.run(lab.prompt("flaky", script({"crash_once": "x"}, write("flaky.txt"))), retries=0)
    assert old.counts["failed"] == 1
    new = lab.run(lab.prompt("later", script(write("later.txt"))))
    assert "tried again: flaky" in lab.ask("retry", row(old, "flaky").order)
    report = lab.resume()
    assert (report.run, report.counts["landed"]) == (old.run, 1)
    assert new.run != old.run
    assert (lab.repo / "flaky.txt").exists()
    assert (lab.repo / "later.txt").exists(), "the branch follows"
    assert not [e for e in lab.seen(E.TARGET_MOVED) if e.data["by"] != "shopfloor"], "our own move is no stranger's"
