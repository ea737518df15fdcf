"""Three programs of other people that work on the same files: `python _peers.py KIND FOLDER JOURNAL SEED`.

They know nothing of Shopfloor and take no lock of its. Among themselves they take turns, as programs of one family do:
what one of them destroys of another's is not Shopfloor's fault. Each notes in its journal what it has done, one JSON
object a line, and ends when its standard input does.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import random
import select
import sys
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

Line = dict[str, Any]

GO_KEYS = ("id", "title", "description", "status", "priority", "issue_type", "created_at", "updated_at", "created_by")
ORDERS = "work_orders.jsonl"


class Peer:
    """What the three have in common."""

    def __init__(self, folder: Path, journal: Path, seed: int) -> None:
        self.folder = folder
        self.path = folder / ORDERS
        self.random = random.Random(seed)
        self.number = 0
        self.seen: dict[str, set[str]] = {}
        """fields that it changed already, by order"""
        self._journal = journal.open("a", encoding="utf-8")
        self._turn = os.open(folder / ".peers.lock", os.O_RDWR | os.O_CREAT)

    def note(self, **what: object) -> None:
        """Write into the journal what is about to be done."""
        self._journal.write(json.dumps(what) + "\n")
        self._journal.flush()

    @contextlib.contextmanager
    def turn(self) -> Iterator[None]:
        """The other peers wait."""
        fcntl.flock(self._turn, fcntl.LOCK_EX)
        try:
            yield
        finally:
            fcntl.flock(self._turn, fcntl.LOCK_UN)

    def lines(self) -> list[Line]:
        """Every line that can be read."""
        found = []
        with contextlib.suppress(FileNotFoundError):
            for line in self.path.read_bytes().splitlines():
                with contextlib.suppress(ValueError):
                    found.append(json.loads(line))
        return found

    def next(self) -> int:
        """A number that was not used."""
        self.number += 1
        return self.number


def now(*, go: bool = False) -> str:
    """The time; as Go writes it without the zeros at the end of its fraction."""
    moment = datetime.now(UTC)
    text = f"{moment:%Y-%m-%dT%H:%M:%S.%f}"
    return f"{text.rstrip('0').rstrip('.') if go else text[:-3]}Z"


def append(path: Path, line: bytes, *, ended: bool) -> None:
    """One write on a line of its own, with or without a newline behind it."""
    descriptor = os.open(path, os.O_RDWR | os.O_APPEND | os.O_CREAT)
    try:
        size = os.fstat(descriptor).st_size
        before = b"\n" if size and os.pread(descriptor, 1, size - 1) != b"\n" else b""
        os.write(descriptor, before + line + (b"\n" if ended else b""))
    finally:
        os.close(descriptor)


def appends(peer: Peer) -> float:
    """Whole lines at the end: orders, events, and events that claim what is not theirs to say."""
    number, ended = peer.next(), peer.random.random() < 0.9
    order = f"wo-app{number}"
    line = {"id": order, "title": f"appended {number}", "status": "open", "priority": 1, "issue_type": "task",
            "created_at": now(), "updated_at": now(), "created_by": "peer", f"x_app{number}": [number]}  # fmt: skip
    with peer.turn():
        peer.note(kind="order", id=order, key=f"x_app{number}", value=[number])
        append(peer.path, json.dumps(line, separators=(",", ":")).encode(), ended=ended)
    event = {"event_id": f"evt-app{number}", "event_type": "peer.noted", "timestamp": now(), "actor": "peer",
             "correlation_id": None, "data": {"number": number}}  # fmt: skip
    if peer.random.random() < 0.3:
        known = [one["id"] for one in peer.lines() if str(one.get("id", "")).startswith("wo-our")]
        if known:
            data = {
                "work_order_id": peer.random.choice(known),
                "outcome": "done",
                "to_status": "closed",
                "verdict": "PASS",
            }
            kind = peer.random.choice(["work_order.settled", "work_order.closed", "verify.verdict", "landing.landed"])
            event |= {"event_type": kind, "data": data}
    peer.note(kind="event", id=event["event_id"])
    text = json.dumps(event, separators=(",", ":")).encode()
    append(peer.folder / "events.jsonl", text, ended=ended)
    append(peer.folder / "feed.jsonl", text, ended=ended)
    return peer.random.uniform(0.002, 0.03)


def rewrites(peer: Peer) -> float:
    """Everything anew, as a program with the seed's struct does it: keys that it does not know are gone."""
    with peer.turn():
        lines = peer.lines()
        ours = [line for line in lines if str(line.get("id", "")).startswith("wo-our")]
        for line in peer.random.sample(ours, min(5, len(ours))):
            _edit(peer, line)
        for line in lines:
            for key in line:
                if key.startswith("x_"):
                    peer.note(kind="dropped", id=line["id"], field=key)
        content = b"".join(_as_go(line) + b"\n" for line in lines)
        if peer.random.random() < 0.6:
            temporary = peer.path.with_name(".go.tmp")
            temporary.write_bytes(content)
            temporary.replace(peer.path)
        else:
            peer.path.write_bytes(content)
    return peer.random.uniform(0.2, 1.0)


def _edit(peer: Peer, line: Line) -> None:
    number = peer.next()
    field, value = peer.random.choice(
        [("title", f"titled {number}"), ("description", f"described {number}"), ("issue_type", f"type-{number}"),
         ("status", "closed"), ("status", "assigned")]
    )  # fmt: skip
    if field in peer.seen.setdefault(line["id"], set()) or line[field] == value:
        return
    peer.seen[line["id"]].add(field)
    line[field], line["updated_at"] = value, now(go=True)
    peer.note(kind="edit", id=line["id"], field=field, value=value)


def _as_go(line: Line) -> bytes:
    kept = {key: line[key] for key in GO_KEYS if key in line}
    if line.get("dependencies"):
        kept["dependencies"] = line["dependencies"]
    text = json.dumps(kept, ensure_ascii=False, separators=(",", ":"))
    for char in "<>&\u2028\u2029":
        text = text.replace(char, f"\\u{ord(char):04x}")
    return text.encode()


def truncates(peer: Peer) -> float:
    """The file is emptied and written slowly, with pauses in the middle of lines and between them."""
    with peer.turn():
        lines = peer.lines()
        for line in peer.random.sample(lines, min(2, len(lines))):
            number = peer.next()
            line[f"x_slow{number}"] = {"n": number}
            peer.note(kind="edit", id=line["id"], field=f"x_slow{number}", value={"n": number})
        content = "".join(json.dumps(line) + "\n" for line in lines).encode()
        with peer.path.open("wb", buffering=0) as file:
            at = 0
            for _ in range(4):
                end = peer.random.randrange(at, len(content) + 1)
                if peer.random.random() < 0.5:
                    end = content.rfind(b"\n", 0, end) + 1 or end
                file.write(content[at : max(at, end)])
                at = max(at, end)
                time.sleep(peer.random.uniform(0.01, 0.15))
            file.write(content[at:])
    return peer.random.uniform(0.2, 0.6)


KINDS: dict[str, Callable[[Peer], float]] = {"append": appends, "rewrite": rewrites, "truncate": truncates}


def main(words: list[str]) -> None:
    """Work until standard input ends."""
    kind, folder, journal, seed = words
    peer = Peer(Path(folder), Path(journal), int(seed))
    pause = 0.0
    while not select.select([sys.stdin], [], [], pause)[0]:
        pause = KINDS[kind](peer)


if __name__ == "__main__":
    main(sys.argv[1:])
