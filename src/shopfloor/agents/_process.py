"""What all drivers of local programs share: find it, start it, follow it, end it.

A driver brings a :class:`Reader` that understands the lines. Everything that is kept or reported is masked.
"""

from __future__ import annotations

import math
import os
import re
import shutil
import signal
import time
from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from functools import partial
from pathlib import Path

from shopfloor.agents._attempts import Attempts, deaf, not_started
from shopfloor.agents._dialect import Dialect
from shopfloor.agents._run import Files, Reader, Run
from shopfloor.domain.errors import Refused
from shopfloor.masking import Masker
from shopfloor.ports import Capabilities, Delivery, Handle, Launch, Probe, Profile, Report
from shopfloor.spawn import Guard, SpawnError, Step

LADDER = (Step(signal.SIGINT, 2.0), Step(signal.SIGTERM, 3.0), Step(signal.SIGKILL, math.inf))
"""How an agent is ended: it has 2 s for its last words, 3 s more after SIGTERM, and is gone within 7 s."""

POLITE_S = 2.0
"""for an agent that can be told to end, before the first signal"""

_LONGEST_WORD = 128 * 1024 - 1  # bytes; Linux takes no longer argument
_PLACEHOLDER = re.compile(r"\{(prompt_file|prompt|workspace|branch|order|title)\}")


class ProcessAgent(ABC):
    """Drives agents that are local programs, all under one guard."""

    driver = ""
    capabilities = Capabilities()
    polite_s = POLITE_S

    def __init__(
        self,
        guard: Guard,
        *,
        environment: Mapping[str, str] | None = None,
        root: Path | None = None,
        wall: Callable[[], float] = time.time,
        ladder: Sequence[Step] = LADDER,
        polite_s: float | None = None,
    ) -> None:
        """``environment`` and ``root`` are where ``probe`` looks: PATH, and the folder of relative programs."""
        self._guard = guard
        self._path = (environment or {}).get("PATH", os.defpath)
        self._root = root or Path.cwd()
        self._wall = wall
        self._ladder = tuple(ladder)
        self._polite_s = self.polite_s if polite_s is None else polite_s
        self._attempts: Attempts[Run] = Attempts("it did not outlive the controller that started it")

    @abstractmethod
    def reader(self, launch: Launch) -> Reader:
        """What understands the output of this attempt; with a :class:`Dialect` its stdin stays open."""

    def command(self, profile: Profile) -> tuple[str, ...]:
        """The argv before anything is replaced in it."""
        return profile.command

    def arguments(self, launch: Launch) -> tuple[str, ...]:
        """Words of the driver's own behind the command, before the profile's ``args``; nothing is replaced in them."""
        return ()

    def environment(self, launch: Launch) -> Mapping[str, str]:
        """The whole environment of this attempt."""
        return launch.env

    # -- the port ---------------------------------------------------------------------------------------------------

    async def probe(self, profile: Profile) -> Probe:
        """Look for the program; nothing is run."""
        command = self.command(profile)
        if not command:
            problem = f"agent {profile.name!r} has no command"
            return Probe(found=False, problem=problem, hint=f'write command = "…" under [agents.{profile.name}]')
        path = profile.env.get("PATH", self._path)
        if find_program(command[0], path, self._root) is None:
            return Probe(found=False, problem=_missing(command[0]), hint=_install(command[0], profile.name))
        return Probe(found=True, capabilities=self.capabilities)

    async def start(self, launch: Launch) -> Handle:
        """Start it, with its prompt in ``prompt.md`` and, unless a placeholder carries it, on stdin.

        Raises Refused when it cannot be started, or when the attempt runs already.
        """
        run = await self._attempts.start(launch.attempt, partial(self._start, launch))
        return Handle(
            driver=self.driver,
            attempt=launch.attempt,
            pid=run.process.pid,
            start_time=run.process.start_time,
            detail={"program": self.command(launch.profile)[0]},
        )

    def follow(self, handle: Handle) -> AsyncIterator[Report]:
        """Everything it reports. One that ended before, or that this driver does not know, has only EXITED.

        Raises Refused when somebody follows it already.
        """
        return self._attempts.follow(handle.attempt)

    async def send(self, handle: Handle, text: str) -> Delivery:
        """To its stdin, where its driver speaks its dialect. Raises Refused where not, and when it does not listen."""
        run = self._attempts.get(handle.attempt)
        if run is not None and run.listens:
            return await run.send(text)
        raise deaf(handle.attempt, f"driver {self.driver!r} has no channel back")

    async def stop(self, handle: Handle) -> None:
        """Interrupt, terminate, kill. Harmless when it has ended, and for a handle of another controller."""
        if run := self._attempts.get(handle.attempt):
            await run.stop(self._ladder, polite_s=self._polite_s)

    # -- beyond the port --------------------------------------------------------------------------------------------

    def memory_bytes(self, handle: Handle) -> int:
        """What it and everything it started use now; 0 when it does not run."""
        run = self._attempts.get(handle.attempt)
        return run.process.memory_bytes() if run else 0

    # -- starting ---------------------------------------------------------------------------------------------------

    async def _start(self, launch: Launch) -> Run:
        directory = Path(launch.directory)
        prompt_file = directory / "prompt.md"
        argv, given = self._argv(launch, prompt_file)
        masker = Masker(launch.secrets)
        masked = masker.text(launch.prompt)
        by_file = "prompt_file" in given
        reader = self.reader(launch)
        talks = isinstance(reader, Dialect)
        stdin = None if talks or given & {"prompt", "prompt_file"} else launch.prompt.encode(errors="replace")
        # An agent that reads the file gets the exact words while it runs, and leaves the masked ones.
        files = attempt_files(launch, launch.prompt if by_file else masked)
        try:
            workspace, env = Path(launch.workspace), self.environment(launch)
            process = await self._guard.spawn(argv, cwd=workspace, env=env, stdin=stdin, pipe_stdin=talks)
        except BaseException as error:
            files.close()
            if isinstance(error, SpawnError):
                raise Refused(error.message, hint=error.hint) from None
            raise
        run = Run(process, reader, masker, files, self._wall)
        if by_file and masked != launch.prompt:
            run.task.add_done_callback(lambda _: write_private(prompt_file, masked))
        return run

    def _argv(self, launch: Launch, prompt_file: Path) -> tuple[list[str], set[str]]:
        """The argv with everything replaced, and which placeholders were used. Raises Refused."""
        values = {
            "prompt_file": str(prompt_file),
            "prompt": launch.prompt,
            "workspace": launch.workspace,
            "branch": launch.branch,
            "order": launch.order.id,
            "title": launch.order.title,
        }
        name = launch.profile.name
        command = self.command(launch.profile)
        if not command:
            hint = f'write command = "…" under [agents.{name}]'
            raise Refused(f"agent {name!r} has no command", hint=hint)
        words = (*command, *launch.profile.args)
        given = {found for word in words for found in _PLACEHOLDER.findall(word)}
        argv = [_PLACEHOLDER.sub(lambda match: values[match[1]], word) for word in words]
        argv[len(command) : len(command)] = self.arguments(launch)
        for word in argv:
            if "\0" in word or len(word.encode(errors="replace")) > _LONGEST_WORD:
                what = "contains a NUL character" if "\0" in word else f"is longer than {_LONGEST_WORD} bytes"
                hint = "use {prompt_file} instead of {prompt}, or neither: then the prompt comes on stdin"
                raise Refused(f"agent {name!r} cannot be started: an argument {what}", hint=hint)
        program = find_program(argv[0], launch.env.get("PATH", os.defpath), Path(launch.workspace))
        if program is None:
            raise Refused(f"agent {name!r} cannot be started: {_missing(argv[0])}", hint=_install(argv[0], name))
        return [program, *argv[1:]], given


def find_program(word: str, path: str, folder: Path) -> str | None:
    """The absolute path of a program: by name on ``path``, with a slash relative to ``folder``; None: not there."""
    found = shutil.which(folder / word) if "/" in word else shutil.which(word, path=path)
    return str(Path(found).absolute()) if found else None


def attempt_files(launch: Launch, prompt: str) -> Files:
    """The attempt's folder, with its prompt in ``prompt.md``. Raises Refused.

    A few small writes once an attempt: a thread would cost more than they do.
    """
    folder = Path(launch.directory)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        write_private(folder / "prompt.md", prompt)
        return Files(folder)
    except OSError as error:
        raise not_started(launch.profile.name, error) from None


def require_workspace(launch: Launch) -> None:
    """Raises Refused when there is none."""
    if not Path(launch.workspace).is_dir():
        raise Refused(f"agent {launch.profile.name!r} was not started: {launch.workspace!r} is no folder")


def write_private(path: Path, text: str) -> None:
    """A text file that only its owner may read. Raises OSError."""
    file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(file, "wb") as raw:
        raw.write(text.encode(errors="replace"))


def _missing(word: str) -> str:
    where = "no executable file" if "/" in word else "not found on PATH"
    return f"{word!r} is {where}"


def _install(word: str, agent: str) -> str:
    return f"install {word!r}, or write its full path into [agents.{agent}] command"
