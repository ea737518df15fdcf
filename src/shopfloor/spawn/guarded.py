"""The engine's side of the guard: see `shopfloor.guard` for the other."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Mapping, Sequence
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Self

from shopfloor import guard
from shopfloor.spawn.errors import SpawnError, refusal
from shopfloor.spawn.process import Process
from shopfloor.spawn.streams import Streams

_AT_ONCE = 16  # starts in flight: each has four descriptors under way, and the kernel limits those
_CLOSE_S = 10.0  # for keepers to kill and report, before the guard kills them too


def _request(argv: Sequence[str], cwd: Path, env: Mapping[str, str]) -> bytes:
    if not argv:
        raise SpawnError(argv, cwd, "there is no program in an empty command")
    if bad := [name for name in env if not name or "=" in name]:
        raise SpawnError(argv, cwd, f"{bad[0]!r} cannot be the name of a variable")
    try:
        words = [os.fsencode(word) for word in argv]
        variables = {os.fsencode(name): os.fsencode(value) for name, value in env.items()}
        return guard.encode_request(os.fsencode(cwd.absolute()), words, variables)
    except ValueError as error:
        raise SpawnError(argv, cwd, str(error)) from None


async def _first_line(reader: asyncio.StreamReader) -> bytes:
    try:
        return await reader.readline()
    except ConnectionError:
        return b""


class Guard:
    """Starts commands so that none of them, nor anything they start, outlives this process or `close`.

    Use it as an async context manager, in one event loop. The guard process starts with the first command, or with
    `start`. When it was killed, its commands end as `lost` and the next `spawn` starts a new one. A fork of this
    process (not exec) keeps the guard alive.
    """

    def __init__(self) -> None:
        self._popen: subprocess.Popen[bytes] | None = None
        self._socket: socket.socket  # as long as there is a _popen
        self._closed = False
        self._slots = asyncio.Semaphore(_AT_ONCE)
        self._running: dict[Process, asyncio.Task[None]] = {}

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    @property
    def pid(self) -> int:
        """The guard's process id. Raises RuntimeError before it was started."""
        if self._popen is None:
            raise RuntimeError("the guard does not run: start it, or a command")
        return self._popen.pid

    def start(self) -> None:
        """Start the guard process where it does not run, so that the first command need not wait for it."""
        if not self._closed and self._dead():
            self._start()

    async def spawn(
        self,
        argv: Sequence[str],
        *,
        cwd: Path,
        env: Mapping[str, str],
        stdin: bytes | Path | None = None,
        stdout: Path | None = None,
        stderr: Path | None = None,
        pipe_stdin: bool = False,
    ) -> Process:
        """Start a command in its own session, with descriptors 0, 1 and 2 and no other.

        `stdin` comes from a file or bytes of any size, or is `Process.stdin` with `pipe_stdin`; else empty.
        `stdout` and `stderr` are appended to a file (made with mode 0600), or are streams of the Process.
        Raises SpawnError. Cancelling it leaves no process behind.
        """
        request = _request(argv, cwd, env)
        async with self._slots:
            streams = Streams()
            with streams.ours as on_failure, streams.theirs:
                try:
                    if pipe_stdin:
                        await streams.connect_stdin()
                    await streams.connect(stdin, stdout, stderr)
                except OSError as error:
                    what = f"cannot open {error.filename or 'a pipe'!r} for it: {os.strerror(error.errno or 0)}"
                    raise SpawnError(argv, cwd, what) from None
                started, reader, channel = await self._launch(request, streams.fds, argv, cwd)
                process = Process(started, channel, streams)
                on_failure.pop_all()
        task = asyncio.create_task(process.follow(reader))
        self._running[process] = task
        task.add_done_callback(lambda _: self._running.pop(process))
        return process

    async def close(self) -> None:
        """Kill what still runs, then end the guard; returns when nothing is left. May be called again."""
        self._closed = True
        for process in self._running:
            process.signal(signal.SIGKILL)
        if self._running:
            await asyncio.wait(self._running.values(), timeout=_CLOSE_S)
        if self._popen:
            self._socket.close()
            await asyncio.to_thread(self._popen.wait)
        await asyncio.gather(*self._running.values())

    def _start(self) -> None:
        if self._popen:
            self._socket.close()
            self._popen.wait()
        self._socket, theirs = socket.socketpair()
        with theirs:
            fd = theirs.fileno()
            self._popen = subprocess.Popen(
                [sys.executable, "-I", "-S", guard.__file__, str(fd)],
                pass_fds=[fd],
                cwd="/",  # it shall keep no directory busy
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                start_new_session=True,  # out of reach of the terminal's Ctrl-C
            )

    def _dead(self) -> bool:
        """Whether the guard has closed its end, which it does only by dying."""
        if self._popen is None:
            return True
        try:
            return not self._socket.recv(1, socket.MSG_PEEK | socket.MSG_DONTWAIT)
        except BlockingIOError:
            return False
        except ConnectionError:
            return True

    def _hand_over(self, fds: list[int]) -> socket.socket:
        """Let the guard fork a keeper: our end of the channel to it."""
        self.start()
        ours, theirs = socket.socketpair()
        with theirs, suppress(ConnectionError):  # it died since we looked: then the channel ends too
            socket.send_fds(self._socket, [b"+"], [theirs.fileno(), *fds])
        return ours

    async def _launch(
        self, request: bytes, fds: list[int], argv: Sequence[str], cwd: Path
    ) -> tuple[list[bytes], asyncio.StreamReader, asyncio.StreamWriter]:
        """Start the command: the words that its keeper wrote, and the channel to it."""
        for _ in range(2):
            if self._closed:
                raise SpawnError(argv, cwd, "the guard is closed", reason="guard")
            with ExitStack() as on_failure:
                try:
                    ours = self._hand_over(fds)
                except OSError as error:
                    raise SpawnError(argv, cwd, f"no guard: {error}", reason="guard") from error
                on_failure.callback(ours.close)
                used = self._popen
                reader, channel = await asyncio.open_unix_connection(sock=ours)
                on_failure.callback(channel.transport.abort)  # tells the keeper to kill what it started
                channel.write(request)
                match (await _first_line(reader)).split():
                    case [b"started", *_] as words:
                        on_failure.pop_all()
                        return words, reader, channel
                    case [_, stage, number]:
                        raise refusal(argv, cwd, stage=stage.decode(), number=int(number))
            if used is self._popen and not self._dead():
                break  # else the guard died before it forked the keeper, which would have told us of a start
        what = "the guard was killed meanwhile"
        raise SpawnError(argv, cwd, what, reason="guard", hint="start it again")
