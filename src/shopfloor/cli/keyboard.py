"""A line that is typed while others speak: it stays what it is, and stands below what they say."""

from __future__ import annotations

import codecs
import re
import sys
import termios
from collections.abc import Callable
from contextlib import suppress
from unicodedata import combining

from shopfloor.cli.words import columns, screen

PROMPT = "> "
MOST_CHARS = 100_000
"""of one line; what is longer is cut"""
USUAL_COLUMNS = 80
_KEY = re.compile(r"\x1b\[[0-9;?]*[ -/]*[@-~]|\x1bO.|\x1b.|[\x00-\x1f\x7f]|[^\x00-\x1f\x7f]+", re.DOTALL)
_BEGUN = re.compile(r"\x1b(?:\[[0-9;?]*[ -/]*|O)?\Z")
"""the beginning of a key that sends several characters"""
_WORD = re.compile(r"\S*\s*\Z")
_END, _ERASE, _LINE, _LAST_WORD = "\x04", ("\x7f", "\b"), "\x15", "\x17"
_LOCAL, _CONTROL = 3, 6
"""places in what ``termios`` says of a terminal"""


class Typed:
    """What is typed, as far as it is no line yet, from what a keyboard sends. Keys that move a cursor do nothing."""

    def __init__(self) -> None:
        self.text = ""
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")
        self._begun = ""

    def take(self, data: bytes) -> list[str]:
        """The lines that end in it, each with its end; an empty one says that there will be no more."""
        sent = self._begun + self._decoder.decode(data)
        begun = _BEGUN.search(sent)
        self._begun = begun[0] if begun else ""
        lines = []
        for key in _KEY.findall(sent[: len(sent) - len(self._begun)]):
            if key in ("\n", "\r"):
                lines.append(f"{self.text}\n")
                self.text = ""
            elif key == _END and not self.text:
                return [*lines, ""]
            else:
                self._edit(key)
        return lines

    def _edit(self, key: str) -> None:
        if key in _ERASE:
            while self.text and combining(self.text[-1]):
                self.text = self.text[:-1]
            self.text = self.text[:-1]
        elif key == _LINE:
            self.text = ""
        elif key == _LAST_WORD:
            self.text = _WORD.sub("", self.text.rstrip(), count=1)
        elif not key.startswith("\x1b"):
            words = " " if key == "\t" else "".join(char for char in key if char.isprintable())
            self.text = (self.text + words)[:MOST_CHARS]


class Keyboard:
    """The terminal on standard input, key by key from ``take`` on: it shows nothing of what is typed by itself."""

    def __init__(self) -> None:
        self._before: list[int | list[bytes | int]] | None = None

    def take(self) -> None:
        """Also again, after the terminal was used by another program."""
        with suppress(termios.error):
            now = termios.tcgetattr(0)
            self._before = self._before or now
            keys = [*now]
            keys[_LOCAL] = now[_LOCAL] & ~(termios.ICANON | termios.ECHO)
            control = [*now[_CONTROL]]
            control[termios.VMIN], control[termios.VTIME] = 1, 0
            keys[_CONTROL] = control
            termios.tcsetattr(0, termios.TCSANOW, keys)

    def give_back(self) -> None:
        """As it was; harmless when repeated, or when it is gone."""
        if self._before is not None:
            with suppress(termios.error):
                termios.tcsetattr(0, termios.TCSANOW, self._before)


class Screen:
    """What is said stands on lines of its own, above the one that is typed in, where one is asked for."""

    def __init__(self, put: Callable[[str], None], *, prompts: bool) -> None:
        """``put`` writes lines."""
        self._put = put
        self._prompts = prompts
        self._prompted = False
        self._typed = ""
        self._rows = 0
        """that the prompt and what is typed take beyond the first"""

    def say(self, text: str) -> None:
        """Some lines; they may come while somebody types."""
        if self._prompted:
            self._clear()
        self._put(text)
        sys.stdout.flush()
        if self._prompted:
            self._draw()

    def typed(self, text: str) -> None:
        """So far, in the line that is asked for."""
        changed, self._typed = text != self._typed, text
        if self._prompted and changed:
            self._clear()
            self._draw()

    def entered(self, line: str) -> None:
        """A line was typed: what is said now stands below it."""
        if self._prompted:
            self._clear()
        self._typed = line
        self._draw()
        self._typed, self._prompted = "", False
        self._write("\n")

    def prompt(self) -> None:
        """Ask for the next line."""
        if self._prompts and not self._prompted:
            self._prompted = True
            self._draw()

    def again(self) -> None:
        """Somebody else has written to the terminal: the line stands below that."""
        if self._prompted:
            self._draw()

    def close(self) -> None:
        """Nobody is asked for a line any more."""
        if self._prompted:
            self._clear()
        self._prompted = False

    def _clear(self) -> None:
        up = f"\x1b[{self._rows}A" if self._rows else ""
        self._write(f"\r{up}\x1b[J")

    def _draw(self) -> None:
        line = PROMPT + self._typed
        self._rows = max(0, columns(line) - 1) // (screen()[0] or USUAL_COLUMNS)
        self._write(line)

    def _write(self, text: str) -> None:
        with suppress(OSError):  # a terminal that is gone shows nothing
            sys.stdout.write(text)
            sys.stdout.flush()
