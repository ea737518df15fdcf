"""What agents say: lines of any length in any pieces, events, and secrets that must not be kept."""

from __future__ import annotations

import json
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import msgspec

from campaigns.fuzz import corpus
from campaigns.fuzz.mutate import Mutator, cut
from campaigns.fuzz.target import READ, REFUSED, Target, chance, holds
from shopfloor.agents._answer import Reading
from shopfloor.agents._lines import Line, Lines
from shopfloor.agents._run import _line
from shopfloor.agents.command import PlainReader
from shopfloor.agents.jsonlines import EventReader
from shopfloor.agents.mini import TrajectoryReader
from shopfloor.masking import MASK, Masker
from shopfloor.ports import Kind, Report

LIMIT = 60
"""Bytes of a line here, so that many are too long."""
MASKER = Masker((corpus.SECRET, "another-secret", "secret-sec", "two\nlines-of-it-here"))
FORMS = tuple(MASKER._forms)


def _talk(m: Mutator) -> bytes:
    if m.random.random() < 0.4:
        return m.data(m.random.choice(corpus.TALKS), corpus.TALKS)
    spoken = [m.json(m.random.choice(corpus.SPEECH)) for _ in range(m.random.randint(1, 8))]
    return b"\n".join(spoken) + m.random.choice((b"", b"\n", b"\r\n"))


def _lines(pieces: list[bytes], limit: int) -> list[Line]:
    lines = Lines(limit)
    return [line for piece in pieces for line in lines.feed(piece)] + lines.close()


def _check_lines(data: bytes) -> str:
    """Lines do not depend on the pieces; none is longer than the limit; one that was cut says so."""
    found = _lines([data], LIMIT)
    holds(found == _lines(cut(data, chance(data)), LIMIT), "lines depend on how they came")
    real = data.split(b"\n")
    real = real if real[-1] else real[:-1]
    holds(len(found) == len(real), "a line was lost or made up", len(found), len(real))
    for line, whole in zip(found, real, strict=True):
        holds(line.cut == (len(whole) > LIMIT), "cut, or not cut, without saying so", line)
        holds(line.data == (whole[:LIMIT] if line.cut else whole.removesuffix(b"\r")), "another line", line, whole)
    return REFUSED if any(line.cut for line in found) else READ


def _heard(pieces: list[bytes], limit: int) -> list[Report]:
    reader = EventReader(MASKER)
    reports = [report for line in _lines(pieces, limit) for report in reader.heard("stdout", line)]
    return [*reports, reader.ended(0)]


def _check_events(data: bytes) -> str:
    """Reports come in the order of the lines, can all be written down, and hold no secret."""
    limit = 1 << 20 if chance(data).random() < 0.7 else LIMIT
    reports = _heard([data], limit)
    holds(reports == _heard(cut(data, chance(data)), limit), "reports depend on how they came")
    for report in reports:
        harmless(_line(report, 0.0), FORMS)
    spent = [report.cost_usd for report in reports if report.cost_usd is not None]
    holds(spent == sorted(spent), "what was spent fell", spent)
    last = reports[-1]
    holds(last.kind is Kind.EXITED, "the end is not the last")
    said = [report for report in reports if report.kind in (Kind.TURN_END, Kind.ERROR)]
    well = bool(said) and said[-1].kind is Kind.TURN_END and said[-1].status == "success"
    holds((last.status == "completed") == well, "a success that nobody reported", last)
    return REFUSED if all(report.kind is Kind.NOISE for report in reports[:-1]) else READ


def _check_plain(data: bytes) -> str:
    """A plain command: its output masked, then cut into lines; nothing but the secrets is missing."""
    pieces = cut(data, chance(data))
    stream = MASKER.stream()
    masked = [stream.feed(piece) for piece in pieces] + [stream.close()]
    whole = MASKER.data(data)
    holds(b"".join(masked) == whole, "masking depends on how it came")
    harmless(whole, FORMS)
    reader = PlainReader("x")
    found = [report for line in _lines(masked, LIMIT) for report in reader.heard("stdout", line)]
    for report in found:
        harmless(_line(report, 0.0), FORMS)
    if not any(form in data for form in FORMS):
        holds(whole == data, "something was masked that is no secret")
    return REFUSED if MASK.encode() in whole else READ


def harmless(kept: bytes, forms: tuple[bytes, ...]) -> None:
    """Raise AssertionError when a form of a secret is in what is kept."""
    for form in forms:
        holds(form not in kept, "a secret was kept", form, kept)


def _secretive(m: Mutator) -> bytes:
    """Secrets whole, in halves, overlapping, escaped, between anything."""
    parts: list[bytes] = []
    for _ in range(m.random.randint(1, 6)):
        form = m.random.choice(FORMS)
        parts += m.random.choice(
            ((form,), (form[: m.random.randint(0, len(form))],), (m.word().encode("utf-8", "replace"),))
        )
    joined = b"".join(parts)
    return m.data(joined, corpus.TALKS) if m.random.random() < 0.5 else joined


def _objects(m: Mutator) -> bytes:
    """One event with odd values deep inside."""
    value: Any = m.random.choice(corpus.SPEECH)
    if m.random.random() < 0.1:
        for _ in range(m.random.choice((30, 39, 41, 300, 900))):
            value = [value] if m.random.random() < 0.5 else {"a": value}
        value = {"type": "deep", "data": value}
    return m.json(value)


def _check_object(data: bytes) -> str:
    """One event by itself: the strict reader of transcripts reads what is made of it."""
    for report in _heard([data], 1 << 20):
        line = _line(report, 0.0)
        msgspec.json.decode(line)
        holds(line.count(b"\n") == 1, "a report is not one line", line)
        harmless(line, FORMS)
    return READ


def _documents(m: Mutator) -> bytes:
    """A trajectory, or an answer, with odd values in it."""
    return m.json(m.random.choice(corpus.TRAJECTORIES if m.random.random() < 0.5 else corpus.ANSWERS))


def _check_trajectory(data: bytes) -> str:
    """A trajectory as it grows: nothing is told twice, sums do not fall, no secret is kept."""
    try:
        document = json.loads(data)
    except (ValueError, RecursionError):
        return REFUSED
    reader = TrajectoryReader(Path("none"), MASKER, "x")
    messages = document.get("messages") if isinstance(document, dict) else None
    reports = []
    if isinstance(messages, list):
        for length in range(min(len(messages), 8)):
            reports += reader.take({"messages": messages[:length]})
    reports += reader.take(document)
    holds(reader.take(document) == [], "something is told twice")
    reports.append(reader.ended(0))
    for report in reports:
        harmless(_line(report, 0.0), FORMS)
    spent = [report.cost_usd for report in reports if report.cost_usd is not None]
    holds(spent == sorted(spent), "what was spent fell", spent)
    well = any(report.kind is Kind.TURN_END and report.status == "success" for report in reports)
    holds((reports[-1].status == "completed") == well, "a success that nobody reported", reports[-1])
    return READ if len(reports) > 1 else REFUSED


def _check_answer(data: bytes) -> str:
    """The answer of a server: it does not depend on the pieces, nothing is written outside, no secret is kept."""
    with TemporaryDirectory() as folder:
        workspace = Path(folder, "inside")
        workspace.mkdir()
        kind = chance(data).choice(("application/json", "application/x-ndjson", "text/plain"))
        found = [_answered(pieces, kind, workspace) for pieces in ([data], cut(data, chance(data)))]
        holds(found[0] == found[1], "an answer depends on how it came")
        holds(sorted(path.name for path in Path(folder).iterdir()) == ["inside"], "written outside")
    for report in found[0]:
        harmless(_line(report, 0.0), FORMS)
    holds(found[0][-1].kind is Kind.EXITED, "the end is not the last")
    return READ if found[0][-1].status == "completed" else REFUSED


def _answered(pieces: list[bytes], kind: str, workspace: Path) -> list[Report]:
    reading = Reading(MASKER, workspace)
    reading.open(kind)
    reports = [report for piece in pieces for report in reading.feed(piece)]
    return [*reports, *reading.close(), reading.ended("")]


TARGETS = (
    Target("lines", _talk, _check_lines, 10),
    Target("agent-events", _talk, _check_events, 6),
    Target("agent-event", _objects, _check_object, 6),
    Target("plain-output", _talk, _check_plain, 6),
    Target("trajectory", _documents, _check_trajectory, 4),
    Target("server-answer", _documents, _check_answer, 1),
    Target("masking", _secretive, _check_plain, 6),
)
