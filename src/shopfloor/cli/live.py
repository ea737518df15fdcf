"""What a person sees while a run goes on: a picture that is redrawn in place, or plain lines, or nothing."""

from __future__ import annotations

import asyncio
import signal
import sys
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Protocol

from rich.console import Console, Group
from rich.live import Live
from rich.text import Text

from shopfloor.cli.edge import Edge, harmless, silence
from shopfloor.cli.lines import clock, line
from shopfloor.cli.stage import Stage
from shopfloor.cli.words import clean, screen
from shopfloor.config import environment
from shopfloor.domain.events import Event
from shopfloor.domain.floor import Floor

EVERY_S = 0.5


class Display(Protocol):
    """Shows a run."""

    def say(self, text: str) -> None:
        """What goes on before there are events."""

    def see(self, event: Event) -> None:
        """An event that the floor has folded."""

    def note(self, text: str) -> None:
        """A word to the person, now."""

    async def run(self) -> None:
        """Keep it up to date until cancelled."""

    def close(self) -> None:
        """Give the terminal back."""


def display(edge: Edge, floor: Callable[[], Floor | None], work: Path, *, plain: bool) -> Display:
    """What fits where the output goes to."""
    if edge.json:
        return Quiet()
    dumb = environment().get("TERM", "dumb") == "dumb"
    if plain or dumb or not sys.stdout.isatty():
        return Lines(floor)
    return Picture(floor, work, no_color=edge.color is False)


@asynccontextmanager
async def drawn(view: Display) -> AsyncIterator[None]:
    """Show it for the length of the block, then give the terminal back."""
    drawing = asyncio.create_task(view.run())
    try:
        yield
    finally:
        drawing.cancel()
        await asyncio.wait({drawing})
        view.close()


def console(*, no_color: bool) -> Console:
    """This terminal, as large as it is."""
    # Rich would believe COLUMNS and LINES.
    known = {name: value for name, value in environment().items() if name not in ("COLUMNS", "LINES")}
    return Console(no_color=no_color, highlight=False, markup=False, emoji=False, _environ=known)


class Quiet:
    """For JSON: only a word to the person, on stderr."""

    def say(self, text: str) -> None:
        """Nothing."""

    def see(self, event: Event) -> None:
        """Nothing."""

    def note(self, text: str) -> None:
        """On stderr."""
        _print(text, err=True)

    async def run(self) -> None:
        """Nothing."""

    def close(self) -> None:
        """Nothing."""


class Lines:
    """One plain line for each event that matters. Nobody reading any more does not end the run."""

    def __init__(self, floor: Callable[[], Floor | None]) -> None:
        self._floor = floor

    def say(self, text: str) -> None:
        """At once, with the time of day."""
        _print(f"{clock(time.time())}  {clean(text)}")

    def see(self, event: Event) -> None:
        """One line, or nothing."""
        floor = self._floor()
        text = line(event, floor.board) if floor is not None else ""
        if text:
            _print(text)

    def note(self, text: str) -> None:
        """As a line of its own."""
        self.say(text)

    async def run(self) -> None:
        """Nothing: lines come with the events."""

    def close(self) -> None:
        """Nothing."""


class Picture:
    """Redrawn in place, never higher or wider than the terminal; gone when it is closed."""

    def __init__(self, floor: Callable[[], Floor | None], work: Path, *, no_color: bool) -> None:
        unicode = (sys.stdout.encoding or "").lower().replace("-", "") == "utf8"
        self._stage = Stage(floor, work, unicode=unicode)
        self._console = console(no_color=no_color)
        self._size: tuple[int, int] | None = None
        """columns and lines that the picture was last drawn for"""
        self._live = Live(console=self._console, auto_refresh=False, transient=True, vertical_overflow="crop",
                          redirect_stdout=False, redirect_stderr=False)  # fmt: skip
        self._changed = asyncio.Event()
        self._lost = False

    def say(self, text: str) -> None:
        """As the first line, until the run begins."""
        self._stage.tell(text, time.time())
        self._draw()

    def see(self, event: Event) -> None:
        """With the next picture."""
        self._stage.see(event)

    def note(self, text: str) -> None:
        """At the bottom, at once."""
        self._stage.note = text
        self._draw()

    async def run(self) -> None:
        """Draw a picture every half second."""
        loop = asyncio.get_running_loop()
        loop.add_signal_handler(signal.SIGWINCH, self._resized)
        try:
            self._guarded(self._live.start)
            while True:
                self._draw()
                await asyncio.sleep(EVERY_S)
        finally:
            loop.remove_signal_handler(signal.SIGWINCH)

    def close(self) -> None:
        """Take the picture away and show the cursor again."""
        self._guarded(self._live.stop)

    def _draw(self, *, anew: bool = False) -> None:
        if self._live.is_started:
            width, height = size = screen()
            if anew or self._size not in (None, size):
                self._clear()  # also before the signal has come: the old picture was made for another screen
            self._size = size
            lines = self._stage.picture(max(10, width - 1), max(3, height - 1), time.time())
            group = Group(*(Text.assemble(*parts, no_wrap=True, overflow="crop") for parts in lines))
            self._guarded(lambda: self._live.update(group, refresh=True))

    def _resized(self) -> None:
        self._draw(anew=True)

    def _clear(self) -> None:
        # The terminal has wrapped the old picture as it pleased: where its lines are now nobody knows. The screen is
        # cleared in two pieces, because some terminals move a screen that is cleared at once into their history.
        self._guarded(lambda: self._console.file.write("\x1b[H\x1b[2K\x1b[B\x1b[J\x1b[H"))

    def _guarded(self, act: Callable[[], object]) -> None:
        """A terminal that was closed does not end the run."""
        if self._lost:
            return
        try:
            act()
        except OSError:
            self._lost = True
            silence()


def _print(text: str, *, err: bool = False) -> None:
    try:
        print(harmless(text), file=sys.stderr if err else sys.stdout, flush=True)
    except OSError:  # the reader of a pipe, or the terminal, is gone
        silence()
