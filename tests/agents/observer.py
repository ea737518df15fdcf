"""Drives one kind of agent by its driver, and tells what it was seen to do. Run inside the lab's namespace.

It reads one JSON document on stdin (`Task`) and prints one (`Seen`).
"""

from __future__ import annotations

import asyncio
import subprocess
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec

from shopfloor.agents import driver
from shopfloor.agents.observed import NAMES, names
from shopfloor.domain.errors import Refused
from shopfloor.domain.order import Order
from shopfloor.ports import Agent, Delivery, Kind, Launch, Profile, Report, Route, Server
from shopfloor.spawn import Guard
from shopfloor.testing.model import Request, read_log

TOKEN = "route-token-4711"
WORDS = "think-of-elephants"
LONGEST_S = 150.0
SERVERS = (Server(name="board", command=(sys.executable, str(Path(__file__).with_name("mcp_note.py")))),)


class Task(msgspec.Struct, kw_only=True):
    """What to observe, and where."""

    profile: Profile
    url: str
    log: str
    folder: str
    env: dict[str, str]
    refused: str
    """the script in which it wants something that it is not allowed"""


class Seen(msgspec.Struct, kw_only=True):
    """What was seen. ``notes`` say why something was not."""

    version: str = ""
    """that it told itself"""
    declared: tuple[str, ...] = ()
    observed: tuple[str, ...] = ()
    notes: dict[str, str] = msgspec.field(default_factory=dict)


@dataclass
class Bench:
    """One agent at work again and again."""

    task: Task
    agent: Agent
    seen: set[str] = field(default_factory=set)
    notes: dict[str, str] = field(default_factory=dict)
    version: str = ""
    session: str = ""
    workspace: str = ""
    count: int = 0

    def launch(self, script: str, *, same: bool = False, **changes: Any) -> Launch:
        """One more attempt; in a new repository, or in the ``same`` as the last."""
        self.count += 1
        folder = Path(self.task.folder)
        if not same:
            self.workspace = str(folder / f"workspace{self.count}")
            new_repository(self.workspace)
        values: dict[str, Any] = {
            "order": Order(id="wo-seen", name="seen", title="seen"),
            "attempt": f"wo-seen.a{self.count}",
            "profile": self.task.profile,
            "prompt": f"Do what you are told. [[script {script} cwd={self.workspace}]]",
            "workspace": self.workspace,
            "branch": "main",
            "directory": str(folder / "attempts" / str(self.count)),
            "env": {**self.task.env, "PWD": self.workspace},
            "secrets": (),
            "route": Route(url=self.task.url, token=TOKEN),
        }
        return Launch(**{**values, **changes})

    async def run(self, launch: Launch) -> list[Report]:
        """From start to end."""
        handle = await self.agent.start(launch)
        return [report async for report in self.agent.follow(handle)]

    def requests(self, script: str) -> list[Request]:
        """What the model was asked by an agent of this script, titles left out."""
        return [request for request in read_log(Path(self.task.log)) if request.script == script and request.tools]

    def note(self, name: str, reports: list[Report]) -> None:
        """Remember how a run ended that did not show what it should."""
        last = [f"{r.kind} {r.status} {r.text[:160]}" for r in reports if r.kind not in (Kind.NOISE, Kind.TEXT)][-3:]
        self.notes[name] = " | ".join(last)


def new_repository(path: str) -> None:
    """With one commit, and somebody who commits."""
    git = ["git", "-c", "user.name=seen", "-c", "user.email=seen@localhost"]
    subprocess.run([*git, "init", "-q", "-b", "main", path], check=True)
    for name, value in (("user.name", "seen"), ("user.email", "seen@localhost")):
        subprocess.run(["git", "-C", path, "config", name, value], check=True)
    subprocess.run(["git", "-C", path, "commit", "-q", "--allow-empty", "-m", "start"], check=True)


def commits(path: str) -> int:
    counted = subprocess.run(["git", "-C", path, "rev-list", "--count", "HEAD"], check=True, capture_output=True)
    return int(counted.stdout)


# -- what is looked at --------------------------------------------------------------------------------------------


async def work(bench: Bench) -> None:
    """An edit: commits, what it tells of tokens and money, the way to its models, the tools of a server."""
    reports = await bench.run(bench.launch("seen", servers=SERVERS))
    if reports[-1].status != "completed":
        bench.note("work", reports)
    bench.session = next((report.session for report in reversed(reports) if report.session), "")
    bench.version = next((str(r.data["version"]) for r in reports if "version" in r.data), "")
    asked = bench.requests("seen")
    if commits(bench.workspace) > 1:
        bench.seen.add("commits")
    if any(report.tokens_in > 0 and report.tokens_out > 0 for report in reports):
        bench.seen.add("tokens")
    if any(report.cost_usd for report in reports):
        bench.seen.add("cost")
    if asked and all(request.credential.endswith(TOKEN[-6:]) for request in asked):
        bench.seen.add("gateway")
    if any("take_note" in name for request in asked for name in request.tools) or knows_the_tool(asked):
        bench.seen.add("mcp")


def knows_the_tool(asked: list[Request]) -> bool:
    """Some agents name the tools of servers elsewhere than in the list of tools."""
    return any("take_note" in msgspec.json.encode(request.body).decode() for request in asked)


async def resume(bench: Bench) -> None:
    """A session that has ended goes on: the model is shown what was said before."""
    if not bench.session:
        bench.notes["resume"] = "it named no session"
        return
    reports = await bench.run(bench.launch("again", same=True, session=bench.session))
    asked = bench.requests("again")
    if asked and any("[[script seen" in msgspec.json.encode(request.body).decode() for request in asked):
        bench.seen.add("resume")
    else:
        bench.note("resume", reports)


async def permissions(bench: Bench) -> None:
    """It asks, is refused, and does not do it."""
    profile = msgspec.structs.replace(bench.task.profile, permissions="deny")
    reports = await bench.run(bench.launch(bench.task.refused, profile=profile, servers=SERVERS))
    asked = [report for report in reports if report.kind is Kind.PERMISSION and report.status == "denied"]
    if asked and not Path(bench.workspace, "a.txt").exists():
        bench.seen.add("permissions")
    else:
        bench.note("permissions", reports)


async def until(reports: AsyncIterator[Report], *, has: Callable[[Report], bool]) -> list[Report]:
    """Reports up to the first that has it, or all."""
    heard = []
    async for report in reports:
        heard.append(report)
        if has(report):
            break
    return heard


async def steer(bench: Bench) -> None:
    """Words that are sent while it works are seen by its model."""
    launch = bench.launch("busy")
    handle = await bench.agent.start(launch)
    reports = bench.agent.follow(handle)
    await until(reports, has=lambda report: report.kind is Kind.TOOL)
    try:
        delivery = await bench.agent.send(handle, WORDS)
    except Refused as refused:
        bench.notes["steer"] = refused.message
        await bench.agent.stop(handle)
        return
    heard = [report async for report in reports]
    bodies = [msgspec.json.encode(request.body).decode() for request in bench.requests("busy")]
    if delivery is not Delivery.SHOWN and any(WORDS in body for body in bodies):
        bench.seen.add("steer")
    else:
        bench.note("steer", heard)


async def interrupt(bench: Bench) -> None:
    """Told to stop, it ends its turn and says so, before it ends itself."""
    launch = bench.launch("hangs")
    handle = await bench.agent.start(launch)
    reports = bench.agent.follow(handle)
    await until(reports, has=lambda report: report.kind is Kind.TOOL)
    stopping = asyncio.create_task(bench.agent.stop(handle))
    heard = [report async for report in reports]
    await stopping
    if any(report.kind is Kind.TURN_END for report in heard):
        bench.seen.add("interrupt")
    else:
        bench.note("interrupt", heard)


LOOKS: tuple[Callable[[Bench], Awaitable[None]], ...] = (work, resume, permissions, steer, interrupt)


async def observe(task: Task) -> Seen:
    """Everything, one after the other."""
    async with Guard() as guard:
        agent = driver(task.profile.driver, guard, task.env, root=Path(task.folder))
        probe = await agent.probe(task.profile)
        if not probe.found:
            return Seen(notes={"probe": f"{probe.problem}; {probe.hint}"})
        bench = Bench(task, agent)
        for look in LOOKS:
            try:
                async with asyncio.timeout(LONGEST_S):
                    await look(bench)
            except TimeoutError:
                bench.notes[look.__name__] = f"it did not end within {LONGEST_S:.0f} s"
        declared = names(probe.capabilities)
        return Seen(
            version=bench.version,
            declared=declared,
            observed=tuple(name for name in NAMES if name in bench.seen),
            notes=bench.notes,
        )


if __name__ == "__main__":
    given = msgspec.json.decode(sys.stdin.buffer.read(), type=Task)
    sys.stdout.buffer.write(msgspec.json.encode(asyncio.run(observe(given))))
