"""Concrete drivers, put together."""

from __future__ import annotations

import asyncio
import os
import secrets
import time
from collections.abc import Awaitable, Callable, Collection, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import msgspec
import psutil

from shopfloor.agents import driver
from shopfloor.agents._transcript import said
from shopfloor.app import gateway, holders, worker
from shopfloor.app.money import Looks
from shopfloor.config import secrets_in, worker_environment
from shopfloor.config.settings import Settings
from shopfloor.domain.admission import Limits, Load
from shopfloor.domain.errors import NotFound
from shopfloor.domain.order import Attempt
from shopfloor.domain.policy import Policy
from shopfloor.engine import answers, control
from shopfloor.engine import attempt as one_attempt
from shopfloor.engine.controller import Settings as ControllerSettings
from shopfloor.engine.session import Tools
from shopfloor.engine.toll import Toll
from shopfloor.gateway.ledger import bills
from shopfloor.git import Git, Repository
from shopfloor.landers.merge import MergeLander
from shopfloor.landers.nowhere import Nowhere as NoLander
from shopfloor.masking import Masker
from shopfloor.ports import (
    Agent,
    Answering,
    Bill,
    Delivery,
    Gateway,
    Handle,
    Job,
    Lander,
    Launch,
    Outliving,
    Workspace,
    Workspaces,
)
from shopfloor.runners.local import LocalRunner
from shopfloor.spawn import Guard, alive, end_process, tree_bytes
from shopfloor.stores.workdir import WorkdirStore
from shopfloor.verifiers.commands import CommandVerifier
from shopfloor.wire.server import SocketDoor
from shopfloor.workspaces import nowhere
from shopfloor.workspaces.clone import CloneWorkspaces
from shopfloor.workspaces.pool import Pool
from shopfloor.workspaces.worktree import WorktreeWorkspaces


class SystemClock:
    """The machine's clocks. On Linux ``time.monotonic`` stands still while the machine is suspended."""

    def wall(self) -> float:
        """Seconds since the epoch."""
        return time.time()

    def awake(self) -> float:
        """Seconds that the machine was awake, from an arbitrary start."""
        return time.monotonic()


class Place(msgspec.Struct, frozen=True, kw_only=True):
    """Where a floor is: the folder, its repository, its settings, the environment it was started in."""

    root: Path
    repository: Repository | None
    """None: there is no git here, and only answers can be handed back"""
    settings: Settings
    environment: dict[str, str]
    clock: Any

    @property
    def work(self) -> Path:
        """The folder of the log and everything derived from it."""
        return self.root / ".work"

    @property
    def secrets(self) -> tuple[str, ...]:
        """Values that are masked in everything that is kept."""
        return secrets_in(self.environment, *(p.env for p in self.settings.agents.values()))

    def needed(self) -> Repository:
        """The repository. Raises NotFound where there is none."""
        if self.repository is None:
            hint = "git init, or change to a repository"
            raise NotFound(f"not a git repository: {str(self.root)!r}", hint=hint)
        return self.repository

    def git(self) -> Git:
        """Git in the main working tree. Raises NotFound where there is none."""
        return Git(self.needed().root, base_env=self.environment)

    def command_environment(self) -> dict[str, str]:
        """What setup commands and checks see: as a worker, without anybody's identity."""
        found = worker_environment(self.environment, workspace=str(self.root))
        return {k: v for k, v in found.items() if k not in ("PWD", "SHOPFLOOR_WORKSPACE")}


def open_store(place: Place) -> WorkdirStore:
    """The log of this place; nothing is written before the first append."""
    return WorkdirStore(place.work, clock=place.clock)


def prepare(place: Place, *, ready: bool) -> None:
    """What must be so before this process may become the controller. Raises Refused.

    ``ready``: the repository has to be one in which something can be changed.
    """
    if ready:
        place.needed().ensure_ready()
    if place.repository is not None:
        place.git().exclude(["/.work/", f"/{place.settings.worktrees.strip('/')}/"])


def agents(place: Place, guard: Guard) -> Mapping[str, Agent]:
    """The drivers that the settings name; what the others import is left alone."""
    wanted = dict.fromkeys(profile.driver for profile in place.settings.agents.values())
    return {name: driver(name, guard, environment=place.environment, root=place.root) for name in wanted}


def answering(place: Place, known: Mapping[str, Agent]) -> dict[str, Answering]:
    """The drivers of the profiles whose attempts at an answer are calls, by profile."""
    profiles = place.settings.agents.values()
    return {p.name: agent for p in profiles if isinstance(agent := known.get(p.driver), Answering)}


def workspaces(place: Place, guard: Guard) -> Pool:
    """The pool that the settings ask for. Raises NotFound where there is no repository."""
    settings = place.settings
    kind = CloneWorkspaces if settings.workspace == "clone" else WorktreeWorkspaces
    return kind(
        place.git(), guard, folder=place.root / settings.worktrees, setup=settings.setup,
        copies=settings.copies, caches=settings.caches, env=place.command_environment(),
    )  # fmt: skip


def build(
    place: Place, guard: Guard, *, say: Callable[[str], None], hands_only: bool
) -> tuple[Tools, ControllerSettings]:
    """The ports of one controller session."""
    settings, env = place.settings, place.command_environment()
    here = place.repository is not None
    pool: Workspaces = workspaces(place, guard) if here else nowhere.Nowhere(place.root)
    lander: Lander = MergeLander(place.git()) if here else NoLander(place.root)
    known = agents(place, guard)
    calls = answering(place, known)
    callers = holders.Callers(secrets.token_bytes(32), place.secrets)
    toll, masker = Toll(partial(start_gateway, place, guard)), Masker(place.secrets)
    tools = control.Tools(
        agents=known, workspaces=pool, clock=place.clock, launch=partial(launch, place, known, callers),
        memory=lambda handle: tree_bytes(handle.pid) if handle.pid else 0,
        setup_log=lambda job: str(folder(place, job) / "setup.log"),
        toll=toll,
    )  # fmt: skip

    def execute(job: Job, strings: Any, emit: control.Emit) -> Awaitable[None]:
        if job.call:
            return answers.execute(job, strings, emit, calls[job.profile.name], masker)
        return one_attempt.execute(job, strings, emit, tools)

    async def living(handle: Handle) -> bool:
        agent = tools.agents.get(handle.driver)
        return isinstance(agent, Outliving) and await agent.living(handle)

    async def billed(attempts: Collection[str]) -> Mapping[str, Bill]:
        try:
            return await asyncio.to_thread(bills, place.work / gateway.LEDGER, attempts)
        except OSError as problem:
            why = (problem.strerror or str(problem)).lower()
            say(f"what the last model calls cost is not known: {problem.filename!r}: {why}")
            return {}

    evidence = place.work / "evidence"
    session = Tools(
        runner=LocalRunner(execute, lambda: control.Control(partial(_note, place))),
        toll=toll,
        verifier=CommandVerifier(pool, guard, env=env, clock=place.clock, concurrent=settings.max_checks),
        lander=lander,
        workspaces=pool,
        end_process=partial(end_attempt, tools.agents),
        living=living,
        billed=billed,
        load=sample,
        door=SocketDoor(place.work),
        callers=callers,
        say=say,
    )
    limits = Limits(
        memory_high=1.0 - settings.memory_free, memory_low=max(0.0, 1.0 - settings.memory_free - 0.07),
        cpu_high=settings.load_per_core, cpu_low=settings.load_per_core * 0.75,
    )  # fmt: skip
    return session, ControllerSettings(
        profiles=settings.agents, means=Looks(settings, place.environment, known), evidence=str(evidence),
        max_checks=settings.max_checks, limits=limits, hands_only=hands_only, answering=calls,
    )  # fmt: skip


async def start_gateway(place: Place, guard: Guard) -> Gateway:
    """The gateway of this place, which starts with the first way that is opened. Raises Refused."""
    return gateway.process(place.settings, place.environment, guard, root=place.root, work=place.work)


def folder(place: Place, job: Job) -> Path:
    """Where an attempt's transcript lies."""
    path = place.work / "attempts" / job.attempt
    path.mkdir(parents=True, exist_ok=True, mode=0o700)
    return path


def launch(
    place: Place, known: Mapping[str, Agent], callers: holders.Callers, job: Job, workspace: Workspace
) -> Launch:
    """Everything a driver needs to start this attempt's agent."""
    directory, settings = folder(place, job), place.settings
    profile, token = worker.permitted(job.profile, settings.on_question), callers.token(job.attempt)
    env = worker_environment(
        place.environment, workspace=workspace.path, pass_env=profile.pass_env, env=profile.env, order=job.order.id,
        attempt=job.attempt, generation=job.generation, directory=str(directory),
        agent=f"shopfloor/workers/{job.order.name}", token="" if settings.talk == "off" else token,
        floor=str(place.work),
    )  # fmt: skip
    return Launch(
        order=job.order, attempt=job.attempt, profile=profile, workspace=workspace.path,
        prompt=job.prompt + worker.appendix(settings.talk, known.get(profile.driver)),
        branch=job.branch, directory=str(directory), env=env, secrets=(token, *place.secrets), session=job.session,
        servers=worker.offered(settings.talk, env),
    )  # fmt: skip


def _note(place: Place, attempt: str, text: str, delivery: Delivery) -> None:
    transcript = place.work / "attempts" / attempt / "transcript.jsonl"
    said(transcript, place.secrets, place.clock.wall(), text, delivery)


async def end_attempt(agents: Mapping[str, Agent], attempt: Attempt) -> bool:
    """End an agent that outlived its controller; True when there was one."""
    agent = agents.get(str(attempt.handle.get("driver")))
    if isinstance(agent, Outliving):
        await agent.stop(msgspec.convert(attempt.handle, Handle))
    pid, start_time = attempt.handle.get("pid"), attempt.handle.get("start_time")
    if not isinstance(pid, int) or not isinstance(start_time, int) or not alive(pid, start_time):
        return False
    return await end_process(pid, start_time)


def sample() -> Load:
    """How busy the machine is now."""
    memory = psutil.virtual_memory()
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return Load(memory_used=memory.percent / 100.0, cpu_per_core=os.getloadavg()[0] / cores)


def policy(settings: Settings) -> Policy:
    """The limits of a run."""
    return Policy(
        retries=settings.retries, reworks=settings.rework, on_question=settings.on_question,
        first_report_s=settings.first_report_s, backoff_s=settings.backoff_s,
    )  # fmt: skip
