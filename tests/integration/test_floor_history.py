"""What a controller does not take in at its start, because it is at rest, it takes in when somebody speaks of it."""

from __future__ import annotations

import asyncio
from pathlib import Path

import msgspec

from shopfloor.domain.board import Board
from shopfloor.domain.errors import Refused
from shopfloor.domain.events import E
from shopfloor.domain.order import State

from .lab import Lab, row, script, write

HANG = {"hang": True}


async def folded(lab: Lab) -> Board:
    board = Board()
    async with lab.floor() as floor:
        async for _, event in floor.store.read():
            board.apply(event)
    return board


def test_an_order_of_a_run_at_rest_is_retried_beside_a_controller(tmp_path: Path) -> None:
    lab = Lab(tmp_path)
    first = lab.run(
        lab.prompt("bad", script({"exit": 1})),
        lab.prompt("behind", script(write("b")), depends_on=["bad"]),
        lab.prompt("good", script(write("g"))),
    )
    lab.run(lab.prompt("between", script(write("x"))))
    bad, behind = row(first, "bad").order, row(first, "behind").order

    async def body() -> tuple[str, str, set[str], set[str], Board]:
        async with lab.floor() as floor, lab.floor() as other:
            begun = len(lab.seen(E.AGENT_STARTED))
            work = asyncio.create_task(floor.run([lab.prompt("stuck", script(HANG))]))
            await lab.agents_started(begun + 1)
            assert floor.floor is not None
            board = floor.floor.board
            before = set(board.records)
            said = await other.ask("retry", bad)
            try:
                again = await other.ask("retry", row(first, "good").order)
            except Refused as problem:
                again = problem.message
            after = set(board.records)
            floor.stop()
            await work
            return said, again, before, after, board

    said, again, before, after, board = asyncio.run(body())
    assert bad not in before, "a run at rest is not taken in at the start"
    assert said == "to be tried again: bad, behind"
    assert again == "'good' has not failed: it is done"
    assert {bad, behind, row(first, "good").order} <= after
    whole = asyncio.run(folded(lab))
    assert whole.records[bad].state is State.READY
    assert {o: whole.records[o] for o in board.records} == board.records
    here = set(board.runs) - board.absent
    assert [msgspec.to_builtins(whole.runs[r]) for r in here] == [msgspec.to_builtins(board.runs[r]) for r in here]
    assert whole.unfinished() is not None


def test_what_is_asked_of_an_old_run_by_hand_is_done_there(tmp_path: Path) -> None:
    lab = Lab(tmp_path)
    first = lab.run(lab.prompt("bad", script({"crash_once": "x"}, write("b"))), retries=0)
    lab.run(lab.prompt("between", script(write("x"))))
    lab.run(lab.prompt("newest", script(write("y"))))
    assert lab.ask("retry", row(first, "bad").order) == "to be tried again: bad"
    report = lab.resume()
    assert report.run == first.run
    assert report.counts["landed"] == 1
