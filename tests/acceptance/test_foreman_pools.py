"""What a crew with pools does: limits, order, escalation, news told once, orphans, sessions beside it, signals."""

import asyncio
import json
import subprocess
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from amplifier_orchestrator_foreman_worker import ForemanWorkerOrchestrator
from shopfloor.faces.foreman.background import BackgroundConfig
from shopfloor.faces.foreman.pools import routing_of
from shopfloor.faces.foreman.signals import EventRouter, Name
from shopfloor.faces.foreman.tool import IssueTool

from .test_foreman import CODING, Fake, Scripted, all_are, board, left_over, use

CREW = routing_of(
    {
        "worker_pools": [
            {"name": "coding", "worker_bundle": "coder", "max_concurrent": 2},
            {"name": "research", "worker_bundle": "coder"},
            {"name": "senior", "worker_bundle": "coder", "route_types": ["none"]},
        ],
        "routing": {"rules": [{"if_status": "blocked", "and_retry_count_gte": 2, "then_pool": "senior"}]},
    }
)


@pytest.fixture
def bundles(tmp_path: Path) -> Path:
    (tmp_path / "boss.json").write_text(json.dumps(CODING))
    (tmp_path / "coder.json").write_text(json.dumps(CODING))
    return tmp_path


def crew_of(bundles: Path, **given: Any) -> Any:
    return ForemanWorkerOrchestrator(
        loader="loader", mount_plans_dir=bundles, foreman_profile="boss", worker_configs=[], routing=CREW,
        workspace_root=bundles / "workspace", pause_s=0.05, queue=True, **given,
    )  # fmt: skip


class Floor:
    """Who is at work now, and who was at most."""

    def __init__(self) -> None:
        self.now: Counter[str] = Counter()
        self.most: Counter[str] = Counter()
        self.worked: list[tuple[str, str]] = []
        self.gate = asyncio.Event()

    async def do(self, session: Fake, prompt: str) -> str:
        title = prompt.split(": ", 1)[1].split("\n", maxsplit=1)[0]
        pool = session.name.rsplit("-", 1)[0]
        self.now[pool] += 1
        self.most[pool] = max(self.most[pool], self.now[pool])
        self.worked.append((pool, title))
        try:
            await self.gate.wait()
            if title == "Fragile" and pool != "senior":
                raise RuntimeError("it broke")
        finally:
            self.now[pool] -= 1
        return f"done by {session.name}"


@pytest.mark.timeout(120)
async def test_limits_order_escalation_and_news_told_once(bundles: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    crew, floor = use(monkeypatch, Scripted()), Floor()
    crew.do = floor.do
    async with board(bundles / "workspace") as tasks, crew_of(bundles) as one:
        tool = IssueTool(tasks, routing=CREW)

        async def create(title: str, **more: Any) -> str:
            made = await tool.execute({"operation": "create", "title": title, **more})
            assert made.output is not None, made.error
            return str(made.output["issue"]["id"])

        first = await create("First", priority="critical")
        await create("Second", depends_on=[first])
        await create("Fragile")
        await create("Read", issue_type="epic")
        for number in range(6):
            await create(f"Task {number}")
        await one.execute_user_message("Go")
        while floor.now != Counter({"coding": 2, "research": 1}):
            await tasks.changed(0, 0.05)
        names = sorted(task.get_name().rsplit("-", 1)[0] for task in one.worker_tasks)
        assert names == ["coding", "coding", "research", "senior"]
        told = await one.execute_user_message("How far?")
        assert "in progress: 3" in told
        floor.gate.set()
        await all_are(tasks, "completed", 10)
        told = await one.execute_user_message("And now?")
        assert "completed since you were last told: 10" in told
        assert "[crew]" not in await one.execute_user_message("Anything else?")
        states = await one.get_worker_status()
        assert Counter(states.values()) == {"completed": 10}
    assert floor.most == {"coding": 2, "research": 1, "senior": 1}, "never more than max_concurrent"
    titles = [title for _, title in floor.worked]
    assert titles.index("First") < titles.index("Second")
    assert [pool for pool, title in floor.worked if title == "Fragile"] == ["coding", "coding", "senior"]
    assert ("research", "Read") in floor.worked
    assert crew.open == []
    assert left_over() == []


async def test_an_orphan_is_taken_up_again_and_the_foreman_is_told(
    bundles: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    crew, floor = use(monkeypatch, Scripted()), Floor()
    crew.do = floor.do
    async with board(bundles / "workspace") as tasks:
        made = await tasks.create("Left alone", metadata={"pool": "nobody's"})
        with subprocess.Popen(["sleep", "600"]) as process:
            session = tasks.floor.session("crashed-0", pid=process.pid)
            assert [claim.id for claim in await session.claim(1)] == [made.id]
            async with crew_of(bundles) as one:
                assert "crashed-0" in await one.execute_user_message("Go")
                process.kill()
                process.wait()
                while (await tasks.get(made.id)).status != "open":
                    await tasks.changed(0, 0.05)
                told = await one.execute_user_message("And?")
                assert "orphaned: their worker ended, they are open again: 1" in told
                assert "orphaned" not in await one.execute_user_message("And?")
            await session.close()
        assert (await tasks.get(made.id)).lost == 1


async def test_sessions_beside_the_crew_begin_once_and_hear_signals(
    bundles: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    use(monkeypatch, Scripted())
    router = EventRouter()
    configs = [
        BackgroundConfig(
            name="reviewer", profile="coder", trigger="session_event", event_names=(Name.EXECUTION_COMPLETED,),
            instruction_template="Look at {data}", on_complete_emit="reviewed",
        ),
        BackgroundConfig(name="broken", profile="not-there", trigger="timer", immediate=True, on_error_emit="broke"),
    ]  # fmt: skip
    async with board(bundles / "workspace") as tasks:
        one = crew_of(bundles, background=configs, router=router)
        broke = asyncio.ensure_future(router.wait_for_event("broke", 20))
        reviewed = asyncio.ensure_future(router.wait_for_event("reviewed", 20))
        await asyncio.sleep(0)
        async with one:
            assert not one.background.started, "nothing begins before the first message"
            await one.execute_user_message("Go")
            await one.execute_user_message("Go on")
            made = await tasks.create("Write it", metadata={"pool": "coding"})
            signal = await reviewed
            assert signal is not None
            assert signal.data["session"] == "reviewer"
            failed = await broke
            assert failed is not None
            assert "not-there.json" in failed.data["error"]
            await all_are(tasks, "completed", 1)
            assert set(one.background.status()) == {"reviewer", "broken"}
        assert not one.background.started
    told = [s.name for s in router.recent if s.data.get("task") == made.id]
    assert told[:3] == [Name.TASK_STARTED, Name.EXECUTION_STARTING, Name.EXECUTION_COMPLETED]
    assert [s.name for s in router.recent].count(Name.SESSION_CREATED) == 4
    assert left_over() == []
