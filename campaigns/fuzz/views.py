"""What other programs read and write beside us: the sheet of work orders, transcripts, evidence."""

from __future__ import annotations

import atexit
import shutil
import tempfile
from functools import cache
from pathlib import Path
from typing import Any

import msgspec

from campaigns.fuzz import corpus
from campaigns.fuzz.logs import take
from campaigns.fuzz.mutate import Mutator
from campaigns.fuzz.target import READ, REFUSED, Target, harmless, holds
from shopfloor.cli.evidence import checked
from shopfloor.cli.log import render as render_report
from shopfloor.cli.tail import last_words
from shopfloor.domain.order import Record
from shopfloor.domain.records import work_order
from shopfloor.stores.codec import decode, encode
from shopfloor.stores.index import Index
from shopfloor.stores.scan import Scanner
from shopfloor.stores.sheet import Sheet, parse, render
from shopfloor.stores.wishes import changes_of


@cache
def _index() -> Index:
    """The index of the good log, made once: nothing here changes it."""
    index, scanner = Index(None), Scanner()
    take(index, [(scanner.feed(corpus.LOG), [])], scanner)
    return index


@cache
def folder() -> Path:
    """A folder for this process, in memory where there is such a place."""
    shared = Path("/dev/shm")  # noqa: S108 - only a place; the folder in it is made for us alone
    made = tempfile.mkdtemp(prefix="shopfloor-fuzz-", dir=shared if shared.is_dir() else None)
    atexit.register(shutil.rmtree, made, ignore_errors=True)
    return Path(made)


def put(name: str, data: bytes) -> Path:
    """A file with this content."""
    path = folder() / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
    return path


def _sheet(m: Mutator) -> bytes:
    if m.random.random() < 0.4:
        return m.data(m.random.choice(corpus.SHEETS), corpus.SHEETS)
    lines = [m.json(m.random.choice(corpus.OBJECTS)) for _ in range(m.random.randint(1, 6))]
    return b"\n".join(lines) + (b"\n" if m.random.random() < 0.8 else b"")


def _check_sheet(data: bytes) -> str:
    """Ours comes out up to date and once; lines of no order of ours stay; wishes can be told; twice is as once."""
    index = _index()
    records = {record.order.id: record for record in corpus.RECORDS}
    sheet = Sheet(data)
    findings = sheet.survey(index, _versions)
    for events, _ in changes_of(findings.wishes, "foreign/x"):
        board = corpus.board_of(corpus.EVENTS)
        for number, (kind, wanted) in enumerate(events):
            board.apply(decode(encode(corpus.event(number, kind, wanted, None))[:-1]))
        holds(events[0][1]["work_order_id"] in board.records, "what is wanted is wanted of no order", events)
    sheet.settle(index, 0)
    content = b"".join(sheet.pieces())
    lines = content.split(b"\n")
    holds(lines.pop() == b"", "the file does not end with a newline")
    foreign = [line for line in data.split(b"\n") if line.strip() and _owner(line) not in records]
    kept = [line for line in lines if _owner(line) not in records]
    holds(foreign == kept, "lines of others were changed", foreign, kept)
    ours = [owner for line in lines if (owner := _owner(line)) in records]
    holds(sorted(ours) == sorted(records), "each order has one line", ours)
    again = Sheet(content)
    repeated = [wish for wish in again.survey(index, _versions).wishes if wish.order in records]
    again.settle(index, 0)
    holds(b"".join(again.pieces()) == content and not repeated, "our own output looks edited", repeated)
    put_again = Sheet(content)
    put_again.put((order, render(record)) for order, record in records.items())
    holds(b"".join(put_again.pieces()) == content, "bringing it up to date again changed it")
    return REFUSED if findings.complaints else READ


def _versions(order: str) -> list[dict[str, Any]]:
    return [work_order(record) for record in corpus.RECORDS if record.order.id == order]


def _owner(line: bytes) -> str:
    found = parse(line)
    name = found.get("id") if found is not None else None
    return name if isinstance(name, str) else ""


def _transcript(m: Mutator) -> bytes:
    report: dict[str, Any] = {"time": 1767700800.0, "kind": "usage", "text": "x", "cost_usd": 0.5, "exit_code": 0}
    report["kind"] = m.random.choice(("usage", "text", "exited", "tool", "asked", "error", "turn_end", "noise"))
    return m.json(report) if m.random.random() < 0.8 else m.data(m.json(report))


def _check_transcript(data: bytes) -> str:
    """A line of a transcript is shown harmlessly, whoever wrote it."""
    text = render_report(data)
    plain = text
    for number in (0, *range(31, 38)):
        plain = plain.replace(f"\x1b[{number}m", "")
    harmless(plain.replace("\t", " "), "not printable", lines=True)
    words = last_words(put("transcript.jsonl", data + b"\n"))
    harmless(words, "not printable")
    return READ if text else REFUSED


def _evidence(m: Mutator) -> bytes:
    criterion = {"command": "make test", "passed": True, "required": True, "log": "1.log", "duration_ms": 5.0}
    return m.json({"verdict": "PASS", "criteria": [{**criterion, "evidence": {"exit_code": 0}}]})


def _check_evidence(data: bytes) -> str:
    """Evidence that was damaged is none."""
    path = put("evidence/verdict.json", data)
    record = msgspec.structs.replace(corpus.RECORDS[0], evidence=str(path.parent))
    assert isinstance(record, Record)
    return READ if checked(record) else REFUSED


TARGETS = (
    Target("sheet", _sheet, _check_sheet, 3),
    Target("transcript", _transcript, _check_transcript, 5),
    Target("evidence", _evidence, _check_evidence, 2),
)
