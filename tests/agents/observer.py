"""Drives one kind of agent by its driver, and tells what it was seen to do. Run inside the lab's namespace.

It reads one JSON document on stdin (`Task`) and prints one (`Seen`).
"""

from __future__ import annotations

import asyncio
import os
import pty
import select
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AbstractAsyncContextManager, ExitStack, asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec

from shopfloor.agents import driver
from shopfloor.agents._sessions import attach_words, server
from shopfloor.agents.observed import NAMES, names
from shopfloor.domain.errors import Refused
from shopfloor.domain.order import Order
from shopfloor.ports import Agent, Handle, Kind, Launch, Profile, Report, Route, Server
from shopfloor.spawn import Guard
from shopfloor.testing.behaviours import LAST
from shopfloor.testing.model import Request, read_log
from shopfloor.testing.scripted_server import serving

TOKEN = "route-token-4711"
LONGEST_S = 150.0
TICK_S = 0.05
DRAWN_S = 0.3
"""nothing is drawn for so long: what there is to see is there"""
LONGEST_DRAWN_S = 2.0
"""for one that always draws"""
SERVERS = (Server(name="board", command=(sys.executable, str(Path(__file__).with_name("mcp_note.py")))),)


class Task(msgspec.Struct, kw_only=True):
    """What to observe, and where."""

    profile: Profile
    url: str
    log: str
    folder: str
    env: dict[str, str]
    prompts: dict[str, str]
    """what it is told in each look; ``{workspace}`` is replaced"""
    words: str
    """what is said to it while it works"""
    heard: str
    """what shows that it heard that: in what its model is asked, or else in what it reports"""
    alive: str
    """what it still says when its turn was ended, where it does not say that its turn has ended"""
    asks: bool
    """it asks a model, by which it is seen what it knows; else it follows what it is told by itself"""
    tools: bool
    """whoever asks a model without tools is not the agent but makes titles"""
    commands: tuple[str, ...]
    """the code of commands that it is busy with in the looks at steering and interrupting"""
    by_word: bool
    """what it asks is answered by a person's word, and not by a rule"""
    served: bool
    """it is the scripted server, which has to be started"""


class Seen(msgspec.Struct, kw_only=True):
    """What was seen. ``notes`` say why something was not."""

    version: str = ""
    """that it told itself"""
    declared: tuple[str, ...] = ()
    observed: tuple[str, ...] = ()
    notes: dict[str, str] = msgspec.field(default_factory=dict)


@dataclass
class Run:
    """One attempt, from its start on."""

    launch: Launch
    handle: Handle
    heard: list[Report]
    end: asyncio.Task[None]

    @property
    def asks(self) -> bool:
        """Whether it has asked for somebody's word."""
        return any(report.kind is Kind.PERMISSION and report.status == "asked" for report in self.heard)

    def told(self, words: str) -> bool:
        """Whether it said this, in any report."""
        return any(words in report.text or words in repr(report.data) for report in self.heard)


@dataclass
class Bench:
    """One agent at work again and again."""

    task: Task
    agent: Agent
    seen: set[str] = field(default_factory=set)
    notes: dict[str, str] = field(default_factory=dict)
    version: str = ""
    session: str = ""
    deaf: bool = False
    """nothing can be said to it while it works"""
    screen: bool = False
    """it works in a terminal"""
    workspace: str = ""
    count: int = 0

    def launch(self, look: str, *, same: bool = False, **changes: Any) -> Launch:
        """One more attempt; in a new repository, or in the ``same`` as the last."""
        self.count += 1
        folder, attempt = Path(self.task.folder), f"wo-seen.a{self.count}"
        if not same:
            self.workspace = str(folder / f"workspace{self.count}")
            new_repository(self.workspace)
        values: dict[str, Any] = {
            "order": Order(id="wo-seen", name="seen", title="seen"),
            "attempt": attempt,
            "profile": self.task.profile,
            "prompt": self.task.prompts[look].replace("{workspace}", self.workspace),
            "workspace": self.workspace,
            "branch": "main",
            "directory": str(folder / "attempts" / attempt),
            "env": {**self.task.env, "PWD": self.workspace},
            "secrets": (),
            "route": Route(url=self.task.url, token=TOKEN),
        }
        return Launch(**{**values, **changes})

    async def start(self, launch: Launch) -> Run:
        """Start it, and hear what it says."""
        handle = await self.agent.start(launch)
        heard: list[Report] = []

        async def hear() -> None:
            nonlocal heard
            async for report in self.agent.follow(handle):
                heard += [report]

        return Run(launch, handle, heard, asyncio.create_task(hear()))

    async def run(self, launch: Launch) -> Run:
        """From start to end."""
        run = await self.start(launch)
        try:
            await run.end
        finally:
            await self.agent.stop(run.handle)
        return run

    @asynccontextmanager
    async def underway(self, launch: Launch, reached: Callable[[Run], bool]) -> AsyncIterator[Run]:
        """One that has reached something, or ended without; it has ended afterwards."""
        run = await self.start(launch)
        try:
            for _ in range(int(LONGEST_S / TICK_S)):
                if run.end.done() or reached(run):
                    break
                await asyncio.sleep(TICK_S)
            yield run
        finally:
            await self.agent.stop(run.handle)
            await run.end

    def busy(self, look: str) -> AbstractAsyncContextManager[Run]:
        """One that is in the middle of a command."""
        return self.underway(self.launch(look), lambda run: run.told(LAST) or runs(self.task.commands))

    def requests(self, script: str) -> list[Request]:
        """What the model was asked by an agent of this script, titles left out."""
        asked = [request for request in read_log(Path(self.task.log)) if (request.script or "").startswith(script)]
        return [request for request in asked if request.tools or not self.task.tools]

    def was_heard(self, run: Run, script: str) -> bool:
        """Whether what was said to it reached it."""
        if not self.task.asks:
            return run.told(self.task.heard)
        return any(self.task.heard in body for body in map(body_of, self.requests(script)))

    def note(self, name: str, run: Run) -> None:
        """Remember how a run ended that did not show what it should."""
        told = [r for r in run.heard if r.kind not in (Kind.NOISE, Kind.TEXT)] or run.heard
        self.notes[name] = " | ".join(f"{r.kind} {r.status} {r.text[:160]}" for r in told[-3:])


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


def body_of(request: Request) -> str:
    return msgspec.json.encode(request.body).decode()


def runs(commands: Sequence[str]) -> bool:
    """Whether an interpreter runs one of these, in this namespace."""
    here = Path("/proc/self/ns/net").stat().st_ino
    for entry in Path("/proc").iterdir():
        with suppress(OSError):
            words = (entry / "cmdline").read_bytes().rstrip(b"\0").split(b"\0") if entry.name.isdigit() else []
            known = bool(words) and words[-1].decode(errors="replace") in commands
            if known and (entry / "ns" / "net").stat().st_ino == here:
                return True
    return False


# -- what is looked at --------------------------------------------------------------------------------------------


async def work(bench: Bench) -> None:
    """An edit: commits, what it tells of tokens and money, the way to its models, the tools of a server."""
    run = await bench.run(bench.launch("work", servers=SERVERS))
    if run.heard[-1].status != "completed":
        bench.note("work", run)
    bench.session = next((report.session for report in reversed(run.heard) if report.session), "")
    bench.version = next((str(r.data["version"]) for r in run.heard if "version" in r.data), "")
    bench.screen = "session" in run.handle.detail
    asked = bench.requests("seen")
    if commits(bench.workspace) > 1:
        bench.seen.add("commits")
    if any(report.tokens_in > 0 and report.tokens_out > 0 for report in run.heard):
        bench.seen.add("tokens")
    if any(report.cost_usd for report in run.heard):
        bench.seen.add("cost")
    if asked and all(request.credential.endswith(TOKEN[-6:]) for request in asked):
        bench.seen.add("gateway")
    # Some agents name the tools of servers elsewhere than in the list of tools; one without a model calls it.
    if any("take_note" in body_of(request) for request in asked) or (not bench.task.asks and run.told("noted")):
        bench.seen.add("mcp")


async def resume(bench: Bench) -> None:
    """A session that has ended goes on: the model is shown what was said before."""
    if not bench.session:
        bench.notes["resume"] = "it named no session"
        return
    run = await bench.run(bench.launch("resume", same=True, session=bench.session))
    asked = bench.requests("again")
    shown = any("[[script seen" in body_of(request) for request in asked)
    if shown or (not bench.task.asks and run.told(f"session {bench.session}")):
        bench.seen.add("resume")
    else:
        bench.note("resume", run)


async def permissions(bench: Bench) -> None:
    """It asks, is refused, and does not do it."""
    rule = "ask" if bench.task.by_word else "deny"
    profile = msgspec.structs.replace(bench.task.profile, permissions=rule)
    launch = bench.launch("permissions", profile=profile, servers=SERVERS)
    async with bench.underway(launch, lambda run: run.asks) as run:
        if run.asks:
            await bench.agent.send(run.handle, "no")
        await run.end
    asked = [report for report in run.heard if report.kind is Kind.PERMISSION and report.status == "denied"]
    if asked and not Path(bench.workspace, "a.txt").exists():
        bench.seen.add("permissions")
    else:
        bench.note("permissions", run)


async def steer(bench: Bench) -> None:
    """Words that are sent while it works are seen by its model, or by itself."""
    async with bench.busy("steer") as run:
        try:
            await bench.agent.send(run.handle, bench.task.words)
        except Refused as refused:
            bench.notes["steer"] = refused.message
            bench.deaf = True
            return
        await run.end
    if bench.was_heard(run, "busy"):
        bench.seen.add("steer")
    else:
        bench.note("steer", run)


async def attach(bench: Bench) -> None:
    """A person sees its terminal, and what they type reaches it."""
    if not bench.screen:
        return
    async with bench.busy("attach") as run:
        folder = Path(run.handle.detail["folder"]).parents[1]
        tmux = server(folder, bench.task.env, folder)
        words = attach_words(tmux, run.handle.detail["session"], write=True)
        shown = await asyncio.to_thread(typed, words, folder, bench.task.env, bench.task.words)
        await run.end
    if shown and bench.was_heard(run, "typed"):
        bench.seen.add("attach")
    else:
        bench.note("attach", run)


def typed(argv: Sequence[str], folder: Path, env: dict[str, str], words: str) -> str:
    """Attach as a person does, look, type, press Enter, and go away; what was shown."""
    person, terminal = pty.openpty()
    with subprocess.Popen(
        argv, cwd=folder, env={**env, "TERM": "xterm"}, stdin=terminal, stdout=terminal, start_new_session=True
    ) as client:
        os.close(terminal)
        shown = drawn(person)
        for keys in (words, "\r"):
            os.write(person, keys.encode())
            shown += drawn(person)
        client.terminate()
        while client.poll() is None:
            drawn(person)
    os.close(person)
    return shown.decode(errors="replace")


def drawn(screen: int) -> bytes:
    """What is drawn next, up to where nothing more comes."""
    found, until = b"", time.monotonic() + LONGEST_DRAWN_S
    while time.monotonic() < until and select.select([screen], [], [], DRAWN_S)[0]:
        try:
            found += os.read(screen, 1 << 16)
        except OSError:  # whoever drew is gone
            break
    return found


async def interrupt(bench: Bench) -> None:
    """Told to stop, it ends its turn and says so, before it ends itself."""
    if bench.deaf:
        bench.notes["interrupt"] = "nothing but signals reaches it, and they end it"
        return
    async with bench.busy("interrupt") as run:
        before = len(run.heard)
        await bench.agent.stop(run.handle)
    after = run.heard[before:]
    alive = bench.task.alive
    if any(r.kind is Kind.TURN_END or (alive and alive in r.text) for r in after):
        bench.seen.add("interrupt")
    else:
        bench.note("interrupt", run)


LOOKS: tuple[Callable[[Bench], Awaitable[None]], ...] = (work, resume, permissions, steer, attach, interrupt)


async def observe(task: Task) -> Seen:
    """Everything, one after the other."""
    with ExitStack() as stack:
        if task.served:
            address = stack.enter_context(serving(env=task.env))
            task.profile = msgspec.structs.replace(task.profile, urls=(address,))
        async with Guard() as guard:
            return await observed_by(guard, task)


async def observed_by(guard: Guard, task: Task) -> Seen:
    """Look by look; what one is not seen to do is noted."""
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
