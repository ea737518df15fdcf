"""What must hold, whatever happened: read from the raw log, from refs and objects, from /proc and from agents' notes.

The invariants' numbers are those of the README's table of promises. Nothing here believes what the log claims about
refs, processes or files.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import subprocess
import sys
from collections import Counter
from typing import Any

from campaigns.chaos import processes
from campaigns.chaos.sabotage import TARGET
from campaigns.chaos.scene import MINE, Scene
from shopfloor.app import Shopfloor
from shopfloor.domain.board import Board
from shopfloor.domain.events import E, Event, tells_end
from shopfloor.domain.order import Record, State

GONE_WITHIN_S = 5.0
AT_WORK = {"running", "asking", "checking", "landing"}


class Found:
    """Promises that did not hold, each with what it counts as."""

    def __init__(self) -> None:
        self.problems: list[tuple[str, str]] = []

    def expect(self, holds: object, what: str, text: str) -> None:
        """Note ``text`` under ``what`` unless it holds."""
        if not holds:
            self.problems.append((what, text))


LOST, DOUBLED, ORPHANS, FALSE, OTHER = "lost", "doubled", "orphans", "false landings", "other"


class Facts:
    """The log as it stands, folded and plain, and the refs."""

    def __init__(self, scene: Scene) -> None:
        self.scene = scene
        self.events: list[Event] = []
        self.board = Board()
        asyncio.run(self._read())
        listed = scene.git("for-each-ref", "--format=%(objectname) %(refname)").splitlines()
        self.refs = {name: value for value, _, name in (line.partition(" ") for line in listed)}

    async def _read(self) -> None:
        if self.scene.log.exists():
            async with Shopfloor.open(self.scene.repo, environment=self.scene.env) as floor:
                async for _, event in floor.store.read():
                    self.events.append(event)
                    self.board.apply(event)

    def of(self, kind: E) -> list[Event]:
        """The events of one kind that a controller wrote."""
        return [event for event in self.events if event.event_type == kind and event.sf and event.sf.controller]

    def record(self, name: str) -> Record | None:
        """The newest order of that name."""
        found = [r for r in self.board.records.values() if r.order.name == name]
        return found[-1] if found else None


def nobody_is_left(scene: Scene, found: Found) -> None:
    """Invariant 3: everything that was started ends with its controller."""
    if not processes.until(lambda: not processes.of(scene.folder), GONE_WITHIN_S):
        for process in processes.of(scene.folder):
            text = f"invariant 3: still alive after {GONE_WITHIN_S:g} s: {process.pid} {' '.join(process.words)[:100]}"
            found.expect(None, ORPHANS, text)


def log_is_whole(facts: Facts, found: Found) -> None:
    """Invariant 1, 4 and 5, as far as they can be seen at any moment."""
    noted = facts.scene.acknowledged
    known = {event.event_id for event in facts.events}
    for event_id in noted.read_text().split() if noted.exists() else ():
        found.expect(event_id in known, LOST, f"invariant 1: event {event_id} was acknowledged and is not in the log")
    for record in facts.board.records.values():
        name, generations = record.order.name, [a.generation for a in record.attempts]
        found.expect(
            sum(not a.outcome for a in record.attempts) <= 1, OTHER, f"invariant 4: {name} has two live attempts"
        )
        found.expect(
            generations == sorted(set(generations)), OTHER, f"invariant 4: generations of {name}: {generations}"
        )
        if record.state is State.DONE:
            found.expect(record.verdict == "PASS", FALSE, f"invariant 5: {name} is done without a verdict")
            found.expect(record.merge, FALSE, f"invariant 6: {name} is done and no merge is named")


def target_is_green(facts: Facts, found: Found) -> None:
    """Invariants 5 and 6: first-parent commits were planned and pass the check; what was merged was verified."""
    scene = facts.scene
    plans = facts.of(E.LANDING_PLANNED)
    merges = {row["commit"] for event in plans for row in event.data["merges"]}
    planned = merges | {event.data["new"] for event in plans}
    passed = {event.data["commit"] for event in facts.of(E.VERIFY_VERDICT) if event.data["verdict"] == "PASS"}
    for ref in (TARGET, "refs/heads/main"):
        if ref not in facts.refs:
            continue
        tainted = False
        for commit in scene.git("rev-list", "--first-parent", "--reverse", f"{scene.base}..{ref}").split():
            red = bool(scene.git("ls-tree", commit, "bad.txt"))
            if commit in scene.strangers:
                tainted |= red
                continue
            found.expect(commit in planned, FALSE, f"invariant 6: {ref} holds {commit[:12]}, which nobody planned")
            found.expect(not tainted, FALSE, f"invariant 6: {commit[:12]} was landed on top of a red target")
            found.expect(not red, FALSE, f"invariant 6: {ref} is red at {commit[:12]}")
        spent: Counter[str] = Counter()
        for line in scene.git("log", "--merges", "--format=%H %P", f"{scene.base}..{ref}").splitlines():
            commit, _, second = line.split()
            verified = second in passed or second in merges
            found.expect(verified, FALSE, f"invariant 5: {commit[:12]} merges {second[:12]}, which never passed")
            spent[second] += 1
        for commit, times in spent.items():
            found.expect(times == 1, DOUBLED, f"{commit[:12]} was merged into {ref} {times} times")


def users_things(scene: Scene, found: Found) -> None:
    """Invariant 9, as far as it can be seen at any moment."""
    mine = scene.repo / "mine.txt"
    found.expect(mine.exists() and mine.read_text() == MINE, LOST, "invariant 9: the user's untracked file changed")
    if scene.edited:
        text = (scene.repo / "README").read_text()
        found.expect(text == scene.edited, LOST, f"invariant 9: the user's edit is gone: {text!r}")


def status_is_true(facts: Facts, found: Found) -> dict[str, Any]:
    """Invariant 8, while no controller is alive: what the command says, against the log and the refs."""
    words = [sys.executable, "-m", "shopfloor", "status", "--json"]
    done = subprocess.run(words, cwd=facts.scene.repo, env=facts.scene.env, capture_output=True, check=False)
    try:
        said: dict[str, Any] = json.loads(done.stdout)
        said["controller"], said["orders"]
    except (ValueError, KeyError):
        found.expect(None, OTHER, f"invariant 8: status ended with {done.returncode}: {done.stdout.decode()[:300]}")
        return {"orders": [], "controller": None}
    found.expect(said["controller"] is None, OTHER, f"invariant 8: status names a controller: {said['controller']}")
    landed = _merged(facts)
    for order in said["orders"]:
        name, state = order["name"], order["state"]
        found.expect(state not in AT_WORK, OTHER, f"invariant 8: {name} is said to be {state}, and nobody is alive")
        found.expect(
            state != "landed" or order["merge"] in landed, FALSE, f"invariant 8: {name} is said to be landed and is not"
        )
    return said


def _merged(facts: Facts) -> set[str]:
    """What the target holds, or held before somebody else set it back."""
    refs = [ref for ref in (TARGET, "refs/heads/main") if ref in facts.refs]
    if facts.scene.set_back:
        refs += [str(event.data["observed"]) for event in facts.of(E.LANDING_LANDED)]
    return set(facts.scene.git("rev-list", *refs, "--").split()) if refs else set()


def at_any_moment(scene: Scene, found: Found) -> Facts:
    """All that must hold before anybody has repaired anything."""
    nobody_is_left(scene, found)
    facts = Facts(scene)
    log_is_whole(facts, found)
    target_is_green(facts, found)
    users_things(scene, found)
    status_is_true(facts, found)
    return facts


# -- at the end ---------------------------------------------------------------------------------------------------


def nothing_is_lost(facts: Facts, found: Found) -> None:
    """Invariant 2: what an agent wrote is reachable, or lies in a slot that was retired because of it."""
    scene = facts.scene
    notes = (scene.home / "notes").read_text().splitlines()
    objects = {line.split()[0] for line in scene.git("rev-list", "--objects", "--all").splitlines()}
    for token in (line.removeprefix("wrote ") for line in notes if line.startswith("wrote ")):
        content = f"{token}\n".encode()
        blob = hashlib.sha1(b"blob %d\0" % len(content) + content, usedforsecurity=False).hexdigest()
        path = token.split()[1]
        there = blob in objects or any(
            place.read_bytes() == content for place in scene.repo.glob(f".worktrees/*/{path}") if place.is_file()
        )
        found.expect(there, LOST, f"invariant 2: what an attempt wrote is nowhere: {token}")


def nothing_is_doubled(facts: Facts, found: Found) -> None:
    """No attempt runs twice, none beside a later one, and nothing is done again after it was done."""
    started: Counter[str] = Counter()
    newest: dict[str, int] = {}
    for line in (facts.scene.home / "notes").read_text().splitlines():
        word, attempt = line.split()[:2]
        order, _, number = attempt.rpartition(".a")
        found.expect(
            int(number) >= newest.get(order, 0),
            DOUBLED,
            f"invariant 4: {attempt} wrote after attempt {newest.get(order)}",
        )
        newest[order] = max(int(number), newest.get(order, 0))
        started[attempt] += word == "started"
    for attempt, times in started.items():
        found.expect(times <= 1, DOUBLED, f"{attempt} was run {times} times")
    done: set[str] = set()
    landed = Counter(event.order_id for event in facts.of(E.LANDING_LANDED))
    for event in facts.events:
        if tells_end(event) and event.data.get("outcome") == "done" and event.sf:
            done.add(event.order_id)
        elif event.event_type == E.ASSIGNED:
            found.expect(event.order_id not in done, DOUBLED, f"{event.order_id} was started again after it was done")
    for order, times in landed.items():
        found.expect(times == 1, DOUBLED, f"{order} was landed {times} times")


def checkout_is_the_users(facts: Facts, found: Found, *, held: bool) -> None:
    """Invariant 9: nothing but a clean fast-forward has happened to it."""
    scene = facts.scene
    status = scene.git("status", "--porcelain").splitlines()
    expected = {"?? mine.txt", *([" M README"] if scene.edited else [])}
    found.expect(set(status) <= expected, OTHER, f"invariant 9: the checkout is not clean: {status}")
    if held:
        return
    found.expect(scene.git("symbolic-ref", "-q", "HEAD", check=False) == "refs/heads/main", OTHER, "invariant 9: HEAD")
    main, target = facts.refs.get("refs/heads/main"), facts.refs.get(TARGET)
    found.expect(main == target, OTHER, f"invariant 9: main stands at {main}, the target at {target}")
