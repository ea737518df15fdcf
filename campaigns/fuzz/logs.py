"""The log: its scanner, its codec, the fold, the index that is made of it, and the lines that people see of it."""

from __future__ import annotations

import json
from typing import Any

import msgspec

from campaigns.fuzz import corpus
from campaigns.fuzz.mutate import Mutator, cut
from campaigns.fuzz.target import READ, REFUSED, Target, chance, harmless, holds
from shopfloor.cli.lines import line
from shopfloor.domain import report
from shopfloor.domain.board import Board, counts
from shopfloor.domain.errors import Refused, UsageError
from shopfloor.domain.events import OPEN_TO_ALL, E, Event, Stamp
from shopfloor.domain.floor import Capacity, Floor, Now
from shopfloor.domain.fold import OURS
from shopfloor.domain.records import work_order
from shopfloor.stores.codec import decode, encode
from shopfloor.stores.index import Index
from shopfloor.stores.news import Mark, News
from shopfloor.stores.rows import order_row, run_row
from shopfloor.stores.scan import Found, Problem, Scanner

ROOM = Capacity(starts=100, checks=100, landing=True)
AFTER = Event("evt-after", "note.taken", "2026-01-06T12:00:00.000Z", "human", None, {})


def _log(m: Mutator) -> bytes:
    """Bytes of a log with damage, or whole lines with odd values in them."""
    match m.random.randrange(4):
        case 0:
            return m.data(m.random.choice(corpus.LOGS), corpus.LOGS)
        case 1:
            return _story(m)
    lines = []
    for number, event in enumerate(m.random.sample(corpus.EVENTS, m.random.randint(1, 12))):
        known: dict[str, Any] = {name: getattr(event, name) for name in Event.__struct_fields__}
        known["sf"] = [1, number + 1, 0, 1] if event.sf else None
        lines.append(m.json(known) + b"\n" if m.random.random() < 0.7 else encode(event))
    return b"".join(lines)


def _story(m: Mutator) -> bytes:
    """A log up to anywhere, in which one to three lines say something else: what comes before makes them matter."""
    lines = corpus.LINES[: m.random.randint(1, len(corpus.LINES))]
    for _ in range(m.random.randint(1, 3)):
        place = m.random.randrange(len(lines))
        known = json.loads(corpus.LINES[place])
        known["data"] = m.tree(known["data"])
        if m.random.random() < 0.2:
            known = m.tree(known)
        lines[place] = m.json(known) + b"\n"
    return b"".join(lines)


def _scan(pieces: list[bytes]) -> tuple[list[Found], list[Problem], Scanner]:
    scanner = Scanner()
    found = [one for piece in pieces for one in scanner.feed(piece)]
    holds(scanner.seen == sum(map(len, pieces)), "a byte was neither read nor is waited for", scanner.seen)
    found += scanner.settle()
    return found, scanner.problems, scanner


def _check_log(data: bytes) -> str:
    found, problems, scanner = _scan([data])
    again, problems_again, other = _scan(cut(data, chance(data)))
    holds(found == again, "events depend on how the file was cut")
    holds(problems == problems_again, "problems depend on how the file was cut", problems, problems_again)
    holds((scanner.offset, scanner.line, scanner.rest) == (other.offset, other.line, other.rest), "places differ")
    starts = [one.start for one in found]
    holds(starts == sorted(set(starts)), "events out of the order of the file")
    for one in found:
        holds(data[one.end - 1 : one.end] == b"\n", "an event ends before its line", one)
        holds(decode(data[one.start : one.end - 1]) == one.event, "an event is not what stands there", one)
    _accounted(data, {one.start for one in found}, problems)
    closing = b"" if data.endswith(b"\n") or not data else b"\n"
    last = _scan([data + closing + encode(AFTER)])[0][-1]
    holds(last.event == AFTER, "a whole line behind damage was not read")
    return REFUSED if problems else READ


def _accounted(data: bytes, starts: set[int], problems: list[Problem]) -> None:
    """Every whole line is blank, counts, is told, or is part of a change that is told."""
    told = {problem.line for problem in problems}
    told_groups = False
    at = 0
    for number, text in enumerate(data.split(b"\n")[:-1], 1):
        grouped = False
        if text.strip() and at not in starts and number not in told:
            stamp = decode(text).sf  # raises for a damaged line that was not told
            grouped = stamp is not None and stamp.size > 1
            holds(grouped and told_groups, "a line was passed over in silence", number, text)
        told_groups |= number in told
        at += len(text) + 1


def _events(data: bytes) -> list[Event]:
    return [one.event for one in _scan([data])[0]]


def _check_fold(data: bytes) -> str:
    """No line breaks the fold, nor anything that is made of it; lines without the right to speak change nothing."""
    events = _events(data)
    board, lawful = Board(), Board()
    floor = Floor()
    for number, event in enumerate(events):
        board.apply(event)
        unstamped = event.sf is None or event.sf.controller <= 0
        if unstamped and event.event_type in OURS and event.event_type not in OPEN_TO_ALL:
            holds(not counts(event), "counts without a controller's stamp", event)
        else:
            lawful.apply(event)
        now = Now(corpus.START_S + number, float(number))
        floor.apply(event, now)
        _open(floor, event, now)
        floor.decide(now, ROOM)
        harmless(line(event, board), "a line for people is not printable")
    holds(_plain(board) == _plain(lawful), "a line that nobody may write changed something")
    for record in board.records.values():
        msgspec.json.encode([order_row(record), work_order(record), record])
        holds(record.order.id, "an order without an id")
    for run in board.runs.values():
        holds(all(board.records[order].order.run == run.id for order in run.orders), "an order in two runs")
        msgspec.json.encode([run_row(run, {}), report.build(board, run)])
    return READ if events else REFUSED


def _open(floor: Floor, event: Event, now: Now) -> None:
    run_id = event.data.get("run_id")
    if event.event_type == E.RUN_STARTED and isinstance(run_id, str) and run_id in floor.board.runs:
        try:
            floor.open(run_id, now)
        except UsageError:  # orders that wait in a circle
            floor.run = None


def _plain(board: Board) -> bytes:
    return msgspec.json.encode([board.records, board.runs, board.requests, board.paused, board.controller])


def _check_index(data: bytes) -> str:
    """The index takes whatever counts, in one go or in two, and can be asked."""
    found, problems, scanner = _scan([data])
    whole, halves = Index(None), Index(None)
    try:
        take(whole, [(found, problems)], scanner)
        middle = len(found) // 2
        take(halves, [(found[:middle], problems), (found[middle:], [])], scanner)
        ids = whole.changed_after(0)
        holds(set(ids) == set(halves.changed_after(0)), "orders depend on how the log was taken in")
        one, other = list(whole.records(ids)), list(halves.records(ids))
        holds(one == other, "records depend on how the log was taken in")
        for record in one:
            work_order(record)
    finally:
        whole.close()
        halves.close()
    return READ if found else REFUSED


def take(index: Index, parts: list[tuple[list[Found], list[Problem]]], scanner: Scanner) -> None:
    for found, problems in parts:
        news = News()
        news.found, news.problems = found, problems
        to = Mark(offset=found[-1].end if found else index.mark().offset, sequence=scanner.sequence)
        with index.transaction():
            index.advance(news, to, "x")


def _words(m: Mutator) -> bytes:
    """Texts for an event: what an agent, a person or another program may have said."""
    return m.json([m.word() for _ in range(8)] + [m.value(), {m.word(): m.value()}])


def _check_encode(data: bytes) -> str:
    """An event of any texts is one line, and reads as what it was; or it is refused."""
    try:
        found = json.loads(data.decode("utf-8", "surrogatepass"))  # takes what ours does not: halves of characters, NaN
    except (ValueError, RecursionError):
        found = data.decode("utf-8", "surrogateescape")
    words = [*(str(one) for one in found if isinstance(one, str)), *["x"] * 4] if isinstance(found, list) else ["x"] * 4
    extra = found if isinstance(found, dict) else {"any": found}
    event = Event(words[0], words[1], words[2], words[3], words[-1], extra, words[-2] or None, Stamp(1, 2))
    try:
        text = encode(event)
    except Refused as refused:
        holds("cannot be written" in refused.message, refused.message)
        return REFUSED
    holds(text.count(b"\n") == 1 and text.endswith(b"\n"), "an event is not one line", text)
    holds(b"\0" not in text and b"\x1b" not in text, "a control character stands in the line", text)
    holds(decode(text[:-1]) == event, "an event reads as another", text)
    return READ


def _one_line(m: Mutator) -> bytes:
    return m.data(m.random.choice(corpus.LINES).rstrip(b"\n"), corpus.LINES).replace(b"\n", b"")


def _check_decode(data: bytes) -> str:
    """A line is an event that can be written again, or is refused with a ValueError that people can read."""
    try:
        event = decode(data)
    except ValueError:
        return REFUSED
    holds(decode(encode(event)[:-1]) == event, "what was read cannot be written again", event)
    return READ


TARGETS = (
    Target("log", _log, _check_log, 10),
    Target("fold", _log, _check_fold, 8),
    Target("index", _log, _check_index, 1),
    Target("encode", _words, _check_encode, 8),
    Target("decode", _one_line, _check_decode, 10),
)
