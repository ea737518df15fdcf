"""One agent in a terminal, from its start, or from where an earlier controller left it, to its EXITED.

What is known of it lies in the attempt's folder and goes on being written while nobody follows: ``stdout.log`` by the
recorder, ``hooks.jsonl`` by its hooks, ``exit.json`` by its keeper. The transcript says with each report how far these
were read, so whoever follows next goes on exactly there.
"""

from __future__ import annotations

import asyncio
import json
import signal
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import msgspec

from shopfloor.agents._lines import BoundedFile, Lines
from shopfloor.agents._run import KEPT_BYTES, Mailbox, _line
from shopfloor.agents._screen import Screen
from shopfloor.agents._tmux import Tmux, pasted
from shopfloor.domain.errors import Refused
from shopfloor.ports import Delivery, Handle, Kind, Report
from shopfloor.spawn import alive, end_marked, send_signal

TICK_S, SLOW_TICK_S, ACTIVE_S = 0.05, 0.2, 3.0
"""how often the files are looked at while something happens, and else"""
READY_S = 30.0
"""for a program that says by hooks when it is ready"""
SETTLE_S = 0.5
"""from that moment to the first key: it still draws"""
QUIET_S = 10.0
"""One without hooks is typed its prompt when it has shown something and is quiet, at the latest after so long."""
TAKEN_S, TRIES = 1.0, 8
"""for its word that it has taken a prompt, before Enter is pressed once more: a busy machine may lose the first"""
ENTER_S = 0.2
SHOWN_EVERY_S = 15.0
"""a program that only draws is reported to be alive so often"""
ANSWERED_S = 3.0
"""for its word that a dialog was answered"""
LAST_WORDS_S = 2.0
CHUNK = 1 << 18
HOOK_BYTES = 4 << 20
"""No hook's line is longer."""
GIVEN = "prompt.given"
"""there as soon as the prompt was pasted, or about to be"""
ROUTE = "route.json"
"""its way to its models, as long as it lives: who takes it up opens that again"""
MARK = "SHOPFLOOR_ATTEMPT_DIR"


class Ladder(msgspec.Struct, frozen=True, kw_only=True):
    """How it is ended, in seconds: after the keys, after SIGTERM, after SIGKILL for all."""

    polite_s: float = 3.0
    term_s: float = 3.0
    kill_s: float = 5.0


class Terminal:
    """A session at work."""

    def __init__(
        self, handle: Handle, tmux: Tmux, screen: Screen, *, wall: Callable[[], float], ladder: Ladder,
        prompt: str = "", adopted: bool = False,
    ) -> None:  # fmt: skip
        """``prompt`` is what has to be pasted. Raises OSError when the transcript cannot be opened."""
        detail = handle.detail
        self.handle, self.tmux, self.screen = handle, tmux, screen
        self.name, self.folder = detail["session"], Path(detail["folder"])
        self.keeper = int(detail["keeper"]), int(detail["keeper_start"])
        self.mailbox = Mailbox()
        self.followed = self.stopping = self.closing = self.over = False
        self._wall, self._ladder, self._prompt = wall, ladder, prompt
        self._talking = asyncio.Lock()
        self._moved = asyncio.Event()
        self._lines = Lines(screen.line_bytes)
        self._hooks_at = self._log_at = self._read_at = 0
        self._shown = (0, 0)
        self._told_at = self._moved_at = self._shown_at = _now()
        self._adopted = adopted
        if adopted:
            self._go_on()
        path = self.folder / "transcript.jsonl"
        size = path.stat().st_size if path.exists() else 0
        self._transcript = BoundedFile(path, max(0, KEPT_BYTES - size), b"")
        self.task = asyncio.create_task(self._live())

    # -- what others ask of it --------------------------------------------------------------------------------------

    async def send(self, text: str) -> Delivery:
        """Type a text. SEEN when a hook confirms that it was taken. Raises Refused when it is ending."""
        async with self._talking:
            if self.stopping or self.closing or self.over:
                raise Refused(f"attempt {self.handle.attempt!r} is ending", hint="shopfloor show ORDER")
            if self.screen.asked is not None:
                return await self._decide(text)
            return await self._say(text)

    async def stop(self) -> None:
        """End it; returns when nothing of it is left and everything it said is kept."""
        self.stopping = self.stopping or not self.over
        self.mailbox.unbind()
        await self._leave()
        await asyncio.wait({self.task})

    # -- the life ---------------------------------------------------------------------------------------------------

    async def _live(self) -> None:
        talk = asyncio.create_task(self._begin())
        exited = Report(kind=Kind.EXITED, status="lost", text="nobody saw how it ended")
        try:
            if self._adopted:
                if self.screen.asked is not None:
                    await self._tell(self.screen.asked)  # whether anybody heard it the first time is not known
            else:
                for report in self.screen.started():
                    await self._tell(report)
            while not self._ended():
                await self._look()
                if talk.done() and not talk.cancelled():
                    talk.result()
                if self.screen.finished and not self.closing and talk.done():
                    talk = asyncio.create_task(self._finish())
                await asyncio.sleep(TICK_S if _now() - self._moved_at < ACTIVE_S else SLOW_TICK_S)
            exited = await self._end()
        finally:
            talk.cancel()
            self.over = True
            (self.folder / ROUTE).unlink(missing_ok=True)
            self.mailbox.unbind()
            await self._tell(exited, force=True)
            self._transcript.close()

    async def _begin(self) -> None:
        """Give it its prompt; a program that never gets ready, or does not take it, is ended."""
        if not self._prompt or self._adopted:
            return
        if not self.screen.hooked:
            await self._until(self._waits, QUIET_S)
        elif await self._until(lambda: self.screen.ready, READY_S):
            await asyncio.sleep(SETTLE_S)
        else:
            await self._give_up("it did not get ready")
            return
        given = Delivery.SHOWN
        async with self._talking:
            (self.folder / GIVEN).touch(mode=0o600)
            with suppress(Refused):  # it has ended meanwhile, which says itself
                given = await self._say(self._prompt)
        if self.screen.hooked and given is not Delivery.SEEN:
            await self._give_up("it did not take its prompt")

    def _waits(self) -> bool:
        """Whether a program without hooks seems to wait for its prompt: it has shown something, and is quiet since."""
        return self._shown[0] > 0 and _now() - self._shown_at >= SETTLE_S

    async def _give_up(self, what: str) -> None:
        if self._ended() or self.stopping:
            return
        shown = await self.tmux.screen(self.name)
        self.closing = True
        why = f"{what}; its screen says: {' | '.join(shown[-6:])}"
        await self._tell(Report(kind=Kind.ERROR, text=why, status="NotReady"))
        await self._leave()

    async def _finish(self) -> None:
        """It has done what it was told: end it, unless somebody goes on talking to it."""
        await asyncio.sleep(SETTLE_S)
        if await self.tmux.writers(self.name):
            return  # whoever types there keeps it; this is asked again
        async with self._talking:
            if not self.screen.finished or self._ended():
                return
            self.closing = True
        await self._leave()

    def _ended(self) -> bool:
        return (self.folder / "exit.json").exists() or not alive(*self.keeper)

    async def _end(self) -> Report:
        """The last words, the end of everything, and EXITED."""
        exit_file, end_file = self.folder / "exit.json", self.folder / "stdout.end"
        facts: dict[str, Any] | None = None
        with suppress(OSError, ValueError):
            facts = json.loads(exit_file.read_text())
        deadline = _now() + LAST_WORDS_S
        while not end_file.exists() and facts is not None and _now() < deadline:
            await self._look()
            await asyncio.sleep(TICK_S)
        await self._look(last=True)
        if facts is None:
            await end_marked(MARK, str(self.folder), (self.handle.pid, self.handle.start_time))
        await self.tmux.end(self.name)
        return self._exited(facts)

    def _exited(self, facts: dict[str, Any] | None) -> Report:
        if facts is None:
            status, text = ("killed", "it was stopped") if self.stopping else ("lost", "its keeper was killed")
            return Report(kind=Kind.EXITED, status=status, text=text)
        code, number = facts.get("code"), facts.get("signal")
        report = self.screen.ended(code)
        status, text = report.status, report.text
        if self.stopping:
            status, text = "killed", "it was stopped"
        elif number is not None and not (self.closing and status == "completed"):
            status, text = "error", text or f"ended by signal {number}"
        return msgspec.structs.replace(
            report, status=status, text=text, exit_code=code if number is None else -number,
            leftovers=facts.get("leftovers", 0),
            data={key: facts[key] for key in ("max_rss_bytes", "cpu_s") if key in facts},
        )  # fmt: skip

    # -- talking ----------------------------------------------------------------------------------------------------

    async def _say(self, text: str) -> Delivery:
        """Paste it and press Enter; once more when the program does not say that it has it."""
        before = self.screen.took
        if not await self.tmux.paste(self.name, pasted(text)):
            raise Refused(f"session {self.name!r} is gone", hint="shopfloor show ORDER")
        for _ in range(TRIES):
            await asyncio.sleep(ENTER_S)
            await self.tmux.keys(self.name, "Enter")
            if not self.screen.hooked:
                return Delivery.SHOWN
            if await self._until(lambda: self.screen.took > before, TAKEN_S):
                return Delivery.SEEN
        return Delivery.SHOWN

    async def _decide(self, text: str) -> Delivery:
        """Answer a dialog: ``yes`` allows it once, anything else refuses it and is said."""
        word = text.strip().strip(".!").lower()
        if word in _YES:
            await self.tmux.keys(self.name, "1")
            if not await self._until(lambda: self.screen.asked is None, 1.0):
                await self.tmux.keys(self.name, "Enter")
            return Delivery.SEEN if await self._until(lambda: self.screen.asked is None, ANSWERED_S) else Delivery.SHOWN
        await self.tmux.keys(self.name, "Escape")
        await asyncio.sleep(SETTLE_S)
        return await self._say(_REFUSED if word in _NO else text)

    async def _leave(self) -> None:
        """Interrupt it, tell it to end, terminate it, kill it: the next step when the last was not enough."""
        if self._ended():
            return
        ladder, screen = self._ladder, self.screen
        if not self.closing:
            await self.tmux.keys(self.name, *screen.interrupt)
        if screen.leave and screen.ready:
            await asyncio.sleep(ENTER_S)
            await self.tmux.paste(self.name, screen.leave)
            await asyncio.sleep(ENTER_S)
            await self.tmux.keys(self.name, "Enter")
        if await self._until(self._ended, ladder.polite_s if screen.ready else 0.0):
            return
        for number, wait_s in ((signal.SIGTERM, ladder.term_s), (signal.SIGUSR1, ladder.kill_s)):
            send_signal(*self.keeper, number)
            if await self._until(self._ended, wait_s):
                return
        send_signal(*self.keeper, signal.SIGKILL)

    async def _until(self, true: Callable[[], bool], wait_s: float) -> bool:
        """Wait for a fact for so long; also when the program ends."""
        deadline = _now() + wait_s
        while not true():
            left = deadline - _now()
            if left <= 0 or self.over:
                return true()
            self._moved.clear()
            with suppress(TimeoutError):
                async with asyncio.timeout(min(left, TICK_S)):
                    await self._moved.wait()
        return True

    # -- hearing ----------------------------------------------------------------------------------------------------

    async def _look(self, *, last: bool = False) -> None:
        """Take in what was written since the last look."""
        while data := _piece(self.folder / "hooks.jsonl", self._hooks_at, HOOK_BYTES):
            *whole, _ = data.split(b"\n")
            if not whole:
                break
            for line in whole:
                self._hooks_at += len(line) + 1
                await self._tell_all(self.screen.hook(_event(line)))
        while data := _piece(self.folder / "stdout.log", self._read_at, CHUNK):
            start = 0
            while end := data.find(b"\n", start) + 1:
                self._log_at = self._read_at + end
                for text in self._lines.feed(data[start:end]):
                    await self._tell_all(self.screen.heard("stdout", text))
                start = end
            self._lines.feed(data[start:])
            self._read_at += len(data)
        if last:
            self._log_at = self._read_at
            for text in self._lines.close():
                await self._tell_all(self.screen.heard("stdout", text))
        shown = _state(self.folder / "stdout.log")
        if shown != self._shown:
            self._shown = shown
            self._shown_at = self._moved_at = _now()
            if self._moved_at - self._told_at >= SHOWN_EVERY_S:
                await self._tell(Report(kind=Kind.NOISE, data={"shown_bytes": shown[0]}))

    def _go_on(self) -> None:
        """Be where the one before had got to: what was reported is understood again, and not reported again."""
        transcript = self.folder / "transcript.jsonl"
        with suppress(OSError):
            data = transcript.read_bytes()
            for line in reversed(data[: data.rfind(b"\n") + 1].split(b"\n")):
                if len(at := _event(line).get("at", ())) == 2:  # noqa: PLR2004 - hooks and output
                    self._hooks_at, self._log_at = int(at[0]), int(at[1])
                    break
            if data and not data.endswith(b"\n"):
                with transcript.open("ab") as file:
                    file.write(b"\n")
        self._read_at = self._log_at
        with suppress(OSError):
            seen = (self.folder / "hooks.jsonl").read_bytes()[: self._hooks_at]
            for line in seen.split(b"\n")[:-1]:
                self.screen.hook(_event(line))

    async def _tell_all(self, reports: Any) -> None:
        for report in reports:
            await self._tell(report)

    async def _tell(self, report: Report, *, force: bool = False) -> None:
        """Into the transcript, with how far the files were read, and to the follower."""
        at = b',"at":[%d,%d]}\n' % (self._hooks_at, self._log_at)
        line = _line(report, self._wall()).rstrip().removesuffix(b"}") + at
        if force:
            self._transcript.force(line)
        else:
            self._transcript.write_whole(line)
        self._told_at = self._moved_at = _now()
        self._moved.set()
        await self.mailbox.put(report, len(line))


_YES = frozenset({"y", "yes", "allow", "allowed", "ok", "okay", "1"})
_NO = frozenset({"n", "no", "deny", "denied"})
_REFUSED = "That was not allowed. Go on without it."


def _now() -> float:
    return asyncio.get_running_loop().time()


def _piece(path: Path, at: int, size: int) -> bytes:
    try:
        with path.open("rb") as file:
            file.seek(at)
            return file.read(size)
    except OSError:
        return b""


def _state(path: Path) -> tuple[int, int]:
    try:
        facts = path.stat()
    except OSError:
        return 0, 0
    return facts.st_size, facts.st_mtime_ns


def _event(line: bytes) -> dict[str, Any]:
    try:
        found = json.loads(line)
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}
