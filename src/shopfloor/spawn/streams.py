"""The three standard streams of a command: descriptors for it, asyncio streams for us."""

from __future__ import annotations

import asyncio
import os
import tempfile
from contextlib import ExitStack
from pathlib import Path

from shopfloor import guard

STREAM_LIMIT = 16 << 20
"""Bytes of unread output that a stream holds; beyond twice that the command has to wait."""

_PIECE = 4 << 20  # bytes written to a file before other tasks may run


class Streams:
    """The standard streams of one command: `fds` for it, and our ends of the pipes."""

    def __init__(self) -> None:
        self.fds: list[int] = []
        self.stdin: asyncio.StreamWriter | None = None
        self.stdout: asyncio.StreamReader | None = None
        self.stderr: asyncio.StreamReader | None = None
        self.theirs = ExitStack()  # closes `fds`
        self.ours = ExitStack()  # closes our ends

    async def connect(self, stdin: bytes | Path | None, stdout: Path | None, stderr: Path | None) -> None:
        """Make all three, unless stdin was made before."""
        if isinstance(stdin, bytes):
            await self._feed(stdin)
        elif not self.fds:
            self._give(os.open(stdin or os.devnull, os.O_RDONLY | os.O_CLOEXEC))
        self.stdout = await self._output(stdout)
        self.stderr = await self._output(stderr)

    async def connect_stdin(self) -> None:
        theirs, fd = os.pipe()
        self._give(theirs)
        loop = asyncio.get_running_loop()
        protocol = asyncio.StreamReaderProtocol(asyncio.StreamReader())
        transport, _ = await loop.connect_write_pipe(lambda: protocol, os.fdopen(fd, "wb", buffering=0))
        self.ours.callback(transport.abort)
        self.stdin = asyncio.StreamWriter(transport, protocol, None, loop)

    def _give(self, fd: int) -> None:
        self.theirs.callback(os.close, fd)
        self.fds.append(fd)

    async def _feed(self, data: bytes) -> None:
        """Stdin as an unnamed file: no pipe that somebody has to keep filling."""
        if guard.LINUX:
            self._give(os.memfd_create("stdin"))  # a prompt need not touch the disk
        else:
            with tempfile.TemporaryFile() as unnamed:
                self._give(os.dup(unnamed.fileno()))
        with os.fdopen(self.fds[-1], "wb", closefd=False) as file:
            for start in range(0, len(data), _PIECE):
                file.write(data[start : start + _PIECE])
                await asyncio.sleep(0)
            file.seek(0)

    async def _output(self, path: Path | None) -> asyncio.StreamReader | None:
        if path:
            self._give(os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600))
            return None
        fd, theirs = os.pipe()
        self._give(theirs)
        reader = asyncio.StreamReader(limit=STREAM_LIMIT)
        protocol = asyncio.StreamReaderProtocol(reader)
        loop = asyncio.get_running_loop()
        transport, _ = await loop.connect_read_pipe(lambda: protocol, os.fdopen(fd, "rb", buffering=0))
        self.ours.callback(transport.close)
        return reader
