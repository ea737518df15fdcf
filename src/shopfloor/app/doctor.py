"""What is in order here and what is not: facts, each with what to type."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import AsyncIterator
from typing import Literal

import msgspec

from shopfloor import git
from shopfloor.app.attaching import unowned
from shopfloor.app.wiring import Place, agents
from shopfloor.config.proposal import SUBMODULES
from shopfloor.domain.board import Board
from shopfloor.domain.errors import Refused, ShopfloorError
from shopfloor.domain.names import few
from shopfloor.domain.order import FINISHED
from shopfloor.ports import Query, Store
from shopfloor.spawn import Guard
from shopfloor.stores.sheet import complaints
from shopfloor.stores.workdir import controller_alive

LOW_DISK_BYTES = 1 << 30
MOST_LINES = 20
"""malformed lines of the orders' file that are named"""


class Finding(msgspec.Struct, frozen=True, kw_only=True):
    """One thing that was looked at."""

    level: Literal["ok", "warn", "bad"]
    what: str
    hint: str = ""


async def examine(place: Place, store: Store) -> list[Finding]:
    """Look at everything; never raises for what it finds, and changes nothing."""
    found = [finding async for finding in _all(place, store)]
    order = {"bad": 0, "warn": 1, "ok": 2}
    return sorted(found, key=lambda f: order[f.level])


async def _all(place: Place, store: Store) -> AsyncIterator[Finding]:
    for finding in (*_machine(place), *_repository(place), *_settings(place)):
        yield finding
    async for finding in _agents(place):
        yield finding
    async for finding in _log(place, store):
        yield finding


def _machine(place: Place) -> list[Finding]:
    version = ".".join(map(str, place.repository.version)) if place.repository is not None else "not used here"
    found = [Finding(level="ok", what=f"git {version}, Python {sys.version.split()[0]} on {sys.platform}")]
    if sys.platform != "linux":
        text = "agents' processes are ended by group and by parent here; only Linux can end every one of them for sure"
        found.append(Finding(level="warn", what=text))
    folder = place.work if place.work.exists() else place.root
    if os.statvfs(folder).f_flag & os.ST_RDONLY or not os.access(folder, os.W_OK):
        hint = f"make it writable: ls -ld {folder}; mount | grep {folder}"
        found.append(Finding(level="bad", what=f"{folder} is read-only: the log cannot be written", hint=hint))
    free = shutil.disk_usage(place.root).free
    if free < LOW_DISK_BYTES:
        found.append(Finding(level="bad", what=f"only {free >> 20} MiB of disk are free", hint="shopfloor gc"))
    return found


def _repository(place: Place) -> list[Finding]:
    repository = place.repository
    if repository is None:
        text = f"{place.root} is in no git repository: only answers can be handed back"
        return [Finding(level="ok", what=text, hint="git init, where something is to be changed")]
    work = place.git()
    found = []
    try:
        repository.ensure_ready()
        found.append(Finding(level="ok", what=f"{repository.root}: branch {repository.branch}"))
    except ShopfloorError as problem:
        found.append(Finding(level="bad", what=problem.message, hint=problem.hint))
    modified = work.modified()
    if modified:
        first = git.shown(modified[0])
        files = "1 tracked file is" if len(modified) == 1 else f"{len(modified)} tracked files are"
        text = f"{files} modified, e.g. {first}: your branch will not be advanced"
        found.append(Finding(level="warn", what=text, hint="git commit, or git stash"))
    hooks = work.hooks()
    if hooks:
        text = f"hooks ({', '.join(hooks)}) do not run for commits that Shopfloor makes; let a check do their work"
        found.append(Finding(level="ok", what=text))
    if work.setting("commit.gpgSign") == "true":
        text = "commits that Shopfloor makes are not signed, although commit.gpgSign is on"
        found.append(Finding(level="warn", what=text))
    if (repository.root / ".gitmodules").exists() and "submodule" not in place.settings.setup:
        text = "this repository has submodules, and no setup fetches them: they are empty folders in workspaces"
        found.append(Finding(level="warn", what=text, hint=f'setup = "{SUBMODULES}"  (in .shopfloor.toml)'))
    if work.text("ls-files", ".work"):
        text = ".work/ is tracked here; it is kept out of agents' commits"
        found.append(Finding(level="warn", what=text))
    return found


def _settings(place: Place) -> list[Finding]:
    settings = place.settings
    set_by = [f"{key} ({source})" for key, source in settings.sources().items() if source != "default"]
    found = [Finding(level="ok", what="settings: " + (", ".join(set_by) or "all are defaults"))]
    if not settings.checks:
        hint = "shopfloor init proposes one; or give --check 'COMMAND'"
        found.append(Finding(level="warn", what="there is no check: orders need checks of their own", hint=hint))
    return found


async def _agents(place: Place) -> AsyncIterator[Finding]:
    async with Guard() as guard:
        known = agents(place, guard)
        for profile in place.settings.agents.values():
            seen = await known[profile.driver].probe(profile)
            if seen.found:
                cost = "reports its cost" if seen.capabilities.cost else "its cost cannot be seen"
                yield Finding(level="ok", what=f"agent {profile.name} ({profile.driver}): found, {cost}")
            else:
                yield Finding(level="bad", what=f"agent {profile.name}: {seen.problem}", hint=seen.hint)


def _other_programs(place: Place, board: Board) -> list[Finding]:
    """What other programs wrote into the orders' file and did not get, or what cannot be read in it."""
    found = []
    for record in board.records.values():
        if record.collisions and record.state not in FINISHED:
            wants = few([f"{one.field} = {one.theirs}" for one in record.collisions])
            text = f"another program wants of {record.order.name!r} what was not followed: {wants}"
            found.append(Finding(level="warn", what=text, hint=f"shopfloor show {record.order.name}"))
    path = place.work / "work_orders.jsonl"
    try:
        content = path.read_bytes()
    except OSError:
        content = b""
    for one in complaints(content)[:MOST_LINES]:
        text = f"{path.name} line {one.line}: {one.what}: {one.value}"
        found.append(Finding(level="bad", what=text, hint="mend or delete the line; it is kept as it is"))
    return found


async def _log(place: Place, store: Store) -> AsyncIterator[Finding]:
    alive = controller_alive(place.work)
    if alive:
        yield Finding(level="ok", what=f"a controller is alive: pid {alive.get('pid')}", hint="shopfloor watch")
    if not (place.work / "events.jsonl").exists():
        yield Finding(level="ok", what="no run here yet", hint="shopfloor run prompts/*.md")
        return
    board: Board = (await store.query(Query(what="board", state="open")))[0]["board"]
    run = board.unfinished()
    if run is not None and not alive:
        text = f"run {run.id} is not finished: {len(board.open_orders(run))} orders are open"
        yield Finding(level="warn", what=text, hint="shopfloor run --resume")
    try:
        for name in await unowned(place, board):
            text = f"tmux session {name} belongs to no order under way"
            yield Finding(level="warn", what=text, hint="shopfloor gc --yes ends it")
    except Refused as silent:
        yield Finding(level="bad", what=silent.message, hint=silent.hint)
    for row in await store.query(Query(what="meta")):
        for problem in row.get("problems", ()):
            yield Finding(level="bad", what=f"log: {problem}", hint="the line is left out; everything else counts")
    for finding in _other_programs(place, board):
        yield finding
    if board.uncounted:
        text = f"{board.uncounted} lines of the log claim what only the controller may say; they do not count"
        yield Finding(level="warn", what=text)
