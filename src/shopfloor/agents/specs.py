"""Agents that are servers of another kind: each answers a spec in three steps, many specs at the same time.

The steps and what their answers mean are in `_steps`. A call waits until a server has room for it, is offered to server
i mod N first (``policy`` says what else there is), and when a server fails it, another one gets it from the beginning.
How many calls a server has under way is found by trying (`shopfloor.domain.servers.Limit`), or given by ``in_flight``.

An order brings its spec as ``metadata["spec"]`` and its number as ``metadata["number"]``; without the one its prompt is
read, which is JSON or has a block of it, without the other it is counted.
"""

from __future__ import annotations

import asyncio
import importlib.util
import re
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Mapping
from functools import partial
from itertools import count
from pathlib import Path
from typing import Any

from shopfloor.agents._attempts import Attempts, deaf
from shopfloor.agents._process import attempt_files, require_workspace
from shopfloor.agents._run import Files, Teller
from shopfloor.agents._servers import addresses, probed
from shopfloor.agents._tidy import json_object
from shopfloor.domain.errors import Refused
from shopfloor.domain.order import Order
from shopfloor.masking import Masker
from shopfloor.ports import Answered, Call, Capabilities, Delivery, Handle, Kind, Launch, Probe, Profile, Report
from shopfloor.spawn import Guard

PATHS = {"validate": "/spec/validate", "generate": "/generate", "verify": "/verify", "health": "/health"}
"""Where each step is asked for; a profile's ``paths`` names others"""
_BLOCK = re.compile(r"^```json\n(.*?)^```", re.DOTALL | re.MULTILINE)
MISSING_HINT = "type pip install 'shopfloor[fanout]'"


class SpecsAgent:
    """Sends specs to servers. A :class:`shopfloor.ports.Answering`."""

    driver = "specs"
    capabilities = Capabilities()

    def __init__(
        self,
        guard: Guard,
        *,
        environment: Mapping[str, str] | None = None,
        root: Path | None = None,
        wall: Callable[[], float] = time.time,
        patience_s: float | None = None,
    ) -> None:
        """``patience_s``: so long all servers may be down before a call is given up; None: as is usual."""
        self._wall = wall
        self._patience_s = patience_s
        self._lines: dict[str, _Line] = {}
        self._attempts: Attempts[_Run] = Attempts("it did not outlive the controller that started it")

    async def probe(self, profile: Profile) -> Probe:
        """Ask the servers for their health; one that answers is enough."""
        if importlib.util.find_spec("httptools") is None:
            return Probe(found=False, problem="agents of driver 'specs' need httptools", hint=MISSING_HINT)
        try:
            paths = _paths(profile)
        except Refused as problem:
            return Probe(found=False, problem=problem.message, hint=problem.hint)
        return await probed(profile, self.capabilities, health=paths["health"])

    # -- calls --------------------------------------------------------------------------------------------------------

    def answer(self, call: Call) -> Coroutine[Any, Any, Answered]:
        """What the servers made of a spec. Raises Refused when there is none, or no server that could be asked.

        ``call.timeout_s`` is what each of its requests may take.
        """
        return self._line(call.profile).asked(call.order, call.order.instruction, call.timeout_s)

    def capacity(self, profile: Profile) -> int:
        """How many calls may be under way now, those that wait for a server included."""
        return self._line(profile).capacity

    async def close(self) -> None:
        """Close what connections are kept."""
        for line in self._lines.values():
            line.close()

    def _line(self, profile: Profile) -> _Line:
        """Its servers, which share what is known of them. Raises Refused."""
        found = self._lines.get(profile.name)
        if found is None or found.profile != profile:
            found = self._lines[profile.name] = _Line(profile, _paths(profile), self._patience_s)
        return found

    # -- attempts that have a workspace -------------------------------------------------------------------------------

    async def start(self, launch: Launch) -> Handle:
        """Send its spec. Raises Refused when no server answers, or when the attempt runs already."""
        await self._attempts.start(launch.attempt, partial(self._start, launch))
        return Handle(driver=self.driver, attempt=launch.attempt)

    async def _start(self, launch: Launch) -> _Run:
        require_workspace(launch)
        line = self._line(launch.profile)
        if not line.well and not (seen := await self.probe(launch.profile)).found:
            raise Refused(seen.problem, hint=seen.hint)
        masker = Masker(launch.secrets)
        files = attempt_files(launch, masker.text(launch.prompt))
        work = partial(line.answer, launch.order, launch.prompt, launch.order.timeout_s)
        return _Run(work, launch.profile.name, files, masker, Teller(files, self._wall))

    def follow(self, handle: Handle) -> AsyncIterator[Report]:
        """Everything it reports; see :meth:`Attempts.follow`."""
        return self._attempts.follow(handle.attempt)

    async def send(self, handle: Handle, text: str) -> Delivery:
        """Raises Refused: a spec is sent once."""
        raise deaf(handle.attempt, "its spec is sent and cannot be added to")

    async def stop(self, handle: Handle) -> None:
        """Close its connection; harmless when it has ended."""
        if run := self._attempts.get(handle.attempt):
            await run.stop()


class _Line:
    """The servers of one profile, and the calls that they are sent."""

    def __init__(self, profile: Profile, paths: Mapping[str, str], patience_s: float | None) -> None:
        # Imported when there is something to do: it needs what only an extra brings.
        from shopfloor.agents._pool import PATIENCE_S, Pool

        self.profile = profile
        self._numbers = count()
        self._pool = Pool(
            addresses(profile), paths, policy=profile.policy, in_flight=profile.in_flight,
            patience_s=PATIENCE_S if patience_s is None else patience_s,
        )  # fmt: skip

    @property
    def capacity(self) -> int:
        return self._pool.capacity

    @property
    def well(self) -> bool:
        """Whether any of them is known to answer."""
        return any(server.well for server in self._pool.servers)

    def close(self) -> None:
        self._pool.close()

    async def answer(self, order: Order, prompt: str, limit_s: float | None) -> Answered:
        """One spec to its end, with one server or another. Raises Refused when there is no spec."""
        return await self.asked(order, prompt, limit_s)

    def asked(self, order: Order, prompt: str, limit_s: float | None) -> Coroutine[Any, Any, Answered]:
        """The same, refused before it begins."""
        given = order.metadata
        spec, number = given.get("spec"), given.get("number")
        if spec is None:
            block = _BLOCK.search(prompt)
            spec = json_object((block[1] if block else prompt).encode(errors="replace"))
        if not isinstance(spec, dict):
            hint = 'give it one, a JSON object, as its metadata "spec" or as its prompt'
            raise Refused(f"order {order.name!r} has no spec", hint=hint)
        if not isinstance(number, int) or number < 0:
            number = next(self._numbers)
        return self._pool.answer(spec, number, limit_s)


def _paths(profile: Profile) -> dict[str, str]:
    """Raises Refused for a step that is none, and a path that is none."""
    for step, path in profile.paths.items():
        if step not in PATHS:
            known = ", ".join(f"{name} = {place!r}" for name, place in PATHS.items())
            problem = f"agent {profile.name!r}: paths has {step!r} = {path!r}, and there is no such step"
            raise Refused(problem, hint=f"name a path for one of these steps: {known}")
    return PATHS | profile.paths


class _Run:
    """An attempt from its start to its EXITED."""

    def __init__(
        self, work: Callable[[], Awaitable[Answered]], agent: str, files: Files, masker: Masker, teller: Teller
    ) -> None:
        self.followed = False
        self.mailbox = teller.mailbox
        self._work = asyncio.ensure_future(work())
        self._agent, self._files, self._masker, self._teller = agent, files, masker, teller
        self.task = asyncio.create_task(self._live())

    async def stop(self) -> None:
        """Give it up; returns when its connection is closed."""
        if not self.task.done():
            self.mailbox.unbind()
            self._work.cancel()
            await asyncio.wait({self.task})

    async def _live(self) -> None:
        """Until its EXITED, whatever happens in between."""
        report = Report(kind=Kind.EXITED, status="killed", text="it was stopped")
        try:
            await self._teller.tell(Report(kind=Kind.STARTED, text=self._agent))
            await asyncio.wait({self._work})
            if not self._work.cancelled():
                report = await self._ended()
        finally:
            self._work.cancel()
            await asyncio.wait({self._work})
            self.mailbox.unbind()
            await self._teller.tell(report, force=True)
            self._files.close()

    async def _ended(self) -> Report:
        try:
            answered = self._work.result()
        except Refused as refused:
            return Report(kind=Kind.EXITED, status="error", text=refused.message)
        text = self._masker.text(answered.text or answered.failed)
        if not answered.failed:
            await self._teller.keep("stdout", text.encode(errors="replace"))
            await self._teller.tell(Report(kind=Kind.TURN_END, status="success", text=text))
        status = "error" if answered.failed else "completed"
        return Report(kind=Kind.EXITED, status=status, text=text, data=answered.data)
