"""The foreman and its crew: you talk with one, many work, and nobody waits for anybody."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import msgspec

from shopfloor import Shopfloor, Talks
from shopfloor.faces.foreman import briefs
from shopfloor.faces.foreman.background import Background, BackgroundConfig
from shopfloor.faces.foreman.config import ISSUES, WorkerConfig, load_mount_plan, read_plan
from shopfloor.faces.foreman.pools import Routing
from shopfloor.faces.foreman.progress import Progress, worker_status
from shopfloor.faces.foreman.session import Seat, Session, default_session, furnish
from shopfloor.faces.foreman.signals import EventRouter
from shopfloor.faces.foreman.tasks import Tasks
from shopfloor.faces.foreman.team import Job, team_of
from shopfloor.faces.foreman.tool import IssueTool
from shopfloor.faces.foreman.waiting import Queue, outcome_of
from shopfloor.faces.foreman.worker import Worker

log = logging.getLogger(__name__)

FOREMAN_FAILED = "the foreman failed: %s"
"""What is logged of an error that the caller is told too."""
PAUSE_S = 2.0
GRACE_S = 10.0
LAST_S = 2.0
"""For what was cancelled to end; then it is left alone."""

SessionClass = Callable[..., Any]


class ForemanWorkerOrchestrator:
    """``async with ForemanWorkerOrchestrator(…) as crew: print(await crew.execute_user_message("…"))``.

    Nothing is read or started before the first message. ``workspace_root`` is where all sessions work and where the
    tasks are (in its ``.work``). The foreman is a ``foreman_profile`` in ``mount_plans_dir``, or ``foreman_config``
    itself. ``loader``, ``approval_system`` and ``display_system`` are handed on to the sessions.

    ``pause_s``: between two cycles of a worker whose queue cannot wake it, and before a session that broke is opened
    again; after a failure it doubles. ``grace_s``: how long :meth:`shutdown` waits for what is at work before it is
    cancelled. ``routing`` has pools of workers, beside or instead of ``worker_configs``. ``queue``: False has sessions
    look for work themselves, True has tasks claimed for them; by default they are claimed for sessions of our own, and
    for others where there are tasks in the workspace. ``background`` sessions begin with the first message;
    ``router`` is told what the crew does, by the names in ``signals.Name``, and wakes those that wait for a signal.
    """

    def __init__(
        self,
        loader: Any = None,
        mount_plans_dir: Path | None = None,
        foreman_profile: str = "",
        worker_configs: Sequence[WorkerConfig] = (),
        workspace_root: Path | None = None,
        *,
        approval_system: Any = None,
        display_system: Any = None,
        foreman_config: dict[str, Any] | None = None,
        pause_s: float = PAUSE_S,
        grace_s: float = GRACE_S,
        routing: Routing | None = None,
        queue: bool | None = None,
        background: Sequence[BackgroundConfig] = (),
        router: EventRouter | None = None,
        environment: Mapping[str, str] | None = None,
    ) -> None:
        self.loader = loader
        self.mount_plans_dir = mount_plans_dir
        self.foreman_profile = foreman_profile
        self.foreman_config = foreman_config
        self.worker_configs = worker_configs
        self.workspace_root = workspace_root
        self.approval_system = approval_system
        self.display_system = display_system
        self.pause_s = pause_s
        self.grace_s = grace_s
        self.routing = routing or Routing()
        self.foreman_session: Any = None
        self.worker_tasks: list[asyncio.Task[None]] = []
        self.worker_session_ids: dict[str, Any] = {}
        self.tasks: Tasks | None = None
        """the foreman's, from the first message on"""
        self.progress: Progress | None = None
        self.router = router or EventRouter()
        self.background = Background(background, turn=self._aside, router=self.router, trouble=self.trouble)
        self._environment = environment
        self._own_queue = queue
        self._initialized = False
        self._shutdown_event = asyncio.Event()
        self._changing = asyncio.Lock()
        self._floor: Shopfloor | None = None
        self._talks: Talks | None = None
        self._queue: Queue | None = None
        self._watching: asyncio.Task[None] | None = None
        self._workers: list[Worker] = []
        self._turns: set[asyncio.Task[Any]] = set()
        self._spent: dict[str, Any] = {}
        """by the crews before this one"""
        self._troubles: dict[str, str] = {}
        """who cannot work, and why: as it was told last"""

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.shutdown()

    async def execute_user_message(self, message: str) -> str:
        """The foreman's answer; the crew works meanwhile, and more messages may be sent.

        The first one starts foreman and crew: what goes wrong then is raised as it is, and nothing is left behind.
        Raises RuntimeError ``Foreman execution failed: …`` for an error of the foreman, with its cause.
        """
        await self._ready()
        said = await self._news() + message
        turn = asyncio.ensure_future(self.foreman_session.execute(said))
        self._turns.add(turn)
        turn.add_done_callback(self._turns.discard)
        ended = await outcome_of(turn)
        if ended.error is None:
            answer: str = ended.value
            return answer
        log.error(FOREMAN_FAILED, ended.error, exc_info=ended.error)
        raise RuntimeError(f"Foreman execution failed: {ended.error}") from ended.error

    async def get_worker_status(self) -> dict[str, str]:
        """For each task that was begun: ``running``, ``completed``, ``failed`` or ``cancelled``."""
        return worker_status(await self.tasks.all()) if self.tasks is not None else {}

    def look(self) -> Tasks:
        """The foreman's tasks, also before the first message: nothing is started or written by it."""
        self._open_floor()
        assert self.tasks is not None  # the floor is open
        return self.tasks

    @property
    def spent(self) -> dict[str, Any]:
        """``usd`` (None: a price is not known), ``calls``, ``tokens_in`` and ``tokens_out`` of foreman and workers.

        Of sessions of our own, since the newest start of the crew; empty before their first call.
        """
        if self._talks is None:
            return dict(self._spent)
        found = self._talks.spent
        return msgspec.structs.asdict(found) if found.calls else {}

    # -- beginning --------------------------------------------------------------------------------------------------

    async def _ready(self) -> None:
        async with self._changing:
            if self._initialized:
                return
            self._shutdown_event.clear()
            looking = self._floor is not None
            started = await outcome_of(self._start())
            if started.error is not None:
                await self._dismiss()
                if not looking:  # whoever looks at the tasks goes on with it
                    await self._leave()
                raise started.error
            self._initialized = True

    async def _start(self) -> None:
        plan = self._foreman_plan()
        self._open_floor()
        assert self.tasks is not None  # the floor is open
        session = self._session(plan, self.tasks, foreman=True)
        await session.__aenter__()
        self.foreman_session = session
        await self._furnished(session, self.tasks, plan, foreman=True)
        context = session.coordinator.get("context")
        if context is None:
            raise RuntimeError("Foreman: No context manager mounted")
        team = self._team()
        kinds = sorted({job.category for job in team})
        words = briefs.foreman(kinds, [job.name for job in team])
        await context.add_message({"role": "system", "content": words})
        if self.progress is not None and self._claims():
            await self.progress.begin()  # what the crew does from now on is news
        await self._start_workers()
        self.background.start()

    async def _start_workers(self) -> None:
        self._open_floor()
        parent = getattr(self.foreman_session, "session_id", None)
        for job in self._team():
            assert self._floor is not None  # it is open
            tasks = Tasks(self._floor, job.name)
            load = partial(self._worker_plan, job.config)
            worker = Worker(
                job.name, job.category, job.wish, crew=self, tasks=tasks,
                open_session=partial(self._worker_session, load, tasks, parent),
                opened=partial(self._worker_opened, job.name, load, tasks),
            )  # fmt: skip
            self._workers.append(worker)
            self.worker_tasks.append(asyncio.create_task(self._worker_loop(worker), name=job.name))

    async def _worker_loop(self, worker: Worker) -> None:
        await worker.run()

    def _team(self) -> list[Job]:
        return team_of(self.worker_configs, self.routing)

    def _foreman_plan(self) -> dict[str, Any]:
        if self.foreman_config is not None:
            return self.foreman_config
        return load_mount_plan(self.mount_plans_dir or Path(), self.foreman_profile)

    def _worker_plan(self, config: WorkerConfig) -> dict[str, Any]:
        if config.config is not None:
            return config.config
        return load_mount_plan(self.mount_plans_dir or Path(), config.label)

    def _open_floor(self) -> None:
        """Writes nothing: the folder of the tasks is made with the first of them."""
        if self._floor is None:
            self._floor = Shopfloor.open(self._folder, without_git=True, environment=self._environment)
            self._talks = Talks(self._floor)
            self.tasks = Tasks(self._floor, "foreman")
            self.progress = Progress(self.tasks)

    @property
    def _folder(self) -> Path:
        return Path(self.workspace_root or Path())

    # -- sessions ---------------------------------------------------------------------------------------------------

    def _session_class(self) -> SessionClass:
        """What makes sessions; a drop-in name may look it up elsewhere."""
        return default_session

    def _session(self, plan: Mapping[str, Any], tasks: Tasks, *, foreman: bool, **more: Any) -> Session:
        make = self._session_class()
        if make is default_session:
            more["seat"] = self._seat(tasks, foreman=foreman)
        found: Session = make(
            config=plan, loader=self.loader, approval_system=self.approval_system, display_system=self.display_system,
            **more,
        )  # fmt: skip
        return found

    def _seat(self, tasks: Tasks, *, foreman: bool) -> Seat:
        assert self._floor is not None  # it is open
        assert self._talks is not None
        self._folder.mkdir(parents=True, exist_ok=True)
        return Seat(
            talks=self._talks, folder=self._folder.resolve(), environment=self._floor.environment,
            tool=IssueTool(tasks, routing=self.routing, router=self.router), foreman=foreman,
        )  # fmt: skip

    async def _furnished(self, session: Session, tasks: Tasks, plan: Mapping[str, Any], *, foreman: bool) -> bool:
        """Whether it has the issue tool."""
        if self._session_class() is default_session:
            await furnish(session, self._seat(tasks, foreman=foreman), plan)
        return ISSUES in read_plan(plan, {}).tools

    def _worker_session(self, load: Callable[[], Mapping[str, Any]], tasks: Tasks, parent: Any) -> Session:
        return self._session(load(), tasks, foreman=False, parent_id=parent)

    async def _worker_opened(
        self, name: str, load: Callable[[], Mapping[str, Any]], tasks: Tasks, session: Session
    ) -> bool:
        self.worker_session_ids[name] = getattr(session, "session_id", "")
        self.trouble(name, "")
        return await self._furnished(session, tasks, load(), foreman=False)

    async def _aside(self, config: BackgroundConfig, words: str) -> str:
        """A turn beside the crew, in a session of its own."""
        assert self._floor is not None  # it is open
        tasks, worker = Tasks(self._floor, f"background-{config.name}"), WorkerConfig(config.profile or config.name)
        plan = self._worker_plan(worker)
        parent = getattr(self.foreman_session, "session_id", None)
        try:
            async with self._session(plan, tasks, foreman=False, parent_id=parent) as session:
                await self._furnished(session, tasks, plan, foreman=False)
                answer: str = await session.execute(words)
                return answer
        finally:
            await tasks.end()

    # -- what workers ask for ---------------------------------------------------------------------------------------

    @property
    def stop(self) -> asyncio.Event:
        """Set when the crew is to end."""
        return self._shutdown_event

    @property
    def at_work(self) -> int:
        """How many issues its workers hold now."""
        return sum(len(worker.tasks.held) for worker in self._workers)

    def queue(self) -> Queue | None:
        """Where tasks come from; None: none is visible."""
        if not self._claims() or self.tasks is None:
            return None
        if self._queue is None:
            self._queue = Queue(self.tasks, self._shutdown_event, pause_s=self.pause_s)
            self._watching = asyncio.create_task(self._queue.watch(), name="foreman-queue")
        return self._queue

    def trouble(self, worker: str, text: str) -> bool:
        """Why it cannot work, which the user is told with the foreman's next answer; empty: it can.

        Returns whether that is news: the same is told once, however often it is met with.
        """
        known, self._troubles[worker] = self._troubles.get(worker, ""), text
        news = bool(text) and text != known
        if news and self.progress is not None:
            self.progress.trouble(f"{worker}: {text}")
        return news

    def _claims(self) -> bool:
        if self._own_queue is not None:
            return self._own_queue
        work = self._floor.work if self._floor is not None else self._folder / ".work"
        return self._session_class() is default_session or (work / "events.jsonl").exists()

    async def _news(self) -> str:
        """What is put before the user's words: what the crew has done since."""
        if self.progress is None or not self._claims():
            return ""
        block = await self.progress.block()
        return f"{block}\n\n" if block else ""

    # -- ending -----------------------------------------------------------------------------------------------------

    async def shutdown(self) -> None:
        """End foreman and crew: what is at work has ``grace_s`` to end, then it is cancelled; its task is open again.

        All sessions are closed, nothing is left running. Harmless when repeated; the next message starts a new team.
        """
        async with self._changing:
            if not self._initialized and self._floor is None:
                return
            await self._dismiss()
            await self._leave()
            self._initialized = False

    async def _dismiss(self) -> None:
        """End foreman and crew."""
        self._shutdown_event.set()
        await self.background.close()
        if self._queue is not None:
            await self._queue.wake()
        await self._end({*self.worker_tasks, *self._turns}, self.grace_s)
        for worker in self._workers:  # those that could not be cancelled have not done it
            await _quietly(worker.tasks.end(), f"giving back what {worker.name} held")
        if self._watching is not None:
            await self._end({self._watching}, 0.0)
        session, self.foreman_session = self.foreman_session, None
        if session is not None:
            await _quietly(session.__aexit__(None, None, None), "closing the foreman's session")
        self.worker_tasks, self._workers = [], []
        self._queue = self._watching = None
        self.worker_session_ids.clear()
        self._troubles.clear()

    async def _leave(self) -> None:
        """Close the floor."""
        tasks, talks, floor, self._spent = self.tasks, self._talks, self._floor, self.spent
        self.tasks = self._talks = self._floor = self.progress = None
        if tasks is not None and talks is not None and floor is not None:
            await _quietly(tasks.end(), "giving back what the foreman held")
            await _quietly(talks.close(), "ending the conversations")
            await _quietly(floor.__aexit__(), "closing the floor")

    async def _end(self, running: set[asyncio.Task[Any]], grace_s: float) -> None:
        """Wait for them, then cancel them. What does not even end then is told."""
        if not running:
            return
        _, late = await asyncio.wait(running, timeout=grace_s)
        for task in late:
            task.cancel()
        if late and (stuck := (await asyncio.wait(late, timeout=LAST_S))[1]):
            log.error("%d tasks did not end when they were cancelled: %s", len(stuck), stuck)
        for task in running:
            if task.done() and not task.cancelled() and (error := task.exception()) is not None:
                log.debug("ended by %r", error)


async def _quietly(work: Awaitable[Any], what: str) -> None:
    """Go on whatever comes of it; an error is only logged."""
    ended = await outcome_of(work)
    if ended.error is not None:
        log.error("%s failed: %s", what, ended.error, exc_info=ended.error)
