"""Other people's programs: three of them write the shared files at the same time as a controller under load.

One appends whole lines (orders, events, and events that claim what only a controller may say), one rewrites everything
and drops the keys that it does not know, one empties the file and writes it slowly. Afterwards every line, edit and key
of theirs is looked for, and every order of ours.
"""

from __future__ import annotations

import asyncio
import json
import random
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import msgspec

from benchmarks.figures import Figure
from campaigns.outcome import Options, Outcome
from shopfloor.domain.board import Board, creation
from shopfloor.domain.errors import Conflict
from shopfloor.domain.events import E, Event, stamp_time
from shopfloor.domain.order import Order, State
from shopfloor.domain.records import work_order
from shopfloor.ports import Query
from shopfloor.stores.database import remove
from shopfloor.stores.workdir import WorkdirStore

SECONDS = 60.0
SHORTEST_S = 1.5
KINDS = ("append", "rewrite", "truncate")
QUIET_S = 20.0
"""how long the last edits may take to arrive"""
PEERS = Path(__file__).with_name("_peers.py")

Note = dict[str, Any]
_DECIDED = frozenset({State.RUNNING, State.ASKING, State.CHECKING, State.VERIFIED, State.LANDING, State.DONE})


class _Clock:
    def wall(self) -> float:
        return time.time()

    def awake(self) -> float:
        return time.monotonic()


def run(options: Options) -> Outcome:
    """A minute of four programs at once, then the count."""
    seconds = max(SHORTEST_S, SECONDS * options.size)
    with tempfile.TemporaryDirectory() as place:
        folder, journals = Path(place) / ".work", Path(place) / "journals"
        journals.mkdir()
        counted = asyncio.run(_campaign(folder, journals, seconds, options.seed))
    return Outcome(figures=_figures(counted), untested=_UNTESTED)


_UNTESTED = [
    "Peers take turns among themselves: what one of them overwrites of another's is not counted.",
    "The peer that drops keys is a script that encodes as a Go program does, not a Go program.",
    "A peer that dies in the middle of a rewrite loses what it alone had in memory.",
    "A wish that looks like an older version, in a line whose writer dropped our seal, is taken for an echo.",
]


def _figures(counted: Counter[str]) -> list[Figure]:
    must = {
        "lost": "lines, events and orders lost",
        "doubled": "orders, events and edits counted twice",
        "set back": "orders of ours set back or moved by a foreign line",
        "unreported": "edits neither merged nor told of",
        "invented": "edits merged or told of that nobody made",
        "keys": "unknown keys of others lost",
        "stale": "lines that do not say what the log says at the end",
        "damaged": "damaged lines in the log",
        "differs": "orders that a fresh index sees otherwise",
    }
    done = {
        "events": "events written by the controller",
        "appended": "orders appended by a peer",
        "noted": "event lines appended by a peer",
        "edits": "edits by peers",
        "merged": "edits merged",
        "told": "edits told of as collisions",
        "dropped": "keys that a peer dropped before anybody read them",
        "forged": "claims in events of peers that did not count",
    }
    figures = [
        Figure(name=name, value=counted[key], unit="", bar="0", ok=counted[key] == 0) for key, name in must.items()
    ]
    return figures + [Figure(name=name, value=counted[key], unit="") for key, name in done.items()]


async def _campaign(folder: Path, journals: Path, seconds: float, seed: int) -> Counter[str]:
    _say(f"foreign: three programs beside a controller for {seconds:g} s")
    async with WorkdirStore(folder, clock=_Clock()) as store:
        await store.lead({})
        ours = _Ours(store, seed)
        await ours.create(20)
        with _peers(folder, journals, seed):
            await ours.work(seconds)
        notes = _notes(journals)
        _say(f"foreign: {len(ours.written)} events, {len(notes)} notes of peers; waiting for the last of them")
        limit = time.monotonic() + QUIET_S
        while (found := await _look(store, folder, ours, notes)).total_missing() and time.monotonic() < limit:
            await store.wait(1 << 60, 0.3)
    found = await _reopened(folder, ours, notes)
    return found.counted


@contextmanager
def _peers(folder: Path, journals: Path, seed: int) -> Iterator[None]:
    """The three at work; each ends when its standard input does."""
    started = [
        subprocess.Popen(
            [sys.executable, str(PEERS), kind, str(folder), str(journals / kind), str(seed + number)],
            stdin=subprocess.PIPE,
        )
        for number, kind in enumerate(KINDS)
    ]
    try:
        yield
    finally:
        for process in started:
            assert process.stdin is not None
            process.stdin.close()
        for process, kind in zip(started, KINDS, strict=True):
            try:
                code = process.wait(timeout=30)
            except subprocess.TimeoutExpired:
                process.kill()
                code = process.wait()
            assert code == 0, f"the peer {kind!r} ended with {code}"


class _Ours:
    """A controller with many orders: each is created, claimed, worked on, verified, landed."""

    def __init__(self, store: WorkdirStore, seed: int) -> None:
        self.store = store
        self.random = random.Random(seed)
        self.written: list[str] = []
        """ids of the events that were acknowledged"""
        self.created: list[str] = []
        self.open: dict[str, int] = {}
        """order -> how far its life is"""
        self._generations: dict[str, int] = {}

    async def create(self, count: int) -> None:
        """More orders, in one change."""
        names = [f"wo-our{len(self.created) + n}" for n in range(count)]
        made = [Order(id=n, name=n, title=f"title of {n}", instruction=f"do <{n}> & be done") for n in names]
        await self._append(*((E.CREATED, creation(order)) for order in made))
        self.created += names
        self.open |= dict.fromkeys(names, 0)

    async def work(self, seconds: float) -> None:
        """Until the time is over."""
        limit = time.monotonic() + seconds
        while time.monotonic() < limit:
            await self.create(2)
            chosen = self.random.sample(sorted(self.open), min(12, len(self.open)))
            await asyncio.gather(*(self._advance(order) for order in chosen))
            await asyncio.sleep(0.02)

    async def _advance(self, order: str) -> None:
        step = self.open[order]
        if step == 0:
            [row] = await self.store.query(Query(order=order))
            if row["state"] != "ready" or row["record"]["elsewhere"] or row["record"]["assignee"]:
                return  # theirs, or given up by them
            self._generations[order] = row["generation"] + 1
        generation = self._generations[order]
        about = {"work_order_id": order, "generation": generation}
        lives: list[list[tuple[E, dict[str, Any]]]] = [
            [(E.ASSIGNED, {"attempt": f"{order}.a1", "agent": "robot", "base": "b0"})],
            [(E.AGENT_STARTED, {}), (E.AGENT_USAGE, {"cost_usd": 0.01})],
            [(E.AGENT_STOPPED, {"outcome": "completed", "commit": "c1", "base": "b0"})],
            [(E.VERIFY_STARTED, {"run": 1}), (E.VERIFY_VERDICT, {"verdict": "PASS", "commit": "c1"})],
            [(E.LANDING_LANDED, {"commit": "m1", "observed": "m1"}), (E.SETTLED, {"outcome": "done"})],
        ]
        expect = {order: generation - (step == 0)}
        try:
            await self._append(*((kind, {**about, **data}) for kind, data in lives[step]), expect=expect)
        except Conflict:
            return  # a peer changed it at the last moment: looked at again later
        self.open[order] = step + 1
        if step + 1 == len(lives):
            del self.open[order]

    async def _append(self, *drafts: tuple[E, dict[str, Any]], expect: dict[str, int] | None = None) -> None:
        made = [self._event(kind, data) for kind, data in drafts]
        await self.store.append(made, expect=expect)
        self.written += [event.event_id for event in made]

    def _event(self, kind: E, data: dict[str, Any]) -> Event:
        name = f"evt-our{self.random.getrandbits(64):016x}"
        return Event(name, kind, stamp_time(time.time()), "shopfloor", None, data)


class _Found:
    """What the log and the file hold, against what everybody noted."""

    def __init__(self) -> None:
        self.counted: Counter[str] = Counter()
        self.board = Board()
        self.events: Counter[str] = Counter()
        self.made: Counter[str] = Counter()
        self.wishes: Counter[tuple[str, str, str]] = Counter()
        """(order, field, value) -> how often it was merged or told of"""
        self.keys: set[tuple[str, str]] = set()
        """(order, key) that came with the creation of an order"""

    def take(self, event: Event) -> None:
        """Fold one more event, and see whether a line that is not the controller's moved what is ours."""
        order = event.order_id
        before = self.board.records[order].state if order in self.board.records else None
        self.board.apply(event)
        self.events[event.event_id] += 1
        if event.event_type == E.CREATED:
            self.made[order] += 1
            ours = event.data.get("shopfloor") or {}
            self.keys |= {(order, key) for key in ours.get("extra", ())}
        foreign = event.sf is None or event.sf.controller == 0
        if foreign and before in _DECIDED and self.board.records[order].state is not before:
            self.counted["set back"] += 1
        if event.event_type == E.UPDATED:
            self._wish(order, event.data["changes"], "merged")
        elif event.event_type == E.VIEW_COLLISION:
            for one in event.data["refused"]:
                self._wish(order, {one["field"]: one["theirs"]}, "told")

    def _wish(self, order: str, changes: dict[str, Any], how: str) -> None:
        for field, value in changes.items():
            self.wishes[order, field, json.dumps(value)] += 1
            self.counted[how] += 1

    def total_missing(self) -> int:
        """What may still be on its way."""
        return sum(self.counted[key] for key in ("lost", "unreported", "keys", "stale"))

    def judge(self, ours: _Ours, notes: list[Note], lines: Counter[str], there: dict[str, Note]) -> None:
        """Count what is missing and what is double."""
        counted, records = self.counted, self.board.records
        counted["events"], counted["forged"] = len(ours.written), self.board.uncounted
        dropped = {(note["id"], note["field"]) for note in notes if note["kind"] == "dropped"}
        for order in ours.created:
            counted["lost"] += order not in records
            counted["doubled"] += self.made[order] > 1 or lines[order] > 1
        for note in notes:
            order = note["id"]
            if note["kind"] == "event":
                counted["noted"] += 1
                counted["lost"] += not self.events[order]
                counted["doubled"] += self.events[order] > 1
            elif note["kind"] == "order":
                counted["appended"] += 1
                counted["lost"] += not self.made[order]
                counted["doubled"] += self.made[order] > 1 or lines[order] > 1
                self._key(order, note["key"], note["value"], there, dropped)
            elif note["kind"] == "edit":
                self._edit(note, there, dropped)
        made = {(n["id"], n["field"], json.dumps(n["value"])) for n in notes if n["kind"] == "edit"}
        counted["invented"] = len(self.wishes.keys() - made)
        for order, record in records.items():
            counted["stale"] += there.get(order) != json.loads(msgspec.json.encode(work_order(record)))
        counted["lost"] += sum(not self.events[event] for event in ours.written)

    def _edit(self, note: Note, there: dict[str, Note], dropped: set[tuple[str, str]]) -> None:
        order, field, value = note["id"], note["field"], note["value"]
        times = self.wishes[order, field, json.dumps(value)]
        self.counted["edits"] += 1
        self.counted["doubled"] += times > 1
        if field.startswith("x_"):
            self._key(order, field, value, there, dropped)
        else:
            # A peer that closes what was done meanwhile has what it wants.
            self.counted["unreported"] += not times and there.get(order, {}).get(field) != value

    def _key(self, order: str, key: str, value: Any, there: dict[str, Note], dropped: set[tuple[str, str]]) -> None:
        """A key that only its writer knows must stand there at the end, unless another peer dropped it unread."""
        if there.get(order, {}).get(key) == value:
            return
        read = (order, key) in self.keys or bool(self.wishes[order, key, json.dumps(value)])
        self.counted["keys" if read or (order, key) not in dropped else "dropped"] += 1


def _notes(journals: Path) -> list[Note]:
    return [json.loads(line) for path in sorted(journals.iterdir()) for line in path.read_text().splitlines()]


def _lines(folder: Path) -> Iterator[Note]:
    for text in (folder / "work_orders.jsonl").read_bytes().splitlines():
        with suppress(ValueError):
            yield json.loads(text)


async def _look(store: WorkdirStore, folder: Path, ours: _Ours, notes: list[Note]) -> _Found:
    found = _Found()
    async for _, event in store.read():
        found.take(event)
    lines = list(_lines(folder))
    found.judge(ours, notes, Counter(line["id"] for line in lines), {line["id"]: line for line in lines})
    return found


async def _reopened(folder: Path, ours: _Ours, notes: list[Note]) -> _Found:
    """The same again by a program that knows nothing but the log."""
    remove(folder)
    async with WorkdirStore(folder, clock=_Clock()) as store:
        rows = {row["id"]: row for row in await store.query(Query())}
        found = await _look(store, folder, ours, notes)
        [meta] = await store.query(Query(what="meta"))
    found.counted["damaged"] = len([p for p in meta["problems"] if p["file"] == "events.jsonl"])
    for order, record in found.board.records.items():
        row = rows.get(order, {})
        found.counted["differs"] += (row.get("state"), row.get("title")) != (record.state, record.order.title)
    return found


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)
