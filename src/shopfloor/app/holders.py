"""Who a session is on this machine, and what still lives although no controller does."""

from __future__ import annotations

import hashlib
import hmac
import os
import socket
from collections.abc import Collection

import psutil

from shopfloor import spawn
from shopfloor.domain.errors import NotFound
from shopfloor.domain.holder import Holder
from shopfloor.domain.order import Attempt
from shopfloor.masking import Masker


def holder(name: str = "", pid: int = 0) -> Holder:
    """The process ``pid`` (default: this one) as a session. Raises NotFound when there is no such process."""
    pid = pid or os.getpid()
    start_time = spawn.start_time_of(pid)
    if not spawn.alive(pid, start_time):
        raise NotFound(f"there is no process {pid} that could hold an order", hint="name one that lives: --holder PID")
    return Holder(
        name=name or f"pid-{pid}", pid=pid, start_time=start_time, host=socket.gethostname(), boot=spawn.boot()
    )


def alive(who: Holder) -> bool:
    """Whether a session still lives. One that another machine, or another process table, would have to know of does."""
    if who.host != socket.gethostname():
        return True
    if who.boot == (here := spawn.boot()):
        return spawn.alive(who.pid, who.start_time)
    # After a reboot nothing of before lives; with another process table on this boot nobody here can tell.
    return who.boot.partition("/")[0] == here.partition("/")[0]


def goes_on(attempt: Attempt) -> bool:
    """Whether an agent of ours goes on without a controller: one in a terminal does, as long as its keeper lives."""
    detail = attempt.handle.get("detail")
    if attempt.outcome or not isinstance(detail, dict):
        return False
    keeper, start_time = str(detail.get("keeper", "")), str(detail.get("keeper_start", ""))
    return keeper.isdigit() and start_time.isdigit() and spawn.alive(int(keeper), int(start_time))


def through_gateway(attempt: Attempt) -> bool:
    """Whether an agent that goes on without a controller reaches its models through the gateway, which needs one."""
    detail = attempt.handle.get("detail")
    return isinstance(detail, dict) and bool(detail.get("gateway"))


class Callers:
    """A :class:`shopfloor.ports.Callers` of this machine."""

    def __init__(self, key: bytes, secrets: tuple[str, ...] = ()) -> None:
        """``key`` is a secret of this controller: what it makes of it is no attempt's to guess."""
        self._key = key
        self._masker = Masker(secrets)

    def alive(self, holder: Holder) -> bool:
        """See :func:`alive`."""
        return alive(holder)

    def holder(self, name: str, pid: int) -> Holder:
        """See :func:`holder`."""
        return holder(name, pid)

    def token(self, attempt: str) -> str:
        """The same for the same attempt, as long as this controller lives."""
        return hmac.new(self._key, attempt.encode(errors="replace"), hashlib.sha256).hexdigest()

    def masked(self, text: str) -> str:
        """Without the values of variables that are named like keys."""
        return self._masker.text(text)

    def below(self, pid: int, pids: Collection[int]) -> bool:
        """By the parents that the system tells; an orphan of an agent has its keeper as the next one above."""
        seen: set[int] = set()
        while pid > 1 and pid not in seen:
            if pid in pids:
                return True
            seen.add(pid)
            try:
                pid = psutil.Process(pid).ppid()
            except psutil.Error:
                return False
        return False
