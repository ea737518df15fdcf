"""The lines of ``work_orders.jsonl``: one for each order, those of other programs among them, in a stable order."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

import msgspec

from shopfloor.domain.order import Record
from shopfloor.domain.records import echoes, sealed, work_order
from shopfloor.stores.codec import UNREADABLE
from shopfloor.stores.index import Index

_BEGIN = b'{"id":"'
_loose = msgspec.json.Decoder(dict[str, Any])


class Findings(NamedTuple):
    """What is in a file that we did not put there."""

    edited: list[str]
    """ids of orders whose line says something else than we ever published, and of orders that only others know"""
    strangers: list[str]
    """digests of the lines that speak of no order of ours, whether they were reported before or not"""
    news: bool
    """False: all of it was reported before"""


class Sheet:
    """The file as a list of lines and the place of each id."""

    def __init__(self, content: bytes) -> None:
        self._lines = [line for line in content.split(b"\n") if line.strip()]
        self._place = _places(self._lines, _id_of)

    def content(self) -> bytes:
        """The bytes of the file."""
        return b"".join([line + b"\n" for line in self._lines])

    def put(self, records: Iterable[Record]) -> None:
        """Bring the lines of these orders up to date; new ones go to the end."""
        for record in records:
            place, found = self._find(record.order.id)
            line = render(record, found)
            if place is None:
                self._place[record.order.id] = len(self._lines)
                self._lines.append(line)
            else:
                self._lines[place] = line

    def _find(self, order: str) -> tuple[int | None, dict[str, Any] | None]:
        place = self._place.get(order)
        if place is None:
            return None, None
        found = parse(self._lines[place])
        if _text(found, "id") != order:
            # A damaged line of somebody that begins as ours do: look at every line in earnest, once.
            self._place = _places(self._lines, lambda line: _text(parse(line), "id"))
            place = self._place.get(order)
            found = None if place is None else parse(self._lines[place])
        return place, found

    def reconcile(self, index: Index, reported: set[str]) -> Findings:
        """Find what others wrote, and bring every line of ours up to date; lines of others stay as they are."""
        edited, strangers, news = [], [], False
        kept: list[bytes] = []
        done: dict[str, int] = {}
        for found_line in self._lines:
            line = found_line
            found = parse(line)
            order = _text(found, "id")
            record = next(index.records([order]), None) if order else None
            if record is None:
                digest = f"{zlib.crc32(line):08x}"
                strangers.append(digest)
                if digest not in reported:
                    news = True
                    edited += [order] if order else []
            else:
                assert found is not None
                if not sealed(found) and not echoes(found, work_order(record)):
                    edited.append(order)
                    news = True
                if order in done:  # a second line for the same order, as a merge of two copies leaves it
                    continue
                line = render(record, found)
            if order:
                done.setdefault(order, len(kept))
            kept.append(line)
        self._lines, self._place = kept, done
        self.put(index.records([order for order in index.changed_after(0) if order not in done]))
        return Findings(list(dict.fromkeys(edited)), strangers, news)


def render(record: Record, found: dict[str, Any] | None) -> bytes:
    """The line of a record, without its newline; unknown keys of the line that stood there are kept."""
    return msgspec.json.encode(work_order(record, found))


def parse(line: bytes) -> dict[str, Any] | None:
    """The object in a line, or None."""
    try:
        return _loose.decode(line)
    except UNREADABLE:
        return None


def _places(lines: list[bytes], id_of: Callable[[bytes], str]) -> dict[str, int]:
    """The first line of each id."""
    found: dict[str, int] = {}
    for place, line in enumerate(lines):
        if order := id_of(line):
            found.setdefault(order, place)
    return found


def _id_of(line: bytes) -> str:
    # Our own lines begin so, and an id needs no escapes: no need to parse all of a large file.
    if line.startswith(_BEGIN):
        order = line[len(_BEGIN) : line.find(b'"', len(_BEGIN))]
        if b"\\" not in order:
            return order.decode("utf-8", "replace")
    return _text(parse(line), "id")


def _text(found: dict[str, Any] | None, key: str) -> str:
    value = found.get(key) if found is not None else None
    return value if isinstance(value, str) else ""
