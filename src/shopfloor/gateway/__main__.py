"""``python -m shopfloor.gateway``: a floor's gateway, which speaks with it by standard input and output."""

from __future__ import annotations

import asyncio
import sys
import time

from shopfloor.config import environment
from shopfloor.gateway.control import serve


class _Clock:
    def wall(self) -> float:
        return time.time()

    def awake(self) -> float:
        return time.monotonic()


if __name__ == "__main__":
    sys.exit(asyncio.run(serve(environment(), _Clock())))
