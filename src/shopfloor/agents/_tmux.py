"""The private tmux server of one floor: sessions by exact name, and nothing else.

The socket lies in the floor's folder and is named relative to it, so that it works however long the path of that is.
What is told to tmux are our own words and numbers: it reads a ``;`` at the end of a word, ``#`` in formats and
patterns in targets, so names are made of letters, digits, ``_`` and ``-``, and everything else goes in by files.
"""

from __future__ import annotations

import asyncio
import hashlib
import os
import re
import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path

from shopfloor.domain.errors import Refused
from shopfloor.spawn import Completed, SpawnError, run

SOCKET = "tmux.sock"
COLUMNS, ROWS = 160, 48
TERM = "tmux-256color"
HISTORY_LINES = 20_000
CALL_S = 20.0
"""for one call; a tmux that takes longer hangs"""
TRIES = 4
"""of one call, while its server ends under it"""
LONGEST_NAME = 80
_PLAIN = re.compile(r"[A-Za-z0-9-]{1,60}\.a[0-9]{1,9}")
_BRACKETS = re.compile("\x1b\\[20[01]~")
_NONE = re.compile(r"no server running|can't find |\((No such file or directory|Connection refused)\)")
"""what it says when there is no such session, or no server"""
_ENDING = re.compile(r"server exited|lost server")
"""what it says to whom it has not answered when its server ends, as that does with its last session"""
_CONTROL = {code: 0x2400 + code for code in range(32) if code not in (9, 10)}
_CONTROL |= {127: 0x2421, **dict.fromkeys(range(0x80, 0xA0), 0xFFFD)}


def session_name(attempt: str) -> str:
    """What the session of an attempt is called; two attempts never have the same."""
    if _PLAIN.fullmatch(attempt):
        return attempt.replace(".", "-")
    safe = re.sub(r"[^A-Za-z0-9]+", "-", attempt)[:40].strip("-")
    return f"{safe}_{hashlib.sha256(attempt.encode(errors='surrogatepass')).hexdigest()[:16]}"


def pasted(text: str) -> str:
    """The text as a terminal can be given it: no key presses in it, and nothing that would end the paste."""
    lines = _BRACKETS.sub("", text).replace("\r\n", "\n").replace("\r", "\n")
    return lines.translate(_CONTROL).encode(errors="replace").decode()


class Tmux:
    """One server. Every method costs a process and a few milliseconds."""

    def __init__(self, place: Path, program: str, variables: Mapping[str, str] | None = None) -> None:
        """``place`` is the folder of the socket; the server runs with ``variables``, and no worker sees them."""
        self.place = place
        self._program = program
        self._env = {**(variables or {}), "TERM": TERM, "LC_ALL": "C.UTF-8", "PWD": str(place)}

    @property
    def argv(self) -> list[str]:
        """How it is called; to be run in ``place``."""
        return [self._program, "-u", "-S", SOCKET, "-f", os.devnull]

    async def call(self, *words: str, data: bytes | None = None) -> Completed:
        """One call; ``code`` is not 0 when tmux refuses. Raises Refused when it cannot be run at all."""
        argv = [*self.argv, *words]
        try:
            for _ in range(TRIES):
                told = await asyncio.to_thread(
                    run, argv, cwd=self.place, env=self._env, input=data, timeout_s=CALL_S
                )  # fmt: skip
                # With the server its sessions are gone: nothing is done twice by asking whoever is there now.
                if not (told.code and _ENDING.search(told.stderr.decode(errors="replace"))):
                    break
        except SpawnError as error:
            raise Refused(error.message, hint=error.hint) from None
        return told

    async def new(self, name: str, command: Sequence[str], recorder: Sequence[str]) -> int:
        """A session that runs ``command`` while ``recorder`` reads what it shows; the process id of ``command``.

        Raises Refused when there is such a session already, or tmux cannot make it.
        """
        # One call, so that nothing is shown before it is recorded. Words of a command are not looked at by a shell, the
        # recorder's are, after formats were replaced in them.
        piped = shlex.join(recorder).replace("#", "##").replace("%", "%%")
        made = await self.call(
            "start-server", ";",
            "set-option", "-g", "remain-on-exit", "on", ";",
            "set-option", "-g", "history-limit", str(HISTORY_LINES), ";",
            "set-option", "-g", "default-terminal", TERM, ";",
            "set-option", "-g", "update-environment", "", ";",
            "set-option", "-g", "status-left-length", str(LONGEST_NAME + 4), ";",
            "set-option", "-g", "status-left", "[#S] ", ";",
            "set-option", "-g", "status-right", "shopfloor, detach with C-b d ", ";",
            "set-option", "-g", "window-status-format", "", ";",
            "set-option", "-g", "window-status-current-format", "", ";",
            "set-option", "-s", "escape-time", "10", ";",
            "new-session", "-d", "-P", "-F", "#{pane_pid}", "-s", name, "-x", str(COLUMNS), "-y", str(ROWS),
            "--", *map(_word, command), ";",
            "pipe-pane", "-t", f"={name}:", _word(f"exec {piped}"),
        )  # fmt: skip
        if made.code or not made.stdout.split():
            why = (made.stderr or made.stdout).decode(errors="replace").strip() or f"exit {made.code}"
            raise Refused(f"tmux cannot make session {name!r}: {why}", hint="shopfloor doctor")
        return int(made.stdout.split()[0])

    async def paste(self, name: str, text: str) -> bool:
        """Paste a text as one piece, where the program asked for that; False: there is no such session, or it ended."""
        loaded = await self.call("load-buffer", "-b", name, "-", data=text.encode())
        if loaded.code:
            return False
        # tmux 3.3a dies of a paste to a program that has ended, with all sessions: the server itself has to look first.
        pane = f"={name}:"
        pasted = await self.call(
            "if-shell", "-F", "-t", pane, "#{pane_dead}",
            f"delete-buffer -b {name} ; display-message -p -t {pane} ended", f"paste-buffer -p -d -b {name} -t {pane}",
        )  # fmt: skip
        return not pasted.code and not pasted.stdout

    async def keys(self, name: str, *keys: str) -> bool:
        """Press keys by name, e.g. ``Escape``; False: there is no such session."""
        return not (await self.call("send-keys", "-t", f"={name}:", *keys)).code

    async def screen(self, name: str) -> list[str]:
        """What stands on the screen, without blank lines: a hint and no more."""
        shown = await self.call("capture-pane", "-p", "-t", f"={name}:")
        lines = shown.stdout.decode(errors="replace").splitlines()
        return [line.rstrip() for line in lines if line.strip()]

    async def writers(self, name: str) -> int:
        """How many people are attached who can type."""
        told = await self.call("list-clients", "-t", f"={name}", "-F", "#{client_readonly}")
        return told.stdout.split().count(b"0") if not told.code else 0

    async def there(self, name: str) -> bool:
        """Whether there is a session with exactly this name. Raises Refused when tmux does not tell."""
        return (await self._asked("has-session", "-t", f"={name}")) is not None

    async def names(self) -> list[str]:
        """Every session; none when no server runs. Raises Refused when tmux does not tell."""
        if not (self.place / SOCKET).exists():
            return []
        return await self._asked("list-sessions", "-F", "#{session_name}") or []

    async def pane(self, name: str) -> int:
        """The process id that a session began with; 0: no such session. Raises Refused when tmux does not tell."""
        words = await self._asked("list-panes", "-t", f"={name}:", "-F", "#{pane_pid}")
        return int(words[0]) if words else 0

    async def end(self, name: str) -> None:
        """Take the session away; whoever is attached is detached. Harmless when there is none."""
        await self.call("kill-session", "-t", f"={name}")

    async def _asked(self, *words: str) -> list[str] | None:
        """The words of its answer, None for "there is none". Whatever else goes wrong is no answer."""
        told = await self.call(*words)
        if not told.code:
            return told.stdout.decode(errors="replace").split()
        why = told.stderr.decode(errors="replace").strip()
        if _NONE.search(why):
            return None
        raise Refused(
            f"tmux does not tell which sessions there are: {why or f'exit {told.code}'}",
            hint=f"cd {shlex.quote(str(self.place))} && {shlex.join(self.argv[:4])} list-sessions",
        )

    async def version(self) -> str:
        """e.g. ``3.3a``."""
        told = await self.call("-V")
        return told.stdout.decode(errors="replace").partition(" ")[2].strip()


def _word(word: str) -> str:
    """A word that ends in ``;`` would end the command."""
    return f"{word[:-1]}\\;" if word.endswith(";") else word
