"""The lines of ``work_orders.jsonl``: one for each order, those of other programs among them, in a stable order."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Collection, Iterable, Iterator
from typing import Any, NamedTuple

import msgspec

from shopfloor.domain import edits, foreign
from shopfloor.domain.graph import reaches
from shopfloor.domain.names import printable
from shopfloor.domain.order import Record
from shopfloor.domain.records import sealed, work_order
from shopfloor.stores.codec import LINE_LIMIT, UNREADABLE
from shopfloor.stores.index import Index

_BEGIN = b'{"id":"'
_SEAL = b'"seal":"'
_END = b'"}}}'
_loose = msgspec.json.Decoder(dict[str, Any])

PIECE = 200
"""Lines that are written at once."""
FEW = 32
"""Orders whose lines are sooner searched for one by one."""

Versions = Callable[[str], list[dict[str, Any]]]
"""The objects that an order was published as, or might have been, oldest first."""


class Wish(NamedTuple):
    """What lines of other programs want of one order; applied as one change, or not at all."""

    order: str
    generation: int
    """what the order must have now; -1: it must not be known"""
    creation: dict[str, Any]
    changes: dict[str, Any]
    refused: list[dict[str, Any]]
    """wishes that are not followed and were not told before: ``{field, theirs, ours, why}``"""
    lines: list[bytes]
    """theirs, as they were read"""
    fenced: bool = False
    """the changes matter to a start"""


class Complaint(NamedTuple):
    """A line that no order can be made of; lines are numbered from 1."""

    line: int
    what: str
    value: str
    digest: str


class Findings(NamedTuple):
    """What is in a file that we did not put there."""

    wishes: list[Wish]
    complaints: list[Complaint]


class Sheet:
    """The file as a list of lines and the place of each id; ``ours``: bytes at the beginning that we left there."""

    def __init__(self, content: bytes, *, ours: int = 0) -> None:
        self._lines = _lines(content[:ours]) if ours else []
        self._ours = len(self._lines)
        self._lines += _lines(content[ours:])
        self._place = _places(self._lines, _id_of)
        self._current: dict[str, bytes] = {}
        self._ids: dict[int, str] = {}
        """of the lines that are not ours, once they were looked at"""

    def pieces(self) -> Iterator[bytes]:
        """The bytes of the file, some lines at a time: as a whole they would be in memory twice."""
        for first in range(0, len(self._lines), PIECE):
            yield b"\n".join([*self._lines[first : first + PIECE], b""])

    def add(self, lines: Iterable[bytes]) -> None:
        """Lines that another program wrote elsewhere, as if they stood at the end."""
        new = list(lines)
        known = set(self._lines) if new else ()
        self._lines += [line for line in new if line not in known]

    def put(self, lines: Iterable[tuple[str, bytes]]) -> None:
        """Bring the lines of these orders up to date; new ones go to the end."""
        for order, line in lines:
            place = self._find(order)
            if place is None:
                self._place[order] = len(self._lines)
                self._lines.append(line)
            else:
                self._lines[place] = line

    def _find(self, order: str) -> int | None:
        place = self._place.get(order)
        if place is not None and _id_in(parse(self._lines[place])) != order:
            # A damaged line of somebody that begins as ours do: look at every line in earnest, once.
            self._place = _places(self._lines, lambda line: _id_in(parse(line)))
            return self._place.get(order)
        return place

    def survey(self, index: Index, versions: Versions) -> Findings:
        """Find what others wrote; changes nothing."""
        theirs: dict[str, list[_Line]] = {}
        complaints = []
        for place, line in enumerate(self._lines[self._ours :], self._ours):
            found = parse(line)
            order = _id_in(found)
            if found is None or not order:
                complaints.append(_complaint(place, line, _NO_OBJECT, None))
            else:
                self._ids[place] = order
                theirs.setdefault(order, []).append(_Line(place, line, found))
        survey = _Survey(index, versions, self._current)
        for order, lines in theirs.items():
            survey.look(order, lines)
        return Findings(survey.wishes, complaints + survey.complaints)

    def settle(self, index: Index, since: int, ahead: Iterable[tuple[str, bytes]] = ()) -> None:
        """Every line of a known order becomes its line now, at its first place; lines of others stay as they are.

        Lines at the beginning that are ours were right at the position ``since`` of the log. ``ahead`` are the lines
        of those that have changed since the index was written.
        """
        wanted = index.changed_after(since)
        if self._ours < len(self._lines):
            self._take_their_places(index)
        if not self._ours:  # a missing id is no deletion
            wanted += [order for order in index.changed_after(0) if order not in self._place]
        self._ours = len(self._lines)
        self.put((record.order.id, render(record)) for record in index.records(list(dict.fromkeys(wanted))))
        self.put(ahead)

    def _take_their_places(self, index: Index) -> None:
        kept = self._lines[: self._ours]
        done = {order: place for order, place in self._place.items() if place < self._ours}
        for place, line in enumerate(self._lines[self._ours :], self._ours):
            order = self._ids.get(place, "")
            current = self._now(index, order) if order else None
            if current is not None and order in done:
                continue  # a second line for the same order, as a merge of two copies leaves it
            if order:
                done.setdefault(order, len(kept))
            kept.append(line if current is None else current)
        self._lines, self._place = kept, done

    def _now(self, index: Index, order: str) -> bytes | None:
        if order in self._current:
            return self._current[order]
        record = next(index.records([order]), None)
        return None if record is None else render(record)


class LineIds:
    """Finds the lines of some orders among very many others."""

    def __init__(self, wanted: Collection[str]) -> None:
        self._wanted = wanted
        self._heads = {order: b'{"id":' + msgspec.json.encode(order) for order in wanted} if len(wanted) <= FEW else {}
        self._plain = {order.encode("utf-8", "replace") for order in wanted}
        self.doubtful = False
        """a line begins as if it were of one of them, and is of another: only a sheet can tell"""

    def find(self, lines: bytes) -> Iterator[tuple[str, int, int]]:
        """Those among whole lines: the order, and where its line begins and ends."""
        for start, end in self._few(lines) if self._heads else self._many(lines):
            found = _id_of(line := lines[start : end - 1])
            if found in self._wanted:
                self.doubtful |= _id_in(parse(line)) != found
                yield found, start, end

    def _few(self, lines: bytes) -> Iterator[tuple[int, int]]:
        ours = lines.startswith(_BEGIN) + lines.count(b"\n" + _BEGIN)
        if ours < lines.count(b"\n"):  # those of others have to be read in earnest
            yield from self._many(lines)
            return
        for head in self._heads.values():
            at = 0 if lines.startswith(head) else lines.find(b"\n" + head) + 1
            if at or lines.startswith(head):
                yield at, lines.find(b"\n", at) + 1

    def _many(self, lines: bytes) -> Iterator[tuple[int, int]]:
        start, plain, skip = 0, self._plain, len(_BEGIN)
        while (end := lines.find(b"\n", start) + 1) > 0:
            order = lines[start + skip : lines.find(b'"', start + skip)]
            if order in plain or b"\\" in order or not lines.startswith(_BEGIN, start):
                yield start, end
            start = end


_NO_OBJECT = "is no JSON object with an id"


class _Line(NamedTuple):
    place: int
    line: bytes
    found: dict[str, Any]


class _Survey:
    """One look at the lines of others, order by order."""

    def __init__(self, index: Index, versions: Versions, current: dict[str, bytes]) -> None:
        self.wishes: list[Wish] = []
        self.complaints: list[Complaint] = []
        self._index = index
        self._versions = versions
        self._current = current
        self._needs: dict[str, tuple[str, ...]] = {}
        """dependencies that are wanted in this pass"""

    def look(self, order: str, lines: list[_Line]) -> None:
        record = next(self._index.records([order]), None)
        if record is None:
            self._create(order, lines)
            return
        current = work_order(record)
        self._current[order] = msgspec.json.encode(current)
        written = [one for one in lines if one.line != self._current[order] and not sealed(one.found)]
        if not written:
            return
        now = foreign.version(current)
        edited = [one for one in written if foreign.differences(foreign.version(one.found), now)]
        if edited:
            self._merge(record, edited, now)

    def _create(self, order: str, lines: list[_Line]) -> None:
        good = []
        for one in lines:
            wrong = foreign.complaint(one.found)
            if wrong is None:
                good.append(one)
            else:
                self.complaints.append(_complaint(one.place, one.line, *wrong))
        if good:
            creation, state = foreign.creation_of(foreign.newest(one.found for one in good)[-1])
            self.wishes.append(Wish(order, -1, creation, state, [], [one.line for one in good]))

    def _merge(self, record: Record, lines: list[_Line], now: foreign.Version) -> None:
        order = record.order.id
        published = [*(foreign.version(line) for line in self._versions(order)), now]
        changes: dict[str, Any] = {}
        refused: dict[str, tuple[Any, str]] = {}
        for found in foreign.newest(one.found for one in lines):
            wanted = foreign.merge(found, published)
            refused |= {field: (value, "it was changed here too") for field, value in wanted.both.items()}
            changes |= wanted.changes
        bad = edits.refusals(record, changes)
        if "dependencies" in changes and "dependencies" not in bad:
            why = self._astray(order, edits.needs_of(changes["dependencies"]))
            bad |= {"dependencies": why} if why else {}
        for field, why in bad.items():
            refused[field] = (changes.pop(field), why)
        # Why the order cannot follow says more than that it has moved on.
        also = edits.refusals(record, {field: value for field, (value, _) in refused.items()})
        news = [
            {"field": field, "theirs": value, "ours": now.line.get(field), "why": also.get(field, why)}
            for field, (value, why) in refused.items()
            if not edits.told(record, field, value)
        ]
        if changes or news:
            fenced = edits.fenced(record, changes)
            self.wishes.append(Wish(order, record.generation, {}, changes, news, [one.line for one in lines], fenced))

    def _astray(self, order: str, needs: tuple[str, ...]) -> str:
        """Why an order cannot wait for these."""

        def of(one: str) -> tuple[str, ...]:
            if one not in self._needs:
                record = next(self._index.records([one]), None)
                return record.order.depends_on if record else ()
            return self._needs[one]

        unknown = [need for need in needs if next(self._index.records([need]), None) is None]
        if unknown:
            return f"there is no order {unknown[0]!r}"
        if reaches(needs, order, of):
            return "the orders would wait for each other in a circle"
        self._needs[order] = needs
        return ""


def render(record: Record) -> bytes:
    """The line of a record, without its newline."""
    return msgspec.json.encode(work_order(record))


def parse(line: bytes) -> dict[str, Any] | None:
    """The object in a line, or None."""
    if len(line) >= LINE_LIMIT:
        return None
    try:
        return _loose.decode(line)
    except UNREADABLE:
        return None


def complaints(content: bytes) -> list[Complaint]:
    """The lines of a file that no order can be made of."""
    found = []
    for place, line in enumerate(_lines(content)):
        if line.startswith(_BEGIN) and b'"seal":"' in line:
            continue  # ours, or made from ours
        read = parse(line)
        wrong = foreign.complaint(read) if read is not None else (_NO_OBJECT, None)
        if wrong is not None:
            found.append(_complaint(place, line, *wrong))
    return found


def _complaint(place: int, line: bytes, what: str, value: object) -> Complaint:
    shown = line[:80].decode("utf-8", "replace") if value is None else msgspec.json.encode(value).decode()
    return Complaint(place + 1, what, printable(shown, 80), f"{zlib.crc32(line):08x}")


def _lines(content: bytes) -> list[bytes]:
    return [line for line in content.split(b"\n") if line.strip()]


def _id_of(line: bytes) -> str:
    # Our own lines begin so, and an id needs no escapes: no need to parse all of a large file.
    if line.startswith(_BEGIN) and (line.endswith(_END) or (line.endswith(b"}") and _SEAL in line)):
        order = line[len(_BEGIN) : line.find(b'"', len(_BEGIN))]
        if b"\\" not in order:
            return order.decode("utf-8", "replace")
    return _id_in(parse(line))


def _id_in(found: dict[str, Any] | None) -> str:
    value = found.get("id") if found is not None else None
    return value if isinstance(value, str) else ""


def _places(lines: list[bytes], id_of: Callable[[bytes], str]) -> dict[str, int]:
    """The first line of each id."""
    found: dict[str, int] = {}
    for place, line in enumerate(lines):
        if order := id_of(line):
            found.setdefault(order, place)
    return found
