"""One running agent: its output on the way to the files, to the reader, and to whoever follows."""

from __future__ import annotations

import asyncio
import math
import signal
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import msgspec

from shopfloor.agents._dialect import Dialect, Voice
from shopfloor.agents._lines import BoundedFile, Line, Lines
from shopfloor.domain.errors import Refused
from shopfloor.masking import Masker
from shopfloor.ports import Delivery, Kind, Report
from shopfloor.spawn import Exit, Process, Step

CHUNK = 1 << 16
KEPT_BYTES = 64 << 20
"""of stdout.log, stderr.log and transcript.jsonl each"""
AHEAD_BYTES = 8 << 20
"""of reports that nobody has taken yet; then the agent has to wait"""
LAST_WORDS_S = 1.0
_DISMISSAL = (Step(signal.SIGTERM, 2.0), Step(signal.SIGKILL, math.inf))
SEEN_S = 1.0
"""how long words that were sent wait for the agent to say that it has them"""
_NOTE = f"\n[shopfloor: output beyond {KEPT_BYTES >> 20} MiB is not kept]\n".encode()
_REPORT_COSTS = 256  # bytes that a report takes beside its text, roughly


class Reader(Protocol):
    """Understands what one agent says, and judges its end."""

    line_bytes: int
    """longer lines are cut"""
    masked: bool
    """True: it is given masked lines; False: it masks what it makes of them"""

    def started(self) -> Sequence[Report]:
        """What is reported as soon as the process runs."""
        ...

    def heard(self, stream: str, line: Line) -> Sequence[Report]:
        """What one line of ``stdout`` or ``stderr`` means."""
        ...

    def ended(self, code: int | None) -> Report:
        """EXITED for an agent that ended by itself, with this exit code (None: by a signal)."""
        ...


@runtime_checkable
class Looking(Protocol):
    """A reader that also looks elsewhere, for agents that do not say on their streams what they do."""

    every_s: float
    """from the end of one look to the next"""

    async def look(self) -> Sequence[Report]:
        """What has come since the last look. Looked a last time after the streams have ended."""
        ...


class Mailbox:
    """Reports on their way to one follower; bounded, so that a slow follower slows the agent and not the machine."""

    def __init__(self) -> None:
        self.bounded = True
        self._reports: deque[tuple[Report, int]] = deque()
        self._held = 0
        self._arrived = asyncio.Event()
        self._room = asyncio.Event()

    @property
    def full(self) -> bool:
        return self.bounded and self._held >= AHEAD_BYTES

    def unbind(self) -> None:
        """Take everything from now on: there is not much more to come."""
        self.bounded = False
        self._room.set()

    async def put(self, report: Report, weight: int) -> None:
        while self.full:
            self._room.clear()
            await self._room.wait()
        self._reports.append((report, weight))
        self._held += weight
        self._arrived.set()

    async def get(self) -> Report:
        while not self._reports:
            self._arrived.clear()
            await self._arrived.wait()
        report, weight = self._reports.popleft()
        self._held -= weight
        self._room.set()
        return report


class Files:
    """The files of one attempt: raw streams and transcript, all masked and bounded."""

    def __init__(self, folder: Path) -> None:
        """Raises OSError when one of them cannot be opened."""
        with ExitStack() as opened:
            self.logs: dict[str, BoundedFile] = {}
            for name in ("stdout", "stderr"):
                self.logs[name] = BoundedFile(folder / f"{name}.log", KEPT_BYTES, _NOTE)
                opened.callback(self.logs[name].close)
            self.transcript = BoundedFile(folder / "transcript.jsonl", KEPT_BYTES, _line(_FULL, None))
            opened.callback(self.transcript.close)
            self._opened = opened.pop_all()

    def close(self) -> None:
        self._opened.close()


class Teller:
    """Where the reports of one attempt go: into its transcript, and to whoever follows."""

    def __init__(self, files: Files, wall: Callable[[], float]) -> None:
        self.mailbox = Mailbox()
        self._files = files
        self._wall = wall

    async def tell(self, report: Report, *, force: bool = False) -> None:
        """One report; ``force``: also into a transcript that is full."""
        line = _line(report, self._wall())
        if force:
            self._files.transcript.force(line)
        else:
            self._files.transcript.write_whole(line)
        await self.mailbox.put(report, len(line) + _REPORT_COSTS)

    async def tell_all(self, reports: Sequence[Report]) -> None:
        """Several, in order."""
        for report in reports:
            await self.tell(report)

    async def keep(self, name: str, data: bytes) -> None:
        """Raw output, masked already, of ``stdout`` or ``stderr``."""
        if problem := self._files.logs[name].write(data):
            await self.tell(Report(kind=Kind.LOG, status="warning", text=problem))


class Run:
    """An agent from its start to its EXITED."""

    def __init__(
        self, process: Process, reader: Reader, masker: Masker, files: Files, wall: Callable[[], float]
    ) -> None:
        """Takes the files over: they are closed at the end."""
        self.process = process
        self._teller = Teller(files, wall)
        self.mailbox = self._teller.mailbox
        self.followed = False
        self.stopping = False
        self.over = False
        self._reader = reader
        self._masker = masker
        self._read_bytes = 0
        self._silent = asyncio.Event()
        """its streams have ended"""
        self._files = files
        self._dialect = reader if isinstance(reader, Dialect) else None
        self._voice = Voice(process.stdin) if process.stdin else None
        self._unheard = False
        self._heard_more = asyncio.Event()
        self.task = asyncio.create_task(self._live())

    @property
    def listens(self) -> bool:
        """Whether it is of a kind that can be told something while it runs."""
        return self._dialect is not None

    async def send(self, text: str) -> Delivery:
        """Tell it something while it runs. Raises Refused when it does not listen, or does not read."""
        dialect, voice = self._dialect, self._voice
        if dialect is None or voice is None or voice.closed or dialect.done or self.over or self.stopping:
            raise Refused("the agent does not listen any more", hint="the next attempt is told with its prompt")
        if voice.unread_bytes:
            raise Refused("the agent has not read what it was told before", hint="try again, or stop the attempt")
        key = dialect.told(text)
        self._speak()
        for report in dialect.aside():
            await self._teller.tell(report)
        await voice.drain(SEEN_S)
        with suppress(TimeoutError):
            async with asyncio.timeout(SEEN_S if key else 0):
                while key not in dialect.seen and not self.task.done():
                    self._heard_more.clear()
                    await self._heard_more.wait()
        return Delivery.SEEN if key in dialect.seen else dialect.delivery

    async def stop(self, ladder: Sequence[Step], *, polite_s: float) -> None:
        """End it; returns when nothing of it is left and everything it said is kept.

        One that can be told to end is told so, and has ``polite_s`` seconds before the first signal.
        """
        first = not (self.over or self.stopping)
        self.stopping = self.stopping or not self.over
        self.mailbox.unbind()
        if self._dialect is not None:
            if first:
                self._dialect.leave()
                self._speak()
            await asyncio.wait({self.task}, timeout=polite_s)
        await self.process.stop(ladder)
        await asyncio.wait({self.task})

    # -- the life ---------------------------------------------------------------------------------------------------

    async def _live(self) -> None:
        """Hear both streams to their end, then report EXITED, whatever happens in between."""
        end = asyncio.create_task(self.process.wait())
        streams = {"stdout": self.process.stdout, "stderr": self.process.stderr}
        pumps: set[asyncio.Task[None]] = set()
        watch: list[asyncio.Task[None]] = []
        looking: asyncio.Task[None] | None = None
        exited = Exit(None, None, lost=True)
        try:
            opening = self._reader.started()
            self._speak()
            await self._teller.tell_all(opening)
            pumps = {asyncio.create_task(self._pump(name, s)) for name, s in streams.items() if s is not None}
            watch.append(asyncio.create_task(self._watch()))
            if isinstance(self._reader, Looking):
                looking = asyncio.create_task(self._look(self._reader))
            waiting: set[asyncio.Task[Any]] = {end, *pumps}
            while not end.done():
                done, waiting = await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
                if any(pump.exception() for pump in done & pumps):
                    await self.process.stop()  # nobody would hear what it says, so it must not go on
            exited = end.result()
            self.over = True
            await self._last_words(pumps)
            self._silent.set()
            if looking is not None:
                await looking
        finally:
            for task in (end, *pumps, *watch, *((looking,) if looking else ())):
                task.cancel()
            if self._voice:
                self._voice.abort()
            self.mailbox.unbind()
            await self._teller.tell_all(self._dialect.aside() if self._dialect else ())
            await self._teller.tell(self._exited(exited), force=True)
            self._files.close()
        for pump in pumps:
            if pump.done() and not pump.cancelled():
                pump.result()

    async def _watch(self) -> None:
        """End an agent that owes its dialect an answer for too long."""
        dialect = self._dialect
        while dialect is not None:
            waits = dialect.waits
            try:
                async with asyncio.timeout(waits.most_s if waits else None):
                    while dialect.waits == waits:
                        self._heard_more.clear()
                        await self._heard_more.wait()
            except TimeoutError:
                for report in dialect.overdue():
                    await self._teller.tell(report)
                self._speak()
                if dialect.dismissed:
                    await self.process.stop(_DISMISSAL)
                    return

    async def _last_words(self, pumps: set[asyncio.Task[None]]) -> None:
        """Wait for the end of the streams; a stream that somebody outside holds open and that is silent is left."""
        before = -1
        waiting = set(pumps)
        while waiting:
            _, waiting = await asyncio.wait(waiting, timeout=LAST_WORDS_S)
            if before == self._read_bytes and not self.mailbox.full:
                return
            before = self._read_bytes

    async def _pump(self, name: str, stream: asyncio.StreamReader) -> None:
        """One stream to its end: to its log masked, to the reader line by line."""
        masked = self._masker.stream()
        lines = Lines(self._reader.line_bytes)
        while data := await stream.read(CHUNK):
            self._read_bytes += len(data)
            safe = masked.feed(data)
            await self._teller.keep(name, safe)
            await self._hear(name, lines.feed(safe if self._reader.masked else data))
        rest = masked.close()
        await self._teller.keep(name, rest)
        await self._hear(name, lines.feed(rest if self._reader.masked else b""))
        await self._hear(name, lines.close())

    async def _hear(self, name: str, lines: Sequence[Line]) -> None:
        for line in lines:
            reports = self._reader.heard(name, line)
            self._speak()
            await self._teller.tell_all(reports)
        if self._unheard:
            self._unheard = False
            text = "it does not read what it is told: an answer to it was dropped"
            await self._teller.tell(Report(kind=Kind.LOG, status="warning", text=text))

    def _speak(self) -> None:
        """Say what the dialect wants said; an agent that does not read loses it, and nobody waits for that one."""
        if self._dialect is None or self._voice is None:
            return
        if data := self._dialect.taken():
            self._unheard = not self._voice.say(data) and not self._voice.closed
        if self._dialect.done:
            self._voice.close()
        self._heard_more.set()

    async def _look(self, reader: Looking) -> None:
        last = False
        while not last:
            last = self._silent.is_set()
            await self._teller.tell_all(await reader.look())
            with suppress(TimeoutError):
                async with asyncio.timeout(None if last else reader.every_s):
                    await self._silent.wait()

    def _exited(self, end: Exit) -> Report:
        report = self._reader.ended(end.code)
        code = end.code if end.code is not None else -end.signal if end.signal is not None else None
        status, text = report.status, report.text
        if end.lost:
            status, text = "lost", "its guard was killed, and it with it"
        elif self.stopping:
            status, text = "killed", "it was stopped"
        elif end.signal is not None and not (self._dialect and self._dialect.dismissed):
            status, text = "error", f"ended by signal {end.signal}"
        data: dict[str, Any] = {**report.data, "max_rss_bytes": end.max_rss_bytes, "cpu_s": round(end.cpu_s, 3)}
        return msgspec.structs.replace(
            report, status=status, text=text, exit_code=code, leftovers=end.leftovers, data=data
        )


def _line(report: Report, wall_s: float | None) -> bytes:
    """``{time, kind, text, …}``: what is not the default, as one line."""
    told: dict[str, Any] = {} if wall_s is None else {"time": round(wall_s, 3)}
    told |= {"kind": report.kind, "text": report.text}
    others = {field.name: getattr(report, field.name) for field in _OTHERS}
    told |= {name: value for name, value in others.items() if value != _DEFAULTS[name]}
    return msgspec.json.encode(told) + b"\n"


_FULL = Report(
    kind=Kind.LOG, status="warning", text=f"the transcript has {KEPT_BYTES >> 20} MiB; only the end is added"
)
_OTHERS = [field for field in msgspec.structs.fields(Report) if field.name not in ("kind", "text")]
_PLAIN = Report(kind=Kind.LOG)
_DEFAULTS = {field.name: getattr(_PLAIN, field.name) for field in _OTHERS}
