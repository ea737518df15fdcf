"""How somebody ends what waits to be ended."""

from __future__ import annotations

import asyncio
import signal
from contextlib import suppress


async def signalled() -> None:
    """Until SIGINT, SIGTERM or SIGHUP."""
    loop, ended = asyncio.get_running_loop(), asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        with suppress(ValueError):
            loop.add_signal_handler(number, ended.set)
    await ended.wait()
