"""Power losses under the store: seeded programs, a loss at any step, another in what comes after, a verdict."""

from __future__ import annotations

import asyncio
import json
import random
import shutil
import sys
from collections import Counter
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import msgspec

from shopfloor.domain.errors import Conflict, ShopfloorError
from shopfloor.domain.events import E, Event, stamp_time
from shopfloor.ports import Query
from shopfloor.stores.codec import CANCEL, decode
from shopfloor.stores.workdir import WorkdirStore
from shopfloor.testing.disk import Recording, Unsupported, record
from shopfloor.testing.store import FixedClock

PROGRAM = Path(__file__).with_name("_disk_program.py")
FOLDER = ".work"
LIVES = 3
"""How often the power goes at most before the folder is looked at for the last time."""


class Story(msgspec.Struct):
    """What a folder's programs have said so far."""

    acknowledged: list[list[str]] = msgspec.field(default_factory=list)
    refused: list[list[str]] = msgspec.field(default_factory=list)
    open: dict[str, list[str]] = msgspec.field(default_factory=dict)
    """changes that were begun, by their first event; nobody was told what came of them"""
    claims: dict[str, int] = msgspec.field(default_factory=dict)
    controller: int = 0
    claimed: dict[str, tuple[str, int]] = msgspec.field(default_factory=dict)

    def take(self, lines: Iterable[str]) -> None:
        """What one more program said until its power went."""
        for line in lines:
            said: dict[str, Any] = json.loads(line)
            word, ids = said["word"], said.get("ids", [])
            if word == "try":
                self.open[ids[0]] = ids
                if "order" in said:
                    self.claimed[ids[0]] = (said["order"], said["generation"])
            elif word == "ok":
                self.acknowledged.append(self.open.pop(ids[0]))
                if ids[0] in self.claimed:
                    order, generation = self.claimed[ids[0]]
                    self.claims[order] = max(self.claims.get(order, 0), generation)
            elif word == "no":
                self.refused.append(self.open.pop(ids[0]))
            elif word == "lead":
                self.controller = max(self.controller, said["generation"])


def losses(seed: int, count: int, scratch: Path, env: Mapping[str, str]) -> Counter[str]:
    """Lose the power ``count`` times in seeded programs. Counts what was done; broken promises under ``broken: …``.

    ``env`` is that of the programs. Each program is traced once and loses its power many times; every fourth time
    another program goes on with what is left, and loses its power too.
    """
    counts: Counter[str] = Counter()
    dice = random.Random(seed)
    while counts["losses"] < count and counts["programs"] < count:
        life = _Life(scratch / f"life-{counts['programs']}", env, counts)
        life.go(dice, Story(), left=LIVES, upto=count)
        shutil.rmtree(life.folder)
    return counts


class _Life:
    def __init__(self, folder: Path, env: Mapping[str, str], counts: Counter[str]) -> None:
        self.folder = folder
        self.env = env
        self.counts = counts
        folder.mkdir(parents=True)

    def go(self, dice: random.Random, story: Story, *, left: int, upto: int, start: Path | None = None) -> None:
        """Run one program on what an earlier loss left, then look at its losses."""
        seed = dice.getrandbits(30)
        place = self.folder / f"disk-{self.counts['programs']}"
        if start is None:
            place.mkdir()
        else:
            shutil.copytree(start, place)
        self.counts["programs"] += 1
        argv = [sys.executable, str(PROGRAM), str(place / FOLDER), str(seed)]
        try:
            recording = record(argv, place, cwd=place, env=self.env)
        except Unsupported as problem:
            # Two processes were inside of the same write: which came first is not in the trace.
            self.counts["programs not followed"] += 1
            print(f"not followed: {problem} (program {seed})", file=sys.stderr, flush=True)
            return
        self.counts["steps"] += len(recording)
        # The first life loses its power many times, a later one a few times.
        for _ in range(24 if start is None else 4):
            if self.counts["losses"] >= upto:
                return
            self._lose(dice, recording, story, seed=seed, left=left, upto=upto)

    def _lose(
        self, dice: random.Random, recording: Recording, story: Story, *, seed: int, left: int, upto: int
    ) -> None:
        at = dice.randint(0, len(recording))
        moment = dice.getrandbits(30)
        image = self.folder / f"loss-{self.counts['losses']}"
        style = recording.lose_power(at, random.Random(moment), image)
        so_far = msgspec.convert(msgspec.to_builtins(story), Story)
        so_far.take(recording.said(at))
        self.counts["losses"] += 1
        self.counts[f"the disk {style}" if style in ("forgets", "keeps") else f"the disk keeps: {style}"] += 1
        self.counts["during recovery"] += left < LIVES
        self.counts["acknowledged"] += len(so_far.acknowledged)
        judged = self.folder / "judged"
        shutil.copytree(image, judged)
        try:
            asyncio.run(judge(judged / FOLDER, so_far))
        except (AssertionError, ShopfloorError, OSError) as broken:
            words = str(broken).splitlines()[0].replace(str(self.folder), "")
            self.counts[f"broken: {words}"] += 1
            where = f"program {seed}, step {at} of {len(recording)}, moment {moment}, {style}, life {LIVES - left + 1}"
            print(f"broken: {words} ({where})", file=sys.stderr, flush=True)
        shutil.rmtree(judged)
        if left > 1 and dice.random() < 0.25:
            self.go(dice, so_far, left=left - 1, upto=upto, start=image)
        shutil.rmtree(image)


async def judge(folder: Path, story: Story) -> None:
    """Look at what a loss left, go on with it. Raises AssertionError that says which promise was broken."""
    clock = FixedClock()
    log = _content(folder / "events.jsonl")
    async with WorkdirStore(folder, clock=clock) as store:
        events = [event async for _, event in store.read()]
        kept_whole(events, story)
        nothing_unreadable_is_silent(log, await store.query(Query(what="meta")))
        await index_agrees(store, folder.with_name("fresh"))
    async with WorkdirStore(folder, clock=clock) as store, WorkdirStore(folder, clock=clock) as other:
        generation = await store.lead({})
        assert generation > story.controller, "a controller's generation was given twice"
        await claims_hold(store, other, events, story)
        after = [event async for _, event in store.read()]
        assert [e for e in after if e.event_id in {e.event_id for e in events}] == events, "reading was not for good"
    async with WorkdirStore(folder, clock=clock) as store:
        again = [event async for _, event in store.read()]
        assert again == after, "what was appended after the loss is not what is there after closing"
        await index_agrees(store, folder.with_name("fresh"))
        await views_agree(store, folder, again)


def kept_whole(events: list[Event], story: Story) -> None:
    """Every acknowledged change once, in order; others as a whole or not at all; refused ones not at all."""
    places: dict[str, list[int]] = {}
    for place, event in enumerate(events):
        places.setdefault(event.event_id, []).append(place)
    assert all(len(found) == 1 for found in places.values()), "an event is there twice"
    for ids in story.acknowledged:
        assert all(name in places for name in ids), "an acknowledged change is lost"
    for ids in story.refused:
        assert not any(name in places for name in ids), "a refused change counts"
    for ids in (*story.acknowledged, *story.open.values()):
        found = [places[name][0] for name in ids if name in places]
        assert len(found) in (0, len(ids)), "a change counts in part"
        assert not found or found == list(range(found[0], found[0] + len(ids))), "a change is not in one piece"
    stamps = [(e.sf.sequence, e.sf.index) for e in events if e.sf is not None]
    assert stamps == sorted(set(stamps)), "changes are not in the order of their numbers"
    own = {E.LOG_OPENED, E.CONTROLLER_STARTED, E.VIEW_COLLISION}
    known = {name for ids in (*story.acknowledged, *story.open.values()) for name in ids}
    assert {e.event_id for e in events if e.event_type not in own} <= known, "an event counts that nobody has appended"


def nothing_unreadable_is_silent(log: bytes, meta: list[dict[str, Any]]) -> None:
    """Each line that nobody can read is named."""
    named = {problem["line"] for problem in meta[0]["problems"]}
    for number, line in enumerate(log.split(b"\n"), 1):
        try:
            if line.strip():
                decode(line)
        except ValueError:
            assert number in named, "an unreadable line is not reported"


async def index_agrees(store: WorkdirStore, fresh: Path) -> None:
    """The index says what one says that is made from the log alone."""
    _only_the_log(store.folder, fresh)
    async with WorkdirStore(fresh, clock=FixedClock()) as other:
        for what in ("orders", "events", "runs"):
            query = Query(what=what)
            assert await store.query(query) == await other.query(query), f"the index has other {what} than the log"
        ours, theirs = [(await s.query(Query(what="meta")))[0] for s in (store, other)]
        differing = [k for k in ours if k not in ("alive", "problems") and ours[k] != theirs[k]]
        assert not differing, f"the index has another {differing[0]} than the log"
        assert _of_log(ours) == _of_log(theirs), "the index has other problems than the log"
    shutil.rmtree(fresh)


def _only_the_log(folder: Path, fresh: Path) -> None:
    fresh.mkdir()
    if (folder / "events.jsonl").exists():
        shutil.copyfile(folder / "events.jsonl", fresh / "events.jsonl")


def _content(path: Path) -> bytes:
    return path.read_bytes() if path.exists() else b""


def _of_log(meta: dict[str, Any]) -> list[tuple[int, str]]:
    return [(p["line"], p["what"]) for p in meta["problems"] if p["file"] == "events.jsonl"]


async def claims_hold(leader: WorkdirStore, other: WorkdirStore, events: list[Event], story: Story) -> None:
    """No order is claimed a second time for a generation that was given out."""
    counted: dict[str, int] = {}
    for event in events:
        if event.event_type == E.ASSIGNED:
            order = str(event.data["work_order_id"])
            counted[order] = max(counted.get(order, 0), int(event.data["generation"]))
    for order, generation in story.claims.items():
        assert counted.get(order, 0) >= generation, "an acknowledged claim does not count"
    for number, (order, generation) in enumerate(counted.items()):
        stale = await _claim(leader, order, generation, f"stale-{number}")
        assert isinstance(stale, Conflict), "an order was claimed a second time"
        next_one = await _claim(leader, order, generation + 1, f"next-{number}")
        assert next_one is None, f"an order cannot be claimed: {next_one}"
        late = await _claim(other, order, generation + 1, f"late-{number}")
        assert isinstance(late, Conflict), "an order was claimed a second time from another process"


async def _claim(store: WorkdirStore, order: str, generation: int, name: str) -> Conflict | None:
    data = {"work_order_id": order, "generation": generation, "attempt": f"{order}.a{generation}", "agent": "r"}
    claim = Event(name, E.ASSIGNED, stamp_time(1_767_700_800.0), "human", None, data)
    try:
        await store.append([claim], expect={order: generation - 1})
    except Conflict as conflict:
        return conflict
    return None


async def views_agree(store: WorkdirStore, folder: Path, events: list[Event]) -> None:
    """After a controller was there, both views say what the log says."""
    rows = await store.query(Query(what="orders"))
    sheet = folder / "work_orders.jsonl"
    lines = [json.loads(line) for line in _content(sheet).splitlines()]
    assert [line["id"] for line in lines] == [row["id"] for row in rows], (
        "work_orders.jsonl has other orders than the log"
    )
    states = [line["metadata"]["shopfloor"]["state"] for line in lines]
    assert states == [row["state"] for row in rows], "work_orders.jsonl has other states than the log"
    feed = [line for line in _content(folder / "feed.jsonl").split(b"\n") if line]
    log = [line for line in _content(folder / "events.jsonl").split(b"\n") if line and CANCEL[:1] not in line]
    known = set(feed)
    first = next((place for place, line in enumerate(log) if line in known), len(log))
    counted = {event.event_id for event in events}
    missed = [line for line in log[first:] if line not in known and _id(line) in counted]
    assert not missed, "the feed misses events"


def _id(line: bytes) -> str:
    try:
        return decode(line).event_id
    except ValueError:
        return ""
