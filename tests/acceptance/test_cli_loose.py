"""Orders of no run, in a folder that is no repository, as the commands tell of them from a second terminal."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from shopfloor import Deliverable, Order, Shopfloor
from shopfloor.app.sessions import WorkSession

from .test_fanout import said_by


@asynccontextmanager
async def at_work(folder: Path) -> AsyncIterator[tuple[WorkSession, dict[str, str]]]:
    """A session that holds the first of three, and has set the second aside; ids by title."""
    async with Shopfloor.open(folder, without_git=True) as floor:
        wanted = [Order(id="", name="", title=t, deliverable=Deliverable.ANSWER) for t in ("Write", "Ask", "Rest")]
        made = {order.title: order.id for order in await floor.orders.create(wanted)}
        session = floor.session("ann")
        await session.claim(1, orders=[made["Ask"]])
        await session.release(made["Ask"], "which colour?", aside="pending_user_input")
        await session.claim(1, orders=[made["Write"]])
        yield session, made


async def test_every_command_knows_where_they_stand(tmp_path: Path) -> None:
    async def say(*words: str) -> str:
        said = await asyncio.to_thread(said_by, tmp_path, *words)
        assert said.code == 0, said
        return said.out

    async with at_work(tmp_path) as (session, made):
        told = await say("status")
        assert told.startswith("3 orders of no run: 1 running, 1 pending_user_input, 1 ready\n"), told
        assert "held by ann" in told
        assert "which colour?" in told
        assert await say("ready") == f"{made['Rest']}  Rest\n"
        shown = await say("show", made["Rest"])
        assert shown.startswith(f"{made['Rest']} ({made['Rest']}): ready\n")
        assert shown.endswith(f"next:\n  shopfloor claim --order {made['Rest']}\n")
        assert "pending_user_input, which colour?" in await say("show", made["Ask"])
        refused = await asyncio.to_thread(said_by, tmp_path, "answer", made["Ask"], "green")
        assert refused.code == 4
        assert f"{made['Ask']!r} belongs to no run: only sessions work on it" in refused.err
        assert f"/answer {made['Ask']} WORDS" in refused.err
        await session.finish(made["Write"], text="It is written.")
        shown = await say("show", made["Write"])
        assert "answer\n  It is written.\n" in shown
        assert "branch" not in shown, "an answer has none"
        assert (await say("status")).startswith("2 orders of no run: 1 pending_user_input, 1 ready\n")
        assert await say("gc", "--yes") == "there is nothing to remove\n"
        await session.close()
