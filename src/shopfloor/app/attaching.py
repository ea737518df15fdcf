"""The screen of an agent: how a person gets to see it, and which sessions nobody owns."""

from __future__ import annotations

from pathlib import Path
from typing import NoReturn

import msgspec

from shopfloor.agents._sessions import attach_words, end_stray, server, strays
from shopfloor.agents._tmux import SOCKET, Tmux
from shopfloor.app.wiring import Place
from shopfloor.domain.board import Board
from shopfloor.domain.errors import Refused
from shopfloor.domain.holder import holder_of
from shopfloor.domain.order import Record
from shopfloor.spawn import alive, become, variable_of

DRIVER = "tmux"


class Door(msgspec.Struct, frozen=True, kw_only=True):
    """The way to one screen."""

    argv: tuple[str, ...]
    cwd: str
    """where that has to be run"""
    session: str


def door(place: Place, record: Record, *, write: bool) -> Door:
    """Raises Refused, with what to type instead, where there is no screen to see."""
    name, attempt = record.order.name, record.attempt
    if attempt is None or not record.live:
        raise Refused(f"nobody works on {name!r}: it is {record.state}", hint=f"shopfloor show {name}")
    if (holder := holder_of(attempt)) is not None:
        return _of_session(record, holder.pid, alive(holder.pid, holder.start_time), write=write)
    detail = attempt.handle.get("detail")
    if attempt.handle.get("driver") != DRIVER or not isinstance(detail, dict):
        driver = attempt.handle.get("driver") or "not started yet"
        hint = f"shopfloor log {name} --follow, or shopfloor watch"
        raise Refused(f"the agent of {name!r} has no screen (driver {driver})", hint=hint)
    pid, start_time = int(detail["keeper"]), int(detail["keeper_start"])
    if not alive(pid, start_time):
        raise Refused(f"the session of {name!r} has ended", hint=f"shopfloor log {name}")
    folder = Path(detail["folder"]).parents[1]
    tmux = server(folder, place.environment, place.root)
    session = str(detail["session"])
    return Door(argv=tuple(attach_words(tmux, session, write=write)), cwd=str(folder), session=session)


def _of_session(record: Record, pid: int, lives: bool, *, write: bool) -> Door:  # noqa: FBT001
    """The terminal of a person or tool that holds the order, when that is one of tmux."""
    name = record.order.name
    socket, _, rest = variable_of(pid, "TMUX").partition(",") if lives else ("", "", "")
    number = rest.rpartition(",")[2]
    if not socket or not number.isdigit():
        text = f"{name!r} is held by a session (pid {pid}) that is in no tmux"
        raise Refused(text, hint=f"shopfloor show {name}")
    words = ("tmux", "-u", "-S", socket, "attach-session", *(() if write else ("-r",)), "-t", f"${number}")
    return Door(argv=words, cwd="/", session=f"${number}")


def go(place: Place, through: Door) -> NoReturn:
    """Become the terminal. Inside of tmux too: the inner one is a program like any other there."""
    env = {key: value for key, value in place.environment.items() if key not in ("TMUX", "TMUX_PANE")}
    become(through.argv, cwd=Path(through.cwd), env=env)


def _ours(place: Place) -> Tmux | None:
    if not (place.work / SOCKET).exists():
        return None
    return server(place.work, place.environment, place.root)


async def unowned(place: Place, board: Board) -> list[str]:
    """Our sessions that belong to no order under way."""
    tmux = _ours(place)
    handles = [r.attempt.handle for r in board.records.values() if r.attempt is not None and r.live]
    details = [d for handle in handles if isinstance(d := handle.get("detail"), dict)]
    return await strays(tmux, [str(d.get("session")) for d in details]) if tmux else []


async def end_unowned(place: Place, name: str) -> None:
    """End one of them, with everything in it."""
    tmux = _ours(place)
    if tmux is not None:
        await end_stray(tmux, name)
